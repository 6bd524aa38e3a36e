//! Does a plan fit its picture? Found out anew from the picture alone, with none of the code that made the plan.
//!
//! Two uses: before a plan at hand is followed, against the picture of that moment; and as the judge in the tests.
//! It looks once at every VM, and at nothing else that is large.

use crate::Resources;
use crate::picture::{HostState, Name, Picture, RuleKind, Strength, Vm};
use crate::plan::Plan;
use crate::refusal::grouped;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::fmt;

/// What is wrong with a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Breach {
    /// It names a VM more than once.
    Twice(Name),
    /// It moves a VM that is not lost, not waiting, not wanted, or not in the picture.
    NotLost(Name),
    /// It says nothing of a VM that is lost or waits.
    Forgotten(Name),
    /// It uses a host that failed, takes no VMs, or is not in the picture.
    HostTakesNone {
        /// The VM that it sends there.
        vm: Name,
        /// The host that the plan sends it to.
        host: Name,
    },
    /// The host does not have what the VM needs.
    Lacks {
        /// The VM that the plan places there.
        vm: Name,
        /// The host that it is placed on.
        host: Name,
        /// What it does not have.
        what: Name,
    },
    /// More is placed on the host than it has left.
    OverCapacity {
        /// The host that is given too much.
        host: Name,
        /// What it has left.
        free: Resources,
        /// What is placed there.
        placed: Resources,
    },
    /// A must rule is broken.
    Rule {
        /// The name of the broken rule.
        rule: Name,
        /// A VM that breaks it.
        vm: Name,
    },
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Twice(vm) => write!(f, "{vm} is in the plan twice"),
            Self::NotLost(vm) => write!(f, "{vm} needs no host"),
            Self::Forgotten(vm) => write!(f, "{vm} is lost, and the plan does not say what becomes of it"),
            Self::HostTakesNone { vm, host } => write!(f, "{vm} can't go to {host}: it takes no VMs"),
            Self::Lacks { vm, host, what } => write!(f, "{vm} can't go to {host}: it does not have `{what}`"),
            Self::OverCapacity { host, free, placed } => write!(
                f,
                "{host} has {} MiB and {} MHz left, and the plan puts {} MiB and {} MHz there",
                grouped(free.memory_mib),
                grouped(free.cpu_mhz),
                grouped(placed.memory_mib),
                grouped(placed.cpu_mhz)
            ),
            Self::Rule { rule, vm } => write!(f, "{vm} would break rule `{rule}`"),
        }
    }
}

/// All that is wrong with the plan on this picture; empty: it can be followed.
pub fn breaches(picture: &Picture, plan: &Plan) -> Vec<Breach> {
    let mut found = Vec::new();
    let placed: BTreeMap<&Name, &Name> = plan.placed.iter().map(|one| (&one.vm, &one.host)).collect();
    named_once(picture, plan, &mut found);
    for (vm, host) in &placed {
        if let Some(slot) = picture.vms.get(*vm) {
            suits(picture, plan, (vm, slot), host, &mut found);
        }
    }
    room(picture, plan, &placed, &mut found);
    rules(picture, plan, &placed, &mut found);
    found
}

fn is_lost(plan: &Plan, vm: &Vm) -> bool {
    vm.host.as_ref().is_none_or(|host| plan.failed.binary_search(host).is_ok())
}

fn named_once(picture: &Picture, plan: &Plan, found: &mut Vec<Breach>) {
    let restarted = plan.placed.iter().map(|one| &one.vm).chain(plan.left_out.iter().map(|one| &one.vm));
    let mut seen = BTreeSet::new();
    for vm in restarted {
        if !seen.insert(vm) {
            found.push(Breach::Twice(vm.clone()));
        }
        if !picture.vms.get(vm).is_some_and(|slot| slot.restarts() && is_lost(plan, slot)) {
            found.push(Breach::NotLost(vm.clone()));
        }
    }
    for (name, vm) in &picture.vms {
        if vm.restarts() && is_lost(plan, vm) && !seen.contains(name) {
            found.push(Breach::Forgotten(name.clone()));
        }
    }
}

fn suits(picture: &Picture, plan: &Plan, (name, vm): (&Name, &Vm), host: &Name, found: &mut Vec<Breach>) {
    let failed = plan.failed.binary_search(host).is_ok();
    let Some(slot) = picture.hosts.get(host).filter(|slot| slot.state == HostState::Usable && !failed) else {
        found.push(Breach::HostTakesNone { vm: name.clone(), host: host.clone() });
        return;
    };
    let pairs = [
        (&vm.needs.datastores[..], &slot.offers.datastores),
        (&vm.needs.networks, &slot.offers.networks),
        (vm.needs.cpu_model.as_slice(), &slot.offers.cpu_models),
        (vm.needs.machine_type.as_slice(), &slot.offers.machine_types),
        (&vm.needs.devices, &slot.offers.devices),
    ];
    for (needed, offered) in pairs {
        for what in needed.iter().filter(|what| !offered.contains(what)) {
            found.push(Breach::Lacks { vm: name.clone(), host: host.clone(), what: what.clone() });
        }
    }
}

fn room(picture: &Picture, plan: &Plan, placed: &BTreeMap<&Name, &Name>, found: &mut Vec<Breach>) {
    #[derive(Default)]
    struct Sums<'a> {
        there: Resources,
        placed: Resources,
        devices: Vec<&'a Name>,
    }
    let mut sums: BTreeMap<&Name, Sums<'_>> = placed.values().map(|host| (*host, Sums::default())).collect();
    for (name, vm) in &picture.vms {
        if let Some(sum) = placed.get(name).and_then(|host| sums.get_mut(host)) {
            sum.placed = sum.placed.plus(vm.demand());
            sum.devices.extend(&vm.needs.devices);
        } else if let Some(sum) = vm.host.as_ref().and_then(|host| sums.get_mut(host)) {
            sum.there = sum.there.plus(vm.demand());
            sum.devices.extend(&vm.needs.devices);
        }
    }
    for (host, sum) in sums {
        let Some(slot) = picture.hosts.get(host).filter(|_| plan.failed.binary_search(host).is_err()) else {
            continue;
        };
        let free = slot.capacity.less(slot.kept_back.plus(sum.there));
        let free = slot.measured_free.map_or(free, |measured| free.min(measured));
        if !free.holds(sum.placed) {
            found.push(Breach::OverCapacity { host: host.clone(), free, placed: sum.placed });
        }
        for device in sum.devices.iter().collect::<BTreeSet<_>>() {
            let offered = slot.offers.devices.iter().filter(|other| *other == *device).count();
            let needed = sum.devices.iter().filter(|other| *other == device).count();
            let vm = placed.iter().find(|(vm, to)| {
                *to == &host && picture.vms.get(**vm).is_some_and(|vm| vm.needs.devices.contains(*device))
            });
            if let Some((vm, _)) = vm.filter(|_| needed > offered) {
                let what = (**device).clone();
                found.push(Breach::Lacks { vm: (*vm).clone(), host: host.clone(), what });
            }
        }
    }
}

fn rules(picture: &Picture, plan: &Plan, placed: &BTreeMap<&Name, &Name>, found: &mut Vec<Breach>) {
    let at = |vm: &Name| -> Option<Name> {
        if let Some(host) = placed.get(vm) {
            return Some((*host).clone());
        }
        let slot = picture.vms.get(vm).filter(|slot| !is_lost(plan, slot))?;
        slot.host.clone()
    };
    for (rule, body) in picture.rules.iter().filter(|(_, body)| body.strength == Strength::Must) {
        let mut breach = |vm: &Name| found.push(Breach::Rule { rule: rule.clone(), vm: vm.clone() });
        let (vms, hosts) = match &body.kind {
            RuleKind::OnHosts { vms, hosts } | RuleKind::NotOnHosts { vms, hosts } => (vms, &hosts[..]),
            RuleKind::Apart { vms } | RuleKind::Together { vms } => (vms, &[][..]),
        };
        let vms: BTreeSet<&Name> = vms.iter().filter(|vm| picture.vms.contains_key(*vm)).collect();
        for vm in vms.iter().copied() {
            // What was broken before is not this plan's doing.
            let Some(host) = placed.get(vm).copied() else { continue };
            let mut others = vms.iter().filter(|other| **other != vm).filter_map(|other| at(other));
            let broken = match &body.kind {
                RuleKind::OnHosts { .. } => !hosts.contains(host),
                RuleKind::NotOnHosts { .. } => hosts.contains(host),
                RuleKind::Apart { .. } => others.any(|other| other == *host),
                RuleKind::Together { .. } => {
                    let left_out = |one: &crate::LeftOut| vms.contains(&one.vm);
                    others.any(|other| other != *host) || plan.left_out.iter().any(left_out)
                }
            };
            if broken {
                breach(vm);
            }
        }
    }
}
