//! A seed becomes a setup and a schedule of faults. Each run draws which kinds of faults are on and how often they come
//! ("swarm"): a run with one kind often finds what a run with everything at once hides.
//! Faults may overlap in any way.

use crate::action::{Action, HostRegister};
use crate::dice::{Dice, Latency};
use crate::setup::{BOOT, DISK, DatastoreSetup, HostSetup, Latencies, NETWORK, START_DELAY, Setup, VmSetup};
use mainstay_core::register::{IsolationResponse, Priority};
use mainstay_core::timing::{DRIFT_PPM, FREEZE_BOUND};
use mainstay_core::{DatastoreName, HostId, Span, Timing};
use std::sync::Arc;

mod one_fault;
pub mod stories;
mod wishes;

pub use one_fault::plan_of_one_fault;
use stories::Story;

const SECOND: u64 = 1_000_000;

/// A run to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The world as it is before anything happens.
    pub setup: Setup,
    /// What is done to it, and when.
    pub schedule: Vec<(u64, Action)>,
    /// When the faults end.
    pub faults_end: u64,
    /// The story that it tells, if it tells one.
    pub story: Option<Story>,
}

/// What of a cluster is given and not drawn: one's own size and times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// So many hosts.
    pub hosts: Option<u64>,
    /// So many datastores.
    pub datastores: Option<u64>,
    /// So many VMs.
    pub vms: Option<u64>,
    /// The protocol's times; drawn when left out.
    pub timing: Option<Timing>,
}

/// The kinds of faults that a run may have on.
const KINDS: u64 = 31;

/// The plan of a seed, in a cluster of that shape.
pub fn plan(seed: u64, shape: &Shape) -> Plan {
    plan_of(seed, shape, stories::drawn(seed))
}

/// The plan of a seed that tells that story.
pub fn plan_of_story(seed: u64, shape: &Shape, story: Story) -> Plan {
    plan_of(seed, shape, Some(story))
}

fn plan_of(seed: u64, shape: &Shape, story: Option<Story>) -> Plan {
    let mut dice = Dice::seeded(seed, 0);
    let setup = setup(&mut dice, shape);
    let beat = setup.timing.heartbeat.0;
    let calm = 12 * SECOND + 8 * beat;
    let faults_end = calm + dice.between(30, 120) * beat.max(SECOND / 2);
    let mut plan = Plan { setup, schedule: Vec::new(), faults_end, story: None };
    // Half of the runs have few kinds of faults on, half have many.
    let share = if dice.permille(500) { 200 } else { 600 };
    let mut kinds: Vec<u64> = (0..KINDS).filter(|_| dice.permille(share)).collect();
    if kinds.is_empty() {
        kinds.push(dice.below(KINDS));
    }
    let count = dice.between(1, 14);
    for _ in 0..count {
        let at = if dice.permille(50) { dice.below(calm) } else { dice.between(calm, faults_end) };
        let lasts = match dice.below(4) {
            0 => dice.between(1, SECOND),
            1 => dice.between(1, plan.setup.timing.failure_timeout.0),
            _ => dice.between(plan.setup.timing.failure_timeout.0, 30 * beat + 5 * SECOND),
        };
        if let Some(kind) = dice.pick(&kinds).copied() {
            plan.draw(&mut dice, kind, at, lasts);
        }
    }
    plan.draw_wishes(seed, calm);
    if let Some(story) = story {
        plan.tell(story, seed, calm);
    }
    plan.schedule.sort_by_key(|(at, _)| *at);
    plan
}

/// The kind of writes that are torn, and of registers that are damaged.
const TEARS: u64 = 26;

fn hosts(dice: &mut Dice, shape: &Shape) -> Vec<HostSetup> {
    let hosts = if dice.permille(900) { dice.between(2, 5) } else { dice.between(6, 8) };
    let hosts = shape.hosts.unwrap_or(hosts).max(1);
    // Ids around 9, 99: text order and number order differ.
    let first = *dice.pick(&[1, 7, 97]).unwrap_or(&1);
    (0..hosts)
        .map(|index| HostSetup {
            id: HostId::new(&format!("host-{}", first + index)),
            clock_base: dice.below(1 << 36),
            drift_ppm: dice.below(DRIFT_PPM + 1) as i64 - DRIFT_PPM as i64 / 2,
            agent_starts: dice.below(4 * SECOND),
            timing: None,
            file: Default::default(),
            newer: false,
            memory_mib: crate::setup::HOST_MEMORY,
        })
        .collect()
}

fn setup(dice: &mut Dice, shape: &Shape) -> Setup {
    let hosts = hosts(dice, shape);
    let stores = dice.between(1, 3);
    let stores = shape.datastores.unwrap_or(stores).max(1);
    let kept = *dice.pick(&[0, 0, SECOND, 8 * SECOND, 20 * SECOND]).unwrap_or(&0);
    let datastores: Vec<DatastoreSetup> = (0..stores)
        .map(|index| DatastoreSetup {
            name: DatastoreName::new(&format!("ds{}", index + 1)),
            lock_release: kept,
        })
        .collect();
    let priorities = [Priority::Lowest, Priority::Low, Priority::Medium, Priority::High, Priority::Highest];
    let vms = dice.between(1, 10);
    let vms = (0..shape.vms.unwrap_or(vms).max(1))
        .map(|index| VmSetup {
            name: Arc::from(format!("vm{}", index + 1)),
            host: dice.index(hosts.len()),
            datastore: dice.index(datastores.len()),
            transient: dice.permille(200),
            priority: dice.pick(&priorities).copied().unwrap_or_default(),
            memory_mib: dice.between(1, 16) * 256,
            shutdown: dice.permille(700).then(|| dice.between(SECOND / 10, 60 * SECOND)),
            agent_after: None,
        })
        .collect();
    let timing = match dice.below(4) {
        0 => Timing::SWIFT,
        1 => Timing::PATIENT,
        _ => Timing::STANDARD,
    };
    let timing = shape.timing.unwrap_or(timing);
    let scale = dice.between(1, 4);
    // Tails stay well below a heartbeat: what is later than that is a fault, and the schedule's matter.
    let tail = timing.heartbeat.0 / 3;
    let setup = Setup {
        hosts,
        datastores,
        vms,
        timing,
        latencies: Latencies {
            disk: Latency { base: DISK.base * scale, spread: DISK.spread * scale, tail, ..DISK },
            network: Latency { tail, tail_permille: dice.below(20), ..NETWORK },
            start: START_DELAY,
            boot: BOOT,
        },
        loss_permille: dice.below(15),
        duplicate_permille: dice.below(30),
        start_failure_permille: *dice.pick(&[0, 0, 100, 400]).unwrap_or(&0),
        image_lock: dice.permille(500),
        // Known limit 1 of docs/internals/protocol/known-limits.md: storage lets go of the lock of a host that it has lost.
        hook: true,
        io_errors_permille: *dice.pick(&[0, 500, 1_000]).unwrap_or(&0),
        gateway: dice.permille(850),
        isolation_response: *dice
            .pick(&[
                IsolationResponse::LeavePoweredOn,
                IsolationResponse::ShutDown,
                IsolationResponse::PowerOff,
            ])
            .unwrap_or(&IsolationResponse::LeavePoweredOn),
        shutdown_timeout: Span::from_secs(dice.between(2, 300)),
        isolation_timeout: None,
    };
    // Half of the clusters believe in isolation at once: otherwise few runs would be long enough for it.
    let at_once = setup.shutdown_timeout.0.is_multiple_of(2_000_000);
    Setup { isolation_timeout: at_once.then_some(Span::ZERO), ..setup }
}

fn migrate(vm: String, to: HostId, takes_ms: Option<u64>) -> Action {
    Action::UserMigrate { vm, to, takes_ms, handover_ms: None, undefine_source: None }
}

impl Plan {
    fn host(&self, dice: &mut Dice) -> HostId {
        let index = dice.index(self.setup.hosts.len());
        self.setup.hosts[index].id.clone()
    }

    fn vm(&self, dice: &mut Dice) -> String {
        let index = dice.index(self.setup.vms.len());
        self.setup.vms[index].name.to_string()
    }

    fn datastore(&self, dice: &mut Dice) -> DatastoreName {
        let index = dice.index(self.setup.datastores.len());
        self.setup.datastores[index].name.clone()
    }

    fn both(&mut self, (from, to): (u64, u64), begin: Action, end: Action) {
        self.schedule.push((from, begin));
        self.schedule.push((to, end));
    }

    fn draw(&mut self, dice: &mut Dice, kind: u64, at: u64, lasts: u64) {
        let span = (at, at + lasts);
        let host = self.host(dice);
        let vm = self.vm(dice);
        let datastore = self.datastore(dice);
        let of = dice.permille(600).then(|| host.clone());
        match kind {
            0 => self.schedule.push((at, Action::PowerOff { host })),
            1 => self.both(span, Action::PowerOff { host: host.clone() }, Action::PowerOn { host }),
            2 => self.draw_all_power(dice, at, lasts),
            3 => {
                let begin = Action::AgentKill { host: host.clone() };
                self.both(span, begin, Action::agent_start(host));
            }
            4 => {
                let begin = Action::AgentHang { host: host.clone() };
                self.both(span, begin, Action::AgentResume { host });
            }
            5 => {
                let begin = Action::NetworkCut { host: host.clone() };
                self.both(span, begin, Action::NetworkHeal { host });
            }
            6 => {
                let (from, to) = (host, self.host(dice));
                let begin = Action::LinkCut { from: from.clone(), to: to.clone() };
                self.both(span, begin, Action::LinkHeal { from, to });
            }
            7 => {
                let permille = dice.between(50, 500);
                self.both(span, Action::Loss { permille }, Action::Loss { permille: 0 });
            }
            8 => {
                let begin = Action::DatastoreCut { datastore: datastore.clone(), host: of.clone() };
                self.both(span, begin, Action::DatastoreHeal { datastore, host: of });
            }
            9 => {
                let begin = Action::DatastoreHang { datastore: datastore.clone(), host: of.clone() };
                self.both(span, begin, Action::DatastoreHeal { datastore, host: of });
            }
            10 => {
                let factor = dice.between(5, 3_000);
                let begin = Action::DatastoreSlow { datastore: datastore.clone(), host: of.clone(), factor };
                self.both(span, begin, Action::DatastoreHeal { datastore, host: of });
            }
            11 => {
                // Before the VMs are known, so that somebody needs the room.
                let from = dice.below(SECOND);
                let begin = Action::DatastoreFull { datastore: datastore.clone() };
                self.both((from, from + 20 * SECOND), begin, Action::DatastoreFree { datastore });
            }
            12 => {
                let begin = if dice.permille(500) {
                    Action::LibvirtKill { host: host.clone() }
                } else {
                    Action::LibvirtHang { host: host.clone() }
                };
                self.both(span, begin, Action::LibvirtUp { host });
            }
            13 => {
                let count = dice.between(1, 6) as u32;
                self.schedule.push((at, Action::StartFailures { host, count }));
                self.schedule.push((at + dice.below(SECOND), Action::QemuKill { vm }));
            }
            14 => self.schedule.push((at, Action::QemuKill { vm })),
            15 => self.draw_user(dice, at, vm, host),
            16 => self.schedule.push((at, Action::GuardKill { host })),
            17 => self.draw_cut_off(dice, span, host),
            18 => self.draw_split(dice, span),
            19 => {
                let begin = Action::DatastoreHang { datastore: datastore.clone(), host: None };
                self.both(span, begin, Action::DatastoreHeal { datastore, host: None });
            }
            20 => {
                let begin = Action::NetworkCut { host: host.clone() };
                self.both(span, begin, Action::NetworkHeal { host });
                self.both(span, Action::GatewayDown, Action::GatewayUp);
            }
            21 => {
                // Every host on its own: the switch has died.
                for index in 0..self.setup.hosts.len() {
                    let host = self.setup.hosts[index].id.clone();
                    let begin = Action::NetworkCut { host: host.clone() };
                    self.both(span, begin, Action::NetworkHeal { host });
                }
            }
            22 => {
                let begin = Action::HostPause { host: host.clone() };
                self.both(span, begin, Action::HostResume { host });
            }
            23 => {
                let permille = dice.between(50, 1000);
                self.both(span, Action::Duplicate { permille }, Action::Duplicate { permille: 0 });
            }
            24 => {
                // Up to several time-outs late, and out of order.
                let late = 3 * self.setup.timing.failure_timeout.0 / 1_000;
                let (ms, spread_ms) = (dice.below(late), dice.below(late));
                let begin = Action::NetworkLate { host: of.clone(), ms, spread_ms };
                self.both(span, begin, Action::NetworkLate { host: of, ms: 0, spread_ms: 0 });
            }
            25 => {
                let begin = Action::DatastoreReadOnly { datastore: datastore.clone(), host: of.clone() };
                self.both(span, begin, Action::DatastoreHeal { datastore, host: of });
            }
            TEARS => {
                let count = dice.between(1, 5) as u32;
                self.damage((at, at + lasts), datastore.clone(), host, count.is_multiple_of(2));
                self.schedule.push((at, Action::DatastoreTorn { datastore, host: of, count }));
            }
            27 => {
                // Never further from the truth than half of what the protocol bounds.
                let ppm = dice.below(DRIFT_PPM + 1) as i64 - DRIFT_PPM as i64 / 2;
                self.schedule.push((at, Action::ClockDrift { host, ppm }));
            }
            29 => self.draw_migration(dice, (at, lasts), vm, host),
            30 => {
                // Freezing within its bound is what I1 assumes: never later than what lies between a lease and the failure time-out.
                let timing = self.setup.timing;
                let lease = timing.lease + timing.lease.scaled(DRIFT_PPM, 1_000_000) + FREEZE_BOUND;
                let lasts = dice.between(1, (timing.failure_timeout - lease).0);
                let begin = Action::GuardHang { host: host.clone() };
                self.both((at, at + lasts), begin, Action::GuardResume { host });
            }
            _ => {
                self.schedule.push((at, Action::Unprotect { vm: vm.clone() }));
                self.schedule.push((at + lasts, Action::Protect { vm }));
            }
        }
    }

    /// A tear makes no register unreadable. Damage of both copies where they lie does.
    fn damage(&mut self, span: (u64, u64), datastore: DatastoreName, host: HostId, heartbeat: bool) {
        let register = if heartbeat { HostRegister::Heartbeat } else { HostRegister::PowerOn };
        if !heartbeat {
            // A power-on list is repaired when its agent starts, or has something new to write (known limit 3).
            let begin = Action::AgentKill { host: host.clone() };
            self.both(span, begin, Action::agent_start(host.clone()));
        }
        self.schedule.push((span.0, Action::RegisterDestroy { datastore, host, register }));
    }

    /// A live migration, and what may go wrong around the instant at which it switches over.
    fn draw_migration(&mut self, dice: &mut Dice, (at, lasts): (u64, u64), vm: String, to: HostId) {
        let source = self.setup.vm(&vm).map_or(0, |vm| self.setup.vms[vm].host);
        let from = self.setup.hosts[source].id.clone();
        let takes = dice.between(SECOND / 3, 6 * SECOND);
        let switch = at + takes;
        self.schedule.push((at, migrate(vm.clone(), to.clone(), Some(takes / 1_000))));
        for host in [&from, &to] {
            let host = host.clone();
            // From some time before the switch-over until some time after it.
            let (begins, ends) =
                (switch - dice.below(switch.min(8 * SECOND)), switch + dice.below(lasts + SECOND));
            match dice.below(10) {
                0..=2 => self.both(
                    (begins, ends),
                    Action::AgentKill { host: host.clone() },
                    Action::agent_start(host),
                ),
                3 => self.both(
                    (begins, ends),
                    Action::AgentHang { host: host.clone() },
                    Action::AgentResume { host },
                ),
                4 => {
                    let near = switch.saturating_sub(SECOND) + dice.below(3 * SECOND);
                    self.both(
                        (near, near + lasts),
                        Action::LibvirtHang { host: host.clone() },
                        Action::LibvirtUp { host },
                    );
                }
                _ => {}
            }
        }
        let soon = switch + dice.below(SECOND);
        match dice.below(10) {
            0..=2 => self.schedule.push((soon, Action::PowerOff { host: from })),
            3 => self.both(
                (soon, soon + lasts),
                Action::PowerOff { host: from.clone() },
                Action::PowerOn { host: from },
            ),
            4 => self.schedule.push((soon, Action::PowerOff { host: to })),
            5 => self.draw_cut_off(dice, (switch.saturating_sub(4 * SECOND), switch + lasts), to),
            6 => self.draw_cut_off(dice, (switch.saturating_sub(4 * SECOND), switch + lasts), from),
            7 => self
                .schedule
                .push((switch.saturating_sub(dice.below(SECOND)), Action::UserAbortMigration { vm })),
            8 => self.schedule.push((soon + dice.below(8 * SECOND), migrate(vm, from, None))),
            _ => {}
        }
    }

    /// Several or all hosts at once.
    fn draw_all_power(&mut self, dice: &mut Dice, at: u64, lasts: u64) {
        let all = dice.permille(500);
        for index in 0..self.setup.hosts.len() {
            if all || dice.permille(400) {
                let host = self.setup.hosts[index].id.clone();
                self.schedule.push((at + dice.below(SECOND / 2), Action::PowerOff { host: host.clone() }));
                self.schedule.push((at + lasts + dice.below(3 * SECOND), Action::PowerOn { host }));
            }
        }
    }

    /// One host loses its network and all its storage, one soon after the other, and has them back in any order.
    fn draw_cut_off(&mut self, dice: &mut Dice, (from, to): (u64, u64), host: HostId) {
        let near = 2 * self.setup.timing.failure_timeout.0;
        let span = (from + dice.below(near), to + dice.below(near));
        let (begin, end) =
            (Action::NetworkCut { host: host.clone() }, Action::NetworkHeal { host: host.clone() });
        self.both(span, begin, end);
        for index in 0..self.setup.datastores.len() {
            let datastore = self.setup.datastores[index].name.clone();
            let of = Some(host.clone());
            let begin = if dice.permille(500) {
                Action::DatastoreCut { datastore: datastore.clone(), host: of.clone() }
            } else {
                Action::DatastoreHang { datastore: datastore.clone(), host: of.clone() }
            };
            let span = (from + dice.below(near), to + dice.below(near));
            self.both(span, begin, Action::DatastoreHeal { datastore, host: of });
        }
    }

    /// The hosts fall into two groups that don't hear each other.
    fn draw_split(&mut self, dice: &mut Dice, span: (u64, u64)) {
        let hosts: Vec<HostId> = self.setup.hosts.iter().map(|host| host.id.clone()).collect();
        let (one, other): (Vec<HostId>, Vec<HostId>) = hosts.into_iter().partition(|_| dice.permille(500));
        for a in &one {
            for b in &other {
                for (from, to) in [(a, b), (b, a)] {
                    let begin = Action::LinkCut { from: from.clone(), to: to.clone() };
                    let end = Action::LinkHeal { from: from.clone(), to: to.clone() };
                    self.both(span, begin, end);
                }
            }
        }
    }

    fn draw_user(&mut self, dice: &mut Dice, at: u64, vm: String, host: HostId) {
        let action = match dice.below(6) {
            0 => Action::GuestReset { vm: vm.clone() },
            1 => Action::GuestPowerOff { vm: vm.clone() },
            2 => Action::UserShutdown { vm: vm.clone() },
            3 => Action::UserDestroy { vm: vm.clone() },
            _ => {
                self.schedule.push((at, migrate(vm, host, None)));
                return;
            }
        };
        self.schedule.push((at, action));
        if dice.permille(500) {
            self.schedule.push((at + dice.below(30 * SECOND), Action::UserStart { vm, host }));
        }
    }
}
