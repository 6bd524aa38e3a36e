//! Planned work: hosts are emptied for maintenance, and protection is suspended.

use std::time::{Duration, Instant};

use mainstay_core::Event;
use mainstay_core::register::OrderKind;
use mainstay_lab::{GuestKind, VmOptions};

use crate::support::{Alarm, Boots, Cluster, Setup, calm, id, returning};
use crate::watch::Watch;

/// Guests that write all the time: eighteen times a second.
fn define_busy(c: &Cluster, host: usize, vm: &str) {
    let options = VmOptions { guest: GuestKind::Beating { beat_ticks: 1 }, ..VmOptions::default() };
    c.lab.define_vm(host, vm, &options).expect("a VM");
}

/// What must be so of VMs that were live-migrated: nobody was restarted, none runs on that host any more, and how long the guest that
/// was away longest made no progress. (Both hosts have a QEMU meanwhile: two guests at once would be found by the guests themselves.)
fn assert_migrated(c: &Cluster, watch: &Watch, name: &str, before: &Boots, vms: &[&str], since: Instant) {
    assert_eq!(*before, c.boots(), "somebody was restarted\n{}", c.story());
    let story = c.story();
    assert!(!c.seen(|e| matches!(e, Event::VmFrozen { .. } | Event::VmRestarted { .. })), "{story}");
    let pause = watch.pause(vms, since);
    eprintln!("figure: {name} vms={} longest_pause={:.2}", vms.len(), pause.as_secs_f64());
    assert!(pause < Duration::from_secs(5), "a guest made no progress for {pause:?}\n{story}");
}

/// The role is handed on before the first VM is moved.
fn assert_role_first(c: &Cluster, host: usize) {
    let (elected, by) = c
        .when(|e| matches!(e, Event::BecamePrimary { .. }))
        .unwrap_or_else(|| panic!("no new primary\n{}", c.story()));
    let (moved, _) = c
        .when(|e| matches!(e, Event::VmOrdered { order: OrderKind::Migrate(_), .. }))
        .unwrap_or_else(|| panic!("nothing was moved\n{}", c.story()));
    assert!(by != id(host) && elected < moved, "{elected:.2} {by}, {moved:.2}\n{}", c.story());
    eprintln!("figure: role_handed_on={elected:.2} first_move_ordered={moved:.2}");
}

fn is_in_maintenance(c: &Cluster, host: usize) -> bool {
    c.host_view(host).is_some_and(|h| h.maintenance.is_some())
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

fn primary_is_emptied(c: &mut Cluster) {
    c.step("busy guests", calm(), |c| {
        for (host, vm) in [(3, "w1"), (3, "w2"), (3, "w3"), (1, "w4"), (2, "w5")] {
            define_busy(c, host, vm);
        }
        c.settle(&[]);
        assert_eq!(c.primary(), Some(3));
    });
    c.step("the primary's host is emptied", calm().perhaps(&[Alarm::Admission, Alarm::ActiveTwice]), |c| {
        c.watched(|watch| enter(c, watch, 1, 3, &["w1", "w2", "w3", "w4", "w5"]));
        assert_role_first(c, 3);
        assert!(is_in_maintenance(c, 3));
        let again = c.refused(1, &["host", "maintenance", "enter", "h3"]);
        assert!(again.contains("maintenance"), "{again}");
    });
}

/// libvirt's hook: `virsh start` is asked about.
fn hook_refuses(c: &mut Cluster) {
    c.step("a user starts a VM on it, in vain", calm(), |c| {
        let before = c.running();
        c.lab.create_disk("w6", &VmOptions::default()).expect("a disk");
        c.lab.define_existing(3, "w6", &VmOptions::default()).expect("defined");
        let output = c.host(3).virsh_output(&["start", "w6"]).expect("virsh runs");
        assert!(!output.success && output.stderr.contains("maintenance"), "{output:?}\n{}", c.story());
        eprintln!("  {}", output.stderr.trim());
        let mut after = c.running();
        after.remove("w6");
        assert_eq!(before, after);
    });
    c.step(
        "without its agent it starts; then that moves it away",
        returning(&[3]).perhaps(&[Alarm::Admission, Alarm::ActiveTwice]),
        |c| {
            c.host(3).stop_agent().expect("stopped");
            c.host(3).virsh(&["start", "w6"]).expect("started");
            c.host(3).start_agent().expect("started");
            c.wait("it to be moved", || {
                c.lab.hosts_running("w6").is_ok_and(|hosts| !hosts.is_empty() && !hosts.contains(&3))
            });
            c.settle(&[]);
            assert_eq!(c.boots()["w6"], 1, "{}", c.story());
        },
    );
}

fn flag_outlives_a_reboot(c: &mut Cluster) {
    let perhaps = returning(&[3]).perhaps(&[Alarm::Failed(3), Alarm::Admission]);
    c.step("it reboots, and stays in maintenance", perhaps, |c| {
        let before = c.running();
        c.power_off(3);
        c.wait("it to be missed", || {
            c.host_state(3) != Some(mainstay_core::host_liveness::HostState::Connected)
        });
        c.power_on(3);
        c.settle(&[]);
        assert!(is_in_maintenance(c, 3));
        c.assert_untouched(&before);
    });
    c.step("it leaves maintenance: nothing is put back", calm(), |c| {
        let before = c.running();
        c.done(2, &["host", "maintenance", "leave", "h3"]);
        c.settle(&[]);
        assert!(!is_in_maintenance(c, 3));
        c.lab.wait_for_beats("w4", 40, crate::support::LONG).expect("it beats");
        c.assert_untouched(&before);
    });
    let primary = c.primary().expect("a primary");
    c.step(
        "the next one is emptied, and gets its VMs back",
        calm().perhaps(&[Alarm::Admission, Alarm::ActiveTwice]),
        |c| {
            let there = c.vms_on(primary);
            let vms: Vec<&str> = there.iter().map(String::as_str).collect();
            assert!(!vms.is_empty());
            c.watched(|watch| {
                enter(c, watch, primary, primary, &vms);
                let (before, began) = (c.boots(), Instant::now());
                let name = format!("h{primary}");
                eprintln!("  {}", c.done(primary, &["host", "maintenance", "leave", &name, "--bring-back"]));
                c.wait("them to be back", || c.vms_on(primary) == there);
                eprintln!("  back after {:.1} s", began.elapsed().as_secs_f64());
                c.settle(&[]);
                assert_migrated(c, watch, "brought_back", &before, &vms, began);
            });
            assert_eq!(c.vms_on(primary), there);
        },
    );
}

#[test]
fn three_hosts_are_emptied_for_maintenance_one_after_the_other() {
    let Some(mut c) = Cluster::up(Setup { vms: &[], ..Setup::default() }) else { return };
    primary_is_emptied(&mut c);
    hook_refuses(&mut c);
    flag_outlives_a_reboot(&mut c);
    c.down();
}
