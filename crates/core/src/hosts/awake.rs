//! R16: a host that stood still hears the others again before it finds anybody silent.
//!
//! Why: what the others said meanwhile may still be on its way here.
//! It does not: change what this host does itself. It concerns only what is thought of others.

use crate::time::Time;
use crate::timing::Timing;
use serde::{Deserialize, Serialize};

/// When this core last went on after standing still.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Awake {
    since: Option<Time>,
}

impl Awake {
    /// Whether nothing was taken in for a while. `before`: the time of the step before this one.
    pub(crate) fn notice(&mut self, before: Time, now: Time, timing: &Timing) -> bool {
        // Between two graces everybody is judged once at least. Otherwise a host that stands still every other second would
        // never find anybody silent.
        let rested = self.since.is_none_or(|at| {
            now.since(at) >= timing.failure_timeout && before.since(at) >= timing.network_timeout()
        });
        let stood_still = now.since(before) >= timing.standstill() && rested;
        if stood_still {
            self.since = Some(now);
        }
        stood_still
    }

    /// Too soon after a standstill to find others silent.
    pub(crate) fn is_recent(&self, timing: &Timing, now: Time) -> bool {
        self.since.is_some_and(|at| now.since(at) < timing.network_timeout())
    }

    /// When others may be found silent again.
    pub(crate) fn deadline(&self, timing: &Timing, now: Time) -> Option<Time> {
        self.since.filter(|_| self.is_recent(timing, now)).map(|at| at + timing.network_timeout())
    }
}
