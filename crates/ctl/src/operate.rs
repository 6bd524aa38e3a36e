//! Commands that have the primary do or set something: what is checked here first, and how its answer is told.

use crate::args::{
    AdmissionCommand, ConfirmDownArgs, EnterArgs, GroupCommand, MaintenanceCommand, RuleCommand,
};
use crate::ask::Agent;
use crate::commands::{Confirmation, Output};
use crate::exit::{Exit, Failure};
use crate::maintenance::Watch;
use crate::settings;
use crate::words::{HostNames, clean};
use mainstay_api::Done;
use mainstay_api::order::Order;
use std::io::{BufRead, IsTerminal, Write};

/// Gives an order and tells the answer.
pub fn order(order: &Order, agent: &mut dyn Agent, output: &mut Output<'_>) -> Result<Exit, Failure> {
    let (done, words) = give(order, agent)?;
    output.done(&done, words)
}

/// Gives an order: the answer, and its words fit for a terminal.
pub fn give(order: &Order, agent: &mut dyn Agent) -> Result<(Done, String), Failure> {
    match agent.order(order) {
        Ok(done) => {
            let words = clean(&done.message);
            Ok((done, words))
        }
        Err(Failure::Refused(text)) => Err(Failure::Refused(clean(&text))),
        Err(failure) => Err(failure),
    }
}

/// `mainstay rule ...`
pub fn rule(command: &RuleCommand, agent: &mut dyn Agent, output: &mut Output<'_>) -> Result<Exit, Failure> {
    if let Some(set) = command.order()? {
        return order(&set, agent, output);
    }
    let answer = agent.status()?;
    if output.json {
        output.json(&settings::rules_json(&answer.view))?;
    } else {
        let names = HostNames(answer.host_names.clone());
        let table = settings::rules(&answer.view, &names, &output.style);
        output.table(answer.view.settings.rules.is_empty(), "No rules are set.", table)?;
    }
    Ok(Exit::Ok)
}

/// `mainstay group ...`
pub fn group(
    command: &GroupCommand,
    agent: &mut dyn Agent,
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    if let Some(set) = command.order() {
        return order(&set, agent, output);
    }
    let answer = agent.status()?;
    if output.json {
        output.json(&settings::groups_json(&answer.view))?;
    } else {
        let table = settings::groups(&answer.view, &output.style);
        output.table(answer.view.settings.groups.is_empty(), "No groups are set.", table)?;
    }
    Ok(Exit::Ok)
}

/// `mainstay admission ...`
pub fn admission(
    command: &AdmissionCommand,
    agent: &mut dyn Agent,
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    if let Some(set) = command.order() {
        return order(&set, agent, output);
    }
    let answer = agent.status()?;
    if output.json {
        output.json(&settings::admission_json(&answer))?;
    } else {
        let names = HostNames(answer.host_names.clone());
        output.text(&settings::admission(&answer, &names, &output.style))?;
    }
    Ok(Exit::Ok)
}

/// `mainstay host maintenance ...`
pub fn maintenance(
    command: &MaintenanceCommand,
    agent: &mut dyn Agent,
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    match command {
        MaintenanceCommand::Enter(args) => enter(args, agent, output),
        MaintenanceCommand::Leave(args) => order(&args.order(), agent, output),
    }
}

fn enter(args: &EnterArgs, agent: &mut dyn Agent, output: &mut Output<'_>) -> Result<Exit, Failure> {
    let enter = args.order();
    if !args.wait {
        return order(&enter, agent, output);
    }
    let mut watch = Watch::begin(agent, &args.name)?;
    match give(&enter, agent) {
        // Lines of JSON from here on, and so this is one, too.
        Ok((done, _)) if output.json => output.json_line(&done)?,
        Ok((_, words)) => output.text(&format!("{words}\n"))?,
        Err(Failure::Refused(text)) => {
            // Whoever has ended the waiting may want to go on with it.
            if !watch.is_emptied(args.shutdown, agent) {
                return Err(Failure::Refused(text));
            }
            output.message(&format!("note: {text}"));
        }
        Err(failure) => return Err(failure),
    }
    watch.until_empty(agent, output)
}

/// `mainstay host confirm-down`
pub fn confirm_down(
    args: &ConfirmDownArgs,
    agent: &mut dyn Agent,
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    let names = HostNames(agent.status()?.host_names);
    let host = names.full(&names.resolve(&args.name)?);
    if !args.yes {
        let question = format!(
            "{host} shows no sign of life to the cluster. If you confirm that it is down, its VMs are started elsewhere.\n\
             If it is not down, each of them then runs twice, and two copies that write to one disk destroy it.\n\
             Make sure that {host} has no power. Type yes to confirm: "
        );
        match (output.confirm)(&question) {
            Confirmation::Yes => {}
            Confirmation::No => {
                return Err(Failure::Refused("not confirmed: nothing was done".to_owned()));
            }
            Confirmation::Nobody => {
                return Err(Failure::Refused(format!(
                    "there is no terminal to ask on: make sure that {host} has no power, then add --yes; \
                     if it is not down, its VMs run twice and their disks are destroyed"
                )));
            }
        }
    }
    order(&args.order(), agent, output)
}

/// Asks on the terminal, if stdin is one.
pub fn confirm_on_terminal(question: &str) -> Confirmation {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Confirmation::Nobody;
    }
    let mut err = std::io::stderr().lock();
    let mut answer = String::new();
    // A terminal that can't be written to or read from has nobody at it.
    let asked = write!(err, "{question}").and_then(|()| err.flush());
    if asked.and_then(|()| stdin.lock().read_line(&mut answer)).is_err() {
        return Confirmation::Nobody;
    }
    if answer.trim() == "yes" { Confirmation::Yes } else { Confirmation::No }
}
