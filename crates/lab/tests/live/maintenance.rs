//! Planned work: hosts are emptied for maintenance, and protection is suspended.

use std::time::{Duration, Instant};

use mainstay_lab::{Cut, GuestKind, Net, VmOptions};
use mainstay_words::Event;
use mainstay_words::HostState;
use mainstay_words::ids::HostId;
use mainstay_words::register::OrderKind;
use mainstay_words::view::{HostView, SuspensionView, VmState, VmView};

use crate::support::{Alarm, Boots, Cluster, LONG, Setup, alarms, calm, id, returning};
use crate::watch::Watch;

/// Guests that write all the time: eighteen times a second.
fn define_busy(c: &Cluster, host: usize, vm: &str) {
    let options = VmOptions { guest: GuestKind::Beating { beat_ticks: 1 }, ..VmOptions::default() };
    c.lab.define_vm(host, vm, &options).expect("a VM");
}

/// What must be so when VMs were live-migrated: nobody was restarted, and how long the guest that was away longest made no progress.
/// Where this machine or its disk stands still, guests that were not moved do so too. (Both hosts have a QEMU meanwhile: two guests at
/// once would be found by the guests themselves.)
fn assert_migrated(c: &Cluster, watch: &Watch, name: &str, before: &Boots, vms: &[&str], since: Instant) {
    assert_eq!(*before, c.boots(), "somebody was restarted\n{}", c.story());
    let story = c.story();
    assert!(!c.seen(|e| matches!(e, Event::VmFrozen { .. } | Event::VmRestarted { .. })), "{story}");
    let others = before.keys().map(String::as_str).filter(|vm| !vms.contains(vm));
    let unmoved = others.map(|vm| watch.pause(&[vm], since)).min().unwrap_or_default();
    let pause = watch.pause(vms, since);
    eprintln!("figure: {name} vms={} longest_pause={:.2}", vms.len(), pause.as_secs_f64());
    let limit = Duration::from_secs(5) + unmoved;
    assert!(
        pause < limit,
        "a guest made no progress for {pause:?}, those not moved for {unmoved:?}\n{story}"
    );
}

/// When an event first came, and who told it: agents' files follow a moment after what they show.
fn told(c: &Cluster, what: &str, fits: impl Fn(&Event) -> bool) -> (f64, HostId) {
    c.wait_for(&format!("{what} to be told"), || c.when(&fits))
}

/// The role is handed on before the first VM is moved.
fn assert_role_first(c: &Cluster, host: usize) {
    let (elected, by) = told(c, "a new primary", |e| matches!(e, Event::BecamePrimary { .. }));
    let is_move = |e: &Event| matches!(e, Event::VmOrdered { order: OrderKind::Migrate(_), .. });
    let (moved, _) = told(c, "something to be moved", is_move);
    assert!(by != id(host) && elected < moved, "{elected:.2} {by}, {moved:.2}\n{}", c.story());
    let (empty, _) = told(c, "its being empty", |e| matches!(e, Event::MaintenanceReached { .. }));
    assert!(empty > moved, "called empty before it was\n{}", c.story());
    eprintln!("figure: role_handed_on={elected:.2} first_move_ordered={moved:.2}");
}

/// By what a primary says; on a busy machine it may let us wait for that.
fn primary(c: &Cluster) -> usize {
    c.wait_for("a primary's answer", || c.primary())
}

fn is_in_maintenance(c: &Cluster, host: usize) -> bool {
    c.wait_for("a primary's answer", || c.host_view(host)).maintenance.is_some()
}

/// A host is emptied from the command line while its guests write; how long that took.
fn enter(c: &Cluster, watch: &Watch, asked: usize, host: usize, vms: &[&str]) {
    let (before, began) = (c.boots(), Instant::now());
    let name = format!("h{host}");
    let output = c.mainstay(asked, &["host", "maintenance", "enter", &name, "--wait"]);
    assert!(output.success, "{}\n{}\n{}", output.stdout, output.stderr, c.story());
    eprintln!("{}\n  emptied after {:.1} s", output.stdout, began.elapsed().as_secs_f64());
    assert!(c.vms_on(host).is_empty(), "{:?}\n{}", c.vms_on(host), c.story());
    c.settle(&[]);
    assert_migrated(c, watch, &format!("maintenance_of_{name}"), &before, vms, began);
}

/// Empties the primary's host, which is given back with another one. Where all agents start at once the primary is host 3, but not
/// where that one is late.
fn primary_is_emptied(c: &mut Cluster) -> (usize, usize) {
    let host = primary(c);
    let others: Vec<usize> = (1..=3).filter(|other| *other != host).collect();
    c.step("busy guests", calm(), |c| {
        for (on, vm) in [(host, "w1"), (host, "w2"), (host, "w3"), (others[0], "w4"), (others[1], "w5")] {
            define_busy(c, on, vm);
        }
        c.settle(&[]);
        assert_eq!(primary(c), host, "the role has moved while nothing had happened\n{}", c.story());
    });
    c.step("the primary's host is emptied", calm().perhaps(&[Alarm::Admission]), |c| {
        c.watched(|watch| enter(c, watch, others[0], host, &["w1", "w2", "w3"]));
        assert_role_first(c, host);
        assert!(is_in_maintenance(c, host));
        let again = c.refused(others[0], &["host", "maintenance", "enter", &format!("h{host}")]);
        assert!(again.contains("maintenance"), "{again}");
    });
    (host, others[1])
}

/// libvirt's hook: `virsh start` is asked about.
fn hook_refuses(c: &mut Cluster, host: usize) {
    c.step("a user starts a VM on it, in vain", calm(), |c| {
        let before = c.running();
        c.lab.create_disk("w6", &VmOptions::default()).expect("a disk");
        c.lab.define_existing(host, "w6", &VmOptions::default()).expect("defined");
        let output = c.host(host).virsh_output(&["start", "w6"]).expect("virsh runs");
        assert!(!output.success && output.stderr.contains("maintenance"), "{output:?}\n{}", c.story());
        eprintln!("  {}", output.stderr.trim());
        let mut after = c.running();
        after.remove("w6");
        assert_eq!(before, after);
    });
    c.step(
        "without its agent it starts; then that moves it away",
        returning(&[host]).perhaps(&[Alarm::Admission]),
        |c| {
            c.host(host).stop_agent().expect("stopped");
            c.host(host).virsh(&["start", "w6"]).expect("started");
            c.host(host).start_agent().expect("started");
            c.wait("it to be moved", || {
                c.lab.hosts_running("w6").is_ok_and(|hosts| !hosts.is_empty() && !hosts.contains(&host))
            });
            c.settle(&[]);
            assert_eq!(c.boots()["w6"], 1, "{}", c.story());
        },
    );
}

fn flag_outlives_a_reboot(c: &mut Cluster, host: usize, other: usize) {
    let perhaps = returning(&[host]).perhaps(&[Alarm::Failed(host), Alarm::Admission]);
    c.step("it reboots, and stays in maintenance", perhaps, |c| {
        let before = c.running();
        c.power_off(host);
        c.wait("it to be missed", || c.host_state(host).is_some_and(|state| state != HostState::Connected));
        c.power_on(host);
        c.settle(&[]);
        assert!(is_in_maintenance(c, host));
        c.assert_untouched(&before);
    });
    c.step("it leaves maintenance: nothing is put back", calm(), |c| {
        let before = c.running();
        c.done(other, &["host", "maintenance", "leave", &format!("h{host}")]);
        c.settle(&[]);
        assert!(!is_in_maintenance(c, host));
        c.lab.wait_for_beats("w4", 40, LONG).expect("it beats");
        c.assert_untouched(&before);
    });
    let primary = primary(c);
    c.step("the next one is emptied, and gets its VMs back", calm().perhaps(&[Alarm::Admission]), |c| {
        let there = c.vms_on(primary);
        let vms: Vec<&str> = there.iter().map(String::as_str).collect();
        assert!(!vms.is_empty());
        c.watched(|watch| {
            enter(c, watch, primary, primary, &vms);
            let (before, began) = (c.boots(), Instant::now());
            let name = format!("h{primary}");
            eprintln!("  {}", c.done(primary, &["host", "maintenance", "leave", &name, "--bring-back"]));
            c.wait("them to be back", || c.vms_on(primary) == there);
            c.settle(&[]);
            eprintln!("  back after {:.1} s", began.elapsed().as_secs_f64());
            assert_migrated(c, watch, "brought_back", &before, &vms, began);
        });
        assert_eq!(c.vms_on(primary), there);
    });
}

#[test]
fn three_hosts_are_emptied_for_maintenance_one_after_the_other() {
    let Some(mut c) = Cluster::up(Setup { vms: &[], ..Setup::default() }) else { return };
    let (host, other) = primary_is_emptied(&mut c);
    hook_refuses(&mut c, host);
    flag_outlives_a_reboot(&mut c, host, other);
    c.down();
}

const SUSPEND: [&str; 3] = ["suspend", "--for", "10m"];

/// Past the failure time-out, and past what a restart takes.
const QUIET: Duration = Duration::from_secs(12);

/// Every datastore's protection is suspended, by what a primary says.
fn is_suspended(c: &Cluster) -> bool {
    c.status().is_some_and(|s| {
        let stands = s.view.suspensions.iter().any(|it| it.suspension.stands);
        stands && s.alarms.iter().any(|a| matches!(a.event, Some(Event::ProtectionSuspended { .. })))
    })
}

/// And every host honours it: it is safe to cut one off.
fn is_suspended_everywhere(c: &Cluster) -> bool {
    let unaware = |it: &SuspensionView| it.waits_for.as_ref().is_none_or(|hosts| !hosts.is_empty());
    is_suspended(c) && c.status().is_some_and(|s| !s.view.suspensions.iter().any(unaware))
}

/// And nothing else is wrong: every host is connected and reaches its datastore, and no other alarm stands. What comes of an earlier
/// fault has come by then.
fn is_well_but_suspended(c: &Cluster) -> bool {
    let foretold = |e: &Event| matches!(e, Event::ProtectionSuspended { .. } | Event::AdmissionNotMet { .. });
    is_suspended_everywhere(c)
        && c.status().is_some_and(|s| {
            let well = |h: &HostView| h.state == HostState::Connected && !h.datastores.is_empty();
            let runs = |v: &VmView| v.state == VmState::Running && v.protected;
            s.view.hosts.iter().all(well)
                && s.view.vms.iter().all(runs)
                && s.alarms.iter().all(|a| a.event.as_ref().is_some_and(foretold))
        })
}

fn failed(c: &Cluster, host: usize) -> bool {
    c.host_state(host) == Some(HostState::Failed)
}

/// Restarts or stops of VMs, and what leads there.
fn acts(event: &Event) -> bool {
    matches!(
        event,
        Event::TakeoverIntended { .. }
            | Event::VmGranted { .. }
            | Event::VmStarted { .. }
            | Event::VmFrozen { .. }
            | Event::ResponsibilityTaken { .. }
            | Event::IsolationResponseApplied { .. }
    )
}

fn suspended_during_a_failover(c: &mut Cluster) {
    c.step(
        "suspended during a failover: that is completed first",
        // It boots again in the end.
        alarms(&[Alarm::Failed(1), Alarm::Suspended]).perhaps(&[Alarm::AgentUnreachable(1)]),
        |c| {
            let (before, moved) = (c.boots(), c.vms_on(1));
            c.watched(|watch| {
                let began = Instant::now();
                c.power_off(1);
                c.wait("its failover to begin", || c.seen(|e| matches!(e, Event::TakeoverIntended { .. })));
                eprintln!("  {}", c.done(2, &SUSPEND));
                c.wait("all its VMs to run", || moved.iter().all(|vm| watch.booted(vm, began).is_some()));
                c.wait("all to honour the suspension", || is_suspended_everywhere(c));
                let vms: Vec<&str> = moved.iter().map(String::as_str).collect();
                watch.figure("suspended_during_failover", began, 1, &vms);
            });
            let (suspended, _) =
                told(c, "the suspension", |e| matches!(e, Event::ProtectionSuspended { .. }));
            let is_last = |e: &Event| matches!(e, Event::VmRestarted { vm, .. } if &*vm.name == "s3");
            let (restarted, _) = told(c, "the restart of s3", is_last);
            assert!(restarted <= suspended, "{restarted} {suspended}\n{}", c.story());
            c.assert_restarted_once(&before, &moved);
            let shown = c.done(3, &["status"]);
            assert!(shown.contains("suspended"), "{shown}");
            c.power_on(1);
            c.wait("it to be back", || c.host_state(1) == Some(HostState::Connected));
            c.wait("it to honour the suspension too, and all to be well", || is_well_but_suspended(c));
        },
    );
}

fn nothing_happens_meanwhile(c: &mut Cluster) {
    // As seen by the others; and the one that is cut off loses its storage and judges the others.
    let perhaps: Vec<Alarm> = (1..=3)
        .flat_map(|h| [Alarm::Failed(h), Alarm::Isolated(h), Alarm::AgentUnreachable(h)])
        .chain([Alarm::DatastoreLost("ds1"), Alarm::Storm, Alarm::Suspended, Alarm::WaitsForHost])
        .collect();
    c.step(
        "a host loses all networks meanwhile: nothing is restarted, nothing frozen",
        calm().perhaps(&perhaps),
        |c| {
            let before = c.running();
            let (host, there) = (2, c.vms_on(2));
            assert!(!there.is_empty());
            c.watched(|watch| {
                let began = Instant::now();
                for net in Net::ALL {
                    c.host(host).cut(net, Cut::Silent).expect("cut");
                }
                c.wait("it to be missed", || failed(c, host));
                std::thread::sleep(QUIET);
                assert_eq!(before, c.running(), "{}", c.story());
                assert!(!c.seen(acts), "{}", c.story());
                for vm in &there {
                    assert_eq!(watch.frozen(vm, host, began), None, "{vm} was frozen\n{}", c.story());
                }
                c.lab.heal().expect("healed");
                c.wait("it to be back", || c.host_state(host) == Some(HostState::Connected));
                for vm in &there {
                    c.lab.wait_for_beats(vm, 2, LONG).expect("it goes on");
                }
                let vms: Vec<&str> = there.iter().map(String::as_str).collect();
                watch.figure("suspended_and_cut_off", began, host, &vms);
            });
            // Its storage comes back later than its network.
            c.wait("it to be suspended yet, and all to be well", || is_well_but_suspended(c));
            assert_eq!(before, c.running(), "{}", c.story());
        },
    );
    c.step("both networks of all hosts are gone for a while", calm().perhaps(&perhaps), |c| {
        let before = c.running();
        c.watched(|watch| {
            let began = Instant::now();
            for host in 1..=3 {
                for net in Net::ALL {
                    c.host(host).cut(net, Cut::Silent).expect("cut");
                }
            }
            std::thread::sleep(QUIET);
            c.lab.heal().expect("healed");
            c.wait("all to be back", || (1..=3).all(|h| c.host_state(h) == Some(HostState::Connected)));
            c.wait("it to be suspended yet, and all to be well", || is_well_but_suspended(c));
            for vm in before.keys() {
                c.lab.wait_for_beats(vm, 2, LONG).expect("it goes on");
            }
            let vms: Vec<&str> = before.keys().map(String::as_str).collect();
            watch.figure("suspended_and_all_cut_off", began, 2, &vms);
        });
        assert!(!c.seen(acts), "{}", c.story());
        assert_eq!(before, c.running(), "{}", c.story());
    });
}

fn a_host_dies_meanwhile(c: &mut Cluster) {
    let perhaps = [Alarm::Suspended, Alarm::Admission, Alarm::WaitsForHost];
    c.step(
        "a host dies meanwhile: its VMs wait for resume, and for a person's word",
        alarms(&[Alarm::Failed(2)]).perhaps(&perhaps),
        |c| {
            let (before, moved) = (c.boots(), c.vms_on(2));
            let why = c.refused(1, &["host", "confirm-down", "h2", "--yes"]);
            eprintln!("  refused while it lives: {}", why.trim());
            c.watched(|watch| {
                let began = Instant::now();
                c.power_off(2);
                c.wait("it to be missed", || failed(c, 2));
                std::thread::sleep(QUIET);
                assert!(!c.seen(acts), "{}", c.story());
                eprintln!("  {}", c.done(1, &["resume"]));
                let one = moved.iter().next().expect("a VM").clone();
                let note = c.wait_for("it to be told what they wait for", || {
                    c.vm_view(&one)?.note.filter(|note| note.contains("confirm-down"))
                });
                eprintln!("  {one}: {note}");
                assert!(!c.seen(|e| matches!(e, Event::TakeoverIntended { .. })), "{}", c.story());
                let said = Instant::now();
                eprintln!("  {}", c.done(1, &["host", "confirm-down", "h2", "--yes"]));
                c.settle(&[]);
                let vms: Vec<&str> = moved.iter().map(String::as_str).collect();
                watch.figure("confirmed_down", said, 2, &vms);
                watch.figure("dead_while_suspended", began, 2, &vms);
            });
            c.assert_restarted_once(&before, &moved);
        },
    );
    let perhaps = returning(&[2]).perhaps(&[Alarm::Suspended]);
    c.step("it returns, and protection is suspended again", perhaps, |c| {
        c.power_on(2);
        c.settle(&[]);
        // The next step is about a primary with VMs, whoever is primary by now.
        if c.vms_on(primary(c)).is_empty() {
            c.lab.define_vm(primary(c), "s6", &VmOptions::default()).expect("a VM");
            c.settle(&[]);
        }
        c.done(1, &SUSPEND);
        c.wait("all to honour the suspension, and to be well", || is_well_but_suspended(c));
    });
    let primary = primary(c);
    let perhaps = [Alarm::Suspended, Alarm::Admission, Alarm::AgentUnreachable(primary), Alarm::WaitsForHost];
    c.step(
        "the primary dies meanwhile: it stays suspended; its VMs come back with it",
        alarms(&[Alarm::Failed(primary)]).perhaps(&perhaps),
        |c| {
            let (before, moved) = (c.boots(), c.vms_on(primary));
            assert!(!moved.is_empty());
            let other = if primary == 1 { 2 } else { 1 };
            c.watched(|watch| {
                let began = Instant::now();
                c.power_off(primary);
                c.wait("another primary", || c.primary().is_some_and(|p| p != primary));
                c.wait("it to be missed", || failed(c, primary));
                c.wait("it to be suspended yet", || is_suspended(c));
                std::thread::sleep(QUIET);
                assert!(!c.seen(acts), "{}", c.story());
                let status = c.wait_for("a primary's answer", || c.status());
                let stands = status.view.suspensions.iter().any(|it| it.suspension.stands);
                assert!(stands, "{:?}\n{}", status.view.suspensions, c.story());
                c.done(other, &["resume"]);
                c.wait("it to be resumed", || {
                    c.status().is_some_and(|s| !s.view.suspensions.iter().any(|it| it.suspension.stands))
                });
                let back = Instant::now();
                c.power_on(primary);
                c.settle(&[]);
                let vms: Vec<&str> = moved.iter().map(String::as_str).collect();
                watch.figure("primary_dead_while_suspended", began, primary, &vms);
                eprintln!("  its VMs ran {:.1} s after its power was back", back.elapsed().as_secs_f64());
            });
            c.assert_restarted_once(&before, &moved);
        },
    );
}

#[test]
fn three_hosts_protection_is_suspended_during_a_failover_and_resumed() {
    // So patient that guests wait for their disks, rather than being paused, while their storage is cut off.
    let storage_patience = Duration::from_secs(60);
    let Some(mut c) = Cluster::up(Setup { vms: &[], storage_patience, ..Setup::default() }) else { return };
    c.step("VMs of three priorities on a host", calm(), |c| {
        let vms = [
            (1, "s1", "highest"),
            (1, "s2", "medium"),
            (1, "s3", "lowest"),
            (2, "s4", "medium"),
            (3, "s5", "medium"),
        ];
        for (host, vm, priority) in vms {
            let options = VmOptions { priority: Some(priority.into()), ..VmOptions::default() };
            c.lab.define_vm(host, vm, &options).expect("a VM");
        }
        c.settle(&[]);
    });
    suspended_during_a_failover(&mut c);
    nothing_happens_meanwhile(&mut c);
    a_host_dies_meanwhile(&mut c);
    c.down();
}
