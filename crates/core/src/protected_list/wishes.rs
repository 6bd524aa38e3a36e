//! What people ask of a protected list, VM by VM: their answer is the result.
//!
//! It decides nothing about where a VM runs: the next review does, by the entry as it was changed here.

use super::OwnerList;
use crate::event::{Event, VmName};
use crate::ids::{HostId, VmId};
use crate::out::Out;
use crate::register::{Desired, IsolationResponse};
use crate::settings::Settings;
use crate::time::Span;
use alloc::string::String;
use alloc::sync::Arc;

impl OwnerList {
    /// Takes a VM out of protection, or back.
    pub(crate) fn set_unprotected(
        &mut self,
        id: VmId,
        unprotected: bool,
        out: &mut Out<'_>,
    ) -> Result<String, String> {
        let Some(vm) = self.vms.get_mut(&id) else {
            return Err(String::from("no such VM"));
        };
        let name = vm.working().name.clone();
        if vm.working().unprotected == unprotected {
            let word = if unprotected { "not protected" } else { "protected" };
            return Ok(alloc::format!("{name} is already {word}"));
        }
        let entry = vm.edit(&mut self.writing);
        entry.unprotected = unprotected;
        if unprotected {
            // Nothing is tried again for it.
            entry.attempts = 0;
        }
        vm.announce_again();
        if unprotected {
            out.event(Event::VmUnprotected { vm: VmName { id, name: name.clone() } });
            return Ok(alloc::format!("{name} is no longer protected; it runs on"));
        }
        Ok(alloc::format!("{name} is protected"))
    }

    /// Sets a VM's isolation response; `None`: as the cluster.
    pub(crate) fn set_isolation(
        &mut self,
        id: VmId,
        response: Option<IsolationResponse>,
        shutdown_timeout: Option<Span>,
    ) -> Result<String, String> {
        let Some(vm) = self.vms.get_mut(&id) else {
            return Err(String::from("no such VM"));
        };
        let entry = vm.edit(&mut self.writing);
        entry.isolation_response = response;
        entry.shutdown_timeout = shutdown_timeout;
        let name = &entry.name;
        let response =
            response.map_or(String::from("as the cluster's"), |response| alloc::format!("{response}"));
        let timeout =
            shutdown_timeout.map_or(String::from("as the cluster's"), |span| alloc::format!("{span}"));
        Ok(alloc::format!("{name}: isolation response {response}, shutdown time-out {timeout}"))
    }

    /// Finds a VM by name or UUID.
    pub(crate) fn find(&self, wanted: &str) -> Option<VmId> {
        let by_id = VmId::parse(wanted).filter(|id| self.vms.contains_key(id));
        by_id.or_else(|| self.working().find(|entry| &*entry.name == wanted).map(|entry| entry.vm))
    }

    /// The settings of the cluster, as this list has them.
    pub(crate) fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// Newer settings go into the next write. Priorities are settled here: an entry has the one that counts.
    /// True: they were.
    pub(crate) fn take_settings(&mut self, settings: &Arc<Settings>) -> bool {
        if !settings.is_newer_than(&self.settings) {
            return false;
        }
        for (id, wanted) in &settings.vms {
            if let (Some(vm), Some(priority)) = (self.vms.get_mut(id), wanted.priority) {
                vm.edit(&mut self.writing).spec.priority = priority;
            }
        }
        self.settings = settings.clone();
        self.writing.want();
        true
    }

    /// VMs that were moved away from that host for maintenance.
    pub(crate) fn evacuated_from(&self, host: &HostId) -> u32 {
        let away = self.working().filter(|entry| {
            entry.evacuated_from.as_ref() == Some(host)
                && entry.holder.is_some()
                && entry.desired == Desired::On
        });
        away.count() as u32
    }

    /// Nothing is brought back to that host any more.
    pub(crate) fn forget_evacuation(&mut self, host: &HostId) {
        for vm in self.vms.values_mut() {
            if vm.working().evacuated_from.as_ref() == Some(host) {
                vm.edit(&mut self.writing).evacuated_from = None;
            }
        }
    }

    /// VMs that the host holds or is to get.
    pub(crate) fn held_by(&self, host: &HostId) -> u32 {
        let held = self
            .working()
            .filter(|entry| entry.holder.as_ref() == Some(host) && entry.desired == Desired::On);
        held.count() as u32
    }
}
