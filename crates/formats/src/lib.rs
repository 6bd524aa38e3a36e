//! Bytes to types and back, for the wire and for the disk; versioned, never panics.
//!
//! | module | what |
//! | --- | --- |
//! | [`layout`] | where each register lies: file names, offsets, sizes, and the reasons for them |
//! | [`disk`] | one slot of a register: a header line and a JSON body, legible with `cat` |
//! | [`slots`] | what a register's two slots together say, and what may be concluded from a damaged one |
//! | [`wire`] | a message between agents: CBOR maps behind a version byte |
//!
//! Compatibility: fields may be added to a type at any time if they are `Option` or `#[serde(default)]`; unknown fields are
//! ignored. What an old reader would *misunderstand* needs a new version number ([`disk::DISK_VERSION`],
//! [`wire::WIRE_VERSION`]); what it does not understand (a new enum variant) it refuses with a typed error.
//!
//! Architecture invariant: no I/O. Whatever bytes come in, what comes out is a value or a typed error, never a panic.

mod body;
pub mod disk;
mod error;
pub mod layout;
pub mod slots;
pub mod wire;

pub use disk::{Slot, SlotHeader, decode_slot, encode_slot, read_header};
pub use error::{EncodeError, SlotError, WireError};
pub use layout::{ClusterId, Location, locate};
pub use slots::{Chosen, choose};
