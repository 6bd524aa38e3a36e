//! `mainstay-check`: explores within bounds given on the command line, with progress.

use clap::{Parser, ValueEnum};
use mainstay_check::{Bounds, Choice, Effort, Setup, Sometimes, explore, setup::SECOND, tell};
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

/// Explores all that can happen to a small cluster within bounds.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The small cluster that is explored.
    #[arg(value_enum, default_value_t = World::TwoHosts)]
    world: World,
    /// How many operations may be held back in one run.
    #[arg(long, default_value_t = 1)]
    delays: u8,
    /// How many faults may come in one run.
    #[arg(long, default_value_t = 1)]
    faults: u8,
    /// Length of a run in seconds.
    #[arg(long, default_value_t = 12)]
    seconds: u64,
    /// Instants at which faults, repairs and held operations come, in milliseconds.
    #[arg(long, default_value_t = 500)]
    grid: u64,
    /// Two hosts: the VM runs on the owner of the datastore.
    #[arg(long)]
    vm_on_owner: bool,
    /// How many threads explore.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Only these faults of the menu, by number.
    #[arg(long, value_delimiter = ',')]
    only: Vec<usize>,
    /// Shows the menu of faults.
    #[arg(long)]
    menu: bool,
    /// Tells one run instead: `+3@0.5` is fault 3 of the menu at 0.5 s, `-3@4` its repair at 4 s.
    #[arg(long, value_delimiter = ',', value_parser = parse_step, allow_hyphen_values = true)]
    tell: Vec<(Choice, u64)>,
    /// Gives up after so many states were visited.
    #[arg(long)]
    visits: Option<usize>,
}

#[derive(Clone, Copy, ValueEnum)]
enum World {
    TwoHosts,
    ThreeHosts,
}

fn parse_step(text: &str) -> Result<(Choice, u64), String> {
    let wrong = || format!("{text}: expected +FAULT@SECONDS or -FAULT@SECONDS");
    let (what, at) = text.split_once('@').ok_or_else(wrong)?;
    let at = (at.parse::<f64>().map_err(|_| wrong())? * SECOND as f64) as u64;
    let number = |text: &str| text.parse::<usize>().map_err(|_| wrong());
    match (what.strip_prefix('+'), what.strip_prefix('-')) {
        (Some(fault), _) => Ok((Choice::Fault(number(fault)?), at)),
        (None, Some(fault)) => Ok((Choice::Repair(number(fault)?), at)),
        (None, None) => Err(wrong()),
    }
}

/// A pipe that is closed at the other end is no reason to panic.
fn print(lines: &[String]) {
    let mut out = std::io::stdout().lock();
    for line in lines {
        if writeln!(out, "{line}").is_err() {
            return;
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut setup = match arguments.world {
        World::TwoHosts => Setup::two_hosts(usize::from(arguments.vm_on_owner)),
        World::ThreeHosts => Setup::three_hosts(),
    };
    setup.bounds = Bounds { delays: arguments.delays, faults: arguments.faults };
    setup.horizon = arguments.seconds * SECOND;
    setup.grid = arguments.grid * 1_000;
    if arguments.menu {
        let lines: Vec<String> =
            setup.menu.iter().enumerate().map(|(index, entry)| format!("{index}: {entry:?}")).collect();
        print(&lines);
        return ExitCode::SUCCESS;
    }
    if !arguments.only.is_empty() {
        let all = setup.menu.clone();
        setup.menu = arguments.only.iter().filter_map(|index| all.get(*index).copied()).collect();
    }
    if !arguments.tell.is_empty() {
        return match tell(setup, &arguments.tell) {
            Ok(story) => {
                print(&story);
                ExitCode::SUCCESS
            }
            Err(reason) => {
                eprintln!("error: {reason}");
                ExitCode::from(2)
            }
        };
    }
    let effort = Effort {
        threads: arguments.threads,
        visits_max: arguments.visits,
        progress: Some(Duration::from_secs(5)),
    };
    match explore(setup, &Sometimes::ALL, effort) {
        Ok(findings) => {
            print(&[findings.to_string()]);
            match findings.violation {
                None => ExitCode::SUCCESS,
                Some(story) => {
                    print(&story);
                    ExitCode::FAILURE
                }
            }
        }
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::from(2)
        }
    }
}
