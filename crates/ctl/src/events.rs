//! `mainstay events`: choosing events and printing them, one per line. What is asked for and isn't there is told on stderr.

use crate::args::EventsArgs;
use crate::ask::Agent;
use crate::commands::Output;
use crate::exit::{Exit, Failure};
use crate::style::{Style, Tone};
use crate::vm_details;
use crate::words::{HostNames, clean};
use mainstay_api::{EventPage, EventRecord, Status};
use mainstay_core::ids::{HostId, VmId};
use mainstay_core::{Event, Severity};
use std::collections::BTreeSet;
use std::time::Duration;

/// How many past events are shown before following, when nobody says how many.
const SHOWN_BEFORE_FOLLOWING: usize = 10;

/// How many events are shown when nobody says how many.
const DEFAULT_LIMIT: usize = 200;

/// Following begins this long before the newest known event: another host's clock may be behind, and its event late.
pub(crate) const LATE_US: u64 = 5_000_000;

/// Which events are wanted.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Not older than this, in microseconds since 1970.
    pub not_before_us: u64,
    /// About this VM: its name or UUID.
    pub vm: Option<String>,
    /// Reported by this host, or about it.
    pub host: Option<HostId>,
    /// At least this severe.
    pub severity: Severity,
}

impl Filter {
    /// Whether the event is wanted.
    pub fn admits(&self, record: &EventRecord) -> bool {
        record.at_unix_us >= self.not_before_us
            && record.severity >= self.severity
            && self.vm.as_ref().is_none_or(|wanted| is_about_vm(record, wanted))
            && self.host.as_ref().is_none_or(|wanted| is_about_host(record, wanted))
    }
}

/// Prints what happened, and goes on with what happens.
pub fn run(args: &EventsArgs, agent: &mut dyn Agent, output: &mut Output<'_>) -> Result<Exit, Failure> {
    let status = match agent.status() {
        Ok(answer) => Some(answer),
        Err(failure @ Failure::NoAgent { .. }) => return Err(failure),
        // Events are what one looks at when something is wrong: ids will do where names can't be had.
        Err(failure) => {
            output.message(&format!("warning: host names are not known: {failure}"));
            None
        }
    };
    let names = status.as_ref().map(|status| HostNames(status.host_names.clone())).unwrap_or_default();
    let filter = filter(args, &names, output.now_us)?;
    let page = agent.events(0)?;
    let known: BTreeSet<_> = page.events.iter().map(identity).collect();
    let newest = page.events.last().map_or(0, |record| record.at_unix_us);
    let unknown = unknown(&filter, &page, status.as_ref());
    let EventPage { events, missing } = page;
    for (host, reason) in &missing {
        output.message(&missing_line(host, reason, &names));
    }
    let mut events: Vec<_> = events.into_iter().filter(|record| filter.admits(record)).collect();
    if events.is_empty() {
        output.message(&none_line(&filter, &names, &output.style));
    }
    match unknown {
        Some(failure) if !args.follow => return Err(failure),
        // It may be about to be started for the first time.
        Some(failure) => output.message(&format!("note: {failure}")),
        None => {}
    }
    // The newest of the wanted ones.
    events.drain(..events.len().saturating_sub(shown_at_most(args)));
    if output.json && !args.follow {
        output.json(&EventPage { events, missing })?;
        return Ok(Exit::Ok);
    }
    for record in &events {
        print(record, &names, output)?;
    }
    if args.follow {
        agent.follow(newest.saturating_sub(LATE_US), &mut |record| {
            let wanted = filter.admits(&record) && !known.contains(&identity(&record));
            if wanted { print(&record, &names, output) } else { Ok(()) }
        })?;
    }
    Ok(Exit::Ok)
}

fn filter(args: &EventsArgs, names: &HostNames, now_us: u64) -> Result<Filter, Failure> {
    let host = match &args.host {
        Some(host) if names.0.is_empty() => Some(host.as_str().into()),
        Some(host) => Some(names.resolve(host)?),
        None => None,
    };
    Ok(Filter {
        not_before_us: args.since.map_or(0, |age| not_before_us(age, now_us)),
        vm: args.vm.clone(),
        host,
        severity: args.severity.into(),
    })
}

/// What to say when neither events nor status know the VM that is asked for: most likely its name is mistyped.
fn unknown(filter: &Filter, page: &EventPage, status: Option<&Status>) -> Option<Failure> {
    let wanted = filter.vm.as_deref()?;
    if page.events.iter().any(|record| is_about_vm(record, wanted)) {
        return None;
    }
    vm_details::unknown(status?, wanted)
}

/// The remark that nothing is to be shown.
fn none_line(filter: &Filter, names: &HostNames, style: &Style) -> String {
    let wanted = [
        filter.vm.as_ref().map(|vm| format!("of VM {}", clean(vm))),
        filter.host.as_ref().map(|host| format!("of host {}", names.full(host))),
        match filter.severity {
            Severity::Info => None,
            Severity::Warning => Some("of severity warning or alarm".to_owned()),
            Severity::Alarm => Some("of severity alarm".to_owned()),
        },
        (filter.not_before_us > 0).then(|| format!("since {}", style.zone.show(filter.not_before_us))),
    ];
    let wanted: Vec<_> = wanted.into_iter().flatten().collect();
    if wanted.is_empty() { "No events yet.".to_owned() } else { format!("No events {}.", wanted.join(", ")) }
}

fn print(record: &EventRecord, names: &HostNames, output: &mut Output<'_>) -> Result<(), Failure> {
    if output.json { output.json_line(record) } else { output.text(&line(record, names, &output.style)) }
}

/// What tells an event from all others.
pub(crate) fn identity(record: &EventRecord) -> (HostId, u64, u64) {
    (record.host.clone(), record.sequence, record.at_unix_us)
}

fn shown_at_most(args: &EventsArgs) -> usize {
    args.limit.unwrap_or(if args.follow && args.since.is_none() {
        SHOWN_BEFORE_FOLLOWING
    } else {
        DEFAULT_LIMIT
    })
}

fn not_before_us(age: Duration, now_us: u64) -> u64 {
    now_us.saturating_sub(u64::try_from(age.as_micros()).unwrap_or(u64::MAX))
}

fn is_about_vm(record: &EventRecord, wanted: &str) -> bool {
    let vm = record.event.as_ref().and_then(Event::vm);
    vm.is_some_and(|vm| &*vm.name == wanted || VmId::parse(wanted) == Some(vm.id))
}

fn is_about_host(record: &EventRecord, wanted: &HostId) -> bool {
    record.host == *wanted || record.event.as_ref().is_some_and(|event| event.about().hosts.contains(&wanted))
}

/// The event as one line: time, host, severity, text.
pub fn line(record: &EventRecord, names: &HostNames, style: &Style) -> String {
    let (tone, severity) = match record.severity {
        Severity::Info => (Tone::Plain, "info   "),
        Severity::Warning => (Tone::Warning, "warning"),
        Severity::Alarm => (Tone::Alarm, "alarm  "),
    };
    let time = style.zone.show(record.at_unix_us);
    let width = names.width();
    let host = names.short(&record.host);
    let text = names.in_text(&record.text);
    format!("{time}  {host:<width$}  {}  {text}\n", style.paint(tone, severity))
}

/// The remark about a host whose events are missing.
pub fn missing_line(host: &HostId, reason: &str, names: &HostNames) -> String {
    format!("warning: events of {} are missing: {}", names.full(host), clean(reason))
}
