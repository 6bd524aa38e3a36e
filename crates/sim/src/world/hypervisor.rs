//! Libvirt and QEMU: what domains there are on a host, who executes, and who holds which image lock.
//!
//! The truth about execution is here and only here: a VM executes on a host from the instant its domain runs until its QEMU
//! ends or its host loses power, whatever anybody believes.

use super::disk::Path;
use super::queue::{DomainOp, DomainOpKind, Happening, Start};
use super::{Boot, World};
use mainstay_core::register::{StopCause, VmSpec};
use mainstay_core::{Capacity, Domain, DomainState, Input, Time, Token, VmId, VmOutcome, XmlId};
use std::sync::Arc;

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

const HYPERVISOR_TIMEOUT: u64 = 4_000_000;

impl World {
    /// Whether the host's agent lives and is connected to libvirt.
    pub(super) fn watches(&self, host: usize) -> bool {
        self.hosts[host].agent.as_ref().is_some_and(|agent| agent.connected)
    }

    /// A domain, as the adapter would show it now; `None` when libvirt knows none.
    fn domain(&self, host: usize, vm: usize) -> Option<Domain> {
        let state = match self.hosts[host].domains.get(&vm) {
            Some(qemu) => match qemu.state {
                // Paused in whatever way is still there: QEMU lives.
                QemuState::Running | QemuState::Leaving => DomainState::Running,
                QemuState::Prepared => DomainState::Prepared,
                QemuState::Incoming => DomainState::Incoming,
            },
            None => DomainState::Stopped(*self.hosts[host].definitions.get(&vm)?),
        };
        Some(self.domain_in(host, vm, state))
    }

    fn domain_in(&self, host: usize, vm: usize, state: DomainState) -> Domain {
        let setup = &self.setup.vms[vm];
        Domain {
            vm: self.setup.vm_id(vm),
            name: setup.name.clone(),
            state,
            home: Some(self.setup.datastores[setup.datastore].name.clone()),
            spec: Some(VmSpec {
                xml: XmlId(vm as u64 + 1000),
                memory_mib: setup.memory_mib,
                vcpus: 1,
                priority: setup.priority,
                guest_agent: setup.agent_after.is_some(),
                needs: self.vms[vm].needs.clone(),
                ..VmSpec::default()
            }),
            persistent: self.hosts[host].definitions.contains_key(&vm),
            io_error: self.hosts[host].domains.get(&vm).is_some_and(|qemu| qemu.io_error),
        }
    }

    pub(super) fn capacity(&self, host: usize) -> Capacity {
        let domains = &self.hosts[host].domains;
        let used: u64 = domains.keys().map(|vm| self.setup.vms[*vm].memory_mib).sum();
        let memory_mib = self.setup.hosts[host].memory_mib;
        Capacity {
            memory_mib,
            memory_free_mib: memory_mib.saturating_sub(used),
            cpus: 16,
            domains: domains.len() as u32,
        }
    }

    /// The adapter notices what libvirt does.
    pub(super) fn on_hypervisor_news(&mut self, host: usize) {
        let up = self.hosts[host].libvirt == Libvirt::Up;
        let Some(agent) = &mut self.hosts[host].agent else { return };
        if up && !agent.connected {
            agent.connected = true;
            self.ask(host, None, None);
        } else if !up && (agent.connected || !agent.told_lost) {
            agent.connected = false;
            agent.told_lost = true;
            self.feed(host, Input::HypervisorLost);
        }
    }

    /// The adapter asks libvirt about one domain, or all.
    fn ask(&mut self, host: usize, vm: Option<usize>, gone: Option<StopCause>) {
        let as_of = self.hosts[host].clock.local(self.now);
        let Some(agent) = &self.hosts[host].agent else { return };
        let process = agent.process;
        let at = self.now + self.dice.between(50, 5_000);
        self.queue.push(at, Happening::DomainLook { host, process, as_of, vm, gone });
    }

    /// Libvirt answers: what it knows now; the adapter will hear it a moment later.
    pub(super) fn on_domain_look(
        &mut self,
        host: usize,
        process: u64,
        as_of: Time,
        vm: Option<usize>,
        gone: Option<StopCause>,
    ) {
        if self.hosts[host].libvirt != Libvirt::Up {
            return;
        }
        let input = match vm {
            None => {
                let all = 0..self.setup.vms.len();
                Input::Domains { as_of, domains: all.filter_map(|vm| self.domain(host, vm)).collect() }
            }
            Some(vm) => {
                let stopped = || gone.map(|cause| self.domain_in(host, vm, DomainState::Stopped(cause)));
                let Some(domain) = self.domain(host, vm).or_else(stopped) else { return };
                Input::Domain { as_of, domain }
            }
        };
        let at = self.now + self.dice.between(50, 20_000);
        self.queue.push(at, Happening::Deliver { host, process, input });
    }

    /// Every ten seconds.
    pub(super) fn on_resync(&mut self, host: usize, process: u64) {
        if !self.hosts[host].runs(process) {
            return;
        }
        self.queue.push(self.now + 10_000_000, Happening::Resync { host, process });
        let capacity = self.capacity(host);
        self.feed(host, Input::Capacity(capacity));
        if let Some(offers) = self.offers[host].clone() {
            self.feed(host, Input::Offers(offers));
        }
        if self.watches(host) && self.hosts[host].libvirt == Libvirt::Up {
            self.ask(host, None, None);
        }
    }

    /// The adapter hears of a change and looks the domain up.
    pub(super) fn on_domain_news(&mut self, host: usize, vm: usize, gone: Option<StopCause>) {
        if self.hosts[host].libvirt != Libvirt::Up || !self.watches(host) {
            return;
        }
        self.ask(host, Some(vm), gone);
        let capacity = self.capacity(host);
        self.feed(host, Input::Capacity(capacity));
    }

    pub(super) fn domain_changed(&mut self, host: usize, vm: usize, gone: Option<StopCause>) {
        let at = self.now + self.dice.between(100, 20_000);
        self.queue.push(at, Happening::DomainNews { host, vm, gone });
    }

    /// A QEMU comes into being; `execute` at once or later.
    pub(super) fn create(&mut self, host: usize, vm: usize, state: QemuState, token: Option<Token>) -> u64 {
        self.next_key += 1;
        let id = self.next_key;
        self.hosts[host].domains.insert(vm, Qemu { id, state, token, frozen: false, io_error: false });
        if state.holds_image() {
            self.vms[vm].locks.push(Lock { qemu: id });
        }
        self.trace.facts(&[self.now, 2, host as u64, vm as u64, state as u64]);
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
        if self.now > 0 {
            self.boots.push(Boot { at: self.now, vm, host });
        }
    }

    pub(super) fn execute(&mut self, host: usize, vm: usize) {
        self.trace.facts(&[self.now, 3, host as u64, vm as u64]);
        self.say(host, |world| format!("* {} executes", world.setup.vms[vm].name));
        self.last_change[vm] = self.now;
        let found = self.checks.single_runner.on_execute(self.now, vm, host, &self.setup);
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
        // A stopped libvirtd sees later that it is gone, not why.
        let cause = if self.hosts[host].libvirt == Libvirt::Up { cause } else { StopCause::Unknown };
        if let Some(last) = self.hosts[host].definitions.get_mut(&vm) {
            *last = cause;
        }
        self.trace.facts(&[self.now, 4, host as u64, vm as u64, cause as u64]);
        self.say(host, |world| format!("* {} ended: {cause}", world.setup.vms[vm].name));
        self.domain_changed(host, vm, Some(cause));
    }

    pub(super) fn halted(&mut self, host: usize, vm: usize, qemu: Qemu) {
        if qemu.state == QemuState::Running && !qemu.frozen && !qemu.io_error {
            self.last_change[vm] = self.now;
            self.checks.single_runner.on_halt(vm, host);
        }
    }

    /// A core wants a VM prepared.
    pub(super) fn start_prepare(&mut self, host: usize, start: Start) {
        let found = self.checks.on_core_start(self.now, start.vm, host, start.token, false, &self.setup);
        self.report(found);
        self.next_key += 1;
        let key = self.next_key;
        self.starts.insert(key, start);
        let at = self.now + self.dice.between(1_000, 20_000);
        self.queue.push(at, Happening::Prepare { host, key });
    }

    /// The next stage of a start: probe, wait, create.
    pub(super) fn on_prepare(&mut self, host: usize, key: u64) {
        let Some(mut start) = self.starts.remove(&key) else { return };
        let lives = self.hosts[host].powered && self.hosts[host].boot == start.boot;
        // A call that has reached libvirt goes on without its caller.
        let orphan = !self.hosts[host].runs(start.process);
        if !lives || (orphan && (!start.creating || self.dice.permille(500))) {
            return;
        }
        let wait = match self.stage_of(host, &mut start) {
            Stage::Ends(outcome) => {
                self.vm_done(host, start.process, start.op, outcome);
                return;
            }
            Stage::Hangs => {
                // The caller gives up; the request stays in the socket, and may be carried out when libvirtd goes on.
                let op = start.op;
                let outcome = VmOutcome::Unknown("libvirt does not answer".into());
                let input = Input::VmDone { op, outcome };
                let at = self.now + HYPERVISOR_TIMEOUT;
                self.queue.push(at, Happening::Deliver { host, process: start.process, input });
                if start.creating && self.dice.permille(500) {
                    self.hosts[host].stuck.push(Happening::Prepare { host, key });
                    start.process = 0;
                    self.starts.insert(key, start);
                }
                return;
            }
            Stage::Waits(wait) => wait,
        };
        self.starts.insert(key, start);
        self.queue.push(self.now + wait, Happening::Prepare { host, key });
    }

    fn stage_of(&mut self, host: usize, start: &mut Start) -> Stage {
        let vm = start.vm;
        match self.hosts[host].libvirt {
            Libvirt::Up => {}
            Libvirt::Down => return Stage::failed("libvirtd is not running"),
            Libvirt::Hung => return Stage::Hangs,
        }
        if self.hosts[host].domains.contains_key(&vm) {
            return Stage::failed("the domain is already active");
        }
        if self.locked(vm) {
            start.creating = false;
            if !start.said {
                start.said = true;
                self.seen.saw("start waited for an image lock");
                let why = Arc::from("the image is locked by another client of the storage");
                let input = Input::VmWaits { op: start.op, why };
                self.queue.push(self.now, Happening::Deliver { host, process: start.process, input });
            }
            return Stage::Waits(self.dice.between(200_000, 500_000));
        }
        match self.stores[start.store].paths[host] {
            Path::Cut => return Stage::failed("the domain XML cannot be read: Input/output error"),
            Path::Hung => return Stage::Waits(100_000),
            Path::Well | Path::Slow(_) => {}
        }
        if !self.stores[start.store].xml.contains(&(self.setup.vm_id(vm), start.xml)) {
            return Stage::failed("there is no such domain XML on the datastore");
        }
        if !start.creating {
            start.creating = true;
            return Stage::Waits(self.dice.latency(self.setup.start_delay));
        }
        if self.hosts[host].starts_to_fail > 0 {
            self.hosts[host].starts_to_fail -= 1;
            return Stage::failed("QEMU said: cannot set up guest memory");
        }
        if !self.healed && self.dice.permille(self.setup.start_failure_permille) {
            return Stage::failed("QEMU said: network 'default' is not active");
        }
        self.hosts[host].definitions.entry(vm).or_insert(StopCause::Unknown);
        self.create(host, vm, QemuState::Prepared, Some(start.token));
        Stage::Ends(VmOutcome::Done)
    }

    pub(super) fn vm_done(&mut self, host: usize, process: u64, op: mainstay_core::OpId, outcome: VmOutcome) {
        let at = self.now + self.dice.between(100, 20_000);
        self.queue.push(at, Happening::Deliver { host, process, input: Input::VmDone { op, outcome } });
    }

    /// A core wants something else of a domain.
    pub(super) fn start_domain_op(&mut self, host: usize, op: DomainOp) {
        self.next_key += 1;
        let key = self.next_key;
        self.domain_ops.insert(key, op);
        let at = self.now + self.dice.between(1_000, 20_000);
        self.queue.push(at, Happening::Domain { host, key });
    }

    /// It reaches libvirt.
    pub(super) fn on_domain_op(&mut self, host: usize, key: u64) {
        let Some(mut op) = self.domain_ops.remove(&key) else { return };
        let lives = self.hosts[host].powered && self.hosts[host].boot == op.boot;
        if !lives || (!self.hosts[host].runs(op.process) && self.dice.permille(500)) {
            return;
        }
        let outcome = match self.hosts[host].libvirt {
            Libvirt::Up => match op.kind {
                DomainOpKind::Migrate(to) => return self.ordered_migration(host, &op, to),
                _ => self.carry_out_domain_op(host, &op),
            },
            Libvirt::Down if self.dice.permille(500) => VmOutcome::Failed("libvirtd is not running".into()),
            Libvirt::Down => VmOutcome::Unknown("the connection to libvirtd broke".into()),
            Libvirt::Hung => {
                let outcome = VmOutcome::Unknown("libvirt does not answer".into());
                let input = Input::VmDone { op: op.op, outcome };
                let at = self.now + HYPERVISOR_TIMEOUT;
                self.queue.push(at, Happening::Deliver { host, process: op.process, input });
                if self.dice.permille(500) {
                    self.hosts[host].stuck.push(Happening::Domain { host, key });
                    op.process = 0;
                    self.domain_ops.insert(key, op);
                }
                return;
            }
        };
        self.vm_done(host, op.process, op.op, outcome);
    }

    fn carry_out_domain_op(&mut self, host: usize, op: &DomainOp) -> VmOutcome {
        let vm = op.vm;
        let qemu = self.hosts[host].domains.get(&vm).copied();
        match (op.kind, qemu) {
            (DomainOpKind::Resume, Some(qemu)) => {
                if qemu.state == QemuState::Prepared {
                    self.resume(host, vm, qemu);
                }
                if qemu.io_error {
                    self.go_on(host, vm);
                }
                if qemu.frozen {
                    // Its monitor does not answer; the command waits there until somebody thaws it.
                    return VmOutcome::Unknown("QEMU does not answer".into());
                }
                VmOutcome::Done
            }
            (DomainOpKind::Resume, None) => VmOutcome::Failed("there is no such domain".into()),
            (DomainOpKind::Shutdown, None) => VmOutcome::Failed("there is no such domain".into()),
            (DomainOpKind::Shutdown, Some(qemu)) => {
                self.vms[vm].shut_down_for_maintenance |= self.asked.shuts_down(host);
                if let Some(time) = self.setup.vms[vm].shutdown {
                    self.queue.push(self.now + time, Happening::GuestDown { host, vm, qemu: qemu.id });
                }
                VmOutcome::Done
            }
            (DomainOpKind::Destroy, _) => {
                self.call_off(host, op);
                // That is what libvirt calls it, whoever asked.
                self.end_qemu(host, vm, StopCause::UserDestroyed);
                VmOutcome::Done
            }
            (DomainOpKind::AskGuest, qemu) => {
                let up = |after: u64| self.now >= self.vms[vm].booted + after;
                let answers = qemu.is_some_and(|qemu| qemu.state == QemuState::Running && !qemu.frozen)
                    && !self.vms[vm].agent_removed
                    && self.setup.vms[vm].agent_after.is_some_and(up);
                if answers {
                    VmOutcome::Done
                } else {
                    VmOutcome::Failed("its guest agent does not answer".into())
                }
            }
            // Begun, and answered when it has ended: not here.
            (DomainOpKind::Migrate(_), _) => VmOutcome::Failed("it is not there any more".into()),
            (DomainOpKind::Undefine, Some(_)) => VmOutcome::Failed("the domain is active".into()),
            (DomainOpKind::Undefine, None) => {
                self.hosts[host].definitions.remove(&vm);
                VmOutcome::Done
            }
        }
    }

    /// A start that still waits for the storage ends; one that has reached libvirt goes on.
    fn call_off(&mut self, host: usize, op: &DomainOp) {
        let waiting = |start: &Start| start.process == op.process && start.vm == op.vm && !start.creating;
        let keys: Vec<u64> =
            self.starts.iter().filter(|(_, start)| waiting(start)).map(|(key, _)| *key).collect();
        for start in keys.iter().filter_map(|key| self.starts.remove(key)).collect::<Vec<_>>() {
            self.vm_done(host, start.process, start.op, VmOutcome::Failed("called off".into()));
        }
    }

    fn resume(&mut self, host: usize, vm: usize, qemu: Qemu) {
        if let Some(token) = qemu.token {
            let found = self.checks.on_core_start(self.now, vm, host, token, true, &self.setup);
            self.report(found);
        }
        self.hosts[host].domains.insert(vm, Qemu { state: QemuState::Running, ..qemu });
        self.guest_boots(host, vm);
        if !qemu.frozen {
            self.execute(host, vm);
        }
        self.domain_changed(host, vm, None);
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
        self.seen.saw("paused by an I/O error");
        self.domain_changed(host, vm, None);
    }

    /// Somebody resumes it. While the storage still fails, it is paused again at its next request.
    fn go_on(&mut self, host: usize, vm: usize) {
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
            self.checks.user_word.on_intended_stop(self.now, vm, host, up, false);
            self.seen.saw("shut down for maintenance");
        }
        self.end_qemu(host, vm, StopCause::UserShutdown);
    }

    /// Libvirtd dies, hangs or works.
    pub(super) fn set_libvirt(&mut self, host: usize, libvirt: Libvirt) {
        let before = std::mem::replace(&mut self.hosts[host].libvirt, libvirt);
        if libvirt == Libvirt::Up && before == Libvirt::Down {
            // Reasons of inactive domains are not kept over a restart.
            for cause in self.hosts[host].definitions.values_mut() {
                *cause = StopCause::Unknown;
            }
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
            self.seen.saw("user started it elsewhere");
        }
        self.hosts[host].definitions.entry(vm).or_insert(StopCause::Unknown);
        self.checks.user_word.on_user_start(vm);
        self.create(host, vm, QemuState::Running, None);
    }

    /// The VM of that UUID.
    pub(super) fn vm_index(&self, id: VmId) -> Option<usize> {
        self.setup.vm_of(id)
    }
}

enum Stage {
    Ends(VmOutcome),
    Hangs,
    Waits(u64),
}

impl Stage {
    fn failed(why: &str) -> Stage {
        Stage::Ends(VmOutcome::Failed(why.into()))
    }
}
