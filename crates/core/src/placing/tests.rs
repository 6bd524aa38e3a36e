//! The plan at hand is followed while it holds, and not when it does not.

use super::*;
use crate::register::VmSpec;
use crate::settings::{Rule, RuleKind, Settings, Strength};
use alloc::vec;

fn vm(number: u8) -> VmId {
    VmId([number; 16])
}

fn hosts(down: &[&str]) -> Vec<HostScene> {
    let host = |name: &&str| HostScene {
        host: HostId::new(name),
        unusable: down.contains(name).then_some("not connected"),
        datastores: vec!["ds1".into()],
        memory_mib: 8_192,
        memory_free_mib: 8_192,
        offers: None,
    };
    ["h1", "h2", "h3"].iter().map(host).collect()
}

fn scene(down: &[&str], settings: &Settings) -> Scene {
    let spec = VmSpec { memory_mib: 2_048, vcpus: 1, ..VmSpec::default() };
    let names: Vec<Arc<str>> = (1..=3).map(|number| Arc::from(alloc::format!("vm{number}"))).collect();
    let (home, h1) = ("ds1".into(), HostId::new("h1"));
    let vms: Vec<VmScene<'_>> = (1..=3u8)
        .zip(&names)
        .map(|(number, name)| VmScene {
            vm: vm(number),
            name,
            spec: &spec,
            datastore: &home,
            host: Some(&h1),
            running: false,
            starting: false,
            wanted: true,
            failed_on: Vec::new(),
            on: true,
        })
        .collect();
    make_scene(&hosts(down), &vms, settings)
}

fn wants(numbers: &[u8]) -> Vec<Want> {
    let want = |number: &u8| Want {
        vm: vm(*number),
        kind: WantKind::Restart,
        first_try: None,
        passed_over: false,
        tried: BTreeSet::new(),
        since: Time(2),
        lost_on: Some("h1".into()),
    };
    numbers.iter().map(want).collect()
}

fn rehearsed(settings: &Settings) -> PlansAtHand {
    let mut standing = PlansAtHand::default();
    standing.rehearse(&scene(&[], settings), settings, &BTreeSet::new(), Time(1));
    standing
}

fn followed(standing: &PlansAtHand, scene: &Scene, wants: &[Want]) -> bool {
    standing.follow(scene, &scene.with_wants(wants.iter()), wants).is_some()
}

fn placed(scene: &Scene, wants: &[Want], standing: &PlansAtHand) -> Placed {
    let (under_way, now) = (BTreeMap::new(), Time(2));
    place(&Round { scene, wants, under_way: &under_way, began: now, now }, standing)
}

#[test]
fn a_plan_at_hand_that_still_holds_is_followed_to_the_letter() {
    let settings = Settings::default();
    let standing = rehearsed(&settings);
    let (now, wants) = (scene(&["h1"], &settings), wants(&[1, 2, 3]));
    assert!(followed(&standing, &now, &wants));
    let placed = placed(&now, &wants, &standing);
    let planned = &standing.plans()[&HostId::new("h1")];
    assert_eq!(planned.len(), 3);
    for VmPlace { vm, host } in planned {
        assert_eq!(placed.places.get(vm), Some(&Place::Go(host.clone())));
    }
}

#[test]
fn one_that_holds_no_longer_is_made_anew() {
    let settings = Settings::default();
    let standing = rehearsed(&settings);
    let wants = wants(&[1, 2, 3]);
    // A host of the plan is down as well.
    let now = scene(&["h1", "h2"], &settings);
    assert!(!followed(&standing, &now, &wants));
    let placed = placed(&now, &wants, &standing);
    assert!(placed.places.values().all(|place| *place == Place::Go("h3".into())));
    // A rule is new.
    let apart = Rule {
        strength: Strength::Must,
        kind: RuleKind::Apart,
        vms: [vm(1), vm(2), vm(3)].into(),
        hosts: BTreeSet::new(),
    };
    let ruled = Settings { revision: 1, rules: [("apart".into(), apart)].into(), ..Settings::default() };
    assert!(!followed(&standing, &scene(&["h1"], &ruled), &wants));
    // A VM is missing from it, or was lost on another host.
    assert!(!followed(&PlansAtHand::default(), &scene(&["h1"], &settings), &wants));
    let mut elsewhere = wants.clone();
    elsewhere[0].lost_on = Some("h2".into());
    assert!(!followed(&standing, &scene(&["h1"], &settings), &elsewhere));
}

#[test]
fn the_next_rehearsal_is_the_same_as_one_made_anew() {
    let settings = Settings::default();
    let mut standing = rehearsed(&settings);
    let now = scene(&["h3"], &settings);
    standing.rehearse(&now, &settings, &BTreeSet::new(), Time(9));
    let mut anew = PlansAtHand::default();
    anew.rehearse(&now, &settings, &BTreeSet::new(), Time(9));
    assert_eq!(standing, anew);
    assert!(anew.plans()[&HostId::new("h1")].iter().all(|place| place.host == HostId::new("h2")));
}

#[test]
fn a_vm_whose_only_hosts_are_down_is_orphaned() {
    let only = Rule {
        strength: Strength::Must,
        kind: RuleKind::OnHosts,
        vms: [vm(1)].into(),
        hosts: ["h1".into()].into(),
    };
    let settings = Settings { revision: 1, rules: [("only".into(), only)].into(), ..Settings::default() };
    let now = scene(&["h1"], &settings);
    let placed = placed(&now, &wants(&[1, 2]), &PlansAtHand::default());
    let orphaned = |number| matches!(placed.places[&vm(number)], Place::Nowhere { orphaned: true, .. });
    assert!(orphaned(1) && !orphaned(2));
}

#[test]
fn what_is_shown_is_the_plan_at_hand_while_it_holds() {
    let settings = Settings::default();
    let standing = rehearsed(&settings);
    let shown = |at_hand: BTreeMap<HostId, Vec<VmPlace>>, settings: &Settings| {
        let scene = scene(&[], settings);
        let rehearsed = RehearsalScene { scene, settings: Arc::new(settings.clone()), at_hand }.rehearse();
        let plan = rehearsed.hosts.into_iter().find(|plan| plan.host == HostId::new("h1")).expect("a plan");
        plan.placed.into_iter().map(|one| (one.vm, one.to)).collect::<BTreeMap<VmId, HostId>>()
    };
    let fresh = shown(BTreeMap::new(), &settings);
    assert_eq!(fresh.len(), 3);
    // The two that are left are as good as each other.
    let swapped = |at: &HostId| HostId::new(if *at == HostId::new("h2") { "h3" } else { "h2" });
    let mut other = standing.under(&settings);
    for place in other.get_mut(&HostId::new("h1")).expect("a plan") {
        place.host = swapped(&place.host);
    }
    let by_hand = shown(other.clone(), &settings);
    assert_ne!(by_hand, fresh);
    assert_eq!(by_hand, fresh.iter().map(|(vm, to)| (*vm, swapped(to))).collect());
    // It forgets one, or does not hold: then what would be decided is shown.
    let mut short = other.clone();
    short.get_mut(&HostId::new("h1")).expect("a plan").pop();
    assert_eq!(shown(short, &settings), fresh);
    for place in other.get_mut(&HostId::new("h1")).expect("a plan") {
        place.host = HostId::new("h1");
    }
    assert_eq!(shown(other, &settings), fresh);
    let newer = Settings { revision: settings.revision + 1, ..settings.clone() };
    assert!(standing.under(&newer).is_empty());
}
