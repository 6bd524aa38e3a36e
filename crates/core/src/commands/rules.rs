//! Setting a rule, and which running VMs break it: nothing is moved for a rule, so whoever sets it is told.

use super::asked::Asked;
use super::settings::change;
use crate::datastores::Datastores;
use crate::desk::Desk;
use crate::ids::{HostId, VmId};
use crate::out::Out;
use crate::register::{Desired, Entry};
use crate::settings::{Rule, RuleKind, Strength};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// So many of those that break a rule are named.
const NAMED: usize = 5;

/// A rule as a person asks for it: VMs by name or UUID.
pub(super) struct Wanted<'a> {
    pub(super) strength: Strength,
    pub(super) kind: RuleKind,
    pub(super) vms: &'a [String],
    pub(super) hosts: &'a [HostId],
}

pub(super) fn set(
    desk: &mut Desk<'_>,
    name: &Arc<str>,
    wanted: Wanted<'_>,
    out: &mut Out<'_>,
) -> Result<Asked, String> {
    let vms = desk.cluster().find_vms(wanted.vms, out.now)?;
    for host in wanted.hosts {
        desk.cluster().check_host(host)?;
    }
    match wanted.kind {
        RuleKind::OnHosts | RuleKind::NotOnHosts if wanted.hosts.is_empty() => {
            return Err(String::from("a rule of this kind needs at least one host"));
        }
        RuleKind::Apart | RuleKind::Together if vms.len() < 2 => {
            return Err(String::from("a rule of this kind needs at least two VMs"));
        }
        RuleKind::OnHosts | RuleKind::NotOnHosts if vms.is_empty() => {
            return Err(String::from("a rule needs at least one VM"));
        }
        RuleKind::OnHosts | RuleKind::NotOnHosts | RuleKind::Apart | RuleKind::Together => {}
    }
    let Wanted { strength, kind, hosts, .. } = wanted;
    let rule = Rule { strength, kind, vms, hosts: hosts.iter().cloned().collect() };
    let mut answer = alloc::format!("rule {name} is set; it counts for every placement from now on");
    if let Some(broken) = broken_by(desk.datastores, &rule) {
        answer.push_str(&alloc::format!(
            ". It does not hold now: {broken}; nothing is moved for a rule, so migrate them yourself"
        ));
    }
    change(desk, answer, out, |settings| drop(settings.rules.insert(name.clone(), rule)))
}

pub(super) fn remove(desk: &mut Desk<'_>, name: &Arc<str>, out: &mut Out<'_>) -> Result<Asked, String> {
    if !desk.settings.get().rules.contains_key(name) {
        return Err(alloc::format!("there is no rule {name}"));
    }
    let answer = alloc::format!("rule {name} is removed");
    change(desk, answer, out, |settings| drop(settings.rules.remove(name)))
}

/// Which VMs break the rule where they run now, in words.
fn broken_by(datastores: &Datastores, rule: &Rule) -> Option<String> {
    let at = places(datastores, rule);
    let mut on: BTreeMap<&HostId, Vec<&str>> = BTreeMap::new();
    for (name, host) in at.values() {
        on.entry(host).or_default().push(name);
    }
    let one = |(name, host): &(&Arc<str>, &HostId)| alloc::format!("{name} runs on {host}");
    let wrong: Vec<String> = match rule.kind {
        RuleKind::OnHosts => at.values().filter(|(_, host)| !rule.hosts.contains(*host)).map(one).collect(),
        RuleKind::NotOnHosts => at.values().filter(|(_, host)| rule.hosts.contains(*host)).map(one).collect(),
        RuleKind::Apart => {
            let crowded = on.iter().filter(|(_, names)| names.len() > 1);
            crowded.map(|(host, names)| alloc::format!("{} run on {host}", names.join(" and "))).collect()
        }
        RuleKind::Together if on.len() > 1 => {
            let mut words = at.values();
            let first = words.next().map(one);
            let others = words.map(|(name, host)| alloc::format!("{name} on {host}"));
            first.into_iter().chain(others).collect()
        }
        RuleKind::Together => Vec::new(),
    };
    let more = wrong.len().saturating_sub(NAMED);
    let mut words = wrong.into_iter().take(NAMED).collect::<Vec<_>>().join(", ");
    if more > 0 {
        words.push_str(&alloc::format!(" and {more} more"));
    }
    (!words.is_empty()).then_some(words)
}

/// Where the rule's VMs are, as far as the lists say.
fn places<'a>(datastores: &'a Datastores, rule: &Rule) -> BTreeMap<VmId, (&'a Arc<str>, &'a HostId)> {
    let ours = |entry: &&Entry| entry.desired == Desired::On && rule.vms.contains(&entry.vm);
    let entries = datastores.lists().flat_map(|list| list.entries().map(|(entry, _)| entry)).filter(ours);
    entries.filter_map(|entry| Some((entry.vm, (&entry.name, entry.holder.as_ref()?)))).collect()
}
