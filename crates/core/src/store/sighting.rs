//! R11: a value of a register that was read, with the bounds between which it was seen to stand still.

use crate::ids::HostId;
use crate::register::OwnershipBlock;
use crate::time::{Span, Time};
use alloc::collections::BTreeMap;
use serde::{Deserialize, Serialize};

/// A value of a register, and when it was seen.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Sighting<T> {
    pub(crate) value: T,
    /// When the first read that saw this value was answered.
    pub(crate) first_seen: Time,
    /// When the last read that saw it was started.
    pub(crate) last_read: Time,
}

impl<T: PartialEq> Sighting<T> {
    /// Takes in what a read that started at `started` and was answered at `now` has shown.
    pub(crate) fn update(slot: &mut Option<Sighting<T>>, value: T, started: Time, now: Time) -> bool {
        match slot {
            Some(sighting) if sighting.value == value => {
                sighting.last_read = sighting.last_read.max(started);
                false
            }
            Some(_) | None => {
                *slot = Some(Sighting { value, first_seen: now, last_read: started });
                true
            }
        }
    }

    /// How long it was seen to stand still. A write that began before `first_seen` has landed by now or its lease is over.
    pub(crate) fn still(&self) -> Span {
        self.last_read.since(self.first_seen)
    }
}

/// The ownership blocks of the other hosts. The outer `None`: not read yet. The inner `None`: never written.
pub(crate) type Blocks = BTreeMap<HostId, Option<Sighting<Option<OwnershipBlock>>>>;
