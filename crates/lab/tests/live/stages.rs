//! Agents and guards die or hang in the middle of a failover, at each stage of it.

use std::time::{Duration, Instant};

use mainstay_api::EventRecord;
use mainstay_lab::DatastoreConfig;
use mainstay_words::ids::HostId;
use mainstay_words::{Event, VmName};

use crate::support::{Alarm, Cluster, Setup, alarms, calm, id, returning};

/// The host that has claimed a VM in this step.
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

/// How far the failover of a VM has come, by the event that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Intended,
    Granted,
    Claimed,
    /// QEMU is there and paused.
    Prepared,
    /// The owner has seen it run.
    Resumed,
}

/// Whose agent it hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// Those who decide about the VMs: owners.
    Owners,
    /// Who is to start the VM.
    Grantees,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    Killed,
    /// For longer than a claim may take: another host may be given the VM meanwhile.
    Hangs,
}

const HANG: Duration = Duration::from_secs(4);

/// Nothing wrong, but worth the story.
const SLOW: Duration = Duration::from_secs(12);

/// The owner and, if this is known at that stage, the grantee, as soon as the VM's failover has come so far.
fn reached(c: &Cluster, name: &str, stage: Stage) -> Option<(HostId, HostId)> {
    let of_it = |vm: &VmName| *vm.name == *name;
    let mut owner = None;
    for record in c.events() {
        let by = record.host;
        let (at, owner_is, grantee) = match record.event {
            Some(Event::TakeoverIntended { vm, to, .. }) if of_it(&vm) => (Stage::Intended, Some(by), to),
            Some(Event::VmGranted { vm, host, .. }) if of_it(&vm) => (Stage::Granted, Some(by), host),
            Some(Event::VmClaimed { vm, .. }) if of_it(&vm) => (Stage::Claimed, None, by),
            Some(Event::VmStarted { vm, .. }) if of_it(&vm) => (Stage::Prepared, None, by),
            Some(Event::VmRestarted { vm, to, .. }) if of_it(&vm) => (Stage::Resumed, Some(by), to),
            Some(_) | None => continue,
        };
        owner = owner_is.or(owner);
        if at == stage {
            return Some((owner?, grantee));
        }
    }
    None
}

/// A host fails; when the failover of one of its VMs has come to that stage, an agent that has a part in it is killed and started
/// again at once, or hangs for some seconds.
fn agent_fails_at(c: &mut Cluster, stage: Stage, whose: Whose, harm: Harm) {
    // Whose VMs have been restarted least: one attempt after another to restart the same VM waits longer each time (R75).
    let boots = c.boots();
    let restarts = |h: &usize| c.vms_on(*h).iter().map(|vm| boots[vm]).max();
    let host = (1..=3).filter(|h| restarts(h).is_some()).min_by_key(restarts).expect("a host with a VM");
    let name = format!("{stage:?}: the {whose:?} agent {harm:?}").to_lowercase().replace("owners", "owner's");
    let name = name.replace("grantees", "grantee's").replace("agent killed", "agent is killed");
    let mut perhaps: Vec<Alarm> =
        (1..=3).flat_map(|h| [Alarm::Failed(h), Alarm::AgentUnreachable(h), Alarm::Isolated(h)]).collect();
    perhaps.extend([Alarm::DatastoreLost("ds1"), Alarm::Storm, Alarm::WaitsForHost]);
    c.step(&name, calm().perhaps(&perhaps), |c| {
        let (before, moved) = (c.boots(), c.vms_on(host));
        let first = moved.first().expect("a VM").clone();
        c.watched(|watch| {
            let began = Instant::now();
            c.power_off(host);
            let (owner, grantee) = c.wait_for("the stage", || reached(c, &first, stage));
            let whom = match whose {
                Whose::Owners => owner,
                Whose::Grantees => grantee,
            };
            let victim = (1..=3).find(|h| id(*h) == whom).expect("a host of this lab");
            match harm {
                Harm::Killed => {
                    c.host(victim).kill_agent().expect("killed");
                    c.host(victim).start_agent().expect("started");
                }
                Harm::Hangs => {
                    c.host(victim).hang_agent().expect("hung");
                    std::thread::sleep(HANG);
                    c.host(victim).resume_agent().expect("resumed");
                }
            }
            c.settle(&[]);
            if began.elapsed() > SLOW {
                eprintln!("this took long:\n{}", c.story());
            }
            let vms: Vec<&str> = moved.iter().map(String::as_str).collect();
            watch.figure(&format!("stage_{}", name.replace([' ', ':'], "_")), began, host, &vms);
        });
        c.assert_restarted_once(&before, &moved);
    });
    comes_back(c, host);
}

/// On storage that keeps no lock of the dead, so that the stages follow each other at once; and with short leases.
fn quick() -> Setup {
    let datastores = vec![DatastoreConfig::local("ds1")];
    Setup { vms: &[1, 2, 3], timing: "swift", datastores, ..Setup::default() }
}

/// Not all stages on one lab: a VM that was restarted often within a minute waits longer each time (R75).
fn agents_fail_at(cases: [(Stage, Whose); 2]) {
    let Some(mut c) = Cluster::up(quick()) else { return };
    for (stage, whose) in cases {
        for harm in [Harm::Killed, Harm::Hangs] {
            agent_fails_at(&mut c, stage, whose, harm);
        }
    }
    c.down();
}

#[test]
fn three_hosts_owners_agent_fails_when_it_decides_a_failover() {
    agents_fail_at([(Stage::Intended, Whose::Owners), (Stage::Granted, Whose::Owners)]);
}

#[test]
fn three_hosts_grantees_agent_fails_before_it_prepares_the_vm() {
    agents_fail_at([(Stage::Granted, Whose::Grantees), (Stage::Claimed, Whose::Grantees)]);
}

#[test]
fn three_hosts_grantees_agent_fails_when_the_vm_is_paused_or_resumed() {
    agents_fail_at([(Stage::Prepared, Whose::Grantees), (Stage::Resumed, Whose::Grantees)]);
}

#[test]
fn three_hosts_guards_are_killed_at_rest_and_during_a_failover() {
    let Some(mut c) = Cluster::up(Setup { vms: &[1, 2, 3], ..Setup::default() }) else { return };

    for (host, who) in [(1, "a secondary"), (3, "the primary")] {
        let perhaps = calm().perhaps(&[Alarm::GuardLost(host)]);
        c.step(&format!("the guard of {who} is killed"), perhaps, |c| {
            let before = c.running();
            c.watched(|watch| {
                let began = Instant::now();
                c.host(host).kill_guard().expect("killed");
                // Its loss is an alarm of this step, and so is heard before that ends. Had it taken as long as a lease, VMs would
                // have been frozen, which touches them.
                let found =
                    |e: &EventRecord| e.host == id(host) && matches!(e.event, Some(Event::GuardFound { .. }));
                c.wait("its agent to have another guard", || c.events().iter().any(found));
                eprintln!("  another guard after {:.2} s", began.elapsed().as_secs_f64());
                c.settle(&[]);
                c.assert_untouched(&before);
                watch.figure(&format!("guard_killed_h{host}"), began, host, &["vm1", "vm2", "vm3"]);
            });
        });
    }

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
