//! This run of the agent: when it began, how far it has come, and the numbers that it gives away.
//!
//! Invariant: time never goes back, and no number is given twice.

use crate::files::FilesDigest;
use crate::ids::Incarnation;
use crate::out::Counters;
use crate::time::Time;
use serde::{Deserialize, Serialize};

/// This run of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Life {
    counters: Counters,
    begun: Time,
    /// The time of the last step.
    now: Time,
    /// People know that the agent has begun.
    announced: bool,
    stopping: bool,
}

impl Life {
    pub(crate) fn new(incarnation: Incarnation, files: FilesDigest, now: Time) -> Life {
        let counters = Counters { incarnation, files, operations: 0, messages: 0 };
        Life { counters, begun: now, now, announced: false, stopping: false }
    }

    pub(crate) fn begun(&self) -> Time {
        self.begun
    }

    /// The time of the last step.
    pub(crate) fn now(&self) -> Time {
        self.now
    }

    /// A step begins: hands out the counters, until it ends.
    pub(crate) fn begin_step(&mut self, now: Time) -> Counters {
        assert!(now >= self.now, "time never goes back: {now:?} after {:?}", self.now);
        self.now = now;
        self.counters.clone()
    }

    pub(crate) fn end_step(&mut self, counters: Counters) {
        self.counters = counters;
    }

    /// Whether the beginning is to be told now. Says so once.
    pub(crate) fn take_announcement(&mut self) -> bool {
        !core::mem::replace(&mut self.announced, true)
    }

    pub(crate) fn stop(&mut self) {
        self.stopping = true;
    }

    /// The agent is about to end: it starts nothing and decides nothing any more.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping
    }
}
