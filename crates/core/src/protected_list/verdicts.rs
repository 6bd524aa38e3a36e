//! Carrying out what was decided about a VM: changes of its entry, which count when they are on disk.

use super::*;

impl OwnerList {
    pub(super) fn on_runs(&mut self, vm: VmId, entry: &Entry, name: VmName, out: &mut Out<'_>) {
        let Some(slot) = self.slots.get_mut(&vm) else { return };
        let Some(host) = entry.holder.clone() else { return };
        let since = *slot.running_since.get_or_insert(out.now);
        slot.waits = None;
        slot.avoid.clear();
        if !slot.announced {
            slot.announced = true;
            if entry.attempts > 0 && !entry.verified {
                out.event(Event::VmRestarted {
                    vm: name.clone(),
                    from: entry.failed_over_from.clone(),
                    to: host.clone(),
                    attempts: entry.attempts,
                });
                // On disk, so that a next owner does not report it again.
                slot.working.verified = true;
                slot.working.failed_over_from = None;
                self.dirty = true;
            }
            if !entry.unprotected {
                out.event(Event::VmProtected { vm: name, host, datastore: self.datastore.clone() });
            }
        }
        if entry.attempts > 0 && out.now.since(since) >= RAN_WELL {
            slot.working.attempts = 0;
            self.dirty = true;
        }
    }

    pub(super) fn set_off(&mut self, vm: VmId, cause: StopCause, name: VmName, out: &mut Out<'_>) {
        let Some(slot) = self.slots.get_mut(&vm) else { return };
        if let Some(host) = slot.working.holder.take() {
            out.event(Event::VmStopped { vm: name, host, cause, restart: false });
        }
        slot.working.desired = Desired::Off;
        slot.working.intent = None;
        slot.working.responsible = None;
        slot.working.attempts = 0;
        slot.working.failed_over_from = None;
        slot.running_since = None;
        self.dirty = true;
    }

    /// The VM is held by nobody (any more): give it to the best host.
    #[expect(clippy::too_many_arguments, reason = "the parts of one review, passed on")]
    pub(super) fn grant_anew(
        &mut self,
        vm: VmId,
        same_host: bool,
        reason: Arc<str>,
        side: &OwnerSide<'_>,
        rooms: &mut [Candidate],
        name: VmName,
        out: &mut Out<'_>,
    ) {
        let Some(slot) = self.slots.get_mut(&vm) else { return };
        let former = slot.working.holder.clone();
        if let Some(host) = &former {
            let claim = slot.holder_claim(host, side);
            if let Some(ClaimState::Stopped { cause }) = claim.map(|claim| &claim.state)
                && slot.running_since.take().is_some()
            {
                let (host, cause) = (host.clone(), *cause);
                out.event(Event::VmStopped { vm: name.clone(), host, cause, restart: true });
            }
            if !same_host {
                slot.avoid.insert(host.clone());
            }
        }
        if slot.working.spec.priority == Priority::Disabled {
            return self.set_off(vm, StopCause::Unknown, name, out);
        }
        if out.now < slot.next_try {
            return;
        }
        // R61: there was room for it there when this owner took responsibility.
        let preferred = former.filter(|_| same_host).or(slot.working.responsible.clone());
        let Some(host) = slot.choose(rooms, preferred.as_ref(), name, side.timing, out) else { return };
        self.tokens += 1;
        slot.working.token = Token { epoch: self.epoch, number: self.tokens };
        if slot.working.failed_over_from.is_none() && slot.working.holder.as_ref() != Some(&host) {
            slot.working.failed_over_from = slot.working.holder.clone();
        }
        slot.working.holder = Some(host);
        slot.working.responsible = None;
        slot.count_attempt(out.now);
        slot.reason = reason;
        self.dirty = true;
    }

    pub(super) fn intend(
        &mut self,
        vm: VmId,
        rooms: &mut [Candidate],
        name: VmName,
        timing: &Timing,
        out: &mut Out<'_>,
    ) {
        let Some(slot) = self.slots.get_mut(&vm) else { return };
        if slot.working.spec.priority == Priority::Disabled || out.now < slot.next_try {
            return;
        }
        slot.running_since = None;
        if let Some(holder) = &slot.working.holder {
            slot.avoid.insert(holder.clone());
        }
        let Some(host) = slot.choose(rooms, None, name, timing, out) else { return };
        slot.working.intent = Some(host);
        self.dirty = true;
    }

    pub(super) fn confirm(&mut self, vm: VmId, entry: &Entry, now: Time) {
        let Some(slot) = self.slots.get_mut(&vm) else { return };
        let Some(to) = entry.intent.clone() else { return };
        self.tokens += 1;
        slot.working.token = Token { epoch: self.epoch, number: self.tokens };
        slot.working.intent = None;
        slot.working.responsible = None;
        if slot.working.failed_over_from.is_none() {
            slot.working.failed_over_from = entry.holder.clone();
        }
        slot.working.holder = Some(to);
        slot.count_attempt(now);
        slot.reason = match &entry.holder {
            Some(host) => alloc::format!("{host} failed").into(),
            None => "its host failed".into(),
        };
        self.dirty = true;
    }

    /// R61: the holder is isolated and would stop the VM: this owner will restart it. Without room nothing is stopped (I2).
    pub(super) fn take_responsibility(
        &mut self,
        vm: VmId,
        entry: &Entry,
        rooms: &mut [Candidate],
        name: VmName,
        timing: &Timing,
        out: &mut Out<'_>,
    ) {
        let Some(slot) = self.slots.get_mut(&vm) else { return };
        let Some(from) = entry.holder.clone() else { return };
        let Some(to) = slot.choose(rooms, None, name.clone(), timing, out) else { return };
        out.event(Event::ResponsibilityTaken { vm: name, from, to: to.clone() });
        slot.working.responsible = Some(to);
        self.dirty = true;
    }

    pub(super) fn drop_responsibility(
        &mut self,
        vm: VmId,
        entry: &Entry,
        reason: Arc<str>,
        name: VmName,
        out: &mut Out<'_>,
    ) {
        let Some(slot) = self.slots.get_mut(&vm) else { return };
        let Some(host) = entry.holder.clone() else { return };
        out.event(Event::ResponsibilityDropped { vm: name, host, reason });
        slot.working.responsible = None;
        self.dirty = true;
    }
}
