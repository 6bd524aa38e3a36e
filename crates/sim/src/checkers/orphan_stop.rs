//! I2: an isolation response stops a VM only after an owner recorded responsibility for it on disk.

use super::Violation;
use crate::setup::Setup;
use mainstay_core::{HostId, RegisterValue};
use std::collections::BTreeMap;

/// A host acts on what it has read: what was on disk so long before may have been taken back since.
const READ_BEFORE: u64 = 3_000_000;

/// Compares isolation responses with what was on disk when they were applied.
#[derive(Clone, Debug, Default)]
pub struct OrphanStop {
    /// By VM: for whose release an owner was responsible when, at last; `None` as time: it is.
    responsible: BTreeMap<usize, (HostId, Option<u64>)>,
}

impl OrphanStop {
    /// A register write landed.
    pub fn on_land(&mut self, at: u64, store: usize, value: &RegisterValue, setup: &Setup) {
        let RegisterValue::ProtectedList(list) = value else { return };
        for vm in (0..setup.vms.len()).filter(|vm| setup.vms[*vm].datastore == store) {
            let entry = list.entry(setup.vm_id(vm));
            let host = entry.and_then(|entry| entry.responsible.as_ref().and(entry.holder.clone()));
            match (host, self.responsible.get_mut(&vm)) {
                (Some(host), _) => drop(self.responsible.insert(vm, (host, None))),
                (None, Some((_, until @ None))) => *until = Some(at),
                (None, Some((_, Some(_))) | None) => {}
            }
        }
    }

    /// A host applies an isolation response.
    pub fn on_response(&self, at: u64, vm: usize, host: usize, setup: &Setup) -> Option<Violation> {
        let me = &setup.hosts[host].id;
        let recorded = self.responsible.get(&vm).is_some_and(|(holder, until)| {
            holder == me && until.is_none_or(|until| at < until + READ_BEFORE)
        });
        (!recorded).then(|| Violation {
            checker: "orphan_stop",
            what: format!(
                "{me} stops {} for isolation, and nobody is responsible for it",
                setup.vms[vm].name
            ),
        })
    }
}
