//! The best that is possible, by going through all subsets of VMs on all hosts. Independent of the crate's own search: it shares no
//! code with it, and knows no order, no spread and no bound. For up to about a dozen VMs.

use mainstay_placement::*;

/// The most VMs that can come back per rank (priority, those passed over first), the first rank first, when `failed` fails.
pub fn best(picture: &Picture, failed: &Name) -> Vec<usize> {
    let lost: Vec<(&Name, &Vm)> = picture
        .vms
        .iter()
        .filter(|(_, vm)| vm.restarts() && vm.host.as_ref().is_none_or(|host| host == failed))
        .collect();
    let all = 1usize << lost.len();
    let mut reachable = vec![false; all];
    reachable[0] = true;
    for (name, host) in
        picture.hosts.iter().filter(|(name, host)| *name != failed && host.state == HostState::Usable)
    {
        let judge = Judge { picture, failed, lost: &lost, name, host };
        let good: Vec<usize> = (1..all).filter(|set| judge.takes(*set)).collect();
        let before = reachable.clone();
        for from in (0..all).filter(|set| before[*set]) {
            for set in good.iter().filter(|set| **set & from == 0) {
                reachable[from | set] = true;
            }
        }
    }
    let ranks = ranks(picture, &lost);
    let counts = |set: usize| {
        let mut counts = vec![0; 10];
        (0..lost.len()).filter(|vm| set >> vm & 1 == 1).for_each(|vm| counts[ranks[vm]] += 1);
        counts
    };
    (0..all).filter(|set| reachable[*set]).map(counts).max().unwrap_or_default()
}

/// The ranks of the VMs of a plan, counted.
pub fn ranked(picture: &Picture, failed: &Name, plan: &Plan) -> Vec<usize> {
    let lost: Vec<(&Name, &Vm)> = picture
        .vms
        .iter()
        .filter(|(_, vm)| vm.restarts() && vm.host.as_ref().is_none_or(|host| host == failed))
        .collect();
    let ranks = ranks(picture, &lost);
    let mut counts = vec![0; 10];
    for (index, (name, _)) in lost.iter().enumerate() {
        counts[ranks[index]] += usize::from(plan.host_of(name).is_some());
    }
    counts
}

fn own_rank(vm: &Vm) -> usize {
    let step = match vm.priority {
        Priority::Highest => 0,
        Priority::High => 2,
        Priority::Medium => 4,
        Priority::Low => 6,
        Priority::Lowest | Priority::Disabled => 8,
    };
    step + usize::from(!vm.passed_over)
}

/// VMs that must be together have the best rank of any of them.
fn ranks(picture: &Picture, lost: &[(&Name, &Vm)]) -> Vec<usize> {
    let mut ranks: Vec<usize> = lost.iter().map(|(_, vm)| own_rank(vm)).collect();
    let mut moved = true;
    while moved {
        moved = false;
        for set in together(picture) {
            let inside: Vec<usize> = (0..lost.len()).filter(|vm| set.contains(lost[*vm].0)).collect();
            let first = inside.iter().map(|vm| ranks[*vm]).min().unwrap_or(0);
            for vm in inside {
                moved |= ranks[vm] != first;
                ranks[vm] = first;
            }
        }
    }
    ranks
}

/// VMs that must be together, each set closed over rules that share a VM.
fn together(picture: &Picture) -> Vec<Vec<Name>> {
    let mut sets: Vec<Vec<Name>> = Vec::new();
    for rule in picture.rules.values().filter(|rule| rule.strength == Strength::Must) {
        if let RuleKind::Together { vms } = &rule.kind {
            let mut set: Vec<Name> = vms.iter().filter(|vm| picture.vms.contains_key(*vm)).cloned().collect();
            sets.retain(|other| {
                let joins = other.iter().any(|vm| set.contains(vm));
                if joins {
                    set.extend(other.iter().cloned());
                }
                !joins
            });
            sets.push(set);
        }
    }
    sets
}

struct Judge<'a> {
    picture: &'a Picture,
    failed: &'a Name,
    lost: &'a [(&'a Name, &'a Vm)],
    name: &'a Name,
    host: &'a Host,
}

impl Judge<'_> {
    fn runs_on(&self, vm: &Name) -> Option<&Name> {
        self.picture.vms.get(vm)?.host.as_ref().filter(|host| *host != self.failed)
    }

    /// The host can take exactly these VMs, besides those that run there.
    fn takes(&self, set: usize) -> bool {
        let inside = || self.lost.iter().enumerate().filter(|(vm, _)| set >> vm & 1 == 1).map(|(_, vm)| *vm);
        let there = || self.picture.vms.values().filter(|vm| vm.host.as_ref() == Some(self.name));
        let used = there()
            .chain(inside().map(|(_, vm)| vm))
            .fold(self.host.kept_back, |sum, vm| sum.plus(vm.demand()));
        let offers = &self.host.offers;
        let has = |vm: &Vm| vm.needs.datastores.iter().all(|needed| offers.datastores.contains(needed));
        let devices_do =
            offers.devices.iter().chain(inside().flat_map(|(_, vm)| &vm.needs.devices)).all(|device| {
                let offered = offers.devices.iter().filter(|other| *other == device).count();
                let needs = |vm: &Vm| vm.needs.devices.iter().filter(|other| *other == device).count();
                let wanted: usize = inside().map(|(_, vm)| needs(vm)).sum();
                wanted == 0 || wanted + there().map(needs).sum::<usize>() <= offered
            });
        let in_set = |vm: &Name| inside().any(|(other, _)| other == vm);
        let rules_do =
            self.picture.rules.values().filter(|rule| rule.strength == Strength::Must).all(|rule| {
                let (RuleKind::OnHosts { vms, .. }
                | RuleKind::NotOnHosts { vms, .. }
                | RuleKind::Apart { vms }
                | RuleKind::Together { vms }) = &rule.kind;
                let mut named: Vec<&Name> = vms.iter().filter(|vm| in_set(vm)).collect();
                named.sort();
                named.dedup();
                match &rule.kind {
                    RuleKind::OnHosts { hosts, .. } => named.is_empty() || hosts.contains(self.name),
                    RuleKind::NotOnHosts { hosts, .. } => named.is_empty() || !hosts.contains(self.name),
                    RuleKind::Apart { vms } => {
                        let beside = vms.iter().any(|vm| self.runs_on(vm) == Some(self.name));
                        named.len() + usize::from(beside && !named.is_empty()) <= 1
                    }
                    RuleKind::Together { .. } => true,
                }
            });
        let wholes_do = together(self.picture).iter().all(|whole| {
            let some = whole.iter().any(in_set);
            let lost = |vm: &&Name| self.lost.iter().any(|(other, _)| other == vm);
            let all = whole.iter().filter(lost).all(in_set);
            let elsewhere = whole.iter().any(|vm| self.runs_on(vm).is_some_and(|host| host != self.name));
            !some || all && !elsewhere
        });
        self.host.capacity.holds(used)
            && inside().all(|(_, vm)| has(vm))
            && devices_do
            && rules_do
            && wholes_do
    }
}
