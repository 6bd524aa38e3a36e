//! `mainstay rule ...` and `mainstay group ...`: where VMs may run, and which start after which.

use super::AskArgs;
use crate::exit::Failure;
use clap::{Args, Subcommand, ValueEnum};
use mainstay_api::order::{GroupOrder, Order, RuleOrder};
use mainstay_api::words::Word;
use mainstay_core::settings::{RuleKind, Strength};

/// `mainstay rule ...`
#[derive(Debug, Subcommand)]
pub enum RuleCommand {
    /// List the rules
    List {
        /// Which agent to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Set a rule; one of that name is replaced
    Set(RuleSetArgs),
    /// Remove a rule
    Remove {
        /// Which agent to ask.
        #[command(flatten)]
        ask: AskArgs,
        /// The rule, by its name
        name: String,
    },
}

impl RuleCommand {
    /// Which agent to ask.
    pub fn ask(&self) -> Option<&AskArgs> {
        match self {
            RuleCommand::List { ask } | RuleCommand::Remove { ask, .. } => Some(ask),
            RuleCommand::Set(_) => None,
        }
    }

    /// The order; `None`: it only asks.
    pub fn order(&self) -> Result<Option<Order>, Failure> {
        let (name, order) = match self {
            RuleCommand::List { .. } => return Ok(None),
            RuleCommand::Set(args) => (args.name.as_str(), args.order()?),
            RuleCommand::Remove { name, .. } => (name.as_str(), RuleOrder::Remove),
        };
        Ok(Some(Order::Rule { name: name.into(), order }))
    }
}

/// Arguments of `mainstay rule set`.
#[derive(Debug, Args)]
pub struct RuleSetArgs {
    /// What the rule is to be called
    pub name: String,
    /// How much the rule binds
    pub strength: StrengthArg,
    /// What the rule says of its VMs
    pub kind: RuleKindArg,
    /// A VM, by name or UUID; give it once for each
    #[arg(long = "vm", value_name = "VM", required = true)]
    pub vms: Vec<String>,
    /// With on-hosts and not-on-hosts: a host, by name or id; give it once for each
    #[arg(id = "of", long = "host", value_name = "HOST")]
    pub hosts: Vec<String>,
}

impl RuleSetArgs {
    fn order(&self) -> Result<RuleOrder, Failure> {
        let kind = RuleKind::from(self.kind);
        let word = kind.word();
        if self.kind.has_hosts() && self.hosts.is_empty() {
            return Err(Failure::Usage(format!("a rule {word} needs hosts: add --host HOST, once for each")));
        }
        if !self.kind.has_hosts() && !self.hosts.is_empty() {
            return Err(Failure::Usage(format!(
                "a rule {word} is about VMs only: leave out --host, or make it on-hosts or not-on-hosts"
            )));
        }
        if !self.kind.has_hosts() && self.vms.len() < 2 {
            return Err(Failure::Usage(format!("a rule {word} needs two VMs at least: add another --vm VM")));
        }
        let (vms, hosts) = (self.vms.clone(), self.hosts.clone());
        Ok(RuleOrder::Set { strength: self.strength.into(), kind, vms, hosts })
    }
}

/// Whether a rule binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StrengthArg {
    /// It is never broken, not even when a VM stays down for it.
    Must,
    /// It is kept where that costs no VM its place.
    Should,
}

impl From<StrengthArg> for Strength {
    fn from(arg: StrengthArg) -> Strength {
        match arg {
            StrengthArg::Must => Strength::Must,
            StrengthArg::Should => Strength::Should,
        }
    }
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

impl From<RuleKindArg> for RuleKind {
    fn from(arg: RuleKindArg) -> RuleKind {
        match arg {
            RuleKindArg::OnHosts => RuleKind::OnHosts,
            RuleKindArg::NotOnHosts => RuleKind::NotOnHosts,
            RuleKindArg::Apart => RuleKind::Apart,
            RuleKindArg::Together => RuleKind::Together,
        }
    }
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
    /// Set a start group; one of that name is replaced
    Set(GroupSetArgs),
    /// Remove a start group
    Remove {
        /// Which agent to ask.
        #[command(flatten)]
        ask: AskArgs,
        /// The group, by its name
        name: String,
    },
}

impl GroupCommand {
    /// Which agent to ask.
    pub fn ask(&self) -> &AskArgs {
        match self {
            GroupCommand::List { ask }
            | GroupCommand::Set(GroupSetArgs { ask, .. })
            | GroupCommand::Remove { ask, .. } => ask,
        }
    }

    /// The order; `None`: it only asks.
    pub fn order(&self) -> Option<Order> {
        let (name, order) = match self {
            GroupCommand::List { .. } => return None,
            GroupCommand::Set(GroupSetArgs { name, vms, after, .. }) => {
                let waits_for = after.iter().map(|group| group.as_str().into()).collect();
                (name, GroupOrder::Set { vms: vms.clone(), waits_for })
            }
            GroupCommand::Remove { name, .. } => (name, GroupOrder::Remove),
        };
        Some(Order::Group { name: name.as_str().into(), order })
    }
}

/// Arguments of `mainstay group set`.
#[derive(Debug, Args)]
pub struct GroupSetArgs {
    /// Which agent to ask.
    #[command(flatten)]
    pub ask: AskArgs,
    /// What the group is to be called
    pub name: String,
    /// A VM, by name or UUID; give it once for each
    #[arg(long = "vm", value_name = "VM", required = true)]
    pub vms: Vec<String>,
    /// A group whose VMs must be ready before those of this group start; give it once for each
    #[arg(long, value_name = "GROUP")]
    pub after: Vec<String>,
}
