//! R23, R24: what a new owner waits for before it decides about VMs.
//!
//! - R23: it reads the former lists and all power-on lists, after its epoch was raised.
//! - R24: if it did not wait for the former ownership to run out, leases that the former owner granted by network may still
//!   hold. For so long it calls no host failed.
//!
//! It does not: make the new list. The protected list does.

use crate::ids::{Epoch, HostId};
use crate::register::{LIST_REGIONS, RegisterId};
use crate::time::Time;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// How far a new owner is in taking over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct TakeOver {
    /// When to read once more what is to be taken over.
    due: Option<Time>,
    /// R24: until then no host is called failed here.
    hold_until: Time,
}

impl TakeOver {
    /// What is to be taken over has to be read at that time.
    pub(super) fn try_again(&mut self, at: Time) {
        self.due = Some(at);
    }

    /// A read is under way, or there is nothing to take over any more.
    pub(super) fn end_wait(&mut self) {
        self.due = None;
    }

    /// When to read.
    pub(super) fn due(&self) -> Option<Time> {
        self.due
    }

    /// R24: leases of the former owner's may hold until then.
    pub(super) fn hold(&mut self, until: Time) {
        self.hold_until = until;
    }

    /// R24: until then no host is called failed here.
    pub(super) fn hold_until(&self) -> Time {
        self.hold_until
    }
}

/// What the owner of that epoch takes over: the former lists that are still there, and the power-on lists of others.
pub(super) fn registers(epoch: Epoch, peers: &[HostId]) -> Vec<RegisterId> {
    let first = epoch.0.saturating_sub(LIST_REGIONS).max(1);
    let mut registers: Vec<RegisterId> =
        (first..epoch.0.max(first)).map(|epoch| RegisterId::ProtectedList(Epoch(epoch))).collect();
    registers.extend(peers.iter().cloned().map(RegisterId::PowerOn));
    registers
}
