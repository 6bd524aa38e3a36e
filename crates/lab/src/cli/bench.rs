//! `bench`: how long a failover takes, and what the agents use at rest.
//!
//! Each run is a fresh lab: three hosts, ten VMs, one power loss at a random moment between two heartbeats. Times are taken from
//! outside (QEMU processes, guests' records) and from the agents' events, which all carry this machine's one clock. Between
//! runs the lab is gone, so that others that wait for their turn get it.

mod figures;
mod footprint;
mod report;

use std::hash::{BuildHasher, Hasher};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use mainstay_lab::{DatastoreConfig, Lab, LabConfig, LabError};
use mainstay_words::timing::Timing;
use serde::Serialize;

use super::drill::scene::{self, Victim};
use super::drill::truth::Watch;
use super::drill::unix_us;
use super::{ending, print_data};
use figures::{Failover, Phase};
use footprint::Rest;
use report::Form;

const HOSTS: usize = 3;
const VMS: usize = 10;
/// For another lab to go: whole test runs may come first.
const TURN_PATIENCE: Duration = Duration::from_secs(1800);
const SCENE_PATIENCE: Duration = Duration::from_secs(30);
/// For the VMs to come back.
const RETURN_PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);
/// Between labs: longer than others that wait need to notice.
const BREATH: Duration = Duration::from_millis(500);

/// Arguments of `bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Power losses for each timing and each kind of lost host
    #[arg(long, default_value_t = 10)]
    runs: usize,
    /// The agents' timing presets, each measured on its own: standard, swift, patient
    #[arg(long, value_delimiter = ',', default_value = "standard,swift")]
    timing: Vec<String>,
    /// Which host loses power
    #[arg(long, value_delimiter = ',', default_value = "secondary,primary")]
    fail: Vec<Role>,
    /// The same on a GlusterFS datastore, which keeps a dead host's image locks for about 5 s: this many runs each.
    /// A third of --runs if not given
    #[arg(long)]
    gluster_runs: Option<usize>,
    /// How many seconds agents at rest are watched; 0 leaves it out
    #[arg(long, default_value_t = 60)]
    rest: u64,
    /// Write all observations to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Print the tables as Markdown
    #[arg(long)]
    markdown: bool,
}

/// Which host loses power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// One that is not primary.
    Secondary,
    /// The host that is primary when the power goes.
    Primary,
}

/// The datastore's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// A shared directory: a killed QEMU's lock is free at once.
    Local,
    /// GlusterFS: a dead client's lock is kept until the server's keepalive ends.
    Gluster,
}

/// All runs of one kind.
#[derive(Debug, Clone, Serialize)]
pub struct Series {
    timing: String,
    role: Role,
    storage: Storage,
    /// Runs that were asked for.
    runs: usize,
    /// Those that were made, failed ones included.
    done: usize,
    #[serde(flatten)]
    sum: Failover,
    failures: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Result {
    hosts: usize,
    vms: usize,
    failovers: Vec<Series>,
    rest_seconds: u64,
    rest: Vec<(String, Vec<Rest>)>,
}

/// Runs `bench`. Succeeds if every VM ran again in every run.
pub fn bench(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    if let Some(unknown) = args.timing.iter().find(|name| Timing::preset(name).is_none()) {
        return Err(LabError::Config(format!("timing '{unknown}': use standard, swift or patient")).into());
    }
    let missing = Lab::check_prerequisites();
    if !missing.is_empty() {
        return Err(LabError::Prerequisites(missing).into());
    }
    ending::note_signals()?;
    let mut result = Result {
        hosts: HOSTS,
        vms: VMS,
        failovers: all_series(args),
        rest_seconds: args.rest,
        rest: Vec::new(),
    };
    let measured = measure(args, &mut result);
    result.failovers.retain(|series| series.done > 0);
    let form = if args.markdown { Form::Markdown } else { Form::Text };
    if !result.failovers.is_empty() {
        print_data(&report::failovers(form, &result.failovers));
    }
    if !result.rest.is_empty() {
        print_data(&report::footprint(form, &result.rest, args.rest));
    }
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&result)?;
        std::fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    }
    measured?;
    let good = result.failovers.iter().all(|s| s.failures.is_empty());
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is to be measured.
fn all_series(args: &BenchArgs) -> Vec<Series> {
    let gluster_runs = args.gluster_runs.unwrap_or(args.runs.div_ceil(3));
    let mut all = Vec::new();
    for (storage, runs) in [(Storage::Local, args.runs), (Storage::Gluster, gluster_runs)] {
        for timing in &args.timing {
            for role in &args.fail {
                let (timing, role) = (timing.clone(), *role);
                let (sum, failures) = (Failover::default(), Vec::new());
                all.push(Series { timing, role, storage, runs, done: 0, sum, failures });
            }
        }
    }
    all
}

/// Measures it all. The series take turns, so that what else the machine does falls on all of them; what was measured when a
/// signal comes is in `result`.
fn measure(args: &BenchArgs, result: &mut Result) -> anyhow::Result<()> {
    let most = result.failovers.iter().map(|series| series.runs).max().unwrap_or(0);
    for run in 1..=most {
        for series in result.failovers.iter_mut().filter(|series| run <= series.runs) {
            one_run(series)?;
            ending::pause(BREATH)?;
        }
    }
    for timing in args.timing.iter().filter(|_| args.rest > 0) {
        eprintln!("{timing}: agents at rest …");
        result.rest.push((timing.clone(), at_rest(timing, Duration::from_secs(args.rest))?));
    }
    Ok(())
}

fn config(timing: &str, storage: Storage) -> LabConfig {
    let datastore = match storage {
        Storage::Local => DatastoreConfig::local("ds1"),
        Storage::Gluster => DatastoreConfig::gluster("ds1"),
    };
    LabConfig {
        hosts: HOSTS,
        datastores: vec![datastore],
        timing: timing.into(),
        start_agents: true,
        ..LabConfig::default()
    }
}

/// Brings a lab with protected VMs up, does something with it and takes it down. When that fails, its files are kept.
fn with_lab<T>(
    config: &LabConfig,
    victim: Victim,
    act: impl FnOnce(&Lab, usize) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let (lab, _) = scene::bring_up(config, TURN_PATIENCE, true)?;
    let attempt = || {
        let primary = scene::await_primary(&lab, SCENE_PATIENCE)?;
        let victim = victim.host(primary, HOSTS);
        scene::add_vms(&lab, &scene::layout(VMS, HOSTS, victim))?;
        scene::await_protected(&lab, SCENE_PATIENCE)?;
        act(&lab, victim)
    };
    let outcome = attempt();
    if outcome.is_ok() || ending::is_ending() {
        lab.down_with_files(None)?;
        return outcome;
    }
    let kept = lab.dir().with_file_name(format!("bench-failed-{}", unix_us()));
    lab.down_with_files(Some(&kept))?;
    outcome.with_context(|| format!("logs are in {}", kept.display()))
}

fn at_rest(timing: &str, length: Duration) -> anyhow::Result<Vec<Rest>> {
    with_lab(&config(timing, Storage::Local), Victim::Busiest, |lab, _| {
        // Until the work of starting is done.
        ending::pause(Duration::from_secs(10))?;
        footprint::measure(lab, length)
    })
}

fn one_run(series: &mut Series) -> anyhow::Result<()> {
    let timing = series.timing.clone();
    let act = |lab: &Lab, victim: usize| failover(lab, victim, &timing);
    let outcome = with_lab(&config(&timing, series.storage), victim(series.role), act);
    let run = format!("{series}: run {} of {}", series.done + 1, series.runs);
    match outcome {
        Ok(failover) => {
            let [process, beat] = [Phase::Process, Phase::Beating]
                .map(|phase| failover.spread(phase).map_or(f64::NAN, |s| s.median));
            eprintln!("{run}: QEMU after {process:.2} s, beat after {beat:.2} s");
            series.sum.add(&failover);
        }
        Err(error) if error.is::<ending::Ended>() || ending::is_ending() => return Err(error),
        Err(error) => {
            eprintln!("{run} FAILED: {error:#}");
            series.failures.push(format!("{error:#}"));
        }
    }
    series.done += 1;
    Ok(())
}

fn victim(role: Role) -> Victim {
    match role {
        Role::Secondary => Victim::Secondary,
        Role::Primary => Victim::Primary,
    }
}

/// A random length up to `most`, so that the power loss falls anywhere between two heartbeats.
fn random_up_to(most: Duration) -> Duration {
    // The standard library's hasher is seeded by the system's random numbers.
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    most.mul_f64(random as f64 / u64::MAX as f64)
}

/// One power loss.
fn failover(lab: &Lab, victim: usize, timing: &str) -> anyhow::Result<Failover> {
    let Some(timing) = Timing::preset(timing) else { bail!("no timing preset '{timing}'") };
    let heartbeat = Duration::from_millis(timing.heartbeat.as_millis());
    // What is known of each other is up to date a few heartbeats after the last change.
    ending::pause(heartbeat * 3 + random_up_to(heartbeat * 2))?;
    let mut watch = Watch::begin(lab, victim)?;
    let (crash_us, crash) = (unix_us(), Instant::now());
    lab.host(victim)?.power_off()?;
    let limit = Duration::from_millis(timing.failure_timeout.as_millis()) + RETURN_PATIENCE;
    while !watch.is_done() && crash.elapsed() < limit {
        ending::pause(LOOK)?;
        watch.look(crash.elapsed())?;
    }
    let faults = watch.faults()?;
    if !faults.is_empty() {
        bail!("{}", faults.join("; "));
    }
    let vms: Vec<String> = watch.fates().iter().map(|f| f.vm.clone()).collect();
    let asked = if victim == 1 { 2 } else { 1 };
    let events = scene::events_after(lab, asked, crash_us)?;
    let dead = lab.host(victim)?.id();
    let mut failover = Failover::of_events(&events, &dead.as_str().into(), &vms, crash_us);
    for fate in watch.fates() {
        for (phase, at) in [(Phase::Process, fate.process), (Phase::Beating, fate.beat)] {
            if let Some(at) = at {
                failover.note(phase, at.as_secs_f64());
            }
        }
    }
    Ok(failover)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_lengths_differ_and_stay_within_bounds() {
        let lengths: Vec<Duration> = (0..20).map(|_| random_up_to(Duration::from_secs(1))).collect();
        assert!(lengths.iter().all(|l| *l <= Duration::from_secs(1)));
        assert!(lengths.iter().any(|l| *l != lengths[0]));
    }
}
