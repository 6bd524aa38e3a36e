//! What becomes of registers by other hands than their writers': damaged, removed, put back to an earlier state.

use super::{Store, Stored, place};
use mainstay_core::{RegisterId, VmId, XmlId};
use std::collections::{BTreeMap, BTreeSet};

/// All that a datastore held at an instant.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    registers: BTreeMap<RegisterId, Stored>,
    xml: BTreeSet<(VmId, XmlId)>,
}

impl Store {
    /// Both copies of a register are damaged where they lie.
    pub fn destroy(&mut self, register: &RegisterId) {
        if let Some(stored) = self.registers.get_mut(&place(register)) {
            stored.value = None;
        }
    }

    /// A register is gone, as if it had never been written.
    pub fn forget(&mut self, register: &RegisterId) {
        self.registers.remove(&place(register));
    }

    /// Both copies of the protected list of the highest epoch are damaged where they lie.
    pub fn destroy_newest_list(&mut self) {
        let lists = self.registers.values_mut().filter(|stored| is_list(&stored.register));
        if let Some(newest) = lists.max_by(|a, b| a.register.cmp(&b.register)) {
            newest.value = None;
        }
    }

    /// The protected lists of all epochs are gone.
    pub fn forget_lists(&mut self) {
        self.registers.retain(|register, _| !is_list(register));
    }

    /// Remembers all that is there.
    pub fn take_snapshot(&mut self) {
        self.snapshot = Some(Snapshot { registers: self.registers.clone(), xml: self.xml.clone() });
    }

    /// Everything is as it was when the last snapshot was taken; without one, nothing happens.
    pub fn restore(&mut self) {
        if let Some(Snapshot { registers, xml }) = self.snapshot.clone() {
            self.registers = registers;
            self.xml = xml;
        }
    }
}

fn is_list(register: &RegisterId) -> bool {
    match register {
        RegisterId::ProtectedList(_) => true,
        RegisterId::Heartbeat(_) | RegisterId::PowerOn(_) | RegisterId::Ownership(_) => false,
    }
}
