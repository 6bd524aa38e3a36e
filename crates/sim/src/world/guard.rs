//! The guards: each host's own, a process beside the agent that lives and dies on its own. What it freezes does not execute.

use super::World;
use super::hypervisor::QemuState;
use super::queue::Happening;
use mainstay_core::{
    BootId, DatastoreName, DiskAction, DiskOutcome, GuardOrder, GuardReport, Incarnation, Input,
    ProcessState, RegisterId, RegisterValue, Time, VmId,
};
use mainstay_guard_core::{Guard, GuardConfig, GuardEffect, GuardInput};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The longest that a freeze takes: the bound that the protocol counts on.
const FREEZE_MAX: u64 = 240_000;

/// How often a guard goes through all processes by itself.
const LOOK_AFRESH: u64 = 5_000_000;

/// How soon something that a stopped guard was about to do is looked at again.
const HUNG_LOOK: u64 = 10_000;

/// How soon a guard that could not be started is there.
const GUARD_STARTS: u64 = 10_000;

/// A run of a guard.
pub(crate) struct GuardRun {
    pub process: u64,
    guard: Guard,
    /// The run of the agent that is connected.
    agent: Option<u64>,
    tick_at: u64,
    generation: u64,
    /// Messages to and from the agent keep their order: none arrives before that.
    to_agent: u64,
    to_guard: u64,
    /// SIGSTOP: what comes for it waits.
    hung: bool,
    backlog: VecDeque<GuardInput>,
    /// Operations on a VM's process keep their order: none is done before that.
    busy: BTreeMap<VmId, u64>,
    /// VMs whose processes it knows.
    known: BTreeSet<VmId>,
    /// VMs whose processes it has seen end.
    ended: BTreeSet<VmId>,
}

/// What a host keeps of its guard over the guard's death, until it reboots.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept {
    /// It can't be started. That a reboot does not mend.
    pub broken: bool,
    leases: BTreeMap<DatastoreName, Time>,
    holds: BTreeMap<DatastoreName, Time>,
    watch: BTreeMap<DatastoreName, Vec<VmId>>,
}

/// Something that a guard does to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    Inspect,
    /// The guard looks by itself, and a process has ended before.
    NoteEnd,
    Freeze,
    Thaw,
    Kill,
}

impl Kept {
    /// What of it is there after a reboot.
    pub fn rebooted(&self) -> Kept {
        Kept { broken: self.broken, ..Kept::default() }
    }
}

impl World {
    /// The host's boot, as its processes see it.
    pub(super) fn boot_id(&self, host: usize) -> BootId {
        let mut boot_id = [0; 16];
        boot_id[0] = host as u8 + 1;
        boot_id[8..].copy_from_slice(&self.hosts[host].boot.to_be_bytes());
        BootId(boot_id)
    }

    /// A guard starts, unless one runs.
    pub(super) fn guard_start(&mut self, host: usize, boot: u64) {
        let state = &self.hosts[host];
        if !state.powered || state.boot != boot || state.guard.is_some() || state.kept.broken {
            return;
        }
        self.under_way.last_key += 1;
        let process = self.under_way.last_key;
        let kept = self.hosts[host].kept.clone();
        let config = GuardConfig {
            me: self.setup.hosts[host].id.clone(),
            datastores: self.setup.served_by(host),
            timing: self.setup.timing_of(host),
            boot: self.boot_id(host),
            incarnation: Incarnation(self.dice.below(u64::MAX)),
            leases: kept.leases,
            holds: kept.holds,
        };
        let now = self.hosts[host].clock.local(self.now);
        self.hosts[host].guard = Some(GuardRun {
            process,
            guard: (self.nodes.guard)(config, now),
            agent: None,
            tick_at: 0,
            generation: 0,
            to_agent: 0,
            to_guard: 0,
            hung: false,
            backlog: VecDeque::new(),
            busy: BTreeMap::new(),
            known: BTreeSet::new(),
            ended: BTreeSet::new(),
        });
        self.record.trace.facts(&[self.now, 9, host as u64]);
        self.say(host, |_| String::from("# guard starts"));
        for (datastore, vms) in kept.watch {
            self.guard_feed(host, GuardInput::Order(GuardOrder::Watch { datastore, vms }));
        }
        self.guard_feed(host, GuardInput::Tick);
        self.guard_meet(host);
    }

    /// The agent connects to the guard, when both are there.
    pub(super) fn guard_meet(&mut self, host: usize) {
        let Some(agent) = &self.hosts[host].agent else { return };
        let process = agent.process;
        match &mut self.hosts[host].guard {
            Some(run) if run.agent != Some(process) => {
                run.agent = Some(process);
                run.to_agent = self.now;
                run.to_guard = self.now;
                self.guard_feed(host, GuardInput::AgentBack);
            }
            Some(_) => {}
            None => {
                let wait = self.dice.between(5_000, 60_000);
                let boot = self.hosts[host].boot;
                self.queue.push(self.now + wait, Happening::GuardStart { host, boot });
            }
        }
    }

    /// Whether the guard is to keep an eye on that VM, and the lease that it runs under has ended.
    pub(super) fn lease_has_ended(&self, host: usize, vm: usize) -> bool {
        let state = &self.hosts[host];
        let store = &self.setup.datastores[self.setup.vms[vm].datastore].name;
        let id = self.setup.vm_id(vm);
        let watched = state.kept.watch.get(store).is_some_and(|vms| vms.contains(&id));
        let until = match &state.guard {
            Some(run) => run.guard.lease(store),
            None => state.kept.leases.get(store).copied(),
        };
        let until = until.map(|until| until.max(self.held_until(host, store)));
        watched && until.is_some_and(|until| until <= state.clock.local(self.now))
    }

    /// Until when that host's guard was told not to freeze VMs of a datastore, as far as a heartbeat on disk tells of it.
    fn held_until(&self, host: usize, store: &DatastoreName) -> Time {
        self.hosts[host].kept.holds.get(store).copied().unwrap_or_default()
    }

    /// SIGKILL to the guard. The agent notices and starts another; without an agent, the system's service manager does.
    pub(super) fn guard_kill(&mut self, host: usize) {
        if self.hosts[host].guard.take().is_none() {
            return;
        }
        self.record.seen.saw("guard killed");
        let boot = self.hosts[host].boot;
        let wait = self.dice.between(5_000, 100_000);
        self.queue.push(self.now + wait, Happening::GuardStart { host, boot });
        if let Some(agent) = &self.hosts[host].agent {
            let process = agent.process;
            let at = self.now + self.dice.between(10, 2_000);
            self.queue.push(at, Happening::Deliver { host, process, input: Input::GuardLost });
        }
    }

    /// The guard ends, and every start of another fails until [`World::guard_up`].
    pub(super) fn guard_down(&mut self, host: usize) {
        self.hosts[host].kept.broken = true;
        self.guard_kill(host);
        self.record.seen.saw("guard down");
    }

    /// It can be started again, and is.
    pub(super) fn guard_up(&mut self, host: usize) {
        if std::mem::take(&mut self.hosts[host].kept.broken) {
            let boot = self.hosts[host].boot;
            self.queue.push(self.now + GUARD_STARTS, Happening::GuardStart { host, boot });
        }
    }

    /// That run of the agent ends a guard that does not answer. Another one is started.
    pub(super) fn guard_replace(&mut self, host: usize, agent: u64) {
        if self.hosts[host].guard.as_ref().is_some_and(|run| run.agent == Some(agent)) {
            self.guard_kill(host);
        }
    }

    /// SIGSTOP to the guard: it neither renews nor freezes. Its socket stands, so nobody is told.
    pub(super) fn guard_hang(&mut self, host: usize) {
        if let Some(run) = &mut self.hosts[host].guard {
            run.hung = true;
            self.record.seen.saw("guard hung");
        }
    }

    /// Whether it has a guard that does not hang.
    pub(super) fn guard_works(&self, host: usize) -> bool {
        self.hosts[host].guard.as_ref().is_some_and(|run| !run.hung)
    }

    /// SIGCONT to the guard. The time comes first: what has run out meanwhile is frozen.
    pub(super) fn guard_resume(&mut self, host: usize) {
        let Some(run) = &mut self.hosts[host].guard else { return };
        if !std::mem::replace(&mut run.hung, false) {
            return;
        }
        let backlog = std::mem::take(&mut run.backlog);
        self.guard_feed(host, GuardInput::Tick);
        for input in backlog {
            self.guard_feed(host, input);
        }
    }

    /// The agent has died.
    pub(super) fn agent_gone(&mut self, host: usize) {
        if let Some(run) = &mut self.hosts[host].guard
            && run.agent.take().is_some()
        {
            self.guard_feed(host, GuardInput::AgentGone);
        }
    }

    /// The core in that run of the agent orders something.
    pub(super) fn guard_order(&mut self, host: usize, agent: u64, order: GuardOrder) {
        let delay = self.dice.between(10, 1_000);
        let Some(run) = &mut self.hosts[host].guard else { return };
        if run.agent != Some(agent) {
            return;
        }
        run.to_guard = run.to_guard.max(self.now + delay);
        let (at, process) = (run.to_guard, run.process);
        self.queue.push(at, Happening::ToGuard { host, process, input: GuardInput::Order(order) });
    }

    /// Something for that run of the guard.
    pub(super) fn on_to_guard(&mut self, host: usize, process: u64, input: GuardInput) {
        if self.hosts[host].guard.as_ref().is_some_and(|run| run.process == process) {
            if let GuardInput::Order(GuardOrder::Watch { datastore, vms }) = &input {
                self.hosts[host].kept.watch.insert(datastore.clone(), vms.clone());
            }
            if let GuardInput::Order(GuardOrder::WatchAlso { datastore, vms }) = &input {
                let watched = self.hosts[host].kept.watch.entry(datastore.clone()).or_default();
                watched.extend(vms.iter().filter(|vm| !watched.contains(vm)).copied().collect::<Vec<_>>());
            }
            self.guard_feed(host, input);
        }
    }

    /// Whether a disk operation of that process is the guard's; if so its end goes there.
    pub(super) fn guard_disk_done(&mut self, host: usize, process: u64, input: &Input) -> bool {
        let Input::DiskDone { op, outcome } = input else { return false };
        if self.hosts[host].guard.as_ref().is_none_or(|run| run.process != process) {
            return false;
        }
        let error = match outcome {
            DiskOutcome::Failed(reason) => Some(reason.clone()),
            DiskOutcome::Written | DiskOutcome::Read(_) => None,
        };
        self.guard_feed(host, GuardInput::Written { op: *op, error });
        true
    }

    pub(super) fn on_guard_tick(&mut self, host: usize, process: u64, generation: u64) {
        let fresh = |run: &GuardRun| run.process == process && run.generation == generation;
        if self.hosts[host].guard.as_ref().is_some_and(fresh) {
            self.guard_feed(host, GuardInput::Tick);
        }
    }

    fn guard_feed(&mut self, host: usize, input: GuardInput) {
        let now = self.hosts[host].clock.local(self.now);
        let Some(run) = &mut self.hosts[host].guard else { return };
        if run.hung {
            run.backlog.push_back(input);
            return;
        }
        let process = run.process;
        let mut effects = Vec::new();
        let quiet = input == GuardInput::Tick;
        if !quiet {
            self.record
                .trace
                .line(self.now, self.setup.hosts[host].id.as_str(), || format!("<= guard {input:?}"));
        }
        run.guard.step(now, input, &mut effects);
        for effect in effects {
            self.guard_effect(host, process, effect);
        }
        self.schedule_guard_tick(host);
    }

    fn schedule_guard_tick(&mut self, host: usize) {
        let clock = self.hosts[host].clock;
        let Some(run) = &mut self.hosts[host].guard else { return };
        let wanted = clock.when(run.guard.next_deadline()).max(self.now + 10);
        if run.tick_at == wanted && wanted > self.now {
            return;
        }
        run.tick_at = wanted;
        run.generation += 1;
        let (process, generation) = (run.process, run.generation);
        // At real-time priority, timers are nearly on time.
        let at = wanted + self.dice.below(500);
        self.queue.push(at, Happening::GuardTick { host, process, generation });
    }

    fn guard_effect(&mut self, host: usize, process: u64, effect: GuardEffect) {
        let deed = match effect {
            GuardEffect::Write { op, datastore, register } => {
                if let Some(store) = self.setup.datastore(&datastore) {
                    let id = RegisterId::Heartbeat(self.setup.hosts[host].id.clone());
                    let action = DiskAction::Write(id, RegisterValue::Heartbeat(register));
                    self.start_disk(host, process, op, store, action);
                }
                return;
            }
            GuardEffect::Keep { datastore, until } => {
                self.hosts[host].kept.leases.insert(datastore, until);
                return;
            }
            GuardEffect::KeepHold { datastore, until } => {
                self.hosts[host].kept.holds.insert(datastore, until);
                return;
            }
            GuardEffect::Report(report) => return self.guard_report(host, report),
            GuardEffect::Forget { .. } => return,
            GuardEffect::Inspect { vm } => (vm, Deed::Inspect),
            GuardEffect::Freeze { vm } => (vm, Deed::Freeze),
            GuardEffect::Thaw { vm } => (vm, Deed::Thaw),
            GuardEffect::Kill { vm } => (vm, Deed::Kill),
        };
        let time = match (deed.1, self.dice.below(20)) {
            (Deed::Freeze, 0) => self.dice.between(1_000, FREEZE_MAX),
            _ => self.dice.between(100, 7_000),
        };
        let (vm, what) = deed;
        let boot = self.hosts[host].boot;
        let Some(run) = &mut self.hosts[host].guard else { return };
        // A freeze waits for nobody; everything else keeps its order.
        let busy = run.busy.entry(vm).or_default();
        let at = (self.now + time).max(if what == Deed::Freeze { 0 } else { *busy });
        *busy = at.max(*busy);
        self.queue.push(at, Happening::GuardDeed { host, boot, process, vm, what });
    }

    fn guard_report(&mut self, host: usize, report: GuardReport) {
        // That it is well draws no dice: it says so all the time.
        let delay = if report == GuardReport::Alive { 100 } else { self.dice.between(10, 1_000) };
        let Some(run) = &mut self.hosts[host].guard else { return };
        let Some(process) = run.agent else { return };
        run.to_agent = run.to_agent.max(self.now + delay);
        let at = run.to_agent;
        self.queue.push(at, Happening::Deliver { host, process, input: Input::Guard(report) });
    }

    /// Something is done to a process. What was begun is done, even if the guard has died since.
    pub(super) fn on_guard_deed(&mut self, host: usize, boot: u64, process: u64, id: VmId, what: Deed) {
        if !self.hosts[host].powered || self.hosts[host].boot != boot {
            return;
        }
        let stopped = |run: &GuardRun| run.process == process && run.hung;
        if self.hosts[host].guard.as_ref().is_some_and(stopped) {
            let again = Happening::GuardDeed { host, boot, process, vm: id, what };
            self.queue.push(self.now + HUNG_LOOK, again);
            return;
        }
        let Some(vm) = self.vm_index(id) else { return };
        match what {
            Deed::Inspect => {}
            Deed::NoteEnd => {
                let there = self.hosts[host].domains.contains_key(&vm);
                let run = self.hosts[host].guard.as_mut().filter(|run| run.process == process);
                // Of a VM that is there again it sees the present process.
                let Some(run) = run.filter(|_| !there) else { return };
                if !run.known.remove(&id) {
                    return;
                }
                run.ended.insert(id);
            }
            Deed::Freeze => self.set_frozen(host, vm, true),
            Deed::Thaw => {
                // An order that is overtaken by the end of the lease is not carried out any more.
                let lapsed = |run: &GuardRun| {
                    let store = &self.setup.datastores[self.setup.vms[vm].datastore].name;
                    let now = self.hosts[host].clock.local(self.now);
                    run.guard.lease(store).is_none_or(|until| until.max(self.held_until(host, store)) <= now)
                };
                if self.hosts[host].guard.as_ref().is_some_and(|run| run.process == process && !lapsed(run)) {
                    self.set_frozen(host, vm, false);
                }
            }
            Deed::Kill => {
                if self.hosts[host].domains.contains_key(&vm) {
                    self.end_qemu(host, vm, mainstay_core::register::StopCause::Crashed);
                }
            }
        }
        let state = self.seen_by_guard(host, process, vm);
        self.on_to_guard(host, process, GuardInput::Process { vm: id, state });
    }

    /// What that run of the guard sees of a VM's process. What it has once seen end has ended until there is another.
    fn seen_by_guard(&mut self, host: usize, process: u64, vm: usize) -> ProcessState {
        let id = self.setup.vm_id(vm);
        let state = match self.hosts[host].domains.get(&vm) {
            None => ProcessState::Absent,
            Some(qemu) if qemu.frozen => ProcessState::Frozen,
            Some(_) => ProcessState::Runs,
        };
        let run = self.hosts[host].guard.as_mut().filter(|run| run.process == process);
        let Some(run) = run else { return state };
        if state != ProcessState::Absent {
            run.known.insert(id);
            run.ended.remove(&id);
        } else if run.ended.contains(&id) {
            return ProcessState::Ended;
        }
        state
    }

    /// A QEMU has ended: the guard that knew it sees that when it next looks.
    pub(super) fn guard_may_note_end(&mut self, host: usize, vm: usize) {
        let after = LOOK_AFRESH - self.now % LOOK_AFRESH;
        let (boot, id) = (self.hosts[host].boot, self.setup.vm_id(vm));
        if let Some(run) = &self.hosts[host].guard {
            let (process, what) = (run.process, Deed::NoteEnd);
            self.queue.push(self.now + after, Happening::GuardDeed { host, boot, process, vm: id, what });
        }
    }

    /// The VM's process on a host stands still, or goes on. That is a guard's doing, or a test's.
    pub fn set_frozen(&mut self, host: usize, vm: usize, frozen: bool) {
        let Some(qemu) = self.hosts[host].domains.get_mut(&vm) else { return };
        if qemu.frozen == frozen {
            return;
        }
        qemu.frozen = frozen;
        let first = !frozen && std::mem::take(&mut qemu.unchecked);
        let (state, qemu) = (qemu.state, *qemu);
        let word = if frozen { "is frozen" } else { "is thawed" };
        self.record.trace.facts(&[self.now, 10, host as u64, vm as u64, u64::from(frozen)]);
        self.say(host, |world| format!("* {} {word}", world.setup.vms[vm].name));
        if first {
            self.check_core_start(host, vm, qemu);
        }
        if state != QemuState::Running || qemu.io_error {
            return;
        }
        if frozen {
            self.watch_freeze(host, vm);
            self.halted(host, vm, super::hypervisor::Qemu { frozen: false, ..qemu });
        } else {
            self.execute(host, vm);
        }
    }
}
