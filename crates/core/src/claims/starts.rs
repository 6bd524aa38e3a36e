//! Starting a VM, step by step (R30, R31), and taking a start back.

use super::*;

/// How long after a look a start may still be begun by it.
const LOOK_KEPT: Span = Span::from_secs(1);

impl Claims {
    /// How many starts are under way.
    pub(crate) fn starting(&self) -> u32 {
        let busy = |slot: &&Slot| match slot.stage {
            Stage::Preparing { waits, .. } => !waits,
            Stage::Guarding { .. } | Stage::Prepared { .. } | Stage::Resuming { .. } => true,
            Stage::Settled
            | Stage::Announcing
            | Stage::Checking { .. }
            | Stage::Removing { .. }
            | Stage::RemovalDue { .. }
            | Stage::Stopping(_)
            | Stage::Doubtful { .. } => false,
        };
        self.slots.values().filter(busy).count() as u32
    }

    /// Whether a look at the protected list is waited for.
    pub(crate) fn waits_for_look(&self) -> bool {
        let waits = |slot: &Slot| {
            let asking = matches!(
                slot.stage,
                Stage::Checking { .. }
                    | Stage::Prepared { .. }
                    | Stage::Stopping(Stopping { durable: Some(_), ordered: false, .. })
            );
            asking || slot.frozen
        };
        self.slots.values().any(waits)
    }

    /// A power-on list with these claims is on disk.
    pub(crate) fn on_durable(&mut self, claims: &[Claim], now: Time) {
        for claim in claims {
            let Some(slot) = self.slots.get_mut(&claim.vm) else { continue };
            slot.durable |= !claim.state.is_released();
            if slot.stop_told.is_none() && claim.state.is_released() && slot.claim == *claim {
                slot.stop_told = Some(now);
            }
            if let Stage::Stopping(stopping @ Stopping { durable: None, .. }) = &mut slot.stage
                && *claim == slot.claim
            {
                stopping.durable = Some(now);
                self.look_wanted = true;
            }
            if slot.stage == Stage::Announcing && slot.claim == *claim {
                slot.stage = Stage::Checking { since: now };
                self.look_wanted = true;
            }
        }
    }

    pub(super) fn is_granted(&self, look: &Look, vm: VmId) -> bool {
        #[cfg(feature = "broken-rules")]
        if self.blind {
            return true;
        }
        let token = self.slots.get(&vm).and_then(|slot| slot.claim.token);
        look.list.entry(vm).is_some_and(|entry| {
            entry.holder.as_ref() == Some(&self.me) && Some(entry.token) == token && entry.intent.is_none()
        })
    }

    /// Takes starts that wait for a look one step further, higher priorities first.
    pub(super) fn advance_starts(&mut self, look: Option<&Look>, host: &HostSide<'_>, out: &mut Out<'_>) {
        let Some(look) = look else { return };
        let mut waiting: Vec<(Priority, VmId, Time, bool)> = Vec::new();
        for (vm, slot) in &self.slots {
            let priority = slot.claim.spec.as_ref().map_or(Priority::Medium, |spec| spec.priority);
            match slot.stage {
                Stage::Checking { since } => waiting.push((priority, *vm, since, false)),
                Stage::Prepared { since } => waiting.push((priority, *vm, since, true)),
                Stage::Settled
                | Stage::Announcing
                | Stage::Preparing { .. }
                | Stage::Guarding { .. }
                | Stage::Resuming { .. }
                | Stage::Removing { .. }
                | Stage::RemovalDue { .. }
                | Stage::Stopping(_)
                | Stage::Doubtful { .. } => {}
            }
        }
        waiting.sort_by(|a, b| b.3.cmp(&a.3).then(b.0.cmp(&a.0)).then(a.1.cmp(&b.1)));
        let mut room = host.concurrent_starts.saturating_sub(self.starting());
        for (_, vm, since, prepared) in waiting {
            if look.started < since || look.changing {
                self.look_wanted = true;
                continue;
            }
            if !prepared && room == 0 {
                continue;
            }
            if !prepared && out.now.since(look.started) > LOOK_KEPT {
                // It waited for its turn: what it was granted then may have been taken back.
                self.set_stage(vm, Stage::Checking { since: out.now });
                self.look_wanted = true;
                continue;
            }
            match (self.is_granted(look, vm), prepared) {
                (true, false) => {
                    room -= 1;
                    self.prepare(vm, out);
                }
                (true, true) => self.resume(vm, look, host, out),
                (false, false) => self.release(vm, ClaimState::Stopped { cause: StopCause::Withdrawn }),
                (false, true) => {
                    let op = self.destroy(vm, out);
                    let then = ClaimState::Stopped { cause: StopCause::Withdrawn };
                    self.set_stage(vm, Stage::Removing { op, then });
                }
            }
        }
    }

    pub(super) fn prepare(&mut self, vm: VmId, out: &mut Out<'_>) {
        let Some(slot) = self.slots.get_mut(&vm) else { return };
        let (Some(token), Some(spec)) = (slot.claim.token, slot.claim.spec.clone()) else { return };
        let name = VmName { id: vm, name: slot.claim.name.clone() };
        out.event(Event::VmClaimed { vm: name, token });
        let action = VmAction::Prepare {
            vm,
            name: slot.claim.name.clone(),
            datastore: self.datastore.clone(),
            xml: spec.xml,
            token,
        };
        slot.stage = Stage::Preparing { op: out.vm(action), waits: false };
    }

    pub(super) fn set_stage(&mut self, vm: VmId, stage: Stage) {
        if let Some(slot) = self.slots.get_mut(&vm) {
            slot.stage = stage;
        }
    }

    pub(super) fn release(&mut self, vm: VmId, state: ClaimState) {
        if let Some(slot) = self.slots.get_mut(&vm) {
            slot.stage = Stage::Settled;
            if state.is_released() {
                slot.claim.guest = Guest::Silent;
                slot.claim.order_failed = None;
                slot.order = None;
                slot.guest = Asking::default();
            }
            slot.claim.state = state;
            self.dirty = true;
        }
    }

    /// An operation of ours on a VM is done. Returns whether it was one of these claims'.
    pub(crate) fn on_vm_done(&mut self, op: OpId, outcome: &VmOutcome, out: &mut Out<'_>) -> bool {
        if self.on_order_done(op, outcome, out.now) || self.on_guest_answer(op, outcome, out.now) {
            return true;
        }
        let Some(name) = self.vm_of(op) else { return false };
        let vm = name.id;
        let Some(slot) = self.slots.get_mut(&vm) else { return false };
        slot.acted = out.now;
        match (slot.stage.clone(), outcome) {
            (Stage::Preparing { .. }, VmOutcome::Done) => {
                self.set_stage(vm, Stage::Guarding { since: out.now, ask_at: out.now });
                self.ask_guard(vm, out);
            }
            (Stage::Resuming { .. }, VmOutcome::Done) => {
                let token = slot.claim.token.unwrap_or_default();
                out.event(Event::VmStarted { vm: name, token });
                self.release(vm, ClaimState::Running);
            }
            (Stage::Preparing { .. }, VmOutcome::Failed(reason)) => {
                out.event(Event::VmStartFailed { vm: name, reason: reason.clone() });
                self.release(vm, ClaimState::StartFailed { reason: reason.clone() });
            }
            (Stage::Resuming { .. }, VmOutcome::Failed(reason)) => {
                out.event(Event::VmStartFailed { vm: name, reason: reason.clone() });
                let op = self.destroy(vm, out);
                let then = ClaimState::StartFailed { reason: reason.clone() };
                self.set_stage(vm, Stage::Removing { op, then });
            }
            (Stage::Stopping(_), outcome) => self.on_stop_done(vm, outcome, out.now),
            (Stage::Removing { then, .. }, VmOutcome::Done) => self.release(vm, then),
            (Stage::Removing { then, .. }, VmOutcome::Failed(_) | VmOutcome::Unknown(_)) => {
                self.set_stage(vm, Stage::RemovalDue { at: out.now + REMOVAL_RETRY, then });
            }
            (Stage::Preparing { .. } | Stage::Resuming { .. }, VmOutcome::Unknown(_)) => {
                self.set_stage(vm, Stage::Doubtful { since: out.now });
            }
            (
                Stage::Settled
                | Stage::Announcing
                | Stage::Checking { .. }
                | Stage::Guarding { .. }
                | Stage::Prepared { .. }
                | Stage::RemovalDue { .. }
                | Stage::Doubtful { .. },
                _,
            ) => {}
        }
        true
    }

    pub(super) fn retry_removal(&mut self, vm: VmId, out: &mut Out<'_>) {
        let Some(slot) = self.slots.get(&vm) else { return };
        if let Stage::RemovalDue { at, then } = slot.stage.clone()
            && out.now >= at
        {
            let op = self.destroy(vm, out);
            self.set_stage(vm, Stage::Removing { op, then });
        }
    }

    pub(super) fn settle_doubt(&mut self, vm: VmId, state: DomainState, now: Time) {
        let Some(slot) = self.slots.get_mut(&vm) else { return };
        match state {
            DomainState::Running | DomainState::Prepared => {
                slot.stage = Stage::Guarding { since: now, ask_at: now };
            }
            DomainState::Incoming => {}
            DomainState::Stopped(_) => {
                slot.stage = Stage::Settled;
                slot.claim.state = ClaimState::StartFailed { reason: "the start did not happen".into() };
                self.dirty = true;
            }
        }
    }

    pub(super) fn remove_orphan(&mut self, vm: VmId, domain: Option<&Domain>, out: &mut Out<'_>) {
        let Some(domain) = domain.filter(|domain| domain.home.as_ref() == Some(&self.datastore)) else {
            return;
        };
        let claim = match self.slots.get(&vm) {
            Some(slot) => slot.claim.clone(),
            None => Claim {
                vm,
                name: domain.name.clone(),
                token: None,
                state: ClaimState::Stopped { cause: StopCause::Withdrawn },
                spec: None,
                asked_to_stop: false,
                powering_off: false,
                guest: Guest::Silent,
                order_failed: None,
            },
        };
        let then = claim.state.clone();
        let op = out.vm(VmAction::Destroy { vm });
        self.slots.insert(vm, Slot::new(claim, Stage::Removing { op, then }));
    }
}
