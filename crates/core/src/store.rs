//! R1, R2, R11 to R15: the registers of one datastore, as one host deals with them.
//!
//! | part | what it knows |
//! | --- | --- |
//! | [`Mirror`] | what this host has read of the registers of others |
//!
//! It does not: decide who owns the datastore, or what becomes of a VM.

mod mirror;
mod sighting;

pub(crate) use mirror::{HeartbeatShown, Mirror, PowerOnSeen};
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
