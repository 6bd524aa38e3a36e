//! What is set for the cluster, as lists: rules, start groups, admission control.

use crate::style::{Style, Tone};
use crate::words::{HostNames, clean};
use mainstay_api::Status;
use mainstay_api::words::Word;
use mainstay_core::ids::VmId;
use mainstay_core::settings::{Admission, Group, Policy, Rule};
use mainstay_core::view::View;
use serde::Serialize;
use std::collections::BTreeSet;

/// Something with a name in the JSON of `rule list` and `group list`.
#[derive(Debug, Serialize)]
pub struct Named<'a, T> {
    /// The name by which the setting is known.
    name: &'a str,
    /// The API's words.
    #[serde(flatten)]
    value: &'a T,
}

/// The rules, for `--json`.
pub fn rules_json(view: &View) -> Vec<Named<'_, Rule>> {
    view.settings.rules.iter().map(|(name, value)| Named { name, value }).collect()
}

/// The start groups, for `--json`.
pub fn groups_json(view: &View) -> Vec<Named<'_, Group>> {
    view.settings.groups.iter().map(|(name, value)| Named { name, value }).collect()
}

/// Names of VMs; UUIDs of those that are not known any more.
fn vm_names(view: &View, vms: &BTreeSet<VmId>) -> String {
    let name = |vm: &VmId| {
        let known = view.vms.iter().find(|known| known.vm == *vm);
        known.map_or_else(|| vm.to_string(), |known| clean(&known.name))
    };
    let mut names: Vec<_> = vms.iter().map(name).collect();
    names.sort();
    names.join(", ")
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

/// The table of `mainstay rule list`.
pub fn rules(view: &View, names: &HostNames, style: &Style) -> String {
    let row = |(name, rule): (&std::sync::Arc<str>, &Rule)| {
        let hosts: Vec<_> = rule.hosts.iter().map(|host| names.short(host)).collect();
        [
            clean(name),
            rule.strength.word().to_owned(),
            rule.kind.word().to_owned(),
            or_dash(vm_names(view, &rule.vms)),
            or_dash(hosts.join(", ")),
        ]
        .map(|text| style.cell(Tone::Plain, text))
        .into()
    };
    let headings = ["RULE", "STRENGTH", "KIND", "VMS", "HOSTS"];
    style.table(&headings, view.settings.rules.iter().map(row).collect())
}

/// The table of `mainstay group list`.
pub fn groups(view: &View, style: &Style) -> String {
    let row = |(name, group): (&std::sync::Arc<str>, &Group)| {
        let after: Vec<_> = group.waits_for.iter().map(|name| clean(name)).collect();
        [clean(name), or_dash(after.join(", ")), or_dash(vm_names(view, &group.vms))]
            .map(|text| style.cell(Tone::Plain, text))
            .into()
    };
    let headings = ["GROUP", "AFTER", "VMS"];
    style.table(&headings, view.settings.groups.iter().map(row).collect())
}

/// Admission control, for `--json`.
#[derive(Debug, Serialize)]
pub struct AdmissionJson<'a> {
    /// The API's words.
    #[serde(flatten)]
    admission: &'a Admission,
    /// What it has against the cluster as it is.
    objection: Option<&'a str>,
    /// Hosts that are kept empty for failovers.
    failover_hosts: Vec<&'a str>,
}

/// Admission control, for `--json`.
pub fn admission_json(status: &Status) -> AdmissionJson<'_> {
    let view = &status.view;
    AdmissionJson {
        admission: &view.settings.admission,
        objection: view.objection.as_deref(),
        failover_hosts: view.settings.failover_hosts.iter().map(|host| host.as_str()).collect(),
    }
}

/// `1 host`, `2 hosts`.
pub fn number(count: impl Into<u64>, thing: &str) -> String {
    match count.into() {
        1 => format!("1 {thing}"),
        count => format!("{count} {thing}s"),
    }
}

/// The policy in words that say what it asks for.
pub fn policy_words(policy: &Policy) -> String {
    match policy {
        Policy::Proved { failures: 1 } => "proved: a plan must exist for the failure of each host".to_owned(),
        Policy::Proved { failures } => {
            format!("proved: a plan must exist for each choice of {failures} hosts that fail")
        }
        Policy::HostFailures { tolerated, slot_cpu_mhz, slot_memory_mib } => {
            let mut text =
                format!("host-failures: slots must be left when the {} largest hosts fail", tolerated);
            if *tolerated == 1 {
                text = "host-failures: slots must be left when the largest host fails".to_owned();
            }
            text.extend(slot_cpu_mhz.map(|mhz| format!("; a slot has at most {mhz} MHz")));
            text.extend(slot_memory_mib.map(|mib| format!("; a slot has at most {mib} MiB")));
            text
        }
        Policy::Percentage { cpu, memory } => {
            format!("percentage: {cpu} % of the CPU and {memory} % of the memory must not be reserved")
        }
        Policy::FailoverHosts => "failover-hosts: these must be kept empty".to_owned(),
    }
}

/// The text of `mainstay admission show`.
pub fn admission(status: &Status, names: &HostNames, style: &Style) -> String {
    let view = &status.view;
    let admission = &view.settings.admission;
    let mut text = String::new();
    let mut line = |heading: &str, content: &str| text.push_str(&format!("{heading:<15} {content}\n"));
    line("Policy", &policy_words(&admission.policy));
    line("Does not pass", if admission.refuse { "is refused" } else { "is done, with a warning" });
    let failover: Vec<_> = view.settings.failover_hosts.iter().map(|host| names.full(host)).collect();
    if !failover.is_empty() || admission.policy == Policy::FailoverHosts {
        line("Failover hosts", &or_dash(failover.join(", ")));
    }
    match &view.objection {
        Some(objection) => line("Objection", &style.paint(Tone::Alarm, &names.in_text(objection))),
        None if status.complete => line("Objection", "none: what the policy asks for is kept"),
        None => line("Objection", "not known: only the primary can say it"),
    }
    text
}
