//! One claimed VM: what the claim says, and what this host is doing about the VM beyond that.
//!
//! It knows nothing of the other VMs.

mod following;
mod responding;

use super::desk::{Desk, Wanted};
use super::frozen::Freeze;
use super::guests::{self, Asking};
use super::isolated::{OwnDoing, Stopping};
use super::orders::{Orders, Then};
use super::removing::Removal;
use super::starts::{Outcome, Start, Turn};
use crate::effect::VmAction;
use crate::event::{Event, VmName};
use crate::guard::ProcessState;
use crate::ids::{OpId, VmId};
use crate::input::{Domain, DomainState, VmOutcome};
use crate::message::Halt;
use crate::out::Out;
use crate::register::{Claim, ClaimState, Entry, Guest, Order, Priority, StopCause};
use crate::settings::Readiness;
use crate::time::Time;
use alloc::sync::Arc;
pub(super) use following::Stopped;
use serde::{Deserialize, Serialize};

/// What this host is doing about a VM beyond what its claim says.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum Stage {
    /// Nothing: the claim follows the domain.
    Settled,
    Starting(Start),
    /// It may not run here: it is being removed; then the claim says so.
    Removing(Removal),
    /// Its isolation response is being applied.
    Stopping(Stopping),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct ClaimedVm {
    claim: Claim,
    stage: Stage,
    /// This host's last own operation on the VM was done then: what libvirt said before says nothing about it (R32).
    acted: Time,
    /// The claim has been on disk in a running state: from then on the VM is bound to the lease.
    durable: bool,
    /// When it was on disk that its VM has stopped.
    stop_written: Option<Time>,
    /// When its VM was first seen running here.
    began: Time,
    freeze: Freeze,
    own_doing: OwnDoing,
    orders: Orders,
    guest: Asking,
}

impl ClaimedVm {
    fn new(claim: Claim, stage: Stage) -> ClaimedVm {
        ClaimedVm {
            claim,
            stage,
            acted: Time(0),
            durable: false,
            stop_written: None,
            began: Time(0),
            freeze: Freeze::default(),
            own_doing: OwnDoing::default(),
            orders: Orders::default(),
            guest: Asking::default(),
        }
    }

    /// What an earlier run left on disk. R35: claims of an earlier boot are dropped: those VMs are gone.
    pub(super) fn found(mut claim: Claim, rebooted: bool, now: Time) -> Option<ClaimedVm> {
        let mut stage = Stage::Settled;
        let mut own_doing = OwnDoing::default();
        if !claim.state.is_released() {
            if rebooted {
                claim.token?;
                claim.state = ClaimState::Stopped { cause: StopCause::HostFailed };
            } else if claim.state == ClaimState::Starting {
                stage = Stage::Starting(Start::doubtful(now));
            } else if claim.state == ClaimState::Stopping {
                // The run before this was about to stop it, and did not: whether it is to be stopped is seen anew.
                claim.state = ClaimState::Running;
            }
            own_doing = OwnDoing::found(claim.asked_to_stop, claim.powering_off, now);
        }
        let durable = !claim.state.is_released();
        // Of a stop without a grant nobody knows whether it was read (R34).
        let stop_written = (!durable).then_some(if claim.token.is_none() { now } else { Time(0) });
        Some(ClaimedVm { durable, stop_written, own_doing, ..ClaimedVm::new(claim, stage) })
    }

    /// A QEMU that nobody will resume, and that is to go. `claim`: what is said of the VM so far, if anything.
    pub(super) fn orphan(claim: Claim, op: OpId) -> ClaimedVm {
        let then = claim.state.clone();
        ClaimedVm::new(claim, Stage::Removing(Removal::new(op, then)))
    }

    pub(super) fn claim(&self) -> &Claim {
        &self.claim
    }

    pub(super) fn id(&self) -> VmId {
        self.claim.vm
    }

    pub(super) fn name(&self) -> VmName {
        VmName { id: self.claim.vm, name: self.claim.name.clone() }
    }

    pub(super) fn is_released(&self) -> bool {
        self.claim.state.is_released()
    }

    fn is_settled(&self) -> bool {
        self.stage == Stage::Settled
    }

    /// It runs, and nothing else is going on.
    fn runs(&self) -> bool {
        self.is_settled() && self.claim.state == ClaimState::Running
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.freeze.is_frozen()
    }

    /// It is bound to the lease.
    pub(super) fn is_bound(&self) -> bool {
        self.durable && !self.is_released()
    }

    /// Why it does not execute although it is claimed as running here, if so.
    pub(super) fn halt<'a>(&self, domain: impl FnOnce() -> Option<&'a Domain>) -> Option<Halt> {
        if self.is_released() {
            return None;
        }
        if self.is_frozen() {
            return Some(Halt::Frozen);
        }
        domain().is_some_and(|domain| domain.io_error).then_some(Halt::IoError)
    }

    /// Whether a look at the protected list is waited for.
    pub(super) fn waits_for_look(&self) -> bool {
        let asking = match &self.stage {
            Stage::Starting(start) => start.turn().is_some(),
            Stage::Stopping(stopping) => stopping.waits_for_look(),
            Stage::Settled | Stage::Removing(_) => false,
        };
        asking || self.is_frozen()
    }

    /// The claim is released: nothing is going on, and what was known of the guest is over.
    fn release(&mut self, state: ClaimState, wanted: &mut Wanted) {
        self.stage = Stage::Settled;
        if state.is_released() {
            self.claim.guest = Guest::Silent;
            self.claim.order_failed = None;
            self.orders = Orders::default();
            self.guest = Asking::default();
        }
        self.claim.state = state;
        wanted.want_write();
    }

    /// Its QEMU is removed; then the claim says that.
    fn remove(&mut self, then: ClaimState, out: &mut Out<'_>) {
        let op = self.freeze.destroy(self.id(), out);
        self.stage = Stage::Removing(Removal::new(op, then));
    }

    fn withdraw(&mut self, out: &mut Out<'_>) {
        self.remove(ClaimState::Stopped { cause: StopCause::Withdrawn }, out);
    }

    /// A removal that failed is tried again.
    pub(super) fn retry_removal(&mut self, out: &mut Out<'_>) {
        let vm = self.id();
        if let Stage::Removing(removal) = &mut self.stage
            && removal.is_due(out.now)
        {
            removal.retry(self.freeze.destroy(vm, out));
        }
    }

    /// A power-on list with that claim is on disk. Returns whether a look is wanted.
    pub(super) fn on_durable(&mut self, claim: &Claim, now: Time) -> bool {
        self.durable |= !claim.state.is_released();
        let same = self.claim == *claim;
        if self.stop_written.is_none() && claim.state.is_released() && same {
            self.stop_written = Some(now);
        }
        match &mut self.stage {
            Stage::Starting(start) => same && start.on_durable(now),
            Stage::Stopping(stopping) => same && stopping.on_durable(now),
            Stage::Settled | Stage::Removing(_) => false,
        }
    }

    /// The operation under way that belongs to its stage.
    pub(super) fn op(&self) -> Option<OpId> {
        match &self.stage {
            Stage::Settled => None,
            Stage::Starting(start) => start.op(),
            Stage::Removing(removal) => removal.op(),
            Stage::Stopping(stopping) => stopping.op(),
        }
    }

    /// That operation is done.
    pub(super) fn on_done(&mut self, outcome: &VmOutcome, wanted: &mut Wanted, out: &mut Out<'_>) {
        let now = out.now;
        self.acted = now;
        match &mut self.stage {
            Stage::Settled => {}
            Stage::Starting(start) => match start.on_done(self.claim.vm, outcome, out) {
                Outcome::GoesOn => {}
                Outcome::Runs => {
                    let token = self.claim.token.unwrap_or_default();
                    out.event(Event::VmStarted { vm: self.name(), token });
                    self.release(ClaimState::Running, wanted);
                }
                Outcome::NotCreated(reason) => {
                    self.tell_not_started(&reason, out);
                    self.release(ClaimState::StartFailed { reason }, wanted);
                }
                Outcome::NotResumed(reason) => {
                    self.tell_not_started(&reason, out);
                    self.remove(ClaimState::StartFailed { reason }, out);
                }
            },
            Stage::Removing(removal) => {
                if let Some(state) = removal.on_done(outcome, now) {
                    self.release(state, wanted);
                }
            }
            Stage::Stopping(stopping) => stopping.on_done(outcome, now),
        }
    }

    fn tell_not_started(&self, reason: &Arc<str>, out: &mut Out<'_>) {
        out.event(Event::VmStartFailed { vm: self.name(), reason: reason.clone() });
    }

    /// When something is to be tried again. `blind`: it is not known what runs here, and most is taken up again only when it is.
    pub(super) fn deadline(&self, blind: bool) -> Option<Time> {
        let stage = match &self.stage {
            Stage::Settled => None,
            Stage::Removing(removal) => removal.deadline(),
            Stage::Starting(_) | Stage::Stopping(_) if blind => None,
            Stage::Starting(start) => start.deadline(),
            Stage::Stopping(stopping) => stopping.deadline(),
        };
        let asks = if self.can_answer() { self.guest.deadline() } else { None };
        let orders = if self.runs() { self.orders.deadline() } else { None };
        [stage, asks, orders].into_iter().flatten().min()
    }
}

/// The steps of a start, as the list, the guard and libvirt allow them (R31).
impl ClaimedVm {
    /// It counts among the starts that may be under way at a time.
    pub(super) fn is_starting(&self) -> bool {
        matches!(&self.stage, Stage::Starting(start) if start.is_busy())
    }

    /// The start waits for the storage.
    pub(super) fn on_waits(&mut self) {
        if let Stage::Starting(start) = &mut self.stage {
            start.on_waits();
        }
    }

    /// The guard has looked for its process. Returns whether a look is wanted.
    pub(super) fn on_process(&mut self, state: ProcessState, now: Time) -> bool {
        let Stage::Starting(start) = &mut self.stage else { return false };
        start.on_process(state, now)
    }

    /// The look that its start waits for, and its priority.
    pub(super) fn turn(&self) -> Option<(Turn, Priority)> {
        let Stage::Starting(start) = &self.stage else { return None };
        let priority = self.claim.spec.as_ref().map_or(Priority::Medium, |spec| spec.priority);
        Some((start.turn()?, priority))
    }

    /// A look that is started from now on decides about its start.
    pub(super) fn check_again(&mut self, now: Time) {
        if let Stage::Starting(start) = &mut self.stage {
            start.check_again(now);
        }
    }

    /// A look has decided: it is granted, and QEMU is created, paused.
    pub(super) fn prepare(&mut self, desk: &mut Desk<'_, '_>) {
        let (Some(token), Some(spec)) = (self.claim.token, self.claim.spec.clone()) else { return };
        desk.out.event(Event::VmClaimed { vm: self.name(), token });
        let action = VmAction::Prepare {
            vm: self.claim.vm,
            name: self.claim.name.clone(),
            datastore: desk.datastore.clone(),
            xml: spec.xml,
            token,
        };
        let op = desk.out.vm(action);
        if let Stage::Starting(start) = &mut self.stage {
            start.prepare(op);
        }
    }

    /// R31: lets a VM that was created paused, and is granted to this host, execute. It does so under a valid lease only.
    pub(super) fn resume(&mut self, desk: &mut Desk<'_, '_>) {
        let Some((look, lease)) = desk.footing() else { return };
        if !desk.counts(look, lease) {
            return;
        }
        let vm = self.id();
        if self.is_frozen() {
            return self.freeze.thaw(vm, look, lease, desk.out);
        }
        let op = desk.out.vm(VmAction::Resume { vm });
        if let Stage::Starting(start) = &mut self.stage {
            start.resume(op);
        }
    }

    /// A look has decided: it is not granted any more. `prepared`: QEMU is there.
    pub(super) fn call_start_off(&mut self, prepared: bool, desk: &mut Desk<'_, '_>) {
        if prepared {
            self.withdraw(desk.out);
        } else {
            self.release(ClaimState::Stopped { cause: StopCause::Withdrawn }, desk.wanted);
        }
    }

    /// Libvirt has shown it while something is going on. Returns whether that is so.
    pub(super) fn go_on(&mut self, state: DomainState, as_of: Time, desk: &mut Desk<'_, '_>) -> bool {
        match &mut self.stage {
            Stage::Settled => return false,
            Stage::Removing(_) => {}
            Stage::Stopping(_) => self.follow_stopping(state, as_of, desk),
            Stage::Starting(start) => {
                let called_off =
                    desk.look.filter(|look| !look.changing && !desk.is_granted(look, &self.claim));
                if start.is_preparing() && called_off.is_some() {
                    // It may wait for the storage for ever, and somebody else is to have the VM.
                    self.withdraw(desk.out);
                } else if start.follow(self.claim.vm, state, as_of, desk.out) {
                    self.stage = Stage::Settled;
                    self.claim.state = ClaimState::StartFailed { reason: "the start did not happen".into() };
                    desk.wanted.want_write();
                }
            }
        }
        true
    }
}

/// What the guard has frozen, and when it may go on.
impl ClaimedVm {
    /// As the guard says.
    pub(super) fn set_frozen(&mut self, frozen: bool) {
        self.freeze.set(frozen);
    }

    /// R52: whether the list leaves the VM to this host. One that was granted to nobody since it came is nobody else's.
    fn may_go_on(&self, desk: &Desk<'_, '_>) -> bool {
        let Some(look) = desk.look else { return false };
        let ungranted = self.claim.token.is_none();
        match look.list.entry(self.id()) {
            Some(entry) if ungranted => {
                let newest = self.is_newest(entry, desk);
                entry.intent.is_none()
                    && match &entry.holder {
                        Some(holder) => holder == desk.me && (newest || entry.attempts == 0),
                        None => newest,
                    }
            }
            Some(_) => desk.is_granted(look, &self.claim),
            None => ungranted,
        }
    }

    /// R52: has the guard thaw the VM, if a look of the present term shows that it is still this host's.
    pub(super) fn thaw(&mut self, desk: &mut Desk<'_, '_>) {
        let Some((look, lease)) = desk.footing() else { return };
        let goes_on = match &self.stage {
            Stage::Settled | Stage::Stopping(_) => true,
            Stage::Starting(start) => start.is_resuming_or_doubtful(),
            Stage::Removing(_) => false,
        };
        let there = !self.is_released() && self.claim.state != ClaimState::Migrating;
        if self.is_frozen() && there && goes_on && desk.counts(look, lease) && self.may_go_on(desk) {
            self.freeze.thaw(self.id(), look, lease, desk.out);
        }
    }

    /// R53: a VM that QEMU paused for an I/O error goes on when its storage is reached again, on the conditions of a thaw.
    pub(super) fn continue_after_io_error(&mut self, desk: &mut Desk<'_, '_>) {
        let Some((look, lease)) = desk.footing() else { return };
        let Some(domains) = desk.host.domains else { return };
        let (domain, beaten) = (domains.get(self.id()), desk.host.beaten);
        let waits = self.runs() && self.freeze.may_continue(domain, beaten, desk.out.now);
        if waits && desk.counts(look, lease) && self.may_go_on(desk) {
            self.freeze.go_on(self.id(), desk.out);
            desk.out.event(Event::VmContinued { vm: self.name() });
        }
    }
}

/// Orders of the owner.
impl ClaimedVm {
    /// Does what the owner asks for. Returns whether the VM is to be ended for that.
    pub(super) fn obey(&mut self, entry: &Entry, order: &Order, desk: &mut Desk<'_, '_>) -> bool {
        if !self.runs() || self.claim.token != Some(entry.token) || entry.intent.is_some() {
            return false;
        }
        let timeout = entry.shutdown_timeout.unwrap_or(desk.host.isolation.shutdown_timeout);
        match self.orders.obey(order, &mut self.claim, timeout, desk.out) {
            Then::Nothing => false,
            Then::Write => {
                desk.wanted.want_write();
                false
            }
            Then::End => true,
        }
    }

    /// It is to be started elsewhere: it ends here.
    pub(super) fn end_for_order(&mut self, out: &mut Out<'_>) {
        self.remove(ClaimState::Stopped { cause: StopCause::NotVerified }, out);
    }

    /// What the owner no longer asks for. `asked`: its present order.
    pub(super) fn forget_order_unless<'a>(&mut self, asked: impl FnOnce() -> Option<&'a Order>) {
        self.orders.forget_unless(asked);
    }

    pub(super) fn put_off_order(&mut self, now: Time) {
        self.orders.put_off(now);
    }

    /// Whether that operation is an order's.
    pub(super) fn has_order(&self, op: OpId) -> bool {
        self.orders.has(op)
    }

    /// What came of it. Returns whether the claim says more than before.
    pub(super) fn on_order_done(&mut self, outcome: &VmOutcome, now: Time) -> bool {
        self.orders.on_done(outcome, &mut self.claim, now)
    }
}

/// Asking its guest.
impl ClaimedVm {
    fn can_answer(&self) -> bool {
        self.is_settled() && !self.is_frozen() && guests::can_answer(&self.claim)
    }

    pub(super) fn ask_guest(&mut self, readiness: impl FnOnce() -> Readiness, out: &mut Out<'_>) {
        if self.can_answer() {
            self.guest.ask(&self.claim, readiness(), out);
        } else {
            self.guest.pause();
        }
    }

    /// Whether that operation asks its guest.
    pub(super) fn asks_guest(&self, op: OpId) -> bool {
        self.guest.asks(op)
    }

    /// The answer of its guest. Returns whether the claim says more than before.
    pub(super) fn on_guest_answer(&mut self, outcome: &VmOutcome, now: Time) -> bool {
        self.guest.on_answer(outcome, &mut self.claim, now)
    }
}
