//! Setting a rule, and which running VMs break it: nothing is moved for a rule, so whoever sets it is told.

use super::operators::Asked;
use super::*;
use crate::ids::VmId;
use crate::register::{Desired, Entry};
use crate::settings::{Rule, RuleKind, Strength};

/// So many of those that break a rule are named.
const NAMED: usize = 5;

impl Core {
    pub(super) fn set_rule(
        &mut self,
        name: &Arc<str>,
        strength: Strength,
        kind: RuleKind,
        vms: &[String],
        hosts: &[HostId],
        out: &mut Out<'_>,
    ) -> Result<Asked, String> {
        let vms = self.find_vms(vms, out.now)?;
        for host in hosts {
            self.check_host(host)?;
        }
        match kind {
            RuleKind::OnHosts | RuleKind::NotOnHosts if hosts.is_empty() => {
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
        let rule = Rule { strength, kind, vms, hosts: hosts.iter().cloned().collect() };
        let mut answer = alloc::format!("rule {name} is set; it counts for every placement from now on");
        if let Some(broken) = self.broken_by(&rule) {
            answer.push_str(&alloc::format!(
                ". It does not hold now: {broken}; nothing is moved for a rule, so migrate them yourself"
            ));
        }
        self.change_settings(answer, out, |settings| drop(settings.rules.insert(name.clone(), rule)))
    }

    /// Which VMs break the rule where they run now, in words.
    fn broken_by(&self, rule: &Rule) -> Option<String> {
        let at = self.places(rule);
        let mut on: BTreeMap<&HostId, Vec<&str>> = BTreeMap::new();
        for (name, host) in at.values() {
            on.entry(host).or_default().push(name);
        }
        let one = |(name, host): &(&Arc<str>, &HostId)| alloc::format!("{name} runs on {host}");
        let wrong: Vec<String> = match rule.kind {
            RuleKind::OnHosts => {
                at.values().filter(|(_, host)| !rule.hosts.contains(*host)).map(one).collect()
            }
            RuleKind::NotOnHosts => {
                at.values().filter(|(_, host)| rule.hosts.contains(*host)).map(one).collect()
            }
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
    fn places<'a>(&'a self, rule: &Rule) -> BTreeMap<VmId, (&'a Arc<str>, &'a HostId)> {
        let ours = |entry: &&Entry| entry.desired == Desired::On && rule.vms.contains(&entry.vm);
        let entries = self.lists().flat_map(|list| list.entries().map(|(entry, _)| entry)).filter(ours);
        entries.filter_map(|entry| Some((entry.vm, (&entry.name, entry.holder.as_ref()?)))).collect()
    }
}
