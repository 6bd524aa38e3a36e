//! R26: this host's own ownership block can't be read.
//!
//! Others can't contend past a block that nobody can read, and this host must not forget which epochs were its own. So it
//! takes no part until it has read everything that tells of epochs, and has found none later than those that it knew of.
//!
//! It does not: write the good block. The consensus makes it, when it is known how far the epochs went.

use crate::ids::{Epoch, HostId};
use crate::register::{LIST_REGIONS, RegisterId};
use crate::time::Time;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// How far this host is in finding out which epochs there were.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Recovery {
    lost: bool,
    due: Time,
    /// There were epochs up to that.
    known: Epoch,
}

impl Recovery {
    pub(super) fn new(now: Time) -> Recovery {
        Recovery { lost: false, due: now, known: Epoch(0) }
    }

    /// The block can't be read.
    pub(super) fn begin(&mut self) {
        self.lost = true;
    }

    /// The block was lost, and it is not known yet which epochs there were.
    pub(super) fn is_under_way(&self) -> bool {
        self.lost
    }

    /// When to read next.
    pub(super) fn due(&self) -> Time {
        self.due
    }

    /// A read has failed, or did not show enough.
    pub(super) fn try_again(&mut self, at: Time) {
        self.due = at;
    }

    /// There were epochs up to that.
    pub(super) fn known(&self) -> Epoch {
        self.known
    }

    /// What tells of later epochs: the lists that may have been written after the last one that is known of (each of them in
    /// a region of its own), and every block and power-on list.
    pub(super) fn registers(&self, me: &HostId, peers: &[HostId]) -> Vec<RegisterId> {
        let later = (1..=LIST_REGIONS)
            .map(|next| RegisterId::ProtectedList(Epoch(self.known.0.saturating_add(next))));
        let mut registers: Vec<RegisterId> = later.collect();
        registers.push(RegisterId::PowerOn(me.clone()));
        for host in peers {
            registers.extend([RegisterId::Ownership(host.clone()), RegisterId::PowerOn(host.clone())]);
        }
        registers
    }

    /// A read that began with `known` has shown epochs up to `found`. Returns whether that is all, or there may be more.
    pub(super) fn take_in(&mut self, known: Epoch, found: Option<Epoch>) -> bool {
        self.known = found.max(Some(known)).unwrap_or(known);
        self.lost = self.known > known;
        !self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::{Epoch, Recovery, Time};

    #[test]
    fn it_reads_on_until_no_later_epoch_shows() {
        let mut recovery = Recovery::new(Time(0));
        recovery.begin();
        assert!(!recovery.take_in(Epoch(0), Some(Epoch(7))));
        assert_eq!(recovery.known(), Epoch(7));
        assert!(recovery.is_under_way());
        // What was read is forgotten by then: nothing later than 7 is there.
        assert!(recovery.take_in(Epoch(7), None));
        assert!(!recovery.is_under_way());
    }
}
