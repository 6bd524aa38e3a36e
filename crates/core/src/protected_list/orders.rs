//! What the owner asks holders to do with running VMs (R74): move them off a host in maintenance, shut them down, or end one
//! whose guest was not seen to come up.

use super::*;

/// An order that failed is not given again before so long: another host, or time, may help.
const ORDER_RETRY: Span = Span::from_secs(30);

impl OwnerList {
    pub(super) fn wants_to_move(
        &mut self,
        vm: VmId,
        entry: &Entry,
        side: &OwnerSide<'_>,
        now: Time,
    ) -> Option<Want> {
        let holder = entry.holder.as_ref()?;
        let how = self.settings.maintenance.get(holder).copied();
        let slot = self.slots.get_mut(&vm)?;
        // R79: the next primary moves what runs here.
        let other = |room: &Candidate| room.unusable.is_none() && room.host != *side.me;
        if holder == side.me && side.candidates.iter().any(other) {
            return None;
        }
        let reachable = side.states.get(holder) == Some(&HostState::Connected) || holder == side.me;
        if how != Some(Evacuation::Migrate) || entry.order.is_some() || now < slot.order_again || !reachable {
            return None;
        }
        Some(Want { vm, kind: WantKind::Move, first_try: None, passed_over: false, lost_on: None })
    }

    /// No more than some are on their way from one host at a time.
    pub(super) fn limit_moves(&self, wants: &mut Vec<Want>) {
        let mut moving: BTreeMap<HostId, usize> = BTreeMap::new();
        for slot in self.slots.values() {
            let order = slot.working.order.as_ref().map(|order| &order.what);
            if let (Some(OrderKind::Migrate(_)), Some(holder)) = (order, &slot.working.holder) {
                *moving.entry(holder.clone()).or_default() += 1;
            }
        }
        wants.retain(|want| {
            let holder = self.slots.get(&want.vm).and_then(|slot| slot.working.holder.clone());
            let (WantKind::Move, Some(holder)) = (want.kind, holder) else { return true };
            let count = moving.entry(holder).or_default();
            *count += 1;
            *count <= MOVES_AT_ONCE
        });
    }

    /// What is to be ordered, and what has become of the last order, for a VM that runs on its holder.
    pub(super) fn order(
        &mut self,
        vm: VmId,
        entry: &Entry,
        claim: Option<&Claim>,
        places: &mut Places,
        name: VmName,
        out: &mut Out<'_>,
    ) {
        let Some(slot) = self.slots.get_mut(&vm) else { return };
        let Some(holder) = &entry.holder else { return };
        let how = self.settings.maintenance.get(holder).copied();
        if let Some(order) = &entry.order {
            let failed = claim.and_then(|claim| claim.order_failed.as_ref());
            let failed = failed.filter(|(number, _)| *number == order.number);
            if let Some((_, reason)) = failed {
                let (host, order, reason) = (holder.clone(), order.what.clone(), reason.clone());
                if let OrderKind::Migrate(to) = &order {
                    slot.avoid.insert(to.clone());
                }
                slot.order_again = out.now + ORDER_RETRY;
                slot.failures.insert(host.clone(), reason.clone());
                out.event(Event::VmOrderFailed { vm: name, host, order, reason });
                slot.working.order = None;
                self.dirty = true;
            } else if how.is_none() && order.what == OrderKind::ShutDown {
                // Maintenance is over before it was obeyed.
                slot.working.order = None;
                self.dirty = true;
            }
            return;
        }
        let what = match (how, places.remove(&vm)) {
            (Some(Evacuation::Migrate), Some(Place::Go(to))) => OrderKind::Migrate(to),
            (Some(Evacuation::Migrate), Some(Place::Nowhere { refusals: reasons, .. })) => {
                // On show; no alarm, since it runs.
                slot.waits =
                    Some(slot::Waits { reasons, tell_at: Time(u64::MAX), told: true, kind: Wait::ToMove });
                return;
            }
            (Some(Evacuation::ShutDown), _) if out.now >= slot.order_again => OrderKind::ShutDown,
            (None, _) if slot.bring_back => {
                slot.bring_back = false;
                match slot.working.evacuated_from.take().filter(|home| home != holder) {
                    Some(home) => OrderKind::Migrate(home),
                    None => return,
                }
            }
            (Some(_) | None, _) => return,
        };
        if how.is_some() {
            slot.working.evacuated_from = Some(holder.clone());
        }
        self.give(vm, what);
    }

    pub(super) fn give(&mut self, vm: VmId, what: OrderKind) {
        self.orders += 1;
        // Unique over all owners: an epoch gives fewer than a million.
        let number = self.epoch.0.wrapping_mul(1_000_000).wrapping_add(self.orders);
        if let Some(slot) = self.slots.get_mut(&vm) {
            slot.waits = None;
            slot.working.order = Some(Order { number, what });
            self.dirty = true;
        }
    }

    /// Moves back what was moved away from that host for maintenance.
    pub(crate) fn bring_back(&mut self, host: &HostId) -> u32 {
        let mut count = 0;
        for slot in self.slots.values_mut() {
            if slot.working.evacuated_from.as_ref() == Some(host) {
                slot.bring_back = true;
                count += 1;
            }
        }
        count
    }

    /// VMs that the host holds or is to get.
    pub(crate) fn held_by(&self, host: &HostId) -> u32 {
        let held = |slot: &&Slot| {
            slot.working.holder.as_ref() == Some(host)
                && slot.working.desired == Desired::On
                && (slot.running_since.is_some() || slot.working.attempts > 0)
        };
        self.slots.values().filter(held).count() as u32
    }
}
