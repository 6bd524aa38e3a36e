//! R72, R73: holds of other hosts' guards, as their heartbeats on disk tell of them.
//!
//! While a silent host may be holding, its VMs may run on although their leases are over. The owner must not restart them.
//!
//! Invariant: a hold is counted for at least as long as the guard that wrote it may hold.
//!
//! It does not: judge whether a host is alive.

use super::hold_end;
use crate::ids::HostId;
use crate::time::{Span, Time};
use crate::timing::Timing;
use alloc::collections::{BTreeMap, BTreeSet};
use serde::{Deserialize, Serialize};

/// Which other hosts may be holding on one datastore.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct OtherHolds {
    /// By each host's last heartbeat.
    until: BTreeMap<HostId, Time>,
    /// R73: hosts of which a person said that they are down, until they write anything more.
    presumed_down: BTreeSet<HostId>,
}

impl OtherHolds {
    /// The host has written a new heartbeat, legible or not: it is not down, whatever a person said.
    pub(crate) fn on_sign_of_life(&mut self, host: &HostId) {
        self.presumed_down.remove(host);
    }

    /// A new, legible heartbeat of that host. `left`: how much of its hold was left when it wrote that.
    pub(crate) fn on_heartbeat(&mut self, host: &HostId, left: Option<Span>, timing: &Timing, now: Time) {
        match left {
            Some(left) => drop(self.until.insert(host.clone(), hold_end(now, left, timing))),
            None => drop(self.until.remove(host)),
        }
    }

    /// R73: a person has made sure that the host is down.
    pub(crate) fn confirm_down(&mut self, host: &HostId) {
        self.presumed_down.insert(host.clone());
    }

    /// R73: a person has made sure that the host is down, and nothing has come from it since.
    pub(crate) fn is_presumed_down(&self, host: &HostId) -> bool {
        self.presumed_down.contains(host)
    }

    /// Until when that host's guard may be holding. `bound` counts if none of its heartbeats was ever legible: the end of the
    /// longest hold that anybody may have been granted.
    pub(crate) fn until(&self, host: &HostId, bound: Option<Time>) -> Option<Time> {
        let known = self.until.get(host).copied();
        known.or(bound).filter(|_| !self.presumed_down.contains(host))
    }
}
