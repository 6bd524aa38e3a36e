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
                slot.stage = Stage::Stopping {
                    ordered: false,
                    op: None,
                    retry_at: Time(u64::MAX),
                    power_off_at,
                    timeout,
                };
                slot.claim.state = ClaimState::Stopping;
                slot.claim.asked_to_stop = true;
                slot.asked_to_stop = Some(out.now + timeout.max(ASKED_BEFORE));
                self.dirty = true;
            }
        }
    }

    /// An isolation response under way: the VM has stopped, contact is back, or its time is over.
    pub(super) fn follow_stopping(
        &mut self,
        vm: VmId,
        (state, as_of): (DomainState, Time),
        host: &HostSide<'_>,
        out: &mut Out<'_>,
    ) {
        let Some(slot) = self.slots.get_mut(&vm) else { return };
        let Stage::Stopping { ordered, op, retry_at, power_off_at, timeout } = slot.stage.clone() else {
            return;
        };
        let stopped = matches!(state, DomainState::Stopped(_)) && as_of >= slot.acted;
        if ordered && stopped {
            return self.release(vm, ClaimState::Stopped { cause: StopCause::Isolation });
        }
        let name = VmName { id: vm, name: slot.claim.name.clone() };
        let revocable = !ordered || power_off_at.is_some();
        if stopped || (revocable && !host.isolation.isolated) {
            // R62: what has not happened yet does not happen. If the guest goes down all the same, it was not its user.
            slot.stage = Stage::Settled;
            slot.claim.state = if slot.frozen { ClaimState::Frozen } else { ClaimState::Running };
            if !ordered {
                slot.asked_to_stop = None;
                slot.claim.asked_to_stop = false;
            }
            self.dirty = true;
            if !stopped {
                out.event(Event::IsolationResponseStopped { vm: name });
            }
            return;
        }
        let late = power_off_at.is_some_and(|at| out.now >= at);
        if !ordered || !(late || (op.is_none() && out.now >= retry_at)) {
            return;
        }
        if late {
            out.event(Event::ShutdownTimedOut { vm: name, after: timeout });
        }
        let power_off_at = power_off_at.filter(|_| !late);
        let op = Some(match power_off_at {
            Some(_) => out.vm(VmAction::Shutdown { vm }),
            None => self.destroy(vm, out),
        });
        self.set_stage(vm, Stage::Stopping { ordered, op, retry_at: out.now, power_off_at, timeout });
    }

    /// The order to stop was carried out, or could not be. That the VM is off is seen, never concluded.
    pub(super) fn on_stop_done(&mut self, vm: VmId, outcome: &VmOutcome, now: Time) {
        let Some(slot) = self.slots.get_mut(&vm) else { return };
        let Stage::Stopping { op, retry_at, power_off_at, .. } = &mut slot.stage else { return };
        *op = None;
        // A guest that was asked once need not be asked again; a power-off is repeated until the VM is seen to be gone.
        let again = *outcome != VmOutcome::Done || power_off_at.is_none();
        *retry_at = if again { now + SHUTDOWN_RETRY } else { Time(u64::MAX) };
    }
}
