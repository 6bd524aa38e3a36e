//! The commands that ask an agent. Stdout and stderr are parameters, so that tests see whole outputs.

use crate::args::{ClusterCommand, DatastoreCommand, HostCommand, VmCommand};
use crate::ask::Agent;
use crate::exit::{Exit, Failure};
use crate::style::Style;
use crate::words::HostNames;
use crate::{datastores, events, hosts, operate, rehearsal, show, status, suspension, vm_details, vms};
use mainstay_api::Done;
use mainstay_api::order::Order;
use serde::Serialize;
use std::io::Write;

/// Where output goes, and how it looks.
pub struct Output<'a> {
    /// Takes what was asked for: stdout.
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
    /// The person has said yes.
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
        ClusterCommand::Host(HostCommand::Failover(args)) => operate::order(&args.order(), agent, output),
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
        ClusterCommand::Resume { .. } => operate::order(&Order::Resume, agent, output),
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
        ClusterCommand::Events(args) => events::run(args, agent, output),
    }
}

fn run_vm(command: &VmCommand, agent: &mut dyn Agent, output: &mut Output<'_>) -> Result<Exit, Failure> {
    match command {
        VmCommand::List { host } => {
            let answer = agent.status()?;
            let names = HostNames(answer.host_names.clone());
            let host = host.as_ref().map(|name| names.resolve(name)).transpose()?;
            let chosen = vms::select(&answer.view, host.as_ref());
            if output.json {
                output.json(&vms::json(&chosen, &answer.view))?;
            } else {
                let empty = match &host {
                    Some(host) => format!("No VMs on {}.", names.full(host)),
                    None => "No VMs are known.".to_owned(),
                };
                let table = vms::list(&chosen, &answer.view, &names, &output.style);
                output.table(chosen.is_empty(), &empty, table)?;
            }
            Ok(Exit::Ok)
        }
        VmCommand::Show { name, .. } => {
            let answer = agent.status()?;
            let vm = vm_details::find(&answer, name)?;
            if output.json {
                output.json(&vms::json(&[vm], &answer.view)[0])?;
            } else {
                let names = HostNames(answer.host_names.clone());
                output.text(&vm_details::render(vm, &answer.view, &names, &output.style))?;
            }
            Ok(Exit::Ok)
        }
        VmCommand::Order(command) => operate::order(&command.order()?, agent, output),
    }
}
