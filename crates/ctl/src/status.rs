//! `mainstay status`: the cluster on one calm screen.

use crate::style::{Style, Tone};
use crate::words::{HostNames, clean};
use crate::{datastores, hosts, vms};
use mainstay_api::Status;
use mainstay_core::host_liveness::HostState;
use mainstay_core::ids::HostId;
use mainstay_core::view::View;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Whether everything is as it should be: what `status --check` judges by.
pub fn is_well(status: &Status) -> bool {
    let view = &status.view;
    status.alarms.is_empty()
        && status.complete
        && view.primary.is_some()
        && view.guard
        && view.hosts.iter().all(|host| host.state == HostState::Connected)
}

/// `mainstay status` as text: primary, hosts, datastores, VMs and alarms.
pub fn render(status: &Status, now_us: u64, style: &Style) -> String {
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
    for (stands, words) in suspensions(view, &names, now_us, style) {
        let tone = if stands { Tone::Alarm } else { Tone::Warning };
        line("Suspended", &style.paint(tone, &words));
    }
    if let Some(objection) = &view.objection {
        line("Admission", &style.paint(Tone::Alarm, &names.in_text(objection)));
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

/// Suspensions in words, one for all datastores that have the same, and whether it stands.
fn suspensions(view: &View, names: &HostNames, now_us: u64, style: &Style) -> Vec<(bool, String)> {
    let mut alike: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for it in &view.suspensions {
        let left = it.suspension.left.as_millis().div_ceil(1_000);
        let unaware = it.waits_for.clone().unwrap_or_default();
        let key = (Reverse(it.suspension.stands), left, unaware);
        alike.entry(key).or_default().push(clean(it.datastore.as_str()));
    }
    let words =
        |((Reverse(stands), left, unaware), datastores): ((Reverse<bool>, u64, Vec<HostId>), Vec<String>)| {
            let what = if datastores.len() == view.datastores.len() {
                "protection".to_owned()
            } else {
                format!("protection of VMs on {}", datastores.join(", "))
            };
            let until = style.zone.show_to_seconds(now_us.saturating_add(left.saturating_mul(1_000_000)));
            let words = if !stands {
                format!("{what}, until {until}; waits for failovers in progress, which are completed first")
            } else if unaware.is_empty() {
                format!("{what}, until {until}: no restart, no isolation response, no freeze")
            } else {
                let hosts: Vec<_> = unaware.iter().map(|host| names.short(host)).collect();
                format!("{what}, until {until}: no restart; {} would freeze VMs yet", hosts.join(", "))
            };
            (stands, words)
        };
    alike.into_iter().map(words).collect()
}
