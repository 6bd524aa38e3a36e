//! What is simulated, and what is replayed: the commands that need no agent.

use super::values;
use clap::{ArgGroup, Args, Subcommand};
use mainstay_core::{Span, Time};
use mainstay_sim::Story;
use mainstay_sim::scenario::topology::ScenarioTiming;
use std::ops::Range;
use std::path::PathBuf;

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
    /// With --seed: what happens is this story
    #[arg(long, value_name = "NAME", requires = "seed", conflicts_with_all = ["files", "one_fault"])]
    pub story: Option<Story>,
    /// Print everything that happens
    #[arg(long)]
    pub trace: bool,
    /// In place of the scenario's times: standard, swift, patient, or HEARTBEAT,LEASE,FAILURE_TIMEOUT in seconds
    #[arg(long, value_name = "TIMING", value_parser = values::timing)]
    pub timing: Option<ScenarioTiming>,
    /// How many hosts there are: those of the scenario, and others that have no VMs
    #[arg(long, value_name = "N")]
    pub hosts: Option<usize>,
    /// With --seed: how many datastores there are
    #[arg(long, value_name = "N", requires = "seed", conflicts_with = "files")]
    pub datastores: Option<u64>,
    /// With --seed: how many VMs there are
    #[arg(long, value_name = "N", requires = "seed", conflicts_with = "files")]
    pub vms: Option<u64>,
}

/// Arguments of `mainstay sim soak`.
#[derive(Debug, Args)]
pub struct SimSoakArgs {
    /// The seeds from A to B, B not included
    #[arg(long, value_name = "A..B", value_parser = values::seeds)]
    pub seeds: Range<u64>,
    /// How many runs at a time [default: one for each processor]
    #[arg(long, short, value_name = "J", visible_alias = "threads")]
    pub jobs: Option<usize>,
    /// How many hosts each cluster has; drawn when left out
    #[arg(long, value_name = "N")]
    pub hosts: Option<u64>,
    /// How many datastores each cluster has; drawn when left out
    #[arg(long, value_name = "N")]
    pub datastores: Option<u64>,
    /// How many VMs each cluster has; drawn when left out
    #[arg(long, value_name = "N")]
    pub vms: Option<u64>,
    /// The times of each cluster: standard, swift, patient, or HEARTBEAT,LEASE,FAILURE_TIMEOUT in seconds; drawn when left out
    #[arg(long, value_name = "TIMING", value_parser = values::timing)]
    pub timing: Option<ScenarioTiming>,
    /// What happens in every seed is this story; drawn in a share of the seeds when left out
    #[arg(long, value_name = "NAME")]
    pub story: Option<Story>,
    /// Fail when a situation that a batch has to meet was never met: such a batch proves nothing about it
    #[arg(long)]
    pub require_sometimes: bool,
}

/// Arguments of `mainstay replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// A flight-*.rec file, a folder of them, or an agent's state_dir
    pub path: PathBuf,
    /// Show steps from this time: seconds since the host's boot as shown (812.5), or since the first step (+12.5)
    #[arg(long, value_name = "TIME", value_parser = values::moment)]
    pub from: Option<Moment>,
    /// Show steps up to this time, and end there
    #[arg(long, value_name = "TIME", value_parser = values::moment)]
    pub to: Option<Moment>,
    /// Only steps that concern this VM (name or UUID)
    #[arg(long, value_name = "VM")]
    pub vm: Option<String>,
    /// Only steps of this host's own recording, or that concern it (id)
    #[arg(id = "about", long = "host", value_name = "HOST")]
    pub host: Option<String>,
    /// Show routine work too: messages sent, reads, pings, heartbeats
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
