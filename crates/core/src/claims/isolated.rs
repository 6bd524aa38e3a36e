//! Isolation responses, on the host's side (R61, R62): applied only while this host is isolated, its flag is on disk, and
//! a look that was started after that shows that an owner is responsible for the VM.

use super::*;

/// How soon a shutdown that could not be asked for is asked for again.
const SHUTDOWN_RETRY: Span = Span::from_secs(2);

/// Whether and how isolation responses are to be applied now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IsolationNow {
    /// The host is isolated, and its flag has been on disk since then.
    pub(crate) flagged: Option<Time>,
    /// It is isolated.
    pub(crate) isolated: bool,
    /// The cluster's default response.
    pub(crate) response: IsolationResponse,
    /// The cluster's default time-out for shutting down.
    pub(crate) shutdown_timeout: Span,
}

impl Claims {
    pub(super) fn respond_to_isolation(
        &mut self,
        look: Option<&Look>,
        host: &HostSide<'_>,
        out: &mut Out<'_>,
    ) {
        let (Some(look), Some(flagged)) = (look, host.isolation.flagged) else { return };
        if look.started < flagged {
            self.look_wanted = true;
            return;
        }
        let settled = |slot: &&Slot| slot.stage == Stage::Settled && slot.claim.state == ClaimState::Running;
        let running: Vec<VmId> = self.slots.values().filter(settled).map(|slot| slot.claim.vm).collect();
        for vm in running {
            let Some(entry) = look.list.entry(vm).filter(|entry| entry.responsible.is_some()) else {
                continue;
            };
            let response = entry.isolation_response.unwrap_or(host.isolation.response);
            if look.changing || !self.is_granted(look, vm) || response == IsolationResponse::LeavePoweredOn {
                continue;
            }
            let timeout = entry.shutdown_timeout.unwrap_or(host.isolation.shutdown_timeout);
            let power_off_at = (response == IsolationResponse::ShutDown).then(|| out.now + timeout);
            let name = VmName { id: vm, name: entry.name.clone() };
            out.event(Event::IsolationResponseApplied { vm: name, response });
            if let Some(slot) = self.slots.get_mut(&vm) {
                // On disk first: whoever comes after this run of the agent must know whose will it was.
                slot.stage = Stage::Stopping(Stopping {
                    durable: None,
                    ordered: false,
                    asked: false,
                    op: None,
                    retry_at: Time(u64::MAX),
                    power_off_at,
                    timeout,
                });
                slot.claim.state = ClaimState::Stopping;
                slot.claim.asked_to_stop |= power_off_at.is_some();
                slot.claim.powering_off = power_off_at.is_none();
                self.dirty = true;
            }
        }
    }

    /// An isolation response under way: the VM has stopped, contact is back, the owner has changed its mind, or its time is over.
    pub(super) fn follow_stopping(
        &mut self,
        vm: VmId,
        (state, as_of): (DomainState, Time),
        look: Option<&Look>,
        host: &HostSide<'_>,
        out: &mut Out<'_>,
    ) {
        let Some(slot) = self.slots.get(&vm) else { return };
        let Stage::Stopping(mut stopping) = slot.stage.clone() else { return };
        let name = VmName { id: vm, name: slot.claim.name.clone() };
        if let DomainState::Stopped(cause) = state
            && as_of >= slot.acted
        {
            if !stopping.ordered {
                // It ended by itself before anybody was told to stop it (or before it was to be powered off).
                let cause = slot.cause(cause, out.now);
                return self.release(vm, ClaimState::Stopped { cause });
            }
            // What nobody can explain was this, and so was what libvirt was told to end by this very agent; what its user did
            // meanwhile is the user's word (I4).
            let cause = match slot.cause(cause, out.now) {
                StopCause::Crashed | StopCause::Unknown | StopCause::Withdrawn => StopCause::Isolation,
                cause => cause,
            };
            return self.release(vm, ClaimState::Stopped { cause });
        }
        // R62: what has not happened yet does not happen.
        let revocable = !stopping.ordered || stopping.power_off_at.is_some();
        if revocable && !host.isolation.isolated {
            out.event(Event::IsolationResponseStopped { vm: name });
            return self.call_off(vm, &stopping);
        }
        if !stopping.ordered {
            let after = |look: &&Look| stopping.durable.is_some_and(|at| look.started >= at);
            let Some(look) = look.filter(after) else { return };
            if look.changing {
                self.look_wanted = true;
                return;
            }
            let responsible = look.list.entry(vm).is_some_and(|entry| entry.responsible.is_some());
            if !responsible || !self.is_granted(look, vm) {
                out.event(Event::IsolationResponseStopped { vm: name });
                return self.call_off(vm, &stopping);
            }
            stopping.ordered = true;
            stopping.retry_at = out.now;
        }
        if stopping.power_off_at.is_some_and(|at| out.now >= at) {
            out.event(Event::ShutdownTimedOut { vm: name, after: stopping.timeout });
            // On disk first, and looked at again, like the beginning.
            stopping = Stopping { durable: None, ordered: false, power_off_at: None, op: None, ..stopping };
            if let Some(slot) = self.slots.get_mut(&vm) {
                slot.claim.powering_off = true;
                self.dirty = true;
            }
        } else if stopping.op.is_none() && out.now >= stopping.retry_at {
            stopping = self.order_stop(vm, stopping, out);
        }
        self.set_stage(vm, Stage::Stopping(stopping));
    }

    /// Asks the guest to shut down, or powers it off. Until then what libvirt says of its end is taken for this host's doing.
    fn order_stop(&mut self, vm: VmId, stopping: Stopping, out: &mut Out<'_>) -> Stopping {
        let shuts_down = stopping.power_off_at.is_some();
        if let Some(slot) = self.slots.get_mut(&vm) {
            let until = out.now + stopping.timeout.max(ASKED_BEFORE);
            if shuts_down {
                slot.asked_to_stop = Some(until);
            } else {
                slot.powered_off = Some(until);
            }
        }
        let op = if shuts_down { out.vm(VmAction::Shutdown { vm }) } else { self.destroy(vm, out) };
        Stopping { asked: stopping.asked || shuts_down, op: Some(op), retry_at: out.now, ..stopping }
    }

    /// The VM stays as it is. A guest that was asked to shut down may do so all the same: that is not its user's word.
    fn call_off(&mut self, vm: VmId, stopping: &Stopping) {
        let Some(slot) = self.slots.get_mut(&vm) else { return };
        slot.stage = Stage::Settled;
        slot.claim.state = if slot.frozen { ClaimState::Frozen } else { ClaimState::Running };
        slot.claim.powering_off = false;
        slot.claim.asked_to_stop = stopping.asked;
        self.dirty = true;
    }

    /// The order to stop was carried out, or could not be. That the VM is off is seen, never concluded.
    pub(super) fn on_stop_done(&mut self, vm: VmId, outcome: &VmOutcome, now: Time) {
        let Some(slot) = self.slots.get_mut(&vm) else { return };
        let Stage::Stopping(stopping) = &mut slot.stage else { return };
        stopping.op = None;
        // A guest that was asked once need not be asked again; a power-off is repeated until the VM is seen to be gone.
        let again = *outcome != VmOutcome::Done || stopping.power_off_at.is_none();
        stopping.retry_at = if again { now + SHUTDOWN_RETRY } else { Time(u64::MAX) };
    }
}
