//! The world: hosts with their agents, datastores, a network and guests, on one event heap of virtual microseconds.
//!
//! Invariant: everything that happens, happens in [`World::run_until`], in the order of the heap, with chance from one stream.

mod actions;
mod agent;
mod disk;
mod effects;
mod guard;
mod hypervisor;
mod libvirt_calls;
mod libvirt_news;
mod migration;
mod network;
mod operators;
mod pause;
mod queue;
mod shown;
mod watching;

use crate::action::Action;
use crate::checkers::{ALWAYS, Checkers, Extra, Violation};
use crate::clock::Clock;
use crate::dice::Dice;
use crate::node::{GuardFactory, NodeFactory};
use crate::setup::Setup;
use crate::sometimes::Sometimes;
use crate::trace::Trace;
use agent::Agent;
use disk::{DiskOp, Store};
use guard::{GuardRun, Kept};
use hypervisor::{Libvirt, Lock, Qemu, QemuState};
use libvirt_calls::Lane;
use mainstay_core::register::{StopCause, VmNeeds};
use mainstay_core::settings::HostOffers;
use mainstay_core::{Effect, Event, Input, RegisterId, RegisterValue, View};
use mainstay_guard_core::Guard;
use migration::Migration;
use network::Network;
use operators::Asked;
pub use operators::{Answered, word_of};
use queue::{DomainOp, Happening, Queue, Start};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A host of the world.
struct Host {
    clock: Clock,
    powered: bool,
    /// It stands still as a whole.
    paused: bool,
    /// What happens when it goes on.
    deferred: Vec<Happening>,
    boot: u64,
    agent: Option<Agent>,
    guard: Option<GuardRun>,
    kept: Kept,
    libvirt: Libvirt,
    domains: BTreeMap<usize, Qemu>,
    definitions: BTreeMap<usize, StopCause>,
    /// VMs that ended while libvirtd did not run: it finds out why when it starts.
    ended_unseen: BTreeSet<usize>,
    starts_to_fail: u32,
    /// Requests in the socket of a libvirtd that hangs.
    stuck: Vec<Happening>,
    /// It was primary when it last lost power.
    was_primary: bool,
}

impl Host {
    fn runs(&self, process: u64) -> bool {
        self.agent.as_ref().is_some_and(|agent| agent.process == process)
    }
}

/// What the world knows of a VM, wherever it is.
#[derive(Default)]
struct Vm {
    locks: Vec<Lock>,
    migrated_to: Option<usize>,
    /// When its guest began to boot.
    booted: u64,
    /// Its guest agent has been removed: it answers no more.
    agent_removed: bool,
    /// Its guest agent has answered at least once.
    answered: bool,
    /// A core has started it since its guest agent, which had answered, was removed.
    mute: bool,
    /// Its guest was asked to shut down while its host was to be emptied that way.
    shut_down_for_maintenance: bool,
    /// What it needs besides room.
    needs: Arc<VmNeeds>,
}

/// A VM's guest began to boot, other than at the beginning of the world.
#[derive(Clone, Copy, Debug)]
pub struct Boot {
    /// When, in virtual microseconds.
    pub at: u64,
    /// Which VM (index into the setup's VMs).
    pub vm: usize,
    /// Where (index into the setup's hosts).
    pub host: usize,
}

/// An event that a core told.
#[derive(Clone, Debug)]
pub struct Told {
    /// When, in virtual microseconds.
    pub at: u64,
    /// Whose core (index into the setup's hosts).
    pub host: usize,
    /// What the core has told.
    pub event: Event,
}

/// A cluster on virtual time: hosts, datastores, networks and VMs, with one seed for all chance.
pub struct World {
    now: u64,
    setup: Setup,
    nodes: Nodes,
    dice: Dice,
    queue: Queue,
    hosts: Vec<Host>,
    stores: Vec<Store>,
    vms: Vec<Vm>,
    net: Network,
    record: Record,
    under_way: UnderWay,
    asked: Asked,
    offers: Vec<Option<Arc<HostOffers>>>,
    peace: Peace,
    scratch: Vec<Effect>,
}

/// How cores and guards are made.
struct Nodes {
    core: NodeFactory,
    guard: GuardFactory,
}

/// What was seen of the world so far.
struct Record {
    checks: Checkers,
    /// The checkers that watch besides.
    extras: BTreeSet<Extra>,
    trace: Trace,
    seen: Sometimes,
    told: Vec<Told>,
    boots: Vec<Boot>,
    violation: Option<Violation>,
}

/// What has begun and is not done, by its key.
#[derive(Default)]
struct UnderWay {
    disk_ops: BTreeMap<u64, DiskOp>,
    starts: BTreeMap<u64, Start>,
    domain_ops: BTreeMap<u64, DomainOp>,
    /// By run of an agent and VM.
    lanes: BTreeMap<(u64, usize), Lane>,
    migrations: BTreeMap<u64, Migration>,
    requests: BTreeMap<u64, usize>,
    /// The key that was given last.
    last_key: u64,
}

/// When something last went wrong, or changed.
struct Peace {
    /// By host: when a fault last befell it.
    disturbed: Vec<u64>,
    /// By VM: when it last changed.
    last_change: Vec<u64>,
    /// By VM: where it last began to execute.
    last_host: Vec<usize>,
    healed: bool,
}

impl World {
    /// A world at virtual time zero: all hosts up, all VMs running (their users started them), agents about to start.
    pub fn new(setup: Setup, seed: u64, make: NodeFactory, text: bool) -> World {
        let count = setup.hosts.len();
        let hosts = setup.hosts.iter().map(|host| Host {
            clock: Clock { started: 0, base: host.clock_base, drift_ppm: host.drift_ppm },
            powered: true,
            paused: false,
            deferred: Vec::new(),
            boot: 1,
            agent: None,
            guard: None,
            kept: Kept::default(),
            libvirt: Libvirt::Up,
            domains: BTreeMap::new(),
            definitions: BTreeMap::new(),
            ended_unseen: BTreeSet::new(),
            starts_to_fail: 0,
            stuck: Vec::new(),
            was_primary: false,
        });
        let mut world = World {
            now: 0,
            nodes: Nodes { core: make, guard: Guard::new },
            dice: Dice::seeded(seed, 1),
            queue: Queue::default(),
            hosts: hosts.collect(),
            stores: setup.datastores.iter().map(|_| Store::new(count)).collect(),
            vms: setup.vms.iter().map(|_| Vm::default()).collect(),
            net: Network::new(count),
            record: Record {
                checks: Checkers::new(&setup),
                extras: BTreeSet::from(ALWAYS),
                trace: Trace::new(text),
                seen: Sometimes::default(),
                told: Vec::new(),
                boots: Vec::new(),
                violation: None,
            },
            under_way: UnderWay::default(),
            asked: Asked::default(),
            offers: vec![None; count],
            peace: Peace {
                disturbed: vec![0; count],
                last_change: vec![0; setup.vms.len()],
                last_host: setup.vms.iter().map(|vm| vm.host).collect(),
                healed: false,
            },
            scratch: Vec::new(),
            setup,
        };
        for host in 0..count {
            let at = world.setup.hosts[host].agent_starts;
            world.queue.push(at, Happening::AgentStart { host, boot: 1 });
        }
        for vm in 0..world.setup.vms.len() {
            let (host, transient) = (world.setup.vms[vm].host, world.setup.vms[vm].transient);
            if !transient {
                world.hosts[host].definitions.insert(vm, StopCause::Unknown);
            }
            world.create(host, vm, QemuState::Running, None);
        }
        world.queue.push(0, Happening::Second);
        world
    }

    /// Guards are made so from now on.
    pub fn guards_are(&mut self, make: GuardFactory) {
        self.nodes.guard = make;
    }

    /// Has an action done at that virtual instant.
    pub fn schedule(&mut self, at: u64, action: Action) {
        self.queue.push(at.max(self.now), Happening::Act(action));
    }

    /// Lets everything happen up to that virtual instant; stops early at a violation.
    pub fn run_until(&mut self, until: u64) {
        while self.record.violation.is_none() && self.queue.next_at().is_some_and(|at| at <= until) {
            let Some((at, what)) = self.queue.pop() else { break };
            self.now = at;
            self.happen(what);
        }
        if self.record.violation.is_none() {
            self.now = self.now.max(until);
        }
    }

    fn happen(&mut self, what: Happening) {
        let Some(what) = self.defer(what) else { return };
        match what {
            Happening::Tick { host, process, generation } => {
                let fresh = self.hosts[host].agent.as_ref().is_some_and(|agent| {
                    agent.process == process && agent.generation == generation && !agent.hung
                });
                if fresh {
                    let found = self.record.checks.calm.on_tick(self.now, host, &self.setup);
                    self.report(found);
                    self.feed(host, Input::Tick);
                }
            }
            Happening::Deliver { host, process, input } => {
                // An answer of libvirt that comes over a connection that is lost by now is not heard.
                if self.guard_disk_done(host, process, &input) {
                    return;
                }
                let of_libvirt = matches!(input, Input::Domains { .. } | Input::Domain { .. });
                if self.hosts[host].runs(process) && (!of_libvirt || self.watches(host)) {
                    let input = match &mut self.hosts[host].agent {
                        Some(agent) => agent.shown.tell(input),
                        None => input,
                    };
                    self.feed(host, input);
                }
            }
            Happening::Datagram { from, to, message } => self.on_datagram(from, to, message),
            Happening::Ping { from, process, to } => self.on_ping(from, process, to),
            Happening::Disk { key } => self.on_disk(key),
            Happening::LateLanding { key } => self.on_late_landing(key),
            Happening::Prepare { host, key } => self.on_prepare(host, key),
            Happening::Domain { host, key } => self.on_domain_op(host, key),
            Happening::DomainNews { host, vm, gone } => self.on_domain_news(host, vm, gone),
            Happening::DomainLook { host, process, as_of, vm, gone } => {
                self.on_domain_look(host, process, as_of, vm, gone);
            }
            Happening::LookAfresh { host, process, vm } => self.on_look_afresh(host, process, vm),
            Happening::HypervisorNews { host } => self.on_hypervisor_news(host),
            Happening::Resync { host, process } => self.on_resync(host, process),
            Happening::AgentStart { host, boot } => self.agent_start(host, boot),
            Happening::AgentEnds { host, process } => self.on_agent_ends(host, process),
            Happening::IoError { host, vm, qemu } => self.on_io_error(host, vm, qemu),
            Happening::GuestDown { host, vm, qemu } => self.on_guest_down(host, vm, qemu),
            Happening::GuardStart { host, boot } => self.guard_start(host, boot),
            Happening::GuardTick { host, process, generation } => {
                self.on_guard_tick(host, process, generation)
            }
            Happening::ToGuard { host, process, input } => self.on_to_guard(host, process, input),
            Happening::GuardDeed { host, boot, process, vm, what } => {
                self.on_guard_deed(host, boot, process, vm, what);
            }
            Happening::LockExpires { vm, qemu } => self.on_lock_expires(vm, qemu),
            Happening::Second => self.on_second(),
            Happening::StrayLook { vm, host } => self.on_stray_look(vm, host),
            Happening::Migration { key } => self.on_migration(key),
            Happening::Act(action) => self.act(&action),
        }
    }

    fn report(&mut self, found: Option<Violation>) {
        if self.record.violation.is_none()
            && let Some(violation) = found
        {
            self.record.trace.line(self.now, "checker", || format!("! {violation}"));
            self.record.violation = Some(violation);
        }
    }

    fn say(&mut self, host: usize, line: impl FnOnce(&World) -> String) {
        let mut trace = std::mem::replace(&mut self.record.trace, Trace::new(false));
        trace.line(self.now, self.setup.hosts[host].id.as_str(), || line(self));
        self.record.trace = trace;
    }

    /// Everything is repaired, but hosts without power stay as they are. Agents that do not run are started.
    pub fn heal(&mut self) {
        self.peace.healed = true;
        self.record.checks.unharmed.on_fault(self.now, None);
        self.net.heal();
        for store in 0..self.stores.len() {
            self.set_path(store, None, disk::Path::Well);
            self.stores[store].full = false;
        }
        for host in 0..self.hosts.len() {
            self.hosts[host].starts_to_fail = 0;
            self.hosts[host].kept.broken &= self.hosts[host].powered;
            if !self.hosts[host].powered {
                continue;
            }
            self.host_resume(host);
            self.guard_resume(host);
            self.guard_up(host);
            if self.hosts[host].libvirt != Libvirt::Up {
                self.set_libvirt(host, Libvirt::Up);
            }
            if self.hosts[host].agent.as_ref().is_some_and(|agent| agent.hung) {
                self.agent_resume(host);
            }
            let boot = self.hosts[host].boot;
            self.queue.push(self.now, Happening::AgentStart { host, boot });
        }
        self.undo_commands();
        self.look_at_contacts();
    }

    /// What a host can give to VMs besides room; not known when nobody says it.
    pub fn offer(&mut self, host: usize, offers: HostOffers) {
        self.offers[host] = Some(Arc::new(offers));
    }

    /// What a VM needs besides room.
    pub fn need(&mut self, vm: usize, needs: VmNeeds) {
        self.vms[vm].needs = Arc::new(needs);
    }

    /// The virtual time, in microseconds from the beginning.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// What it is made of.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// What has watched this world so far.
    pub fn checkers(&self) -> &Checkers {
        &self.record.checks
    }

    /// What was violated, if something was.
    pub fn violation(&self) -> Option<&Violation> {
        self.record.violation.as_ref()
    }

    /// All events so far.
    pub fn told(&self) -> &[Told] {
        &self.record.told
    }

    /// When guests began to boot, in order.
    pub fn boots(&self) -> &[Boot] {
        &self.record.boots
    }

    /// What people asked and were answered, in order.
    pub fn answered(&self) -> &[Answered] {
        &self.asked.answers
    }

    /// The memory of a host that no QEMU on it takes.
    pub fn memory_free(&self, host: usize) -> u64 {
        self.capacity(host).memory_free_mib
    }

    /// Whether any QEMU, of whatever state, is on that host.
    pub fn is_empty(&self, host: usize) -> bool {
        self.hosts[host].domains.is_empty()
    }

    /// What happened of interest.
    pub fn seen(&self) -> &Sometimes {
        &self.record.seen
    }

    /// The trace so far.
    pub fn trace(&self) -> &Trace {
        &self.record.trace
    }

    /// Ends the world and hands out its trace.
    pub fn into_trace(self) -> Trace {
        self.record.trace
    }

    /// The hosts that execute a VM now.
    pub fn executing(&self, vm: usize) -> impl Iterator<Item = usize> + '_ {
        self.record.checks.single_runner.hosts(vm)
    }

    /// When a VM last began or ceased to execute somewhere.
    pub fn last_change(&self, vm: usize) -> u64 {
        self.peace.last_change[vm]
    }

    /// A host where a VM has been created and neither resumed nor removed.
    pub fn half_started(&self, vm: usize) -> Option<usize> {
        (0..self.hosts.len()).find(|host| {
            self.hosts[*host].domains.get(&vm).is_some_and(|qemu| qemu.state == QemuState::Prepared)
        })
    }

    /// Whether the host has power.
    pub fn powered(&self, host: usize) -> bool {
        self.hosts[host].powered
    }

    /// What a host believes; `None` when its agent does not run.
    pub fn view(&self, host: usize) -> Option<View> {
        let agent =
            self.hosts[host].agent.as_ref().filter(|agent| !agent.hung && !self.hosts[host].paused)?;
        agent.node.view(self.hosts[host].clock.local(self.now))
    }

    /// What a register of a datastore holds.
    pub fn register(&self, store: usize, register: &RegisterId) -> Option<&RegisterValue> {
        self.stores[store].value(register)
    }
}
