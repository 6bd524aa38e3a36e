//! The settings of the cluster and its users' wishes for single VMs, as commands to the simulated primary: given once, when all VMs
//! are protected, in an order in which none is refused.
//!
//! VMs that take no part are left out of rules and groups. A rule that has nothing to say then is left out altogether.

use super::cluster::Expected;
use crate::setup::Setup;
use mainstay_core::settings::{Group, Rule, RuleKind, Settings, VmSettings};
use mainstay_core::view::VmView;
use mainstay_core::{Command, HostId, VmId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The settings for the VMs of the setup; `chosen` are the same VMs in the view.
pub(super) fn translated(of: &Settings, chosen: &[&VmView], setup: &Setup) -> Settings {
    let ids: BTreeMap<VmId, VmId> =
        chosen.iter().enumerate().map(|(vm, seen)| (seen.vm, setup.vm_id(vm))).collect();
    let vms =
        |of: &BTreeSet<VmId>| -> BTreeSet<VmId> { of.iter().filter_map(|vm| ids.get(vm).copied()).collect() };
    let known = |host: &&HostId| setup.host(host).is_some();
    let hosts = |of: &BTreeSet<HostId>| -> BTreeSet<HostId> { of.iter().filter(known).cloned().collect() };
    let rules = of.rules.iter().filter_map(|(name, rule)| {
        let rule = Rule { vms: vms(&rule.vms), hosts: hosts(&rule.hosts), ..rule.clone() };
        says_something(&rule).then(|| (name.clone(), rule))
    });
    let groups: BTreeMap<Arc<str>, BTreeSet<VmId>> = of
        .groups
        .iter()
        .map(|(name, group)| (name.clone(), vms(&group.vms)))
        .filter(|(_, vms)| !vms.is_empty())
        .collect();
    let waits_for = |name: &Arc<str>| -> BTreeSet<Arc<str>> {
        let all = of.groups.get(name).map(|group| group.waits_for.clone()).unwrap_or_default();
        all.into_iter().filter(|other| groups.contains_key(other)).collect()
    };
    let group = |(name, vms): (&Arc<str>, &BTreeSet<VmId>)| {
        (name.clone(), Group { vms: vms.clone(), waits_for: waits_for(name) })
    };
    // Priorities that are set are the VMs' own already in the view.
    let readiness = of.vms.iter().filter_map(|(vm, its)| {
        let readiness = Some(its.readiness.clone()?);
        Some((*ids.get(vm)?, VmSettings { readiness, ..VmSettings::default() }))
    });
    let failover_hosts = hosts(&of.failover_hosts);
    let maintenance = of.maintenance.iter().filter(|(host, _)| known(host));
    Settings {
        maintenance: maintenance.map(|(host, how)| (host.clone(), *how)).collect(),
        failover_hosts,
        rules: rules.collect(),
        groups: groups.iter().map(group).collect(),
        vms: readiness.collect(),
        admission: of.admission.clone(),
        ..Settings::default()
    }
}

fn says_something(rule: &Rule) -> bool {
    match rule.kind {
        RuleKind::OnHosts | RuleKind::NotOnHosts => !rule.vms.is_empty() && !rule.hosts.is_empty(),
        RuleKind::Apart | RuleKind::Together => rule.vms.len() > 1,
    }
}

/// The commands that make these settings and wishes of fresh ones.
pub(super) fn commands(settings: &Settings, expected: &[Expected], setup: &Setup) -> Vec<Command> {
    let names = |vms: &BTreeSet<VmId>| vms.iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut commands = Vec::new();
    for (vm, expected) in expected.iter().enumerate() {
        let vm = setup.vm_id(vm).to_string();
        if let Some((response, shutdown_timeout)) = expected.own_isolation {
            commands.push(Command::SetIsolation { vm: vm.clone(), response, shutdown_timeout });
        }
        if !expected.protected {
            commands.push(Command::Unprotect { vm });
        }
    }
    for (vm, its) in &settings.vms {
        let (vm, readiness) = (vm.to_string(), its.readiness.clone());
        commands.push(Command::SetReadiness { vm, readiness });
    }
    // A group may wait only for groups that there are: first all of them, then what they wait for.
    for waits in [false, true] {
        for (name, group) in settings.groups.iter().filter(|(_, group)| !waits || !group.waits_for.is_empty())
        {
            let waits_for = group.waits_for.iter().filter(|_| waits).cloned().collect();
            commands.push(Command::SetGroup { name: name.clone(), vms: names(&group.vms), waits_for });
        }
    }
    for (name, rule) in &settings.rules {
        commands.push(Command::SetRule {
            name: name.clone(),
            strength: rule.strength,
            kind: rule.kind,
            vms: names(&rule.vms),
            hosts: rule.hosts.iter().cloned().collect(),
        });
    }
    let kept = settings.failover_hosts.iter().cloned();
    commands.extend(kept.map(|host| Command::SetFailoverHost { host, keep: true }));
    if settings.admission != Settings::default().admission {
        commands.push(Command::SetAdmission { admission: settings.admission.clone() });
    }
    let emptied = settings.maintenance.iter();
    commands.extend(emptied.map(|(host, how)| Command::EnterMaintenance {
        host: host.clone(),
        how: *how,
        force: true,
    }));
    commands
}

/// Whether these are the same settings, however they came to be.
pub(super) fn are_same(one: &Settings, other: &Settings) -> bool {
    let plain = |of: &Settings| Settings { revision: 0, by: None, ..of.clone() };
    plain(one) == plain(other)
}
