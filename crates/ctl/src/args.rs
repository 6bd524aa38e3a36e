//! The command line: its words, its help, and what counts as wrong usage.
//!
//! Why `--host` is not a global option: after `vm list` and `events` it says *whose* VMs and events are meant, which must
//! work for a host that is down. Before the subcommand it always says which agent is asked.

use crate::clock::Zone;
use crate::exit::EXIT_CODES_HELP;
use crate::style::ColourChoice;
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use mainstay_agent::api::Setting;
use mainstay_core::register::IsolationResponse;
use mainstay_core::{Severity, Span, Time};
use mainstay_sim::scenario::topology::{OwnTiming, ScenarioTiming};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

/// Keeps virtual machines running when the host under them fails, on plain KVM/libvirt hosts that share storage.
#[derive(Debug, Parser)]
#[command(name = "mainstay", version, after_help = EXIT_CODES_HELP, max_term_width = 110)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// Ask the agent of this host (name or id) instead of the local one
    #[arg(long, value_name = "HOST", env = "MAINSTAY_HOST")]
    pub host: Option<String>,

    /// Settings of all commands.
    #[command(flatten)]
    pub global: Global,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Settings of all commands.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Print JSON for programs instead of text for people
    #[arg(long, global = true)]
    pub json: bool,

    /// When to use colour
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: ColourChoice,

    /// The local agent's socket
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "MAINSTAY_SOCKET",
        default_value = "/run/mainstay/agent.sock"
    )]
    pub socket: PathBuf,

    /// A folder with the sockets of several hosts' agents (HOST.sock), as on a machine that plays a whole cluster
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "MAINSTAY_HOST_SOCKETS",
        default_value = "/run/mainstay/hosts",
        hide_short_help = true
    )]
    pub host_sockets: PathBuf,
}

/// Lets `--host` also stand behind the subcommand.
#[derive(Debug, Args)]
pub struct AskArgs {
    /// Ask the agent of this host (name or id) instead of the local one
    #[arg(id = "ask", long = "host", value_name = "HOST")]
    pub host: Option<String>,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run this host's agent, until SIGTERM or Ctrl-C; this is what the service does
    Agent {
        /// Its configuration
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Only check the configuration
        #[arg(long)]
        check: bool,
    },
    /// Those that ask about the cluster.
    #[command(flatten)]
    Cluster(ClusterCommand),
    /// Run the protocol of this build on virtual time, with faults, and check its promises
    #[command(subcommand)]
    Sim(SimCommand),
    /// Run an agent's flight recording through this build's core, and show each step and decision; needs no agent
    Replay(ReplayArgs),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// The subcommands that ask an agent or a datastore.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Show the cluster on one screen: primary, hosts, datastores, VMs, standing alarms
    Status(StatusArgs),
    /// Hosts of the cluster
    #[command(subcommand)]
    Host(HostCommand),
    /// Virtual machines, and whether they are protected
    #[command(subcommand)]
    Vm(VmCommand),
    /// Datastores, and what is on them
    #[command(subcommand)]
    Datastore(DatastoreCommand),
    /// Show what happened, on all hosts, oldest first
    Events(EventsArgs),
}

impl ClusterCommand {
    /// The host that `--host` behind the subcommand asks, where it has that meaning.
    pub fn asked_host(&self) -> Option<&str> {
        let ask = match self {
            ClusterCommand::Status(StatusArgs { ask, .. })
            | ClusterCommand::Host(HostCommand::List { ask })
            | ClusterCommand::Vm(
                VmCommand::Protect { ask, .. }
                | VmCommand::Unprotect { ask, .. }
                | VmCommand::Set(VmSetArgs { ask, .. }),
            )
            | ClusterCommand::Datastore(DatastoreCommand::List { ask }) => ask,
            ClusterCommand::Vm(VmCommand::List { .. })
            | ClusterCommand::Events(_)
            | ClusterCommand::Datastore(DatastoreCommand::Show { .. }) => return None,
        };
        ask.host.as_deref()
    }

    /// The clock to show times in.
    pub fn zone(&self) -> Zone {
        let utc = match self {
            ClusterCommand::Status(args) => args.utc,
            ClusterCommand::Events(args) => args.utc,
            ClusterCommand::Host(_) | ClusterCommand::Vm(_) | ClusterCommand::Datastore(_) => false,
        };
        if utc { Zone::Utc } else { Zone::Local }
    }
}

/// Arguments of `mainstay status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Which agent to ask.
    #[command(flatten)]
    pub ask: AskArgs,
    /// Exit with 4 when an alarm stands, a host is not connected, or there is no primary or no guard
    #[arg(long)]
    pub check: bool,
    /// Show times of day in UTC
    #[arg(long)]
    pub utc: bool,
}

/// `mainstay host ...`
#[derive(Debug, Subcommand)]
pub enum HostCommand {
    /// List the hosts, with the primary's judgement and what they have to offer
    List {
        /// Which agent to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
}

/// `mainstay vm ...`
#[derive(Debug, Subcommand)]
pub enum VmCommand {
    /// List the VMs
    List {
        /// Only VMs of this host (name or id; it need not be up)
        #[arg(id = "of", long = "host", value_name = "HOST")]
        host: Option<String>,
    },
    /// Protect a VM: it is restarted elsewhere when its host fails
    Protect {
        /// Which agent to ask.
        #[command(flatten)]
        ask: AskArgs,
        /// The VM, by name or UUID
        name: String,
    },
    /// Take a VM out of protection: it is watched, but never restarted
    Unprotect {
        /// Which agent to ask.
        #[command(flatten)]
        ask: AskArgs,
        /// The VM, by name or UUID
        name: String,
    },
    /// Set what is done with a VM when its host is isolated
    Set(VmSetArgs),
}

/// Arguments of `mainstay vm set`. What is not given stays.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("setting").required(true).multiple(true).args(["isolation_response", "shutdown_timeout"])))]
pub struct VmSetArgs {
    /// Which agent to ask.
    #[command(flatten)]
    pub ask: AskArgs,
    /// The VM, by name or UUID
    pub name: String,
    /// What an isolated host does with it: leave, shutdown, power-off, or default (as the cluster's configuration says)
    #[arg(long, value_name = "RESPONSE", value_parser = Setting::parse_response)]
    pub isolation_response: Option<Setting<IsolationResponse>>,
    /// How long its guest may then take to shut down until it is powered off: seconds, or default
    #[arg(long, value_name = "SECONDS", value_parser = Setting::parse_shutdown_timeout)]
    pub shutdown_timeout: Option<Setting<Span>>,
}

/// `mainstay datastore ...`
#[derive(Debug, Subcommand)]
pub enum DatastoreCommand {
    /// List the datastores, with their owners
    List {
        /// Which agent to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Show what lies on a datastore, register by register; needs no agent
    Show {
        /// Where the datastore is mounted
        path: PathBuf,
        /// Only this cluster's folder (id or name)
        #[arg(long, value_name = "CLUSTER")]
        cluster: Option<String>,
    },
}

/// `mainstay sim ...`
#[derive(Debug, Subcommand)]
pub enum SimCommand {
    /// Run one seed, or scenarios from files
    Run(SimRunArgs),
    /// Run many seeds; Ctrl-C ends it with what was found so far
    Soak(SimSoakArgs),
}

/// Arguments of `mainstay sim run`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true).multiple(true).args(["files", "seed"])))]
pub struct SimRunArgs {
    /// Scenarios, and folders of scenarios
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Draw cluster and faults from this seed; with FILE, only its latencies
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// With --seed: exactly one fault, and no VM may be stopped, frozen or moved for it
    #[arg(long, requires = "seed", conflicts_with = "files")]
    pub one_fault: bool,
    /// Print everything that happens
    #[arg(long)]
    pub trace: bool,
    /// In place of the scenario's times: standard, swift, patient, or HEARTBEAT,LEASE,FAILURE_TIMEOUT in seconds
    #[arg(long, value_name = "TIMING", value_parser = parse_timing)]
    pub timing: Option<ScenarioTiming>,
    /// With so many hosts: those of the scenario, and others that have no VMs
    #[arg(long, value_name = "N")]
    pub hosts: Option<usize>,
    /// With --seed: so many datastores
    #[arg(long, value_name = "N", requires = "seed", conflicts_with = "files")]
    pub datastores: Option<u64>,
    /// With --seed: so many VMs
    #[arg(long, value_name = "N", requires = "seed", conflicts_with = "files")]
    pub vms: Option<u64>,
}

/// Arguments of `mainstay sim soak`.
#[derive(Debug, Args)]
pub struct SimSoakArgs {
    /// From A up to, but without, B
    #[arg(long, value_name = "A..B", value_parser = parse_seeds)]
    pub seeds: Range<u64>,
    /// How many at a time [default: one for each processor]
    #[arg(long, short, value_name = "J", visible_alias = "threads")]
    pub jobs: Option<usize>,
    /// In clusters of so many hosts, not of any number
    #[arg(long, value_name = "N")]
    pub hosts: Option<u64>,
    /// With so many datastores
    #[arg(long, value_name = "N")]
    pub datastores: Option<u64>,
    /// With so many VMs
    #[arg(long, value_name = "N")]
    pub vms: Option<u64>,
    /// With these times: standard, swift, patient, or HEARTBEAT,LEASE,FAILURE_TIMEOUT in seconds
    #[arg(long, value_name = "TIMING", value_parser = parse_timing)]
    pub timing: Option<ScenarioTiming>,
    /// Fail when something that a batch has to see was never seen: such a batch proves nothing about it
    #[arg(long)]
    pub require_sometimes: bool,
}

/// Arguments of `mainstay replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// A flight-*.rec file, a folder of them, or an agent's state_dir
    pub path: PathBuf,
    /// Show steps from this time: seconds since the host's boot as shown (812.5), or since the first step (+12.5)
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    pub from: Option<Moment>,
    /// Show steps up to this time, and end there
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    pub to: Option<Moment>,
    /// Only steps that concern this VM (name or UUID)
    #[arg(long, value_name = "VM")]
    pub vm: Option<String>,
    /// Only steps of this host's own recording, or that concern it (id)
    #[arg(id = "about", long = "host", value_name = "HOST")]
    pub host: Option<String>,
    /// Show routine effects too: messages sent, reads, pings, heartbeats
    #[arg(long, short)]
    pub verbose: bool,
    /// Show times of day in UTC instead of local time
    #[arg(long)]
    pub utc: bool,
}

/// A moment of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// On the host's own clock.
    Boot(Time),
    /// After the first step of the recording.
    After(Span),
}

/// Arguments of `mainstay events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Go on printing events as they happen, until Ctrl-C
    #[arg(long, short)]
    pub follow: bool,
    /// Only events of the last ... (such as 90s, 10m, 2h, 1d)
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    pub since: Option<Duration>,
    /// Only events about this VM (name or UUID)
    #[arg(long, value_name = "VM")]
    pub vm: Option<String>,
    /// Only events that this host reported or that are about it (name or id)
    #[arg(id = "about", long = "host", value_name = "HOST")]
    pub host: Option<String>,
    /// Only events of at least this severity
    #[arg(long, value_name = "SEVERITY", default_value = "info")]
    pub severity: SeverityArg,
    /// At most this many: the newest ones [default: 200; before --follow: 10]
    #[arg(long, short = 'n', value_name = "N")]
    pub limit: Option<usize>,
    /// Show times in UTC instead of local time
    #[arg(long)]
    pub utc: bool,
}

/// A severity on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SeverityArg {
    /// All.
    Info,
    /// Warnings and alarms.
    Warning,
    /// Alarms.
    Alarm,
}

impl From<SeverityArg> for Severity {
    fn from(arg: SeverityArg) -> Severity {
        match arg {
            SeverityArg::Info => Severity::Info,
            SeverityArg::Warning => Severity::Warning,
            SeverityArg::Alarm => Severity::Alarm,
        }
    }
}

/// Reads `A..B`.
fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let range = text.split_once("..").and_then(|(a, b)| Some(a.trim().parse().ok()?..b.trim().parse().ok()?));
    range.filter(|range: &Range<u64>| !range.is_empty()).ok_or_else(|| {
        format!("'{text}' is no range of seeds; write for example 0..1000 (the last one is not run)")
    })
}

/// Reads the name of a preset, or three times.
fn parse_timing(text: &str) -> Result<ScenarioTiming, String> {
    let timing = if text.contains(',') {
        let times: Result<Vec<f64>, _> = text.split(',').map(|time| time.trim().parse()).collect();
        let Ok([heartbeat, lease, failure_timeout]) = times.as_deref() else {
            return Err(format!(
                "'{text}' is not HEARTBEAT,LEASE,FAILURE_TIMEOUT in seconds, such as 0.5,2,3"
            ));
        };
        let (heartbeat, lease, failure_timeout) = (*heartbeat, *lease, *failure_timeout);
        ScenarioTiming::Own(OwnTiming { heartbeat, lease, failure_timeout })
    } else {
        ScenarioTiming::Preset(text.to_owned())
    };
    timing.times().map(|_| timing)
}

/// Reads `90s`, `10m`, `2h`, `1d`, and sums such as `1h30m`.
fn parse_age(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is not an age; write for example 90s, 10m, 2h, 1d or 1h30m");
    let mut seconds = 0u64;
    let mut number = None::<u64>;
    for c in text.chars() {
        if let Some(digit) = c.to_digit(10) {
            let more = number.unwrap_or(0).checked_mul(10).and_then(|n| n.checked_add(u64::from(digit)));
            number = Some(more.ok_or_else(wrong)?);
            continue;
        }
        let unit = match c {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            _ => return Err(wrong()),
        };
        let part = number.take().and_then(|n| n.checked_mul(unit)).ok_or_else(wrong)?;
        seconds = seconds.checked_add(part).ok_or_else(wrong)?;
    }
    if number.is_some() || text.is_empty() {
        return Err(wrong());
    }
    Ok(Duration::from_secs(seconds))
}

/// Reads `812.5`, `812.5s` and `+12.5`.
fn parse_moment(text: &str) -> Result<Moment, String> {
    let (after, number) = match text.strip_prefix('+') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let number = number.strip_suffix('s').unwrap_or(number);
    let (seconds, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let us = (digits(seconds) && digits(fraction) && fraction.len() <= 6)
        .then(|| {
            let seconds: u64 = seconds.parse().ok()?;
            let fraction: u64 = format!("{fraction:0<6}").parse().ok()?;
            seconds.checked_mul(1_000_000)?.checked_add(fraction)
        })
        .flatten()
        .ok_or_else(|| {
            format!("'{text}' is not a time; write seconds since the host's boot (812.5) or since the first step (+12.5)")
        })?;
    Ok(if after { Moment::After(Span(us)) } else { Moment::Boot(Time(us)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn ages_are_read_in_units_and_sums() {
        let seconds = |text: &str| parse_age(text).map(|age| age.as_secs());
        assert_eq!(seconds("90s"), Ok(90));
        assert_eq!(seconds("1h30m"), Ok(5_400));
        assert_eq!(seconds("2d"), Ok(172_800));
        for wrong in
            ["", "10", "m", "5x", "-5m", "10m5", "99999999999999999999s", "999999999999999999d", "１０m"]
        {
            assert!(parse_age(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn moments_are_boot_times_or_relative() {
        assert_eq!(parse_moment("812.5"), Ok(Moment::Boot(Time(812_500_000))));
        assert_eq!(parse_moment("812.000001s"), Ok(Moment::Boot(Time(812_000_001))));
        assert_eq!(parse_moment("+3"), Ok(Moment::After(Span(3_000_000))));
        for wrong in ["", "+", "1.", ".5", "-1", "1.0000001", "10m", "99999999999999999999"] {
            assert!(parse_moment(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn seeds_are_a_range_that_is_not_empty() {
        assert_eq!(parse_seeds("5..8"), Ok(5..8));
        for wrong in ["5", "8..5", "5..5", "..", "a..b", "-1..5", "0..=5"] {
            assert!(parse_seeds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn timings_are_presets_or_three_times_that_keep_the_inequalities() {
        assert!(parse_timing("swift").is_ok());
        assert!(parse_timing("0.5,2,3").is_ok());
        for wrong in ["fast", "1,3", "1,3,x", "1,3,3", ""] {
            assert!(parse_timing(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_vm_is_set_in_one_way_at_least_and_only_to_what_is_possible() {
        let set = |line: &str| {
            let line = format!("mainstay vm set web {line}");
            let cli = Cli::try_parse_from(line.split_whitespace()).ok()?;
            let Command::Cluster(ClusterCommand::Vm(VmCommand::Set(set))) = cli.command else {
                panic!("vm set")
            };
            Some((set.isolation_response, set.shutdown_timeout))
        };
        let power_off = Setting::To(IsolationResponse::PowerOff);
        assert_eq!(set("--isolation-response power_off"), Some((Some(power_off), None)));
        assert_eq!(
            set("--isolation-response default --shutdown-timeout 120"),
            Some((Some(Setting::ClusterDefault), Some(Setting::To(Span::from_secs(120)))))
        );
        for wrong in ["", "--isolation-response explode", "--shutdown-timeout 0", "--shutdown-timeout 2m"] {
            assert_eq!(set(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn host_before_the_subcommand_is_asked_and_behind_vm_list_it_filters() {
        let cli = Cli::try_parse_from(["mainstay", "--host", "h1", "vm", "list", "--host", "h2"]).unwrap();
        assert_eq!(cli.host.as_deref(), Some("h1"));
        let Command::Cluster(ClusterCommand::Vm(VmCommand::List { host })) = cli.command else {
            panic!("vm list")
        };
        assert_eq!(host.as_deref(), Some("h2"));
        let cli = Cli::try_parse_from(["mainstay", "status", "--host", "h1", "--json"]).unwrap();
        assert!(cli.global.json);
        let Command::Cluster(ClusterCommand::Status(status)) = cli.command else { panic!("status") };
        assert_eq!(status.ask.host.as_deref(), Some("h1"));
    }
}
