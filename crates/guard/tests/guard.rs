//! The guard on real processes: a busy shell with `-uuid` on its command line stands for QEMU.

mod common;

use common::{Agent, Busy, World};
use mainstay_guard::freezer::{Freezer, Hold};
use mainstay_guard::qemu::Process;
use mainstay_testkit::wait_until;
use mainstay_words::{GuardOrder, GuardReport, ProcessState};
use std::process::{Command, Stdio};

/// Freezers that this machine lets us try. SIGSTOP always.
fn freezers() -> Vec<(&'static str, Freezer)> {
    let mut all = vec![("SIGSTOP", Freezer::by_signal())];
    let found = Freezer::find();
    let legacy = found.clone().without_unified();
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: control groups need root");
        return all;
    }
    if legacy != found {
        all.push(("cgroup version 2", found));
    } else {
        eprintln!("skipped: no cgroup version 2 here");
    }
    if legacy.has_groups() {
        all.push(("cgroup version 1", legacy));
    } else {
        eprintln!("skipped: no cgroup version 1 freezer here");
    }
    all
}

#[test]
fn a_process_is_frozen_thawed_and_killed_by_each_freezer() {
    for (name, freezer) in freezers() {
        let busy = Busy::start();
        let process = Process::open(busy.pid(), busy.vm).expect("it is there");
        let mut hold = if freezer.has_groups() {
            freezer.prepare(busy.vm, process)
        } else {
            Hold::unprepared(busy.vm, process)
        };
        assert_eq!(hold.is_prepared(), freezer.has_groups(), "{name}");
        assert_eq!(hold.state(), ProcessState::Runs, "{name}");
        for _ in 0..3 {
            hold.freeze(&freezer, false);
            wait_until("frozen", || hold.state() == ProcessState::Frozen);
            // Another look at it, as by another run of the guard.
            let again = freezer.prepare(busy.vm, hold.process.clone());
            assert_eq!(again.state(), ProcessState::Frozen, "{name}");
            hold.thaw();
            wait_until("running", || hold.state() == ProcessState::Runs);
        }
        // Everything at once, and a thaw by somebody who knows nothing of it.
        hold.freeze(&freezer, true);
        wait_until("frozen", || hold.state() == ProcessState::Frozen);
        freezer.prepare(busy.vm, hold.process.clone()).thaw();
        wait_until("running", || hold.state() == ProcessState::Runs);
        hold.freeze(&freezer, false);
        wait_until("frozen", || hold.state() == ProcessState::Frozen);
        assert!(!hold.remove_group() || !freezer.has_groups(), "{name}: not while it is there");
        hold.kill();
        busy.reap();
        assert_eq!(hold.state(), ProcessState::Absent, "{name}");
        wait_until("no group left behind", || hold.remove_group());
    }
}

#[test]
fn a_vm_is_frozen_when_the_lease_ends_and_thawed_in_the_new_term() {
    for (name, freezer) in freezers() {
        let world = World::new();
        let busy = Busy::start();
        let guard = world.guard(freezer);
        let mut agent = Agent::connect(&world);
        let first = agent.lease(|_, until| until > mainstay_guard::clock::now());
        agent.watch(&[busy.vm]);
        agent.wait_for_vm(busy.vm, ProcessState::Runs);

        // The datastore is gone: no heartbeat lands, and nobody else renews.
        world.take_datastore_away();
        agent.wait_for_vm(busy.vm, ProcessState::Frozen);
        assert_eq!(agent.terms(), Some(first.0), "{name}");

        world.give_datastore_back();
        let second = agent.lease(|term, _| term > first.0);
        agent.order(&GuardOrder::Thaw { vm: busy.vm, term: first.0 });
        agent.lease(|term, _| term == second.0);
        agent.order(&GuardOrder::Thaw { vm: busy.vm, term: second.0 });
        agent.wait_for_vm(busy.vm, ProcessState::Runs);

        agent.order(&GuardOrder::Kill { vm: busy.vm });
        busy.reap();
        agent.wait_for_vm(busy.vm, ProcessState::Ended);
        drop(guard);
    }
}

#[test]
fn a_lease_passed_on_by_the_agent_counts_without_any_datastore() {
    let world = World::new();
    world.take_datastore_away();
    let busy = Busy::start();
    let _guard = world.guard(Freezer::by_signal());
    let mut agent = Agent::connect(&world);
    agent.watch(&[busy.vm]);
    agent.wait_for_vm(busy.vm, ProcessState::Frozen);
    let until = mainstay_guard::clock::now() + mainstay_words::Span::from_secs(8);
    agent.order(&GuardOrder::Lease { datastore: world.datastore(), until });
    let (term, _) = agent.lease(|_, end| end == until);
    agent.order(&GuardOrder::Thaw { vm: busy.vm, term });
    agent.wait_for_vm(busy.vm, ProcessState::Runs);
    agent.wait_for_vm(busy.vm, ProcessState::Frozen);
    assert!(mainstay_guard::clock::now() >= until);
}

#[test]
fn a_vm_that_appears_when_the_lease_is_over_is_frozen_when_it_is_adopted() {
    let world = World::new();
    world.take_datastore_away();
    let _guard = world.guard(Freezer::by_signal());
    let mut agent = Agent::connect(&world);
    let vm = common::fresh_vm();
    agent.watch(&[vm]);
    agent.wait_for_vm(vm, ProcessState::Absent);
    let busy = Busy::start_as(vm);
    agent.order(&GuardOrder::Adopt { vm });
    agent.wait_for_vm(busy.vm, ProcessState::Frozen);
}

#[test]
fn a_process_has_ended_only_for_a_guard_that_knew_it() {
    let world = World::new();
    let _guard = world.guard(Freezer::by_signal());
    let mut agent = Agent::connect(&world);
    agent.lease(|_, until| until > mainstay_guard::clock::now());
    let busy = Busy::start();
    let vm = busy.vm;
    agent.watch(&[vm]);
    agent.wait_for_vm(vm, ProcessState::Runs);

    // Nobody asks: the guard looks by itself.
    drop(busy);
    agent.wait_for_vm(vm, ProcessState::Ended);
    // The next agent is told too.
    let mut next = Agent::connect(&world);
    next.wait_for_vm(vm, ProcessState::Ended);
    let never = common::fresh_vm();
    next.watch(&[vm, never]);
    next.wait_for_vm(never, ProcessState::Absent);
    // Another process of the VM is another matter.
    let again = Busy::start_as(vm);
    next.order(&GuardOrder::Adopt { vm });
    next.wait_for_vm(again.vm, ProcessState::Runs);
}

#[test]
fn an_agent_that_does_not_read_loses_its_connection_and_delays_nobody() {
    let world = World::new();
    let _guard = world.guard(Freezer::by_signal());
    let mut deaf = Agent::connect(&world);
    let vm = common::fresh_vm();
    deaf.watch(&[vm]);
    // Each is answered by the present term; none is read.
    deaf.order_until_closed(&GuardOrder::Thaw { vm, term: 0 });
    let mut second = Agent::connect(&world);
    second.wait_for_vm(vm, ProcessState::Absent);
}

#[test]
fn a_newer_agent_takes_the_place_of_an_older_one() {
    let world = World::new();
    let _guard = world.guard(Freezer::by_signal());
    let mut first = Agent::connect(&world);
    let mut second = Agent::connect(&world);
    assert!(matches!(second.first_report(), GuardReport::Hello { .. }));
    first.wait_for_end();
    let vm = common::fresh_vm();
    second.watch(&[vm]);
    second.wait_for_vm(vm, ProcessState::Absent);
}

#[test]
fn a_guard_that_was_killed_is_followed_by_one_that_knows_its_vms() {
    let world = World::new();
    let busy = Busy::start();
    let mut first = world.guard_process();
    let mut agent = Agent::connect(&world);
    let (_, until) = agent.lease(|_, until| until > mainstay_guard::clock::now());
    agent.watch(&[busy.vm]);
    agent.wait_for_vm(busy.vm, ProcessState::Runs);
    world.wait_until_kept(busy.vm);
    world.take_datastore_away();
    first.kill();
    agent.wait_for_end();

    // Nobody tells the second one anything: it freezes the VM at the end of the lease that the first one had.
    let second = world.guard_process();
    let vm = busy.vm;
    wait_until("frozen", || busy.is_frozen());
    assert!(mainstay_guard::clock::now() >= until);
    let mut agent = Agent::connect(&world);
    agent.wait_for_vm(vm, ProcessState::Frozen);
    let text = second.stop();
    assert!(text.contains("these VMs stay frozen") && text.contains(&vm.to_string()), "{text}");
    assert!(busy.is_frozen());
}

#[test]
fn a_second_guard_is_refused_and_a_watchdog_is_fed() {
    let mut world = World::new();
    let fifo = world.add_watchdog();
    let guard = world.guard_process();
    // It has its lock by then.
    fifo.wait_for(b".");
    let refusal = Command::new(env!("CARGO_BIN_EXE_mainstay-guard"))
        .arg("--config")
        .arg(world.settings_file())
        .stdin(Stdio::null())
        .output()
        .expect("it starts");
    let text = String::from_utf8_lossy(&refusal.stderr).into_owned();
    assert!(!refusal.status.success() && text.contains("already guards this host"), "{text}");
    fifo.wait_for(b"...");
    guard.stop();
    fifo.wait_for(b"V");
}
