//! `mainstay host list`, and what status says about hosts.

use crate::settings::number;
use crate::style::{Style, Tone, unbroken};
use crate::words::{HostNames, age, clean, memory};
use comfy_table::Cell;
use mainstay_api::Status;
use mainstay_core::host_liveness::HostState;
use mainstay_core::view::{HostView, Role, VmState};
use serde::Serialize;

/// A host in the JSON of `host list`.
#[derive(Debug, Serialize)]
pub struct HostJson<'a> {
    /// Its configured name.
    name: Option<&'a str>,
    /// Its part, as the answering view knows it.
    role: Option<Role>,
    /// The API's words.
    #[serde(flatten)]
    view: &'a HostView,
}

/// The hosts, for `--json`.
pub fn json(status: &Status) -> Vec<HostJson<'_>> {
    let name = |host: &HostView| status.host_names.get(&host.host).map(String::as_str);
    let hosts = status.view.hosts.iter();
    hosts.map(|view| HostJson { name: name(view), role: role(status, view), view }).collect()
}

/// How much a host's state is to catch the eye.
pub fn tone(state: HostState) -> Tone {
    match state {
        HostState::Connected => Tone::Plain,
        HostState::Unknown => Tone::Faint,
        HostState::Partitioned | HostState::Isolated => Tone::Warning,
        HostState::AgentUnreachable | HostState::Unguarded | HostState::Failed => Tone::Alarm,
    }
}

/// A host's part: the view's own host says it itself, of others only a connected one is known to follow.
fn role(status: &Status, host: &HostView) -> Option<Role> {
    let view = &status.view;
    if host.host == view.host {
        Some(view.role)
    } else if view.primary.as_ref() == Some(&host.host) {
        Some(Role::Primary)
    } else if view.role == Role::Primary && host.state == HostState::Connected {
        Some(Role::Secondary)
    } else {
        None
    }
}

fn role_word(role: Option<Role>) -> &'static str {
    match role {
        Some(Role::Primary) => "primary",
        Some(Role::Secondary) => "secondary",
        Some(Role::Candidate) => "candidate",
        None => "-",
    }
}

/// A host that is kept empty for failovers has that part, whatever else it does.
fn role_words(role: Option<Role>, failover_host: bool) -> String {
    match (role_word(role), failover_host) {
        (word, false) => word.to_owned(),
        ("-", true) => "failover".to_owned(),
        (word, true) => format!("{word}, failover"),
    }
}

/// The state as judged; and maintenance, which is a person's wish: `connected; maintenance, 3 VMs left`.
fn state_cell(host: &HostView, style: &Style) -> Cell {
    let state = host.state.to_string();
    match &host.maintenance {
        None => style.cell(tone(host.state), state),
        Some(emptying) => {
            let left = match emptying.left {
                0 => "empty".to_owned(),
                left => format!("{} left", number(left, "VM")),
            };
            let tone = if host.state == HostState::Connected { Tone::Warning } else { tone(host.state) };
            style.cell(tone, format!("{state}; maintenance, {left}"))
        }
    }
}

/// How many VMs of the protected and power-on lists the host has now.
fn vm_count(status: &Status, host: &HostView) -> usize {
    let here = status.view.vms.iter().filter(|vm| vm.host.as_ref() == Some(&host.host));
    here.filter(|vm| match vm.state {
        VmState::Running | VmState::Starting | VmState::Frozen | VmState::Unknown => true,
        VmState::Waiting | VmState::Off => false,
    })
    .count()
}

fn datastores(status: &Status, host: &HostView, style: &Style) -> Cell {
    let all = status.view.datastores.len();
    let reached = host.datastores.len();
    let tone = if host.state == HostState::Connected && reached < all { Tone::Warning } else { Tone::Plain };
    style.cell(tone, format!("{reached} of {all}"))
}

fn first_cells(status: &Status, names: &HostNames, host: &HostView, style: &Style) -> Vec<Cell> {
    vec![
        style.cell(Tone::Plain, names.full(&host.host)),
        state_cell(host, style),
        style.cell(Tone::Plain, age(host.since)),
        style.cell(Tone::Plain, role_words(role(status, host), host.failover_host)),
        style.cell(Tone::Plain, vm_count(status, host).to_string()),
    ]
}

/// The hosts table of `mainstay status`: who is alive, and how old the signs of it are.
pub fn liveness_table(status: &Status, names: &HostNames, style: &Style) -> String {
    let row = |host: &HostView| {
        let mut row = first_cells(status, names, host, style);
        row.push(datastores(status, host, style));
        row.push(style.cell(Tone::Plain, heartbeats(status, host)));
        row
    };
    let headings = ["HOST", "STATE", "SINCE", "ROLE", "VMS", "DATASTORES", "LAST HEARTBEATS"];
    style.table(&headings, status.view.hosts.iter().map(row).collect())
}

/// `network 0.4 s, nfs1 0.9 s`: ages of the last heartbeat on each path. A host sends itself none by network.
fn heartbeats(status: &Status, host: &HostView) -> String {
    let network = host.network_heartbeat.filter(|_| host.host != status.view.host);
    let network = network.map(|span| ("network".to_owned(), span));
    let on_datastores = host.datastore_heartbeats.iter().map(|one| (clean(one.datastore.as_str()), one.age));
    let all: Vec<_> = network
        .into_iter()
        .chain(on_datastores)
        .map(|(path, span)| unbroken(&format!("{path} {}", age(span))))
        .collect();
    if all.is_empty() { "-".to_owned() } else { all.join(", ") }
}

/// The table of `mainstay host list`: what each host is and has to offer.
pub fn list(status: &Status, names: &HostNames, style: &Style) -> String {
    let row = |host: &HostView| {
        let mut row = first_cells(status, names, host, style);
        let plain = |text: String| style.cell(Tone::Plain, text);
        row.push(datastores(status, host, style));
        let capacity = host.capacity.as_ref();
        let or_dash = |text: Option<String>| plain(text.unwrap_or_else(|| "-".to_owned()));
        row.push(or_dash(capacity.map(|capacity| capacity.cpus.to_string())));
        row.push(or_dash(capacity.map(|capacity| {
            format!("{} of {}", memory(capacity.memory_free_mib), memory(capacity.memory_mib))
        })));
        row.push(or_dash(capacity.map(|capacity| capacity.domains.to_string())));
        row.push(match host.hypervisor_well {
            Some(true) => plain("answers".to_owned()),
            Some(false) => style.cell(Tone::Warning, "silent"),
            None => plain("-".to_owned()),
        });
        row.push(plain(match host.ping {
            Some(true) => "answers".to_owned(),
            Some(false) => "silent".to_owned(),
            None => "-".to_owned(),
        }));
        row
    };
    let headings = [
        "HOST",
        "STATE",
        "SINCE",
        "ROLE",
        "VMS",
        "DATASTORES",
        "CPUS",
        "MEMORY FREE",
        "DOMAINS",
        "LIBVIRT",
        "PING",
    ];
    style.table(&headings, status.view.hosts.iter().map(row).collect())
}
