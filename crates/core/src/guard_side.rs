//! What this host's core knows of its guard: the run leases (R50, R51), and what the processes of watched VMs do. And what it
//! passes on: leases by network, the VMs to watch, its own health.
//!
//! R55: it knows, too, whether the guard answers. One that has not for a lease is replaced, and others are told.
//!
//! Invariant (R54): while no guard is connected there is no lease. Nothing is resumed or thawed then; what runs, runs on under the
//! lease that the guard kept.

use crate::effect::Effect;
use crate::event::Event;
use crate::files::FilesDigest;
use crate::guard::{GuardOrder, GuardReport, GuardWord, ProcessState};
use crate::ids::{DatastoreName, Incarnation, VmId};
use crate::out::Out;
use crate::time::{Span, Time};
use crate::timing::Timing;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// How many VMs may be reported that are not (yet) to be watched.
const UNWATCHED_MAX: usize = 64;

/// A lease, as the guard reported it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Known {
    term: u64,
    until: Time,
    /// When this core learned of the term. A look that starts later was started within it.
    since: Time,
}

/// A lease that holds now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    /// Its term, for [`GuardOrder::Thaw`].
    pub(crate) term: u64,
    /// A look at the protected list counts if it was started no sooner.
    pub(crate) since: Time,
    /// What is left of it.
    pub(crate) left: Span,
}

/// The VMs that the guard was told to watch on a datastore.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Watched {
    vms: Vec<VmId>,
    /// No others are to be watched.
    all: bool,
}

/// The guard, as the core sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct GuardSide {
    connected: bool,
    leases: BTreeMap<DatastoreName, Known>,
    vms: BTreeMap<VmId, ProcessState>,
    /// Those whose processes it has seen end, and since when this host knows.
    ended: BTreeMap<VmId, Time>,
    /// What was ordered last.
    watching: BTreeMap<DatastoreName, Watched>,
    passed: BTreeMap<DatastoreName, Time>,
    paced: BTreeMap<DatastoreName, bool>,
    alive_due: Time,
    /// R55: what others are told of it.
    word: GuardWord,
    /// It should have answered by then.
    doubt_at: Time,
    /// It has not answered in time, and is given a little more.
    doubted: bool,
    /// Its last lease has ended by then, if nothing more comes of it.
    silent_at: Time,
    /// Why there is none.
    error: Option<Arc<str>>,
}

impl GuardSide {
    /// No guard is known yet.
    pub(crate) fn new() -> GuardSide {
        GuardSide { word: GuardWord::NOT_MET, ..GuardSide::default() }
    }

    /// R55: what others are told of it.
    pub(crate) fn word(&self) -> GuardWord {
        self.word
    }

    /// Why there is none, as far as that is known.
    pub(crate) fn error(&self) -> Option<&Arc<str>> {
        self.error.as_ref()
    }

    /// No guard can be started.
    pub(crate) fn on_failed(&mut self, reason: Arc<str>) {
        self.error = Some(reason);
    }

    /// This host stood still until now. What the guard has said meanwhile may still be on its way.
    pub(crate) fn on_awake(&mut self, timing: &Timing, now: Time) {
        self.doubt_at = self.doubt_at.max(now + timing.heartbeat);
        self.silent_at = self.silent_at.max(now + timing.heartbeat);
    }

    /// R55: whether the guard does not answer, and is given up. That happens before its last lease has ended, so that the next one
    /// renews the lease in time. Others are told only when none has answered for a lease.
    pub(crate) fn is_given_up(&mut self, timing: &Timing, out: &mut Out<'_>) -> bool {
        if self.word.is_guarded() && out.now >= self.silent_at {
            self.word = self.word.turned();
        }
        if !self.connected || out.now < self.doubt_at {
            return false;
        }
        // Once more: this host may have been slow to hear it.
        if !core::mem::replace(&mut self.doubted, true) {
            self.doubt_at = out.now + timing.close_look();
            return false;
        }
        out.event(Event::GuardSilent);
        out.effects.push(Effect::ReplaceGuard);
        self.on_lost();
        true
    }

    /// Whether a guard is connected.
    pub(crate) fn is_connected(&self) -> bool {
        self.connected
    }

    pub(crate) fn on_lost(&mut self) {
        self.connected = false;
        self.leases.clear();
        self.vms.clear();
        self.ended.clear();
    }

    /// Takes a report in. Heartbeats are the datastores' matter.
    pub(crate) fn on_report(&mut self, report: &GuardReport, timing: &Timing, now: Time) {
        // A guard says hello first. What comes before that was under way from a guard that is gone, and so is its lease.
        if !self.connected && !matches!(report, GuardReport::Hello { .. }) {
            return;
        }
        if !self.word.is_guarded() {
            self.word = self.word.turned();
        }
        self.doubt_at = now + timing.suspicion();
        self.doubted = false;
        self.silent_at = now + timing.lease;
        match report {
            GuardReport::Hello { incarnation: _ } => {
                self.on_lost();
                self.error = None;
                self.connected = true;
                self.watching.clear();
                self.passed.clear();
                self.paced.clear();
                self.alive_due = now;
            }
            GuardReport::Lease { datastore, term, until } => {
                let since = match self.leases.get(datastore) {
                    Some(known) if known.term == *term => known.since,
                    Some(_) | None => now,
                };
                self.leases.insert(datastore.clone(), Known { term: *term, until: *until, since });
            }
            GuardReport::Vm { vm, state } => {
                // What is told of others is told again when they are to be watched.
                let watched: usize = self.watching.values().map(|watched| watched.vms.len()).sum();
                if self.vms.len() < watched + UNWATCHED_MAX || self.vms.contains_key(vm) {
                    self.vms.insert(*vm, *state);
                    self.note_end(*vm, *state, now);
                }
            }
            GuardReport::Alive | GuardReport::Beat { .. } | GuardReport::Hold { .. } => {}
        }
    }

    fn note_end(&mut self, vm: VmId, state: ProcessState, now: Time) {
        if state == ProcessState::Ended {
            self.ended.entry(vm).or_insert(now);
        } else {
            self.ended.remove(&vm);
        }
    }

    /// The lease on that datastore, if there is one now.
    pub(crate) fn lease(&self, datastore: &DatastoreName, now: Time) -> Option<Lease> {
        let known = self.leases.get(datastore).filter(|known| now < known.until)?;
        Some(Lease { term: known.term, since: known.since, left: known.until.since(now) })
    }

    /// What the processes of watched VMs do.
    pub(crate) fn vms(&self) -> &BTreeMap<VmId, ProcessState> {
        &self.vms
    }

    /// Watched VMs whose processes the guard has seen end, and since when this host knows.
    pub(crate) fn ended(&self) -> &BTreeMap<VmId, Time> {
        &self.ended
    }

    /// Passes a lease on: an owner's acknowledgement, or the host's own ownership.
    pub(crate) fn pass(&mut self, datastore: &DatastoreName, until: Time, out: &mut Out<'_>) {
        let known = self.passed.get(datastore).copied().unwrap_or_default();
        if self.connected && until > known && until > out.now {
            self.passed.insert(datastore.clone(), until);
            let order = GuardOrder::Lease { datastore: datastore.clone(), until };
            out.effects.push(Effect::Guard(order));
        }
    }

    /// The leases that were passed on.
    pub(crate) fn passed(&self) -> impl Iterator<Item = (&DatastoreName, Time)> {
        self.passed.iter().map(|(name, until)| (name, *until))
    }

    /// What must be true after each step. Panics otherwise.
    pub(crate) fn check(&self) {
        let silent = self.connected || self.leases.is_empty();
        assert!(silent, "R54: while no guard is connected there is no lease");
    }

    /// Tells the guard which VMs are bound to the lease on that datastore, when that has changed. `all`: no others are.
    /// Before libvirt has shown what runs here it is not set, and the guard takes nothing off its list (R37).
    pub(crate) fn watch(&mut self, datastore: &DatastoreName, vms: Vec<VmId>, all: bool, out: &mut Out<'_>) {
        let told = |watched: &Watched| watched.all == all && watched.vms == vms;
        if !self.connected || self.watching.get(datastore).is_some_and(told) {
            return;
        }
        // What a guard told before it was told whom to watch stands.
        let order = Watched { vms: vms.clone(), all };
        let before = self.watching.insert(datastore.clone(), order).unwrap_or_default();
        for vm in before.vms.iter().filter(|vm| all && !vms.contains(vm)) {
            self.vms.remove(vm);
            self.ended.remove(vm);
        }
        let datastore = datastore.clone();
        out.effects.push(Effect::Guard(if all {
            GuardOrder::Watch { datastore, vms }
        } else {
            GuardOrder::WatchAlso { datastore, vms }
        }));
    }

    /// Tells the guard how often to beat there, when that has changed.
    pub(crate) fn pace(&mut self, datastore: &DatastoreName, slow: bool, out: &mut Out<'_>) {
        if self.connected && self.paced.get(datastore) != Some(&slow) {
            self.paced.insert(datastore.clone(), slow);
            let order = GuardOrder::Pace { datastore: datastore.clone(), slow };
            out.effects.push(Effect::Guard(order));
        }
    }

    /// Shows the guard that the agent is well, and what its file says.
    pub(crate) fn show_life(
        &mut self,
        incarnation: Incarnation,
        files: FilesDigest,
        timing: &Timing,
        out: &mut Out<'_>,
    ) {
        if self.connected && out.now >= self.alive_due {
            self.alive_due = out.now + timing.heartbeat;
            out.effects.push(Effect::Guard(GuardOrder::Alive { incarnation, files: Some(files) }));
        }
    }

    pub(crate) fn deadline(&self) -> Time {
        let alive = if self.connected { self.alive_due.min(self.doubt_at) } else { Time(u64::MAX) };
        if self.word.is_guarded() { alive.min(self.silent_at) } else { alive }
    }
}

#[cfg(test)]
mod tests {
    use super::{DatastoreName, GuardReport, GuardSide, Incarnation, Time, Timing};

    #[test]
    fn a_report_of_a_guard_that_is_gone_gives_no_lease() {
        let datastore = DatastoreName::new("ds1");
        let lease = GuardReport::Lease { datastore: datastore.clone(), term: 3, until: Time(90) };
        let mut guard = GuardSide::default();
        guard.on_report(&GuardReport::Hello { incarnation: Incarnation(1) }, &Timing::STANDARD, Time(10));
        guard.on_report(&lease, &Timing::STANDARD, Time(20));
        assert_eq!(guard.lease(&datastore, Time(30)).map(|lease| lease.term), Some(3));
        guard.on_lost();
        guard.on_report(&lease, &Timing::STANDARD, Time(31));
        assert_eq!(guard.lease(&datastore, Time(32)), None);
    }
}
