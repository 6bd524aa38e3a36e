//! Commands that change the settings of the cluster (R70), and those about suspension and maintenance: what is asked is
//! checked, and refused with the reason.

use super::operators::Asked;
use super::*;
use crate::ids::VmId;
use crate::placing::{Scene, admission_control, shortened};
use crate::protected_list::OwnerList;
use crate::settings::{Evacuation, Group, Policy, Readiness, ReadyWhen, counted, in_words};
use crate::time::Span;
use mainstay_placement as placement;
use placement::{Change, PROOF_WORK, Proposal};

/// A suspension may last so long at most: a forgotten one must end.
const SUSPENSION_MAX: Span = Span::from_secs(7 * 24 * 3_600);

/// Settings may take so many bytes of a protected list; the rest is for some 2,000 VMs.
const SETTINGS_SIZE_MAX: usize = 128 * 1_024;

/// "3 VMs are".
fn moved(number: u32) -> String {
    alloc::format!("{} {}", counted(number, "VM"), if number == 1 { "is" } else { "are" })
}

impl Core {
    /// Finds a VM on the datastores that this host owns.
    fn find_vm(&self, wanted: &str, now: Time) -> Result<VmId, String> {
        let owned = self.datastores.values().filter(|datastore| datastore.ownership().epoch(now).is_some());
        let mut lists = owned.filter_map(|datastore| datastore.list());
        lists.find_map(|list| list.find(wanted)).ok_or_else(|| {
            alloc::format!("no VM called {wanted} is known on a datastore that {} owns", self.config.me)
        })
    }

    pub(super) fn find_vms(&self, wanted: &[String], now: Time) -> Result<BTreeSet<VmId>, String> {
        wanted.iter().map(|name| self.find_vm(name, now)).collect()
    }

    pub(super) fn check_host(&self, host: &HostId) -> Result<(), String> {
        if self.hosts.knows(host) {
            return Ok(());
        }
        Err(alloc::format!("{host} is no host of this cluster"))
    }

    /// The newest settings that are on a datastore, as far as this host has read them.
    pub(super) fn forget_own_settings(&mut self) {
        let read = self.datastores.values().filter_map(|datastore| Some(&datastore.look()?.list.settings));
        let newest = read.fold(None, |newest: Option<&Arc<Settings>>, settings| match newest {
            Some(newest) if !settings.is_newer_than(newest) => Some(newest),
            Some(_) | None => Some(settings),
        });
        self.settings = newest.cloned().unwrap_or_default();
    }

    /// Makes the change, for all datastores that this host owns.
    pub(super) fn change_settings(
        &mut self,
        answer: String,
        out: &mut Out<'_>,
        change: impl FnOnce(&mut Settings),
    ) -> Result<Asked, String> {
        let mut settings = Settings::clone(&self.settings);
        change(&mut settings);
        settings.revision = settings.revision.saturating_add(1);
        settings.by = Some(self.config.me.clone());
        if settings.size() > SETTINGS_SIZE_MAX && settings.size() > self.settings.size() {
            return Err(String::from(
                "the settings of the cluster would be too large for the protected lists: remove rules, groups or settings of VMs \
                 that are not needed any more",
            ));
        }
        self.settings = Arc::new(settings);
        self.rehearsal_stale = true;
        out.event(Event::SettingsChanged { text: answer.as_str().into() });
        Ok(Asked::Later(Until::Settings(self.settings.revision), answer))
    }

    /// The groups have to have an order after the change.
    fn check_order(&self, after: &Settings, now: Time) -> Result<(), String> {
        let mut scene = self.scene_under(after, now);
        // What the change makes of priorities.
        for (vm, wanted) in &after.vms {
            let name = scene.name(*vm).cloned();
            let priority = wanted.priority.map(crate::placing::priority);
            if let (Some(name), Some(priority)) = (name, priority)
                && let Some(vm) = scene.picture.vms.get_mut(&name)
            {
                vm.priority = priority;
            }
        }
        placement::check_groups(&scene.picture).map_err(|error| alloc::format!("{error}"))
    }

    pub(super) fn set_vm(
        &mut self,
        wanted: &str,
        answer: impl FnOnce(&str) -> String,
        out: &mut Out<'_>,
        change: impl FnOnce(&mut crate::settings::VmSettings),
    ) -> Result<Asked, String> {
        let vm = self.find_vm(wanted, out.now)?;
        let mut after = Settings::clone(&self.settings);
        let settings = after.vms.entry(vm).or_default();
        change(settings);
        if *settings == crate::settings::VmSettings::default() {
            after.vms.remove(&vm);
        }
        self.check_order(&after, out.now)?;
        self.change_settings(answer(wanted), out, |settings| *settings = after)
    }

    /// A warning, where a condition asks a guest agent that was never heard.
    pub(super) fn agent_unheard(&self, wanted: &str, readiness: Option<&Readiness>) -> String {
        let asks = |it: &&Readiness| matches!(it.when, ReadyWhen::AgentAnswers | ReadyWhen::CommandSucceeds);
        let unheard = |list: &OwnerList| {
            let vm = list.find(wanted);
            vm.is_some_and(|vm| list.entries().any(|(entry, _)| entry.vm == vm && !entry.has_agent))
        };
        match readiness.filter(asks) {
            Some(it) if self.lists().any(unheard) => alloc::format!(
                "; warning: no guest agent of it has ever answered, and without one those that wait for it wait for {}",
                it.timeout
            ),
            Some(_) | None => String::new(),
        }
    }

    pub(super) fn set_group(
        &mut self,
        name: &Arc<str>,
        vms: &[String],
        waits_for: &[Arc<str>],
        out: &mut Out<'_>,
    ) -> Result<Asked, String> {
        let vms = self.find_vms(vms, out.now)?;
        if vms.is_empty() {
            return Err(String::from("a group needs at least one VM"));
        }
        if let Some(unknown) = waits_for.iter().find(|group| !self.settings.groups.contains_key(*group)) {
            return Err(alloc::format!("there is no group {unknown} to wait for: make it first"));
        }
        let mut after = Settings::clone(&self.settings);
        let group = Group { vms, waits_for: waits_for.iter().cloned().collect() };
        after.groups.insert(name.clone(), group);
        self.check_order(&after, out.now)?;
        let answer = alloc::format!("group {name} is set");
        self.change_settings(answer, out, |settings| *settings = after)
    }

    pub(super) fn remove_group(&mut self, name: &Arc<str>, out: &mut Out<'_>) -> Result<Asked, String> {
        if !self.settings.groups.contains_key(name) {
            return Err(alloc::format!("there is no group {name}"));
        }
        let waiting = self.settings.groups.iter().find(|(_, group)| group.waits_for.contains(name));
        if let Some((other, _)) = waiting {
            return Err(alloc::format!("group {other} waits for {name}: change or remove that first"));
        }
        let answer = alloc::format!("group {name} is removed");
        self.change_settings(answer, out, |settings| drop(settings.groups.remove(name)))
    }

    pub(super) fn set_admission(
        &mut self,
        admission: &crate::settings::Admission,
        out: &mut Out<'_>,
    ) -> Result<Asked, String> {
        match &admission.policy {
            Policy::Proved { failures } | Policy::HostFailures { tolerated: failures, .. } => {
                let most = self.hosts.count() as u32;
                if *failures == 0 || *failures > most {
                    let hosts = most + 1;
                    return Err(alloc::format!(
                        "{failures} failed hosts: of {hosts} hosts, 1 to {most} can be made up for"
                    ));
                }
            }
            Policy::Percentage { cpu, memory } if *cpu > 100 || *memory > 100 => {
                return Err(String::from("a percentage is 0 to 100"));
            }
            Policy::FailoverHosts if self.settings.failover_hosts.is_empty() => {
                return Err(String::from("no host is kept for failovers: name one first"));
            }
            Policy::Percentage { .. } | Policy::FailoverHosts => {}
        }
        let answer = alloc::format!("admission control: {admission}");
        let admission = admission.clone();
        self.change_settings(answer, out, |settings| settings.admission = admission)
    }

    pub(super) fn set_failover_host(
        &mut self,
        host: &HostId,
        keep: bool,
        out: &mut Out<'_>,
    ) -> Result<Asked, String> {
        self.check_host(host)?;
        if !keep
            && self.settings.admission.policy == Policy::FailoverHosts
            && self.settings.failover_hosts.len() == 1
        {
            return Err(String::from(
                "admission control relies on failover hosts, and this is the last one: change the policy first",
            ));
        }
        let answer = if keep {
            alloc::format!("{host} is kept for failovers; VMs that run on it are left there")
        } else {
            alloc::format!("{host} is a host like the others")
        };
        self.change_settings(answer, out, |settings| {
            if keep {
                settings.failover_hosts.insert(host.clone());
            } else {
                settings.failover_hosts.remove(host);
            }
        })
    }

    /// What admission control says to a change. `Ok`: a warning, if there is one.
    pub(super) fn admit(&self, scene: &Scene, proposal: &Proposal) -> Result<Option<String>, String> {
        let control = admission_control(&self.settings, PROOF_WORK);
        let before = placement::admit(&scene.picture, &control);
        let mut after = placement::admit_after(&scene.picture, proposal, &control);
        // What was wrong before is not this change's fault.
        after.objections.retain(|objection| !before.objections.contains(objection));
        if after.objections.is_empty() {
            return Ok(None);
        }
        let text = alloc::format!("admission control: {}", shortened(&after.objections, after.more));
        if after.is_refused() { Err(text) } else { Ok(Some(text)) }
    }

    /// Protecting a VM. `Ok`: a warning, if there is one.
    pub(super) fn admit_protection(&self, vm: VmId, now: Time) -> Result<Option<String>, String> {
        let scene = self.scene(now);
        let Some(name) = scene.name(vm) else { return Ok(None) };
        let Some(slot) = scene.picture.vms.get(name) else { return Ok(None) };
        let after = placement::Vm { wanted: true, ..slot.clone() };
        self.admit(&scene, &Proposal::Change(Change::Vm(name.clone(), Some(after))))
    }

    pub(super) fn enter_maintenance(
        &mut self,
        host: &HostId,
        how: Evacuation,
        force: bool,
        out: &mut Out<'_>,
    ) -> Result<Asked, String> {
        self.check_host(host)?;
        if self.settings.maintenance.get(host) == Some(&how) {
            return Err(alloc::format!("{host} is in maintenance mode already, or on its way into it"));
        }
        let serves = |other: &&HostId| *other != host && !self.settings.maintenance.contains_key(*other);
        if !force && !self.hosts.names().chain([&self.config.me]).any(|other| serves(&other)) {
            return Err(String::from(
                "no other host is there to take over: it is the only one, or all others are in maintenance mode (--force)",
            ));
        }
        let mut warning = None;
        if how == Evacuation::Migrate {
            let scene = self.scene(out.now);
            match self.admit(&scene, &Proposal::EnterMaintenance(host.text())) {
                Ok(said) => warning = said,
                Err(reason) if !force => {
                    return Err(alloc::format!("{reason} (--force enters all the same)"));
                }
                Err(reason) => warning = Some(reason),
            }
            // Whatever the policy: what no other host can take can't be moved.
            let stuck = self.cannot_be_emptied(&scene, host);
            if let (Some(stuck), false) = (stuck, force) {
                return Err(stuck);
            }
        }
        let vms = self.left_on(host);
        out.event(Event::MaintenanceBegun { host: host.clone(), vms });
        let mut answer = match how {
            Evacuation::Migrate => {
                alloc::format!("{host} is being emptied of {} by live migration", counted(vms, "VM"))
            }
            Evacuation::ShutDown => {
                alloc::format!("{host} is being emptied of {}, which are shut down", counted(vms, "VM"))
            }
        };
        if let Some(warning) = warning {
            answer.push_str(&alloc::format!("; warning: {warning}"));
        }
        if self.lists().any(|list| list.suspension().stands()) {
            answer.push_str("; protection is suspended: it begins when that is over");
        }
        self.emptied.remove(host);
        self.change_settings(answer, out, |settings| {
            settings.bring_back.remove(host);
            settings.maintenance.insert(host.clone(), how);
        })
    }

    /// Why the VMs of a host can't all be moved away, if they can't.
    fn cannot_be_emptied(&self, scene: &Scene, host: &HostId) -> Option<String> {
        let control = admission_control(&self.settings, PROOF_WORK);
        let verdict =
            placement::admit_after(&scene.picture, &Proposal::EnterMaintenance(host.text()), &control);
        let stuck = |objection: &&placement::Objection| {
            matches!(objection, placement::Objection::CannotBeEmptied { .. })
        };
        verdict.objections.iter().find(stuck).map(|objection| {
            alloc::format!(
                "{objection}; shut those down yourself, use --shutdown, or --force to move the others"
            )
        })
    }

    pub(super) fn leave_maintenance(
        &mut self,
        host: &HostId,
        bring_back: bool,
        out: &mut Out<'_>,
    ) -> Result<Asked, String> {
        self.check_host(host)?;
        if !self.settings.maintenance.contains_key(host) {
            return Err(alloc::format!("{host} is not in maintenance mode"));
        }
        let mut back = 0;
        for datastore in self.datastores.values_mut() {
            let Some(list) = datastore.list_mut() else { continue };
            back += list.evacuated_from(host);
            if !bring_back {
                list.forget_evacuation(host);
            }
        }
        out.event(Event::MaintenanceLeft { host: host.clone() });
        let answer = if bring_back {
            alloc::format!("{host} takes VMs again; {} moved back to it", moved(back))
        } else {
            alloc::format!("{host} takes VMs again; nothing is moved back to it")
        };
        self.change_settings(answer, out, |settings| {
            settings.maintenance.remove(host);
            if bring_back {
                settings.bring_back.insert(host.clone());
            }
        })
    }

    pub(super) fn suspend(&mut self, length: Span, out: &mut Out<'_>) -> Result<Asked, String> {
        if length == Span::ZERO || length > SUSPENSION_MAX {
            return Err(alloc::format!(
                "protection can be suspended for up to {}, not for {}",
                in_words(SUSPENSION_MAX),
                in_words(length)
            ));
        }
        let mut any = false;
        let timing = self.config.timing;
        for datastore in self.datastores.values_mut() {
            if datastore.ownership().epoch(out.now).is_some()
                && let Some(list) = datastore.list_mut()
            {
                any = true;
                list.suspend(length, &timing, out.now);
                datastore.want_review();
            }
        }
        if !any {
            return Err(alloc::format!(
                "{} owns no datastore at the moment: try again in a few seconds",
                self.config.me
            ));
        }
        let answer = alloc::format!(
            "protection is to be suspended for {}; failovers in progress are completed first",
            in_words(length)
        );
        Ok(Asked::Later(Until::Suspension, answer))
    }

    pub(super) fn resume(&mut self, out: &mut Out<'_>) -> Result<Asked, String> {
        let mut any = false;
        for datastore in self.datastores.values_mut() {
            if datastore.ownership().epoch(out.now).is_some()
                && let Some(list) = datastore.list_mut()
            {
                any |= list.suspension().left(out.now).is_some();
                list.resume("a person resumed it", out);
                datastore.want_review();
            }
        }
        if !any {
            return Err(String::from("protection is not suspended"));
        }
        Ok(Asked::Later(Until::Suspension, String::from("protection goes on")))
    }

    /// R73: a person says that a host is down.
    pub(super) fn confirm_down(&mut self, host: &HostId, out: &mut Out<'_>) -> Result<Asked, String> {
        self.check_host(host)?;
        let state = self.hosts.state(host).unwrap_or(HostState::Connected);
        if state != HostState::Failed {
            return Err(alloc::format!(
                "{host} is {state}: only a host that shows no sign of life can be confirmed to be down"
            ));
        }
        // What it wrote counts again as soon as it writes anything more.
        for datastore in self.datastores.values_mut() {
            datastore.confirm_down(host);
        }
        out.event(Event::HostConfirmedDown { host: host.clone() });
        let when = if self.lists().any(|list| list.suspension().stands()) {
            " when protection goes on (mainstay resume)"
        } else {
            ""
        };
        Ok(Asked::Now(alloc::format!("{host} counts as down: its VMs are restarted elsewhere{when}")))
    }
}
