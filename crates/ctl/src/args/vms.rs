//! `mainstay vm ...`: what is asked and ordered about one VM.

use super::{AskArgs, span, values};
use crate::exit::Failure;
use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use mainstay_api::order::{Order, Setting, VmOrder};
use mainstay_core::Span;
use mainstay_core::register::{IsolationResponse, Priority};
use mainstay_core::settings::{READY_TIMEOUT, Readiness, ReadyWhen};
use std::time::Duration;

/// `mainstay vm ...`
#[derive(Debug, Subcommand)]
pub enum VmCommand {
    /// List the VMs
    List {
        /// Only VMs of this host (name or id; it need not be up)
        #[arg(id = "of", long = "host", value_name = "HOST")]
        host: Option<String>,
    },
    /// Show all that is known and set about a VM
    Show {
        /// Which agent to ask.
        #[command(flatten)]
        ask: AskArgs,
        /// The VM, by name or UUID
        #[arg(value_name = "VM")]
        name: String,
    },
    /// Those that are orders.
    #[command(flatten)]
    Order(VmOrderCommand),
}

/// The subcommands of `mainstay vm` that are orders.
#[derive(Debug, Subcommand)]
pub enum VmOrderCommand {
    /// Protect a VM: it is restarted elsewhere when its host fails
    Protect(VmArgs),
    /// Take a VM out of protection: it is watched, but never restarted
    Unprotect(VmArgs),
    /// Set a VM's isolation response: what is done with it when its host is isolated
    Set(VmSetArgs),
    /// Set a VM's restart priority
    Priority(VmPriorityArgs),
    /// Set when a VM counts as ready: VMs of a lower priority, and groups that wait for its group, start after that
    Ready(VmReadyArgs),
}

impl VmCommand {
    /// Which agent to ask.
    pub fn ask(&self) -> Option<&AskArgs> {
        match self {
            VmCommand::List { .. } => None,
            VmCommand::Show { ask, .. } => Some(ask),
            VmCommand::Order(
                VmOrderCommand::Protect(VmArgs { ask, .. })
                | VmOrderCommand::Unprotect(VmArgs { ask, .. })
                | VmOrderCommand::Set(VmSetArgs { ask, .. })
                | VmOrderCommand::Priority(VmPriorityArgs { ask, .. })
                | VmOrderCommand::Ready(VmReadyArgs { ask, .. }),
            ) => Some(ask),
        }
    }
}

impl VmOrderCommand {
    /// What the API is asked to do. Fails when the arguments do not fit each other.
    pub fn order(&self) -> Result<Order, Failure> {
        let (vm, order) = match self {
            VmOrderCommand::Protect(args) => (&args.name, VmOrder::Protect),
            VmOrderCommand::Unprotect(args) => (&args.name, VmOrder::Unprotect),
            VmOrderCommand::Set(args) => (
                &args.name,
                VmOrder::SetIsolation {
                    response: args.isolation_response.unwrap_or_default(),
                    shutdown_timeout: args.shutdown_timeout.unwrap_or_default(),
                },
            ),
            VmOrderCommand::Priority(args) => (&args.name, VmOrder::SetPriority(args.priority.into())),
            VmOrderCommand::Ready(args) => (&args.name, VmOrder::SetReadiness(args.readiness()?)),
        };
        Ok(Order::Vm { vm: vm.clone(), order })
    }
}

/// Arguments of `mainstay vm protect` and `mainstay vm unprotect`.
#[derive(Debug, Args)]
pub struct VmArgs {
    /// Which agent to ask.
    #[command(flatten)]
    pub ask: AskArgs,
    /// The VM, by name or UUID
    #[arg(value_name = "VM")]
    pub name: String,
}

/// Arguments of `mainstay vm set`. What is not given stays.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("setting").required(true).multiple(true).args(["isolation_response", "shutdown_timeout"])))]
pub struct VmSetArgs {
    /// Which agent to ask.
    #[command(flatten)]
    pub ask: AskArgs,
    /// The VM, by name or UUID
    #[arg(value_name = "VM")]
    pub name: String,
    /// What its host does with it when that host is isolated: leave, shutdown, power-off, or default (as the cluster's configuration says)
    #[arg(long, value_name = "RESPONSE", value_parser = Setting::parse_response)]
    pub isolation_response: Option<Setting<IsolationResponse>>,
    /// How many seconds its guest may then take to shut down before it is powered off; or default
    #[arg(long, value_name = "SECONDS", value_parser = Setting::parse_shutdown_timeout)]
    pub shutdown_timeout: Option<Setting<Span>>,
}

/// `mainstay vm priority` on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PriorityArg {
    /// After all others.
    Lowest,
    /// After medium.
    Low,
    /// What most VMs have.
    Medium,
    /// Before those of medium priority.
    High,
    /// First.
    Highest,
    /// Never restarted.
    Disabled,
    /// As its domain XML says.
    Default,
}

impl From<PriorityArg> for Option<Priority> {
    fn from(arg: PriorityArg) -> Option<Priority> {
        match arg {
            PriorityArg::Lowest => Some(Priority::Lowest),
            PriorityArg::Low => Some(Priority::Low),
            PriorityArg::Medium => Some(Priority::Medium),
            PriorityArg::High => Some(Priority::High),
            PriorityArg::Highest => Some(Priority::Highest),
            PriorityArg::Disabled => Some(Priority::Disabled),
            PriorityArg::Default => None,
        }
    }
}

/// Arguments of `mainstay vm priority`.
#[derive(Debug, Args)]
pub struct VmPriorityArgs {
    /// Which agent to ask.
    #[command(flatten)]
    pub ask: AskArgs,
    /// The VM, by name or UUID
    #[arg(value_name = "VM")]
    pub name: String,
    /// The priority: VMs of a higher one are restarted first, and get the room when there is not enough for all
    pub priority: PriorityArg,
}

/// The condition of `mainstay vm ready`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReadyArg {
    /// A host has taken up its start (vSphere: resources allocated).
    Started,
    /// Its hypervisor says that it runs (vSphere: powered on).
    Running,
    /// Its guest agent answers (vSphere: guest heartbeats).
    Agent,
    /// A command in its guest succeeds (vSphere: application heartbeats).
    Command,
    /// It has a host and was started: no condition of its own, and no delay.
    Default,
}

/// Arguments of `mainstay vm ready`.
#[derive(Debug, Args)]
pub struct VmReadyArgs {
    /// Which agent to ask.
    #[command(flatten)]
    pub ask: AskArgs,
    /// The VM, by name or UUID
    #[arg(value_name = "VM")]
    pub name: String,
    /// What has to be true after a restart of the VM, before VMs of a lower priority and groups that wait for its group start
    #[arg(value_name = "WHEN")]
    pub when: ReadyArg,
    /// With WHEN command: the program and its arguments, separated by blanks, that the guest agent runs; exit code 0 is success
    #[arg(long, value_name = "COMMAND", required_if_eq("when", "command"))]
    pub command: Option<String>,
    /// How long after that the VM counts as ready (such as 30s); shorter than --timeout [default: 0s]
    #[arg(long, value_name = "TIME", value_parser = values::length)]
    pub delay: Option<Duration>,
    /// How long the others wait for it at most, counted from its start, --delay included [default: 10m]
    #[arg(long, value_name = "TIME", value_parser = values::some_length)]
    pub timeout: Option<Duration>,
}

impl VmReadyArgs {
    fn readiness(&self) -> Result<Option<Readiness>, Failure> {
        let Some(when) = self.when()? else { return Ok(None) };
        let delay = span(self.delay.unwrap_or_default());
        let timeout = self.timeout.map_or(READY_TIMEOUT, span);
        if delay >= timeout {
            let seconds = |span: Span| span.as_millis() / 1_000;
            return Err(Failure::Usage(format!(
                "a delay of {} s is never over within a time-out of {} s, which counts from the VM's start and includes the \
                 delay: give a shorter --delay or a longer --timeout",
                seconds(delay),
                seconds(timeout)
            )));
        }
        Ok(Some(Readiness { when, command: self.command.as_deref().map(Into::into), delay, timeout }))
    }

    /// The condition, once it is certain that the other arguments fit it; `None`: the default.
    fn when(&self) -> Result<Option<ReadyWhen>, Failure> {
        let wrong = |text: &str| Err(Failure::Usage(text.to_owned()));
        let when = match (self.when, &self.command) {
            (ReadyArg::Command, Some(command)) if command.trim().is_empty() => {
                return wrong(
                    "the command is empty: write what is to be run in the guest, such as --command /bin/true",
                );
            }
            (ReadyArg::Command, Some(_)) => ReadyWhen::CommandSucceeds,
            // The parser refuses it already.
            (ReadyArg::Command, None) => return wrong("ready by command needs --command COMMAND"),
            (ReadyArg::Default, _)
                if self.command.is_some() || self.delay.is_some() || self.timeout.is_some() =>
            {
                return wrong(
                    "default has no command, delay or time-out of its own: say started --delay TIME, for example",
                );
            }
            (ReadyArg::Default, _) => return Ok(None),
            (ReadyArg::Started | ReadyArg::Running | ReadyArg::Agent, Some(_)) => {
                return wrong(
                    "a command counts only when it is the condition: say `vm ready VM command --command COMMAND`",
                );
            }
            (ReadyArg::Started, None) => ReadyWhen::Started,
            (ReadyArg::Running, None) => ReadyWhen::Running,
            (ReadyArg::Agent, None) => ReadyWhen::AgentAnswers,
        };
        Ok(Some(when))
    }
}
