//! Random cases with utilization, anti-affinity, forbidden hosts and order, compared with Pacemaker's `crm_simulate` where it is installed
//! (Debian: `pacemaker-cli-utils`): feasibility and rules, not the exact host. Skipped with a message where it is not.

mod support;

use mainstay_placement::*;
use std::collections::BTreeMap;
use support::crm::{cib, is_installed, simulate};
use support::random::{Kind, Random, by_priority, names, tight};

const CASES: u64 = 60;

/// Without what `crm_simulate` has no word for.
fn picture(random: &mut Random) -> Picture {
    let kind =
        Kind { hosts: 4, vms: 6 + random.below(6) as usize, rules: false, tightness: 50 + random.below(60) };
    let mut picture = tight(random, kind);
    let (hosts, vms) = (names("h", kind.hosts), names("v", kind.vms));
    for vm in picture.vms.values_mut() {
        vm.host = Some("h0".into());
    }
    for rule in names("rule", 3) {
        let members: Vec<Name> =
            (0..2 + random.below(2)).filter_map(|_| random.pick(&vms).cloned()).collect();
        let kind = if random.percent(60) {
            RuleKind::Apart { vms: members }
        } else {
            RuleKind::NotOnHosts { vms: members, hosts: random.some(&hosts, 30) }
        };
        picture.rules.insert(rule, Rule { strength: Strength::Must, kind });
    }
    // Only equal priorities wait for each other: what else is refused is another test's matter.
    let medium: Vec<Name> = picture
        .vms
        .iter()
        .filter(|(_, vm)| vm.priority == Priority::Medium)
        .map(|(name, _)| name.clone())
        .collect();
    if let [first, then, ..] = &medium[..] {
        picture.groups.insert("first".into(), Group { vms: vec![first.clone()], waits_for: Vec::new() });
        picture
            .groups
            .insert("then".into(), Group { vms: vec![then.clone()], waits_for: vec!["first".into()] });
    }
    picture
}

#[test]
fn crm_simulate_agrees_on_feasibility_rules_and_order() {
    if !is_installed() {
        println!("skipped: crm_simulate is not installed (Debian package pacemaker-cli-utils)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cib.xml");
    let failed = Name::from("h0");
    let (mut more, mut all_back) = (0, 0);
    for seed in 0..CASES {
        let random = &mut Random(seed);
        let picture = picture(random);
        let ours = plan(&picture, std::slice::from_ref(&failed), Purpose::Failover);

        // Its placement keeps our rules, as our judge sees them.
        std::fs::write(&file, cib(&picture, &BTreeMap::new(), Some(&failed))).unwrap();
        let theirs = simulate(&file);
        let placed =
            theirs.at.iter().map(|(vm, host)| Placement { vm: vm.clone(), host: host.clone() }).collect();
        let their_plan = Plan { placed, left_out: Vec::new(), ..ours.clone() };
        let found = breaches(&picture, &their_plan);
        let found: Vec<_> =
            found.into_iter().filter(|breach| !matches!(breach, Breach::Forgotten(_))).collect();
        assert_eq!(found, vec![], "seed {seed}: {theirs:?}");

        // Ours keeps its rules: started so, it leaves everything where it is. Those left out are kept from it, or it would put out others
        // of the same priority for them.
        let mut without = picture.clone();
        without.vms.retain(|vm, _| ours.host_of(vm).is_some());
        without.rules.retain(|_, rule| match &mut rule.kind {
            RuleKind::Apart { vms } | RuleKind::NotOnHosts { vms, .. } => {
                vms.retain(|vm| without.vms.contains_key(vm));
                !vms.is_empty()
            }
            RuleKind::OnHosts { .. } | RuleKind::Together { .. } => false,
        });
        without.groups.retain(|_, group| group.vms.iter().all(|vm| without.vms.contains_key(vm)));
        let at = ours.placed.iter().map(|one| (one.vm.clone(), one.host.clone())).collect();
        std::fs::write(&file, cib(&without, &at, Some(&failed))).unwrap();
        let kept = simulate(&file);
        assert!(!kept.disturbed, "seed {seed}: crm_simulate would not leave {ours:?}");

        // Whatever it brings back, we bring back at least as much, priority by priority.
        let (by_us, by_them) = (by_priority(&picture, &ours), by_priority(&picture, &their_plan));
        assert!(by_us >= by_them, "seed {seed}: {by_us:?}, crm_simulate {by_them:?}");
        more += usize::from(by_us > by_them);
        all_back += usize::from(ours.left_out.is_empty());

        // Both start the first before the one that waits for it.
        let order = StartPlan::new(&picture, &ours).unwrap();
        if let (Some(first), Some(then)) = (picture.groups.get("first"), picture.groups.get("then")) {
            let (first, then) = (&first.vms[0], &then.vms[0]);
            let theirs = |vm: &Name| theirs.starts.iter().position(|other| other == vm);
            if let (Some(first), Some(then)) = (theirs(first), theirs(then)) {
                assert!(first < then, "seed {seed}");
            }
            let wave = |vm: &Name| order.steps().iter().find(|step| step.vm == *vm).map(|step| step.wave);
            if let (Some(first), Some(then)) = (wave(first), wave(then)) {
                assert!(first < then, "seed {seed}");
            }
        }
    }
    assert!(
        all_back > 5 && all_back < CASES as usize - 5,
        "{all_back} of {CASES} cases all back: not what was meant to be tried"
    );
    println!("{CASES} cases, in {more} of them more VMs come back than with crm_simulate");
}
