//! R77: a round of restarts. It begins when the first VM wants a host, and ends when nobody waits for anybody.

use crate::time::Time;
use serde::{Deserialize, Serialize};

/// The present round, if there is one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Rounds {
    began: Option<Time>,
    /// When the order of starts may let somebody go although nothing happens.
    again: Option<Time>,
}

impl Rounds {
    /// Somebody wants a host. Returns when the round began.
    pub(crate) fn begin(&mut self, now: Time) -> Time {
        *self.began.get_or_insert(now)
    }

    pub(crate) fn end(&mut self) {
        self.began = None;
    }

    /// Places are to be given again at that time, if it is not over.
    pub(crate) fn look_again(&mut self, at: impl Iterator<Item = Time>, now: Time) {
        self.again = at.filter(|at| *at > now).min();
    }

    /// Whether that time has come. Says so once.
    pub(crate) fn take_due(&mut self, now: Time) -> bool {
        self.again.take_if(|at| *at <= now).is_some()
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        self.again
    }
}
