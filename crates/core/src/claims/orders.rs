//! Doing what the owner asks for with a VM that runs here (R74): as if its user had typed it. What comes of it is followed
//! like anything else that libvirt shows.

use super::*;

/// A guest that was asked to shut down is asked again after so long.
const ASK_AGAIN: Span = Span::from_secs(30);

/// What could not be done at its time is tried again after so long.
const LATER: Span = Span::from_secs(1);

/// An order that was taken up.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Obeyed {
    number: u64,
    op: Option<OpId>,
    /// When the guest is asked to shut down again.
    again: Option<Time>,
    /// When it is given up.
    give_up: Option<Time>,
}

impl Slot {
    pub(super) fn order_at(&self) -> Option<Time> {
        let runs = self.stage == Stage::Settled && self.claim.state == ClaimState::Running;
        let order = self.order.as_ref().filter(|order| order.op.is_none() && runs)?;
        order.again.into_iter().chain(order.give_up).min()
    }
}

impl Claims {
    pub(super) fn obey(&mut self, look: Option<&Look>, host: &HostSide<'_>, out: &mut Out<'_>) {
        self.obey_orders(look, host, out);
        self.put_off_orders(out.now);
    }

    fn obey_orders(&mut self, look: Option<&Look>, host: &HostSide<'_>, out: &mut Out<'_>) {
        let Some(look) = look.filter(|look| !look.changing) else { return };
        self.forget_orders(look);
        let mine = look.list.entries.iter().filter(|entry| entry.holder.as_ref() == Some(&self.me));
        let ordered = mine.filter_map(|entry| Some((entry, entry.order.as_ref()?)));
        let mut end: Vec<VmId> = Vec::new();
        for (entry, order) in ordered {
            let Some(slot) = self.slots.get_mut(&entry.vm) else { continue };
            let runs = slot.stage == Stage::Settled
                && slot.claim.state == ClaimState::Running
                && slot.claim.token == Some(entry.token)
                && entry.intent.is_none();
            if !runs {
                continue;
            }
            let timeout = entry.shutdown_timeout.unwrap_or(host.isolation.shutdown_timeout);
            let new = slot.order.as_ref().is_none_or(|obeyed| obeyed.number != order.number);
            if new {
                slot.claim.order_failed = None;
            }
            let vm = entry.vm;
            match &order.what {
                OrderKind::Migrate(to) if new => {
                    let op = Some(out.vm(VmAction::Migrate { vm, to: to.clone() }));
                    slot.order = Some(Obeyed { number: order.number, op, again: None, give_up: None });
                }
                OrderKind::ShutDown if new => {
                    let op = Some(out.vm(VmAction::Shutdown { vm }));
                    let give_up = Some(out.now + timeout);
                    slot.order = Some(Obeyed { number: order.number, op, again: None, give_up });
                }
                // It may have answered since.
                OrderKind::StartElsewhere if new && slot.claim.guest == Guest::Silent => {
                    slot.order = Some(Obeyed { number: order.number, op: None, again: None, give_up: None });
                    end.push(vm);
                }
                OrderKind::ShutDown => {
                    let Some(obeyed) = &mut slot.order else { continue };
                    if obeyed.op.is_none() && obeyed.give_up.is_some_and(|at| out.now >= at) {
                        obeyed.give_up = None;
                        obeyed.again = None;
                        let reason = alloc::format!("its guest has not shut down within {timeout}");
                        slot.claim.order_failed = Some((order.number, reason.into()));
                        self.dirty = true;
                    } else if obeyed.op.is_none() && obeyed.again.is_some_and(|at| out.now >= at) {
                        obeyed.op = Some(out.vm(VmAction::Shutdown { vm }));
                    }
                }
                OrderKind::Migrate(_) | OrderKind::StartElsewhere => {}
            }
        }
        for vm in end {
            let op = self.destroy(vm, out);
            let then = ClaimState::Stopped { cause: StopCause::NotVerified };
            self.set_stage(vm, Stage::Removing { op, then });
        }
    }

    /// What is due and can't be done now (somebody is contending, say) is looked at again in a second.
    fn put_off_orders(&mut self, now: Time) {
        for order in self.slots.values_mut().filter_map(|slot| slot.order.as_mut()) {
            for due in [&mut order.again, &mut order.give_up].into_iter().flatten() {
                if *due <= now {
                    *due = now + LATER;
                }
            }
        }
    }

    /// What the owner no longer asks for.
    fn forget_orders(&mut self, look: &Look) {
        for (vm, slot) in &mut self.slots {
            let Some(obeyed) = &mut slot.order else { continue };
            let asked = look.list.entry(*vm).and_then(|entry| entry.order.as_ref());
            if asked.is_none_or(|order| order.number != obeyed.number) {
                obeyed.again = None;
                obeyed.give_up = None;
            }
        }
    }

    /// What came of an order. False: that operation was none of these.
    pub(super) fn on_order_done(&mut self, op: OpId, outcome: &VmOutcome, now: Time) -> bool {
        let obeyed = |slot: &&mut Slot| slot.order.as_ref().is_some_and(|order| order.op == Some(op));
        let Some(slot) = self.slots.values_mut().find(obeyed) else { return false };
        let Some(order) = &mut slot.order else { return false };
        order.op = None;
        if order.give_up.is_some() {
            // A shutdown: the guest takes its time, or may not have listened.
            order.again = Some(now + ASK_AGAIN);
            return true;
        }
        if let VmOutcome::Failed(reason) | VmOutcome::Unknown(reason) = outcome {
            slot.claim.order_failed = Some((order.number, reason.clone()));
            self.dirty = true;
        }
        true
    }
}
