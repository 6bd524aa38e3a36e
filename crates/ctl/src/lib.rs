//! The command line `mainstay`, as a library: the program is [`main`], and tests run a command against an [`Agent`] of their own.
//!
//! It starts the agent, asks agents, and prints their answers for people and for programs. It decides nothing and keeps
//! nothing: whatever it shows was said by an agent or read from a datastore just now. Stdout is data, stderr is messages, and
//! exit codes are those of [`Exit`].
//!
//! No other program uses this library: what is public here is what its own tests need.

mod args;
mod ask;
mod clock;
mod commands;
mod completions;
mod datastores;
mod events;
mod exit;
mod hook;
mod hosts;
mod live;
mod maintenance;
mod operate;
mod rehearsal;
mod replay;
mod settings;
mod show;
mod simulate;
mod status;
mod style;
mod suspension;
mod vm_details;
mod vms;
mod waiting;
mod words;

pub use args::Cli;
pub use ask::Agent;
pub use clock::Zone;
pub use commands::{Confirmation, Output};
pub use exit::{Exit, Failure};
pub use style::Style;

/// Parts of outputs that tests look at by themselves, and how long is waited.
pub mod parts {
    pub use crate::rehearsal::played::render as rehearsal_played;
    pub use crate::settings::policy_words;
    pub use crate::suspension::{LOOK, RESUMED_LOOKS, STALL_MAX, UNSUSPENDED_MAX};
    pub use crate::words::HostNames;
}

use args::{ClusterCommand, Command, ReplayArgs};
use ask::Route;
use live::Live;
use mainstay_agent::first_minutes::FirstMinutes;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// The program: reads the command line of this process and does what it says.
pub fn main() -> ExitCode {
    // Ends the process on wrong usage (2) and after --help and --version (0).
    let cli = args::parse_or_exit();
    match dispatch(&cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            if !failure.is_quiet() {
                report(&failure);
            }
            failure.exit().into()
        }
    }
}

fn report(failure: &Failure) {
    let mut err = std::io::stderr().lock();
    // Nobody is left to be told when stderr is closed too.
    let _ = writeln!(err, "error: {failure}");
    if let Some(hint) = failure.hint() {
        let _ = writeln!(err, "hint: {hint}");
    }
}

fn dispatch(cli: &Cli) -> Result<Exit, Failure> {
    match &cli.command {
        Command::Agent { config, check } => run_agent(config, *check),
        Command::Hook { state_dir, arguments } => {
            let err = &mut std::io::stderr().lock();
            let first_minutes = FirstMinutes::of(&cli.global.socket, state_dir);
            let here = hook::Here { socket: &cli.global.socket, first_minutes: &first_minutes };
            Ok(hook::run(arguments, &here, std::io::stdin(), hook::PATIENCE, err))
        }
        Command::Completions { shell } => completions::print(*shell),
        Command::Sim(command) => simulate::run(command, cli.global.json, &mut std::io::stdout().lock()),
        Command::Replay(args) => replay_recording(cli, args),
        Command::Cluster(command) => ask_cluster(cli, command),
    }
}

/// Carries out a command that asks an agent, or replays a recording, with these outputs.
pub fn run(cli: &Cli, agent: &mut dyn Agent, output: &mut Output<'_>) -> Result<Exit, Failure> {
    match &cli.command {
        Command::Cluster(command) => commands::run(command, agent, output),
        Command::Replay(args) => replay::run(args, output),
        Command::Agent { .. } | Command::Hook { .. } | Command::Completions { .. } | Command::Sim(_) => {
            Err(Failure::Usage("this command asks no agent".to_owned()))
        }
    }
}

fn run_agent(config: &Path, check: bool) -> Result<Exit, Failure> {
    mainstay_agent::run(config, check).map_err(|error| Failure::Refused(error.to_string()))?;
    // Only a check comes back.
    let _ = writeln!(std::io::stderr(), "{} is good", config.display());
    Ok(Exit::Ok)
}

fn replay_recording(cli: &Cli, args: &ReplayArgs) -> Result<Exit, Failure> {
    let zone = if args.utc { Zone::Utc } else { Zone::Local };
    let mut output = Output {
        out: &mut std::io::BufWriter::new(std::io::stdout().lock()),
        err: &mut std::io::stderr().lock(),
        style: Style::for_stdout(cli.global.color, zone),
        json: cli.global.json,
        confirm: operate::confirm_on_terminal,
        now_us: clock::now_us(),
    };
    replay::run(args, &mut output)
}

fn ask_cluster(cli: &Cli, command: &ClusterCommand) -> Result<Exit, Failure> {
    // `--host` behind the subcommand goes before `--host` in front of it, being the nearer word.
    let host = command.asked_host().or(cli.host.as_deref());
    let route = Route::choose(&cli.global.socket, &cli.global.host_sockets, host);
    let mut output = Output {
        out: &mut std::io::stdout().lock(),
        err: &mut std::io::stderr().lock(),
        style: Style::for_stdout(cli.global.color, command.zone()),
        json: cli.global.json,
        confirm: operate::confirm_on_terminal,
        now_us: clock::now_us(),
    };
    let mut agent = Live::new(route, &cli.global.host_sockets);
    commands::run(command, &mut agent, &mut output)
}
