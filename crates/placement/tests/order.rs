//! Orders played to their end on virtual time: everything starts once, nothing too early, nothing never.

mod support;

use mainstay_placement::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use support::random::{Random, names};

/// Up to twenty VMs on a host that fails, three hosts to go to, groups that wait for others.
fn picture(random: &mut Random) -> Picture {
    let mut picture = Picture::default();
    for host in names("h", 4) {
        let limit = Some(1 + random.below(4) as u32);
        let capacity = Resources::new(1000, 1000);
        picture.hosts.insert(host, Host { capacity, concurrent_starts: limit, ..Host::default() });
    }
    let vms = names("v", 1 + random.below(20) as usize);
    for vm in &vms {
        let priorities = [Priority::Medium, Priority::Medium, Priority::High, Priority::Low];
        let priority = *random.pick(&priorities).unwrap();
        // Some find no room.
        let memory = if random.percent(10) { 2000 } else { 10 };
        let readiness = Readiness {
            when: ReadyWhen::Running,
            delay_ms: random.below(5),
            timeout_ms: 20 + random.below(50),
        };
        let host = Some(if random.percent(85) { "h0".into() } else { "h1".into() });
        let reservation = Resources::new(0, memory);
        picture.vms.insert(vm.clone(), Vm { reservation, priority, readiness, host, ..Vm::default() });
    }
    let groups = names("g", 5);
    for group in &groups {
        let waits_for = random.some(&groups, 12);
        picture.groups.insert(group.clone(), Group { vms: random.some(&vms, 20), waits_for });
    }
    picture
}

/// VMs that a VM waits for by its groups.
fn before(picture: &Picture, vm: &Name) -> BTreeSet<Name> {
    let own = picture.groups.values().filter(|group| group.vms.contains(vm));
    let others = own.flat_map(|group| &group.waits_for).filter_map(|name| picture.groups.get(name));
    others.flat_map(|group| group.vms.clone()).collect()
}

/// A VM waits, in the end, for itself: by groups, or because one of its own priority or higher waits for one of a lower.
fn has_no_order(picture: &Picture) -> bool {
    // Groups without members can close a circle too, so groups are followed, and VMs from group to group.
    let mut reach: BTreeMap<&Name, BTreeSet<Name>> = BTreeMap::new();
    for (name, group) in &picture.groups {
        let mut all: BTreeSet<Name> = group.waits_for.iter().cloned().collect();
        for vm in &group.vms {
            let same = picture.groups.values().filter(|other| other.vms.contains(vm));
            all.extend(same.flat_map(|other| other.waits_for.clone()));
        }
        reach.insert(name, all);
    }
    for _ in 0..reach.len() {
        for group in picture.groups.keys() {
            let further: Vec<Name> =
                reach[group].iter().filter_map(|to| reach.get(to)).flatten().cloned().collect();
            reach.get_mut(group).unwrap().extend(further);
        }
    }
    let circle = reach.iter().any(|(group, to)| to.contains(*group));
    let priority = |vm: &Name| picture.vms[vm].priority;
    circle
        || picture.vms.keys().any(|vm| before(picture, vm).iter().any(|other| priority(other) < priority(vm)))
}

/// Whether it waits for a VM that does not come back, or for one that does.
fn waits_for_missing(picture: &Picture, plan: &Plan, vm: &Name) -> bool {
    let mut all = before(picture, vm);
    loop {
        let more: BTreeSet<Name> = all.iter().flat_map(|vm| before(picture, vm)).collect();
        if more.is_subset(&all) {
            break;
        }
        all.extend(more);
    }
    plan.left_out.iter().any(|left| all.contains(&left.vm))
}

/// Plays the order: starts take a while, some VMs never become ready. Gives when each VM started, and the progress at the end.
fn play(
    order: &StartPlan,
    picture: &Picture,
    random: &mut Random,
) -> Result<BTreeMap<Name, u64>, TestCaseError> {
    let mut progress: BTreeMap<Name, Progress> = BTreeMap::new();
    let mut ready_at: BTreeMap<Name, u64> = BTreeMap::new();
    let mut started = BTreeMap::new();
    for now in 0..3_000 {
        for (vm, at) in ready_at.iter().filter(|(_, at)| **at == now) {
            let entry = progress.get_mut(vm).unwrap();
            (entry.starting, entry.ready_since) = (false, Some(*at));
        }
        let next = order.next(&progress, 0, now);
        let starts = next.start.len();
        for step in next.start {
            prop_assert!(started.insert(step.vm.clone(), now).is_none(), "{} started twice", step.vm);
            progress.insert(
                step.vm.clone(),
                Progress { first_start: Some(now), starting: true, ready_since: None },
            );
            if random.percent(85) {
                ready_at.insert(step.vm.clone(), now + 1 + random.below(9));
            } else {
                progress.get_mut(&step.vm).unwrap().starting = false;
            }
        }
        for (name, host) in &picture.hosts {
            let on =
                |step: &&StartStep| step.host == *name && progress.get(&step.vm).is_some_and(|p| p.starting);
            let count = order.steps().iter().filter(on).count();
            prop_assert!(count <= host.start_limit() as usize, "{} start on {} at once", count, name);
        }
        let waits = next.waiting.len();
        if started.len() == order.steps().len() {
            break;
        }
        // Somebody waits: something was just started (and is asked again), a start is under way, or there is a time at which to look again.
        let under_way = progress.values().any(|p| p.starting) || next.look_again.is_some_and(|at| at > now);
        prop_assert!(waits == 0 || starts > 0 || under_way, "{} VMs wait for nothing that will come", waits);
    }
    Ok(started)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_order_is_refused_only_if_there_is_none_and_else_plays_to_its_end(seed: u64) {
        let random = &mut Random(seed);
        let picture = picture(random);
        let made = plan(&picture, &["h0".into()], Purpose::Failover);
        let order = match StartPlan::new(&picture, &made) {
            Ok(order) => order,
            Err(error) => {
                prop_assert!(has_no_order(&picture), "refused: {}", error);
                return Ok(());
            }
        };
        prop_assert!(!has_no_order(&picture), "not refused");
        let started = play(&order, &picture, random)?;
        prop_assert_eq!(started.len(), made.placed.len());
        let wave: BTreeMap<&Name, u32> = order.steps().iter().map(|step| (&step.vm, step.wave)).collect();
        for (vm, at) in &started {
            let higher = started.keys().filter(|other| picture.vms[*other].priority > picture.vms[vm].priority);
            // Those that wait for somebody who was left out hold up nobody of a lower priority.
            let higher = higher.filter(|other| !waits_for_missing(&picture, &made, other));
            let waited_for: BTreeSet<Name> = higher.cloned().chain(before(&picture, vm)).collect();
            for other in waited_for.iter().filter(|other| started.contains_key(*other)) {
                prop_assert!(started[other] < *at, "{} started before {}", vm, other);
                prop_assert!(wave[other] < wave[vm]);
            }
        }
    }
}
