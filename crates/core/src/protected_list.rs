//! The protected list of a datastore, in the hands of its owner: what is on disk, what is to be written, and the decisions
//! in between.
//!
//! Invariant: decisions about a VM are made on its entry *as it is on disk*; while a change of it is being written, nothing
//! further is decided about it. So every step of a take-over waits for the one before to be durable.

mod numbers;
mod orders;
mod restart;
mod slot;
mod verdicts;
mod wants;
mod wishes;
mod writing;

use crate::event::{Event, VmName};
use crate::failover::{HolderSeen, Verdict, decide};
use crate::host_liveness::HostState;
use crate::ids::{DatastoreName, Epoch, HostId, VmId};
use crate::out::Out;
use crate::placing::{Place, Places, Refusals, UnderWay, VmScene, Want, WantKind, guest_shows};
use crate::register::{
    Claim, ClaimState, Desired, Entry, Guest, IsolationResponse, ListStamp, Order, OrderKind, PowerOnList,
    Priority, ProtectedList, StopCause,
};
use crate::settings::{Evacuation, READY_TIMEOUT, Settings};
use crate::store::PowerOnSeen;
use crate::suspension::Wish;
use crate::time::{Span, Time};
use crate::timing::Timing;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use numbers::Numbers;
use restart::Restart;
use serde::{Deserialize, Serialize};
use slot::Slot;
use writing::Writing;

/// VMs of one host in maintenance that are on their way at a time.
const MOVES_AT_ONCE: usize = 2;

/// How long a VM that migrated away, or vanished, may take to show up elsewhere before it is restarted.
fn grace(cause: StopCause, timing: &Timing) -> Span {
    if cause == StopCause::Migrated { Span::from_secs(10) } else { timing.failure_timeout }
}

/// From so many entries on, VMs that are off and that no host has are forgotten. The register holds that many (see `formats`' layout).
const ENTRIES_KEPT: usize = 2_000;

/// A host that could take VMs, as the owner sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Candidate {
    pub(crate) host: HostId,
    pub(crate) unusable: Option<&'static str>,
}

/// What the owner sees when it decides.
pub(crate) struct OwnerSide<'a> {
    pub(crate) me: &'a HostId,
    pub(crate) timing: &'a Timing,
    pub(crate) power_on: &'a BTreeMap<HostId, PowerOnSeen>,
    pub(crate) states: &'a BTreeMap<HostId, HostState>,
    /// For each host: when the last read of its heartbeat register started.
    pub(crate) heartbeat_read: &'a BTreeMap<HostId, Time>,
    pub(crate) candidates: &'a [Candidate],
    /// Hosts that are alive and whose power-on list was written by the run of their agent that is alive: only these show
    /// what runs there *now*. What a dead host left behind shows what ran there once (R42).
    pub(crate) current: &'a BTreeSet<HostId>,
    /// Hosts that are not known to be dead and do not show what runs on them (R45).
    pub(crate) dark: &'a [HostId],
    /// Hosts whose agent was well, and the writer of their power-on list, when they were last seen: the list was kept to the end.
    pub(crate) watched: &'a BTreeSet<HostId>,
    /// Hosts that were told not to freeze VMs of this datastore, and may not know better yet (R72).
    pub(crate) held: &'a BTreeSet<HostId>,
    /// This host is sure that it is not isolated itself.
    pub(crate) anchored: bool,
    /// The cluster's default isolation response.
    pub(crate) isolation_response: IsolationResponse,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct OwnerList {
    datastore: DatastoreName,
    numbers: Numbers,
    slots: BTreeMap<VmId, Slot>,
    writing: Writing,
    /// R70.
    settings: Arc<Settings>,
    suspension: Wish,
    #[cfg(feature = "broken-rules")]
    pub(crate) broken: Option<crate::BrokenRule>,
}

impl OwnerList {
    /// The list of a new epoch, from the last list and all power-on lists, both read after the epoch was raised (R23).
    ///
    /// A claim with a later grant than the entry's shows a grant that the former owner confirmed and this list missed: it
    /// stands. An intent without such a claim is void.
    pub(crate) fn take_over(
        datastore: DatastoreName,
        epoch: Epoch,
        former: Option<ProtectedList>,
        power_on: &BTreeMap<HostId, PowerOnSeen>,
        timing: &Timing,
        now: Time,
    ) -> OwnerList {
        let mut entries: BTreeMap<VmId, Entry> = BTreeMap::new();
        let settings = former.as_ref().map(|list| list.settings.clone()).unwrap_or_default();
        let suspension = Wish::found(datastore.clone(), former.as_ref(), timing, now);
        for entry in former.into_iter().flat_map(|list| list.entries) {
            entries.insert(entry.vm, Entry { intent: None, ..entry });
        }
        for (host, seen) in power_on {
            for claim in &seen.list.claims {
                adopt_claim(&mut entries, host, claim);
            }
        }
        let writing = Writing::new();
        let stamp = writing.stamp(epoch);
        let slots = entries.into_iter().map(|(vm, entry)| (vm, Slot::new(entry, stamp, now))).collect();
        OwnerList {
            datastore,
            numbers: Numbers::new(epoch),
            slots,
            writing,
            settings,
            suspension,
            #[cfg(feature = "broken-rules")]
            broken: None,
        }
    }

    /// The version on disk; `None` until the first write of this epoch is done: until then the owner decides nothing.
    pub(crate) fn on_disk(&self) -> Option<ListStamp> {
        self.writing.on_disk()
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.numbers.epoch()
    }

    /// Forgets VMs that are off and that nobody has, when there are very many: the register has room for some thousands.
    fn prune(&mut self, side: &OwnerSide<'_>) {
        if self.slots.len() <= ENTRIES_KEPT {
            return;
        }
        let claimed: BTreeSet<VmId> =
            side.power_on.values().flat_map(|seen| seen.list.claims.iter().map(|claim| claim.vm)).collect();
        let before = self.slots.len();
        self.slots.retain(|vm, slot| {
            let entry = &slot.working;
            claimed.contains(vm)
                || entry.unprotected
                || entry.holder.is_some()
                || entry.desired == Desired::On
        });
        if self.slots.len() != before {
            self.writing.want();
        }
    }

    /// Decides about every VM whose entry is settled on disk. R40: only the owner calls this, within its ownership.
    /// `places` has a place for each VM that [`OwnerList::prepare`] has just said wants one.
    pub(crate) fn review(&mut self, side: &OwnerSide<'_>, places: &mut Places, out: &mut Out<'_>) {
        if self.writing.on_disk().is_none() {
            return;
        }
        let mut order: Vec<(Priority, VmId)> =
            self.slots.iter().map(|(vm, slot)| (slot.working.spec.priority, *vm)).collect();
        order.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        for (_, vm) in order {
            self.review_vm(vm, side, places, out);
        }
    }

    /// VMs that run somewhere without an entry get one.
    fn admit_new(&mut self, side: &OwnerSide<'_>, out: &mut Out<'_>) {
        for (host, seen) in side.power_on.iter().filter(|(host, _)| side.current.contains(*host)) {
            for claim in &seen.list.claims {
                let Some(spec) = &claim.spec else { continue };
                if !claim.state.is_running_or_frozen() || self.slots.contains_key(&claim.vm) {
                    continue;
                }
                let token = self.numbers.next_grant();
                let entry = Entry::running_on(host, claim, spec, token);
                let stamp = self.writing.stamp(self.numbers.epoch());
                self.slots.insert(claim.vm, Slot::new(entry, stamp, out.now));
                self.writing.want();
            }
        }
    }

    /// What is to be done about a VM, and by what. `None`: its entry is not settled.
    fn judge<'a>(
        &self,
        vm: VmId,
        side: &OwnerSide<'a>,
        now: Time,
    ) -> Option<(Entry, Option<HolderSeen<'a>>, Verdict)> {
        if !self.is_settled(vm) {
            return None;
        }
        let slot = self.slots.get(&vm)?;
        let entry = slot.durable.clone()?;
        let seen = entry.holder.as_ref().map(|holder| slot.holder_seen(&entry, holder, side, now));
        let adopter = side
            .power_on
            .iter()
            .find(|(host, seen)| {
                entry.holder.as_ref() != Some(host)
                    && side.current.contains(*host)
                    && claim_in(&seen.list, vm).is_some_and(|claim| claim.is_new_since(entry.token))
            })
            .map(|(host, _)| host);
        #[cfg(feature = "broken-rules")]
        let seen = seen.map(|seen| HolderSeen {
            read_after_intent: seen.read_after_intent
                || self.broken == Some(crate::BrokenRule::NoReadBeforeConfirm),
            ..seen
        });
        let verdict = decide(&entry, seen.as_ref(), adopter);
        // R45: it had arrived on another host, and was stopped there on purpose before anybody saw it run there.
        let moved = seen.as_ref().is_some_and(HolderSeen::may_have_moved);
        let elsewhere = if moved { slot.stopped_elsewhere(side) } else { None };
        let verdict = match elsewhere {
            Some(cause) if matches!(verdict, Verdict::AwaitMigration(_) | Verdict::Grant { .. }) => {
                Verdict::SetOff(cause)
            }
            Some(_) | None => verdict,
        };
        // R72: what a silent host ran may run on; nobody sees it run.
        let held = entry.holder.as_ref().is_some_and(|holder| side.held.contains(holder));
        let verdict = if held && verdict == Verdict::Runs { Verdict::Keep } else { verdict };
        Some((entry, seen, verdict))
    }

    fn review_vm(&mut self, vm: VmId, side: &OwnerSide<'_>, places: &mut Places, out: &mut Out<'_>) {
        let Some((entry, seen, verdict)) = self.judge(vm, side, out.now) else { return };
        let suspended = self.suspension.stands();
        let Some(slot) = self.slots.get_mut(&vm) else { return };
        slot.refresh_spec(seen.as_ref(), &self.settings, &mut self.writing);
        let name = VmName { id: vm, name: entry.name.clone() };
        if !matches!(verdict, Verdict::Twice(_))
            && let (Some((_, _, true)), Some(host)) = (slot.twice.take(), &entry.holder)
        {
            out.event(Event::VmActiveOnce { vm: name.clone(), host: host.clone() });
        }
        if !matches!(verdict, Verdict::AwaitMigration(_)) {
            slot.migrating_since = None;
        }
        if suspended && restarts(&verdict) {
            // R71.
            let reasons = alloc::vec![(side.me.clone(), "protection is suspended".into())];
            return slot.wait(reasons, Wait::Suspended, name, side.timing, out);
        }
        match verdict {
            // Frozen, or being stopped for isolation: it is there all the same.
            Verdict::Keep if seen.as_ref().is_some_and(HolderSeen::is_held_back) => {}
            Verdict::Keep => {
                slot.running_since = None;
                if let Some(holder) = entry.holder.filter(|holder| side.held.contains(holder)) {
                    // R72.
                    let why = alloc::format!(
                        "protection was suspended and it was told not to freeze its VMs, so that they may run on; it can't be \
                         asked: when you have seen to it that it is down, say so (mainstay host confirm-down {holder})"
                    );
                    slot.wait(alloc::vec![(holder, why.into())], Wait::ForSight, name, side.timing, out);
                }
            }
            Verdict::Runs => self.on_runs(vm, &entry, seen.as_ref(), places, name, out),
            Verdict::SetOff(cause) => self.set_off(vm, cause, name, out),
            Verdict::Grant { same_host: _, reason } => {
                self.grant_anew(vm, reason, side, places, name, out);
            }
            Verdict::AwaitMigration(cause) => {
                let (_, until) =
                    *slot.migrating_since.get_or_insert((out.now, out.now + grace(cause, side.timing)));
                if out.now < until {
                    return;
                }
                // Where nobody can look, it may well run: QEMU's lock must not be what finds out.
                if entry.unprotected {
                    // Its user may have moved it out of the cluster.
                    self.set_off(vm, cause, name, out);
                } else if side.dark.is_empty() && !seen.as_ref().is_some_and(|seen| seen.may_be_elsewhere) {
                    let reason = alloc::format!("{cause}, and was not seen anywhere").into();
                    self.grant_anew(vm, reason, side, places, name, out);
                } else {
                    slot.wait(slot.unseen(side), Wait::ForSight, name, side.timing, out);
                }
            }
            Verdict::AwaitSight => slot.wait(slot.unseen(side), Wait::ForSight, name, side.timing, out),
            Verdict::Intend => self.intend(vm, places, name, side.timing, out),
            Verdict::IntendTo(host) => {
                slot.working.intent = Some(host);
                self.writing.want();
            }
            Verdict::TakeResponsibility => {
                self.take_responsibility(vm, &entry, places, name, side.timing, out);
            }
            Verdict::DropResponsibility(reason) => self.drop_responsibility(vm, &entry, reason, name, out),
            Verdict::Confirm => self.confirm(vm, &entry, out.now),
            Verdict::Cancel(reason) => {
                slot.working.intent = None;
                self.writing.want();
                let host = entry.holder.clone().unwrap_or_else(|| side.me.clone());
                out.event(Event::TakeoverCancelled { vm: name, host, reason });
            }
            Verdict::Adopt(host) => {
                slot.working.token = self.numbers.next_grant();
                if slot.working.evacuated_from.as_ref() == Some(&host) {
                    slot.working.evacuated_from = None;
                }
                slot.working.holder = Some(host);
                slot.working.desired = Desired::On;
                slot.working.order = None;
                slot.refused.clear();
                slot.working.failed_on.clear();
                slot.restart.forget_progress();
                slot.working.attempts = 0;
                slot.working.failed_over_from = None;
                slot.working.intent = None;
                slot.working.responsible = None;
                self.writing.want();
            }
            Verdict::Twice(other) => {
                // A live migration is shown on both ends for a moment.
                let tell_at = out.now + side.timing.network_timeout();
                let (seen, at, told) = slot.twice.get_or_insert((other.clone(), tell_at, false));
                if *seen != other {
                    (*seen, *at, *told) = (other.clone(), tell_at, false);
                }
                if !*told && out.now >= *at {
                    *told = true;
                    let holder = entry.holder.clone().unwrap_or_else(|| side.me.clone());
                    out.event(Event::VmActiveTwice { vm: name, holder, other });
                }
            }
        }
    }

    /// The list to be written next, if one is due and none is under way.
    pub(crate) fn take_write(&mut self, me: &HostId, now: Time) -> Option<ProtectedList> {
        let version = self.writing.next_version()?;
        let (suspension, holds) = self.suspension.take_write(now);
        let entries = self.slots.values().map(|slot| slot.working.clone()).collect();
        let list = ProtectedList {
            epoch: self.numbers.epoch(),
            version,
            owner: me.clone(),
            entries,
            settings: self.settings.clone(),
            suspension,
            holds,
        };
        self.writing.begin(list.clone());
        Some(list)
    }

    /// The write failed: what is on disk is not known; the same contents go out again under a new version.
    pub(crate) fn on_write_failed(&mut self) {
        self.writing.on_failed();
    }

    /// The write is on disk. Returns the hosts that should look at it.
    pub(crate) fn on_written(&mut self, out: &mut Out<'_>) -> BTreeSet<HostId> {
        let mut concerned = BTreeSet::new();
        let Some(list) = self.writing.on_written() else { return concerned };
        let stamp = list.stamp();
        self.suspension.on_written();
        for entry in list.entries {
            let Some(slot) = self.slots.get_mut(&entry.vm) else { continue };
            if slot.durable.as_ref() == Some(&entry) {
                continue;
            }
            let before = slot.durable.as_ref();
            concerned.extend(before.and_then(|entry| entry.holder.clone()));
            concerned.extend(entry.holder.clone());
            let vm = VmName { id: entry.vm, name: entry.name.clone() };
            let granted_anew = before.is_none_or(|before| before.token != entry.token);
            let told = before.is_none() && slot.restart.reason().is_empty();
            if let (Some(host), true, true) = (&entry.holder, granted_anew && !told, entry.attempts > 0) {
                out.event(Event::VmGranted {
                    vm: vm.clone(),
                    host: host.clone(),
                    token: entry.token,
                    attempt: entry.attempts,
                    reason: slot.restart.reason().clone(),
                });
            }
            if let (Some(from), Some(to)) = (&entry.holder, &entry.intent) {
                let (vm, from, to) = (vm.clone(), from.clone(), to.clone());
                out.event(Event::TakeoverIntended { vm, from, to });
            }
            if granted_anew {
                slot.announced = false;
                if entry.attempts > 0 {
                    slot.restart.begin_progress(out.now);
                }
            }
            if let (Some(order), Some(host)) = (&entry.order, &entry.holder)
                && before.and_then(|before| before.order.as_ref()) != Some(order)
            {
                out.event(Event::VmOrdered { vm: vm.clone(), host: host.clone(), order: order.what.clone() });
            }
            slot.durable = Some(entry);
            slot.durable_since = out.now;
            slot.stamp = stamp;
        }
        concerned
    }

    /// Whether the entry is on disk as it is meant to be, and no write under way says anything else about it.
    pub(crate) fn is_settled(&self, vm: VmId) -> bool {
        let Some(slot) = self.slots.get(&vm) else { return true };
        slot.durable.as_ref() == Some(&slot.working) && self.writing.agrees_with(&slot.working)
    }

    /// Whether this owner is responsible for a VM of an isolated host.
    pub(crate) fn is_responsible(&self) -> bool {
        self.slots.values().any(|slot| slot.working.responsible.is_some())
    }

    /// Entries on disk with why they wait.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&Entry, Option<(&Refusals, Wait)>)> {
        self.slots.values().filter_map(|slot| {
            let waits = slot.waits.as_ref().map(|waits| (&waits.reasons, waits.kind));
            Some((slot.durable.as_ref()?, waits))
        })
    }

    /// When to review again although nothing happened: retries, time-outs of grants.
    pub(crate) fn deadline(&self, timing: &Timing, now: Time) -> Option<Time> {
        let due = |slot: &Slot| {
            let entry = slot.durable.as_ref()?;
            if entry.desired == Desired::Off && entry.holder.is_none() {
                return None;
            }
            let restart = slot.restart.deadline(now);
            let claim = slot.durable_since + timing.claim_timeout();
            let claim = (slot.running_since.is_none() && claim > now).then_some(claim);
            let well = slot.running_since.filter(|_| entry.attempts > 0).map(Restart::well_at);
            let twice = slot.twice.as_ref().filter(|(_, _, told)| !told).map(|(_, at, _)| *at);
            let grace = slot.migrating_since.map(|(_, until)| until);
            let told = slot.waits.as_ref().filter(|waits| !waits.told).map(|waits| waits.tell_at);
            [restart, twice, claim, well, grace, told].into_iter().flatten().filter(|at| *at > now).min()
        };
        self.slots.values().filter_map(due).chain(self.suspension.deadline(now)).min()
    }

    /// What people asked for about suspension.
    pub(crate) fn suspension(&self) -> &Wish {
        &self.suspension
    }

    /// A person suspends protection.
    pub(crate) fn suspend(&mut self, length: Span, timing: &Timing, now: Time) {
        self.suspension.suspend(length, timing, now);
        self.writing.want();
    }

    /// A person resumes protection.
    pub(crate) fn resume(&mut self, reason: &str, out: &mut Out<'_>) {
        if self.suspension.resume(reason, out) {
            self.writing.want();
        }
    }

    /// A restart has begun and is not done.
    fn is_failing_over(&self, side: &OwnerSide<'_>) -> bool {
        self.slots.values().any(|slot| {
            let entry = &slot.working;
            let under_way = entry.attempts > 0
                && !entry.verified
                && entry.desired == Desired::On
                && entry.holder.as_ref().is_some_and(|holder| {
                    let failed = side.states.get(holder) == Some(&HostState::Failed);
                    let claim =
                        slot.holder_claim(holder, side).filter(|claim| claim.token == Some(entry.token));
                    !failed && claim.is_none_or(|claim| !claim.state.is_released())
                });
            entry.intent.is_some() || entry.responsible.is_some() || under_way
        })
    }
}

/// What a VM waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Wait {
    /// A host that can take it.
    ForHost,
    /// One of the hosts that alone may run it, and that are down.
    Orphaned,
    /// Others, that start before it.
    ForOthers,
    /// It runs, and can't be moved away.
    ToMove,
    /// Until it is known that it runs nowhere.
    ForSight,
    /// The end of a suspension.
    Suspended,
}

/// Whether it brings a VM back, or prepares for it.
fn restarts(verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Grant { .. }
        | Verdict::AwaitMigration(_)
        | Verdict::AwaitSight
        | Verdict::Intend
        | Verdict::TakeResponsibility
        | Verdict::Confirm => true,
        Verdict::Keep
        | Verdict::Runs
        | Verdict::SetOff(_)
        | Verdict::IntendTo(_)
        | Verdict::DropResponsibility(_)
        | Verdict::Cancel(_)
        | Verdict::Adopt(_)
        | Verdict::Twice(_) => false,
    }
}

/// A host's claim on a VM.
fn claim_in(list: &PowerOnList, vm: VmId) -> Option<&Claim> {
    list.claims.binary_search_by_key(&vm, |claim| claim.vm).ok().map(|index| &list.claims[index])
}

/// Brings an entry in line with a claim that was found on disk when an epoch began.
fn adopt_claim(entries: &mut BTreeMap<VmId, Entry>, host: &HostId, claim: &Claim) {
    let Some(token) = claim.token else { return };
    match entries.get_mut(&claim.vm) {
        Some(entry) => {
            // A later grant than the entry's: the former owner gave it, and this list did not see it.
            if token > entry.token {
                entry.token = token;
                entry.holder = Some(host.clone());
                entry.desired = Desired::On;
            }
        }
        None => {
            // The list was lost: the power-on lists are the truth about who runs what.
            let Some(spec) = claim.spec.clone().filter(|_| !claim.state.is_released()) else { return };
            let entry = Entry::running_on(host, claim, &spec, token);
            entries.insert(claim.vm, entry);
        }
    }
}
