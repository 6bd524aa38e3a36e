//! `mainstay rehearse`: what would become of the VMs if a host failed. The standing plans are the primary's, and shown as it has
//! made them; faults beyond them are played here, on a simulated copy of the cluster (see `played`).

pub mod played;

use crate::args::RehearseArgs;
use crate::ask::Agent;
use crate::commands::Output;
use crate::exit::{Exit, Failure};
use crate::settings::number;
use crate::style::{Style, Tone};
use crate::words::{HostNames, clean};
use mainstay_api::Rehearsal;
use mainstay_core::ids::{HostId, VmId};
use mainstay_core::register::Priority;
use mainstay_core::{HostPlan, LeftOutVm, View};
use std::collections::BTreeMap;

/// Carries out `mainstay rehearse`.
pub fn run(args: &RehearseArgs, agent: &mut dyn Agent, output: &mut Output<'_>) -> Result<Exit, Failure> {
    if args.plays() {
        return played::run(args, agent, output);
    }
    let answer = agent.rehearsal()?;
    let names = HostNames(answer.host_names.clone());
    let Some(host) = &args.host else {
        if output.json {
            output.json(&answer)?;
        } else {
            let text = overview(&answer, &names, &output.style);
            output.table(answer.rehearsed.hosts.is_empty(), "No hosts are configured.", text)?;
        }
        return Ok(Exit::Ok);
    };
    let host = names.resolve(host)?;
    let plan = answer.rehearsed.hosts.iter().find(|plan| plan.host == host).ok_or_else(|| {
        Failure::Refused(format!(
            "the primary has no plan for {}: it does not take part now; see `mainstay host list`",
            names.full(&host)
        ))
    })?;
    if output.json {
        output.json(plan)?;
    } else {
        let priorities = priorities(&agent.status()?.view);
        output.text(&in_full(plan, &names, &priorities, &output.style))?;
    }
    Ok(Exit::Ok)
}

fn priorities(view: &View) -> BTreeMap<VmId, Priority> {
    view.vms.iter().map(|vm| (vm.vm, view.settings.priority(vm.vm, vm.priority))).collect()
}

/// `h2 7, h3 5`: how many VMs go to which host.
fn targets(plan: &HostPlan, names: &HostNames) -> String {
    let mut counts: BTreeMap<&HostId, usize> = BTreeMap::new();
    for vm in &plan.placed {
        *counts.entry(&vm.to).or_default() += 1;
    }
    let counts: Vec<_> =
        counts.iter().map(|(host, count)| format!("{} {count}", names.short(host))).collect();
    if counts.is_empty() { "-".to_owned() } else { counts.join(", ") }
}

fn overview(answer: &Rehearsal, names: &HostNames, style: &Style) -> String {
    let rehearsed = &answer.rehearsed;
    let row = |plan: &HostPlan| {
        let plain = |text: String| style.cell(Tone::Plain, text);
        let lost = if plan.left_out.is_empty() { Tone::Plain } else { Tone::Alarm };
        vec![
            plain(names.full(&plan.host)),
            plain(plan.placed.len().to_string()),
            style.cell(lost, plan.left_out.len().to_string()),
            plain(plan.not_restarted.len().to_string()),
            plain(targets(plan, names)),
        ]
    };
    let headings = ["IF IT FAILS", "COME BACK", "DO NOT", "NOT RESTARTED", "WHERE"];
    let mut text = style.table(&headings, rehearsed.hosts.iter().map(row).collect());
    text.push('\n');
    for plan in rehearsed.hosts.iter().filter(|plan| !plan.left_out.is_empty()) {
        let heading = format!(
            "If {} fails, {} not come back:",
            names.short(&plan.host),
            match plan.left_out.len() {
                1 => "1 VM does".to_owned(),
                count => format!("{count} VMs do"),
            }
        );
        text.push_str(&format!("{}\n", style.paint(Tone::Alarm, &heading)));
        text.push_str(&left_out(&plan.left_out, names, style));
        text.push('\n');
    }
    let objection = match &rehearsed.objection {
        Some(objection) => style.paint(Tone::Alarm, &names.in_text(objection)),
        None => "no objection".to_owned(),
    };
    text.push_str(&format!("Admission control ({}): {objection}\n", clean(&rehearsed.policy)));
    text
}

/// A table of VMs and of what they lacked, host by host.
fn left_out(vms: &[LeftOutVm], names: &HostNames, style: &Style) -> String {
    let mut rows = Vec::new();
    for vm in vms {
        if vm.why.is_empty() {
            let cells = [clean(&vm.name), "-".to_owned(), "no other host is there".to_owned()];
            rows.push(cells.map(|text| style.cell(Tone::Plain, text)).into());
        }
        for (index, refusal) in vm.why.iter().enumerate() {
            // The name once: what follows is about the same VM.
            let name = if index == 0 { clean(&vm.name) } else { String::new() };
            let cells = [name, names.short(&refusal.host), names.in_text(&refusal.reason)];
            rows.push(cells.map(|text| style.cell(Tone::Plain, text)).into());
        }
    }
    style.table(&["VM", "NOT ON", "BECAUSE"], rows)
}

fn in_full(
    plan: &HostPlan,
    names: &HostNames,
    priorities: &BTreeMap<VmId, Priority>,
    style: &Style,
) -> String {
    let affected = (plan.placed.len() + plan.left_out.len()) as u64;
    let mut text = format!(
        "If {} fails, {} of {} come back.\n",
        names.full(&plan.host),
        plan.placed.len(),
        number(affected, "VM")
    );
    if affected == 0 {
        text = format!("If {} fails, no VM has to come back.\n", names.full(&plan.host));
    }
    if !plan.placed.is_empty() {
        let mut placed: Vec<_> = plan.placed.iter().collect();
        // Stable: within a wave and a priority they stay in the order of the plan.
        let priority = |vm: &VmId| priorities.get(vm).copied();
        placed.sort_by_key(|vm| (vm.wave, std::cmp::Reverse(priority(&vm.vm))));
        let rows = placed.iter().map(|vm| {
            let priority = priority(&vm.vm).map_or_else(|| "-".to_owned(), |priority| priority.to_string());
            [vm.wave.to_string(), priority, clean(&vm.name), names.short(&vm.to)]
                .map(|text| style.cell(Tone::Plain, text))
                .into()
        });
        text.push('\n');
        text.push_str(&style.table(&["WAVE", "PRIORITY", "VM", "TO"], rows.collect()));
    }
    if !plan.left_out.is_empty() {
        text.push_str(&format!("\n{}\n", style.paint(Tone::Alarm, "Not back:")));
        text.push_str(&left_out(&plan.left_out, names, style));
    }
    if !plan.not_restarted.is_empty() {
        let rows = plan.not_restarted.iter().map(|vm| {
            [clean(&vm.name), names.in_text(&vm.reason)].map(|text| style.cell(Tone::Plain, text)).into()
        });
        text.push('\n');
        text.push_str(&style.table(&["NOT RESTARTED", "BECAUSE"], rows.collect()));
    }
    text
}
