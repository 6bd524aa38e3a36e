//! A claim under an isolation response: when it begins, goes on and ends (R61, R62). The state of one is in `isolated`.

use super::{ClaimedVm, Stage};
use crate::claims::desk::Desk;
use crate::claims::isolated::Stopping;
use crate::effect::VmAction;
use crate::event::{Event, VmName};
use crate::input::DomainState;
use crate::register::{ClaimState, IsolationResponse, StopCause};
use crate::time::Time;

impl ClaimedVm {
    /// The host is isolated, and a look shows an owner: its response begins if that owner is responsible for the VM.
    pub(in crate::claims) fn respond_to_isolation(&mut self, desk: &mut Desk<'_, '_>) {
        let Some(look) = desk.look.filter(|look| !look.changing && self.runs()) else { return };
        let Some(entry) = look.list.entry(self.id()).filter(|entry| entry.responsible.is_some()) else {
            return;
        };
        let response = entry.isolation_response.unwrap_or(desk.host.isolation.response);
        if !desk.is_granted(look, &self.claim) || response == IsolationResponse::LeavePoweredOn {
            return;
        }
        let timeout = entry.shutdown_timeout.unwrap_or(desk.host.isolation.shutdown_timeout);
        let name = VmName { id: entry.vm, name: entry.name.clone() };
        desk.out.event(Event::IsolationResponseApplied { vm: name, response });
        let shuts_down = response == IsolationResponse::ShutDown;
        self.stage = Stage::Stopping(Stopping::new(shuts_down, timeout, desk.out.now));
        self.claim.state = ClaimState::Stopping;
        self.claim.asked_to_stop |= shuts_down;
        self.claim.powering_off = !shuts_down;
        desk.wanted.want_write();
    }

    /// A response under way: the VM has stopped, contact is back, the owner has changed its mind, or its time is over.
    pub(super) fn follow_stopping(&mut self, state: DomainState, as_of: Time, desk: &mut Desk<'_, '_>) {
        let Stage::Stopping(stopping) = &mut self.stage else { return };
        let now = desk.out.now;
        if let DomainState::Stopped(cause) = state
            && as_of >= self.acted
        {
            let cause = match self.own_doing.cause(cause, now) {
                // What nobody can explain was this, and so was what libvirt was told to end by this very agent; what its user
                // did meanwhile is the user's word (I4). Before anybody was told to stop it, it ended by itself.
                StopCause::Crashed | StopCause::Unknown | StopCause::Withdrawn if stopping.is_ordered() => {
                    StopCause::Isolation
                }
                cause => cause,
            };
            return self.release(ClaimState::Stopped { cause }, desk.wanted);
        }
        if stopping.is_revocable() && !desk.host.isolation.isolated {
            return self.call_response_off(desk);
        }
        if !stopping.is_ordered() {
            let Some(look) = desk.look.filter(|look| stopping.is_decided_by(look.started)) else { return };
            if look.changing {
                return desk.wanted.want_look();
            }
            let responsible = look.list.entry(self.claim.vm).is_some_and(|entry| entry.responsible.is_some());
            if !responsible || !desk.is_granted(look, &self.claim) {
                return self.call_response_off(desk);
            }
            stopping.confirm(now);
        }
        if let Some(after) = stopping.turn_to_power_off(now) {
            self.claim.powering_off = true;
            desk.out.event(Event::ShutdownTimedOut { vm: self.name(), after });
            desk.wanted.want_write();
        } else if stopping.is_due(now) {
            let vm = self.claim.vm;
            let op = if stopping.shuts_down() {
                desk.out.vm(VmAction::Shutdown { vm })
            } else {
                self.freeze.destroy(vm, desk.out)
            };
            stopping.on_order(op, &mut self.own_doing, now);
        }
    }

    /// R62: a guest that the run of the agent before this one has asked may take as long as is set.
    pub(in crate::claims) fn give_time_to_stop(&mut self, desk: &Desk<'_, '_>) {
        if self.own_doing.was_found() {
            let own = desk.entry(self.id()).and_then(|entry| entry.shutdown_timeout);
            self.own_doing.may_take(own.unwrap_or(desk.host.isolation.shutdown_timeout));
        }
    }

    /// The VM stays as it is. A guest that was asked to shut down may do so all the same: that is not its user's word.
    fn call_response_off(&mut self, desk: &mut Desk<'_, '_>) {
        let Stage::Stopping(stopping) = &self.stage else { return };
        self.claim.asked_to_stop = stopping.has_asked();
        self.claim.powering_off = false;
        self.claim.state = if self.is_frozen() { ClaimState::Frozen } else { ClaimState::Running };
        self.stage = Stage::Settled;
        desk.out.event(Event::IsolationResponseStopped { vm: self.name() });
        desk.wanted.want_write();
    }
}
