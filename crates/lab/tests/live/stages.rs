//! Agents and guards die or hang in the middle of a failover.

use std::time::{Duration, Instant};

use mainstay_core::Event;

use crate::support::{Alarm, Cluster, Setup, alarms, calm, id, returning};

/// The host that a VM was granted to in this step.
fn grantee(c: &Cluster, name: &str) -> Option<usize> {
    c.events().into_iter().find_map(|record| match record.event {
        Some(Event::VmGranted { vm, host, .. }) if *vm.name == *name => (1..=3).find(|h| id(*h) == host),
        Some(_) | None => None,
    })
}

/// The host that has claimed it.
fn claimant(c: &Cluster, name: &str) -> Option<usize> {
    c.events().into_iter().find_map(|record| match record.event {
        Some(Event::VmClaimed { vm, .. }) if *vm.name == *name => (1..=3).find(|h| id(*h) == record.host),
        Some(_) | None => None,
    })
}

/// A primary elected only now may find it failed first.
fn comes_back(c: &mut Cluster, host: usize) {
    c.step(&format!("h{host} returns"), returning(&[host]).perhaps(&[Alarm::Failed(host)]), |c| {
        let before = c.running();
        c.power_on(host);
        c.settle(&[]);
        c.assert_untouched(&before);
    });
}

#[test]
fn three_hosts_agents_and_guards_fail_during_a_failover() {
    let Some(mut c) = Cluster::up(Setup { vms: &[1, 2, 3], ..Setup::default() }) else { return };

    for (host, who) in [(1, "a secondary"), (3, "the primary")] {
        let perhaps = calm().perhaps(&[Alarm::GuardLost(host)]);
        c.step(&format!("the guard of {who} is killed"), perhaps, |c| {
            let before = c.running();
            c.watched(|watch| {
                let began = Instant::now();
                c.host(host).kill_guard().expect("killed");
                c.wait("another guard", || c.host(host).guard_pid().is_ok_and(|p| p.is_some()));
                let took = began.elapsed();
                assert!(took < Duration::from_secs(2), "another guard only after {took:?}");
                c.settle(&[]);
                c.assert_untouched(&before);
                watch.figure(&format!("guard_killed_h{host}"), began, host, &["vm1", "vm2", "vm3"]);
            });
        });
    }

    let perhaps = [2, 3].map(Alarm::AgentUnreachable);
    c.step("the grantee's agent is killed", alarms(&[Alarm::Failed(1)]).perhaps(&perhaps), |c| {
        let (before, moved) = (c.boots(), c.vms_on(1));
        c.watched(|watch| {
            let began = Instant::now();
            c.power_off(1);
            let target = c.wait_for("its VM to be granted", || grantee(c, "vm1"));
            c.host(target).kill_agent().expect("killed");
            c.host(target).start_agent().expect("started");
            c.settle(&[]);
            watch.figure("grantees_agent_killed", began, 1, &["vm1"]);
        });
        c.assert_restarted_once(&before, &moved);
    });
    comes_back(&mut c, 1);

    c.step(
        "the claimant's agent hangs for 8 s",
        alarms(&[Alarm::Failed(2)])
            .perhaps(&[1, 3].map(Alarm::AgentUnreachable))
            .perhaps(&[Alarm::DatastoreLost("ds1")]),
        |c| {
            let (before, moved) = (c.boots(), c.vms_on(2));
            c.watched(|watch| {
                let began = Instant::now();
                c.power_off(2);
                let target = c.wait_for("its VM to be claimed", || claimant(c, "vm2"));
                c.host(target).hang_agent().expect("hung");
                std::thread::sleep(Duration::from_secs(8));
                c.host(target).resume_agent().expect("resumed");
                c.settle(&[]);
                watch.figure("claimants_agent_hangs_for_8_s", began, 2, &["vm2"]);
            });
            c.assert_restarted_once(&before, &moved);
        },
    );
    comes_back(&mut c, 2);

    let primary = c.primary();
    let host =
        (1..=3).find(|h| primary != Some(*h) && !c.vms_on(*h).is_empty()).expect("a secondary with a VM");
    let perhaps = [1, 2, 3].map(Alarm::GuardLost);
    c.step("the claimant's guard is killed", alarms(&[Alarm::Failed(host)]).perhaps(&perhaps), |c| {
        let (before, moved) = (c.boots(), c.vms_on(host));
        let first = moved.first().expect("a VM").clone();
        c.watched(|watch| {
            let began = Instant::now();
            c.power_off(host);
            let target = c.wait_for("a VM to be claimed", || claimant(c, &first));
            c.host(target).kill_guard().expect("killed");
            c.settle(&[]);
            watch.figure("claimants_guard_killed", began, host, &[first.as_str()]);
        });
        c.assert_restarted_once(&before, &moved);
    });
    c.down();
}
