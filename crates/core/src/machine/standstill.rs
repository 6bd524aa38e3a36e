//! R16: a host that stood still hears the others again before it finds anybody silent. It concerns only what is thought of others.

use super::*;

impl Core {
    /// Before a step: was nothing taken in for a while? What the others said meanwhile may still be on its way here.
    pub(super) fn notice_standstill(&mut self, now: Time) {
        let timing = &self.config.timing;
        // Not again and again: between two graces everybody is judged once at least, or one that stands still every other
        // second would never find anybody silent. (`self.now` is that of the step before.)
        let rested = self.awake_since.is_none_or(|at| {
            now.since(at) >= timing.failure_timeout && self.now.since(at) >= timing.network_timeout()
        });
        if now.since(self.now) < timing.standstill() || !rested {
            return;
        }
        self.awake_since = Some(now);
        self.election.go_on(&self.config.timing, now);
        for datastore in self.datastores.values_mut() {
            datastore.awake_since = Some(now);
        }
    }

    /// Too soon after a standstill to find others silent.
    pub(super) fn is_just_awake(&self, now: Time) -> bool {
        self.awake_since.is_some_and(|at| now.since(at) < self.config.timing.network_timeout())
    }
}
