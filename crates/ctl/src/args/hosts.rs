//! `mainstay host ...`: hosts for failovers, maintenance, and hosts that are certainly down.

use super::AskArgs;
use clap::{Args, Subcommand, ValueEnum};
use mainstay_api::order::{HostOrder, Order};
use mainstay_core::settings::Evacuation;

/// `mainstay host ...`
#[derive(Debug, Subcommand)]
pub enum HostCommand {
    /// List the hosts: state as the primary judges it, role, capacity
    List {
        /// Which agent to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Dedicate a host to failovers, or not any more: VMs are put on it only when another host has failed
    ///
    /// VMs that run there already are left there.
    Failover(FailoverArgs),
    /// Maintenance mode: empty a host for work on it, and let it take VMs again
    #[command(subcommand)]
    Maintenance(MaintenanceCommand),
    /// Confirm that a silent host is down, so that its VMs may be restarted elsewhere
    ///
    /// Make sure of it first: if the host is not down, its VMs then run twice, and two copies that write to one disk destroy it.
    ConfirmDown(ConfirmDownArgs),
}

impl HostCommand {
    /// Which agent to ask.
    pub fn ask(&self) -> &AskArgs {
        match self {
            HostCommand::List { ask }
            | HostCommand::Failover(FailoverArgs { ask, .. })
            | HostCommand::ConfirmDown(ConfirmDownArgs { ask, .. })
            | HostCommand::Maintenance(
                MaintenanceCommand::Enter(EnterArgs { ask, .. })
                | MaintenanceCommand::Leave(LeaveArgs { ask, .. }),
            ) => ask,
        }
    }
}

fn about(host: &str, order: HostOrder) -> Order {
    Order::Host { host: host.to_owned(), order }
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnOff {
    /// It is so from now on.
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
    /// on: the host is kept empty for failovers; off: it is a host like the others
    #[arg(value_name = "on|off", hide_possible_values = true)]
    pub keep: OnOff,
}

impl FailoverArgs {
    /// What the API is asked to do.
    pub fn order(&self) -> Order {
        about(&self.name, HostOrder::Failover { keep: self.keep == OnOff::On })
    }
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
    /// Do not ask for confirmation; necessary where there is no terminal
    #[arg(long)]
    pub yes: bool,
}

impl ConfirmDownArgs {
    /// What the API is asked to do.
    pub fn order(&self) -> Order {
        about(&self.name, HostOrder::ConfirmDown)
    }
}

/// `mainstay host maintenance ...`
#[derive(Debug, Subcommand)]
pub enum MaintenanceCommand {
    /// Empty a host and put nothing on it until it leaves maintenance, also over its reboots
    Enter(EnterArgs),
    /// Let a host take VMs again
    Leave(LeaveArgs),
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
    /// Do it even when admission control, or the room on the other hosts, speaks against it
    #[arg(long)]
    pub force: bool,
    /// Wait until the host is empty, and show the progress; Ctrl-C ends only the waiting
    #[arg(long)]
    pub wait: bool,
}

impl EnterArgs {
    /// What the API is asked to do.
    pub fn order(&self) -> Order {
        let how = if self.shutdown { Evacuation::ShutDown } else { Evacuation::Migrate };
        about(&self.name, HostOrder::EnterMaintenance { how, force: self.force })
    }
}

/// Arguments of `mainstay host maintenance leave`.
#[derive(Debug, Args)]
pub struct LeaveArgs {
    /// Which agent to ask.
    #[command(flatten)]
    pub ask: AskArgs,
    /// The host, by name or id
    #[arg(value_name = "HOST")]
    pub name: String,
    /// Migrate the VMs back that were moved away for this maintenance
    #[arg(long)]
    pub bring_back: bool,
}

impl LeaveArgs {
    /// What the API is asked to do.
    pub fn order(&self) -> Order {
        about(&self.name, HostOrder::LeaveMaintenance { bring_back: self.bring_back })
    }
}
