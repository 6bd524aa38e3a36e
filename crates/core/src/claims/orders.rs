//! Doing what the owner asks for with a VM that runs here (R74): as if its user had typed it. What comes of it is followed
//! like anything else that libvirt shows.
//!
//! Invariant: an order is taken up once, by its number.

use crate::effect::VmAction;
use crate::ids::OpId;
use crate::input::VmOutcome;
use crate::out::Out;
use crate::register::{Claim, FailedOrder, Guest, Order, OrderKind};
use crate::time::{Span, Time};
use serde::{Deserialize, Serialize};

/// A guest that was asked to shut down is asked again after so long.
const ASK_AGAIN: Span = Span::from_secs(30);

/// What could not be done at its time is tried again after so long.
const LATER: Span = Span::from_secs(1);

/// An order that was taken up.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Obeyed {
    number: u64,
    op: Option<OpId>,
    /// When the guest is asked to shut down again.
    again: Option<Time>,
    /// When it is given up.
    give_up: Option<Time>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Orders {
    last: Option<Obeyed>,
}

/// What else is to be done for an order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    Nothing,
    /// The claim says that the order failed: it is to be written.
    Write,
    /// The VM is to be ended here.
    End,
}

impl Orders {
    /// When an order is due again, of a VM that runs.
    pub(super) fn deadline(&self) -> Option<Time> {
        let order = self.last.as_ref().filter(|order| order.op.is_none())?;
        order.again.into_iter().chain(order.give_up).min()
    }

    /// Takes an order up, or goes on with it. `timeout`: how long a guest may take to shut down.
    pub(super) fn obey(
        &mut self,
        order: &Order,
        claim: &mut Claim,
        timeout: Span,
        out: &mut Out<'_>,
    ) -> Then {
        let new = self.last.as_ref().is_none_or(|obeyed| obeyed.number != order.number);
        if new {
            claim.order_failed = None;
        }
        let (vm, number) = (claim.vm, order.number);
        match &order.what {
            OrderKind::Migrate(to) if new => {
                let op = Some(out.vm(VmAction::Migrate { vm, to: to.clone() }));
                self.last = Some(Obeyed { number, op, again: None, give_up: None });
            }
            OrderKind::ShutDown if new => {
                let op = Some(out.vm(VmAction::Shutdown { vm }));
                let give_up = Some(out.now + timeout);
                self.last = Some(Obeyed { number, op, again: None, give_up });
            }
            // It may have answered since.
            OrderKind::StartElsewhere if new && claim.guest == Guest::Silent => {
                self.last = Some(Obeyed { number, op: None, again: None, give_up: None });
                return Then::End;
            }
            OrderKind::ShutDown => return self.press(claim, timeout, out),
            OrderKind::Migrate(_) | OrderKind::StartElsewhere => {}
        }
        Then::Nothing
    }

    /// A guest that was asked to shut down and still runs.
    fn press(&mut self, claim: &mut Claim, timeout: Span, out: &mut Out<'_>) -> Then {
        let Some(obeyed) = self.last.as_mut().filter(|obeyed| obeyed.op.is_none()) else {
            return Then::Nothing;
        };
        if obeyed.give_up.is_some_and(|at| out.now >= at) {
            obeyed.give_up = None;
            obeyed.again = None;
            let reason = alloc::format!("its guest has not shut down within {timeout}");
            claim.order_failed = Some(FailedOrder { number: obeyed.number, reason: reason.into() });
            return Then::Write;
        }
        if obeyed.again.is_some_and(|at| out.now >= at) {
            obeyed.op = Some(out.vm(VmAction::Shutdown { vm: claim.vm }));
        }
        Then::Nothing
    }

    /// What is due and can't be done now (somebody is contending, say) is looked at again in a second.
    pub(super) fn put_off(&mut self, now: Time) {
        let Some(order) = &mut self.last else { return };
        for due in [&mut order.again, &mut order.give_up].into_iter().flatten() {
            if *due <= now {
                *due = now + LATER;
            }
        }
    }

    /// What the owner no longer asks for. `asked`: its present order.
    pub(super) fn forget_unless<'a>(&mut self, asked: impl FnOnce() -> Option<&'a Order>) {
        let Some(obeyed) = &mut self.last else { return };
        if asked().is_none_or(|order| order.number != obeyed.number) {
            obeyed.again = None;
            obeyed.give_up = None;
        }
    }

    /// Whether that operation is under way.
    pub(super) fn has(&self, op: OpId) -> bool {
        self.last.as_ref().is_some_and(|order| order.op == Some(op))
    }

    /// What came of the operation. Returns whether the claim says more than before.
    pub(super) fn on_done(&mut self, outcome: &VmOutcome, claim: &mut Claim, now: Time) -> bool {
        let Some(order) = &mut self.last else { return false };
        order.op = None;
        if order.give_up.is_some() {
            // A shutdown: the guest takes its time, or may not have listened.
            order.again = Some(now + ASK_AGAIN);
            return false;
        }
        match outcome {
            VmOutcome::Done => false,
            VmOutcome::Failed(reason) | VmOutcome::Unknown(reason) => {
                claim.order_failed = Some(FailedOrder { number: order.number, reason: reason.clone() });
                true
            }
        }
    }
}
