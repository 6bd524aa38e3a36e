//! The commands. Data goes to stdout, messages to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage,
//! 3 this machine can't run a lab, 4 another lab is in the way, 5 no lab is standing, 130 ended by ctrl-C.

mod bench;
mod demo;
mod drill;
mod ending;
mod faults;
mod hosts;
mod life;
mod table;
mod vms;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mainstay_lab::LabError;

/// Several libvirt hosts on this machine, to try Mainstay and to break things.
#[derive(Debug, Parser)]
#[command(name = "mainstay-lab", version)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the main job: a host loses power, and its VMs run again elsewhere
    Demo(demo::DemoArgs),
    /// Measure: how long a failover takes and what the agents use at rest
    Bench(bench::BenchArgs),
    /// Bring a lab up. It stays until ctrl-C, or until `down` with --keep
    Up(life::Up),
    /// Remove the lab that is standing or was left behind
    Down,
    /// Show hosts, faults and VMs
    Status,
    /// Say what this machine lacks to run a lab
    Check,
    /// Switch a host off or on, let it hang, cut it off, or run commands on it
    #[command(subcommand)]
    Host(hosts::HostCommand),
    /// Add, list or command VMs
    #[command(subcommand)]
    Vm(vms::VmCommand),
    /// Start, stop or kill a host's agent
    #[command(subcommand)]
    Agent(hosts::AgentCommand),
    /// Kill or hang a host's guard, or print its process id
    #[command(subcommand)]
    Guard(hosts::GuardCommand),
    /// Part a network, so that only hosts of one part hear each other: `split h1,h2 h3`
    Split(faults::SplitArgs),
    /// Undo every fault of the networks
    Heal,
}

/// Runs a command; the process's exit code.
pub fn run(args: Args) -> ExitCode {
    let result = match args.command {
        Command::Demo(demo) => demo::demo(&demo),
        Command::Bench(bench) => bench::bench(&bench),
        Command::Up(up) => life::up(&up),
        Command::Down => life::down(),
        Command::Status => life::status(),
        Command::Check => life::check(),
        Command::Host(command) => hosts::host(&command),
        Command::Agent(command) => hosts::agent(&command),
        Command::Guard(command) => hosts::guard(&command),
        Command::Vm(command) => vms::vm(&command),
        Command::Split(split) => faults::split(&split),
        Command::Heal => faults::heal(),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("mainstay-lab: {error:#}");
            if error.is::<ending::Ended>() {
                return ExitCode::from(130);
            }
            ExitCode::from(error.downcast_ref::<LabError>().map_or(1, exit_code))
        }
    }
}

fn exit_code(error: &LabError) -> u8 {
    match error {
        LabError::Config(_)
        | LabError::NoSuchHost { .. }
        | LabError::NoSuchDatastore { .. }
        | LabError::NoSuchVm { .. } => 2,
        LabError::Prerequisites(_) => 3,
        LabError::Locked { .. } | LabError::Standing { .. } => 4,
        LabError::NoLab => 5,
        LabError::HostOff { .. }
        | LabError::HostHung { .. }
        | LabError::AgentRuns { .. }
        | LabError::Unsupported { .. }
        | LabError::NotRunning { .. }
        | LabError::NoAgentBinary { .. }
        | LabError::Tool { .. }
        | LabError::ToolTimeout { .. }
        | LabError::Timeout { .. }
        | LabError::NoRecord { .. }
        | LabError::Io { .. }
        | LabError::State { .. }
        | LabError::Leftovers(_) => 1,
    }
}

/// Reads `h2`, `host-2` or `2`.
fn parse_host(text: &str) -> Result<usize, String> {
    let digits = text.strip_prefix("host-").or_else(|| text.strip_prefix('h')).unwrap_or(text);
    digits.parse().map_err(|_| format!("'{text}' is not a host; hosts are h1, h2 …"))
}

/// Prints data; a closed pipe (`| head`) is no error.
fn print_data(text: &str) {
    use std::io::Write;
    let _ = std::io::stdout().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_in_all_their_spellings() {
        assert_eq!(["h2", "host-2", "2"].map(parse_host), [Ok(2), Ok(2), Ok(2)]);
        assert!(parse_host("vm1").is_err());
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }
}
