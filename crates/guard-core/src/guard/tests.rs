use super::*;
use alloc::vec;
use mainstay_words::ids::{BootId, HostId};
use mainstay_words::timing::Timing;

const VM: VmId = VmId([7; 16]);

fn ds() -> DatastoreName {
    "ds1".into()
}

fn config(leases: BTreeMap<DatastoreName, Time>) -> GuardConfig {
    GuardConfig {
        me: HostId::new("host-1"),
        datastores: vec![ds()],
        timing: Timing::STANDARD,
        boot: BootId([1; 16]),
        incarnation: Incarnation(9),
        leases,
        holds: BTreeMap::new(),
    }
}

fn at(ms: u64) -> Time {
    Time(ms * 1_000)
}

fn step(guard: &mut Guard, ms: u64, input: GuardInput) -> Vec<GuardEffect> {
    let mut effects = Vec::new();
    guard.step(at(ms), input, &mut effects);
    effects
}

fn op_of(effects: &[GuardEffect]) -> OpId {
    let op = |effect: &GuardEffect| match effect {
        GuardEffect::Write { op, .. } => Some(*op),
        _ => None,
    };
    effects.iter().find_map(op).expect("a heartbeat is written")
}

fn freezes(effects: &[GuardEffect]) -> bool {
    effects.contains(&GuardEffect::Freeze { vm: VM })
}

/// A guard that watches a running VM and has a lease from a write started at 0 s: until 3 s.
fn watching() -> Guard {
    let mut guard = Guard::new(config(BTreeMap::new()), at(0));
    let op = op_of(&step(&mut guard, 0, GuardInput::Tick));
    step(&mut guard, 500, GuardInput::Written { op, error: None });
    step(&mut guard, 600, GuardInput::Order(GuardOrder::Watch { datastore: ds(), vms: vec![VM] }));
    step(&mut guard, 601, GuardInput::Process { vm: VM, state: ProcessState::Runs });
    guard
}

#[test]
fn a_lease_counts_from_the_start_of_the_write_and_its_end_freezes() {
    let mut guard = watching();
    assert_eq!(guard.lease(&ds()), Some(at(3_000)));
    assert!(!freezes(&step(&mut guard, 2_999, GuardInput::Tick)));
    assert!(guard.next_deadline() <= at(3_000));
    assert!(freezes(&step(&mut guard, 3_000, GuardInput::Tick)));
}

#[test]
fn a_write_that_is_answered_after_the_lease_it_would_give_renews_nothing() {
    let mut guard = watching();
    let op = op_of(&step(&mut guard, 1_000, GuardInput::Tick));
    let effects = step(&mut guard, 4_100, GuardInput::Written { op, error: None });
    assert!(freezes(&effects));
    assert_eq!(guard.lease(&ds()), Some(at(3_000)));
}

#[test]
fn the_agent_may_renew_by_network_while_the_datastore_hangs() {
    let mut guard = watching();
    step(&mut guard, 2_000, GuardInput::Order(GuardOrder::Lease { datastore: ds(), until: at(4_500) }));
    assert!(!freezes(&step(&mut guard, 3_000, GuardInput::Tick)));
    assert!(freezes(&step(&mut guard, 4_500, GuardInput::Tick)));
}

#[test]
fn a_thaw_counts_only_in_the_term_of_its_look() {
    let mut guard = watching();
    let op = op_of(&step(&mut guard, 1_000, GuardInput::Tick));
    step(&mut guard, 3_000, GuardInput::Tick);
    step(&mut guard, 3_001, GuardInput::Process { vm: VM, state: ProcessState::Frozen });
    let thaw = |term| GuardInput::Order(GuardOrder::Thaw { vm: VM, term });
    assert!(!step(&mut guard, 3_500, thaw(1)).contains(&GuardEffect::Thaw { vm: VM }));
    let effects = step(&mut guard, 3_600, GuardInput::Written { op, error: None });
    let report = GuardReport::Lease { datastore: ds(), term: 2, until: at(4_000) };
    assert!(effects.contains(&GuardEffect::Report(report)));
    assert!(!step(&mut guard, 3_700, thaw(1)).contains(&GuardEffect::Thaw { vm: VM }));
    assert!(step(&mut guard, 3_701, thaw(2)).contains(&GuardEffect::Thaw { vm: VM }));
    assert!(!step(&mut guard, 4_000, thaw(2)).contains(&GuardEffect::Thaw { vm: VM }));
}

#[test]
fn a_vm_that_is_watched_without_a_lease_is_frozen_at_once_and_again_if_that_failed() {
    let mut guard = Guard::new(config(BTreeMap::new()), at(0));
    step(&mut guard, 0, GuardInput::Tick);
    let watch = GuardInput::Order(GuardOrder::Watch { datastore: ds(), vms: vec![VM] });
    assert!(freezes(&step(&mut guard, 100, watch)));
    step(&mut guard, 101, GuardInput::Process { vm: VM, state: ProcessState::Runs });
    assert_eq!(guard.next_deadline(), at(121));
    assert!(freezes(&step(&mut guard, 121, GuardInput::Tick)));
}

#[test]
fn the_next_guard_goes_on_with_the_lease_that_was_kept() {
    let mut guard = Guard::new(config(BTreeMap::from([(ds(), at(3_000))])), at(1_000));
    let watch = GuardInput::Order(GuardOrder::Watch { datastore: ds(), vms: vec![VM] });
    assert!(!freezes(&step(&mut guard, 1_001, watch)));
    step(&mut guard, 1_002, GuardInput::Process { vm: VM, state: ProcessState::Runs });
    assert!(freezes(&step(&mut guard, 3_000, GuardInput::Tick)));
}

#[test]
fn its_heartbeat_says_whether_the_agent_is_well() {
    let mut guard = Guard::new(config(BTreeMap::new()), at(0));
    let alive = GuardInput::Order(GuardOrder::Alive { incarnation: Incarnation(4), files: None });
    let well = |effects: &[GuardEffect]| {
        effects.iter().find_map(|effect| match effect {
            GuardEffect::Write { register, .. } => Some((register.agent, register.agent_well)),
            _ => None,
        })
    };
    assert_eq!(well(&step(&mut guard, 0, alive)), Some((Some(Incarnation(4)), true)));
    let op = guard.datastores[&ds()].in_flight.expect("written").op;
    step(&mut guard, 10, GuardInput::Written { op, error: None });
    assert_eq!(well(&step(&mut guard, 3_000, GuardInput::Tick)), Some((Some(Incarnation(4)), false)));
    let op = guard.datastores[&ds()].in_flight.expect("written").op;
    step(&mut guard, 3_010, GuardInput::Written { op, error: None });
    step(&mut guard, 3_020, GuardInput::AgentGone);
    assert_eq!(well(&step(&mut guard, 4_000, GuardInput::Tick)), Some((None, false)));
}

fn hold_of(effects: &[GuardEffect]) -> Option<Span> {
    effects.iter().find_map(|effect| match effect {
        GuardEffect::Write { register, .. } => register.hold,
        _ => None,
    })
}

#[test]
fn a_hold_counts_when_a_heartbeat_that_tells_of_it_is_on_disk() {
    let hold = GuardInput::Order(GuardOrder::Hold { datastore: ds(), until: at(60_000) });
    // On disk: the end of the lease freezes nothing, the end of the hold does.
    let mut guard = watching();
    let effects = step(&mut guard, 1_000, hold.clone());
    assert_eq!(hold_of(&effects), Some(Span::from_secs(59)));
    let op = op_of(&effects);
    // The first of the two; the second follows at once.
    let effects = step(&mut guard, 1_010, GuardInput::Written { op, error: None });
    let kept = GuardEffect::KeepHold { datastore: ds(), until: at(60_000) };
    assert!(!effects.contains(&kept));
    let op = op_of(&effects);
    let effects = step(&mut guard, 1_020, GuardInput::Written { op, error: None });
    assert!(effects.contains(&kept));
    assert!(!freezes(&step(&mut guard, 30_000, GuardInput::Tick)));
    assert!(guard.next_deadline() <= at(60_000));
    assert!(freezes(&step(&mut guard, 60_000, GuardInput::Tick)));
    // Not on disk, or only one of them: leases count.
    let mut guard = watching();
    step(&mut guard, 1_000, hold.clone());
    assert!(freezes(&step(&mut guard, 3_000, GuardInput::Tick)));
    let mut guard = watching();
    let op = op_of(&step(&mut guard, 1_000, hold));
    step(&mut guard, 1_010, GuardInput::Written { op, error: None });
    assert!(freezes(&step(&mut guard, 4_000, GuardInput::Tick)));
}

#[test]
fn a_hold_that_comes_too_late_thaws_nothing() {
    let mut guard = watching();
    let op = op_of(&step(&mut guard, 1_000, GuardInput::Tick));
    assert!(freezes(&step(&mut guard, 3_000, GuardInput::Tick)));
    step(&mut guard, 3_001, GuardInput::Process { vm: VM, state: ProcessState::Frozen });
    step(&mut guard, 3_100, GuardInput::Order(GuardOrder::Hold { datastore: ds(), until: at(60_000) }));
    let op = {
        let effects = step(&mut guard, 3_200, GuardInput::Written { op, error: None });
        op_of(&effects)
    };
    let effects = step(&mut guard, 3_300, GuardInput::Written { op, error: None });
    assert!(!effects.contains(&GuardEffect::Thaw { vm: VM }));
    // The lease came back with another term; the agent has to look first (R51).
    let thaw = |term| GuardInput::Order(GuardOrder::Thaw { vm: VM, term });
    assert!(!step(&mut guard, 3_400, thaw(1)).contains(&GuardEffect::Thaw { vm: VM }));
    assert!(step(&mut guard, 3_401, thaw(2)).contains(&GuardEffect::Thaw { vm: VM }));
}

#[test]
fn the_end_of_a_hold_freezes_what_has_no_lease_and_is_told_by_the_next_heartbeat() {
    let mut guard = watching();
    let hold = GuardInput::Order(GuardOrder::Hold { datastore: ds(), until: at(60_000) });
    let op = op_of(&step(&mut guard, 1_000, hold));
    let op = op_of(&step(&mut guard, 1_010, GuardInput::Written { op, error: None }));
    let effects = step(&mut guard, 1_020, GuardInput::Written { op, error: None });
    assert!(effects.contains(&GuardEffect::KeepHold { datastore: ds(), until: at(60_000) }));
    let effects = step(&mut guard, 2_010, GuardInput::Tick);
    let op = op_of(&effects);
    assert!(hold_of(&effects).is_some());
    step(&mut guard, 2_100, GuardInput::Written { op, error: Some("gone".into()) });
    let effects = step(&mut guard, 20_000, GuardInput::Order(GuardOrder::EndHold { datastore: ds() }));
    assert!(freezes(&effects));
    assert!(effects.contains(&GuardEffect::KeepHold { datastore: ds(), until: Time(0) }));
    // And the next run of the guard finds the hold, as long as it stands.
    let kept = GuardConfig { holds: BTreeMap::from([(ds(), at(60_000))]), ..config(BTreeMap::new()) };
    let mut guard = Guard::new(kept, at(10_000));
    let watch = GuardInput::Order(GuardOrder::Watch { datastore: ds(), vms: vec![VM] });
    assert!(!freezes(&step(&mut guard, 10_001, watch)));
    assert!(freezes(&step(&mut guard, 60_000, GuardInput::Tick)));
}
