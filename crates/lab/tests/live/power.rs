//! Hosts that lose power: one, the primary, for a moment, all at once.

use std::collections::BTreeSet;

use mainstay_words::Event;
use mainstay_words::PrimaryReason;
use mainstay_words::view::VmState;

use crate::support::{Alarm, Cluster, Setup, alarms, calm, id, returning};

#[test]
fn three_hosts_lose_power_one_by_one_and_return() {
    let Some(mut c) = Cluster::up(Setup::default()) else { return };

    let primary = c.primary().expect("a primary");
    let secondary = (1..=3).find(|h| *h != primary).expect("a secondary");

    c.step("a secondary loses power", alarms(&[Alarm::Failed(secondary)]), |c| {
        let (before, moved) = (c.boots(), c.vms_on(secondary));
        c.power_off(secondary);
        c.settle(&[]);
        c.assert_restarted_once(&before, &moved);
        assert_eq!(c.primary(), Some(primary));
    });
    c.step("it returns, starts nothing, and drops what is stale", returning(&[secondary]), |c| {
        let before = c.running();
        c.power_on(secondary);
        c.settle(&[]);
        c.wait_for_definitions(&[]);
        c.assert_untouched(&before);
    });

    c.step("the primary loses power", alarms(&[Alarm::Failed(primary)]), |c| {
        let (before, moved) = (c.boots(), c.vms_on(primary));
        c.power_off(primary);
        c.settle(&[]);
        c.assert_restarted_once(&before, &moved);
        let (elected, reason) = elected(c);
        assert_ne!(elected, primary);
        assert_ranked(elected, &reason);
    });
    let (next, why) = elected(&c);
    c.step("it returns, with the larger id, and does not take over", returning(&[primary]), |c| {
        let before = c.running();
        c.power_on(primary);
        c.settle(&[]);
        c.wait_for_definitions(&[]);
        c.assert_untouched(&before);
        // The same words from every host: the primary's own reason.
        for host in 1..=3 {
            let status = c.wait_for("the primary's view", || c.status_by(host).ok().filter(|s| s.complete));
            assert_eq!(status.view.primary, Some(id(next)), "asked {host}");
            assert_eq!(status.view.primary_reason.as_ref(), Some(&why), "asked {host}");
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
    // Its host is off yet: a primary that is elected anew says so again.
    c.step("it is protected again", calm().perhaps(&[Alarm::Failed(1)]), |c| {
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
    // Their libvirt may answer later than they elect; who is up first, or last to go, may hear nobody for a while.
    let all = [Alarm::Failed(1), Alarm::Failed(2), Alarm::Failed(3), Alarm::WaitsForHost, Alarm::Storm];
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

/// Who is primary, and why, in its own words.
fn elected(c: &Cluster) -> (usize, PrimaryReason) {
    let status = c.wait_for("a primary's view", || c.status());
    let number = (1..=3).find(|h| id(*h) == status.view.host).expect("a host of this lab");
    (number, status.view.primary_reason.expect("a reason"))
}

/// Two hosts miss their primary up to a heartbeat apart, and collect bids for as long: mostly both stand, and the larger id
/// decides; one that stands a moment later than that finds the other elected.
fn assert_ranked(elected: usize, reason: &PrimaryReason) {
    match reason {
        PrimaryReason::LargerId { rank, runner_up } => {
            assert!(rank.host == id(elected) && rank.host > runner_up.host, "{reason:?}");
            assert!(reason.to_string().contains("larger id as text"), "{reason}");
        }
        PrimaryReason::OnlyCandidate { rank } => assert_eq!(rank.host, id(elected), "{reason}"),
        PrimaryReason::BetterOneSilent { rank, better } => assert!(better > rank, "{reason:?}"),
        PrimaryReason::MoreDatastores { rank, runner_up } => assert!(rank > runner_up, "{reason:?}"),
    }
}

/// Every start in this step was granted to the host that carried it out: none started a VM by itself. The owner tells of a grant when
/// its write has come back; one that stepped down, or failed, just before leaves it on disk, where the next owner finds it.
fn assert_only_granted_starts(c: &Cluster) {
    let events = c.events();
    let entries = c.wait_for("a primary's view", || c.status()).view.vms;
    for record in &events {
        let Some(Event::VmStarted { vm, token }) = &record.event else { continue };
        let granted = |e: &Event| matches!(e, Event::VmGranted { host, token: granted, .. } if granted == token && *host == record.host);
        let is_told = events.iter().filter_map(|e| e.event.as_ref()).any(granted);
        let is_listed = entries
            .iter()
            .any(|v| v.vm == vm.id && v.token == Some(*token) && v.host.as_ref() == Some(&record.host));
        assert!(is_told || is_listed, "{}\n{}", record.text, c.story());
    }
}
