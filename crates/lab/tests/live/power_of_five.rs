//! Five hosts: the fullest one fails, two fail at once, one fails during the failover of another.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use mainstay_core::Event;
use mainstay_core::host_liveness::HostState;

use crate::support::{Alarm, Cluster, Setup, alarms, id, returning};

/// A secondary that has been given a VM in this step.
fn grantee_among(c: &Cluster, hosts: RangeInclusive<usize>) -> Option<usize> {
    c.events().into_iter().find_map(|record| match record.event {
        Some(Event::VmGranted { host, .. }) => hosts.clone().find(|h| id(*h) == host),
        Some(_) | None => None,
    })
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
        c.assert_restarted_once(&before, &moved);
    });
    return_of(&mut c, &[1, 4]);
    c.down();
}

#[test]
fn five_hosts_second_fails_during_failover_of_first() {
    let setup = Setup { hosts: 5, vms: &[1, 1, 1, 2, 3, 4, 5], ..Setup::default() };
    let Some(mut c) = Cluster::up(setup) else { return };
    let anyone: Vec<Alarm> = (2..=4).map(Alarm::Failed).collect();
    c.step("a grantee fails too", alarms(&[Alarm::Failed(1)]).perhaps(&anyone), |c| {
        let before = c.boots();
        let first = c.vms_on(1);
        c.power_off(1);
        // What it was about to do dies with it.
        let second = c.wait_for("a VM of h1 to be granted to another secondary", || grantee_among(c, 2..=4));
        let mut moved = c.vms_on(second);
        moved.extend(first);
        c.power_off(second);
        c.settle(&[]);
        let story = c.story();
        let after = c.boots();
        for (vm, boots) in &before {
            let grew = after[vm] - boots;
            // One that had already been started on the second host started once there and once elsewhere.
            let started_there = c.events().iter().any(|e| {
                e.host == id(second) && matches!(&e.event, Some(Event::VmStarted { vm: v, .. }) if *v.name == **vm)
            });
            let limit = u32::from(moved.contains(vm)) + u32::from(started_there);
            assert!(grew <= limit && (grew >= 1) == moved.contains(vm), "{vm} booted {grew} times\n{story}");
        }
        let failed =
            |e: &Event| matches!(e, Event::HostStateChanged { host, to: HostState::Failed, .. } if *host == id(second));
        assert!(c.seen(failed), "{story}");
    });
    c.down();
}

#[test]
fn five_hosts_primary_fails_during_failover_of_another() {
    let setup = Setup { hosts: 5, vms: &[1, 1, 1, 2, 3, 4, 5], ..Setup::default() };
    let Some(mut c) = Cluster::up(setup) else { return };
    let perhaps = [Alarm::Failed(1)];
    c.step("the primary fails on the way", alarms(&[Alarm::Failed(5)]).perhaps(&perhaps), |c| {
        let before = c.boots();
        let moved = &c.vms_on(1) | &c.vms_on(5);
        assert_eq!(c.primary(), Some(5));
        c.power_off(1);
        c.wait("the primary to call h1 failed", || {
            c.events().iter().any(|e| {
                let failed = |e: &Event| {
                    matches!(e, Event::HostStateChanged { host, to: HostState::Failed, .. } if *host == id(1))
                };
                e.host == id(5) && e.event.as_ref().is_some_and(failed)
            })
        });
        c.power_off(5);
        c.settle(&[]);
        assert_eq!(c.primary(), Some(4));
        c.assert_restarted_once(&before, &moved);
    });
    return_of(&mut c, &[1, 5]);
    c.down();
}
