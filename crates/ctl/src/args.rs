//! The command line: its words, its help, and what counts as wrong usage.
//!
//! Why `--host` is not a global option: after `vm list`, `events`, `rehearse` and `rule set` it says *whose* VMs, events and plan
//! are meant, which must work for a host that is down. Before the subcommand it always says which agent is asked.

mod admission;
mod hosts;
mod protection;
mod rules;
mod simulating;
mod values;
mod vms;
mod wrong;

use crate::clock::Zone;
use crate::exit::EXIT_CODES_HELP;
use crate::style::ColourChoice;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use mainstay_core::{Severity, Span};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

pub use admission::AdmissionCommand;
pub use hosts::{ConfirmDownArgs, EnterArgs, HostCommand, MaintenanceCommand};
pub use protection::{RehearseArgs, SuspendArgs};
pub use rules::{GroupCommand, RuleCommand};
pub use simulating::{Moment, ReplayArgs, SimCommand, SimRunArgs, SimSoakArgs};
pub use vms::VmCommand;
pub use wrong::parse_or_exit;

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

/// All subcommands of `mainstay`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run this host's agent, until SIGTERM or Ctrl-C; this is what the service does
    Agent {
        /// The agent's configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Only check the configuration, and end
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
    /// Answer libvirt's hook script (/etc/libvirt/hooks/qemu): may this VM start here? Reads its XML from stdin
    ///
    /// Exits with 1 only when the cluster refuses the start; when nobody answers, or what is asked is not understood, the VM
    /// may start. Only in the first 5 minutes after a boot a VM that is known to be protected waits for the agent.
    Hook {
        /// Where the agent keeps its state: `state_dir` in agent.toml
        #[arg(long, value_name = "DIR", env = "MAINSTAY_STATE_DIR", default_value = "/var/lib/mainstay")]
        state_dir: PathBuf,

        /// What libvirt calls the script with: VM, operation, sub-operation, extra argument
        #[arg(value_name = "ARGUMENT", trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Print completions for a shell
    Completions {
        /// The shell that reads them
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
    /// Rules about where VMs may run: affinity, anti-affinity, VMs and hosts
    #[command(subcommand)]
    Rule(RuleCommand),
    /// Restart order: groups of VMs that start after other groups
    #[command(subcommand)]
    Group(GroupCommand),
    /// Admission control: whether enough capacity is kept for failures
    #[command(subcommand)]
    Admission(AdmissionCommand),
    /// Show what would become of the VMs if a host failed: the plan at hand for each, or faults played on a simulated copy
    Rehearse(RehearseArgs),
    /// Suspend protection for planned work: no restart, no isolation response, no freeze (vSphere: host monitoring off)
    Suspend(SuspendArgs),
    /// End a suspension of protection
    Resume {
        /// Which agent to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Show what happened, on all hosts, oldest first
    Events(EventsArgs),
}

impl ClusterCommand {
    /// The host that `--host` behind the subcommand asks, where it has that meaning.
    pub fn asked_host(&self) -> Option<&str> {
        let ask = match self {
            ClusterCommand::Status(StatusArgs { ask, .. })
            | ClusterCommand::Datastore(DatastoreCommand::List { ask })
            | ClusterCommand::Suspend(SuspendArgs { ask, .. })
            | ClusterCommand::Resume { ask } => ask,
            ClusterCommand::Host(command) => command.ask(),
            ClusterCommand::Vm(command) => command.ask()?,
            ClusterCommand::Rule(command) => command.ask()?,
            ClusterCommand::Group(command) => command.ask(),
            ClusterCommand::Admission(command) => command.ask(),
            ClusterCommand::Rehearse(_)
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
            ClusterCommand::Host(_)
            | ClusterCommand::Vm(_)
            | ClusterCommand::Datastore(_)
            | ClusterCommand::Rule(_)
            | ClusterCommand::Group(_)
            | ClusterCommand::Admission(_)
            | ClusterCommand::Rehearse(_)
            | ClusterCommand::Suspend(_)
            | ClusterCommand::Resume { .. } => false,
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

/// Arguments of `mainstay events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Go on printing events as they happen, until Ctrl-C
    #[arg(long, short)]
    pub follow: bool,
    /// Only events of the last ... (such as 90s, 10m, 2h, 1d)
    #[arg(long, value_name = "AGE", value_parser = values::age)]
    pub since: Option<Duration>,
    /// Only events about this VM (name or UUID); the VM need not exist any more
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
    /// Everything, the protocol at work included.
    Info,
    /// Warnings and alarms.
    Warning,
    /// Only what a person must act on.
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

/// A length of time as orders have it. One beyond all bounds is refused by whoever reads the order.
fn span(length: Duration) -> Span {
    Span(u64::try_from(length.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::vms::VmOrderCommand;
    use super::*;
    use clap::CommandFactory;
    use mainstay_api::order::Setting;
    use mainstay_core::register::IsolationResponse;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_vm_is_set_in_one_way_at_least_and_only_to_what_is_possible() {
        let set = |line: &str| {
            let line = format!("mainstay vm set web {line}");
            let cli = Cli::try_parse_from(line.split_whitespace()).ok()?;
            let Command::Cluster(ClusterCommand::Vm(VmCommand::Order(VmOrderCommand::Set(set)))) =
                cli.command
            else {
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
