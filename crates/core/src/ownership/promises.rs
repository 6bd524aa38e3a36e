//! R25: promises not to contend. While every other host has made one, an owner goes on without the disk.
//!
//! Invariant: a promise never becomes shorter.
//! Invariant: each promise that was received stands in both orders, by host and by time. An owner asks for the earliest one at
//! each heartbeat, and so does not look at all of them.
//!
//! It does not: know who owns what. Whether a promise may be given, and what one that was received is good for, is asked
//! before.

use crate::ids::HostId;
use crate::time::{Span, Time};
use alloc::collections::{BTreeMap, BTreeSet};
use serde::{Deserialize, Serialize};

/// A promise of another host. They are ordered by time, the earliest first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Received {
    until: Time,
    host: HostId,
}

/// What this host has promised, and what others have promised to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Promises {
    /// This host does not contend before that.
    given: Time,
    /// Until when each other host does not contend, on this host's clock.
    received: BTreeMap<HostId, Time>,
    /// The same by time, the earliest first.
    in_order: BTreeSet<Received>,
}

impl Promises {
    /// This host promises not to contend for so long.
    pub(super) fn give(&mut self, length: Span, now: Time) {
        let until = now + length;
        assert!(until >= self.given, "R25: a promise became shorter");
        self.given = until;
    }

    /// Until when this host has promised not to contend.
    pub(super) fn given(&self) -> Time {
        self.given
    }

    /// That host has promised. Returns until when all `others` have, if they all have.
    pub(super) fn receive(&mut self, host: &HostId, until: Time, others: usize) -> Option<Time> {
        let known = self.received.get(host).copied();
        if known.is_none_or(|known| known < until) {
            if let Some(known) = known {
                self.in_order.remove(&Received { until: known, host: host.clone() });
            }
            self.received.insert(host.clone(), until);
            self.in_order.insert(Received { until, host: host.clone() });
        }
        let earliest = self.in_order.first()?.until;
        (self.received.len() == others).then_some(earliest)
    }

    /// What others have promised concerned an earlier epoch.
    pub(super) fn forget_received(&mut self) {
        self.received.clear();
        self.in_order.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::{HostId, Promises, Time};

    #[test]
    fn an_ownership_goes_on_for_as_long_as_everybody_has_promised() {
        let mut promises = Promises::default();
        let (first, second) = (HostId::new("host-1"), HostId::new("host-2"));
        assert_eq!(promises.receive(&first, Time(50), 2), None);
        assert_eq!(promises.receive(&second, Time(40), 2), Some(Time(40)));
        // One that comes late does not shorten anything.
        assert_eq!(promises.receive(&second, Time(30), 2), Some(Time(40)));
        assert_eq!(promises.receive(&second, Time(60), 2), Some(Time(50)));
        // Promises of the same time are two, not one.
        assert_eq!(promises.receive(&first, Time(60), 2), Some(Time(60)));
        assert_eq!(promises.receive(&second, Time(65), 2), Some(Time(60)));
        promises.forget_received();
        assert_eq!(promises.receive(&first, Time(70), 2), None);
    }
}
