//! Isolation responses, on the host's side (R61, R62): applied only while this host is isolated, its flag is on disk, and
//! a look that was started after that shows that an owner is responsible for the VM.
//!
//! Invariant: nothing is ordered before the claim that says so is on disk and a look after that shows the owner still
//! responsible. Whoever comes after this run of the agent must know whose will it was.
//!
//! It does not conclude that a VM is off: that is seen.

use crate::ids::OpId;
use crate::input::VmOutcome;
use crate::register::{IsolationResponse, StopCause};
use crate::time::{Span, Time};
use serde::{Deserialize, Serialize};

/// How soon a shutdown that could not be asked for is asked for again.
const SHUTDOWN_RETRY: Span = Span::from_secs(2);

/// How long a guest that was asked to shut down may take, at least.
const ASKED_BEFORE: Span = Span::from_secs(300);

/// How long after a start of the agent a VM may still be destroyed because the run before had ordered it.
const POWERED_OFF_BEFORE: Span = Span::from_secs(30);

/// Whether and how isolation responses are to be applied now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IsolationNow {
    /// The host is isolated, and its flag has been on disk since then.
    pub(crate) flagged: Option<Time>,
    /// It reaches nobody now.
    pub(crate) cut_off: bool,
    /// It has reached nobody for long.
    pub(crate) isolated: bool,
    /// The cluster's default response.
    pub(crate) response: IsolationResponse,
    /// The cluster's default time-out for shutting down.
    pub(crate) shutdown_timeout: Span,
}

/// What this host has asked of a VM itself: what follows from that is not its user's word (R62).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct OwnDoing {
    /// This host asked the guest to shut down: until then its going down is this host's doing.
    asked_until: Option<Time>,
    /// This host powered it off: until then its being destroyed is, too.
    powered_off_until: Option<Time>,
    /// The run of the agent before this one asked, and this one has found that then.
    found: Option<Time>,
}

impl OwnDoing {
    /// Of the run of the agent before this one.
    pub(super) fn found(asked: bool, powering_off: bool, now: Time) -> OwnDoing {
        OwnDoing {
            asked_until: asked.then_some(now + ASKED_BEFORE),
            powered_off_until: powering_off.then_some(now + POWERED_OFF_BEFORE),
            found: asked.then_some(now),
        }
    }

    /// The protected list says that the run before has asked, or may have: this host's own list, which said so, is lost.
    pub(super) fn find_asked(&mut self, now: Time) {
        if self.found.is_none() {
            self.found = Some(now);
            self.asked_until = self.asked_until.max(Some(now + ASKED_BEFORE));
        }
    }

    /// The run before this one has asked.
    pub(super) fn was_found(&self) -> bool {
        self.found.is_some()
    }

    /// What was asked by the run before may take that long.
    pub(super) fn may_take(&mut self, timeout: Span) {
        let until = self.found.map(|found| found + timeout);
        self.asked_until = self.asked_until.max(until);
    }

    pub(super) fn has_asked(&self, now: Time) -> bool {
        self.asked_until.is_some_and(|until| now < until)
    }

    pub(super) fn has_powered_off(&self, now: Time) -> bool {
        self.powered_off_until.is_some_and(|until| now < until)
    }

    /// Why the VM stopped, when libvirt gives that cause.
    pub(super) fn cause(&self, cause: StopCause, now: Time) -> StopCause {
        match cause {
            StopCause::GuestShutdown | StopCause::UserShutdown if self.has_asked(now) => StopCause::Isolation,
            StopCause::UserDestroyed if self.has_powered_off(now) => StopCause::Isolation,
            StopCause::GuestShutdown
            | StopCause::UserShutdown
            | StopCause::UserDestroyed
            | StopCause::Saved
            | StopCause::Migrated
            | StopCause::MovedAway
            | StopCause::Crashed
            | StopCause::HostFailed
            | StopCause::Isolation
            | StopCause::NotVerified
            | StopCause::Withdrawn
            | StopCause::Unknown
            | StopCause::Maintenance => cause,
        }
    }
}

/// An isolation response under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Stopping {
    /// Since when the claim that says so is on disk: a look that starts later decides whether it happens.
    durable: Option<Time>,
    /// Such a look has shown that the owner is still responsible: the order is given.
    ordered: bool,
    /// The guest was asked to shut down.
    asked: bool,
    /// The order that is being carried out.
    op: Option<OpId>,
    retry_at: Time,
    /// It is shutting down until then; `None`: it is being powered off.
    power_off_at: Option<Time>,
    timeout: Span,
}

impl Stopping {
    /// `timeout`: how long the guest may take to shut down, if it is asked.
    pub(super) fn new(shuts_down: bool, timeout: Span, now: Time) -> Stopping {
        Stopping {
            durable: None,
            ordered: false,
            asked: false,
            op: None,
            retry_at: Time(u64::MAX),
            power_off_at: shuts_down.then(|| now + timeout),
            timeout,
        }
    }

    /// The claim that says so is on disk. Returns whether that was waited for.
    pub(super) fn on_durable(&mut self, now: Time) -> bool {
        let waited = self.durable.is_none();
        self.durable.get_or_insert(now);
        waited
    }

    /// A look is waited for.
    pub(super) fn waits_for_look(&self) -> bool {
        self.durable.is_some() && !self.ordered
    }

    /// Whether a look that was started then decides.
    pub(super) fn is_decided_by(&self, look_started: Time) -> bool {
        self.durable.is_some_and(|at| look_started >= at)
    }

    pub(super) fn is_ordered(&self) -> bool {
        self.ordered
    }

    /// R62: what has not happened yet does not happen.
    pub(super) fn is_revocable(&self) -> bool {
        !self.ordered || self.power_off_at.is_some()
    }

    pub(super) fn has_asked(&self) -> bool {
        self.asked
    }

    /// A look has shown that the owner is still responsible.
    pub(super) fn confirm(&mut self, now: Time) {
        self.ordered = true;
        self.retry_at = now;
    }

    /// The guest has had its time. On disk first, and looked at again, like the beginning. Returns the time that it had.
    pub(super) fn turn_to_power_off(&mut self, now: Time) -> Option<Span> {
        self.power_off_at.take_if(|at| now >= *at)?;
        self.durable = None;
        self.ordered = false;
        self.op = None;
        Some(self.timeout)
    }

    /// The order is to be given, or given again.
    pub(super) fn is_due(&self, now: Time) -> bool {
        self.op.is_none() && now >= self.retry_at
    }

    /// What is to be done is to ask the guest to shut down.
    pub(super) fn shuts_down(&self) -> bool {
        self.power_off_at.is_some()
    }

    /// The order is given. Until then what libvirt says of the VM's end is taken for this host's doing.
    pub(super) fn on_order(&mut self, op: OpId, doing: &mut OwnDoing, now: Time) {
        let until = Some(now + self.timeout.max(ASKED_BEFORE));
        if self.shuts_down() {
            doing.asked_until = until;
        } else {
            doing.powered_off_until = until;
        }
        self.asked |= self.shuts_down();
        self.op = Some(op);
        self.retry_at = now;
    }

    /// The operation under way.
    pub(super) fn op(&self) -> Option<OpId> {
        self.op
    }

    /// The order was carried out, or could not be. That the VM is off is seen, never concluded.
    pub(super) fn on_done(&mut self, outcome: &VmOutcome, now: Time) {
        self.op = None;
        // A guest that was asked once need not be asked again; a power-off is repeated until the VM is seen to be gone.
        let again = *outcome != VmOutcome::Done || self.power_off_at.is_none();
        self.retry_at = if again { now + SHUTDOWN_RETRY } else { Time(u64::MAX) };
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        if !self.ordered {
            return None;
        }
        let retry = self.op.is_none().then_some(self.retry_at);
        retry.into_iter().chain(self.power_off_at).min()
    }
}
