//! What the owner asks holders to do with running VMs (R74): move them off a host in maintenance, or back to it, shut them
//! down, or end one whose guest was not seen to come up.

use super::*;

/// An order that failed is not given again before so long: another host, or time, may help.
const ORDER_RETRY: Span = Span::from_secs(30);

impl OwnerList {
    /// A VM that runs on its holder, and is to run elsewhere.
    pub(super) fn wants_to_move(
        &mut self,
        vm: VmId,
        entry: &Entry,
        side: &OwnerSide<'_>,
        now: Time,
    ) -> Option<Want> {
        let holder = entry.holder.as_ref()?;
        let how = self.settings.maintenance.get(holder).copied();
        let home = self.home_of(entry);
        let slot = self.slots.get_mut(&vm)?;
        let mute = slot.restart.is_mute(&slot.working, now);
        let reachable = side.states.get(holder) == Some(&HostState::Connected) || holder == side.me;
        if entry.order.is_some() || now < slot.order_again || !reachable {
            return None;
        }
        if mute {
            // R76: tried last, so that it is chosen only when no other host can take the VM.
            slot.restart.avoid(holder.clone());
        } else if how == Some(Evacuation::Migrate) {
            // R79: the next primary moves what runs here.
            let other = |room: &Candidate| room.unusable.is_none() && room.host != *side.me;
            if holder == side.me && side.candidates.iter().any(other) {
                return None;
            }
        } else if how.is_some() || home.is_none() {
            return None;
        }
        let first_try = home.filter(|_| how.is_none() && !mute);
        let tried = BTreeSet::new();
        Some(Want {
            vm,
            kind: WantKind::Move,
            first_try,
            passed_over: false,
            tried,
            lost_on: None,
            since: now,
        })
    }

    /// The host to which it is to be brought back after maintenance.
    fn home_of(&self, entry: &Entry) -> Option<HostId> {
        let home = entry.evacuated_from.as_ref().filter(|home| self.settings.bring_back.contains(*home))?;
        (entry.holder.as_ref() != Some(home)).then(|| home.clone())
    }

    /// As many are on their way from that host as may be at a time.
    fn is_moving_enough(&self, holder: &HostId) -> bool {
        let moving = |slot: &&Slot| {
            let order = slot.working.order.as_ref().map(|order| &order.what);
            slot.working.holder.as_ref() == Some(holder) && matches!(order, Some(OrderKind::Migrate(_)))
        };
        self.slots.values().filter(moving).count() >= MOVES_AT_ONCE
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
        let Some(holder) = &entry.holder else { return };
        let how = self.settings.maintenance.get(holder).copied();
        if let Some(order) = &entry.order {
            return self.follow_order(vm, order, how, holder, claim, name, out);
        }
        let home = self.home_of(entry);
        let enough = self.is_moving_enough(holder);
        let Some(slot) = self.slots.get_mut(&vm) else { return };
        let what = match (how, places.remove(&vm)) {
            (Some(Evacuation::ShutDown), _) if out.now >= slot.order_again => OrderKind::ShutDown,
            (_, Some(Place::Go(to))) if enough || to == *holder => return,
            (Some(Evacuation::Migrate), Some(Place::Go(to))) => OrderKind::Migrate(to),
            (None, Some(Place::Go(to))) if home.as_ref() == Some(&to) => OrderKind::Migrate(to),
            (Some(Evacuation::Migrate), Some(Place::Nowhere { refusals: reasons, .. })) => {
                // On show; no alarm, since it runs.
                let tell_at = Time(u64::MAX);
                slot.waits = Some(slot::Waits { reasons, tell_at, told: true, kind: Wait::ToMove });
                return;
            }
            (Some(_) | None, _) => return,
        };
        if how.is_some() {
            slot.working.evacuated_from = Some(holder.clone());
        }
        self.give(vm, what);
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one review, passed on")]
    fn follow_order(
        &mut self,
        vm: VmId,
        order: &Order,
        how: Option<Evacuation>,
        holder: &HostId,
        claim: Option<&Claim>,
        name: VmName,
        out: &mut Out<'_>,
    ) {
        let Some(slot) = self.slots.get_mut(&vm) else { return };
        let failed = claim.and_then(|claim| claim.order_failed.as_ref());
        let failed = failed.filter(|(number, _)| *number == order.number);
        let answers = claim.is_some_and(|claim| claim.guest != Guest::Silent);
        let void = match order.what {
            // Maintenance is over, or another one, before it was obeyed.
            OrderKind::ShutDown => how != Some(Evacuation::ShutDown),
            OrderKind::StartElsewhere => answers,
            OrderKind::Migrate(_) => false,
        };
        if let Some((_, reason)) = failed {
            let (host, order, reason) = (holder.clone(), order.what.clone(), reason.clone());
            if let OrderKind::Migrate(to) = &order {
                slot.refused.insert(to.clone());
            }
            slot.order_again = out.now + ORDER_RETRY;
            out.event(Event::VmOrderFailed { vm: name, host, order, reason });
        } else if !void {
            return;
        }
        slot.working.order = None;
        self.writing.want();
    }

    pub(super) fn give(&mut self, vm: VmId, what: OrderKind) {
        let number = self.numbers.next_order();
        if let Some(slot) = self.slots.get_mut(&vm) {
            slot.waits = None;
            slot.working.order = Some(Order { number, what });
            self.writing.want();
        }
    }

    /// VMs that were moved away from that host for maintenance.
    pub(crate) fn evacuated_from(&self, host: &HostId) -> u32 {
        let away = |slot: &&Slot| {
            let entry = &slot.working;
            entry.evacuated_from.as_ref() == Some(host)
                && entry.holder.is_some()
                && entry.desired == Desired::On
        };
        self.slots.values().filter(away).count() as u32
    }

    /// Nothing is brought back to that host any more.
    pub(crate) fn forget_evacuation(&mut self, host: &HostId) {
        for slot in self.slots.values_mut() {
            if slot.working.evacuated_from.as_ref() == Some(host) {
                slot.working.evacuated_from = None;
                self.writing.want();
            }
        }
    }

    /// VMs that the host holds or is to get.
    pub(crate) fn held_by(&self, host: &HostId) -> u32 {
        let held =
            |slot: &&Slot| slot.working.holder.as_ref() == Some(host) && slot.working.desired == Desired::On;
        self.slots.values().filter(held).count() as u32
    }
}
