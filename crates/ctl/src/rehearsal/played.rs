//! Faults played on a simulated copy of the cluster: the answering primary's view goes in, a timeline comes out. The real
//! cluster is asked for its state and nothing else.

use crate::args::RehearseArgs;
use crate::ask::Agent;
use crate::commands::Output;
use crate::exit::{Exit, Failure};
use crate::settings::number;
use crate::style::{Style, Tone};
use crate::words::{HostNames, clean};
use mainstay_core::host_liveness::HostState;
use mainstay_core::{Severity, Span};
use mainstay_sim::rehearse::{
    HostOutcome, Moment, Outcome, Rehearsed, RehearsedFault, Surroundings, VmOutcome, rehearse,
};

/// Said under each timeline, so that nobody takes it for a promise.
const EXPECTATIONS: &str = "\
Times are expectations, not promises: they follow from the cluster's own time-outs and from typical times of libvirt and storage,
on a simulated copy of the cluster that runs the code of this build. Nothing was done to the real cluster.
";

/// Plays the faults and shows what follows.
pub fn run(args: &RehearseArgs, agent: &mut dyn Agent, output: &mut Output<'_>) -> Result<Exit, Failure> {
    let status = agent.status()?;
    let names = HostNames(status.host_names.clone());
    let faults = faults(args, &names)?;
    let played = rehearse(&status.view, &faults, &Surroundings::default())
        .map_err(|error| Failure::Refused(names.in_text(&error.to_string())))?;
    if output.json {
        output.json(&played)?;
    } else {
        output.text(&render(&played, &names, &output.style))?;
    }
    Ok(Exit::Ok)
}

fn faults(args: &RehearseArgs, names: &HostNames) -> Result<Vec<RehearsedFault>, Failure> {
    let fail = args.fail.iter().map(|host| names.resolve(host).map(RehearsedFault::Fail));
    let isolate = args.isolate.iter().map(|host| names.resolve(host).map(RehearsedFault::Isolate));
    let cut = args.cut_storage.iter().map(|cut| {
        let datastore = cut.datastore.as_deref().map(Into::into);
        names.resolve(&cut.host).map(|host| RehearsedFault::CutStorage(host, datastore))
    });
    fail.chain(isolate).chain(cut).collect()
}

/// The timeline, what becomes of each VM and host, and what all that rests on.
pub fn render(played: &Rehearsed, names: &HostNames, style: &Style) -> String {
    let mut text = timeline(&played.timeline, names, style);
    text.push('\n');
    if !played.vms.is_empty() {
        text.push_str(&vms(&played.vms, names, style));
        text.push('\n');
    }
    text.push_str(&hosts(&played.hosts, names, style));
    text.push('\n');
    let lost = played.not_well().count() as u64;
    if lost > 0 {
        let do_not = if lost == 1 { "does" } else { "do" };
        let words = format!("{} {do_not} not run well in the end.", number(lost, "VM"));
        text.push_str(&format!("{}\n", style.paint(Tone::Alarm, &words)));
    } else {
        text.push_str("All VMs that are to come back run in the end.\n");
    }
    if !played.complete {
        let words =
            format!("It was not over after {}: this is how it stood then.", &offset(played.ended)[1..]);
        text.push_str(&format!("{}\n", style.paint(Tone::Warning, &words)));
    }
    for left in &played.left_out {
        text.push_str(&format!("{} takes no part: {}\n", clean(&left.vm), names.in_text(&left.why)));
    }
    for assumption in &played.assumptions {
        text.push_str(&format!("Assumed: {}\n", names.in_text(assumption)));
    }
    text.push_str(EXPECTATIONS);
    text
}

/// `+4.6 s`: time since the faults.
fn offset(after: Span) -> String {
    let ms = after.as_millis();
    format!("+{}.{} s", ms / 1_000, ms % 1_000 / 100)
}

fn timeline(moments: &[Moment], names: &HostNames, style: &Style) -> String {
    let width = names.width();
    let mut text = String::new();
    for moment in moments {
        let (tone, severity) = match moment.severity {
            Severity::Info => (Tone::Plain, "info   "),
            Severity::Warning => (Tone::Warning, "warning"),
            Severity::Alarm => (Tone::Alarm, "alarm  "),
        };
        let host = moment.host.as_ref().map(|host| names.short(host)).unwrap_or_default();
        let (severity, what) = (style.paint(tone, severity), names.in_text(&moment.what));
        text.push_str(&format!("{:>9}  {host:<width$}  {severity}  {what}\n", offset(moment.after)));
    }
    text
}

fn vms(vms: &[VmOutcome], names: &HostNames, style: &Style) -> String {
    let row = |vm: &VmOutcome| {
        let (tone, words) = outcome(&vm.outcome, names);
        let plain = |text: String| style.cell(Tone::Plain, text);
        let host = |host: &Option<_>| host.as_ref().map_or_else(|| "-".to_owned(), |host| names.short(host));
        let down = vm.down_for.map_or_else(|| "-".to_owned(), |down| offset(down)[1..].to_owned());
        vec![
            plain(clean(&vm.vm)),
            plain(host(&vm.from)),
            plain(host(&vm.to)),
            plain(down),
            style.cell(tone, words),
        ]
    };
    style.table(&["VM", "FROM", "TO", "DOWN FOR", "OUTCOME"], vms.iter().map(row).collect())
}

fn outcome(outcome: &Outcome, names: &HostNames) -> (Tone, String) {
    match outcome {
        Outcome::StayedUp => (Tone::Plain, "stays up".to_owned()),
        Outcome::WithoutStorage { datastore } => {
            (Tone::Alarm, format!("goes on without its datastore {}", clean(datastore.as_str())))
        }
        Outcome::Restarted { after } => (Tone::Plain, format!("runs again at {}", offset(*after))),
        Outcome::FrozenOnly => (Tone::Plain, "is frozen for a while, then goes on".to_owned()),
        Outcome::StillFrozen => (Tone::Alarm, "is frozen until contact returns".to_owned()),
        Outcome::Waits { reasons } => {
            let why = reasons
                .iter()
                .map(|one| format!("{}: {}", names.short(&one.host), names.in_text(&one.reason)));
            let why: Vec<_> = why.collect();
            let why = if why.is_empty() { "no other host is there".to_owned() } else { why.join("; ") };
            (Tone::Alarm, format!("waits, no host can take it: {why}"))
        }
        Outcome::StaysDown { why, .. } => (Tone::Warning, format!("stays down: {}", names.in_text(why))),
    }
}

fn hosts(hosts: &[HostOutcome], names: &HostNames, style: &Style) -> String {
    let row = |host: &HostOutcome| {
        let judged: Vec<_> = host
            .judged
            .iter()
            .map(|one| format!("{} at {} by {}", one.state, offset(one.after), names.short(&one.by)))
            .collect();
        let last = host.judged.last().map_or(HostState::Connected, |one| one.state);
        let judged = if judged.is_empty() { "-".to_owned() } else { judged.join(", ") };
        vec![
            style.cell(Tone::Plain, names.full(&host.host)),
            style.cell(Tone::Plain, host.vms_before.to_string()),
            style.cell(Tone::Plain, host.vms_after.to_string()),
            style.cell(crate::hosts::tone(last), judged),
        ]
    };
    style.table(&["HOST", "VMS BEFORE", "VMS AFTER", "JUDGED"], hosts.iter().map(row).collect())
}
