//! Freezing and thawing, on the host's side: what the guard has frozen, and when it may go on (R51, R52).
//!
//! Invariant: a VM is resumed or thawed only by a look that was started within the present term of the lease, and that
//! shows the VM still granted to this host, with no intent to move it.

use super::*;

/// How soon an order that the guard has not answered is given again.
const ORDER_RETRY: Span = Span::from_secs(1);

/// How soon a VM that QEMU has paused again for an I/O error is told to go on again.
const CONTINUE_RETRY: Span = Span::from_secs(5);

impl Look {
    /// Whether it may say what has become of a VM whose lease was over: it was started within the present term (R51), and nobody
    /// is changing the owner.
    pub(super) fn is_conclusive(&self, lease: Lease) -> bool {
        self.started >= lease.since && !self.changing
    }
}

impl Claims {
    /// The VMs that are bound to the lease: all that this host has claimed on disk and has not let go, and whatever else
    /// has a QEMU here (it is about to be claimed).
    pub(crate) fn watched(&self, present_too: bool) -> Vec<VmId> {
        let bound = |slot: &&Slot| slot.durable && !slot.claim.state.is_released();
        let claimed = self.slots.values().filter(bound).map(|slot| slot.claim.vm);
        // Where there never was a lease nobody was told that these VMs are held by one: they are left alone.
        let present = self.present.iter().copied().filter(|_| self.leased && present_too);
        claimed.chain(present).collect::<BTreeSet<VmId>>().into_iter().collect()
    }

    /// VMs that are claimed as running here and do not execute.
    pub(crate) fn halted<'a>(
        &'a self,
        domains: Option<&'a Domains>,
    ) -> impl Iterator<Item = (VmId, Halt)> + 'a {
        self.slots.values().filter(|slot| !slot.claim.state.is_released()).filter_map(move |slot| {
            let vm = slot.claim.vm;
            let failed =
                || domains.and_then(|domains| domains.get(vm).0).is_some_and(|domain| domain.io_error);
            match slot.frozen {
                true => Some((vm, Halt::Frozen)),
                false => failed().then_some((vm, Halt::IoError)),
            }
        })
    }

    /// Whether there is nothing of this datastore's on this host.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.present.is_empty()
    }

    /// Whether any VM is frozen.
    pub(crate) fn has_frozen(&self) -> bool {
        self.slots.values().any(|slot| slot.frozen)
    }

    pub(super) fn take_processes(&mut self, processes: &BTreeMap<VmId, ProcessState>) {
        for (vm, slot) in &mut self.slots {
            let frozen = processes.get(vm) == Some(&ProcessState::Frozen);
            if slot.frozen && !frozen {
                slot.thawing = None;
            }
            slot.frozen = frozen;
        }
    }

    /// The guard has looked for a VM's process.
    pub(crate) fn on_process(&mut self, vm: VmId, state: ProcessState, now: Time) {
        let Some(slot) = self.slots.get_mut(&vm) else { return };
        if matches!(slot.stage, Stage::Guarding { .. }) && state != ProcessState::Absent {
            slot.stage = Stage::Prepared { since: now };
            self.look_wanted = true;
        }
    }

    /// Asks the guard to find the process of a VM that was just created.
    pub(super) fn ask_guard(&mut self, vm: VmId, out: &mut Out<'_>) {
        if let Some(Slot { stage: Stage::Guarding { ask_at, .. }, .. }) = self.slots.get_mut(&vm) {
            *ask_at = out.now + ORDER_RETRY;
            out.effects.push(Effect::Guard(GuardOrder::Adopt { vm }));
        }
    }

    /// Removes a VM's QEMU; a frozen one does not hear libvirt, so the guard kills it.
    pub(super) fn destroy(&self, vm: VmId, out: &mut Out<'_>) -> OpId {
        if self.slots.get(&vm).is_some_and(|slot| slot.frozen) {
            out.effects.push(Effect::Guard(GuardOrder::Kill { vm }));
        }
        out.vm(VmAction::Destroy { vm })
    }

    /// Lets a VM that was created paused, and is granted to this host, execute: under a valid lease only.
    pub(super) fn resume(&mut self, vm: VmId, look: &Look, host: &HostSide<'_>, out: &mut Out<'_>) {
        let Some(lease) = host.lease else { return };
        if !self.counts(look, lease) {
            return;
        }
        if self.slots.get(&vm).is_some_and(|slot| slot.frozen) {
            return self.order_thaw(vm, lease, out);
        }
        let op = out.vm(VmAction::Resume { vm });
        self.set_stage(vm, Stage::Resuming { op });
    }

    /// Whether the look may let a VM execute: started within the present term of the lease (R51), and conclusive. Otherwise
    /// another one is wanted.
    fn counts(&mut self, look: &Look, lease: Lease) -> bool {
        let counts = look.is_conclusive(lease);
        self.look_wanted |= !counts;
        counts
    }

    /// R52: thaws what is still this host's.
    pub(super) fn thaw(&mut self, look: Option<&Look>, host: &HostSide<'_>, out: &mut Out<'_>) {
        let (Some(look), Some(lease)) = (look, host.lease) else { return };
        let waits = |slot: &&Slot| {
            slot.frozen
                && !matches!(slot.claim.state, ClaimState::Migrating)
                && !slot.claim.state.is_released()
                && matches!(
                    slot.stage,
                    Stage::Settled | Stage::Stopping(_) | Stage::Resuming { .. } | Stage::Doubtful { .. }
                )
        };
        let frozen: Vec<VmId> = self.slots.values().filter(waits).map(|slot| slot.claim.vm).collect();
        if frozen.is_empty() || !self.counts(look, lease) {
            return;
        }
        for vm in frozen {
            if self.may_go_on(look, vm) {
                self.order_thaw(vm, lease, out);
            }
        }
    }

    /// Whether the list leaves the VM to this host. One that was never granted to anybody is nobody else's.
    fn may_go_on(&self, look: &Look, vm: VmId) -> bool {
        let ungranted = self.slots.get(&vm).is_some_and(|slot| slot.claim.token.is_none());
        match look.list.entry(vm) {
            Some(entry) if ungranted => {
                entry.intent.is_none() && entry.holder.as_ref().is_none_or(|holder| *holder == self.me)
            }
            Some(_) => self.is_granted(look, vm),
            None => ungranted,
        }
    }

    /// R53: a VM that QEMU paused for an I/O error goes on when its storage is reached again, on the conditions of a thaw.
    /// (Its user may have resumed it meanwhile: that does no harm.)
    pub(super) fn continue_after_io_errors(
        &mut self,
        look: Option<&Look>,
        host: &HostSide<'_>,
        out: &mut Out<'_>,
    ) {
        let (Some(look), Some(lease), Some(domains)) = (look, host.lease, host.domains) else { return };
        let waits = |slot: &&Slot| {
            // The storage has answered since it was seen to be paused: else it would only be paused again.
            let (domain, as_of) = domains.get(slot.claim.vm);
            let answered = host.beaten.is_some_and(|at| at > as_of);
            let paused = answered && domain.is_some_and(|domain| domain.io_error);
            let lately = slot.continued.is_some_and(|at| out.now.since(at) < CONTINUE_RETRY);
            let running = slot.stage == Stage::Settled && slot.claim.state == ClaimState::Running;
            paused && running && !slot.frozen && !lately
        };
        let paused: Vec<VmId> = self.slots.values().filter(waits).map(|slot| slot.claim.vm).collect();
        if paused.is_empty() || !self.counts(look, lease) {
            return;
        }
        for vm in paused {
            if self.may_go_on(look, vm)
                && let Some(slot) = self.slots.get_mut(&vm)
            {
                slot.continued = Some(out.now);
                let name = VmName { id: vm, name: slot.claim.name.clone() };
                // Nothing waits for its end: the next picture of the domain tells.
                out.vm(VmAction::Resume { vm });
                out.event(Event::VmContinued { vm: name });
            }
        }
    }

    /// R52: the target of a live migration that was frozen before it ran is ended, not thawed. Its source has not let go yet: it
    /// goes on there, or was taken over meanwhile.
    pub(super) fn end_frozen_arrivals(&mut self, host: &HostSide<'_>, out: &mut Out<'_>) {
        let is_frozen = |vm: &VmId| host.processes.get(vm) == Some(&ProcessState::Frozen);
        self.frozen_arrivals.retain(|vm, _| is_frozen(vm));
        for vm in self.present.iter().filter(|vm| is_frozen(vm)) {
            self.frozen_arrivals.entry(*vm).or_insert(out.now);
        }
        let Some(domains) = host.domains.filter(|_| out.now >= self.arrivals_due) else { return };
        for (vm, since) in &self.frozen_arrivals {
            let (domain, as_of) = domains.get(*vm);
            // A picture from before the freeze may be from before its switch-over.
            let incoming = domain.is_some_and(|domain| domain.state == DomainState::Incoming);
            if incoming && as_of >= *since {
                self.arrivals_due = out.now + ORDER_RETRY;
                out.effects.push(Effect::Guard(GuardOrder::Kill { vm: *vm }));
            }
        }
    }

    fn order_thaw(&mut self, vm: VmId, lease: Lease, out: &mut Out<'_>) {
        let Some(slot) = self.slots.get_mut(&vm) else { return };
        let repeated = |(term, at): (u64, Time)| term == lease.term && out.now.since(at) < ORDER_RETRY;
        if slot.thawing.is_some_and(repeated) {
            return;
        }
        slot.thawing = Some((lease.term, out.now));
        out.effects.push(Effect::Guard(GuardOrder::Thaw { vm, term: lease.term }));
    }
}
