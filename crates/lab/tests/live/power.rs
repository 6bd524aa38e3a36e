//! Hosts that lose power: one, the primary, for a moment, all at once.

use std::collections::BTreeSet;

use mainstay_core::Event;
use mainstay_core::election::PrimaryReason;
use mainstay_core::view::VmState;

use crate::support::{Alarm, Cluster, Setup, alarms, calm, id, returning};

#[test]
fn three_hosts_lose_power_one_by_one_and_return() {
    let Some(mut c) = Cluster::up(Setup::default()) else { return };

    c.step("a secondary loses power", alarms(&[Alarm::Failed(1)]), |c| {
        let (before, moved) = (c.boots(), c.vms_on(1));
        c.power_off(1);
        c.settle(&[]);
        c.assert_restarted_once(&before, &moved);
        assert_eq!(c.primary(), Some(3));
    });
    c.step("it returns, starts nothing, and drops what is stale", returning(&[1]), |c| {
        let before = c.running();
        c.power_on(1);
        c.settle(&[]);
        c.wait_for_definitions(&[]);
        c.assert_untouched(&before);
    });

    c.step("the primary loses power", alarms(&[Alarm::Failed(3)]), |c| {
        let (before, moved) = (c.boots(), c.vms_on(3));
        c.power_off(3);
        c.settle(&[]);
        c.assert_restarted_once(&before, &moved);
        assert_eq!(c.primary(), Some(2));
    });
    c.step("it returns with the larger id, and does not take over", returning(&[3]), |c| {
        let before = c.running();
        c.power_on(3);
        c.settle(&[]);
        c.wait_for_definitions(&[]);
        c.assert_untouched(&before);
        // The same words from every host: the primary's own reason.
        for host in 1..=3 {
            let status = c.status_by(host).expect("a status");
            assert_eq!(status.view.primary, Some(id(2)), "asked {host}");
            let reason = status.view.primary_reason.expect("a reason");
            assert!(matches!(reason, PrimaryReason::LargerId { .. }), "{reason:?}");
            assert!(reason.to_string().contains("larger id as text"), "{reason}");
        }
    });
    c.down();
}

#[test]
fn three_hosts_unprotected_vm_stays_down_until_it_is_protected_again() {
    let Some(mut c) = Cluster::up(Setup { vms: &[1, 1, 2], ..Setup::default() }) else { return };
    c.step("the host of an unprotected VM loses power", alarms(&[Alarm::Failed(1)]), |c| {
        let before = c.boots();
        c.order(2, "vm1", "unprotect");
        c.wait("vm1 to be seen as unprotected", || c.vm_view("vm1").is_some_and(|v| !v.protected));
        assert_eq!(c.lab.hosts_running("vm1").expect("the runners"), [1], "it goes on running");
        c.power_off(1);
        // The other VM of that host is the clock: when it runs again, the failover is through.
        c.settle(&["vm1"]);
        c.assert_restarted_once(&before, &BTreeSet::from(["vm2".to_string()]));
    });
    c.step("it is protected again", calm(), |c| {
        let before = c.boots();
        c.order(2, "vm1", "protect");
        c.settle(&[]);
        c.assert_restarted_once(&before, &BTreeSet::from(["vm1".to_string()]));
        assert_eq!(c.vm_view("vm1").map(|v| v.state), Some(VmState::Running));
    });
    c.down();
}

#[test]
fn three_hosts_power_cycles() {
    let Some(mut c) = Cluster::up(Setup::default()) else { return };

    // Within about a second, so that nobody may have noticed when it is back.
    c.step("a secondary is power-cycled", returning(&[1]).perhaps(&[Alarm::Failed(1)]), |c| {
        let (before, moved) = (c.boots(), c.vms_on(1));
        c.power_off(1);
        c.power_on(1);
        c.settle(&[]);
        c.wait_for_definitions(&[]);
        c.assert_restarted_once(&before, &moved);
        assert_only_granted_starts(c);
    });
    c.step("the primary is power-cycled", returning(&[3]).perhaps(&[Alarm::Failed(3)]), |c| {
        let (before, moved) = (c.boots(), c.vms_on(3));
        c.power_off(3);
        c.power_on(3);
        c.settle(&[]);
        c.wait_for_definitions(&[]);
        c.assert_restarted_once(&before, &moved);
        assert_only_granted_starts(c);
    });
    // Their libvirt may answer later than they elect.
    let all = [Alarm::Failed(1), Alarm::Failed(2), Alarm::Failed(3), Alarm::WaitsForHost];
    c.step("all are power-cycled at once", returning(&[1, 2, 3]).perhaps(&all), |c| {
        let (before, moved) = (c.boots(), c.boots().into_keys().collect());
        for host in 1..=3 {
            c.power_off(host);
        }
        std::thread::scope(|scope| {
            for host in 1..=3 {
                scope.spawn(move || c.power_on(host));
            }
        });
        c.settle(&[]);
        c.wait_for_definitions(&[]);
        c.assert_restarted_once(&before, &moved);
        assert_only_granted_starts(c);
    });
    c.down();
}

/// Every start in this step was granted to the host that carried it out: none started a VM by itself.
fn assert_only_granted_starts(c: &Cluster) {
    let events = c.events();
    for record in &events {
        let Some(Event::VmStarted { token, .. }) = &record.event else { continue };
        let granted = |e: &Event| matches!(e, Event::VmGranted { host, token: granted, .. } if granted == token && *host == record.host);
        assert!(
            events.iter().filter_map(|e| e.event.as_ref()).any(granted),
            "{}\n{}",
            record.text,
            c.story()
        );
    }
}
