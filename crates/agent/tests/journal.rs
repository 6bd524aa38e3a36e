//! The journal: continues over restarts, tolerates torn and strange lines, stays bounded; and the alarms that stand.

use mainstay_agent::alarms::StandingAlarms;
use mainstay_agent::journal::{Journal, RING_MAX};
use mainstay_api::EventRecord;
use mainstay_core::event::VmName;
use mainstay_core::host_liveness::HostState;
use mainstay_core::ids::{DatastoreName, HostId, Incarnation, VmId};
use mainstay_core::register::{IsolationResponse, Priority, StopCause, Suspension};
use mainstay_core::view::{Role, SuspensionView, View, VmState, VmView};
use mainstay_core::{Event, Severity, Span, Time, Timing};
use mainstay_testkit::{wait_for_ok, wait_until};
use std::fs;
use std::path::Path;

fn lost(datastore: &str) -> Event {
    Event::DatastoreLost { datastore: DatastoreName::new(datastore), reason: "stale".into() }
}

fn open(dir: &Path, incarnation: u64) -> Journal {
    Journal::open(dir, HostId::new("host-1"), Incarnation(incarnation)).expect("a journal")
}

/// Waits until the file holds so many lines: another thread writes them.
fn lines(path: &Path, count: usize) -> String {
    wait_for_ok(&format!("{count} lines"), || {
        let text = fs::read_to_string(path).unwrap_or_default();
        if text.matches('\n').count() >= count { Ok(text) } else { Err(text) }
    })
}

#[test]
fn sequence_and_memory_continue_after_a_restart_with_a_torn_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("events.jsonl");
    let journal = open(dir.path(), 1);
    journal.record(Time(5), Event::AgentStarted { rebooted: false });
    journal.record(Time(6), lost("ds1"));
    let text = lines(&path, 2);
    drop(journal);
    fs::write(&path, format!("{text}{{\"host\":\"host-1\",\"at_un")).expect("a torn line");

    let journal = open(dir.path(), 2);
    assert_eq!(journal.newest(), 2);
    journal.record(Time(7), Event::HypervisorBack);
    lines(&path, 4);
    let kept = journal.after(0, 10);
    let told: Vec<(u64, u64)> = kept.iter().map(|record| (record.sequence, record.incarnation.0)).collect();
    assert_eq!(told, [(1, 1), (2, 1), (3, 2)]);
    drop(journal);
    assert_eq!(open(dir.path(), 3).newest(), 3, "the line after the torn one is whole");
}

#[test]
fn files_are_rotated_and_memory_is_bounded() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal =
        Journal::open_sized(dir.path(), HostId::new("host-1"), Incarnation(1), 20_000).expect("a journal");
    for n in 0..RING_MAX as u64 + 10 {
        journal.record(Time(n), Event::HypervisorBack);
        if n % 100 == 99 {
            // As fast as the writer is, so that none is dropped: it has written when the newest file ends with that line.
            let wanted = format!("\"sequence\":{},", n + 1);
            let newest = dir.path().join("events.jsonl");
            wait_until(&wanted, || fs::read_to_string(&newest).unwrap_or_default().contains(&wanted));
        }
    }
    assert_eq!(journal.after(0, usize::MAX).len(), RING_MAX);
    assert_eq!(journal.after(0, 3).first().map(|record| record.sequence), Some(RING_MAX as u64 + 8));
    assert_eq!(journal.lines_dropped(), 0);
    let size = |name: &str| fs::metadata(dir.path().join(name)).expect(name).len();
    assert!(size("events.jsonl") <= 20_000 && size("events.1.jsonl") <= 20_000);
}

#[test]
fn a_directory_that_is_not_there_is_refused_with_the_remedy() {
    let refusal =
        Journal::open(Path::new("/nowhere"), HostId::new("host-1"), Incarnation(1)).err().expect("refused");
    assert_eq!(
        refusal.to_string(),
        "the event log /nowhere/events.jsonl can't be opened: No such file or directory (os error 2); make state_dir a directory that this agent may write to"
    );
}

fn view(vm: VmId, state: VmState) -> View {
    let shown = VmView {
        vm,
        name: "web".into(),
        datastore: DatastoreName::new("ds1"),
        host: None,
        state,
        protected: false,
        unprotected: false,
        note: None,
        priority: Priority::Medium,
        token: None,
        memory_mib: 1,
        vcpus: 1,
        isolation_response: IsolationResponse::LeavePoweredOn,
        isolation_response_own: false,
        shutdown_timeout: Span::from_secs(300),
        shutdown_timeout_own: false,
        order: None,
    };
    let suspension = Suspension { left: Span::from_secs(60), stands: true };
    View {
        host: HostId::new("host-1"),
        now: Time(0),
        role: Role::Primary,
        primary: None,
        primary_reason: None,
        timing: Timing::STANDARD,
        hosts: vec![],
        datastores: vec![],
        vms: vec![shown],
        hypervisor_well: true,
        isolated: false,
        guard: true,
        settings: Default::default(),
        suspensions: vec![SuspensionView { datastore: "ds1".into(), suspension, waits_for: None }],
        objection: Some("too full".into()),
    }
}

#[test]
fn alarms_stand_until_an_event_ends_them() {
    let id = VmId([1; 16]);
    let vm = || VmName { id, name: "web".into() };
    let host = || HostId::new("host-2");
    let state = |to| Event::HostStateChanged {
        host: host(),
        from: HostState::Connected,
        to,
        last_evidence: Span(1),
        cut_off: false,
    };
    let waits = || Event::VmWaitsForHost { vm: vm(), reasons: vec![] };
    let put_off = || Event::VmWaitsForOthers { vm: vm(), reason: "waits for db".into() };
    let silent = || Event::HypervisorSilent { lasting: Span::from_secs(60) };
    let twice = || Event::VmActiveTwice { vm: vm(), holder: host(), other: HostId::new("host-3") };
    let bad = || Event::VmNotProtectable { vm: vm(), reason: "no".into() };
    let back = |datastore: &str| Event::DatastoreBack { datastore: DatastoreName::new(datastore) };
    let granted = || Event::VmGranted {
        vm: vm(),
        host: host(),
        token: Default::default(),
        attempt: 1,
        reason: "x".into(),
    };
    let protected = || Event::VmProtected { vm: vm(), host: host(), datastore: DatastoreName::new("ds1") };
    let stopped = || Event::VmStopped { vm: vm(), host: host(), cause: StopCause::Crashed, restart: true };
    let suspended = |datastore: &str| Event::ProtectionSuspended {
        datastore: DatastoreName::new(datastore),
        left: Span::from_secs(60),
    };
    let resumed = || Event::ProtectionResumed { datastore: DatastoreName::new("ds1"), reason: "x".into() };
    let disowned = |datastore: &str| Event::OwnershipLost {
        datastore: DatastoreName::new(datastore),
        epoch: Default::default(),
        reason: "x".into(),
    };
    let full = || Event::AdmissionNotMet { objection: "too full".into() };
    let stepped_down = || Event::SteppedDown { reason: "x".into() };
    let mute = |again| Event::VmNotVerified { vm: vm(), host: host(), again };
    let restarted = || Event::VmRestarted { vm: vm(), from: None, to: host(), attempts: 2 };
    // What happened, and how many alarms stand after it.
    let table: Vec<(Vec<Event>, usize)> = vec![
        (vec![lost("ds1")], 1),
        (vec![lost("ds1"), lost("ds1")], 1),
        (vec![lost("ds1"), lost("ds2"), back("ds1")], 1),
        (vec![lost("ds1"), back("ds1")], 0),
        (vec![lost("ds1"), Event::AgentStarted { rebooted: true }], 0),
        (vec![state(HostState::Failed)], 1),
        (vec![state(HostState::Partitioned)], 0),
        (vec![state(HostState::AgentUnreachable), state(HostState::Failed)], 1),
        (vec![state(HostState::Failed), state(HostState::Connected)], 0),
        (vec![state(HostState::Failed), Event::SteppedDown { reason: "x".into() }], 0),
        (vec![waits(), granted()], 0),
        (vec![waits(), Event::HypervisorLost], 1),
        // A host could take it, and it is put off: no alarm, until no host can.
        (vec![waits(), put_off()], 0),
        (vec![waits(), put_off(), waits()], 1),
        (vec![Event::HypervisorLost], 0),
        (vec![Event::HypervisorLost, silent(), silent()], 1),
        (vec![silent(), stepped_down()], 1),
        (vec![silent(), Event::HypervisorBack], 0),
        (vec![bad(), granted()], 1),
        (vec![bad(), protected()], 0),
        (vec![twice(), stopped()], 0),
        (vec![twice(), stepped_down()], 0),
        (vec![twice(), bad(), waits()], 3),
        (vec![suspended("ds1"), suspended("ds1")], 1),
        (vec![suspended("ds1"), resumed()], 0),
        (vec![suspended("ds1"), disowned("ds2")], 1),
        (vec![suspended("ds1"), disowned("ds1")], 0),
        (vec![suspended("ds1"), stepped_down()], 0),
        (vec![full()], 1),
        (vec![full(), Event::AdmissionMet], 0),
        (vec![full(), stepped_down()], 0),
        // Left running although its guest is mute, it counts as restarted and protected.
        (vec![mute(false), restarted(), protected()], 1),
        (vec![mute(true)], 0),
        (vec![mute(false), stopped()], 0),
        (vec![mute(false), granted()], 0),
        (vec![mute(false), stepped_down()], 0),
    ];
    for (events, standing) in table {
        let mut alarms = StandingAlarms::default();
        for (sequence, event) in (1u64..).zip(&events) {
            alarms.note(&EventRecord {
                host: HostId::new("host-1"),
                at_unix_us: sequence,
                at: Time(sequence),
                incarnation: Incarnation(1),
                sequence,
                severity: event.severity(),
                text: event.to_string(),
                event: Some(event.clone()),
            });
        }
        let list = alarms.list(&view(id, VmState::Waiting));
        assert_eq!(list.len(), standing, "{events:?}");
        assert!(list.iter().all(|alarm| alarm.severity == Severity::Alarm));
        assert!(list.is_sorted_by_key(|alarm| alarm.sequence));
        // A VM that a later owner has placed waits no more, though no event here said so.
        let waiting = list.iter().filter(|alarm| alarm.event.as_ref() == Some(&waits())).count();
        let mut later = view(id, VmState::Running);
        assert_eq!(alarms.list(&later).len(), standing - waiting, "{events:?}");
        // Neither does any event say so of what an owner elsewhere has ended.
        later.suspensions.clear();
        later.objection = None;
        let settled = |alarm: &&EventRecord| {
            matches!(alarm.event, Some(Event::ProtectionSuspended { .. } | Event::AdmissionNotMet { .. }))
        };
        let settled = list.iter().filter(settled).count();
        assert_eq!(alarms.list(&later).len(), standing - waiting - settled, "{events:?}");
    }
}
