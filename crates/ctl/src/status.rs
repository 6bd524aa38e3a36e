//! `mainstay status`: the cluster on one calm screen.

use crate::style::{Style, Tone};
use crate::words::{HostNames, clean};
use crate::{datastores, hosts, vms};
use mainstay_api::Status;
use mainstay_core::host_liveness::HostState;

/// Whether everything is as it should be: what `status --check` judges by.
pub fn is_well(status: &Status) -> bool {
    let view = &status.view;
    status.alarms.is_empty()
        && status.complete
        && view.primary.is_some()
        && view.guard
        && view.hosts.iter().all(|host| host.state == HostState::Connected)
}

/// The screen.
pub fn render(status: &Status, style: &Style) -> String {
    let view = &status.view;
    let names = HostNames(status.host_names.clone());
    let mut text = String::new();
    let mut line = |heading: &str, content: &str| {
        text.push_str(&format!("{heading:<9} {content}\n"));
    };
    line("Cluster", &format!("{} ({})", clean(&status.cluster_name), clean(&status.cluster_id)));
    match &view.primary {
        Some(primary) => {
            let why = match &view.primary_reason {
                Some(reason) => format!(": {}", names.in_text(&reason.to_string())),
                None => String::new(),
            };
            line("Primary", &format!("{}{why}", names.full(primary)));
        }
        None => line("Primary", &style.paint(Tone::Alarm, "none: no host decides at present")),
    }
    line("VMs", &vms::counts(view, style));
    if !status.complete {
        line("View", &style.paint(Tone::Warning, &format!("only that of {} itself", names.full(&view.host))));
    }
    if let Some(note) = &status.note {
        line("Note", &names.in_text(note));
    }
    if !view.hypervisor_well {
        let words = format!("libvirt does not answer on {}; VMs go on", names.full(&view.host));
        line("Libvirt", &style.paint(Tone::Warning, &words));
    }
    if view.isolated {
        let words = format!("{} reaches no other host and no isolation address", names.full(&view.host));
        line("Isolated", &style.paint(Tone::Alarm, &words));
    }
    if !view.guard {
        let words = format!("none on {}: no VM is started there until there is one", names.full(&view.host));
        line("Guard", &style.paint(Tone::Alarm, &words));
    }
    text.push('\n');
    text.push_str(&hosts::liveness_table(status, &names, style));
    text.push('\n');
    text.push_str(&datastores::list(view, &names, style));
    text.push('\n');
    if status.alarms.is_empty() {
        text.push_str("No alarms stand.\n");
    } else {
        text.push_str(&style.paint(Tone::Alarm, &format!("Alarms ({})", status.alarms.len())));
        text.push('\n');
        for record in &status.alarms {
            text.push_str(&format!(
                "  {}  {}  {}\n",
                style.zone.show(record.at_unix_us),
                names.short(&record.host),
                names.in_text(&record.text)
            ));
        }
    }
    text
}
