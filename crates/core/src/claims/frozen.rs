//! Freezing and thawing, on the host's side: what the guard has frozen, and when it may go on (R52, R53).
//!
//! Invariant: a VM is resumed or thawed only by a look that was started within the present term of the lease, and that
//! shows the VM still granted to this host, with no intent to move it.

use super::desk::Look;
use crate::effect::{Effect, VmAction};
use crate::guard::{GuardOrder, ProcessState};
use crate::guard_side::Lease;
use crate::ids::{OpId, VmId};
use crate::input::{Domain, DomainState};
use crate::local_vms::Domains;
use crate::out::Out;
use crate::time::{Span, Time};
use alloc::collections::{BTreeMap, BTreeSet};
use serde::{Deserialize, Serialize};

/// How soon an order that the guard has not answered is given again.
const ORDER_RETRY: Span = Span::from_secs(1);

/// How soon a VM that QEMU has paused again for an I/O error is told to go on again.
const CONTINUE_RETRY: Span = Span::from_secs(5);

/// An order to thaw that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Thaw {
    /// Of the lease.
    term: u64,
    at: Time,
}

/// Whether a VM executes, as far as the guard and its storage are concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Freeze {
    /// The guard has frozen it.
    frozen: bool,
    thaw: Option<Thaw>,
    /// QEMU had paused it for an I/O error and was told to go on then.
    continued: Option<Time>,
}

impl Freeze {
    pub(super) fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// As the guard says.
    pub(super) fn set(&mut self, frozen: bool) {
        if self.frozen && !frozen {
            self.thaw = None;
        }
        self.frozen = frozen;
    }

    /// Removes a VM's QEMU; a frozen one does not hear libvirt, so the guard kills it.
    pub(super) fn destroy(&self, vm: VmId, out: &mut Out<'_>) -> OpId {
        if self.frozen {
            out.effects.push(Effect::Guard(GuardOrder::Kill { vm }));
        }
        out.vm(VmAction::Destroy { vm })
    }

    /// R52: the guard is to thaw it.
    pub(super) fn thaw(&mut self, vm: VmId, look: &Look, lease: Lease, out: &mut Out<'_>) {
        assert!(look.is_conclusive(lease), "a VM is thawed without a look of the lease's term");
        let lately = |thaw: Thaw| thaw.term == lease.term && out.now.since(thaw.at) < ORDER_RETRY;
        if self.thaw.is_some_and(lately) {
            return;
        }
        self.thaw = Some(Thaw { term: lease.term, at: out.now });
        out.effects.push(Effect::Guard(GuardOrder::Thaw { vm, term: lease.term }));
    }

    /// R53: QEMU has paused it for an I/O error, and may be told to go on. `beaten`: when the storage last took a heartbeat.
    pub(super) fn may_continue(
        &self,
        (domain, as_of): (Option<&Domain>, Time),
        beaten: Option<Time>,
        now: Time,
    ) -> bool {
        // The storage has answered since it was seen to be paused: else it would only be paused again.
        let answered = beaten.is_some_and(|at| at > as_of);
        let paused = answered && domain.is_some_and(|domain| domain.io_error);
        let lately = self.continued.is_some_and(|at| now.since(at) < CONTINUE_RETRY);
        paused && !self.frozen && !lately
    }

    /// R53. (Its user may have resumed it meanwhile: that does no harm.)
    pub(super) fn go_on(&mut self, vm: VmId, out: &mut Out<'_>) {
        self.continued = Some(out.now);
        // Nothing waits for its end: the next picture of the domain tells.
        out.vm(VmAction::Resume { vm });
    }
}

/// The VMs homed on this datastore that have a QEMU on this host, claimed or not yet: the target of a live migration too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Present {
    vms: BTreeSet<VmId>,
    /// Those of them that are frozen, since when this host knows.
    frozen: BTreeMap<VmId, Time>,
    /// When to order once more that frozen targets of live migrations end.
    end_due: Time,
}

impl Present {
    /// As libvirt shows it.
    pub(super) fn set(&mut self, vms: BTreeSet<VmId>) {
        self.vms = vms;
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = VmId> {
        self.vms.iter().copied()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.vms.is_empty()
    }

    /// R52: the target of a live migration that was frozen before it ran is ended, not thawed. Its source has not let go yet: it
    /// goes on there, or was taken over meanwhile.
    pub(super) fn end_frozen_arrivals(
        &mut self,
        is_target: impl Fn(VmId) -> bool,
        processes: &BTreeMap<VmId, ProcessState>,
        domains: Option<&Domains>,
        out: &mut Out<'_>,
    ) {
        let is_frozen = |vm: &VmId| processes.get(vm) == Some(&ProcessState::Frozen);
        self.frozen.retain(|vm, _| is_frozen(vm));
        for vm in self.vms.iter().filter(|vm| is_frozen(vm)) {
            self.frozen.entry(*vm).or_insert(out.now);
        }
        let Some(domains) = domains.filter(|_| out.now >= self.end_due) else { return };
        for (vm, since) in &self.frozen {
            let (domain, as_of) = domains.get(*vm);
            // A picture from before the freeze may be from before its switch-over.
            let incoming = domain.is_some_and(|domain| domain.state == DomainState::Incoming);
            if incoming && as_of >= *since && is_target(*vm) {
                self.end_due = out.now + ORDER_RETRY;
                out.effects.push(Effect::Guard(GuardOrder::Kill { vm: *vm }));
            }
        }
    }
}
