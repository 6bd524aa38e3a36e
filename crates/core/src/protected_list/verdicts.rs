//! Carrying out what was decided about a VM: changes of its entry, which count when they are on disk.

use super::*;

impl OwnerList {
    pub(super) fn on_runs(
        &mut self,
        vm: VmId,
        entry: &Entry,
        seen: Option<&HolderSeen<'_>>,
        places: &mut Places,
        name: VmName,
        out: &mut Out<'_>,
    ) {
        let Some(slot) = self.slots.get_mut(&vm) else { return };
        let Some(host) = entry.holder.clone() else { return };
        let claim = seen.and_then(|seen| seen.claim);
        let since = *slot.running_since.get_or_insert(out.now);
        slot.waits = None;
        slot.restart.runs();
        if claim.is_some_and(|claim| claim.guest != Guest::Silent) && !entry.has_agent {
            slot.working.has_agent = true;
            self.writing.want();
        }
        if claim.is_some_and(|claim| claim.guest != Guest::Silent) && slot.restart.guest_answers() {
            out.event(Event::VmVerified { vm: name.clone(), host: host.clone() });
        }
        if self.suspension.stands() {
            // R71: nothing is ended or moved.
            return;
        }
        if entry.attempts > 0 && !entry.verified && !self.verify(vm, entry, claim, places, &name, out) {
            return self.order(vm, entry, claim, places, name, out);
        }
        let Some(slot) = self.slots.get_mut(&vm) else { return };
        slot.restart.avoid_none();
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
                self.writing.want();
            }
            if !entry.unprotected {
                let datastore = self.datastore.clone();
                out.event(Event::VmProtected { vm: name.clone(), host, datastore });
            }
        }
        if entry.attempts > 0 && Restart::ran_well(since, out.now) {
            slot.restart.forget_attempts(&mut slot.working);
            self.writing.want();
        }
        self.order(vm, entry, claim, places, name, out);
    }

    /// R76: whether a restart is a success: where a guest agent has answered before, it has to answer again. When it does not in
    /// time, one more host is tried, if one can take the VM; otherwise the VM is left running, and people are told.
    fn verify(
        &mut self,
        vm: VmId,
        entry: &Entry,
        claim: Option<&Claim>,
        places: &mut Places,
        name: &VmName,
        out: &mut Out<'_>,
    ) -> bool {
        if !entry.has_agent || claim.is_some_and(|claim| claim.guest != Guest::Silent) {
            return true;
        }
        // A short time-out for those that wait for it says nothing about how long a guest may boot.
        let timeout = self.settings.readiness(vm).timeout.max(READY_TIMEOUT);
        let Some(slot) = self.slots.get_mut(&vm) else { return false };
        let by = slot.restart.wait_for_guest(timeout, out.now);
        if out.now < by || entry.order.is_some() {
            return false;
        }
        let Some(host) = entry.holder.clone() else { return false };
        let again = match places.remove(&vm) {
            Some(Place::Go(to)) => to != host,
            Some(Place::Nowhere { .. }) => false,
            Some(Place::Later(..)) => return false,
            // It is not asked for a second time.
            None if slot.restart.is_mute(&slot.working, out.now) => return false,
            None => false,
        };
        out.event(Event::VmNotVerified { vm: name.clone(), host, again });
        slot.restart.set_left_mute(!again);
        if again {
            self.give(vm, OrderKind::StartElsewhere);
        }
        !again
    }

    pub(super) fn set_off(&mut self, vm: VmId, cause: StopCause, name: VmName, out: &mut Out<'_>) {
        let Some(slot) = self.slots.get_mut(&vm) else { return };
        let order = slot.durable.as_ref().and_then(|entry| entry.order.as_ref());
        let ordered = order.is_some_and(|order| order.what == OrderKind::ShutDown);
        // Libvirt can't tell one from the other.
        let obeyed = ordered && matches!(cause, StopCause::GuestShutdown | StopCause::UserShutdown);
        let cause = if obeyed { StopCause::Maintenance } else { cause };
        if let Some(host) = slot.working.holder.take() {
            out.event(Event::VmStopped { vm: name, host, cause, restart: false });
        }
        slot.working.desired = Desired::Off;
        slot.working.intent = None;
        slot.working.responsible = None;
        slot.working.attempts = 0;
        slot.working.failed_on.clear();
        slot.working.order = None;
        slot.working.evacuated_from = None;
        slot.working.failed_over_from = None;
        slot.running_since = None;
        slot.waits = None;
        slot.restart.set_off();
        self.writing.want();
    }

    /// The VM is held by nobody (any more): give it to the best host.
    pub(super) fn grant_anew(
        &mut self,
        vm: VmId,
        reason: Arc<str>,
        side: &OwnerSide<'_>,
        places: &mut Places,
        name: VmName,
        out: &mut Out<'_>,
    ) {
        let Some(slot) = self.slots.get_mut(&vm) else { return };
        if let Some(host) = slot.working.holder.clone() {
            let claim = slot.holder_claim(&host, side);
            if let Some(ClaimState::Stopped { cause }) = claim.map(|claim| &claim.state)
                && slot.running_since.take().is_some()
            {
                let cause = *cause;
                out.event(Event::VmStopped { vm: name.clone(), host, cause, restart: true });
            }
        }
        if slot.working.spec.priority == Priority::Disabled {
            return self.set_off(vm, StopCause::Unknown, name, out);
        }
        let Some(host) = slot.place(places, name, side.timing, out) else { return };
        slot.working.token = self.numbers.next_grant();
        if slot.working.failed_over_from.is_none() && slot.working.holder.as_ref() != Some(&host) {
            slot.working.failed_over_from = slot.working.holder.clone();
        }
        slot.working.holder = Some(host);
        slot.working.responsible = None;
        slot.restart.grant(&mut slot.working, reason, out.now);
        self.writing.want();
    }

    pub(super) fn intend(
        &mut self,
        vm: VmId,
        places: &mut Places,
        name: VmName,
        timing: &Timing,
        out: &mut Out<'_>,
    ) {
        let Some(slot) = self.slots.get_mut(&vm) else { return };
        slot.running_since = None;
        let Some(host) = slot.place(places, name, timing, out) else { return };
        slot.restart.begin_progress(out.now);
        slot.working.intent = Some(host);
        self.writing.want();
    }

    pub(super) fn confirm(&mut self, vm: VmId, entry: &Entry, now: Time) {
        let Some(slot) = self.slots.get_mut(&vm) else { return };
        let Some(to) = entry.intent.clone() else { return };
        slot.working.token = self.numbers.next_grant();
        slot.working.intent = None;
        slot.working.responsible = None;
        if slot.working.failed_over_from.is_none() {
            slot.working.failed_over_from = entry.holder.clone();
        }
        slot.working.holder = Some(to);
        let reason = match &entry.holder {
            Some(host) => alloc::format!("{host} failed").into(),
            None => "its host failed".into(),
        };
        slot.restart.grant(&mut slot.working, reason, now);
        self.writing.want();
    }

    /// R61: the holder is isolated and would stop the VM: this owner will restart it. Without room nothing is stopped (I2).
    pub(super) fn take_responsibility(
        &mut self,
        vm: VmId,
        entry: &Entry,
        places: &mut Places,
        name: VmName,
        timing: &Timing,
        out: &mut Out<'_>,
    ) {
        let Some(slot) = self.slots.get_mut(&vm) else { return };
        let Some(from) = entry.holder.clone() else { return };
        let Some(to) = slot.place(places, name.clone(), timing, out) else { return };
        out.event(Event::ResponsibilityTaken { vm: name, from, to: to.clone() });
        slot.working.responsible = Some(to);
        self.writing.want();
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
        self.writing.want();
    }
}
