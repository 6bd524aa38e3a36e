//! What an administrator sets beforehand (rules, groups, priorities, admission control), maintenance, suspension, rehearsals.

use super::{AskArgs, values};
use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use std::time::Duration;

/// `mainstay vm priority` on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PriorityArg {
    /// Last.
    Lowest,
    /// After medium.
    Low,
    /// What most VMs have.
    Medium,
    /// Before medium.
    High,
    /// First.
    Highest,
    /// Never restarted.
    Disabled,
    /// As its domain XML says.
    Default,
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
    /// VMs of a higher one are restarted first, and get the room when there is not enough for all
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
    /// Nothing of its own: started, without delay.
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
    /// What has to be so, after a restart of the VM, before VMs of a lower priority and groups that wait for its group start
    #[arg(value_name = "WHEN")]
    pub when: ReadyArg,
    /// With WHEN command: what is run in its guest by the guest agent, words separated by blanks; exit code 0 is success
    #[arg(long, value_name = "COMMAND", required_if_eq("when", "command"))]
    pub command: Option<String>,
    /// It counts as ready only so long after that (such as 30s); shorter than --timeout [default: 0s]
    #[arg(long, value_name = "TIME", value_parser = values::length)]
    pub delay: Option<Duration>,
    /// The others wait no longer than this for it, counted from its start, --delay included [default: 10m]
    #[arg(long, value_name = "TIME", value_parser = values::some_length)]
    pub timeout: Option<Duration>,
}

/// Whether a rule binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StrengthArg {
    /// It is never broken, not even when a VM stays down for it.
    Must,
    /// It is kept where that costs no VM its place.
    Should,
}

/// What a rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RuleKindArg {
    /// The VMs run on these hosts only.
    OnHosts,
    /// The VMs run on none of these hosts.
    NotOnHosts,
    /// No two of the VMs run on one host (anti-affinity).
    Apart,
    /// All of the VMs run on one host (affinity).
    Together,
}

impl RuleKindArg {
    /// Whether such a rule is about hosts.
    pub fn has_hosts(self) -> bool {
        match self {
            RuleKindArg::OnHosts | RuleKindArg::NotOnHosts => true,
            RuleKindArg::Apart | RuleKindArg::Together => false,
        }
    }
}

/// `mainstay rule ...`
#[derive(Debug, Subcommand)]
pub enum RuleCommand {
    /// List the rules
    List {
        /// Which agent to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Set a rule, or set one of that name anew
    Set(RuleSetArgs),
    /// Remove a rule
    Remove {
        /// Which agent to ask.
        #[command(flatten)]
        ask: AskArgs,
        /// Its name
        name: String,
    },
}

/// Arguments of `mainstay rule set`.
#[derive(Debug, Args)]
pub struct RuleSetArgs {
    /// Its name
    pub name: String,
    /// How much it binds
    pub strength: StrengthArg,
    /// What it says of its VMs
    pub kind: RuleKindArg,
    /// A VM, by name or UUID; give it once for each
    #[arg(long = "vm", value_name = "VM", required = true)]
    pub vms: Vec<String>,
    /// With on-hosts and not-on-hosts: a host, by name or id; give it once for each
    #[arg(id = "of", long = "host", value_name = "HOST")]
    pub hosts: Vec<String>,
}

/// `mainstay group ...`
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// List the start groups
    List {
        /// Which agent to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Set a start group, or set one of that name anew
    Set(GroupSetArgs),
    /// Remove a start group
    Remove {
        /// Which agent to ask.
        #[command(flatten)]
        ask: AskArgs,
        /// Its name
        name: String,
    },
}

/// Arguments of `mainstay group set`.
#[derive(Debug, Args)]
pub struct GroupSetArgs {
    /// Which agent to ask.
    #[command(flatten)]
    pub ask: AskArgs,
    /// Its name
    pub name: String,
    /// A VM, by name or UUID; give it once for each
    #[arg(long = "vm", value_name = "VM", required = true)]
    pub vms: Vec<String>,
    /// A group whose VMs must be ready first; give it once for each
    #[arg(long, value_name = "GROUP")]
    pub after: Vec<String>,
}

/// `mainstay admission ...`
#[derive(Debug, Subcommand)]
pub enum AdmissionCommand {
    /// Show the policy, and what it objects to now
    Show {
        /// Which agent to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Choose the policy, and whether what does not pass is refused or done with a warning
    #[command(subcommand, subcommand_value_name = "POLICY", subcommand_help_heading = "Policies")]
    Set(PolicyCommand),
}

/// `mainstay admission set ...`
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// A real restart plan must exist for each choice of N failed hosts (a new cluster has this, with 1)
    Proved {
        /// How many hosts may fail
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        failures: u32,
        /// Warn or refuse.
        #[command(flatten)]
        strict: StrictArgs,
    },
    /// Slots as in vSphere: enough of them must be left when the N largest hosts fail
    HostFailures {
        /// How many hosts may fail
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        failures: u32,
        /// A slot has at most so much CPU, however much a VM reserves (das.slotCpuInMHz)
        #[arg(long, value_name = "MHZ", value_parser = clap::value_parser!(u64).range(1..))]
        slot_cpu: Option<u64>,
        /// A slot has at most so much memory, however much a VM reserves (das.slotMemInMB)
        #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..))]
        slot_memory: Option<u64>,
        /// Warn or refuse.
        #[command(flatten)]
        strict: StrictArgs,
    },
    /// These percentages of the cluster's CPU and memory must stay unreserved
    Percentage {
        /// Percent of the CPU
        #[arg(long, value_name = "P", value_parser = clap::value_parser!(u8).range(0..=100))]
        cpu: u8,
        /// Percent of the memory
        #[arg(long, value_name = "P", value_parser = clap::value_parser!(u8).range(0..=100))]
        memory: u8,
        /// Warn or refuse.
        #[command(flatten)]
        strict: StrictArgs,
    },
    /// The dedicated failover hosts (see `mainstay host failover`) must be kept empty
    FailoverHosts {
        /// Warn or refuse.
        #[command(flatten)]
        strict: StrictArgs,
    },
}

impl PolicyCommand {
    /// What all policies have in common.
    pub fn strict(&self) -> &StrictArgs {
        match self {
            PolicyCommand::Proved { strict, .. }
            | PolicyCommand::HostFailures { strict, .. }
            | PolicyCommand::Percentage { strict, .. }
            | PolicyCommand::FailoverHosts { strict } => strict,
        }
    }
}

/// Whether what does not pass is refused. What is not given stays.
#[derive(Debug, Args)]
pub struct StrictArgs {
    /// Which agent to ask.
    #[command(flatten)]
    pub ask: AskArgs,
    /// Refuse what does not pass; neither this nor --warn: that stays as it is
    #[arg(long, conflicts_with = "warn")]
    pub refuse: bool,
    /// Do it, with a warning
    #[arg(long)]
    pub warn: bool,
}

impl StrictArgs {
    /// The wish, if one was uttered.
    pub fn wish(&self) -> Option<bool> {
        match (self.refuse, self.warn) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        }
    }
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnOff {
    /// On.
    On,
    /// Off.
    Off,
}

/// Arguments of `mainstay host failover`.
#[derive(Debug, Args)]
pub struct FailoverArgs {
    /// Which agent to ask.
    #[command(flatten)]
    pub ask: AskArgs,
    /// The host, by name or id
    #[arg(value_name = "HOST")]
    pub name: String,
    /// On: it is kept empty for failovers; off: it is a host like the others
    #[arg(value_name = "on|off", hide_possible_values = true)]
    pub keep: OnOff,
}

/// Arguments of `mainstay host confirm-down`.
#[derive(Debug, Args)]
pub struct ConfirmDownArgs {
    /// Which agent to ask.
    #[command(flatten)]
    pub ask: AskArgs,
    /// The host, by name or id
    #[arg(value_name = "HOST")]
    pub name: String,
    /// Do not ask; necessary where there is no terminal to ask on
    #[arg(long)]
    pub yes: bool,
}

/// `mainstay host maintenance ...`
#[derive(Debug, Subcommand)]
pub enum MaintenanceCommand {
    /// Empty a host and put nothing on it until it leaves maintenance, also over its reboots
    Enter(EnterArgs),
    /// Let a host take VMs again
    Leave {
        /// Which agent to ask.
        #[command(flatten)]
        ask: AskArgs,
        /// The host, by name or id
        #[arg(value_name = "HOST")]
        name: String,
        /// Migrate the VMs back that were moved away for this maintenance
        #[arg(long)]
        bring_back: bool,
    },
}

/// Arguments of `mainstay host maintenance enter`.
#[derive(Debug, Args)]
pub struct EnterArgs {
    /// Which agent to ask.
    #[command(flatten)]
    pub ask: AskArgs,
    /// The host, by name or id
    #[arg(value_name = "HOST")]
    pub name: String,
    /// Shut its VMs down (they stay off) instead of migrating them live
    #[arg(long)]
    pub shutdown: bool,
    /// Also when admission control, or the room on the other hosts, speaks against it
    #[arg(long)]
    pub force: bool,
    /// Wait until it is empty, and show the progress; Ctrl-C ends only the waiting
    #[arg(long)]
    pub wait: bool,
}

/// Arguments of `mainstay suspend`.
#[derive(Debug, Args)]
pub struct SuspendArgs {
    /// Which agent to ask.
    #[command(flatten)]
    pub ask: AskArgs,
    /// For how long at most (such as 90s, 30m, 2h, 1d)
    #[arg(id = "length", long = "for", value_name = "TIME", value_parser = values::some_length)]
    pub length: Duration,
    /// Do not wait until failovers in progress are completed and every host goes by it
    #[arg(long)]
    pub no_wait: bool,
}

/// A host that is to lose its storage, or one datastore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageCut {
    /// The host, by name or id.
    pub host: String,
    /// The datastore; `None`: all.
    pub datastore: Option<String>,
}

/// Arguments of `mainstay rehearse`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("faults").multiple(true).args(["fail", "isolate", "cut_storage"]).conflicts_with("of")))]
pub struct RehearseArgs {
    /// Show the plan for the failure of this host in full (name or id)
    #[arg(id = "of", long = "host", value_name = "HOST")]
    pub host: Option<String>,
    /// Play on a simulated copy of the cluster: this host loses its power; give it once for each
    #[arg(long, value_name = "HOST")]
    pub fail: Vec<String>,
    /// Play: this host loses the management networks, its storage goes on; give it once for each
    #[arg(long, value_name = "HOST")]
    pub isolate: Vec<String>,
    /// Play: this host loses all its datastores, or that one; give it once for each
    #[arg(long, value_name = "HOST[:DATASTORE]", value_parser = values::storage_cut)]
    pub cut_storage: Vec<StorageCut>,
}

impl RehearseArgs {
    /// Whether faults are to be played.
    pub fn plays(&self) -> bool {
        !(self.fail.is_empty() && self.isolate.is_empty() && self.cut_storage.is_empty())
    }
}
