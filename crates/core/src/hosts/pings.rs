//! The pings of one other host: at most one is under way.

use crate::time::{Span, Time};
use serde::{Deserialize, Serialize};

/// So many in a row without an answer: it does not answer.
const MISSED: u32 = 2;

/// What its pings have shown.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Pings {
    in_flight: bool,
    due: Time,
    /// When the last one was sent.
    sent: Time,
    /// When the last answer came.
    answered: Option<Time>,
    /// When that was sent which it answers.
    answer_sent: Option<Time>,
    /// So many in a row were not answered.
    missed: u32,
}

impl Pings {
    pub(crate) fn new(now: Time) -> Pings {
        Pings { in_flight: false, due: now, sent: now, answered: None, answer_sent: None, missed: 0 }
    }

    /// Whether to send one now.
    pub(crate) fn take(&mut self, interval: Span, now: Time) -> bool {
        if self.in_flight || now < self.due {
            return false;
        }
        self.in_flight = true;
        self.sent = now;
        self.due = now + interval;
        true
    }

    pub(crate) fn on_done(&mut self, answered: bool, now: Time) {
        self.in_flight = false;
        if answered {
            self.answered = Some(now);
            self.answer_sent = Some(self.sent);
            self.missed = 0;
        } else {
            self.missed = self.missed.saturating_add(1);
        }
    }

    /// The host was heard: what was missed before counts no more.
    pub(crate) fn on_heard(&mut self) {
        self.missed = 0;
    }

    /// It has not answered two in a row.
    pub(crate) fn are_missed(&self) -> bool {
        self.missed >= MISSED
    }

    /// When the last answer came.
    pub(crate) fn answered(&self) -> Option<Time> {
        self.answered
    }

    /// When the last one was sent that was answered.
    pub(crate) fn answer_sent(&self) -> Option<Time> {
        self.answer_sent
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        (!self.in_flight).then_some(self.due)
    }
}
