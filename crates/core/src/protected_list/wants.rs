//! Which VMs want a host in this review, and how far restarts have come: what placement is asked about.

use super::restart::failed_start;
use super::*;

impl OwnerList {
    /// Before a review: takes note of new VMs, failed starts and progress, and says which VMs want a host. R40: only the owner
    /// calls this, within its ownership.
    pub(crate) fn prepare(&mut self, side: &OwnerSide<'_>, out: &mut Out<'_>) -> Vec<Want> {
        if self.writing.on_disk().is_none() {
            return Vec::new();
        }
        self.prune(side);
        self.admit_new(side, out);
        let failing_over = self.suspension.is_waiting() && self.is_failing_over(side);
        if self.suspension.tick(failing_over, out) {
            self.writing.want();
        }
        let vms: Vec<VmId> = self.slots.keys().copied().collect();
        let mut wants = Vec::new();
        for vm in vms {
            let Some((entry, seen, verdict)) = self.judge(vm, side, out.now) else { continue };
            self.note_progress(vm, seen.as_ref(), out.now);
            self.note_failure(vm, &entry, seen.as_ref(), &verdict, out);
            if !self.suspension.stands()
                && let Some(want) = self.want(vm, &entry, seen.as_ref(), &verdict, side, out)
            {
                wants.push(want);
            }
        }
        wants
    }

    fn note_progress(&mut self, vm: VmId, seen: Option<&HolderSeen<'_>>, now: Time) {
        let readiness = self.settings.readiness(vm);
        let Some(slot) = self.slots.get_mut(&vm) else { return };
        if slot.working.intent.is_some() {
            return;
        }
        let token = slot.working.token;
        let claim = seen.and_then(|seen| seen.claim).filter(|claim| claim.token == Some(token));
        let met = claim.is_some_and(|claim| match readiness.when {
            crate::settings::ReadyWhen::Started => !claim.state.is_released(),
            when => claim.state == ClaimState::Running && guest_shows(claim.guest, when),
        });
        if met {
            slot.restart.note_ready(now);
        }
    }

    fn note_failure(
        &mut self,
        vm: VmId,
        entry: &Entry,
        seen: Option<&HolderSeen<'_>>,
        verdict: &Verdict,
        out: &mut Out<'_>,
    ) {
        let (Some(slot), Some(holder)) = (self.slots.get_mut(&vm), &entry.holder) else { return };
        let claim = seen.and_then(|seen| seen.claim).filter(|claim| claim.token == Some(entry.token));
        let why = failed_start(entry, claim, verdict);
        if let Some(why) = why
            && slot.restart.note_failure(&mut slot.working, holder, why, out.now)
        {
            self.writing.want();
        }
    }

    fn want(
        &mut self,
        vm: VmId,
        entry: &Entry,
        seen: Option<&HolderSeen<'_>>,
        verdict: &Verdict,
        side: &OwnerSide<'_>,
        out: &mut Out<'_>,
    ) -> Option<Want> {
        let slot = self.slots.get_mut(&vm)?;
        let passed_over = slot.waits.as_ref().is_some_and(|waits| waits.told);
        let mut want = Want {
            vm,
            kind: WantKind::Restart,
            first_try: None,
            passed_over,
            tried: BTreeSet::new(),
            lost_on: None,
            since: out.now,
        };
        let disabled = entry.spec.priority == Priority::Disabled;
        let former = entry.holder.clone();
        match verdict {
            Verdict::Grant { same_host, .. } if !disabled => {
                // R61: there was room for it there when this owner took responsibility.
                want.first_try = former.clone().filter(|_| *same_host).or(entry.responsible.clone());
                if let Some(host) = former.filter(|_| !same_host) {
                    slot.restart.avoid(host);
                }
            }
            Verdict::AwaitMigration(cause) if !disabled && !entry.unprotected => {
                let over = slot.migrating_since.is_some_and(|(_, until)| out.now >= until);
                if !over || !side.dark.is_empty() || seen.is_some_and(|seen| seen.may_be_elsewhere) {
                    return None;
                }
                let same_host = *cause == StopCause::Unknown && entry.attempts == 0;
                want.first_try = former.clone().filter(|_| same_host);
                if let Some(host) = former.filter(|_| !same_host) {
                    slot.restart.avoid(host);
                }
            }
            Verdict::Intend if !disabled => {
                let failed = seen.is_some_and(|seen| seen.state == HostState::Failed);
                if !failed && !slot.restart.was_declined(out.now) {
                    return None;
                }
                want.lost_on = former.clone().filter(|_| failed);
                if let Some(host) = former {
                    slot.restart.avoid(host);
                }
            }
            Verdict::TakeResponsibility => {
                want.kind = WantKind::Responsibility;
                return Some(want);
            }
            Verdict::Runs => return self.wants_to_move(vm, entry, side, out.now),
            Verdict::Grant { .. }
            | Verdict::AwaitMigration(_)
            | Verdict::Intend
            | Verdict::Keep
            | Verdict::SetOff(_)
            | Verdict::AwaitSight
            | Verdict::IntendTo(_)
            | Verdict::DropResponsibility(_)
            | Verdict::Confirm
            | Verdict::Cancel(_)
            | Verdict::Adopt(_)
            | Verdict::Twice(_) => return None,
        }
        if entry.attempts == 0 && entry.intent.is_none() {
            slot.restart.forget_progress();
        }
        if !slot.restart.is_due(side.candidates, out.now) {
            let told = slot.restart.failures(out.now);
            let name = VmName { id: vm, name: entry.name.clone() };
            slot.wait(told, Wait::ForHost, name, side.timing, out);
            return None;
        }
        want.since = slot.restart.want(out.now);
        want.tried = slot.restart.tried().clone();
        Some(want)
    }

    /// The VMs of this list, for the picture.
    pub(crate) fn scenes<'a>(&'a self, power_on: &BTreeMap<HostId, PowerOnSeen>) -> Vec<VmScene<'a>> {
        let scene = |slot: &'a Slot| {
            let entry = &slot.working;
            let going = entry.intent.as_ref().or(entry.responsible.as_ref());
            let moving = entry.order.as_ref().and_then(|order| match &order.what {
                OrderKind::Migrate(to) => Some(to),
                OrderKind::ShutDown | OrderKind::StartElsewhere => None,
            });
            let claim = entry.holder.as_ref().and_then(|holder| {
                claim_in(&power_on.get(holder)?.list, entry.vm)
                    .filter(|claim| claim.token == Some(entry.token))
            });
            let released = claim.is_some_and(|claim| claim.state.is_released());
            let starting = claim.is_some_and(|claim| claim.state == ClaimState::Starting);
            let host = going.or(moving).or(entry.holder.as_ref().filter(|_| !released));
            VmScene {
                vm: entry.vm,
                name: &entry.name,
                spec: &entry.spec,
                datastore: &self.datastore,
                host,
                running: slot.running_since.is_some() && going.is_none() && moving.is_none(),
                starting,
                wanted: host.is_some() && !entry.unprotected && entry.desired == Desired::On,
                failed_on: slot.restart.behind(&slot.refused),
                on: entry.desired == Desired::On,
            }
        };
        self.slots.values().map(scene).collect()
    }

    /// Restarts that others may wait for.
    pub(crate) fn under_way(&self, power_on: &BTreeMap<HostId, PowerOnSeen>) -> Vec<(VmId, UnderWay)> {
        let under_way = |slot: &Slot| {
            let kinds = [Wait::ForHost, Wait::Orphaned, Wait::ForSight];
            let waits = slot.waits.as_ref().is_some_and(|waits| kinds.contains(&waits.kind));
            let progress = slot.restart.progress().cloned();
            if progress.is_none() && !waits {
                return None;
            }
            let host = slot.working.holder.clone()?;
            let claim = power_on.get(&host).and_then(|seen| claim_in(&seen.list, slot.working.vm));
            let starting = claim.is_some_and(|claim| claim.state == ClaimState::Starting);
            let since = slot.restart.wanted_since();
            Some((slot.working.vm, UnderWay { progress, host, starting, waits, since }))
        };
        self.slots.values().filter_map(under_way).collect()
    }

    /// Others no longer wait for these.
    pub(crate) fn give_up_on(&mut self, vms: &[VmId], out: &mut Out<'_>) {
        for vm in vms {
            let Some(slot) = self.slots.get_mut(vm) else { continue };
            let name = slot.working.name.clone();
            if slot.restart.give_up() {
                out.event(Event::OrderGivenUp { vm: VmName { id: *vm, name } });
            }
        }
    }

    /// Nobody waits for anybody: what has come far enough is forgotten.
    pub(crate) fn end_round(&mut self) {
        for slot in self.slots.values_mut() {
            slot.restart.end_round();
        }
    }

    /// Something relevant changed: what waits for its time is tried at once.
    pub(crate) fn hurry(&mut self, now: Time) {
        for slot in self.slots.values_mut() {
            slot.restart.hurry(now);
        }
    }

    /// Where the VMs of this list run; and those that are to run and don't.
    pub(crate) fn where_they_run(
        &self,
        settled: &mut BTreeSet<(VmId, HostId)>,
        missing: &mut BTreeSet<VmId>,
    ) {
        for (vm, slot) in self.slots.iter().filter(|(_, slot)| slot.working.desired == Desired::On) {
            match &slot.working.holder {
                Some(host) if slot.running_since.is_some() => {
                    settled.insert((*vm, host.clone()));
                }
                Some(_) | None => {
                    missing.insert(*vm);
                }
            }
        }
    }

    /// Whether some VM waits for a host, or has been tried in vain and is being tried on another.
    pub(crate) fn is_in_need(&self) -> bool {
        self.slots.values().any(|slot| slot.waits.is_some() || !slot.restart.tried().is_empty())
    }

    /// Whether some VM waits for a host.
    pub(crate) fn is_waiting(&self) -> bool {
        self.slots.values().any(|slot| slot.waits.is_some())
    }
}
