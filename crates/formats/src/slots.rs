//! What a register's two slots say together (R2).
//!
//! A writer alternates between the slots and never touches the better one, so at most one is unfinished at any time.
//!
//! Safety argument for falling back: a slot that looks *damaged* ([`SlotError::is_damage`]) is taken for a write that was cut
//! short. Such a write was never reported as done, so the other slot holds the value that counts. A slot that was written
//! *completely* but can't be used (of a newer version, another cluster, not understood) may well be newer than the other one: to fall
//! back would be to read an old claim as the present one. Then the register is unreadable.

use crate::disk::Slot;
use crate::error::SlotError;
use mainstay_words::{ReadRegister, RegisterValue};

/// What a register holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// The register has never been written.
    Missing,
    /// A slot is whole and holds a value.
    Value {
        /// The number of its write.
        sequence: u64,
        /// What was written last.
        value: RegisterValue,
        /// What is wrong with the other slot, when something is.
        other_slot: Option<SlotError>,
    },
    /// Nothing that can be used.
    Unreadable {
        /// What is wrong with the first slot.
        first: Option<SlotError>,
        /// What is wrong with the second slot.
        second: Option<SlotError>,
    },
}

impl Chosen {
    /// The same as the core wants it. `mark`: a number that changes when the bytes do.
    pub fn into_read(self, mark: u64) -> ReadRegister {
        match self {
            Chosen::Missing => ReadRegister::Missing,
            Chosen::Value { value, .. } => ReadRegister::Value(value),
            Chosen::Unreadable { first, second } => {
                let parts: Vec<String> = [("first", first), ("second", second)]
                    .into_iter()
                    .filter_map(|(name, error)| error.map(|error| format!("{name} slot: {error}")))
                    .collect();
                ReadRegister::Unreadable(parts.join("; ").as_str().into(), mark)
            }
        }
    }

    /// Whether the value was taken although the other slot is damaged. While a write is under way that is normal for a
    /// moment, so a reader looks twice.
    pub fn is_fallback(&self) -> bool {
        match self {
            Chosen::Value { other_slot, .. } => other_slot.is_some(),
            Chosen::Missing | Chosen::Unreadable { .. } => false,
        }
    }
}

/// What the two slots of a register say together.
pub fn choose(first: Slot, second: Slot) -> Chosen {
    match (first, second) {
        (Slot::Empty, Slot::Empty) => Chosen::Missing,
        (Slot::Valid { sequence: a, value }, Slot::Valid { sequence: b, .. }) if a >= b => {
            Chosen::Value { sequence: a, value, other_slot: None }
        }
        (Slot::Valid { .. } | Slot::Empty, Slot::Valid { sequence, value })
        | (Slot::Valid { sequence, value }, Slot::Empty) => {
            Chosen::Value { sequence, value, other_slot: None }
        }
        (Slot::Valid { sequence, value }, Slot::Unreadable { reason })
        | (Slot::Unreadable { reason }, Slot::Valid { sequence, value })
            if reason.is_damage() =>
        {
            Chosen::Value { sequence, value, other_slot: Some(reason) }
        }
        (Slot::Unreadable { reason }, Slot::Valid { .. } | Slot::Empty) => {
            Chosen::Unreadable { first: Some(reason), second: None }
        }
        (Slot::Valid { .. } | Slot::Empty, Slot::Unreadable { reason }) => {
            Chosen::Unreadable { first: None, second: Some(reason) }
        }
        (Slot::Unreadable { reason: first }, Slot::Unreadable { reason: second }) => {
            Chosen::Unreadable { first: Some(first), second: Some(second) }
        }
    }
}
