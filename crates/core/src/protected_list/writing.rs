//! What of the list goes to disk, and what is there: one write at a time, each with a version of its own.
//!
//! Invariant: after a write that failed nobody knows what is on disk, so the next one has a later version.
//!
//! It does not know what the entries mean.

use crate::ids::Epoch;
use crate::register::{Entry, ListStamp, ProtectedList};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Writing {
    /// Of the last write that was begun.
    version: u64,
    under_way: Option<ProtectedList>,
    /// Something has changed since the last write was begun.
    wanted: bool,
    on_disk: Option<ListStamp>,
    /// The revision of the settings on disk.
    settings_on_disk: Option<u64>,
}

impl Writing {
    /// Of a new epoch: nothing of it is on disk, and all of it is to be written.
    pub(super) fn new() -> Writing {
        Writing { version: 0, under_way: None, wanted: true, on_disk: None, settings_on_disk: None }
    }

    /// Something has changed.
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// The last version that was begun.
    pub(super) fn stamp(&self, epoch: Epoch) -> ListStamp {
        ListStamp { epoch, version: self.version }
    }

    /// The version on disk, once there is one.
    pub(super) fn on_disk(&self) -> Option<ListStamp> {
        self.on_disk
    }

    /// Whether that revision of the settings, or a later one, is on disk.
    pub(super) fn has_settings(&self, revision: u64) -> bool {
        self.settings_on_disk.is_some_and(|written| written >= revision)
    }

    /// The version to be written next, if a write is due and none is under way.
    pub(super) fn next_version(&mut self) -> Option<u64> {
        if !self.wanted || self.under_way.is_some() {
            return None;
        }
        self.wanted = false;
        self.version += 1;
        Some(self.version)
    }

    /// That list is being written.
    pub(super) fn begin(&mut self, list: ProtectedList) {
        self.under_way = Some(list);
    }

    /// What is on disk is not known; the same contents go out again under a new version.
    pub(super) fn on_failed(&mut self) {
        self.under_way = None;
        self.wanted = true;
    }

    /// The write under way is on disk.
    pub(super) fn on_written(&mut self) -> Option<ProtectedList> {
        let list = self.under_way.take()?;
        self.on_disk = Some(list.stamp());
        self.settings_on_disk = Some(list.settings.revision);
        Some(list)
    }

    /// Whether the write under way, if any, has that entry as it is here, or has none for the VM.
    pub(super) fn agrees_with(&self, entry: &Entry) -> bool {
        let written = self.under_way.as_ref().and_then(|list| list.entry(entry.vm));
        written.is_none_or(|written| written == entry)
    }
}
