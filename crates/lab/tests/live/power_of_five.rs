//! Five hosts: the fullest one fails, two fail at once, one fails during the failover of another.

use std::collections::BTreeSet;

use mainstay_words::Event;
use mainstay_words::HostState;

use crate::support::{Alarm, Boots, Cluster, Setup, alarms, id, returning};

/// One of these hosts that has been given a VM in this step.
fn grantee_among(c: &Cluster, hosts: &[usize]) -> Option<usize> {
    c.events().into_iter().find_map(|record| match record.event {
        Some(Event::VmGranted { host, .. }) => hosts.iter().copied().find(|h| id(*h) == host),
        Some(_) | None => None,
    })
}

/// Asserts that the VMs that were on hosts that failed booted once more, and no others. One that had already been started on the
/// host that failed second started once there and once elsewhere.
fn assert_restarted(c: &Cluster, before: &Boots, moved: &BTreeSet<String>, second: usize) {
    let (story, after) = (c.story(), c.boots());
    for (vm, boots) in before {
        let grew = after[vm] - boots;
        let started_there = c.events().iter().any(|e| {
            e.host == id(second)
                && matches!(&e.event, Some(Event::VmStarted { vm: v, .. }) if *v.name == **vm)
        });
        let limit = u32::from(moved.contains(vm)) + u32::from(started_there);
        assert!(grew <= limit && (grew >= 1) == moved.contains(vm), "{vm} booted {grew} times\n{story}");
    }
}

/// The hosts come back; nothing moves.
fn return_of(c: &mut Cluster, hosts: &[usize]) {
    c.step("they return", returning(hosts), |c| {
        let before = c.running();
        for host in hosts {
            c.power_on(*host);
        }
        c.settle(&[]);
        c.wait_for_definitions(&[]);
        c.assert_untouched(&before);
    });
}

#[test]
fn five_hosts_fullest_fails_then_two_at_once() {
    let setup = Setup { hosts: 5, vms: &[2, 2, 2, 2, 1, 3, 4, 5], ..Setup::default() };
    let Some(mut c) = Cluster::up(setup) else { return };
    c.step("the host with most VMs loses power", alarms(&[Alarm::Failed(2)]), |c| {
        let (before, moved) = (c.boots(), c.vms_on(2));
        assert_eq!(moved.len(), 4);
        c.power_off(2);
        c.settle(&[]);
        c.assert_restarted_once(&before, &moved);
        let grantees: BTreeSet<Vec<usize>> =
            moved.iter().map(|vm| c.lab.hosts_running(vm).expect("the runners")).collect();
        // Exactly how follows from the memory that is free, which the hosts of a lab share.
        assert!(grantees.len() >= 2, "they are spread over the others: {grantees:?}");
    });
    return_of(&mut c, &[2]);

    c.step("two hosts lose power at once", alarms(&[Alarm::Failed(1), Alarm::Failed(4)]), |c| {
        let (before, moved) = (c.boots(), &c.vms_on(1) | &c.vms_on(4));
        c.power_off(1);
        c.power_off(4);
        c.settle(&[]);
        assert_restarted(c, &before, &moved, 4);
    });
    return_of(&mut c, &[1, 4]);
    c.down();
}

#[test]
fn five_hosts_second_fails_during_failover_of_first() {
    let setup = Setup { hosts: 5, vms: &[1, 1, 1, 2, 3, 4, 5], ..Setup::default() };
    let Some(mut c) = Cluster::up(setup) else { return };
    let primary = c.primary().expect("a primary");
    let others: Vec<usize> = (2..=5).filter(|h| *h != primary).collect();
    let anyone: Vec<Alarm> = others.iter().copied().map(Alarm::Failed).collect();
    c.step("a grantee fails too", alarms(&[Alarm::Failed(1)]).perhaps(&anyone), |c| {
        let before = c.boots();
        let first = c.vms_on(1);
        c.power_off(1);
        // What it was about to do dies with it.
        let second = c.wait_for("a VM of h1 to be granted to another secondary", || grantee_among(c, &others));
        let mut moved = c.vms_on(second);
        moved.extend(first);
        c.power_off(second);
        c.settle(&[]);
        assert_restarted(c, &before, &moved, second);
        let failed =
            |e: &Event| matches!(e, Event::HostStateChanged { host, to: HostState::Failed, .. } if *host == id(second));
        assert!(c.seen(failed), "{}", c.story());
    });
    c.down();
}

#[test]
fn five_hosts_primary_fails_during_failover_of_another() {
    let setup = Setup { hosts: 5, vms: &[1, 1, 1, 2, 3, 4, 5], ..Setup::default() };
    let Some(mut c) = Cluster::up(setup) else { return };
    let primary = c.primary().expect("a primary");
    assert_ne!(primary, 1, "another one is elected, unless all others were late by seconds");
    let expect = alarms(&[Alarm::Failed(primary)]).perhaps(&[Alarm::Failed(1)]);
    c.step("the primary fails on the way", expect, |c| {
        let before = c.boots();
        let moved = &c.vms_on(1) | &c.vms_on(primary);
        c.power_off(1);
        c.wait("the primary to call h1 failed", || {
            c.events().iter().any(|e| {
                let failed = |e: &Event| {
                    matches!(e, Event::HostStateChanged { host, to: HostState::Failed, .. } if *host == id(1))
                };
                e.host == id(primary) && e.event.as_ref().is_some_and(failed)
            })
        });
        c.power_off(primary);
        c.settle(&[]);
        let next = c.primary().expect("a primary");
        assert!(next != 1 && next != primary, "h{next}");
        assert_restarted(c, &before, &moved, primary);
    });
    return_of(&mut c, &[1, primary]);
    c.down();
}
