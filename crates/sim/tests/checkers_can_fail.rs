//! Mutations: nodes that break a promise on purpose. Each must be caught by the checker of that promise: a checker that can't
//! fail proves nothing.
//!
//! The fake of a core below runs a whole small script for itself (no elections, no messages): it beats, it writes what it is
//! told to write, it starts what it is told to start.

use mainstay_core::register::{
    Claim, ClaimState, Entry, OwnerBeat, OwnershipBlock, PowerOnList, Priority, ProtectedList, StopCause,
    VmSpec,
};
use mainstay_core::{
    Config, DatastoreName, DiskAction, Domain, DomainState, Effect, Epoch, Event, HostId, Input, OpId,
    RegisterId, RegisterValue, Time, Token, View, VmAction, VmId, VmName, VmOutcome, XmlId,
};
use mainstay_sim::checkers::never_silent::{Lack, NeverSilent};
use mainstay_sim::checkers::unharmed::Unharmed;
use mainstay_sim::dice::Latency;
use mainstay_sim::setup::{
    BOOT, DISK, DatastoreSetup, HostSetup, Latencies, NETWORK, START_DELAY, Setup, VmSetup,
};
use mainstay_sim::{Action, Extra, Node, NodeFactory, World};
use mainstay_testkit::made;

const SECOND: u64 = 1_000_000;

/// What a fake does wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Nothing: host-2 owns, and starts what has crashed on host-1.
    None,
    /// host-1 owns the same epoch.
    TwoOwners,
    /// host-2 starts the VM without waiting for anything.
    StartsAtOnce,
    /// host-2 starts it under a grant that no list has.
    InventsGrant,
    /// host-2 starts what the user has shut down on host-1.
    IgnoresUser,
    /// Nobody ever starts anything.
    DoesNothing,
    /// host-2 grants itself what runs well on host-1.
    TakesWhatRuns,
    /// host-1 ends what runs well on it.
    EndsWhatRuns,
}

struct Fake {
    fault: Fault,
    me: HostId,
    boot: mainstay_core::BootId,
    incarnation: mainstay_core::Incarnation,
    next: Time,
    beats: u64,
    ops: u64,
    list_version: u64,
    prepared: Option<OpId>,
    asked: bool,
}

fn fake(fault: Fault, config: Config, now: Time) -> Result<Box<dyn Node>, String> {
    Ok(Box::new(Fake {
        fault,
        me: config.me,
        boot: config.boot,
        incarnation: config.incarnation,
        next: now,
        beats: 0,
        ops: 0,
        list_version: 0,
        prepared: None,
        asked: false,
    }))
}

fn vm() -> VmId {
    setup().vm_id(0)
}

fn spec() -> VmSpec {
    VmSpec { xml: XmlId(1000), memory_mib: 512, vcpus: 1, ..made::spec() }
}

impl Fake {
    fn op(&mut self) -> OpId {
        self.ops += 1;
        OpId(self.ops)
    }

    fn write(&mut self, register: RegisterId, value: RegisterValue, effects: &mut Vec<Effect>) {
        let op = self.op();
        let action = DiskAction::Write(register, value);
        effects.push(Effect::Disk { op, datastore: DatastoreName::new("ds1"), action });
    }

    fn token(number: u64) -> Token {
        Token { epoch: Epoch(1), number }
    }

    fn write_ownership(&mut self, effects: &mut Vec<Effect>) {
        let block = OwnershipBlock {
            boot: self.boot,
            incarnation: self.incarnation,
            beat: Some(OwnerBeat { epoch: Epoch(1), counter: self.beats, released: false }),
            ..made::ownership_block(Epoch(1))
        };
        self.write(RegisterId::Ownership(self.me.clone()), RegisterValue::Ownership(block), effects);
    }

    fn write_list(&mut self, holder: &str, number: u64, effects: &mut Vec<Effect>) {
        self.list_version += 1;
        let entry = Entry {
            vm: vm(),
            spec: spec(),
            holder: Some(HostId::new(holder)),
            token: Fake::token(number),
            ..made::entry(1)
        };
        let list = made::protected_list(Epoch(1), vec![entry]);
        let list = ProtectedList { version: self.list_version, owner: self.me.clone(), ..list };
        self.write(RegisterId::ProtectedList(Epoch(1)), RegisterValue::ProtectedList(list), effects);
    }

    fn prepare(&mut self, number: u64, effects: &mut Vec<Effect>) {
        let op = self.op();
        self.prepared = Some(op);
        let action = VmAction::Prepare {
            vm: vm(),
            name: "vm1".into(),
            datastore: DatastoreName::new("ds1"),
            xml: XmlId(1000),
            token: Fake::token(number),
        };
        effects.push(Effect::Vm { op, action });
    }

    /// host-1: says what its domain does.
    fn claim(&mut self, state: ClaimState, effects: &mut Vec<Effect>) {
        let claim = Claim {
            vm: vm(),
            token: Some(Fake::token(if self.me.as_str() == "host-1" { 1 } else { 2 })),
            spec: Some(spec()),
            ..made::claim(1, state)
        };
        let list = made::power_on_list(self.ops, vec![claim]);
        let list = PowerOnList { boot: self.boot, incarnation: self.incarnation, ..list };
        self.write(RegisterId::PowerOn(self.me.clone()), RegisterValue::PowerOn(list), effects);
    }

    fn on_beat(&mut self, effects: &mut Vec<Effect>) {
        self.beats += 1;
        let owner = self.me.as_str() == "host-2";
        if owner || self.fault == Fault::TwoOwners {
            self.write_ownership(effects);
        }
        if owner && self.beats == 2 {
            self.write_list("host-1", 1, effects);
        }
        if owner && self.beats == 10 {
            // The VM has stopped on host-1 at 5 s: host-2 takes it, one way or another.
            match self.fault {
                Fault::None | Fault::TwoOwners | Fault::IgnoresUser => self.write_list("host-2", 2, effects),
                Fault::InventsGrant => self.prepare(7, effects),
                Fault::StartsAtOnce => self.write_list("host-2", 2, effects),
                Fault::DoesNothing | Fault::TakesWhatRuns | Fault::EndsWhatRuns => {}
            }
        }
        let starts = match self.fault {
            Fault::None | Fault::TwoOwners | Fault::IgnoresUser | Fault::StartsAtOnce => true,
            Fault::InventsGrant | Fault::DoesNothing | Fault::TakesWhatRuns | Fault::EndsWhatRuns => false,
        };
        if owner && self.beats == 12 && starts {
            self.prepare(2, effects);
        }
        if owner && self.beats == 20 && self.fault == Fault::TakesWhatRuns {
            self.write_list("host-2", 2, effects);
        }
        if !owner && self.beats == 20 && self.fault == Fault::EndsWhatRuns {
            let op = self.op();
            effects.push(Effect::Vm { op, action: VmAction::Destroy { vm: vm() } });
        }
    }
}

impl Node for Fake {
    fn step(&mut self, now: Time, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Tick if now >= self.next => {
                self.next = now + mainstay_core::Span::from_secs(1);
                self.on_beat(effects);
            }
            Input::Domain { domain: Domain { state: DomainState::Running, .. }, .. }
            | Input::Domains { .. }
                if !self.asked =>
            {
                self.asked = true;
                let datastore = DatastoreName::new("ds1");
                effects.push(Effect::StoreXml { datastore, vm: vm(), xml: XmlId(1000) });
            }
            Input::Domain { domain: Domain { state: DomainState::Stopped(cause), .. }, .. }
                if self.me.as_str() == "host-1" =>
            {
                self.claim(ClaimState::Stopped { cause }, effects);
            }
            Input::Domain { domain: Domain { state: DomainState::Running, .. }, .. } => {
                self.claim(ClaimState::Running, effects);
            }
            Input::VmDone { op, outcome: VmOutcome::Done } if self.prepared == Some(op) => {
                let op = self.op();
                effects.push(Effect::Vm { op, action: VmAction::Resume { vm: vm() } });
            }
            _ => {}
        }
    }

    fn next_deadline(&self) -> Time {
        self.next
    }

    fn view(&self, _now: Time) -> Option<View> {
        None
    }
}

fn setup() -> Setup {
    let host = |id: &str| HostSetup {
        id: id.into(),
        clock_base: 0,
        drift_ppm: 0,
        agent_starts: 0,
        timing: None,
        newer: false,
        file: Default::default(),
        memory_mib: mainstay_sim::setup::HOST_MEMORY,
    };
    Setup {
        hosts: vec![host("host-1"), host("host-2")],
        datastores: vec![DatastoreSetup { name: "ds1".into(), lock_release: 0 }],
        vms: vec![VmSetup {
            name: "vm1".into(),
            host: 0,
            datastore: 0,
            transient: false,
            priority: Priority::Medium,
            memory_mib: 512,
            shutdown: Some(1_000_000),
            agent_after: None,
        }],
        timing: mainstay_core::Timing::SWIFT,
        latencies: Latencies {
            disk: DISK,
            network: NETWORK,
            start: Latency { tail_permille: 0, ..START_DELAY },
            boot: BOOT,
        },
        loss_permille: 0,
        duplicate_permille: 0,
        start_failure_permille: 0,
        // Only the checkers stand between these fakes and their second copies.
        image_lock: false,
        hook: false,
        io_errors_permille: 0,
        gateway: true,
        isolation_timeout: None,
        isolation_response: Default::default(),
        shutdown_timeout: mainstay_core::Span::from_secs(300),
    }
}

/// Runs the fakes for 25 s after `action` was done at 5 s; gives the checker that found something.
fn run(make: NodeFactory, action: Option<Action>) -> (Option<&'static str>, World) {
    let mut world = World::new(setup(), 1, make, false);
    if let Some(action) = action {
        world.schedule(5 * SECOND, action);
    }
    world.run_until(25 * SECOND);
    (world.violation().map(|violation| violation.checker), world)
}

fn crash() -> Option<Action> {
    Some(Action::QemuKill { vm: "vm1".into() })
}

fn shutdown() -> Option<Action> {
    Some(Action::UserShutdown { vm: "vm1".into() })
}

#[test]
fn a_correct_fake_passes() {
    let (found, world) = run(|config, now| fake(Fault::None, config, now), crash());
    assert_eq!(found, None, "{:?}", world.violation());
    assert_eq!(world.executing(0).collect::<Vec<_>>(), [1]);
    assert_eq!(mainstay_sim::checkers::liveness::stuck(&world), [""; 0]);
}

#[test]
fn single_runner_catches_a_second_copy() {
    // Nothing happened to the VM on host-1.
    let (found, _) = run(|config, now| fake(Fault::StartsAtOnce, config, now), None);
    assert_eq!(found, Some("single_runner"));
}

#[test]
fn single_owner_catches_a_second_owner() {
    let (found, _) = run(|config, now| fake(Fault::TwoOwners, config, now), crash());
    assert_eq!(found, Some("single_owner"));
}

#[test]
fn single_owner_catches_a_start_without_a_grant() {
    let (found, _) = run(|config, now| fake(Fault::InventsGrant, config, now), crash());
    assert_eq!(found, Some("single_owner"));
}

#[test]
fn user_word_catches_a_restart_against_the_user() {
    let (found, _) = run(|config, now| fake(Fault::IgnoresUser, config, now), shutdown());
    assert_eq!(found, Some("user_word"));
}

#[test]
fn liveness_names_a_vm_that_nobody_restarts() {
    let (found, world) = run(|config, now| fake(Fault::DoesNothing, config, now), crash());
    assert_eq!(found, None);
    let stuck = mainstay_sim::checkers::liveness::stuck(&world);
    assert!(
        matches!(stuck.as_slice(), [line] if line.starts_with("vm1 is to run, and does not")),
        "{stuck:?}"
    );
}

#[test]
fn liveness_catches_a_vm_that_runs_unprotected() {
    // host-1 has no running claim on disk for it, and is not restarted: its first claim is its first news of the domain.
    let (found, world) = run(|config, now| fake(Fault::DoesNothing, config, now), None);
    assert_eq!(found, None);
    assert_eq!(world.executing(0).count(), 1);
    let claimed = matches!(
        world.register(0, &RegisterId::PowerOn("host-1".into())),
        Some(RegisterValue::PowerOn(list)) if list.claims.iter().any(|claim| claim.state == ClaimState::Running)
    );
    assert_eq!(mainstay_sim::checkers::liveness::stuck(&world).is_empty(), claimed);
}

#[test]
fn single_runner_catches_a_copy_that_libvirtd_started_and_nobody_stopped() {
    let mut world = World::new(setup(), 1, |config, now| fake(Fault::None, config, now), false);
    world.schedule(5 * SECOND, Action::QemuKill { vm: "vm1".into() });
    world.schedule(20 * SECOND, Action::Autostart { vm: "vm1".into(), host: "host-1".into() });
    world.run_until(30 * SECOND);
    // No core did that.
    assert_eq!(world.violation(), None);
    assert_eq!(world.executing(0).count(), 2);
    world.run_until(60 * SECOND);
    assert_eq!(world.violation().map(|violation| violation.checker), Some("single_runner"));
}

#[test]
fn time_travel_catches_an_old_copy_that_goes_on() {
    let mut world = World::new(setup(), 1, |config, now| fake(Fault::StartsAtOnce, config, now), false);
    world.run_until(5 * SECOND);
    world.set_frozen(0, 0, true);
    world.schedule(25 * SECOND, Action::PowerOff { host: "host-2".into() });
    world.run_until(26 * SECOND);
    assert_eq!(world.violation(), None);
    assert_eq!(world.boots().iter().map(|boot| boot.host).collect::<Vec<_>>(), [1]);
    world.set_frozen(0, 0, false);
    assert_eq!(world.violation().map(|violation| violation.checker), Some("time_travel"));
}

/// Runs the fakes for five minutes under that checker.
fn watched(make: NodeFactory, extra: Extra, action: Option<Action>) -> Option<&'static str> {
    let mut world = World::new(setup(), 1, make, false);
    world.watch(&[extra]);
    if let Some(action) = action {
        world.schedule(5 * SECOND, action);
    }
    world.run_until(300 * SECOND);
    world.violation().map(|violation| violation.checker)
}

#[test]
fn never_silent_catches_a_vm_that_is_down_without_an_alarm() {
    let found = watched(|config, now| fake(Fault::DoesNothing, config, now), Extra::NeverSilent, crash());
    assert_eq!(found, Some("never_silent"));
}

#[test]
fn never_silent_hears_an_alarm_until_something_better_is_told() {
    let mut silent = NeverSilent::new(1);
    let name = || VmName { id: vm(), name: "vm1".into() };
    silent.on_event(0, &Event::VmWaitsForHost { vm: name(), reasons: Vec::new() });
    let down = Lack::Down { last: 0 };
    assert!((0..2_000).all(|_| silent.on_second(0, down, &setup()).is_none()));
    silent.on_event(0, &Event::VmStarted { vm: name(), token: Fake::token(1) });
    assert!((0..2_000).any(|_| silent.on_second(0, down, &setup()).is_some()));
}

#[test]
fn unharmed_catches_a_grant_that_takes_what_runs_well() {
    let found = watched(|config, now| fake(Fault::TakesWhatRuns, config, now), Extra::Unharmed, None);
    assert_eq!(found, Some("unharmed"));
}

#[test]
fn unharmed_catches_the_end_of_what_runs_well() {
    let found = watched(|config, now| fake(Fault::EndsWhatRuns, config, now), Extra::Unharmed, None);
    assert_eq!(found, Some("unharmed"));
}

#[test]
fn unharmed_catches_a_freeze_where_all_is_well() {
    let mut world = World::new(setup(), 1, |config, now| fake(Fault::DoesNothing, config, now), false);
    world.watch(&[Extra::Unharmed]);
    world.run_until(30 * SECOND);
    world.set_frozen(0, 0, true);
    assert_eq!(world.violation().map(|violation| violation.checker), Some("unharmed"));
}

#[test]
fn unharmed_catches_an_isolation_response_to_a_blip() {
    let mut unharmed = Unharmed::new(&setup());
    assert!(unharmed.on_response(10 * SECOND, 0, 0, &setup()).is_some());
    unharmed.on_contact(10 * SECOND, 0, false);
    assert!(unharmed.on_response(15 * SECOND, 0, 0, &setup()).is_some());
    assert!(unharmed.on_response(40 * SECOND, 0, 0, &setup()).is_none());
}

#[test]
fn a_guest_that_stops_unseen_may_be_restarted() {
    // Libvirtd is down when the guest powers itself off: nobody can know why it stopped.
    let mut world = World::new(setup(), 1, |config, now| fake(Fault::None, config, now), false);
    world.schedule(4 * SECOND, Action::LibvirtKill { host: "host-1".into() });
    world.schedule(5 * SECOND, Action::GuestPowerOff { vm: "vm1".into() });
    world.run_until(25 * SECOND);
    assert_eq!(world.violation(), None);
    assert_eq!(world.executing(0).collect::<Vec<_>>(), [1]);
    assert!(!StopCause::Unknown.is_intended());
}
