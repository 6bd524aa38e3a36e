//! A start, from the grant to the resumed VM (R30, R31).
//!
//! 1. The claim is written.
//! 2. When it is on disk, the ownership blocks and the protected list are read *again*: a look.
//! 3. If the look shows the same epoch and the same grant, QEMU is created, paused.
//! 4. The guard finds the process, so that it freezes it like any other when the lease ends.
//! 5. One more look. If it shows the same, the VM is resumed.
//!
//! Whoever takes the VM away writes first and reads after, as this host does. So at least one of the two sees the other.
//!
//! Invariant: a step that has to wait for a look waits for one that starts after the step before was done.
//!
//! It does not look at the list itself: [`Claims`](super::Claims) hands the looks out. And it orders nothing but the guard's
//! search: `vm` does.

use crate::effect::Effect;
use crate::guard::{GuardOrder, ProcessState};
use crate::ids::{OpId, VmId};
use crate::input::{DomainState, VmOutcome};
use crate::out::Out;
use crate::time::{Span, Time};
use alloc::sync::Arc;
use serde::{Deserialize, Serialize};

/// How long after a look a start may still be begun by it.
const LOOK_KEPT: Span = Span::from_secs(1);

/// How soon the guard is asked again that has not found the process.
const ASK_RETRY: Span = Span::from_secs(1);

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum Step {
    /// The claim `Starting` has to reach the disk.
    Announcing,
    /// On disk since then: a look at the protected list that starts later decides.
    Checking { since: Time },
    /// QEMU is being created, paused.
    Preparing {
        op: OpId,
        /// It waits for the storage: others may start meanwhile.
        waits: bool,
    },
    /// QEMU is there, paused: the guard has to find its process.
    Guarding { since: Time, ask_at: Time },
    /// QEMU is there, paused and guarded: one more look decides.
    Prepared { since: Time },
    /// It is being resumed.
    Resuming { op: OpId },
    /// Nobody knows whether the start happened: the next full picture of the domains tells.
    Doubtful { since: Time },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Start {
    step: Step,
}

/// A start that waits for a look.
pub(super) struct Turn {
    /// Only a look that was started since then counts.
    since: Time,
    /// QEMU is there: it need not wait for its turn.
    pub(super) prepared: bool,
}

impl Turn {
    /// Whether a look that started then may decide.
    pub(super) fn is_decided_by(&self, look_started: Time) -> bool {
        look_started >= self.since
    }

    /// It waited for its turn: what it was granted when the look was started may have been taken back.
    pub(super) fn is_stale(&self, look_started: Time, now: Time) -> bool {
        !self.prepared && now.since(look_started) > LOOK_KEPT
    }
}

/// What came of an operation.
pub(super) enum Outcome {
    /// The start goes on.
    GoesOn,
    /// The VM is resumed.
    Runs,
    /// It could not be created.
    NotCreated(Arc<str>),
    /// It was created and could not be resumed.
    NotResumed(Arc<str>),
}

impl Start {
    /// The VM is granted to this host, and the claim has yet to be written.
    pub(super) fn announce() -> Start {
        Start { step: Step::Announcing }
    }

    /// A start of an earlier run of the agent.
    pub(super) fn doubtful(now: Time) -> Start {
        Start { step: Step::Doubtful { since: now } }
    }

    /// The claim is on disk. Returns whether that was waited for.
    pub(super) fn on_durable(&mut self, now: Time) -> bool {
        let waited = self.step == Step::Announcing;
        if waited {
            self.step = Step::Checking { since: now };
        }
        waited
    }

    /// The look that it waits for, if it does.
    pub(super) fn turn(&self) -> Option<Turn> {
        match self.step {
            Step::Checking { since } => Some(Turn { since, prepared: false }),
            Step::Prepared { since } => Some(Turn { since, prepared: true }),
            Step::Announcing
            | Step::Preparing { .. }
            | Step::Guarding { .. }
            | Step::Resuming { .. }
            | Step::Doubtful { .. } => None,
        }
    }

    /// Another look has to be started for it.
    pub(super) fn check_again(&mut self, now: Time) {
        self.step = Step::Checking { since: now };
    }

    /// QEMU is being created, paused.
    pub(super) fn prepare(&mut self, op: OpId) {
        assert!(matches!(self.step, Step::Checking { .. }), "R30: QEMU is created before a look has decided");
        self.step = Step::Preparing { op, waits: false };
    }

    /// It is being resumed.
    pub(super) fn resume(&mut self, op: OpId) {
        assert!(matches!(self.step, Step::Prepared { .. }), "R31: a VM is resumed that no guard watches");
        self.step = Step::Resuming { op };
    }

    /// It waits for the storage.
    pub(super) fn on_waits(&mut self) {
        if let Step::Preparing { waits, .. } = &mut self.step {
            *waits = true;
        }
    }

    pub(super) fn is_preparing(&self) -> bool {
        matches!(self.step, Step::Preparing { .. })
    }

    pub(super) fn is_resuming_or_doubtful(&self) -> bool {
        matches!(self.step, Step::Resuming { .. } | Step::Doubtful { .. })
    }

    /// It counts among the starts that may be under way at a time.
    pub(super) fn is_busy(&self) -> bool {
        match self.step {
            Step::Preparing { waits, .. } => !waits,
            Step::Guarding { .. } | Step::Prepared { .. } | Step::Resuming { .. } => true,
            Step::Announcing | Step::Checking { .. } | Step::Doubtful { .. } => false,
        }
    }

    /// The operation under way.
    pub(super) fn op(&self) -> Option<OpId> {
        match self.step {
            Step::Preparing { op, .. } | Step::Resuming { op } => Some(op),
            Step::Announcing
            | Step::Checking { .. }
            | Step::Guarding { .. }
            | Step::Prepared { .. }
            | Step::Doubtful { .. } => None,
        }
    }

    /// The operation under way is done.
    pub(super) fn on_done(&mut self, vm: VmId, outcome: &VmOutcome, out: &mut Out<'_>) -> Outcome {
        match (&self.step, outcome) {
            (Step::Preparing { .. }, VmOutcome::Done) => {
                self.step = Step::Guarding { since: out.now, ask_at: out.now };
                self.ask_guard(vm, out);
                Outcome::GoesOn
            }
            (Step::Resuming { .. }, VmOutcome::Done) => Outcome::Runs,
            (Step::Preparing { .. }, VmOutcome::Failed(reason)) => Outcome::NotCreated(reason.clone()),
            (Step::Resuming { .. }, VmOutcome::Failed(reason)) => Outcome::NotResumed(reason.clone()),
            (Step::Preparing { .. } | Step::Resuming { .. }, VmOutcome::Unknown(_)) => {
                self.step = Step::Doubtful { since: out.now };
                Outcome::GoesOn
            }
            (
                Step::Announcing
                | Step::Checking { .. }
                | Step::Guarding { .. }
                | Step::Prepared { .. }
                | Step::Doubtful { .. },
                _,
            ) => Outcome::GoesOn,
        }
    }

    /// Asks the guard to find the process of the VM that was just created.
    fn ask_guard(&mut self, vm: VmId, out: &mut Out<'_>) {
        if let Step::Guarding { ask_at, .. } = &mut self.step {
            *ask_at = out.now + ASK_RETRY;
            out.effects.push(Effect::Guard(GuardOrder::Adopt { vm }));
        }
    }

    /// The guard has looked for the process. Returns whether a look is wanted.
    pub(super) fn on_process(&mut self, state: ProcessState, now: Time) -> bool {
        let found = matches!(self.step, Step::Guarding { .. })
            && matches!(state, ProcessState::Runs | ProcessState::Frozen);
        if found {
            self.step = Step::Prepared { since: now };
        }
        found
    }

    /// When the guard is to be asked again.
    pub(super) fn deadline(&self) -> Option<Time> {
        match self.step {
            Step::Guarding { ask_at, .. } => Some(ask_at),
            Step::Announcing
            | Step::Checking { .. }
            | Step::Preparing { .. }
            | Step::Prepared { .. }
            | Step::Resuming { .. }
            | Step::Doubtful { .. } => None,
        }
    }

    /// Libvirt has shown the VM, as of then. Returns whether the start has turned out not to have happened.
    pub(super) fn follow(&mut self, vm: VmId, state: DomainState, as_of: Time, out: &mut Out<'_>) -> bool {
        match self.step {
            Step::Doubtful { since } if as_of >= since => self.settle_doubt(state, out.now),
            Step::Guarding { since, .. } if as_of >= since && matches!(state, DomainState::Stopped(_)) => {
                self.settle_doubt(state, out.now)
            }
            Step::Guarding { ask_at, .. } if out.now >= ask_at => {
                self.ask_guard(vm, out);
                false
            }
            Step::Announcing
            | Step::Checking { .. }
            | Step::Preparing { .. }
            | Step::Guarding { .. }
            | Step::Prepared { .. }
            | Step::Resuming { .. }
            | Step::Doubtful { .. } => false,
        }
    }

    fn settle_doubt(&mut self, state: DomainState, now: Time) -> bool {
        match state {
            DomainState::Running | DomainState::Prepared => {
                self.step = Step::Guarding { since: now, ask_at: now };
                false
            }
            DomainState::Incoming => false,
            DomainState::Stopped(_) => true,
        }
    }
}
