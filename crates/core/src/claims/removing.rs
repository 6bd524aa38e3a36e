//! The removal of a VM that may not run here (R33).
//!
//! Invariant: the claim stands until somebody has seen the VM gone. A removal that failed is tried again for ever.

use crate::ids::OpId;
use crate::input::VmOutcome;
use crate::register::ClaimState;
use crate::time::{Span, Time};
use serde::{Deserialize, Serialize};

/// How long to wait before a removal that failed is tried again.
const RETRY: Span = Span::from_secs(1);

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum Step {
    Ordered(OpId),
    /// It failed; it is tried again at that time.
    Due(Time),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Removal {
    step: Step,
    /// What the claim says when the VM is gone.
    then: ClaimState,
}

impl Removal {
    pub(super) fn new(op: OpId, then: ClaimState) -> Removal {
        Removal { step: Step::Ordered(op), then }
    }

    /// The operation under way.
    pub(super) fn op(&self) -> Option<OpId> {
        match self.step {
            Step::Ordered(op) => Some(op),
            Step::Due(_) => None,
        }
    }

    /// When it is to be tried again.
    pub(super) fn deadline(&self) -> Option<Time> {
        match self.step {
            Step::Ordered(_) => None,
            Step::Due(at) => Some(at),
        }
    }

    pub(super) fn is_due(&self, now: Time) -> bool {
        self.deadline().is_some_and(|at| now >= at)
    }

    /// It is tried again.
    pub(super) fn retry(&mut self, op: OpId) {
        self.step = Step::Ordered(op);
    }

    /// The operation is done. Returns what the claim is to say, if the VM is gone.
    pub(super) fn on_done(&mut self, outcome: &VmOutcome, now: Time) -> Option<ClaimState> {
        match outcome {
            VmOutcome::Done => Some(self.then.clone()),
            VmOutcome::Failed(_) | VmOutcome::Unknown(_) => {
                self.step = Step::Due(now + RETRY);
                None
            }
        }
    }
}
