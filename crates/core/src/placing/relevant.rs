//! R75: what makes another try worth while for a VM that no host could start: a host that can take VMs, a datastore that it
//! reaches, other settings, or room that a VM has left for good.
//!
//! It does not: try anything. It says when all that wait for their time are to be tried at once.

use super::VmPlace;
use crate::ids::{DatastoreName, HostId, VmId};
use crate::time::{Span, Time};
use alloc::collections::BTreeSet;
use serde::{Deserialize, Serialize};

/// Room that is left again and again, as where desktops come and go all day, hastens tries no more often than this.
const ROOM_PAUSE: Span = Span::from_secs(60);

/// A host that can take VMs, and a datastore that it reaches; `None` stands for the host by itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Taker {
    pub(crate) host: HostId,
    pub(crate) datastore: Option<DatastoreName>,
}

impl Taker {
    /// The host by itself, and with each datastore that it reaches.
    pub(crate) fn all_of<'a>(
        host: &'a HostId,
        datastores: impl Iterator<Item = &'a DatastoreName> + 'a,
    ) -> impl Iterator<Item = Taker> + 'a {
        let each = [None].into_iter().chain(datastores.cloned().map(Some));
        each.map(|datastore| Taker { host: host.clone(), datastore })
    }
}

/// What was noted at the last look.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Relevant {
    /// Hosts that can take VMs, and the datastores that they reach.
    takers: BTreeSet<Taker>,
    revision: u64,
    /// VMs, and where they run.
    settled: BTreeSet<VmPlace>,
    /// Room was left, and the pause is not over.
    freed: bool,
    /// Room hastens nothing before then.
    pause_until: Time,
}

/// What a look shows.
pub(crate) struct Look {
    /// Hosts that can take VMs, and the datastores that they reach.
    pub(crate) takers: BTreeSet<Taker>,
    /// Of the settings.
    pub(crate) revision: u64,
    /// VMs, and where they run.
    pub(crate) settled: BTreeSet<VmPlace>,
    /// VMs that are to come back.
    pub(crate) missing: BTreeSet<VmId>,
    /// Some VM is to come back, whether or not something is being tried for it.
    pub(crate) in_need: bool,
    /// Some VM waits for a host.
    pub(crate) waiting: bool,
}

impl Relevant {
    /// When room that was left may hasten tries.
    pub(crate) fn due(&self) -> Option<Time> {
        self.freed.then_some(self.pause_until)
    }

    /// Whether something has come since the last look that may help those that wait for their time.
    pub(crate) fn note(&mut self, look: Look, now: Time) -> bool {
        let gained = !look.takers.is_subset(&self.takers) || self.revision != look.revision;
        // A VM that is to come back has left no room: it wants it again.
        let mut left = self.settled.difference(&look.settled);
        let freed = left.any(|place| !look.missing.contains(&place.vm)) || self.freed;
        // A try that is under way may come to nothing: the room is kept in mind.
        let freed = freed && look.in_need;
        let by_room = freed && look.waiting && now >= self.pause_until;
        self.takers = look.takers;
        self.revision = look.revision;
        self.settled = look.settled;
        self.freed = freed && !by_room;
        if by_room {
            self.pause_until = now + ROOM_PAUSE;
        }
        gained || by_room
    }
}
