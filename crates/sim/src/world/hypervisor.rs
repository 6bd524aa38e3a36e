//! Libvirt and QEMU: what domains there are on a host, who executes, and who holds which image lock.
//!
//! What cores order of libvirt is in [`super::libvirt_calls`], what agents hear of it in [`super::libvirt_news`].
//!
//! The truth about execution is here and only here: a VM executes on a host from the instant its domain runs until its QEMU
//! ends or its host loses power, whatever anybody believes.

use super::disk::Path;
use super::queue::Happening;
use super::{Boot, World};
use crate::checkers::CoreStart;
use mainstay_core::register::StopCause;
use mainstay_core::{Token, VmId};

/// A host's libvirtd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Libvirt {
    Up,
    Down,
    Hung,
}

/// A QEMU process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Qemu {
    pub id: u64,
    pub state: QemuState,
    /// The grant under which a core created it.
    pub token: Option<Token>,
    /// None of its threads executes.
    pub frozen: bool,
    /// It has paused its guest because the storage failed.
    pub io_error: bool,
    /// It was told to go on while it was frozen: its start is looked at when it executes.
    pub unchecked: bool,
    /// Which run of the VM it executes, counted from the first; `None`: it has not begun to.
    pub run: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QemuState {
    Running,
    Prepared,
    /// The target of a live migration, before the source's last word.
    Incoming,
    /// The source of a live migration that has sent its last word and stands still.
    Leaving,
}

impl QemuState {
    /// Whether such a QEMU holds the image: the two ends of a live migration hand it over.
    pub(super) fn holds_image(self) -> bool {
        match self {
            QemuState::Running | QemuState::Prepared => true,
            QemuState::Incoming | QemuState::Leaving => false,
        }
    }
}

/// The image lock of a VM, held by a QEMU process or, after a crash, by what the storage remembers of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lock {
    pub qemu: u64,
}

/// How long a caller waits for a libvirtd that hangs.
pub(super) const HYPERVISOR_TIMEOUT: u64 = 4_000_000;

/// A second copy that libvirtd starts by itself may execute for so long beside an agent and a guard, in microseconds.
const STRAY_ENDS: u64 = 15_000_000;

impl World {
    /// A QEMU comes into being; `execute` at once or later.
    pub(super) fn create(&mut self, host: usize, vm: usize, state: QemuState, token: Option<Token>) -> u64 {
        self.under_way.last_key += 1;
        let id = self.under_way.last_key;
        self.hosts[host].domains.insert(
            vm,
            Qemu { id, state, token, frozen: false, io_error: false, unchecked: false, run: None },
        );
        if state.holds_image() {
            self.vms[vm].locks.push(Lock { qemu: id });
        }
        self.record.trace.facts(&[self.now, 2, host as u64, vm as u64, state as u64]);
        self.say(host, |world| format!("  QEMU of {} is there, {state:?}", world.setup.vms[vm].name));
        if state == QemuState::Running {
            self.guest_boots(host, vm);
            self.execute(host, vm);
        }
        self.domain_changed(host, vm, None);
        id
    }

    fn guest_boots(&mut self, host: usize, vm: usize) {
        self.vms[vm].booted = self.now;
        self.vms[vm].shut_down_for_maintenance = false;
        self.vms[vm].mute = false;
        if self.now > 0 {
            self.record.boots.push(Boot { at: self.now, vm, host });
        }
    }

    pub(super) fn execute(&mut self, host: usize, vm: usize) {
        self.record.trace.facts(&[self.now, 3, host as u64, vm as u64]);
        self.say(host, |world| format!("* {} executes", world.setup.vms[vm].name));
        self.peace.last_change[vm] = self.now;
        self.peace.last_host[vm] = host;
        self.watch_run(host, vm);
        let found = self.record.checks.single_runner.on_execute(self.now, vm, host, &self.setup);
        self.report(found);
    }

    /// Whether somebody else holds the image.
    pub(super) fn locked(&self, vm: usize) -> bool {
        self.setup.image_lock && !self.vms[vm].locks.is_empty()
    }

    /// A QEMU process ends, for that reason as libvirt would tell it.
    pub(super) fn end_qemu(&mut self, host: usize, vm: usize, cause: StopCause) {
        let Some(qemu) = self.hosts[host].domains.remove(&vm) else { return };
        self.vms[vm].locks.retain(|lock| lock.qemu != qemu.id);
        self.halted(host, vm, qemu);
        // A libvirtd that does not run sees later that it is gone, and from what is left of it, why.
        if self.hosts[host].libvirt == Libvirt::Down {
            self.hosts[host].ended_unseen.insert(vm);
        }
        if let Some(last) = self.hosts[host].definitions.get_mut(&vm) {
            *last = cause;
        }
        self.record.trace.facts(&[self.now, 4, host as u64, vm as u64, cause as u64]);
        self.say(host, |world| format!("* {} ended: {cause}", world.setup.vms[vm].name));
        self.domain_changed(host, vm, Some(cause));
        // While libvirt is silent, a QEMU that is not killed stays there as a process until libvirt ends it.
        if cause == StopCause::Crashed || self.hosts[host].libvirt == Libvirt::Up {
            self.guard_may_note_end(host, vm);
        }
    }

    pub(super) fn halted(&mut self, host: usize, vm: usize, qemu: Qemu) {
        if qemu.state == QemuState::Running && !qemu.frozen && !qemu.io_error {
            self.peace.last_change[vm] = self.now;
            self.record.checks.single_runner.on_halt(vm, host);
        }
    }

    pub(super) fn resume(&mut self, host: usize, vm: usize, qemu: Qemu) {
        // A frozen one executes when it is thawed: what holds then is looked at then.
        if !qemu.frozen {
            self.check_core_start(host, vm, qemu);
        }
        self.hosts[host]
            .domains
            .insert(vm, Qemu { state: QemuState::Running, unchecked: qemu.frozen, ..qemu });
        self.guest_boots(host, vm);
        self.vms[vm].mute = self.vms[vm].answered && self.vms[vm].agent_removed;
        if !qemu.frozen {
            self.execute(host, vm);
        }
        self.domain_changed(host, vm, None);
    }

    /// A VM that a core has started under a grant begins to execute.
    pub(super) fn check_core_start(&mut self, host: usize, vm: usize, qemu: Qemu) {
        if let Some(token) = qemu.token {
            let start = CoreStart { vm, host, token, resumed: true };
            let found = self.record.checks.on_core_start(self.now, start, &self.setup);
            self.report(found);
        }
    }

    /// The storage of a VM fails for longer than QEMU cares to wait: it pauses the guest.
    pub(super) fn on_io_error(&mut self, host: usize, vm: usize, id: u64) {
        let cut = self.stores[self.setup.vms[vm].datastore].paths[host] == Path::Cut;
        let Some(qemu) = self.hosts[host].domains.get(&vm).copied().filter(|qemu| qemu.id == id) else {
            return;
        };
        if !cut || qemu.io_error || qemu.frozen || qemu.state != QemuState::Running {
            return;
        }
        self.halted(host, vm, qemu);
        self.hosts[host].domains.insert(vm, Qemu { io_error: true, ..qemu });
        self.say(host, |world| format!("* {} is paused by an I/O error", world.setup.vms[vm].name));
        self.record.seen.saw("paused by an I/O error");
        self.domain_changed(host, vm, None);
    }

    /// Somebody resumes it. While the storage still fails, it is paused again at its next request.
    pub(super) fn go_on(&mut self, host: usize, vm: usize) {
        let Some(qemu) = self.hosts[host].domains.get_mut(&vm) else { return };
        qemu.io_error = false;
        let qemu = *qemu;
        if !qemu.frozen {
            self.execute(host, vm);
        }
        self.domain_changed(host, vm, None);
        self.queue.push(self.now + 100_000, Happening::IoError { host, vm, qemu: qemu.id });
    }

    /// A guest has shut down, as it was asked to. A frozen one goes on with that later.
    pub(super) fn on_guest_down(&mut self, host: usize, vm: usize, id: u64) {
        let Some(qemu) = self.hosts[host].domains.get(&vm).filter(|qemu| qemu.id == id) else { return };
        if qemu.frozen || qemu.state != QemuState::Running {
            self.queue.push(self.now + 500_000, Happening::GuestDown { host, vm, qemu: id });
            return;
        }
        if self.vms[vm].shut_down_for_maintenance {
            // A person wanted it off. (Or its host was isolated as well: then it comes back. What is on disk tells which.)
            let up = self.hosts[host].libvirt == Libvirt::Up;
            self.record.checks.user_word.on_intended_stop(self.now, vm, host, up, false);
            self.record.seen.saw("shut down for maintenance");
        }
        self.end_qemu(host, vm, StopCause::UserShutdown);
    }

    /// Libvirtd dies, hangs or works.
    pub(super) fn set_libvirt(&mut self, host: usize, libvirt: Libvirt) {
        let before = std::mem::replace(&mut self.hosts[host].libvirt, libvirt);
        if libvirt == Libvirt::Up && before == Libvirt::Down {
            // Reasons of domains that were inactive before are not kept over a restart.
            let ended = std::mem::take(&mut self.hosts[host].ended_unseen);
            let known = self.hosts[host].definitions.iter_mut().filter(|(vm, _)| !ended.contains(vm));
            known.for_each(|(_, cause)| *cause = StopCause::Unknown);
        }
        if libvirt == Libvirt::Up {
            for what in std::mem::take(&mut self.hosts[host].stuck) {
                let at = self.now + self.dice.between(1, 50_000);
                self.queue.push(at, what);
            }
        } else if libvirt == Libvirt::Down {
            self.hosts[host].stuck.clear();
        }
        let wait = match libvirt {
            Libvirt::Up => self.dice.between(100_000, 2_000_000),
            Libvirt::Down => self.dice.between(1_000, 100_000),
            Libvirt::Hung => HYPERVISOR_TIMEOUT,
        };
        self.queue.push(self.now + wait, Happening::HypervisorNews { host });
    }

    /// The storage forgets a lock of a host that crashed.
    pub(super) fn on_lock_expires(&mut self, vm: usize, qemu: u64) {
        // Unless that process lives and its host has its path back.
        let store = self.setup.vms[vm].datastore;
        let holds = |host: &usize| {
            let domain = self.hosts[*host].domains.get(&vm);
            domain.is_some_and(|domain| domain.id == qemu) && !self.stores[store].is_lost_to(*host)
        };
        if (0..self.hosts.len()).any(|host| holds(&host)) {
            return;
        }
        self.vms[vm].locks.retain(|lock| lock.qemu != qemu);
    }

    /// A user starts a VM. Only the image lock protects him from a second copy.
    pub(super) fn user_start(&mut self, vm: usize, host: usize) {
        let up = self.hosts[host].powered && self.hosts[host].libvirt == Libvirt::Up;
        // Where the storage has dropped the lock of a host that it does not reach, libvirt's hook is what refuses.
        let there = self.hosts.iter().any(|host| host.domains.contains_key(&vm));
        if !up || !self.setup.image_lock || self.locked(vm) || there {
            return;
        }
        let elsewhere = !self.hosts[host].definitions.contains_key(&vm);
        if elsewhere {
            self.record.seen.saw("user started it elsewhere");
        }
        self.hosts[host].definitions.entry(vm).or_insert(StopCause::Unknown);
        self.record.checks.user_word.on_user_start(vm);
        self.create(host, vm, QemuState::Running, None);
    }

    /// Libvirtd starts a definition that it finds. Only the image lock can keep it from a second copy.
    pub(super) fn autostart(&mut self, vm: usize, host: usize) {
        let state = &self.hosts[host];
        let up = state.powered && state.libvirt == Libvirt::Up;
        let found = state.definitions.contains_key(&vm) && !state.domains.contains_key(&vm);
        if !up || !found || self.locked(vm) {
            return;
        }
        self.record.seen.saw("autostarted");
        if self.executing(vm).next().is_none() {
            // Whoever set it to start with its host wants it to run.
            self.record.checks.user_word.on_user_start(vm);
        } else {
            self.record.checks.single_runner.on_stray(vm, host);
            let looked = self.now + STRAY_ENDS;
            self.queue.push(looked, Happening::StrayLook { vm, host });
        }
        self.create(host, vm, QemuState::Running, None);
    }

    /// A second copy that libvirtd has started: an agent and a guard that have had their time let it execute no more.
    pub(super) fn on_stray_look(&mut self, vm: usize, host: usize) {
        let watched = self.hosts[host]
            .agent
            .as_ref()
            .is_some_and(|agent| !agent.hung && agent.connected && self.now >= agent.started + STRAY_ENDS);
        if !watched || !self.guard_works(host) {
            self.queue.push(self.now + STRAY_ENDS, Happening::StrayLook { vm, host });
            return;
        }
        let found = self.record.checks.single_runner.on_stray_over(vm, host, &self.setup);
        self.report(found);
    }

    /// The VM of that UUID.
    pub(super) fn vm_index(&self, id: VmId) -> Option<usize> {
        self.setup.vm_of(id)
    }
}
