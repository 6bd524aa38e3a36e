//! One entry of the list: as it is on disk, and as it is to be (R40).
//!
//! Invariant: an entry can't be changed without a write being wanted. It is *settled* when disk and wish are the same and the
//! write under way, if any, does not say otherwise. Only a settled entry is decided about.
//!
//! It does not know why an entry changes.

use super::writing::Writing;
use crate::register::{Claim, ClaimState, Entry, ListStamp};
use crate::settings::Settings;
use crate::time::Time;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Record {
    durable: Option<Entry>,
    /// The entry as it is to be. While nothing is to be written it is the same as `durable`.
    working: Entry,
    /// When the present durable entry reached the disk, and in which version.
    since: Time,
    stamp: ListStamp,
}

impl Record {
    /// Of an entry that has yet to be written.
    pub(super) fn new(entry: Entry, stamp: ListStamp, now: Time) -> Record {
        Record { durable: None, working: entry, since: now, stamp }
    }

    /// As it is on disk.
    pub(super) fn durable(&self) -> Option<&Entry> {
        self.durable.as_ref()
    }

    /// As it is to be.
    pub(super) fn working(&self) -> &Entry {
        &self.working
    }

    /// To change it. What is changed is written.
    pub(super) fn edit(&mut self, writing: &mut Writing) -> &mut Entry {
        writing.want();
        &mut self.working
    }

    /// As it is on disk, if it is settled.
    pub(super) fn settled(&self, writing: &Writing) -> Option<&Entry> {
        let settled = self.durable.as_ref() == Some(&self.working) && writing.agrees_with(&self.working);
        self.durable.as_ref().filter(|_| settled)
    }

    /// Since when it is on disk as it is there.
    pub(super) fn since(&self) -> Time {
        self.since
    }

    /// The version of the list that brought it there.
    pub(super) fn stamp(&self) -> ListStamp {
        self.stamp
    }

    /// A write is on disk that has it like this. Returns what was there before, if that was not the same.
    pub(super) fn on_written(&mut self, entry: Entry, stamp: ListStamp, now: Time) -> Option<Rewritten> {
        if self.durable.as_ref() == Some(&entry) {
            return None;
        }
        assert!(stamp >= self.stamp, "R40: an earlier version of the list is on disk after a later one");
        (self.since, self.stamp) = (now, stamp);
        Some(Rewritten { before: self.durable.replace(entry) })
    }

    /// The VM's XML, memory, priority or name changed while it runs, or its guest is asked to shut down: the entry follows.
    pub(super) fn follow(&mut self, claim: &Claim, settings: &Settings, writing: &mut Writing) {
        let held = claim.token == Some(self.working.token);
        let there = matches!(claim.state, ClaimState::Running | ClaimState::Stopping);
        if held && there && claim.asked_to_stop != self.working.asked_to_stop {
            self.edit(writing).asked_to_stop = claim.asked_to_stop;
        }
        if !held || claim.state != ClaimState::Running {
            return;
        }
        if let Some(spec) = &claim.spec {
            let mut spec = spec.clone();
            spec.priority = settings.priority(self.working.vm, spec.priority);
            if spec != self.working.spec {
                self.edit(writing).spec = spec;
            }
        }
        if claim.name != self.working.name {
            self.edit(writing).name = claim.name.clone();
        }
    }
}

/// An entry has changed on disk.
pub(super) struct Rewritten {
    pub(super) before: Option<Entry>,
}
