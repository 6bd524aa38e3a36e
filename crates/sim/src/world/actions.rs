//! Carries out [`Action`]s.

use super::World;
use super::disk::Path;
use super::hypervisor::{Libvirt, QemuState};
use super::queue::Happening;
use crate::action::{Action, HostRegister};
use mainstay_core::register::{Desired, StopCause};
use mainstay_core::view::Role;
use mainstay_core::{Command, DatastoreName, HostId, RegisterId};

/// A register of that host.
fn register_of(host: &HostId, register: HostRegister) -> RegisterId {
    match register {
        HostRegister::Heartbeat => RegisterId::Heartbeat(host.clone()),
        HostRegister::PowerOn => RegisterId::PowerOn(host.clone()),
        HostRegister::Ownership => RegisterId::Ownership(host.clone()),
    }
}

impl World {
    /// Does it now. What makes no sense at this instant does nothing.
    pub(super) fn act(&mut self, action: &Action) {
        self.record.trace.facts(&[self.now, 5]);
        self.record.trace.line(self.now, "world", || format!("# {action:?}"));
        self.carry_out_action(action);
        self.look_at_contacts();
    }

    fn carry_out_action(&mut self, action: &Action) {
        match action {
            Action::PowerOff { host } => self.harm(host, World::power_off),
            Action::PowerOn { host } => self.harm(host, World::power_on),
            Action::HostPause { host } => self.harm(host, World::host_pause),
            Action::HostResume { host } => self.harm(host, World::host_resume),
            Action::ClockStep { .. } => {}
            Action::ClockDrift { host, ppm } => self.harm(host, |world, host| {
                world.hosts[host].clock.drift(world.now, *ppm);
            }),
            Action::AgentKill { host } => self.with_host(host, World::agent_kill),
            Action::GuardKill { host } => self.harm(host, World::guard_kill),
            Action::Upgrade { host } => {
                self.harm(host, |world, host| world.setup.hosts[host].newer = true);
            }
            Action::GuardHang { host } => self.harm(host, World::guard_hang),
            Action::GuardResume { host } => self.harm(host, World::guard_resume),
            Action::GuardDown { host } => self.harm(host, World::guard_down),
            Action::GuardUp { host } => self.harm(host, World::guard_up),
            Action::AgentStop { host } => self.with_host(host, World::agent_stop),
            Action::AgentStart { host, knows, serves } => self.with_host(host, |world, host| {
                world.new_file(host, knows, serves);
                let boot = world.hosts[host].boot;
                world.queue.push(world.now, Happening::AgentStart { host, boot });
            }),
            Action::AgentHang { host } => self.with_host(host, |world, host| {
                if let Some(agent) = &mut world.hosts[host].agent {
                    agent.hung = true;
                }
            }),
            Action::AgentResume { host } => self.with_host(host, World::agent_resume),
            Action::LibvirtKill { host } => {
                self.harm(host, |world, host| world.set_libvirt(host, Libvirt::Down));
            }
            Action::LibvirtHang { host } => {
                self.harm(host, |world, host| world.set_libvirt(host, Libvirt::Hung));
            }
            Action::LibvirtUp { host } => {
                self.harm(host, |world, host| world.set_libvirt(host, Libvirt::Up));
            }
            Action::StartFailures { host, count } => {
                self.with_host(host, |world, host| world.hosts[host].starts_to_fail = *count);
            }
            Action::NetworkCut { host } => self.harm(host, |world, host| world.net.cut_host(host, true)),
            Action::NetworkHeal { host } => {
                self.harm(host, |world, host| world.net.cut_host(host, false));
            }
            Action::GatewayDown => self.net.gateway_down = true,
            Action::GatewayUp => self.net.gateway_down = false,
            Action::LinkCut { from, to } => self.cut_link(from, to, true),
            Action::LinkHeal { from, to } => self.cut_link(from, to, false),
            Action::Loss { permille } => {
                self.record.checks.unharmed.on_fault(self.now, None);
                self.net.loss_permille = *permille;
            }
            Action::Duplicate { permille } => self.net.duplicate_permille = *permille,
            Action::NetworkLate { host, ms, spread_ms } => {
                let host = host.as_ref().and_then(|id| self.setup.host(id));
                self.record.checks.unharmed.on_fault(self.now, host);
                self.set_late(host, ms * 1_000, spread_ms * 1_000);
            }
            Action::DatastoreCut { datastore, host } => self.path(datastore, host.as_ref(), Path::Cut),
            Action::DatastoreHang { datastore, host } => self.path(datastore, host.as_ref(), Path::Hung),
            Action::DatastoreSlow { datastore, host, factor } => {
                self.path(datastore, host.as_ref(), Path::Slow((*factor).max(1)));
            }
            Action::DatastoreReadOnly { datastore, host } => {
                self.record
                    .checks
                    .unharmed
                    .on_fault(self.now, host.as_ref().and_then(|id| self.setup.host(id)));
                self.disturb(datastore, host.as_ref(), World::set_read_only);
            }
            Action::DatastoreTorn { datastore, host, count } => {
                self.disturb(datastore, host.as_ref(), |world, store, host| {
                    world.tear_writes(store, host, *count);
                });
            }
            Action::RegisterDestroy { datastore, host, register } => {
                let id = register_of(host, *register);
                self.disturb(datastore, Some(host), |world, store, _| world.stores[store].destroy(&id));
            }
            Action::RegisterForget { datastore, host, register } => {
                let id = register_of(host, *register);
                self.disturb(datastore, Some(host), |world, store, _| world.stores[store].forget(&id));
            }
            Action::ListDestroy { datastore } => {
                self.disturb(datastore, None, |world, store, _| world.stores[store].destroy_newest_list());
            }
            Action::ListForget { datastore } => {
                self.disturb(datastore, None, |world, store, _| world.stores[store].forget_lists());
            }
            Action::DatastoreSnapshot { datastore } => {
                if let Some(store) = self.setup.datastore(datastore) {
                    self.stores[store].take_snapshot();
                }
            }
            Action::DatastoreRestore { datastore } => {
                self.disturb(datastore, None, |world, store, _| world.stores[store].restore());
            }
            Action::DatastoreHeal { datastore, host } => self.path(datastore, host.as_ref(), Path::Well),
            Action::DatastoreFull { datastore } => self.full(datastore, true),
            Action::DatastoreFree { datastore } => self.full(datastore, false),
            // Nothing of it is visible outside the guest.
            Action::GuestReset { .. } => {}
            Action::GuestPowerOff { vm } => self.stop_vm(vm, StopCause::GuestShutdown),
            Action::QemuKill { vm } => self.stop_vm(vm, StopCause::Crashed),
            Action::UserShutdown { vm } => self.stop_vm(vm, StopCause::UserShutdown),
            Action::UserSave { vm } => self.stop_vm(vm, StopCause::Saved),
            Action::UserDestroy { vm } => self.stop_vm(vm, StopCause::UserDestroyed),
            Action::UserStart { vm, host } => {
                if let (Some(vm), Some(host)) = (self.setup.vm(vm), self.setup.host(host)) {
                    self.user_start(vm, host);
                }
            }
            Action::Autostart { vm, host } => {
                if let (Some(vm), Some(host)) = (self.setup.vm(vm), self.setup.host(host)) {
                    self.autostart(vm, host);
                }
            }
            Action::UserMigrate { vm, to, takes_ms, handover_ms, undefine_source } => {
                if let (Some(vm), Some(to)) = (self.setup.vm(vm), self.setup.host(to)) {
                    let times = (takes_ms.map(|ms| ms * 1_000), handover_ms.map(|ms| ms * 1_000));
                    self.user_migrate(vm, to, times, *undefine_source);
                }
            }
            Action::UserAbortMigration { vm } => {
                if let Some(vm) = self.setup.vm(vm) {
                    self.abort_migration(vm);
                }
            }
            Action::Protect { vm } => self.operator(vm, Command::Protect { vm: vm.clone() }),
            Action::Command { command } => self.command(command.clone()),
            Action::GuestAgentRemove { vm } => {
                if let Some(vm) = self.setup.vm(vm) {
                    self.vms[vm].agent_removed = true;
                }
            }
            Action::Unprotect { vm } => self.operator(vm, Command::Unprotect { vm: vm.clone() }),
        }
    }

    /// Something is done to a host that its VMs may suffer from.
    fn harm(&mut self, id: &HostId, then: impl FnOnce(&mut World, usize)) {
        if let Some(host) = self.setup.host(id) {
            self.record.checks.unharmed.on_fault(self.now, Some(host));
        }
        self.with_host(id, then);
    }

    /// Something is done to a host.
    fn with_host(&mut self, id: &HostId, then: impl FnOnce(&mut World, usize)) {
        if let Some(host) = self.setup.host(id) {
            self.record.checks.user_word.on_disturbance(self.now, Some(host));
            self.peace.disturbed[host] = self.now;
            then(self, host);
        }
    }

    fn cut_link(&mut self, from: &HostId, to: &HostId, cut: bool) {
        if let (Some(from), Some(to)) = (self.setup.host(from), self.setup.host(to)) {
            self.net.cut_link(from, to, cut);
            for host in [from, to] {
                self.record.checks.unharmed.on_fault(self.now, Some(host));
            }
        }
    }

    fn full(&mut self, name: &DatastoreName, full: bool) {
        if let Some(store) = self.setup.datastore(name) {
            self.stores[store].full = full;
        }
    }

    fn path(&mut self, name: &DatastoreName, host: Option<&HostId>, path: Path) {
        if let Some(host) = host.and_then(|id| self.setup.host(id)) {
            self.record.checks.unharmed.on_fault(self.now, Some(host));
        }
        self.disturb(name, host, |world, store, host| {
            world.set_path(store, host, path);
            if path == Path::Cut {
                world.expect_io_errors(store);
            }
        });
    }

    /// Does something to the path of that host, or of all, to a datastore.
    fn disturb(
        &mut self,
        name: &DatastoreName,
        host: Option<&HostId>,
        then: impl FnOnce(&mut World, usize, Option<usize>),
    ) {
        let Some(store) = self.setup.datastore(name) else { return };
        let host = host.map(|id| self.setup.host(id));
        if host == Some(None) {
            return;
        }
        let host = host.flatten();
        self.record.checks.user_word.on_disturbance(self.now, host);
        for index in 0..self.hosts.len() {
            if host.is_none_or(|host| host == index) {
                self.peace.disturbed[index] = self.now;
            }
        }
        then(self, store, host);
    }

    /// Some guests notice within seconds that their disk has gone.
    fn expect_io_errors(&mut self, store: usize) {
        for vm in
            (0..self.setup.vms.len()).filter(|vm| self.setup.vms[*vm].datastore == store).collect::<Vec<_>>()
        {
            for host in self.executing(vm).collect::<Vec<_>>() {
                let Some(id) = self.hosts[host].domains.get(&vm).map(|qemu| qemu.id) else { continue };
                if self.dice.permille(self.setup.io_errors_permille) {
                    let at = self.now + self.dice.between(1_000, 8_000_000);
                    self.queue.push(at, Happening::IoError { host, vm, qemu: id });
                }
            }
        }
    }

    /// Ends a VM where it executes.
    fn stop_vm(&mut self, name: &str, cause: StopCause) {
        let Some(vm) = self.setup.vm(name) else { return };
        let Some(host) = self.executing(vm).next() else { return };
        let up = self.hosts[host].libvirt == Libvirt::Up;
        let by_virsh = matches!(cause, StopCause::UserShutdown | StopCause::UserDestroyed | StopCause::Saved);
        if by_virsh && !up {
            return;
        }
        if cause.is_intended() {
            let well = self.is_well(host);
            self.record.checks.user_word.on_intended_stop(self.now, vm, host, up, well);
        } else {
            let protected = self.is_protected(vm, host);
            self.record.checks.user_word.on_unwanted_stop(vm, protected);
        }
        self.end_qemu(host, vm, cause);
    }

    /// Whether nothing has been wrong with a host for a while.
    fn is_well(&self, host: usize) -> bool {
        let a_while = 20 * self.setup.timing.heartbeat.0 + 3_000_000;
        let state = &self.hosts[host];
        state
            .agent
            .as_ref()
            .is_some_and(|agent| !agent.hung && agent.connected && self.now > agent.started + a_while)
            && state.libvirt == Libvirt::Up
            && !state.paused
            && self.stores.iter().all(|store| store.is_well(host))
            && self.now > self.peace.disturbed[host] + a_while
    }

    /// Whether the list on disk says that the VM is to run, on that host or about to be moved.
    pub(super) fn is_protected(&self, vm: usize, host: usize) -> bool {
        let Some(list) = self.record.checks.single_owner.list(self.setup.vms[vm].datastore) else {
            return false;
        };
        list.entries.iter().any(|entry| {
            entry.vm == self.setup.vm_id(vm)
                && entry.desired == Desired::On
                && !entry.unprotected
                && entry.holder.as_ref() == Some(&self.setup.hosts[host].id)
        })
    }

    fn agent_kill(&mut self, host: usize) {
        self.hosts[host].agent = None;
        self.agent_gone(host);
    }

    fn power_off(&mut self, host: usize) {
        if !self.hosts[host].powered {
            return;
        }
        self.hosts[host].was_primary = self.hosts[host].agent.as_ref().is_some_and(|agent| {
            let now = self.hosts[host].clock.local(self.now);
            agent.node.view(now).is_some_and(|view| view.role == Role::Primary)
        });
        self.hosts[host].powered = false;
        self.hosts[host].paused = false;
        self.hosts[host].deferred.clear();
        self.hosts[host].agent = None;
        self.hosts[host].guard = None;
        self.hosts[host].kept = self.hosts[host].kept.rebooted();
        self.hosts[host].stuck.clear();
        for (vm, qemu) in std::mem::take(&mut self.hosts[host].domains) {
            if matches!(qemu.state, QemuState::Running | QemuState::Leaving) {
                let protected = self.is_protected(vm, host);
                self.record.checks.user_word.on_unwanted_stop(vm, protected);
            }
            self.halted(host, vm, qemu);
            let release = self.setup.datastores[self.setup.vms[vm].datastore].lock_release;
            let at = self.now + release;
            self.queue.push(at, Happening::LockExpires { vm, qemu: qemu.id });
        }
    }

    fn power_on(&mut self, host: usize) {
        if self.hosts[host].powered {
            return;
        }
        let state = &mut self.hosts[host];
        state.powered = true;
        state.boot += 1;
        state.clock.started = self.now;
        state.clock.base = 1_000_000;
        state.libvirt = Libvirt::Up;
        state.ended_unseen.clear();
        for cause in state.definitions.values_mut() {
            *cause = StopCause::Unknown;
        }
        let boot = state.boot;
        let at = self.now + self.dice.latency(self.setup.latencies.boot);
        self.queue.push(at, Happening::AgentStart { host, boot });
    }
}
