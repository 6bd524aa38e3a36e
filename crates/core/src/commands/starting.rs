//! Starts that a host's libvirt is about to make for its user, and asks about first (its hook): one copy of a VM (R38),
//! admission control, maintenance mode.
//!
//! It does not: see what Mainstay starts itself. That is never asked for here.

use super::admission::admit as admit_proposal;
use crate::cluster::Cluster;
use crate::datastore::Datastore;
use crate::host_liveness::HostState;
use crate::ids::{DatastoreName, HostId, VmId};
use crate::protected_list::OwnerList;
use crate::register::{Desired, VmSpec};
use crate::time::Time;
use alloc::string::String;
use alloc::sync::Arc;
use mainstay_placement::{Change, Proposal};

/// A start that is asked about.
pub(super) struct Start<'a> {
    pub(super) host: &'a HostId,
    pub(super) vm: VmId,
    pub(super) name: &'a Arc<str>,
    pub(super) spec: &'a VmSpec,
    pub(super) datastore: &'a DatastoreName,
    /// A live migration brings it, so that it does run elsewhere.
    pub(super) arrives: bool,
}

/// Whether a VM may be started on a host. `Ok`: a warning, if there is one.
pub(super) fn admit(cluster: &Cluster<'_>, start: &Start<'_>, now: Time) -> Result<Option<String>, String> {
    let Start { host, vm, name, spec, datastore, arrives } = start;
    cluster.check_host(host)?;
    if !arrives && let Some(why) = (Search { cluster, start, now }).elsewhere() {
        return Err(why);
    }
    if cluster.settings().maintenance.contains_key(*host) {
        return Err(alloc::format!("{host} is in maintenance mode: it takes no VMs"));
    }
    let scene = cluster.scene(now);
    let made = crate::placing::started(*vm, spec, datastore, host, cluster.settings());
    let known = scene.name(*vm).cloned().unwrap_or_else(|| Arc::clone(name));
    admit_proposal(&scene, cluster.settings(), &Proposal::Change(Change::Vm(known, Some(made))))
}

/// R38: the search for another host that runs the VM, may run it, or is about to.
struct Search<'a> {
    cluster: &'a Cluster<'a>,
    start: &'a Start<'a>,
    now: Time,
}

impl Search<'_> {
    fn elsewhere(&self) -> Option<String> {
        self.cluster.datastores().all().find_map(|datastore| match datastore.list() {
            Some(list) => self.by_list(list, datastore),
            None => self.by_look(datastore),
        })
    }

    /// As the owner sees it.
    fn by_list(&self, list: &OwnerList, datastore: &Datastore) -> Option<String> {
        let vm = self.start.vm;
        let power_on = datastore.power_on_lists(self.now);
        let entry = list.entries().map(|(entry, _)| entry).find(|entry| entry.vm == vm);
        let unprotected = entry.is_some_and(|entry| entry.unprotected);
        let may_run = |other: &&HostId| self.may_run(datastore, other, unprotected);
        let claim = |other: &HostId| power_on.get(other)?.list.claims.iter().find(|claim| claim.vm == vm);
        let shows = |other: &&HostId| claim(other).is_some_and(|claim| !claim.state.is_released());
        if let Some(other) = power_on.keys().filter(shows).find(may_run) {
            return Some(self.runs_on(other, datastore));
        }
        // Who has a grant and no claim yet takes it up at any moment; who is to get the next one, soon after.
        let entry = entry?;
        let unclaimed = |holder: &&HostId| claim(holder).is_none_or(|claim| claim.token < Some(entry.token));
        let next = entry.intent.as_ref().or(entry.holder.as_ref().filter(unclaimed));
        let next = next.filter(|_| entry.desired == Desired::On).filter(may_run)?;
        Some(alloc::format!("{} is about to be started on {next}", self.start.name))
    }

    /// A primary that does not own the datastore (another partition's does) decides by the owner's list on disk.
    fn by_look(&self, datastore: &Datastore) -> Option<String> {
        let list = &datastore.look()?.list;
        let mut entries = list.entries.iter();
        let entry = entries.find(|entry| entry.vm == self.start.vm && entry.desired == Desired::On)?;
        let may_run = |other: &&HostId| self.may_run(datastore, other, entry.unprotected);
        let other = entry.holder.iter().chain(&entry.intent).find(may_run)?;
        Some(self.runs_on(other, datastore))
    }

    /// Another host that is not known to be down, nor to have frozen what it runs. Of a VM that its user has taken out of
    /// protection only what is heard counts: so a person who knows better has a way.
    fn may_run(&self, datastore: &Datastore, host: &HostId, unprotected: bool) -> bool {
        if host == self.start.host {
            return false;
        }
        let state = self.cluster.hosts().state(host);
        if unprotected {
            let heard = state == Some(HostState::Connected) && !self.cannot_write(datastore, host);
            return heard || host == self.cluster.me();
        }
        let held = datastore.may_hold(host, self.now);
        state != Some(HostState::Failed) || held || self.now < datastore.ownership().hold_until()
    }

    fn cannot_write(&self, datastore: &Datastore, host: &HostId) -> bool {
        self.cluster.hosts().cannot_write(host, datastore.name())
    }

    /// What is so, and what can be done about it.
    fn runs_on(&self, host: &HostId, datastore: &Datastore) -> String {
        let name = self.start.name;
        let way_out = alloc::format!(
            "if it is off there, take it out of protection (mainstay vm unprotect {name}) and start it then"
        );
        match self.cluster.hosts().state(host) {
            _ if self.cannot_write(datastore, host) => alloc::format!(
                "{name} ran on {host} when that could last write to {}, and a second copy would destroy its disks; {way_out}",
                datastore.name()
            ),
            None | Some(HostState::Connected) => alloc::format!(
                "{name} runs on {host}, and a second copy would destroy its disks: migrate it, or shut it down there first"
            ),
            Some(HostState::Failed) if datastore.may_hold(host, self.now) => {
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
