//! `mainstay admission ...`: whether enough capacity is kept for failures.

use super::AskArgs;
use clap::{Args, Subcommand};
use mainstay_api::order::{AdmissionOrder, Order};
use mainstay_core::settings::Policy;

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

impl AdmissionCommand {
    /// Which agent to ask.
    pub fn ask(&self) -> &AskArgs {
        match self {
            AdmissionCommand::Show { ask } => ask,
            AdmissionCommand::Set(policy) => &policy.strict().ask,
        }
    }

    /// The order; `None`: it only asks.
    pub fn order(&self) -> Option<Order> {
        match self {
            AdmissionCommand::Show { .. } => None,
            AdmissionCommand::Set(command) => Some(Order::Admission(AdmissionOrder {
                policy: Some(command.policy()),
                refuse: command.strict().wish(),
            })),
        }
    }
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
    fn policy(&self) -> Policy {
        match *self {
            PolicyCommand::Proved { failures, .. } => Policy::Proved { failures },
            PolicyCommand::HostFailures { failures, slot_cpu, slot_memory, .. } => Policy::HostFailures {
                tolerated: failures,
                slot_cpu_mhz: slot_cpu,
                slot_memory_mib: slot_memory,
            },
            PolicyCommand::Percentage { cpu, memory, .. } => Policy::Percentage { cpu, memory },
            PolicyCommand::FailoverHosts { .. } => Policy::FailoverHosts,
        }
    }

    /// What all policies have in common.
    fn strict(&self) -> &StrictArgs {
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
    fn wish(&self) -> Option<bool> {
        match (self.refuse, self.warn) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        }
    }
}
