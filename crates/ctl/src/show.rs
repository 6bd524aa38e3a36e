//! `mainstay datastore show`: what lies on a datastore, register by register. Needs no agent: it reads the datastore itself,
//! also one of a cluster that is down. Hosts are shown by their ids, since names are not on disk.

use crate::exit::Failure;
use crate::style::{Style, Tone, unbroken};
use crate::vms::{response_words, seconds};
use crate::words::{age, clean, memory};
use comfy_table::Cell;
use mainstay_core::ids::Incarnation;
use mainstay_core::register::{
    Ballot, Claim, ClaimState, Desired, Entry, HeartbeatRegister, OrderKind, OwnershipBlock, PowerOnList,
    ProtectedList,
};
use mainstay_core::{HostId, RegisterId, RegisterValue};
use mainstay_formats::{Chosen, Slot};
use mainstay_storage::{ClusterFolder, RegisterReport, inspect};
use serde_json::{Value, json};
use std::path::Path;

/// Reads the datastore at that path: all clusters' folders, or that of one cluster (by id or name).
pub fn read(path: &Path, cluster: Option<&str>) -> Result<Vec<ClusterFolder>, Failure> {
    let folders = inspect(path)
        .map_err(|error| Failure::Local { object: path.display().to_string(), reason: error.to_string() })?;
    let Some(wanted) = cluster else { return Ok(folders) };
    let known =
        folders.iter().map(|folder| format!("{} ({})", folder.cluster_name, folder.cluster_id)).collect();
    let is_wanted =
        |folder: &ClusterFolder| folder.cluster_id.as_str() == wanted || folder.cluster_name == wanted;
    let chosen: Vec<_> = folders.into_iter().filter(is_wanted).collect();
    if chosen.is_empty() {
        return Err(Failure::Unknown { what: "cluster", name: clean(wanted), known });
    }
    Ok(chosen)
}

/// The same as JSON, for `--json`.
pub fn json(folders: &[ClusterFolder]) -> Value {
    let register = |report: &RegisterReport| {
        let (sequence, value) = match &report.chosen {
            Chosen::Value { sequence, value, .. } => (Some(sequence), Some(value)),
            Chosen::Missing | Chosen::Unreadable { .. } => (None, None),
        };
        let damaged: Vec<_> =
            damage(report).map(|(slot, reason)| json!({ "slot": slot, "reason": reason })).collect();
        json!({
            "file": report.file,
            "register": report.register,
            "sequence": sequence,
            "value": value,
            "damaged_slots": damaged,
        })
    };
    let folder = |folder: &ClusterFolder| {
        json!({
            "cluster_id": folder.cluster_id.as_str(),
            "cluster_name": folder.cluster_name,
            "registers": folder.registers.iter().map(register).collect::<Vec<_>>(),
            "xml_files": folder.xml_files,
            "strangers": folder.strangers,
        })
    };
    folders.iter().map(folder).collect()
}

/// The damaged slots of a register: number from 1, and reason.
fn damage(report: &RegisterReport) -> impl Iterator<Item = (usize, String)> {
    report.slots.iter().enumerate().filter_map(|(index, slot)| match slot {
        Slot::Unreadable { reason } => Some((index + 1, reason.to_string())),
        Slot::Empty | Slot::Valid { .. } => None,
    })
}

/// The values of a folder, by kind.
#[derive(Default)]
struct Values<'a> {
    heartbeats: Vec<(&'a HostId, &'a HeartbeatRegister)>,
    power_on: Vec<(&'a HostId, &'a PowerOnList)>,
    ownership: Vec<(&'a HostId, &'a OwnershipBlock)>,
    lists: Vec<&'a ProtectedList>,
}

impl<'a> Values<'a> {
    fn of(folder: &'a ClusterFolder) -> Values<'a> {
        let mut values = Values::default();
        for report in &folder.registers {
            let Chosen::Value { value, .. } = &report.chosen else { continue };
            match (&report.register, value) {
                (RegisterId::Heartbeat(host), RegisterValue::Heartbeat(value)) => {
                    values.heartbeats.push((host, value));
                }
                (RegisterId::PowerOn(host), RegisterValue::PowerOn(value)) => {
                    values.power_on.push((host, value))
                }
                (RegisterId::Ownership(host), RegisterValue::Ownership(value)) => {
                    values.ownership.push((host, value));
                }
                (RegisterId::ProtectedList(_), RegisterValue::ProtectedList(value)) => {
                    values.lists.push(value)
                }
                // The decoder refuses a value of another kind than its register's.
                (
                    RegisterId::Heartbeat(_)
                    | RegisterId::PowerOn(_)
                    | RegisterId::Ownership(_)
                    | RegisterId::ProtectedList(_),
                    _,
                ) => {}
            }
        }
        // Newest first: readers follow the highest epoch.
        values.lists.sort_by_key(|list| std::cmp::Reverse(list.stamp()));
        values
    }
}

/// The text for people.
pub fn render(folders: &[ClusterFolder], style: &Style) -> String {
    let texts: Vec<_> = folders.iter().map(|folder| render_folder(folder, style)).collect();
    texts.join("\n")
}

fn render_folder(folder: &ClusterFolder, style: &Style) -> String {
    let values = Values::of(folder);
    let mut text = format!("Cluster {} ({})\n", clean(&folder.cluster_name), folder.cluster_id);
    let mut part = |heading: String, content: String| {
        text.push_str(&format!("\n{heading}\n"));
        let content = if content.is_empty() { "none\n".to_owned() } else { content };
        content.lines().for_each(|line| text.push_str(&format!("  {line}\n")));
    };
    part("Heartbeats".to_owned(), heartbeats(&values, style));
    part("Ownership blocks".to_owned(), ownership(&values, style));
    for (host, list) in &values.power_on {
        let isolated =
            if list.isolated { style.paint(Tone::Warning, "isolated") } else { "not isolated".to_owned() };
        let seen =
            list.list_seen.map_or("none".to_owned(), |stamp| format!("{}.{}", stamp.epoch, stamp.version));
        let heading = format!(
            "Power-on list of {host}: version {}, {isolated}, protected list acted on: {seen}, boot {}",
            list.version, list.boot
        );
        part(heading, claims(list, style));
    }
    for (index, list) in values.lists.iter().enumerate() {
        let which = if index == 0 { "present" } else { "superseded" };
        let heading = format!(
            "Protected list of epoch {} ({which}): version {}, written by owner {}{}",
            list.epoch,
            list.version,
            list.owner,
            also_in(list)
        );
        // Of earlier epochs only the fact matters: nobody reads them any more.
        let content =
            if index == 0 { entries(list, style) } else { format!("VMs: {}\n", list.entries.len()) };
        part(heading, content);
    }
    let damaged: String = folder
        .registers
        .iter()
        .flat_map(|report| damage(report).map(move |(slot, reason)| (report, slot, reason)))
        .map(|(report, slot, reason)| {
            let left = if matches!(report.chosen, Chosen::Value { .. }) {
                "the other slot is good"
            } else {
                "no good slot"
            };
            let line = format!("{}, slot {slot}: {} ({left})", clean(&report.file), clean(&reason));
            style.paint(Tone::Alarm, &line) + "\n"
        })
        .collect();
    part("Damaged slots".to_owned(), damaged);
    part("Domain XML".to_owned(), folder.xml_files.iter().map(|file| clean(file) + "\n").collect());
    if !folder.strangers.is_empty() {
        let files = folder.strangers.iter().map(|file| clean(file) + "\n").collect();
        part("Files that are not Mainstay's".to_owned(), files);
    }
    text
}

fn heartbeats(values: &Values<'_>, style: &Style) -> String {
    let run = |run: Incarnation| plain(format!("{:016x}", run.0));
    let row = |(host, beat): &(&HostId, &HeartbeatRegister)| {
        vec![
            plain(host),
            plain(beat.counter),
            if beat.agent_well { plain("well") } else { style.cell(Tone::Warning, "not well") },
            beat.agent.map_or_else(|| plain("-"), run),
            run(beat.incarnation),
            plain(beat.boot),
        ]
    };
    let headings = ["HOST", "COUNTER", "AGENT", "AGENT INCARNATION", "GUARD INCARNATION", "BOOT"];
    table(&headings, values.heartbeats.iter().map(row).collect(), style)
}

fn ownership(values: &Values<'_>, style: &Style) -> String {
    let ballot = |ballot: &Ballot| format!("{} of {}", ballot.round, ballot.host);
    let row = |(host, block): &(&HostId, &OwnershipBlock)| {
        let beat = block.beat.as_ref();
        let owns = match beat {
            Some(beat) if beat.released => format!("gave up epoch {}", beat.epoch),
            Some(beat) => format!("epoch {}", beat.epoch),
            None => "-".to_owned(),
        };
        let accepted = block
            .accepted
            .as_ref()
            .map(|accepted| format!("{} in ballot {}", accepted.owner, ballot(&accepted.ballot)));
        vec![
            plain(host),
            plain(owns),
            plain(beat.map_or("-".to_owned(), |beat| beat.counter.to_string())),
            plain(if block.instance.0 == 0 { "-".to_owned() } else { block.instance.to_string() }),
            plain(block.promised.as_ref().map_or("-".to_owned(), ballot)),
            plain(accepted.unwrap_or_else(|| "-".to_owned())),
        ]
    };
    let headings =
        ["HOST", "LATEST OWNERSHIP", "COUNTER", "CONSENSUS ON", "PROMISED BALLOT", "ACCEPTED OWNER"];
    table(&headings, values.ownership.iter().map(row).collect(), style)
}

fn claims(list: &PowerOnList, style: &Style) -> String {
    let row = |claim: &Claim| {
        let (tone, state) = match &claim.state {
            ClaimState::Starting => (Tone::Plain, "starting".to_owned()),
            ClaimState::Running => (Tone::Plain, "running".to_owned()),
            ClaimState::Frozen => (Tone::Warning, "frozen".to_owned()),
            ClaimState::Stopping => (Tone::Warning, "stopping".to_owned()),
            ClaimState::Migrating => (Tone::Plain, "migrating".to_owned()),
            ClaimState::Stopped { cause } => (Tone::Faint, format!("stopped: {cause}")),
            ClaimState::StartFailed { reason } => (Tone::Warning, format!("start failed: {}", clean(reason))),
        };
        let grant = claim.token.map_or("asks for one".to_owned(), |token| token.to_string());
        let spec = claim.spec.as_ref();
        vec![
            plain(clean(&claim.name)),
            style.cell(tone, state),
            plain(grant),
            plain(spec.map_or("-".to_owned(), |spec| spec.priority.to_string())),
            plain(spec.map_or("-".to_owned(), |spec| unbroken(&memory(spec.memory_mib)))),
            plain(claim.vm),
        ]
    };
    table(
        &["VM", "CLAIM", "GRANT", "PRIORITY", "MEMORY", "UUID"],
        list.claims.iter().map(row).collect(),
        style,
    )
}

fn entries(list: &ProtectedList, style: &Style) -> String {
    let row = |entry: &Entry| {
        let host = |host: &Option<HostId>| plain(host.as_ref().map_or("-".to_owned(), ToString::to_string));
        vec![
            plain(clean(&entry.name)),
            if entry.unprotected { style.cell(Tone::Warning, "no") } else { plain("yes") },
            plain(desired(entry)),
            host(&entry.holder),
            plain(entry.token),
            host(&entry.intent),
            plain(entry.attempts),
            host(&entry.failed_over_from),
            host(&entry.responsible),
            plain(own_isolation(entry)),
            plain(entry.spec.priority),
            plain(entry.vm),
        ]
    };
    let headings = [
        "VM",
        "PROTECTED",
        "DESIRED",
        "HOLDER",
        "GRANT",
        "INTENDED FOR",
        "ATTEMPTS",
        "FAILED OVER FROM",
        "RESTART ON",
        "IF ISOLATED",
        "PRIORITY",
        "UUID",
    ];
    table(&headings, list.entries.iter().map(row).collect(), style)
}

/// What a protected list holds besides VMs: settings, and a suspension of protection.
fn also_in(list: &ProtectedList) -> String {
    let mut text = String::new();
    if list.settings.revision > 0 {
        text.push_str(&format!(", settings of revision {}", list.settings.revision));
    }
    text.extend(list.suspension.as_ref().map(|suspension| {
        let words = if suspension.stands { "suspended" } else { "to be suspended" };
        format!(", {words} for {} from this write on", age(suspension.left))
    }));
    text
}

/// Whether a VM is to run, and what its holder is to do with it.
fn desired(entry: &Entry) -> String {
    let desired = match entry.desired {
        Desired::On => "on",
        Desired::Off => "off",
    };
    match entry.order.as_ref().map(|order| &order.what) {
        None => desired.to_owned(),
        Some(OrderKind::Migrate(to)) => format!("{desired}, migrate to {to}"),
        Some(OrderKind::ShutDown) => format!("{desired}, shut down"),
        Some(OrderKind::StartElsewhere) => format!("{desired}, start elsewhere"),
    }
}

/// What the VM has of its own; the cluster's default is not on disk.
fn own_isolation(entry: &Entry) -> String {
    match (entry.isolation_response, entry.shutdown_timeout) {
        (Some(response), timeout) => response_words(response, timeout),
        (None, Some(timeout)) => format!("default ({})", seconds(timeout)),
        (None, None) => "default".to_owned(),
    }
}

fn plain(content: impl ToString) -> Cell {
    Cell::new(content.to_string())
}

/// A table that leaves room for the indent; nothing when it has no rows.
fn table(headings: &[&str], rows: Vec<Vec<Cell>>, style: &Style) -> String {
    let narrower = Style { width: style.width.map(|width| width.saturating_sub(2)), ..*style };
    if rows.is_empty() { String::new() } else { narrower.table(headings, rows) }
}
