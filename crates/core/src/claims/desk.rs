//! What the claim of one VM is decided by: this host, and the protected list as it was last looked at.

use super::isolated::IsolationNow;
use crate::guard::{GuardWord, ProcessState};
use crate::guard_side::Lease;
use crate::ids::{DatastoreName, HostId, VmId};
use crate::local_vms::Domains;
use crate::out::Out;
use crate::register::{Claim, Entry, ProtectedList, VmSpec};
use crate::settings::HostOffers;
use crate::time::Time;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// The protected list as a host last saw it, and since when it may be relied on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Look {
    /// When the read was started.
    pub(crate) started: Time,
    /// The list of the highest epoch.
    pub(crate) list: ProtectedList,
    /// Which of its entries are this host's, as holder. A function of the list: noted when it is read, since it is asked for in
    /// each step.
    mine: Vec<usize>,
    /// Somebody is about to own a later epoch: grants of this list can't be relied on now.
    pub(crate) changing: bool,
}

impl Look {
    pub(crate) fn new(me: &HostId, started: Time, list: ProtectedList, changing: bool) -> Look {
        let entries = list.entries.iter().enumerate();
        let mine = entries.filter(|(_, entry)| entry.holder.as_ref() == Some(me));
        let mine = mine.map(|(index, _)| index).collect();
        Look { started, list, mine, changing }
    }

    /// The entries whose holder this host is.
    pub(crate) fn mine(&self) -> impl Iterator<Item = &Entry> {
        self.mine.iter().map(|index| &self.list.entries[*index])
    }

    /// Whether it may say what has become of a VM whose lease was over: it was started within the present term (R51), and nobody
    /// is changing the owner.
    pub(super) fn is_conclusive(&self, lease: Lease) -> bool {
        self.started >= lease.since && !self.changing
    }
}

/// What the claims need to see of the host.
pub(crate) struct HostSide<'a> {
    /// All domains; `None` while libvirt does not answer.
    pub(crate) domains: Option<&'a Domains>,
    pub(crate) concurrent_starts: u32,
    /// All files name the same. Else nothing is let execute that does not.
    pub(crate) agreed: bool,
    /// Versions of XML that are on the datastore.
    pub(crate) stored: &'a BTreeMap<VmId, VmSpec>,
    /// What the host can give to VMs.
    pub(crate) offers: Option<&'a Arc<HostOffers>>,
    /// The run lease on this datastore, while there is one.
    pub(crate) lease: Option<Lease>,
    /// When the last heartbeat was begun that arrived on this datastore.
    pub(crate) beaten: Option<Time>,
    /// A guard is connected.
    pub(crate) guarded: bool,
    /// What others are told of it.
    pub(crate) guard_word: GuardWord,
    /// What the processes of watched VMs do.
    pub(crate) processes: &'a BTreeMap<VmId, ProcessState>,
    /// Watched processes that the guard has seen end, and since when this host knows.
    pub(crate) ended: &'a BTreeMap<VmId, Time>,
    /// Since when libvirt has not answered, if it does not.
    pub(crate) silent: Option<Time>,
    /// Whether this host is isolated.
    pub(crate) isolation: IsolationNow,
}

/// What the claims want of the datastore.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Wanted {
    /// The power-on list has to be written.
    write: bool,
    /// A look at the protected list is wanted, started no sooner than this was set.
    look: bool,
}

impl Wanted {
    /// At the start of a run both are.
    pub(super) fn both() -> Wanted {
        Wanted { write: true, look: true }
    }

    pub(super) fn want_write(&mut self) {
        self.write = true;
    }

    pub(super) fn want_look(&mut self) {
        self.look = true;
    }

    pub(super) fn is_write_wanted(&self) -> bool {
        self.write
    }

    pub(super) fn is_look_wanted(&self) -> bool {
        self.look
    }

    pub(super) fn write_begins(&mut self) {
        self.write = false;
    }

    /// `again`: another one is wanted already.
    pub(super) fn look_begins(&mut self, again: bool) {
        self.look = again;
    }
}

/// What a decision about one VM may use, and change, besides the VM.
pub(super) struct Desk<'a, 'o> {
    pub(super) me: &'a HostId,
    pub(super) datastore: &'a DatastoreName,
    pub(super) look: Option<&'a Look>,
    pub(super) host: &'a HostSide<'a>,
    /// There was a lease in this run.
    pub(super) leased: bool,
    /// A rule is broken on purpose: all is granted.
    pub(super) blind: bool,
    /// A rule is broken on purpose: any frozen copy passes for the newest.
    pub(super) keeps_old_copies: bool,
    pub(super) wanted: &'a mut Wanted,
    pub(super) out: &'a mut Out<'o>,
}

impl<'a> Desk<'a, '_> {
    pub(super) fn entry(&self, vm: VmId) -> Option<&'a Entry> {
        self.look.and_then(|look| look.list.entry(vm))
    }

    /// Whether the list grants the VM to this host, and is not about to take it away.
    pub(super) fn is_mine(&self, entry: &Entry) -> bool {
        entry.holder.as_ref() == Some(self.me) && entry.intent.is_none()
    }

    /// R30: whether a look shows what is claimed to be granted: to this host, by the same grant, with no intent to move it.
    pub(super) fn is_granted(&self, look: &Look, claim: &Claim) -> bool {
        let granted = |entry: &Entry| self.is_mine(entry) && Some(entry.token) == claim.token;
        self.blind || look.list.entry(claim.vm).is_some_and(granted)
    }

    /// What a VM may be let execute on: a look and a lease, while all files name the same.
    pub(super) fn footing(&self) -> Option<(&'a Look, Lease)> {
        self.look.zip(self.host.lease).filter(|_| self.host.agreed)
    }

    /// Whether the look may let a VM execute: started within the present term of the lease (R51), and conclusive. Otherwise
    /// another one is wanted.
    pub(super) fn counts(&mut self, look: &Look, lease: Lease) -> bool {
        let counts = look.is_conclusive(lease);
        if !counts {
            self.wanted.want_look();
        }
        counts
    }
}
