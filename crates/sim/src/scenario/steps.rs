//! What a scenario does: each `[[step]]` is one or more [`Action`]s at instants. The conveniences of the language (several
//! hosts or VMs at once, repetition, a fault that ends by itself, partitions by groups) are unfolded here; the world knows none.

use super::commands::{Ask, OF_SEVERAL};
use super::topology::micros;
use super::{ScenarioError, number};
use crate::action::Action;
use crate::setup::{HostFile, Setup};
use mainstay_core::HostId;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use toml::{Table, Value};

/// What a step does beyond single actions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Composed {
    /// Hosts of different groups do not hear each other, hosts of one group do. Takes the place of all link cuts.
    Partition {
        /// The groups; a host that is in none hears everybody.
        groups: Vec<Vec<HostId>>,
    },
    /// All links pass again.
    PartitionHeal,
}

/// The words for `do` that are not an [`Action`]'s.
const COMPOSED: [&str; 2] = ["partition", "partition_heal"];

/// Something done at an instant.
#[derive(Clone, Debug)]
pub struct Step {
    /// When, in virtual microseconds.
    pub at: u64,
    /// Whether a sweep shifts it.
    pub shifts: bool,
    /// What is done to the world then.
    pub action: Action,
}

/// Reads the steps of a scenario, unfolded and in the order of the file.
pub fn unfold(scenario: &str, tables: &[Table], setup: &Setup) -> Result<Vec<Step>, ScenarioError> {
    let mut steps = Vec::new();
    for (index, table) in tables.iter().enumerate() {
        let wrong = |what: String| ScenarioError::Unreadable {
            name: scenario.into(),
            what: Arc::from(format!("step {}: {what}", index + 1)),
        };
        unfold_one(table, setup, &mut steps).map_err(wrong)?;
    }
    Ok(steps)
}

fn unfold_one(table: &Table, setup: &Setup, steps: &mut Vec<Step>) -> Result<(), String> {
    let mut rest = table.clone();
    let mut seconds = |key: &str| rest.remove(key).map(|value| number(key, &value)).transpose();
    let at = seconds("at")?.ok_or("`at` is missing: when, in seconds")?;
    let lasts = seconds("lasts")?;
    let every = seconds("every")?;
    let times = seconds("times")?.unwrap_or(1.0) as u64;
    let shifts = match rest.remove("shifts") {
        None => false,
        Some(Value::Boolean(shifts)) => shifts,
        Some(other) => return Err(format!("`shifts` is true or false, not {other}")),
    };
    if times > 1 && every.is_none() {
        return Err(String::from("`times` needs `every`: how many seconds from one time to the next"));
    }
    let singles = each_of(&rest, setup)?;
    for time in 0..times.max(1) {
        let at = micros(at + every.unwrap_or(0.0) * time as f64);
        for single in &singles {
            let begin = read(single, setup)?;
            steps.extend(begin.into_iter().map(|action| Step { at, shifts, action }));
            if let Some(lasts) = lasts {
                let at = at + micros(lasts);
                let end = read(&end_of(single)?, setup)?;
                steps.extend(end.into_iter().map(|action| Step { at, shifts, action }));
            }
        }
    }
    Ok(())
}

/// A table for each host of `hosts` and each VM of `vms`, or just that one.
pub(super) fn each_of(table: &Table, setup: &Setup) -> Result<Vec<Table>, String> {
    let mut found = vec![table.clone()];
    if table.get("do").and_then(Value::as_str).is_some_and(|word| OF_SEVERAL.contains(&word)) {
        return Ok(found);
    }
    for (many, one) in [("hosts", "host"), ("vms", "vm")] {
        let Some(list) = table.get(many) else { continue };
        let names: Vec<String> = match list {
            Value::String(all) if all == "all" && many == "hosts" => {
                setup.hosts.iter().map(|host| host.id.to_string()).collect()
            }
            Value::String(all) if all == "all" => setup.vms.iter().map(|vm| vm.name.to_string()).collect(),
            Value::Array(names) => {
                names.iter().map(|name| name.as_str().unwrap_or_default().to_owned()).collect()
            }
            other => return Err(format!("`{many}` is \"all\" or a list of names, not {other}")),
        };
        if table.contains_key(one) {
            return Err(format!("give either `{one}` or `{many}`, not both"));
        }
        let with = |table: &Table, name: &String| {
            let mut table = table.clone();
            table.remove(many);
            table.insert(one.into(), Value::String(name.clone()));
            table
        };
        found = found.iter().flat_map(|table| names.iter().map(move |name| with(table, name))).collect();
    }
    Ok(found)
}

fn read(table: &Table, setup: &Setup) -> Result<Vec<Action>, String> {
    let word = table.get("do").and_then(Value::as_str).ok_or("`do` is missing: what is done")?;
    if super::commands::words().iter().any(|known| known == word) {
        let ask = Ask::deserialize(Value::Table(table.clone())).map_err(plain)?;
        return Ok(vec![Action::Command { command: ask.command(setup)? }]);
    }
    if !COMPOSED.contains(&word) {
        let action = Action::deserialize(Value::Table(table.clone())).map_err(plain)?;
        if let Action::AgentStart { knows, serves, .. } = &action {
            setup.check_file(&HostFile { knows: knows.clone(), serves: serves.clone() })?;
        }
        return Ok(vec![action]);
    }
    match Composed::deserialize(Value::Table(table.clone())).map_err(plain)? {
        Composed::Partition { groups } => partition(&groups, setup),
        Composed::PartitionHeal => partition(&[], setup),
    }
}

/// The parser's words, without its trailing line break.
pub(super) fn plain(error: toml::de::Error) -> String {
    error.message().trim().to_owned()
}

/// Each link is cut or healed, so that what was before does not matter.
fn partition(groups: &[Vec<HostId>], setup: &Setup) -> Result<Vec<Action>, String> {
    if let Some(id) = groups.iter().flatten().find(|id| setup.host(id).is_none()) {
        return Err(format!("host {id} of a group is not in the topology"));
    }
    let group = |id: &HostId| groups.iter().position(|group| group.contains(id));
    let mut actions = Vec::new();
    for from in setup.hosts.iter().map(|host| &host.id) {
        for to in setup.hosts.iter().map(|host| &host.id).filter(|to| *to != from) {
            let apart = group(from).is_some() && group(to).is_some() && group(from) != group(to);
            let (from, to) = (from.clone(), to.clone());
            actions.push(if apart { Action::LinkCut { from, to } } else { Action::LinkHeal { from, to } });
        }
    }
    Ok(actions)
}

/// What ends what, by their words: the end has the same host, datastore, VM and link.
const ENDS: [(&str, &str); 24] = [
    ("host_pause", "host_resume"),
    ("gateway_down", "gateway_up"),
    ("clock_drift", "clock_drift"),
    ("duplicate", "duplicate"),
    ("network_late", "network_late"),
    ("datastore_read_only", "datastore_heal"),
    ("datastore_torn", "datastore_heal"),
    ("power_off", "power_on"),
    ("agent_kill", "agent_start"),
    ("agent_hang", "agent_resume"),
    ("agent_stop", "agent_start"),
    ("guard_hang", "guard_resume"),
    ("guard_down", "guard_up"),
    ("network_cut", "network_heal"),
    ("link_cut", "link_heal"),
    ("partition", "partition_heal"),
    ("loss", "loss"),
    ("datastore_cut", "datastore_heal"),
    ("datastore_hang", "datastore_heal"),
    ("datastore_slow", "datastore_heal"),
    ("datastore_full", "datastore_free"),
    ("libvirt_kill", "libvirt_up"),
    ("libvirt_hang", "libvirt_up"),
    ("unprotect", "protect"),
];

/// The step that ends this one.
fn end_of(table: &Table) -> Result<Table, String> {
    let word = table.get("do").and_then(Value::as_str).unwrap_or_default();
    let Some((_, end)) = ENDS.iter().find(|(begin, _)| *begin == word) else {
        return Err(format!("`lasts` can't be given with {word}: it has no end; add a step that undoes it"));
    };
    let kept =
        table.iter().filter(|(key, _)| ["host", "datastore", "vm", "from", "to"].contains(&key.as_str()));
    let mut table: Table = kept.map(|(key, value)| (key.clone(), value.clone())).collect();
    // What is a matter of degree ends at zero.
    let degree = match *end {
        "loss" | "duplicate" => Some("permille"),
        "network_late" => Some("ms"),
        "clock_drift" => Some("ppm"),
        _ => None,
    };
    if let Some(degree) = degree {
        table.insert(degree.into(), Value::Integer(0));
    }
    table.insert(String::from("do"), Value::String((*end).into()));
    Ok(table)
}

/// All words that `do` may be, for the document's test.
pub fn words() -> Vec<String> {
    let mut words = super::words_of(|probe| Action::deserialize(probe).map(drop), "do");
    // Its words are those of `Ask`.
    words.retain(|word| word != "command");
    words.extend(COMPOSED.map(String::from));
    words.extend(super::commands::words());
    words
}
