//! Starts that a host's libvirt is about to make for its user, and asks about first (its hook): one copy of a VM, admission
//! control, maintenance mode.

use super::*;
use crate::ids::VmId;
use crate::protected_list::OwnerList;
use crate::register::{Desired, VmSpec};
use mainstay_placement::{Change, Proposal};

impl Core {
    /// Whether a VM may be started on a host. Never asked for what Mainstay starts itself. `arrives`: a live migration
    /// brings it, so that it does run elsewhere. `Ok`: a warning, if there is one.
    pub(super) fn admit_start(
        &self,
        host: &HostId,
        arrives: bool,
        (vm, name): (VmId, &Arc<str>),
        spec: &VmSpec,
        datastore: &DatastoreName,
        now: Time,
    ) -> Result<Option<String>, String> {
        self.check_host(host)?;
        if !arrives && let Some(why) = self.elsewhere(vm, name, host, now) {
            return Err(why);
        }
        if self.settings.maintenance.contains_key(host) {
            return Err(alloc::format!("{host} is in maintenance mode: it takes no VMs"));
        }
        let scene = self.scene(now);
        let made = crate::placing::started(vm, spec, datastore, host, &self.settings);
        let known = scene.name(vm).cloned().unwrap_or_else(|| name.clone());
        self.admit(&scene, &Proposal::Change(Change::Vm(known, Some(made))))
    }

    /// R38: another host runs the VM, may run it, or is about to.
    fn elsewhere(&self, vm: VmId, name: &str, host: &HostId, now: Time) -> Option<String> {
        self.datastores.values().find_map(|datastore| match datastore.list() {
            Some(list) => self.elsewhere_by(list, datastore, (vm, name), host, now),
            None => self.elsewhere_by_look(datastore, (vm, name), host, now),
        })
    }

    /// As the owner sees it.
    fn elsewhere_by(
        &self,
        list: &OwnerList,
        datastore: &Datastore,
        (vm, name): (VmId, &str),
        host: &HostId,
        now: Time,
    ) -> Option<String> {
        let power_on = datastore.power_on_lists(now);
        let entry = list.entries().map(|(entry, _)| entry).find(|entry| entry.vm == vm);
        let unprotected = entry.is_some_and(|entry| entry.unprotected);
        let may_run = |other: &&HostId| *other != host && self.may_run(datastore, other, unprotected, now);
        let claim = |other: &HostId| power_on.get(other)?.list.claims.iter().find(|claim| claim.vm == vm);
        let shows = |other: &&HostId| claim(other).is_some_and(|claim| !claim.state.is_released());
        if let Some(other) = power_on.keys().filter(shows).find(may_run) {
            return Some(self.runs_on(name, other, datastore, now));
        }
        // Who has a grant and no claim yet takes it up at any moment; who is to get the next one, soon after.
        let entry = entry?;
        let unclaimed = |holder: &&HostId| claim(holder).is_none_or(|claim| claim.token < Some(entry.token));
        let next = entry.intent.as_ref().or(entry.holder.as_ref().filter(unclaimed));
        let next = next.filter(|_| entry.desired == Desired::On).filter(may_run)?;
        Some(alloc::format!("{name} is about to be started on {next}"))
    }

    /// A primary that does not own the datastore (another partition's does) goes by the owner's list on disk.
    fn elsewhere_by_look(
        &self,
        datastore: &Datastore,
        (vm, name): (VmId, &str),
        host: &HostId,
        now: Time,
    ) -> Option<String> {
        let list = &datastore.look()?.list;
        let entry = list.entries.iter().find(|entry| entry.vm == vm && entry.desired == Desired::On)?;
        let may_run =
            |other: &&HostId| *other != host && self.may_run(datastore, other, entry.unprotected, now);
        let other = entry.holder.iter().chain(&entry.intent).find(may_run)?;
        Some(self.runs_on(name, other, datastore, now))
    }

    /// Not known to be down, nor to have frozen what it runs. Of a VM that its user has taken out of protection only what is
    /// heard counts: so a person who knows better has a way.
    fn may_run(&self, datastore: &Datastore, host: &HostId, unprotected: bool, now: Time) -> bool {
        let state = self.hosts.state(host);
        if unprotected {
            let heard =
                state == Some(HostState::Connected) && !self.hosts.cannot_write(host, datastore.name());
            return heard || *host == self.config.me;
        }
        let held = datastore.held_until(host).is_some_and(|until| now < until);
        state != Some(HostState::Failed) || held || now < datastore.ownership().hold_until()
    }

    /// What is so, and what can be done about it.
    fn runs_on(&self, name: &str, host: &HostId, datastore: &Datastore, now: Time) -> String {
        let way_out = alloc::format!(
            "if it is off there, take it out of protection (mainstay vm unprotect {name}) and start it then"
        );
        match self.hosts.state(host) {
            _ if self.hosts.cannot_write(host, datastore.name()) => alloc::format!(
                "{name} ran on {host} when that could last write to {}, and a second copy would destroy its disks; {way_out}",
                datastore.name()
            ),
            None | Some(HostState::Connected) => alloc::format!(
                "{name} runs on {host}, and a second copy would destroy its disks: migrate it, or shut it down there first"
            ),
            Some(HostState::Failed) if datastore.held_until(host).is_some_and(|until| now < until) => {
                alloc::format!(
                    "{name} may still run on {host}, which has failed but was told not to freeze its VMs: if it is down, say so with \
                     mainstay host confirm-down {host}"
                )
            }
            Some(HostState::Failed) => {
                alloc::format!(
                    "{name} may still run on {host}, which has failed a moment ago: ask again in some seconds"
                )
            }
            Some(state) => alloc::format!(
                "{name} runs on {host}, as far as is known ({host} is {state}), and a second copy would destroy its disks; {way_out}"
            ),
        }
    }
}
