//! R1, R2, R11 to R15: the registers of one datastore, as one host deals with them.
//!
//! | part | what it knows |
//! | --- | --- |
//! | [`Mirror`] | what this host has read of the registers of others |
//! | [`Reads`] | which reads are under way or due, and what for |
//! | [`Own`] | this host's own registers: what is on disk, and what is being written |
//! | [`Reach`] | whether this host's heartbeats arrive |
//!
//! It does not: decide who owns the datastore, or what becomes of a VM.

mod mirror;
mod own;
mod reach;
mod reads;
mod sighting;

pub(crate) use mirror::{HeartbeatShown, Mirror, PowerOnSeen};
pub(crate) use own::{Done, Outcome, Own};
pub(crate) use reach::Reach;
pub(crate) use reads::{Purpose, Read, Reads, Watch};
pub(crate) use sighting::{Blocks, Sighting};

use crate::register::RegisterId;
use alloc::sync::Arc;

/// A register's file, and the epoch where the file has several regions.
pub(crate) fn file_of(id: &RegisterId) -> Arc<str> {
    match id {
        RegisterId::Heartbeat(host) => alloc::format!("{host}-hb"),
        RegisterId::PowerOn(host) => alloc::format!("{host}-poweron"),
        RegisterId::Ownership(host) => alloc::format!("{host}-owner"),
        RegisterId::ProtectedList(epoch) => alloc::format!("protectedlist (epoch {epoch})"),
    }
    .into()
}
