//! A host is isolated, and each VM has its own isolation response. The case that administrators of old met: others tried to
//! restart VMs before the isolated host had stopped them, and ran into the lock of their disks. Here, nobody runs into it:
//! the check after every step looks for those lines in all logs.

use std::time::Instant;

use mainstay_lab::{Cut, GuestCommand, Net};
use mainstay_words::register::{IsolationResponse, StopCause};
use mainstay_words::{Event, VmName};

use crate::support::{Alarm, Cluster, Setup, alarms};

/// On each of the two hosts that are isolated in turn: one for each response, the last one with a guest that ignores its button.
const RESPONSES: [&[&str]; 4] = [
    &["--isolation-response", "leave"],
    &["--isolation-response", "power_off"],
    &["--isolation-response", "shutdown"],
    &["--isolation-response", "shutdown", "--shutdown-timeout", "5"],
];

fn applied(c: &Cluster, name: &str) -> Option<IsolationResponse> {
    c.events().into_iter().find_map(|e| match e.event {
        Some(Event::IsolationResponseApplied { vm, response }) if *vm.name == *name => Some(response),
        Some(_) | None => None,
    })
}

/// The places of a VM's events of these kinds, in the order of time.
fn order(c: &Cluster, name: &str) -> Vec<&'static str> {
    let of_it = |vm: &VmName| *vm.name == *name;
    let word = |e: &Event| {
        if matches!(e, Event::ResponsibilityTaken { vm, .. } if of_it(vm)) {
            Some("responsible")
        } else if matches!(e, Event::IsolationResponseApplied { vm, .. } if of_it(vm)) {
            Some("response")
        } else if matches!(e, Event::VmStopped { vm, restart: true, cause: StopCause::Isolation, .. } if of_it(vm))
        {
            Some("stopped")
        } else {
            matches!(e, Event::VmStarted { vm, .. } if of_it(vm)).then_some("started")
        }
    };
    let mut words: Vec<&str> = c.events().iter().filter_map(|e| e.event.as_ref().and_then(word)).collect();
    words.dedup();
    words
}

#[test]
fn three_hosts_isolated_with_each_response() {
    let setup = Setup { vms: &[1, 1, 1, 1, 2, 2, 2, 2, 3], ..Setup::default() };
    let Some(mut c) = Cluster::up(setup) else { return };
    c.step("each VM gets its response", crate::support::calm(), |c| {
        for (index, response) in RESPONSES.iter().cycle().take(8).enumerate() {
            c.set(&format!("vm{}", index + 1), response);
        }
        for stubborn in ["vm4", "vm8"] {
            c.lab.send_command(stubborn, GuestCommand::IgnorePowerButton).expect("told");
        }
        c.wait("all to be known", || {
            c.vm_view("vm8").is_some_and(|v| v.isolation_response == IsolationResponse::ShutDown)
        });
        c.settle(&[]);
    });

    c.step(
        "a host is isolated, its storage is kept",
        alarms(&[Alarm::Isolated(1)]).perhaps(&[Alarm::Storm]),
        |c| {
            let (before, running) = (c.boots(), c.running());
            let moved = ["vm2", "vm3", "vm4"];
            c.watched(|watch| {
                let began = Instant::now();
                c.host(1).cut(Net::Mgmt, Cut::Silent).expect("cut");
                c.wait("its VMs to run elsewhere", || {
                    moved.iter().all(|vm| watch.booted(vm, began).is_some())
                });
                c.wait_for_journals();
                for (vm, name) in moved.iter().zip(["power_off", "shutdown", "shutdown_ignored"]) {
                    watch.figure(&format!("isolated_{name}"), began, 1, &[vm]);
                    assert_eq!(
                        order(c, vm),
                        ["responsible", "response", "stopped", "started"],
                        "{vm}\n{}",
                        c.story()
                    );
                }
                assert_eq!(applied(c, "vm2"), Some(IsolationResponse::PowerOff));
                assert_eq!(applied(c, "vm3"), Some(IsolationResponse::ShutDown));
                let timed_out =
                    |e: &Event| matches!(e, Event::ShutdownTimedOut { vm, .. } if &*vm.name == "vm4");
                assert!(c.seen(timed_out), "{}", c.story());
                let others =
                    |e: &Event| matches!(e, Event::ShutdownTimedOut { vm, .. } if &*vm.name != "vm4");
                assert!(!c.seen(others), "{}", c.story());
                assert_eq!(c.running()["vm1"], running["vm1"], "left powered on");
                c.host(1).join(Net::Mgmt).expect("joined");
                c.settle(&[]);
                assert_eq!(c.running()["vm1"], running["vm1"], "left powered on");
                watch.figure("isolated_leave", began, 1, &["vm1"]);
            });
            c.assert_restarted_once(&before, &moved.map(String::from).into());
            let record = c.lab.guest_record("vm3").expect("its record");
            assert_eq!(record.offs, 1, "vm3 has shut itself down");
        },
    );

    let frozen = ["vm5", "vm6", "vm7", "vm8"];
    let mut expected: Vec<Alarm> = frozen.map(Alarm::Frozen).to_vec();
    expected.push(Alarm::Failed(2));
    // Other VMs may have come to it in the step before, and its storage is out of reach.
    let mut perhaps: Vec<Alarm> = ["vm2", "vm3", "vm4"].map(Alarm::Frozen).to_vec();
    perhaps.extend([
        Alarm::Isolated(2),
        Alarm::DatastoreLost("ds1"),
        Alarm::Storm,
        Alarm::AgentUnreachable(2),
        Alarm::SeenBy(2),
    ]);
    c.step(
        "a host is isolated, and its storage goes with the network",
        alarms(&expected).perhaps(&perhaps),
        |c| {
            let (before, moved) = (c.boots(), c.vms_on(2));
            c.watched(|watch| {
                let began = Instant::now();
                for net in Net::ALL {
                    c.host(2).cut(net, Cut::Silent).expect("cut");
                }
                c.wait("its VMs to run elsewhere", || {
                    moved.iter().all(|vm| watch.booted(vm, began).is_some())
                });
                for vm in frozen {
                    assert!(watch.frozen(vm, 2, began).is_some(), "{vm} was not frozen\n{}", c.story());
                    assert_eq!(applied(c, vm), None, "frozen, not stopped");
                    let copies = c.lab.runners(vm).expect("the runners");
                    assert!(
                        copies.iter().any(|r| r.host == 2 && r.stopped),
                        "{vm} is still there, frozen: {copies:?}"
                    );
                }
                c.lab.heal().expect("healed");
                c.settle(&[]);
                watch.figure("isolated_without_storage", began, 2, &frozen);
            });
            c.assert_restarted_once(&before, &moved);
        },
    );
    c.down();
}
