//! I3: per datastore and epoch one owner acts, and a later epoch silences the earlier ones.
//!
//! - Of each datastore and epoch, one host at most ever has a beat or a protected list on disk.
//! - A grant's token names one VM and one host for all time.
//! - A VM is started only under the grant that stands in the protected list of the highest epoch on disk at that instant.

use super::{Landing, Violation};
use crate::setup::Setup;
use mainstay_core::register::ProtectedList;
use mainstay_core::{Epoch, RegisterId, RegisterValue, Token, VmId};
use std::collections::BTreeMap;

const NAME: &str = "single_owner";

/// Compares beats, protected lists, grants and starts with the epochs that are on disk.
#[derive(Clone, Debug)]
pub struct SingleOwner {
    stores: Vec<Owned>,
}

#[derive(Clone, Debug, Default)]
struct Owned {
    owners: BTreeMap<Epoch, usize>,
    grants: BTreeMap<Token, (VmId, String)>,
    list: Option<ProtectedList>,
}

impl SingleOwner {
    /// Nobody owns anything.
    pub fn new(stores: usize) -> SingleOwner {
        SingleOwner { stores: vec![Owned::default(); stores] }
    }

    /// The protected list of the highest epoch that has landed on that datastore.
    pub fn list(&self, store: usize) -> Option<&ProtectedList> {
        self.stores[store].list.as_ref()
    }

    /// Who has shown itself as owner of that epoch.
    pub fn owner(&self, store: usize) -> Option<(Epoch, usize)> {
        self.stores[store].owners.last_key_value().map(|(epoch, host)| (*epoch, *host))
    }

    /// A register write landed.
    pub fn on_land(&mut self, landing: &Landing<'_>, setup: &Setup) -> Option<Violation> {
        let Landing { store, host, register, value, .. } = *landing;
        match value {
            RegisterValue::Heartbeat(_) | RegisterValue::PowerOn(_) => None,
            RegisterValue::Ownership(block) => {
                let beat = block.beat.as_ref()?;
                self.owns(store, host, beat.epoch, setup)
            }
            RegisterValue::ProtectedList(list) => {
                let mut found = self.owns(store, host, list.epoch, setup);
                if list.owner != setup.hosts[host].id || *register != RegisterId::ProtectedList(list.epoch) {
                    found = Some(Violation {
                        checker: NAME,
                        what: format!(
                            "{} wrote into {register:?} a list of epoch {} that names {} as its owner",
                            setup.hosts[host].id, list.epoch, list.owner
                        ),
                    });
                }
                found.or(self.stores[store].takes(list, setup, store))
            }
        }
    }

    fn owns(&mut self, store: usize, host: usize, epoch: Epoch, setup: &Setup) -> Option<Violation> {
        let first = *self.stores[store].owners.entry(epoch).or_insert(host);
        (first != host).then(|| Violation {
            checker: NAME,
            what: format!(
                "epoch {epoch} of {} is owned by {} and by {}",
                setup.datastores[store].name, setup.hosts[first].id, setup.hosts[host].id
            ),
        })
    }

    /// A core starts a VM under a grant.
    pub fn on_start(&self, vm: usize, host: usize, token: Token, setup: &Setup) -> Option<Violation> {
        let store = setup.vms[vm].datastore;
        let list = self.stores[store].list.as_ref();
        let entry = list.and_then(|list| list.entries.iter().find(|entry| entry.vm == setup.vm_id(vm)));
        let holds = entry.is_some_and(|entry| {
            entry.token == token && entry.holder.as_ref() == Some(&setup.hosts[host].id)
        });
        (!holds).then(|| Violation {
            checker: NAME,
            what: format!(
                "{} starts {} under grant {token}, but the list on disk (epoch {}) says {}",
                setup.hosts[host].id,
                setup.vms[vm].name,
                list.map_or(Epoch(0), |list| list.epoch),
                entry.map_or(String::from("nothing of it"), |entry| format!(
                    "holder {:?}, grant {}",
                    entry.holder, entry.token
                ))
            ),
        })
    }
}

impl Owned {
    fn takes(&mut self, list: &ProtectedList, setup: &Setup, store: usize) -> Option<Violation> {
        let mut found = None;
        for entry in &list.entries {
            let Some(holder) = &entry.holder else { continue };
            let grant = (entry.vm, holder.to_string());
            let first = self.grants.entry(entry.token).or_insert_with(|| grant.clone());
            if *first != grant {
                found = Some(Violation {
                    checker: NAME,
                    what: format!(
                        "grant {} on {} is given twice: {} to {}, and {} to {}",
                        entry.token, setup.datastores[store].name, first.0, first.1, grant.0, grant.1
                    ),
                });
            }
        }
        if self.list.as_ref().is_none_or(|known| known.stamp() <= list.stamp()) {
            self.list = Some(list.clone());
        }
        found
    }
}
