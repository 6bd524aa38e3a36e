//! What a core orders of libvirt: starts, which take several stages (probe, wait for the image lock, create), and all
//! other operations on domains. Operations on one VM go one after the other. Each may be lost with its caller, or be carried out without it.
//!
//! Where a live migration goes from here is in [`super::migration`].

use super::World;
use super::disk::Path;
use super::hypervisor::{HYPERVISOR_TIMEOUT, Libvirt, QemuState};
use super::queue::{DomainOp, DomainOpKind, Happening, Start};
use crate::checkers::CoreStart;
use mainstay_core::register::StopCause;
use mainstay_core::{Input, OpId, VmId, VmOutcome};
use std::collections::VecDeque;
use std::sync::Arc;

/// The operations of one agent on one VM: one at a time, in the order in which they were ordered.
#[derive(Clone, Debug, Default)]
pub(super) struct Lane {
    busy: bool,
    waiting: VecDeque<u64>,
}

/// How far a start comes at a look.
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

impl World {
    /// A core wants a VM prepared.
    pub(super) fn start_prepare(&mut self, host: usize, start: Start) {
        let asked = CoreStart { vm: start.vm, host, token: start.token, resumed: false };
        let found = self.record.checks.on_core_start(self.now, asked, &self.setup);
        self.report(found);
        self.under_way.last_key += 1;
        let key = self.under_way.last_key;
        self.under_way.starts.insert(key, start);
        let at = self.now + self.dice.between(1_000, 20_000);
        self.queue.push(at, Happening::Prepare { host, key });
    }

    /// The next stage of a start: probe, wait, create.
    pub(super) fn on_prepare(&mut self, host: usize, key: u64) {
        let Some(mut start) = self.under_way.starts.remove(&key) else { return };
        let lives = self.hosts[host].powered && self.hosts[host].boot == start.boot;
        // A call that has reached libvirt goes on without its caller.
        let orphan = !self.hosts[host].runs(start.process);
        if !lives || (orphan && (!start.creating || self.dice.permille(500))) {
            return;
        }
        let wait = match self.stage_of(host, &mut start) {
            Stage::Ends(outcome) => {
                let at = self.vm_done(host, start.process, start.op, outcome);
                if start.creating {
                    self.leave_lane(host, start.process, start.vm, at);
                    self.look_afresh(host, start.process, start.vm, at);
                }
                return;
            }
            Stage::Hangs => {
                // The caller gives up; the request stays in the socket, and may be carried out when libvirtd goes on.
                let op = start.op;
                let outcome = VmOutcome::Unknown("libvirt does not answer".into());
                let input = Input::VmDone { op, outcome };
                let at = self.now + HYPERVISOR_TIMEOUT;
                self.queue.push(at, Happening::Deliver { host, process: start.process, input });
                if start.creating {
                    self.leave_lane(host, start.process, start.vm, at);
                }
                if start.creating && self.dice.permille(500) {
                    self.hosts[host].stuck.push(Happening::Prepare { host, key });
                    start.process = 0;
                    self.under_way.starts.insert(key, start);
                }
                return;
            }
            Stage::Waits(wait) => wait,
        };
        self.under_way.starts.insert(key, start);
        self.queue.push(self.now + wait, Happening::Prepare { host, key });
    }

    fn stage_of(&mut self, host: usize, start: &mut Start) -> Stage {
        let vm = start.vm;
        match self.hosts[host].libvirt {
            Libvirt::Up => {}
            Libvirt::Down => return Stage::failed("libvirtd is not running"),
            Libvirt::Hung => return Stage::Hangs,
        }
        if self.locked(vm) {
            // If it is there already, by its own QEMU.
            if std::mem::take(&mut start.creating) {
                self.leave_lane(host, start.process, vm, self.now);
            }
            if !start.said {
                start.said = true;
                self.record.seen.saw("start waited for an image lock");
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
            let lane = self.under_way.lanes.entry((start.process, vm)).or_default();
            if lane.busy {
                return Stage::Waits(self.dice.between(1_000, 20_000));
            }
            lane.busy = true;
            start.creating = true;
            let id = self.setup.vm_id(vm);
            if let Some(agent) = &mut self.hosts[host].agent {
                agent.shown.destroys_no_more(id);
            }
            return Stage::Waits(self.dice.latency(self.setup.latencies.start));
        }
        if self.hosts[host].domains.contains_key(&vm) {
            // It is active: nothing is left to do.
            return Stage::Ends(VmOutcome::Done);
        }
        if self.hosts[host].starts_to_fail > 0 {
            self.hosts[host].starts_to_fail -= 1;
            return Stage::failed("QEMU said: cannot set up guest memory");
        }
        if !self.peace.healed && self.dice.permille(self.setup.start_failure_permille) {
            return Stage::failed("QEMU said: network 'default' is not active");
        }
        self.hosts[host].definitions.entry(vm).or_insert(StopCause::Unknown);
        self.create(host, vm, QemuState::Prepared, Some(start.token));
        Stage::Ends(VmOutcome::Done)
    }

    /// Gives when the core will hear it.
    pub(super) fn vm_done(&mut self, host: usize, process: u64, op: OpId, outcome: VmOutcome) -> u64 {
        let at = self.now + self.dice.between(100, 20_000);
        self.queue.push(at, Happening::Deliver { host, process, input: Input::VmDone { op, outcome } });
        at
    }

    /// The agent looks at a VM when an operation has been answered, so that its core soon knows what became of it.
    pub(super) fn look_afresh(&mut self, host: usize, process: u64, vm: usize, at: u64) {
        self.queue.push(at + 100, Happening::LookAfresh { host, process, vm });
    }

    /// An operation is answered then: the next of the lane has its turn.
    fn leave_lane(&mut self, host: usize, process: u64, vm: usize, at: u64) {
        let Some(lane) = self.under_way.lanes.get_mut(&(process, vm)) else { return };
        match lane.waiting.pop_front() {
            Some(key) => {
                let at = at + self.dice.between(1_000, 20_000);
                self.queue.push(at, Happening::Domain { host, key });
            }
            None => lane.busy = false,
        }
    }

    /// That run of the agent orders a VM to be destroyed: a start that libvirt does not know of yet is called off.
    pub(super) fn is_destroyed(&mut self, host: usize, process: u64, id: VmId) {
        let Some(vm) = self.vm_index(id) else { return };
        self.call_off(host, process, vm);
        if let Some(agent) = &mut self.hosts[host].agent {
            agent.shown.destroys(id);
        }
    }

    /// A core wants something else of a domain.
    pub(super) fn start_domain_op(&mut self, host: usize, op: DomainOp) {
        self.under_way.last_key += 1;
        let key = self.under_way.last_key;
        let (kind, lane) = (op.kind, (op.process, op.vm));
        self.under_way.domain_ops.insert(key, op);
        if kind.waits_its_turn() {
            let lane = self.under_way.lanes.entry(lane).or_default();
            if std::mem::replace(&mut lane.busy, true) {
                lane.waiting.push_back(key);
                return;
            }
        }
        let at = self.now + self.dice.between(1_000, 20_000);
        self.queue.push(at, Happening::Domain { host, key });
    }

    /// It reaches libvirt.
    pub(super) fn on_domain_op(&mut self, host: usize, key: u64) {
        let Some(mut op) = self.under_way.domain_ops.remove(&key) else { return };
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
                if op.kind.waits_its_turn() {
                    self.leave_lane(host, op.process, op.vm, at);
                }
                if self.dice.permille(500) {
                    self.hosts[host].stuck.push(Happening::Domain { host, key });
                    op.process = 0;
                    self.under_way.domain_ops.insert(key, op);
                }
                return;
            }
        };
        let certainly_not = matches!(outcome, VmOutcome::Failed(_));
        let at = self.vm_done(host, op.process, op.op, outcome);
        if op.kind == DomainOpKind::Destroy && certainly_not {
            let id = self.setup.vm_id(op.vm);
            if let Some(agent) = &mut self.hosts[host].agent {
                agent.shown.destroys_no_more(id);
            }
        }
        if op.kind.waits_its_turn() {
            self.leave_lane(host, op.process, op.vm, at);
        }
        if op.kind.is_looked_after() {
            self.look_afresh(host, op.process, op.vm, at);
        }
    }

    fn carry_out_domain_op(&mut self, host: usize, op: &DomainOp) -> VmOutcome {
        let vm = op.vm;
        let qemu = self.hosts[host].domains.get(&vm).copied();
        if matches!(op.kind, DomainOpKind::Destroy | DomainOpKind::Shutdown) {
            self.watch_end(host, vm, qemu);
        }
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
            (DomainOpKind::Shutdown, None) if self.hosts[host].definitions.contains_key(&vm) => {
                VmOutcome::Done
            }
            (DomainOpKind::Shutdown, None) => VmOutcome::Failed("there is no such domain".into()),
            (DomainOpKind::Shutdown, Some(qemu)) => {
                self.vms[vm].shut_down_for_maintenance |= self.asked.shuts_down(host);
                if let Some(time) = self.setup.vms[vm].shutdown {
                    self.queue.push(self.now + time, Happening::GuestDown { host, vm, qemu: qemu.id });
                }
                VmOutcome::Done
            }
            (DomainOpKind::Destroy, _) => {
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
                    self.vms[vm].answered = true;
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
    fn call_off(&mut self, host: usize, process: u64, vm: usize) {
        let waiting = |start: &Start| start.process == process && start.vm == vm && !start.creating;
        let keys: Vec<u64> =
            self.under_way.starts.iter().filter(|(_, start)| waiting(start)).map(|(key, _)| *key).collect();
        for start in keys.iter().filter_map(|key| self.under_way.starts.remove(key)).collect::<Vec<_>>() {
            self.vm_done(host, start.process, start.op, VmOutcome::Failed("called off".into()));
        }
    }
}
