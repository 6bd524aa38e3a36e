//! What people ask of a protected list, VM by VM.

use super::*;

impl OwnerList {
    /// A person's wish. The answer is for the person.
    pub(crate) fn set_unprotected(
        &mut self,
        vm: VmId,
        unprotected: bool,
        out: &mut Out<'_>,
    ) -> Result<String, String> {
        let Some(slot) = self.slots.get_mut(&vm) else {
            return Err(String::from("no such VM"));
        };
        let name = slot.working.name.clone();
        if slot.working.unprotected == unprotected {
            let word = if unprotected { "not protected" } else { "protected" };
            return Ok(alloc::format!("{name} is already {word}"));
        }
        slot.working.unprotected = unprotected;
        if unprotected {
            // Nothing is tried again for it.
            slot.working.attempts = 0;
        }
        slot.announced = false;
        self.writing.want();
        if unprotected {
            out.event(Event::VmUnprotected { vm: VmName { id: vm, name: name.clone() } });
            return Ok(alloc::format!("{name} is no longer protected; it runs on"));
        }
        Ok(alloc::format!("{name} is protected"))
    }

    /// A person's wish about isolation responses; `None`: as the cluster.
    pub(crate) fn set_isolation(
        &mut self,
        vm: VmId,
        response: Option<IsolationResponse>,
        shutdown_timeout: Option<Span>,
    ) -> Result<String, String> {
        let Some(slot) = self.slots.get_mut(&vm) else {
            return Err(String::from("no such VM"));
        };
        slot.working.isolation_response = response;
        slot.working.shutdown_timeout = shutdown_timeout;
        self.writing.want();
        let response =
            response.map_or(String::from("as the cluster's"), |response| alloc::format!("{response}"));
        let timeout =
            shutdown_timeout.map_or(String::from("as the cluster's"), |span| alloc::format!("{span}"));
        Ok(alloc::format!(
            "{}: isolation response {response}, shutdown time-out {timeout}",
            slot.working.name
        ))
    }

    /// Finds a VM by name or UUID.
    pub(crate) fn find(&self, wanted: &str) -> Option<VmId> {
        let by_id = VmId::parse(wanted).filter(|vm| self.slots.contains_key(vm));
        by_id.or_else(|| self.slots.iter().find(|(_, slot)| &*slot.working.name == wanted).map(|(vm, _)| *vm))
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
        for (vm, wanted) in &settings.vms {
            if let (Some(slot), Some(priority)) = (self.slots.get_mut(vm), wanted.priority) {
                slot.working.spec.priority = priority;
            }
        }
        self.settings = settings.clone();
        self.writing.want();
        true
    }

    /// Whether that revision, or a later one, is on disk.
    pub(crate) fn has_written(&self, revision: u64) -> bool {
        self.writing.has_settings(revision)
    }
}
