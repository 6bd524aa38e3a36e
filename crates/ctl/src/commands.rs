//! The commands that ask an agent. Stdout and stderr are parameters, so that tests see whole outputs.

use crate::args::{ClusterCommand, DatastoreCommand, EventsArgs, HostCommand, OnOff, VmCommand};
use crate::ask::Agent;
use crate::events::Filter;
use crate::exit::{Exit, Failure};
use crate::style::Style;
use crate::words::{HostNames, clean};
use crate::{
    datastores, events, hosts, operate, orders, rehearsal, show, status, suspension, vm_details, vms,
};
use mainstay_agent::api::IsolationOrder;
use mainstay_api::{Done, EventPage, EventRecord};
use mainstay_core::ids::HostId;
use serde::Serialize;
use std::collections::BTreeSet;
use std::io::Write;
use std::time::Duration;

/// How many past events are shown before following, when nobody says how many.
const SHOWN_BEFORE_FOLLOWING: usize = 10;

/// How many events are shown when nobody says how many.
const DEFAULT_LIMIT: usize = 200;

/// Following begins this long before the newest known event: another host's clock may be behind, and its event late.
pub(crate) const LATE_US: u64 = 5_000_000;

/// Where output goes, and how it looks.
pub struct Output<'a> {
    /// Data.
    pub out: &'a mut dyn Write,
    /// Messages.
    pub err: &'a mut dyn Write,
    /// Looks.
    pub style: Style,
    /// JSON instead of text.
    pub json: bool,
    /// Asks the person at the terminal.
    pub confirm: fn(&str) -> Confirmation,
    /// This machine's clock when the command began, in microseconds since 1970.
    pub now_us: u64,
}

/// What a person says to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// Yes.
    Yes,
    /// Anything else.
    No,
    /// There is no terminal, and so nobody to ask.
    Nobody,
}

impl Output<'_> {
    pub(crate) fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.out.write_all(text.as_bytes())?;
        Ok(self.out.flush()?)
    }

    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).map_err(std::io::Error::from)?;
        self.text(&format!("{text}\n"))
    }

    /// One of many values: a line of its own.
    pub(crate) fn json_line(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value).map_err(std::io::Error::from)?;
        self.text(&format!("{text}\n"))
    }

    /// A message; that stderr is closed is nothing to fail for.
    pub(crate) fn message(&mut self, text: &str) {
        let _ = writeln!(self.err, "{text}");
    }

    /// What was done, in words fit for a terminal.
    pub(crate) fn done(&mut self, done: &Done, words: String) -> Result<Exit, Failure> {
        if self.json {
            self.json(done)?;
        } else {
            self.text(&format!("{words}\n"))?;
        }
        Ok(Exit::Ok)
    }

    /// A table, or a message that there is nothing to list (so that stdout stays empty for scripts).
    pub(crate) fn table(&mut self, is_empty: bool, empty: &str, table: String) -> Result<(), Failure> {
        if is_empty {
            self.message(empty);
            Ok(())
        } else {
            self.text(&table)
        }
    }
}

/// Carries out a command that asks an agent.
pub fn run(
    command: &ClusterCommand,
    agent: &mut dyn Agent,
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    match command {
        ClusterCommand::Status(args) => {
            let answer = agent.status()?;
            if output.json {
                output.json(&answer)?;
            } else {
                output.text(&status::render(&answer, output.now_us, &output.style))?;
            }
            Ok(if args.check && !status::is_well(&answer) { Exit::Degraded } else { Exit::Ok })
        }
        ClusterCommand::Host(HostCommand::List { .. }) => {
            let answer = agent.status()?;
            if output.json {
                output.json(&hosts::json(&answer))?;
            } else {
                let names = HostNames(answer.host_names.clone());
                let table = hosts::list(&answer, &names, &output.style);
                output.table(answer.view.hosts.is_empty(), "No hosts are configured.", table)?;
            }
            Ok(Exit::Ok)
        }
        ClusterCommand::Host(HostCommand::Failover(args)) => {
            operate::order(&orders::failover_host(&args.name, args.keep == OnOff::On), agent, output)
        }
        ClusterCommand::Host(HostCommand::ConfirmDown(args)) => operate::confirm_down(args, agent, output),
        ClusterCommand::Host(HostCommand::Maintenance(command)) => {
            operate::maintenance(command, agent, output)
        }
        ClusterCommand::Vm(command) => run_vm(command, agent, output),
        ClusterCommand::Rule(command) => operate::rule(command, agent, output),
        ClusterCommand::Group(command) => operate::group(command, agent, output),
        ClusterCommand::Admission(command) => operate::admission(command, agent, output),
        ClusterCommand::Rehearse(args) => rehearsal::run(args, agent, output),
        ClusterCommand::Suspend(args) => suspension::suspend(args, agent, output),
        ClusterCommand::Resume { .. } => operate::order(orders::RESUME, agent, output),
        ClusterCommand::Datastore(DatastoreCommand::List { .. }) => {
            let answer = agent.status()?;
            if output.json {
                output.json(&answer.view.datastores)?;
            } else {
                let names = HostNames(answer.host_names.clone());
                let table = datastores::list(&answer.view, &names, &output.style);
                output.table(answer.view.datastores.is_empty(), "No datastores are configured.", table)?;
            }
            Ok(Exit::Ok)
        }
        ClusterCommand::Datastore(DatastoreCommand::Show { path, cluster }) => {
            let folders = show::read(path, cluster.as_deref())?;
            if output.json {
                output.json(&show::json(&folders))?;
            } else {
                let empty = format!("No cluster has a folder on {}.", path.display());
                output.table(folders.is_empty(), &empty, show::render(&folders, &output.style))?;
            }
            Ok(Exit::Ok)
        }
        ClusterCommand::Events(args) => run_events(args, agent, output),
    }
}

fn run_vm(command: &VmCommand, agent: &mut dyn Agent, output: &mut Output<'_>) -> Result<Exit, Failure> {
    let done = match command {
        VmCommand::List { host } => {
            let answer = agent.status()?;
            let names = HostNames(answer.host_names.clone());
            let host = host.as_ref().map(|name| names.resolve(name)).transpose()?;
            let chosen = vms::select(&answer.view, host.as_ref());
            if output.json {
                output.json(&vms::json(&chosen, &answer.view.settings))?;
            } else {
                let empty = match &host {
                    Some(host) => format!("No VMs on {}.", names.full(host)),
                    None => "No VMs are known.".to_owned(),
                };
                let table = vms::list(&chosen, &answer.view.settings, &names, &output.style);
                output.table(chosen.is_empty(), &empty, table)?;
            }
            return Ok(Exit::Ok);
        }
        VmCommand::Show { name, .. } => {
            let answer = agent.status()?;
            let vm = vm_details::find(&answer.view, name)?;
            if output.json {
                output.json(&vms::json(&[vm], &answer.view.settings)[0])?;
            } else {
                let names = HostNames(answer.host_names.clone());
                output.text(&vm_details::render(vm, &answer.view, &names, &output.style))?;
            }
            return Ok(Exit::Ok);
        }
        VmCommand::Protect { name, .. } => agent.set_protection(name, true)?,
        VmCommand::Unprotect { name, .. } => agent.set_protection(name, false)?,
        VmCommand::Set(args) => agent.set_isolation(&IsolationOrder {
            vm: args.name.clone(),
            response: args.isolation_response.unwrap_or_default(),
            shutdown_timeout: args.shutdown_timeout.unwrap_or_default(),
        })?,
        VmCommand::Priority(args) => {
            return operate::order(&orders::priority(&args.name, args.priority), agent, output);
        }
        VmCommand::Ready(args) => return operate::order(&orders::ready(args)?, agent, output),
    };
    output.done(&done, clean(&done.message))
}

fn run_events(args: &EventsArgs, agent: &mut dyn Agent, output: &mut Output<'_>) -> Result<Exit, Failure> {
    let names = match agent.status() {
        Ok(answer) => HostNames(answer.host_names),
        Err(failure @ Failure::NoAgent { .. }) => return Err(failure),
        // Events are what one looks at when something is wrong: ids will do where names can't be had.
        Err(failure) => {
            output.message(&format!("warning: host names are not known: {failure}"));
            HostNames::default()
        }
    };
    let host = match &args.host {
        Some(host) if names.0.is_empty() => Some(host.as_str().into()),
        Some(host) => Some(names.resolve(host)?),
        None => None,
    };
    let filter = Filter {
        not_before_us: args.since.map_or(0, |age| not_before_us(age, output.now_us)),
        vm: args.vm.clone(),
        host,
        severity: args.severity.into(),
    };
    let show_missing = |page: &EventPage, output: &mut Output<'_>| {
        for (host, reason) in &page.missing {
            output.message(&events::missing_line(host, reason, &names));
        }
    };
    let page = agent.events(0)?;
    let known: BTreeSet<_> = page.events.iter().map(identity).collect();
    let newest = page.events.last().map_or(0, |record| record.at_unix_us);
    let page = select(page, &filter, shown_at_most(args));
    show_missing(&page, output);
    if output.json && !args.follow {
        output.json(&page)?;
        return Ok(Exit::Ok);
    }
    let print = |record: &EventRecord, output: &mut Output<'_>| {
        let line = if output.json {
            serde_json::to_string(record).map_err(std::io::Error::from)? + "\n"
        } else {
            events::line(record, &names, &output.style)
        };
        output.text(&line)
    };
    for record in &page.events {
        print(record, output)?;
    }
    if args.follow {
        agent.follow(newest.saturating_sub(LATE_US), &mut |record| {
            let wanted = filter.admits(&record) && !known.contains(&identity(&record));
            if wanted { print(&record, output) } else { Ok(()) }
        })?;
    }
    Ok(Exit::Ok)
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

/// The newest of the wanted events.
fn select(page: EventPage, filter: &Filter, limit: usize) -> EventPage {
    let mut events: Vec<_> = page.events.into_iter().filter(|record| filter.admits(record)).collect();
    events.drain(..events.len().saturating_sub(limit));
    EventPage { events, missing: page.missing }
}

fn not_before_us(age: Duration, now_us: u64) -> u64 {
    now_us.saturating_sub(u64::try_from(age.as_micros()).unwrap_or(u64::MAX))
}
