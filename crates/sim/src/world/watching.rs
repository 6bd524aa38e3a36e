//! What the world shows its checkers beside what happens in it: who has contact, who is well, and second by second what is lacking.

use super::World;
use super::disk::Path;
use super::hypervisor::{Libvirt, Qemu, QemuState};
use super::queue::Happening;
use crate::checkers::never_silent::Lack;
use crate::checkers::user_word::{Protection, Wanted};
use crate::checkers::{Extra, Violation};
use mainstay_core::RegisterValue;
use mainstay_core::register::Desired;

const SECOND: u64 = 1_000_000;

/// An agent has to have lived so long before its silence counts, in microseconds.
const AWAKE: u64 = 60 * SECOND;

impl World {
    /// Those checkers watch this world too.
    pub fn watch(&mut self, extras: &[Extra]) {
        self.record.extras.extend(extras);
    }

    pub(super) fn report_extra(&mut self, extra: Extra, found: Option<Violation>) {
        if self.record.extras.contains(&extra) {
            self.report(found);
        }
    }

    /// A second is over.
    pub(super) fn on_second(&mut self) {
        self.queue.push(self.now + SECOND, Happening::Second);
        if !self.record.extras.contains(&Extra::NeverSilent) {
            return;
        }
        for host in 0..self.hosts.len() {
            if self.hosts[host].agent.is_none() {
                self.record.checks.never_silent.on_agent_gone(host);
            }
        }
        for vm in 0..self.setup.vms.len() {
            let lack = self.lack_of(vm);
            let found = self.record.checks.never_silent.on_second(vm, lack, &self.setup);
            self.report_extra(Extra::NeverSilent, found);
        }
    }

    /// What is the matter with a VM that somebody should say by now.
    fn lack_of(&self, vm: usize) -> Lack {
        let truth = self.record.checks.user_word.truth(vm);
        let list = self.record.checks.single_owner.list(self.setup.vms[vm].datastore);
        let entry = list.and_then(|list| list.entry(self.setup.vm_id(vm)));
        let listed = entry.is_some_and(|entry| entry.desired == Desired::On && !entry.unprotected);
        let awake = self.hosts.iter().any(|host| {
            let old = |started: u64| self.now > started + AWAKE;
            !host.paused && host.agent.as_ref().is_some_and(|agent| !agent.hung && old(agent.started))
        });
        let moves = |qemu: &Qemu| matches!(qemu.state, QemuState::Incoming | QemuState::Leaving);
        let moving = self.hosts.iter().any(|host| host.domains.get(&vm).is_some_and(moves));
        let grouped = list.is_some_and(|list| !list.settings.groups.is_empty());
        if !awake || !listed || moving || grouped || truth.protection != Protection::Yes {
            return Lack::None;
        }
        match self.executing(vm).next() {
            Some(_) if self.vms[vm].mute => Lack::Mute,
            None if truth.wanted == Wanted::On => Lack::Down { last: self.peace.last_host[vm] },
            Some(_) | None => Lack::None,
        }
    }

    /// An action was carried out: who has contact with anybody now?
    pub(super) fn look_at_contacts(&mut self) {
        for host in 0..self.hosts.len() {
            let others = (0..self.hosts.len()).filter(|other| *other != host && self.hosts[*other].powered);
            let mut met =
                others.filter(|other| self.net.passes(host, *other) && self.net.passes(*other, host));
            let contact = met.next().is_some() || (self.setup.gateway && self.net.reaches_gateway(host));
            self.record.checks.unharmed.on_contact(self.now, host, contact);
        }
    }

    /// Whether nothing is wrong with a host, and has not been for a while.
    fn is_unharmed(&self, host: usize) -> bool {
        let state = &self.hosts[host];
        let paths = self.stores.iter().all(|store| {
            matches!(store.paths[host], Path::Well | Path::Slow(_)) && !store.is_read_only(host)
        });
        paths
            && state.powered
            && !state.paused
            && state.libvirt == Libvirt::Up
            && self.guard_works(host)
            && self.net.is_well(host)
            && self.record.checks.unharmed.left_in_peace(self.now, host)
    }

    /// Whether a host is as well as it can be while a datastore behaves alike towards all, or is away in maintenance.
    fn is_unharmed_or_away(&self, host: usize, store: usize) -> bool {
        let state = &self.hosts[host];
        if !state.powered {
            return self.asked.in_maintenance(&self.setup.hosts[host].id)
                && self.record.checks.unharmed.left_in_peace(self.now, host);
        }
        let alike = (0..self.hosts.len()).filter(|other| self.hosts[*other].powered);
        let mut alike =
            alike.map(|other| (self.stores[store].paths[other], self.stores[store].is_read_only(other)));
        let first = alike.next();
        alike.all(|path| Some(path) == first)
            && !state.paused
            && self.guard_works(host)
            && self.net.is_well(host)
            && self.record.checks.unharmed.left_in_peace(self.now, host)
    }

    /// A copy of a VM begins to execute, or goes on. Beside another it shares that one's run: that there are two is another checker's matter.
    pub(super) fn watch_run(&mut self, host: usize, vm: usize) {
        let beside = self.executing(vm).next().map(|_| self.record.checks.time_travel.latest(vm));
        let Some(qemu) = self.hosts[host].domains.get_mut(&vm) else { return };
        let known = qemu.run.or(beside);
        let (run, found) = self.record.checks.time_travel.on_execute(vm, host, known, &self.setup);
        qemu.run = Some(run);
        self.report_extra(Extra::TimeTravel, found);
    }

    /// A VM that executed is frozen.
    pub(super) fn watch_freeze(&mut self, host: usize, vm: usize) {
        let store = self.setup.vms[vm].datastore;
        if (0..self.hosts.len()).all(|host| self.is_unharmed_or_away(host, store)) {
            let found = self.record.checks.unharmed.on_freeze(vm, host, &self.setup);
            self.report_extra(Extra::Unharmed, Some(found));
        }
    }

    /// A core has a VM ended.
    pub(super) fn watch_end(&mut self, host: usize, vm: usize, qemu: Option<Qemu>) {
        let executes =
            qemu.is_some_and(|qemu| qemu.state == QemuState::Running && !qemu.frozen && !qemu.io_error);
        if executes && self.is_unharmed(host) {
            let list = self.record.checks.single_owner.list(self.setup.vms[vm].datastore);
            let found = self.record.checks.unharmed.on_end(vm, host, list, &self.setup);
            self.report_extra(Extra::Unharmed, found);
        }
    }

    /// A register write is about to land as the newest.
    pub(super) fn watch_grants(&mut self, store: usize, value: &RegisterValue) {
        let RegisterValue::ProtectedList(list) = value else { return };
        let Some(before) = self.record.checks.single_owner.list(store) else { return };
        let mut found = None;
        for entry in &list.entries {
            let (Some(vm), Some(was)) = (self.vm_index(entry.vm), before.entry(entry.vm)) else { continue };
            let (Some(from), Some(to)) = (&was.holder, &entry.holder) else { continue };
            let ordered = was.order.is_some() || entry.order.is_some() || was.unprotected;
            let Some(host) = self.setup.host(from).filter(|_| from != to && !ordered) else { continue };
            let runs_there = self.executing(vm).eq([host]);
            let since = self.peace.last_change[vm];
            if runs_there && self.is_unharmed(host) && self.record.checks.unharmed.is_long(self.now, since) {
                found = Some(self.record.checks.unharmed.on_grant(vm, host, to.as_str(), &self.setup));
            }
        }
        self.report_extra(Extra::Unharmed, found);
    }
}
