//! Asking guests whether they are up (R76): their agent, and the command that is set for them as a ready condition.
//!
//! It does not conclude anything from silence: the owner does.

use crate::effect::VmAction;
use crate::ids::OpId;
use crate::input::VmOutcome;
use crate::out::Out;
use crate::register::{Claim, ClaimState, Guest};
use crate::settings::{Readiness, ReadyWhen};
use crate::time::{Span, Time};
use serde::{Deserialize, Serialize};

/// How often a guest is asked while it may be booting.
const ASK_EVERY: Span = Span::from_secs(5);
/// For so long.
const BOOTS_FOR: Span = Span::from_secs(600);
/// How often afterwards: it may have no agent at all.
const ASK_SELDOM: Span = Span::from_secs(600);

/// What is being asked of a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Asking {
    op: Option<OpId>,
    /// The question under way is whether its command succeeds.
    command: bool,
    due: Option<Time>,
    /// When the asking began.
    since: Time,
}

/// A guest that can be asked at all.
pub(super) fn can_answer(claim: &Claim) -> bool {
    let channel = claim.spec.as_ref().is_some_and(|spec| spec.guest_agent);
    channel && claim.state == ClaimState::Running
}

impl Asking {
    /// When it is to be asked.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.due.filter(|_| self.op.is_none())
    }

    /// It can't be asked now.
    pub(super) fn pause(&mut self) {
        self.due = None;
    }

    /// Asks it, if it is time and there is anything left to be known.
    pub(super) fn ask(&mut self, claim: &Claim, readiness: Readiness, out: &mut Out<'_>) {
        let commanded = readiness.when == ReadyWhen::CommandSucceeds;
        let wanted = if commanded { Guest::CommandSucceeded } else { Guest::Answers };
        if claim.guest >= wanted {
            self.due = None;
            return;
        }
        if self.op.is_some() {
            return;
        }
        let due = *self.due.get_or_insert_with(|| {
            self.since = out.now;
            out.now
        });
        if out.now < due {
            return;
        }
        let command = readiness.command.filter(|_| commanded && claim.guest == Guest::Answers);
        self.command = command.is_some();
        self.op = Some(out.vm(VmAction::AskGuest { vm: claim.vm, command }));
    }

    /// Whether that question is under way.
    pub(super) fn asks(&self, op: OpId) -> bool {
        self.op == Some(op)
    }

    /// The answer. Returns whether the claim says more than before.
    pub(super) fn on_answer(&mut self, outcome: &VmOutcome, claim: &mut Claim, now: Time) -> bool {
        self.op = None;
        let seldom = now.since(self.since) >= BOOTS_FOR;
        self.due = Some(now + if seldom { ASK_SELDOM } else { ASK_EVERY });
        let shown = if self.command { Guest::CommandSucceeded } else { Guest::Answers };
        let news = *outcome == VmOutcome::Done && claim.state == ClaimState::Running && claim.guest < shown;
        if news {
            claim.guest = shown;
            self.due = Some(now);
        }
        news
    }
}
