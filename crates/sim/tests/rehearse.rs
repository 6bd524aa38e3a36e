//! Rehearsals, end to end: a simulated cluster comes to rest, its primary's view is rehearsed, and what comes out is compared
//! with what has to happen.

use mainstay_core::host_liveness::HostState;
use mainstay_core::register::{IsolationResponse, Priority};
use mainstay_core::settings::{
    Evacuation, Group, Readiness, ReadyWhen, Rule, RuleKind, Settings, Strength, VmSettings,
};
use mainstay_core::view::{Role, VmState};
use mainstay_core::{DatastoreName, HostId, Span, Timing, View, VmId};
use mainstay_sim::node::real_core;
use mainstay_sim::rehearse::{
    GUEST_BOOT, Outcome, RehearseError, Rehearsed, RehearsedFault, Surroundings, VmOutcome, rehearse,
};
use mainstay_sim::{Scenario, World};
use std::collections::BTreeSet;

fn host(id: &str) -> HostId {
    HostId::new(id)
}

fn fail(id: &str) -> RehearsedFault {
    RehearsedFault::Fail(host(id))
}

fn cut(id: &str, datastore: Option<&str>) -> RehearsedFault {
    RehearsedFault::CutStorage(host(id), datastore.map(DatastoreName::new))
}

/// The primary's view of a cluster of that topology, once all its VMs are protected.
fn view_of(topology: &str) -> View {
    let scenario = Scenario::parse(
        "rehearsed",
        &format!(
            "about = \"a cluster\"\n{topology}\n[[expect]]\nwithin = 1.0\nthat = \"no_event\"\nkind = \"vm_restarted\""
        ),
    );
    let setup = scenario.and_then(|scenario| scenario.topology.setup("rehearsed")).expect("a topology");
    let hosts = setup.hosts.len();
    let vms = setup.vms.len();
    let mut world = World::new(setup, 7, real_core, false);
    while world.now() < 120_000_000 {
        world.run_until(world.now() + 1_000_000);
        let mut views = (0..hosts).filter_map(|host| world.view(host));
        let settled = |view: &View| {
            view.role == Role::Primary
                && view.vms.len() == vms
                && view.vms.iter().all(|vm| vm.protected && vm.state == VmState::Running)
                && view.hosts.iter().all(|seen| {
                    seen.state == HostState::Connected && seen.datastores.len() == view.datastores.len()
                })
        };
        if let Some(view) = views.find(settled) {
            return view;
        }
    }
    panic!("the cluster did not come to rest");
}

fn hosts(count: usize) -> String {
    let ids: Vec<String> = (1..=count).map(|host| format!("\"host-{host}\"")).collect();
    format!("hosts = [{}]\n", ids.join(", "))
}

fn vm(name: &str, host: usize, more: &str) -> String {
    format!("[[vm]]\nname = \"{name}\"\nhost = \"host-{host}\"\n{more}\n")
}

/// So many hosts, each with so many VMs, called vm-HOST-NUMBER.
fn even(count: usize, vms: usize, more: &str) -> View {
    let each = |host| (1..=vms).map(move |number| vm(&format!("vm-{host}-{number}"), host, ""));
    let vms: String = (1..=count).flat_map(each).collect();
    view_of(&format!("{}{more}\n{vms}", hosts(count)))
}

fn played(view: &View, faults: &[RehearsedFault]) -> Rehearsed {
    rehearse(view, faults, &Surroundings::default()).expect("a rehearsal")
}

fn of<'a>(rehearsed: &'a Rehearsed, vm: &str) -> &'a VmOutcome {
    rehearsed.vms.iter().find(|outcome| &*outcome.vm == vm).expect("that VM")
}

fn judged(rehearsed: &Rehearsed, id: &str) -> Vec<HostState> {
    let outcome = rehearsed.hosts.iter().find(|outcome| outcome.host == host(id)).expect("that host");
    outcome.judged.iter().map(|judgement| judgement.state).collect()
}

fn told(rehearsed: &Rehearsed, words: &str) -> bool {
    rehearsed.timeline.iter().any(|moment| moment.what.contains(words))
}

#[test]
fn three_hosts_one_fails() {
    let view = even(3, 3, "");
    let rehearsed = played(&view, &[fail("host-2")]);
    for outcome in &rehearsed.vms {
        if outcome.from == Some(host("host-2")) {
            let Outcome::Restarted { after } = outcome.outcome else { panic!("{outcome:?}") };
            // The last that was heard of it may be a heartbeat older than the fault.
            let soonest = Span(view.timing.failure_timeout.0 - view.timing.heartbeat.0);
            assert!(after > soonest, "{outcome:?}: sooner than a host can be called failed");
            assert_eq!(outcome.down_for, Some(after), "{outcome:?}");
            assert!(outcome.to.is_some() && outcome.to != Some(host("host-2")), "{outcome:?}");
        } else {
            assert_eq!(outcome.outcome, Outcome::StayedUp, "{outcome:?}");
            assert_eq!((outcome.to.as_ref(), outcome.down_for), (outcome.from.as_ref(), None));
        }
    }
    assert_eq!(rehearsed.vms.len(), 9);
    assert!(rehearsed.complete && rehearsed.not_well().next().is_none());
    assert_eq!(judged(&rehearsed, "host-2"), [HostState::Failed]);
    assert!(judged(&rehearsed, "host-1").is_empty() && judged(&rehearsed, "host-3").is_empty());
    assert_eq!(rehearsed.timeline[0].what, "host-2 loses its power; 3 VMs run there");
    assert!(told(&rehearsed, "host-2 was connected, is failed"), "{:#?}", rehearsed.timeline);
    assert!(told(&rehearsed, "vm-2-1 of host-2 runs again on"), "{:#?}", rehearsed.timeline);
    assert!(rehearsed.timeline.is_sorted_by_key(|moment| moment.after));
    let counts: Vec<_> = rehearsed.hosts.iter().map(|host| (host.vms_before, host.vms_after)).collect();
    assert_eq!(counts[1], (3, 0));
    assert_eq!(counts.iter().map(|(_, after)| after).sum::<u32>(), 9);
}

#[test]
fn three_hosts_the_primary_and_another_fail() {
    let view = even(3, 2, "");
    let other = if view.host == host("host-1") { host("host-2") } else { host("host-1") };
    let faults = [RehearsedFault::Fail(view.host.clone()), RehearsedFault::Fail(other)];
    let rehearsed = played(&view, &faults);
    assert!(rehearsed.not_well().next().is_none(), "{:#?}", rehearsed.vms);
    let moved = rehearsed.vms.iter().filter(|vm| vm.from != vm.to).count();
    assert_eq!(moved, 4);
    assert!(told(&rehearsed, "elected primary"), "{:#?}", rehearsed.timeline);
    assert!(told(&rehearsed, "owns datastore ds1"), "{:#?}", rehearsed.timeline);
}

#[test]
fn three_hosts_one_isolated_with_power_off() {
    let view = even(3, 2, "isolation_response = \"power_off\"");
    let rehearsed = played(&view, &[RehearsedFault::Isolate(host("host-1"))]);
    assert!(judged(&rehearsed, "host-1").contains(&HostState::Isolated), "{:#?}", rehearsed.hosts);
    assert!(judged(&rehearsed, "host-2").is_empty(), "what a cut-off host thinks of others is not shown");
    for name in ["vm-1-1", "vm-1-2"] {
        let outcome = of(&rehearsed, name);
        assert!(matches!(outcome.outcome, Outcome::Restarted { .. }), "{outcome:?}");
        assert_ne!(outcome.to, Some(host("host-1")), "{outcome:?}");
    }
    assert_eq!(of(&rehearsed, "vm-2-1").outcome, Outcome::StayedUp);
    assert!(told(&rehearsed, "isolation response of vm-1-1: power off"), "{:#?}", rehearsed.timeline);
}

#[test]
fn three_hosts_one_isolated_with_leave_powered_on() {
    let view = even(3, 2, "isolation_response = \"leave_powered_on\"");
    let rehearsed = played(&view, &[RehearsedFault::Isolate(host("host-1"))]);
    assert!(judged(&rehearsed, "host-1").contains(&HostState::Isolated), "{:#?}", rehearsed.hosts);
    for outcome in &rehearsed.vms {
        assert_eq!(outcome.outcome, Outcome::StayedUp, "{outcome:?}");
    }
}

#[test]
fn three_hosts_one_isolated_each_vm_with_its_own_response() {
    let mut view = even(3, 2, "isolation_response = \"leave_powered_on\"");
    let own = view.vms.iter_mut().find(|vm| &*vm.name == "vm-1-2").expect("that VM");
    own.isolation_response = IsolationResponse::ShutDown;
    own.isolation_response_own = true;
    own.shutdown_timeout = Span::from_secs(4);
    own.shutdown_timeout_own = true;
    let rehearsed = played(&view, &[RehearsedFault::Isolate(host("host-1"))]);
    assert_eq!(of(&rehearsed, "vm-1-1").outcome, Outcome::StayedUp);
    assert!(matches!(of(&rehearsed, "vm-1-2").outcome, Outcome::Restarted { .. }), "{:#?}", rehearsed.vms);
    assert!(told(&rehearsed, "vm-1-2 has not shut down within 4.000 s"), "{:#?}", rehearsed.timeline);
}

#[test]
fn hosts_without_isolation_addresses_do_not_believe_that_they_are_isolated() {
    let view = even(3, 1, "isolation_response = \"power_off\"");
    let surroundings = Surroundings { isolation_addresses: false, ..Surroundings::default() };
    let faults = [RehearsedFault::Isolate(host("host-1"))];
    let rehearsed = rehearse(&view, &faults, &surroundings).expect("a rehearsal");
    assert_eq!(judged(&rehearsed, "host-1"), [HostState::Partitioned]);
    assert_eq!(of(&rehearsed, "vm-1-1").outcome, Outcome::StayedUp);
}

#[test]
fn three_hosts_storage_of_one_is_cut() {
    let view = even(3, 2, "datastores = [\"ds1\", \"ds2\"]");
    let rehearsed = played(&view, &[cut("host-2", None)]);
    let datastore = DatastoreName::new("ds1");
    for name in ["vm-2-1", "vm-2-2"] {
        let expected = Outcome::WithoutStorage { datastore: datastore.clone() };
        assert_eq!(of(&rehearsed, name).outcome, expected, "heard by network: not frozen, not moved");
    }
    assert_eq!(rehearsed.not_well().count(), 2);
    assert!(told(&rehearsed, "datastore ds1 is out of reach"), "{:#?}", rehearsed.timeline);
    assert!(judged(&rehearsed, "host-2").is_empty(), "{:#?}", rehearsed.hosts);
    let other = played(&view, &[cut("host-2", Some("ds2"))]);
    assert!(other.not_well().next().is_none(), "nothing lies on ds2: {:#?}", other.vms);
}

#[test]
fn three_hosts_one_isolated_without_its_storage() {
    let view = even(3, 2, "");
    let rehearsed = played(&view, &[RehearsedFault::Isolate(host("host-2")), cut("host-2", None)]);
    assert!(told(&rehearsed, "vm-2-1 is frozen"), "{:#?}", rehearsed.timeline);
    assert!(judged(&rehearsed, "host-2").contains(&HostState::Failed), "{:#?}", rehearsed.hosts);
    let outcome = of(&rehearsed, "vm-2-1");
    let Outcome::Restarted { after } = outcome.outcome else { panic!("{outcome:?}") };
    // It was frozen a lease after its last sign of life, and was away from then on.
    assert!(outcome.down_for.is_some_and(|down| down < after), "{outcome:?}");
}

/// Two hosts with room for one more VM of 16 GiB each, and a third with four of them.
fn crowded() -> View {
    let mut vms = String::new();
    for number in 1..=3 {
        vms += &vm(&format!("a{number}"), 1, "memory_mib = 16384");
        vms += &vm(&format!("b{number}"), 2, "memory_mib = 16384");
    }
    for (name, priority) in [("low1", "low"), ("high1", "high"), ("low2", "low"), ("high2", "high")] {
        vms += &vm(name, 3, &format!("memory_mib = 16384\npriority = \"{priority}\""));
    }
    view_of(&format!("{}{vms}", hosts(3)))
}

#[test]
fn over_full_cluster_has_the_low_priorities_wait_with_a_reason_for_each_host() {
    let rehearsed = played(&crowded(), &[fail("host-3")]);
    for name in ["high1", "high2"] {
        let outcome = of(&rehearsed, name);
        assert!(matches!(outcome.outcome, Outcome::Restarted { .. }), "{outcome:?}");
    }
    for name in ["low1", "low2"] {
        let outcome = of(&rehearsed, name);
        let Outcome::Waits { reasons } = &outcome.outcome else { panic!("{outcome:?}") };
        let hosts: Vec<&str> = reasons.iter().map(|one| one.host.as_str()).collect();
        assert_eq!(hosts.len(), 3, "{reasons:?}");
        for living in ["host-1", "host-2"] {
            let reason = reasons.iter().find(|one| one.host.as_str() == living).expect("a reason");
            assert!(reason.reason.ends_with("384 MiB needed"), "{reasons:?}");
        }
        assert_eq!((outcome.to.as_ref(), outcome.down_for), (None, None));
    }
    assert_eq!(rehearsed.not_well().count(), 2);
    assert!(rehearsed.complete, "waiting is rest");
}

#[test]
fn memory_of_hosts_is_that_of_the_view() {
    let mut view = even(3, 2, "");
    let roomy = played(&view, &[fail("host-3")]);
    assert!(roomy.not_well().next().is_none());
    for seen in &mut view.hosts {
        let capacity = seen.capacity.as_mut().expect("known");
        // Something else has the rest; one VM of 512 MiB still fits on host-2.
        capacity.memory_free_mib = if seen.host == host("host-2") { 700 } else { 300 };
    }
    let tight = played(&view, &[fail("host-3")]);
    let outcomes: Vec<_> = tight.vms.iter().filter(|vm| vm.from == Some(host("host-3"))).collect();
    assert_eq!(outcomes.iter().filter(|vm| vm.to == Some(host("host-2"))).count(), 1, "{outcomes:?}");
    assert_eq!(tight.not_well().count(), 1, "{outcomes:?}");
}

#[test]
fn memory_that_is_not_known_is_counted_as_enough_and_said() {
    let mut view = crowded();
    view.hosts.iter_mut().for_each(|seen| seen.capacity = None);
    let rehearsed = played(&view, &[fail("host-3")]);
    assert!(rehearsed.not_well().next().is_none(), "{:#?}", rehearsed.vms);
    assert_eq!(rehearsed.assumptions.len(), 3);
    assert!(rehearsed.assumptions[0].contains("host-1 has not said how much memory"));
}

#[test]
fn priorities_and_protection_are_those_of_the_view() {
    let mut view = even(3, 3, "");
    for seen in &mut view.vms {
        match &*seen.name {
            "vm-2-1" => seen.priority = Priority::Disabled,
            "vm-2-2" => seen.protected = false,
            _ => {}
        }
    }
    let rehearsed = played(&view, &[fail("host-2")]);
    let why = |name: &str| match &of(&rehearsed, name).outcome {
        Outcome::StaysDown { why, .. } => why.clone(),
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(why("vm-2-1"), "its restart priority is disabled");
    assert_eq!(why("vm-2-2"), "its user took it out of protection");
    assert!(matches!(of(&rehearsed, "vm-2-3").outcome, Outcome::Restarted { .. }));
}

/// The ids of these VMs in that view.
fn ids<const N: usize>(view: &View, names: [&str; N]) -> BTreeSet<VmId> {
    let id = |name| view.vms.iter().find(|vm| &*vm.name == name).expect("that VM").vm;
    names.map(id).into()
}

#[test]
fn rules_are_those_of_the_view() {
    let mut view = even(4, 2, "");
    let vms = ids(&view, ["vm-4-1", "vm-4-2"]);
    let hosts = [host("host-2")].into();
    let rule = Rule { strength: Strength::Must, kind: RuleKind::OnHosts, vms, hosts };
    let settings = Settings { rules: [("on host-2".into(), rule)].into(), ..Settings::default() };
    view.settings = settings.clone().into();
    let rehearsed = played(&view, &[fail("host-4")]);
    for name in ["vm-4-1", "vm-4-2"] {
        assert_eq!(of(&rehearsed, name).to, Some(host("host-2")), "{:#?}", rehearsed.vms);
    }
    let rehearsed = played(&view, &[fail("host-4"), fail("host-2")]);
    assert!(matches!(of(&rehearsed, "vm-4-1").outcome, Outcome::Waits { .. }), "{:#?}", rehearsed.vms);
    // What is kept for maintenance gets nothing.
    view.vms.retain(|vm| vm.host != Some(host("host-1")));
    let maintenance = [(host("host-1"), Evacuation::Migrate)].into();
    view.settings = Settings { maintenance, ..settings }.into();
    let rehearsed = played(&view, &[fail("host-3")]);
    assert!(rehearsed.vms.iter().all(|vm| vm.to != Some(host("host-1"))), "{:#?}", rehearsed.vms);
    assert!(rehearsed.not_well().next().is_none(), "{:#?}", rehearsed.vms);
}

#[test]
fn order_of_starts_is_that_of_the_view() {
    let mut view = even(3, 3, "");
    let database = Group { vms: ids(&view, ["vm-3-3"]), ..Group::default() };
    let web = Group { vms: ids(&view, ["vm-3-1", "vm-1-1"]), waits_for: ["database".into()].into() };
    let readiness = Readiness { when: ReadyWhen::AgentAnswers, ..Readiness::default() };
    let settings = VmSettings { readiness: Some(readiness), ..VmSettings::default() };
    view.settings = Settings {
        groups: [("database".into(), database), ("web".into(), web)].into(),
        vms: ids(&view, ["vm-3-3"]).into_iter().map(|vm| (vm, settings.clone())).collect(),
        ..Settings::default()
    }
    .into();
    let rehearsed = played(&view, &[fail("host-3")]);
    let after = |name: &str| match of(&rehearsed, name).outcome {
        Outcome::Restarted { after } => after,
        ref other => panic!("{name}: {other:?}"),
    };
    assert!(after("vm-3-1") > after("vm-3-3") + GUEST_BOOT, "{:#?}", rehearsed.timeline);
    assert!(after("vm-3-2") < Span::from_secs(10), "nobody waits for it, and it for nobody");
}

#[test]
fn what_does_not_run_or_has_failed_before_is_left_out() {
    let mut view = even(3, 2, "");
    let secondary = view.hosts.iter().map(|seen| seen.host.clone()).find(|id| *id != view.host).expect("one");
    for seen in view.hosts.iter_mut().filter(|seen| seen.host == secondary) {
        seen.state = HostState::Failed;
        seen.datastores.clear();
    }
    let off = view.vms.iter_mut().find(|vm| vm.host.as_ref() == Some(&view.host)).expect("one");
    off.state = VmState::Off;
    off.host = None;
    for vm in view.vms.iter_mut().filter(|vm| vm.host.as_ref() == Some(&secondary)) {
        vm.state = VmState::Unknown;
    }
    let primary = RehearsedFault::Fail(view.host.clone());
    let rehearsed = played(&view, &[primary]);
    assert_eq!((rehearsed.vms.len(), rehearsed.left_out.len()), (3, 3));
    assert!(rehearsed.left_out.iter().any(|left| left.why == "it is off"));
    assert!(rehearsed.left_out.iter().any(|left| left.why == format!("its host {secondary} is failed now")));
    assert!(rehearsed.not_well().next().is_none(), "{:#?}", rehearsed.vms);
    let again = rehearse(&view, &[RehearsedFault::Fail(secondary.clone())], &Surroundings::default());
    assert_eq!(again, Err(RehearseError::FailedAlready { host: secondary }));
}

#[test]
fn storage_that_keeps_locks_makes_restarts_wait_for_it() {
    let view = even(3, 1, "");
    let keeps = Span::from_secs(30);
    let lock_release = [(DatastoreName::new("ds1"), keeps)].into();
    let surroundings = Surroundings { lock_release, ..Surroundings::default() };
    let rehearsed = rehearse(&view, &[fail("host-2")], &surroundings).expect("a rehearsal");
    let Outcome::Restarted { after } = of(&rehearsed, "vm-2-1").outcome else {
        panic!("{:?}", rehearsed.vms)
    };
    assert!(after >= keeps, "{after}");
    assert!(told(&rehearsed, "vm-2-1 waits for the storage"), "{:#?}", rehearsed.timeline);
}

#[test]
fn many_equal_moments_become_one() {
    let view = even(3, 30, "");
    let rehearsed = played(&view, &[fail("host-2")]);
    assert!(rehearsed.timeline.len() <= 40, "{:#?}", rehearsed.timeline);
    assert!(told(&rehearsed, "30 VMs are to be taken from silent host-2"), "{:#?}", rehearsed.timeline);
    assert!(told(&rehearsed, "VMs run again on host-1 (the first is"), "{:#?}", rehearsed.timeline);
}

#[test]
fn very_many_equal_moments_become_one_without_their_hosts() {
    let view = even(24, 4, "");
    let faults: Vec<_> = (1..=12).map(|index| fail(&format!("host-{index}"))).collect();
    let rehearsed = played(&view, &faults);
    assert!(rehearsed.not_well().next().is_none(), "{:#?}", rehearsed.vms);
    assert!(rehearsed.timeline.len() <= 40, "{:#?}", rehearsed.timeline);
    assert!(told(&rehearsed, "48 VMs run again (the first is"), "{:#?}", rehearsed.timeline);
}

#[test]
fn what_can_not_be_rehearsed_is_refused_in_words() {
    let view = even(3, 1, "");
    let refused = |view: &View, faults: &[RehearsedFault]| {
        rehearse(view, faults, &Surroundings::default()).expect_err("refused").to_string()
    };
    let said = refused(&view, &[fail("host-9")]);
    assert_eq!(said, "there is no host host-9 in the cluster: its hosts are host-1, host-2, host-3");
    let said = refused(&view, &[cut("host-1", Some("ds9"))]);
    assert_eq!(said, "there is no datastore ds9 in the cluster: its datastores are ds1");
    let said = refused(&view, &[fail("host-1"), fail("host-2"), fail("host-3")]);
    assert!(said.starts_with("every host that is up would fail"), "{said}");
    assert!(refused(&view, &[]).starts_with("no fault is named"));
    let secondary = View { role: Role::Secondary, primary: Some(host("host-3")), ..view.clone() };
    let said = refused(&secondary, &[fail("host-1")]);
    assert!(said.ends_with("ask host-3, which is the primary"), "{said}");
    let mut troubled = view.clone();
    troubled.hosts[0].state = HostState::Partitioned;
    let said = refused(&troubled, &[fail("host-2")]);
    assert!(said.starts_with("host-1 is partitioned now, and a rehearsal begins with hosts"), "{said}");
    let mut hasty = view.clone();
    hasty.timing.failure_timeout = hasty.timing.lease;
    let said = refused(&hasty, &[fail("host-2")]);
    assert!(said.starts_with("this cluster can't be rehearsed: failure_timeout"), "{said}");
    let mut doubled = view.clone();
    doubled.hosts.push(view.hosts[0].clone());
    let said = refused(&doubled, &[fail("host-2")]);
    assert!(said.contains("host id host-1 is used twice"), "{said}");
    // Two defaults can't be: what the simulated cluster lacks is named.
    let mut lost = view.clone();
    lost.vms[0].isolation_response_own = false;
    lost.vms[0].isolation_response = IsolationResponse::PowerOff;
    lost.vms[1].isolation_response = IsolationResponse::ShutDown;
    let said = refused(&lost, &[fail("host-2")]);
    assert!(said.contains("after 300.000 s, so nothing was rehearsed: vm-2-1"), "{said}");
}

#[test]
fn the_same_view_gives_the_same_rehearsal() {
    let view = even(3, 4, "datastores = [\"ds1\", \"ds2\"]");
    let faults = [fail("host-1"), cut("host-2", Some("ds2"))];
    let once = played(&view, &faults);
    assert_eq!(once, played(&view, &faults));
    // On its way to whoever shows it, a view is text.
    let text = serde_json::to_string(&view).expect("text");
    let back: View = serde_json::from_str(&text).expect("a view");
    assert_eq!(once, played(&back, &faults));
    // And what was rehearsed before leaves nothing behind.
    played(&even(2, 1, ""), &[fail("host-1")]);
    assert_eq!(once, played(&view, &faults));
}

#[test]
fn a_guest_whose_agent_has_answered_before_counts_as_restarted_when_it_answers_again() {
    // Its chance of having answered before the fault depended on when it happened to be asked.
    for vms in 1..=6 {
        let vms: String = (1..=vms).map(|number| vm(&format!("vm-{number}"), 1, "")).collect();
        let mut view = view_of(&format!("{}{vms}", hosts(3)));
        view.timing = Timing::SWIFT;
        let readiness = Readiness { when: ReadyWhen::AgentAnswers, ..Readiness::default() };
        let settings = VmSettings { readiness: Some(readiness), ..VmSettings::default() };
        let vms = ids(&view, ["vm-1"]).into_iter().map(|vm| (vm, settings.clone())).collect();
        view.settings = Settings { vms, ..Settings::default() }.into();
        let rehearsed = played(&view, &[fail("host-1")]);
        let told = rehearsed.timeline.iter().find(|m| m.what.starts_with("vm-1 of host-1 runs again"));
        assert!(told.is_some_and(|moment| moment.after > GUEST_BOOT), "{:#?}", rehearsed.timeline);
    }
}
