//! What must be true of the rooms together after each step. Each room asserts its own.
//!
//! The simulator and the model check call this after each step. It costs too much for an agent.

use super::Core;

impl Core {
    /// Panics when something is not as it must be: a bug of the core.
    pub fn check(&self) {
        let now = self.life.now();
        let primary = self.election.is_primary();
        self.hosts.check(&self.election);
        self.guard.check();
        if self.life.is_stopping() {
            let owned = self.datastores.owned(now).next();
            assert!(owned.is_none(), "an agent that stops gives up what it owns");
        }
        for datastore in self.datastores.all() {
            let name = datastore.name();
            let Some(list) = datastore.list() else { continue };
            assert!(primary, "{name}: only a primary has the list of an owner");
            if let Some(epoch) = datastore.ownership().epoch(now) {
                assert_eq!(list.epoch(), epoch, "{name}: the list is of the epoch that this host owns");
            }
        }
        // An owner's lease counts from a request. This host's own ownership may last a failure time-out, by promises.
        let longest = now + self.config.timing.lease.max(self.config.timing.failure_timeout);
        for (name, until) in self.guard.passed() {
            assert!(until <= longest, "{name}: a lease was passed on that is longer than any ownership");
        }
    }
}
