//! R75: what makes another try worth while for a VM that no host could start: a host that can take VMs, a datastore that it
//! reaches, other settings, or room that a VM has left for good.

use super::*;
use crate::ids::VmId;
use crate::protected_list::OwnerList;
use crate::time::Span;

/// Room that is left again and again, as where desktops come and go all day, hastens tries no more often than this.
const ROOM_PAUSE: Span = Span::from_secs(60);

/// What was noted at the last look.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Relevant {
    /// Hosts that can take VMs, and the datastores that they reach.
    takers: BTreeSet<(HostId, Option<DatastoreName>)>,
    revision: u64,
    /// VMs, and where they run.
    settled: BTreeSet<(VmId, HostId)>,
    /// Room was left, and the pause is not over.
    freed: bool,
    /// Room hastens nothing before then.
    pause_until: Time,
}

impl Relevant {
    /// When room that was left may hasten tries.
    pub(super) fn due(&self) -> Option<Time> {
        self.freed.then_some(self.pause_until)
    }
}

impl Core {
    /// Hastens the tries of all VMs that wait for their time when something has come that may help them.
    pub(super) fn note_relevant(&mut self, now: Time) {
        let takers = self.takers();
        let revision = self.settings.revision;
        let gained = !takers.is_subset(&self.relevant.takers) || self.relevant.revision != revision;
        let mut settled = BTreeSet::new();
        let mut missing = BTreeSet::new();
        for list in self.lists() {
            list.where_they_run(&mut settled, &mut missing);
        }
        // A VM that is to come back has left no room: it wants it again.
        let mut left = self.relevant.settled.difference(&settled);
        let freed = left.any(|(vm, _)| !missing.contains(vm)) || self.relevant.freed;
        // A try that is under way may come to nothing: the room is kept in mind.
        let freed = freed && self.lists().any(OwnerList::is_in_need);
        let by_room = freed && self.is_waiting() && now >= self.relevant.pause_until;
        let pause_until = if by_room { now + ROOM_PAUSE } else { self.relevant.pause_until };
        self.relevant = Relevant { takers, revision, settled, freed: freed && !by_room, pause_until };
        if gained || by_room {
            for datastore in self.datastores.values_mut() {
                if let Some(list) = datastore.list_mut() {
                    list.hurry(now);
                }
            }
        }
    }

    fn takers(&self) -> BTreeSet<(HostId, Option<DatastoreName>)> {
        let mut takers = BTreeSet::new();
        if self.vms.is_well() {
            let connected = self.datastores.values().filter(|datastore| datastore.is_connected());
            let me = || self.config.me.clone();
            takers.insert((me(), None));
            takers.extend(connected.map(|datastore| (me(), Some(datastore.name().clone()))));
        }
        for peer in self.hosts.members() {
            let Some(heartbeat) = peer.heartbeat().filter(|heartbeat| heartbeat.hypervisor_well) else {
                continue;
            };
            takers.insert((peer.host().clone(), None));
            takers.extend(heartbeat.datastores.iter().map(|name| (peer.host().clone(), Some(name.clone()))));
        }
        takers
    }
}
