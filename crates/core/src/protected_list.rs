//! The protected list of a datastore, in the hands of its owner: what is on disk, what is to be written, and the decisions
//! in between.
//!
//! Invariant: decisions about a VM are made on its entry *as it is on disk*; while a change of it is being written, nothing
//! further is decided about it. So every step of a take-over waits for the one before to be durable.

mod slot;
mod verdicts;

use crate::event::{Event, VmName};
use crate::failover::{HolderSeen, Verdict, decide};
use crate::host_liveness::HostState;
use crate::ids::{DatastoreName, Epoch, HostId, Token, VmId};
use crate::out::Out;
use crate::register::{
    Claim, ClaimState, Desired, Entry, IsolationResponse, ListStamp, PowerOnList, Priority, ProtectedList,
    StopCause,
};
use crate::time::{Span, Time};
use crate::timing::Timing;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use mainstay_placement::{HostRoom, choose_spread};
use serde::{Deserialize, Serialize};
use slot::Slot;

/// Waits between attempts to restart a VM: at once, then longer; the last one repeats without end (I8: never given up).
const RETRY_DELAYS: [Span; 6] = [
    Span::ZERO,
    Span::ZERO,
    Span::from_secs(2),
    Span::from_secs(6),
    Span::from_secs(14),
    Span::from_secs(30),
];

/// A VM that ran for this long after a restart is well again: its attempts are forgotten.
const RAN_WELL: Span = Span::from_secs(60);

/// How long a VM that migrated away, or vanished, may take to show up elsewhere before it is restarted.
fn grace(cause: StopCause, timing: &Timing) -> Span {
    if cause == StopCause::Migrated { Span::from_secs(10) } else { timing.failure_timeout }
}

/// From so many entries on, VMs that are off and that no host has are forgotten. The register holds about 3,000.
const ENTRIES_KEPT: usize = 2_000;

/// Why a VM waits, host by host.
type Refusals = Vec<(HostId, Arc<str>)>;

/// A power-on list as last read.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct PowerOnSeen {
    pub(crate) list: PowerOnList,
    /// When the read was started.
    pub(crate) started: Time,
    /// That read found it damaged: the list is what was read before, or empty.
    pub(crate) damaged: bool,
}

/// A host that could take VMs, as the owner sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Candidate {
    pub(crate) host: HostId,
    pub(crate) unusable: Option<&'static str>,
    pub(crate) memory_free_mib: u64,
    pub(crate) domains: u32,
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
    /// This host is sure that it is not isolated itself.
    pub(crate) anchored: bool,
    /// The cluster's default isolation response.
    pub(crate) isolation_response: IsolationResponse,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct OwnerList {
    datastore: DatastoreName,
    epoch: Epoch,
    version: u64,
    tokens: u64,
    slots: BTreeMap<VmId, Slot>,
    writing: Option<ProtectedList>,
    /// Set when something has to be written.
    dirty: bool,
    on_disk: Option<ListStamp>,
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
        now: Time,
    ) -> OwnerList {
        let mut entries: BTreeMap<VmId, Entry> = BTreeMap::new();
        for entry in former.into_iter().flat_map(|list| list.entries) {
            entries.insert(entry.vm, Entry { intent: None, ..entry });
        }
        for (host, seen) in power_on {
            for claim in &seen.list.claims {
                adopt_claim(&mut entries, host, claim);
            }
        }
        let stamp = ListStamp { epoch, version: 0 };
        let slots = entries.into_iter().map(|(vm, entry)| (vm, Slot::new(entry, stamp, now))).collect();
        OwnerList {
            datastore,
            epoch,
            version: 0,
            tokens: 0,
            slots,
            writing: None,
            dirty: true,
            on_disk: None,
            #[cfg(feature = "broken-rules")]
            broken: None,
        }
    }

    /// The version on disk; `None` until the first write of this epoch is done: until then the owner decides nothing.
    pub(crate) fn on_disk(&self) -> Option<ListStamp> {
        self.on_disk
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
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
        self.dirty |= self.slots.len() != before;
    }

    /// The list to be written next, if one is due and none is under way.
    pub(crate) fn take_write(&mut self, me: &HostId) -> Option<ProtectedList> {
        if !self.dirty || self.writing.is_some() {
            return None;
        }
        self.dirty = false;
        self.version += 1;
        let entries = self.slots.values().map(|slot| slot.working.clone()).collect();
        let list = ProtectedList { epoch: self.epoch, version: self.version, owner: me.clone(), entries };
        self.writing = Some(list.clone());
        Some(list)
    }

    /// The write failed: what is on disk is not known; the same contents go out again under a new version.
    pub(crate) fn on_write_failed(&mut self) {
        self.writing = None;
        self.dirty = true;
    }

    /// The write is on disk. Returns the hosts that should look at it.
    pub(crate) fn on_written(&mut self, out: &mut Out<'_>) -> BTreeSet<HostId> {
        let mut concerned = BTreeSet::new();
        let Some(list) = self.writing.take() else { return concerned };
        let stamp = list.stamp();
        self.on_disk = Some(stamp);
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
            let told = before.is_none() && slot.reason.is_empty();
            if let (Some(host), true, true) = (&entry.holder, granted_anew && !told, entry.attempts > 0) {
                out.event(Event::VmGranted {
                    vm: vm.clone(),
                    host: host.clone(),
                    token: entry.token,
                    attempt: entry.attempts,
                    reason: slot.reason.clone(),
                });
            }
            if let (Some(from), Some(to)) = (&entry.holder, &entry.intent) {
                out.event(Event::TakeoverIntended { vm, from: from.clone(), to: to.clone() });
            }
            if granted_anew {
                slot.announced = false;
            }
            slot.durable = Some(entry);
            slot.durable_since = out.now;
            slot.stamp = stamp;
        }
        concerned
    }

    /// Decides about every VM whose entry is settled on disk. R40: only the owner calls this, within its ownership.
    pub(crate) fn review(&mut self, side: &OwnerSide<'_>, out: &mut Out<'_>) {
        if self.on_disk.is_none() {
            return;
        }
        self.prune(side);
        self.admit_new(side, out);
        let mut order: Vec<(Priority, VmId)> =
            self.slots.iter().map(|(vm, slot)| (slot.working.spec.priority, *vm)).collect();
        order.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut rooms = self.rooms(side);
        for (_, vm) in order {
            self.review_vm(vm, side, &mut rooms, out);
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
                self.tokens += 1;
                let token = Token { epoch: self.epoch, number: self.tokens };
                let entry = Entry::running_on(host, claim, spec, token);
                let stamp = ListStamp { epoch: self.epoch, version: self.version };
                self.slots.insert(claim.vm, Slot::new(entry, stamp, out.now));
                self.dirty = true;
            }
        }
    }

    /// Room on each candidate, less what was granted to it and does not run yet.
    fn rooms(&self, side: &OwnerSide<'_>) -> Vec<Candidate> {
        let mut rooms = side.candidates.to_vec();
        for slot in self.slots.values() {
            let Some(holder) = &slot.working.holder else { continue };
            let next = slot.working.intent.as_ref().or(slot.working.responsible.as_ref());
            let target = next.unwrap_or(holder);
            let pending = next.is_some() || (slot.working.attempts > 0 && slot.running_since.is_none());
            if pending && let Some(room) = rooms.iter_mut().find(|room| room.host == *target) {
                room.take(slot.working.spec.memory_mib);
            }
        }
        rooms
    }

    fn review_vm(&mut self, vm: VmId, side: &OwnerSide<'_>, rooms: &mut [Candidate], out: &mut Out<'_>) {
        if !self.is_settled(vm) {
            return;
        }
        let Some(slot) = self.slots.get_mut(&vm) else { return };
        let Some(entry) = slot.durable.clone() else { return };
        let seen = entry.holder.as_ref().map(|holder| slot.holder_seen(&entry, holder, side, out.now));
        let adopter = side
            .power_on
            .iter()
            .find(|(host, seen)| {
                entry.holder.as_ref() != Some(host)
                    && side.current.contains(*host)
                    && seen.list.claims.iter().any(|claim| claim.vm == vm && claim.is_new_since(entry.token))
            })
            .map(|(host, _)| host);
        #[cfg(feature = "broken-rules")]
        let seen = seen.map(|seen| HolderSeen {
            read_after_intent: seen.read_after_intent
                || self.broken == Some(crate::BrokenRule::NoReadBeforeConfirm),
            ..seen
        });
        let verdict = decide(&entry, seen.as_ref(), adopter);
        slot.refresh_spec(seen.as_ref(), &mut self.dirty);
        // R45: it had arrived on another host, and was stopped there on purpose before anybody saw it run there.
        let moved = seen.as_ref().is_some_and(HolderSeen::may_have_moved);
        let verdict = match slot.stopped_elsewhere(side).filter(|_| moved) {
            Some(cause) if matches!(verdict, Verdict::AwaitMigration(_) | Verdict::Grant { .. }) => {
                Verdict::SetOff(cause)
            }
            Some(_) | None => verdict,
        };
        let name = VmName { id: vm, name: entry.name.clone() };
        if !matches!(verdict, Verdict::Twice(_))
            && let (Some(_), Some(host)) = (slot.twice.take(), &entry.holder)
        {
            out.event(Event::VmActiveOnce { vm: name.clone(), host: host.clone() });
        }
        if !matches!(verdict, Verdict::AwaitMigration(_)) {
            slot.migrating_since = None;
        }
        match verdict {
            // Frozen, or being stopped for isolation: it is there all the same.
            Verdict::Keep if seen.as_ref().is_some_and(HolderSeen::is_held_back) => {}
            Verdict::Keep => slot.running_since = None,
            Verdict::Runs => self.on_runs(vm, &entry, name, out),
            Verdict::SetOff(cause) => self.set_off(vm, cause, name, out),
            Verdict::Grant { same_host, reason } => {
                self.grant_anew(vm, same_host, reason, side, rooms, name, out);
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
                    let same_host = cause == StopCause::Unknown && entry.attempts == 0;
                    let reason = alloc::format!("{cause}, and was not seen anywhere").into();
                    self.grant_anew(vm, same_host, reason, side, rooms, name, out);
                } else {
                    slot.wait(slot.unseen(side), name, side.timing, out);
                }
            }
            Verdict::AwaitSight => slot.wait(slot.unseen(side), name, side.timing, out),
            Verdict::Intend => self.intend(vm, rooms, name, side.timing, out),
            Verdict::IntendTo(host) => {
                slot.working.intent = Some(host);
                self.dirty = true;
            }
            Verdict::TakeResponsibility => {
                self.take_responsibility(vm, &entry, rooms, name, side.timing, out);
            }
            Verdict::DropResponsibility(reason) => self.drop_responsibility(vm, &entry, reason, name, out),
            Verdict::Confirm => self.confirm(vm, &entry, out.now),
            Verdict::Cancel(reason) => {
                slot.working.intent = None;
                self.dirty = true;
                let host = entry.holder.clone().unwrap_or_else(|| side.me.clone());
                out.event(Event::TakeoverCancelled { vm: name, host, reason });
            }
            Verdict::Adopt(host) => {
                self.tokens += 1;
                slot.working.token = Token { epoch: self.epoch, number: self.tokens };
                slot.working.holder = Some(host);
                slot.working.desired = Desired::On;
                slot.working.attempts = 0;
                slot.working.failed_over_from = None;
                slot.working.intent = None;
                slot.working.responsible = None;
                self.dirty = true;
            }
            Verdict::Twice(other) => {
                if slot.twice.as_ref() != Some(&other) {
                    slot.twice = Some(other.clone());
                    let holder = entry.holder.clone().unwrap_or_else(|| side.me.clone());
                    out.event(Event::VmActiveTwice { vm: name, holder, other });
                }
            }
        }
    }

    /// A person's wish. The answer is for the person.
    pub(crate) fn set_unprotected(
        &mut self,
        vm: VmId,
        unprotected: bool,
        out: &mut Out<'_>,
    ) -> Result<String, String> {
        let Some(slot) = self.slots.get_mut(&vm) else {
            return Err(String::from("no such VM"));
        };
        let name = slot.working.name.clone();
        if slot.working.unprotected == unprotected {
            let word = if unprotected { "not protected" } else { "protected" };
            return Ok(alloc::format!("{name} is already {word}"));
        }
        slot.working.unprotected = unprotected;
        if unprotected {
            // Nothing is tried again for it.
            slot.working.attempts = 0;
        }
        slot.announced = false;
        self.dirty = true;
        if unprotected {
            out.event(Event::VmUnprotected { vm: VmName { id: vm, name: name.clone() } });
            return Ok(alloc::format!("{name} is no longer protected; it runs on"));
        }
        Ok(alloc::format!("{name} is protected"))
    }

    /// A person's wish about isolation responses; `None`: as the cluster.
    pub(crate) fn set_isolation(
        &mut self,
        vm: VmId,
        response: Option<IsolationResponse>,
        shutdown_timeout: Option<Span>,
    ) -> Result<String, String> {
        let Some(slot) = self.slots.get_mut(&vm) else {
            return Err(String::from("no such VM"));
        };
        slot.working.isolation_response = response;
        slot.working.shutdown_timeout = shutdown_timeout;
        self.dirty = true;
        let response =
            response.map_or(String::from("as the cluster's"), |response| alloc::format!("{response}"));
        let timeout =
            shutdown_timeout.map_or(String::from("as the cluster's"), |span| alloc::format!("{span}"));
        Ok(alloc::format!(
            "{}: isolation response {response}, shutdown time-out {timeout}",
            slot.working.name
        ))
    }

    /// Whether this owner is responsible for a VM of an isolated host.
    pub(crate) fn is_responsible(&self) -> bool {
        self.slots.values().any(|slot| slot.working.responsible.is_some())
    }

    /// Finds a VM by name or UUID.
    pub(crate) fn find(&self, wanted: &str) -> Option<VmId> {
        let by_id = VmId::parse(wanted).filter(|vm| self.slots.contains_key(vm));
        by_id.or_else(|| self.slots.iter().find(|(_, slot)| &*slot.working.name == wanted).map(|(vm, _)| *vm))
    }

    /// Whether the entry is on disk as it is meant to be, and no write under way says anything else about it.
    pub(crate) fn is_settled(&self, vm: VmId) -> bool {
        let Some(slot) = self.slots.get(&vm) else { return true };
        let written = self.writing.as_ref().and_then(|list| list.entry(vm));
        slot.durable.as_ref() == Some(&slot.working) && written.is_none_or(|entry| *entry == slot.working)
    }

    /// Entries on disk with why they wait.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&Entry, Option<&Refusals>)> {
        self.slots.values().filter_map(|slot| {
            Some((slot.durable.as_ref()?, slot.waits.as_ref().map(|waits| &waits.reasons)))
        })
    }

    /// When to review again although nothing happened: retries, time-outs of grants.
    pub(crate) fn deadline(&self, timing: &Timing, now: Time) -> Option<Time> {
        let due = |slot: &Slot| {
            let entry = slot.durable.as_ref()?;
            if entry.desired == Desired::Off && entry.holder.is_none() {
                return None;
            }
            let retry = (slot.next_try > now).then_some(slot.next_try);
            let claim = slot.durable_since + timing.claim_timeout();
            let claim = (slot.running_since.is_none() && claim > now).then_some(claim);
            let well = slot.running_since.filter(|_| entry.attempts > 0).map(|since| since + RAN_WELL);
            let grace = slot.migrating_since.map(|(_, until)| until);
            let told = slot.waits.as_ref().filter(|waits| !waits.told).map(|waits| waits.tell_at);
            [retry, claim, well, grace, told].into_iter().flatten().filter(|at| *at > now).min()
        };
        self.slots.values().filter_map(due).min()
    }
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
