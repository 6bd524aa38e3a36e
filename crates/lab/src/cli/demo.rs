//! `demo`: the main job, shown. A host loses power; its VMs run again elsewhere; the lab checks it from outside.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use mainstay_api::EventRecord;
use mainstay_lab::{Lab, LabConfig, LabError};
use mainstay_words::Event;
use mainstay_words::timing::Timing;

use super::drill::follow::Follow;
use super::drill::scene::{self, Victim};
use super::drill::truth::{Fate, News, Watch};
use super::drill::{unix_us, with_host_names};
use super::table::Table;
use super::{ending, print_data};

/// More VMs than this on the dead host, and the steps between the decision and the result are left out.
const VMS_TOLD_IN_FULL: usize = 6;
/// For the wait for the VMs to come back, beside the failure time-out.
const RETURN_PATIENCE: Duration = Duration::from_secs(60);
/// For each step of setting the scene.
const SCENE_PATIENCE: Duration = Duration::from_secs(30);
/// How often the truth is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// How many hosts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=32))]
    hosts: u8,
    /// How many VMs
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u8).range(1..=100))]
    vms: u8,
    /// Which host loses power: busiest, primary, secondary or a host (h2)
    #[arg(long, default_value = "busiest", value_parser = Victim::parse)]
    fail: Victim,
    /// The agents' timing preset: standard, swift or patient
    #[arg(long, default_value = "standard")]
    timing: String,
    /// Leave the lab standing afterwards, to play with
    #[arg(long)]
    keep: bool,
}

/// Prints a line.
fn say(line: &str) {
    print_data(&format!("{line}\n"));
}

/// Runs `demo`. Succeeds if all VMs of the lost host run again.
pub fn demo(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let Some(timing) = Timing::preset(&args.timing) else {
        return Err(
            LabError::Config(format!("timing '{}': use standard, swift or patient", args.timing)).into()
        );
    };
    if let Victim::Host(host) = args.fail
        && !(1..=usize::from(args.hosts)).contains(&host)
    {
        return Err(LabError::NoSuchHost { host, hosts: args.hosts.into() }.into());
    }
    introduce(args);
    let missing = Lab::check_prerequisites();
    if !missing.is_empty() {
        return Err(LabError::Prerequisites(missing).into());
    }
    ending::note_signals()?;
    let config = LabConfig {
        hosts: args.hosts.into(),
        timing: args.timing.clone(),
        start_agents: true,
        keep: args.keep,
        ..LabConfig::default()
    };
    let (lab, start) = scene::bring_up(&config, config.lock_wait, false)?;
    let outcome = show(&lab, args, timing, start);
    finish(lab, args, outcome, start)
}

fn introduce(args: &DemoArgs) {
    let victim = match args.fail {
        Victim::Busiest => "the one that carries most VMs".to_string(),
        Victim::Primary => "the primary, which carries most VMs".into(),
        Victim::Secondary => "one that is not primary".into(),
        Victim::Host(host) => format!("h{host}"),
    };
    say(&format!(
        "This brings up {} hosts on this machine (namespaces, each with its own libvirtd, QEMU and Mainstay agent), a shared\n\
         GlusterFS datastore and {} small VMs. Then it cuts the power of one host: {victim}.\n\
         It shows what the agents see and decide, checks from outside that the VMs run elsewhere, and removes everything.\n\
         It needs root, about {} MB of memory and half a minute. Nothing outside the lab is touched. Ctrl-C ends it.\n",
        args.hosts,
        args.vms,
        // Measured: a host takes about 75 MB (libvirtd, agent, GlusterFS client), a VM 45 MB.
        75 * u32::from(args.hosts) + 45 * u32::from(args.vms) + 50
    ));
}

/// Takes everything down, and says where to look if it failed.
fn finish(
    lab: Lab,
    args: &DemoArgs,
    outcome: anyhow::Result<bool>,
    start: Instant,
) -> anyhow::Result<ExitCode> {
    let ended = outcome.as_ref().is_err_and(|e| e.is::<ending::Ended>()) || ending::is_ending();
    let good = matches!(outcome, Ok(true));
    let mut dir = lab.dir().to_path_buf();
    if args.keep && !ended {
        drop(lab);
        say("\nThe lab stands. Try `mainstay --host h1 status`; `mainstay-lab down` removes it.");
    } else {
        let kept = dir.with_file_name("demo-failed");
        lab.down_with_files((!good && !ended).then_some(&kept))?;
        say(&format!("\nEverything is removed again ({:.0} s in all).", start.elapsed().as_secs_f64()));
        dir = kept;
    }
    if ended {
        return Err(ending::Ended.into());
    }
    if !good {
        eprintln!(
            "mainstay-lab: the demo failed. The agents' logs: {0}/h*/agent.log, the guards' {0}/h*/guard.log; libvirt's: {0}/h*/log/",
            dir.display()
        );
    }
    Ok(if outcome? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Sets the scene, cuts the power and tells what happens; whether all came out well.
fn show(lab: &Lab, args: &DemoArgs, timing: Timing, start: Instant) -> anyhow::Result<bool> {
    let step = |text: &str| say(&format!("{:6.1} s  {text}", start.elapsed().as_secs_f64()));
    let hosts = lab.config().hosts;
    step(&format!("{hosts} hosts are on, their agents run"));
    let primary = scene::await_primary(lab, SCENE_PATIENCE)?;
    step(&format!("h{primary} is elected primary"));
    let victim = args.fail.host(primary, hosts);
    scene::add_vms(lab, &scene::layout(args.vms.into(), hosts, victim))?;
    step(&format!("{} VMs are started", args.vms));
    scene::await_protected(lab, SCENE_PATIENCE)?;
    step("all VMs are protected\n");
    let asked = if victim == 1 { 2 } else { 1 };
    show_status(asked)?;

    let mut watch = Watch::begin(lab, victim)?;
    let survivors = lab.hosts().into_iter().filter(|h| h.number() != victim);
    let follow = Follow::begin(survivors.map(|h| (h.id(), scene::socket(&h))).collect());
    // For the narrators to be connected, and for the eye.
    ending::pause(Duration::from_secs(1))?;
    let carried = watch.fates().len();
    let role = if victim == primary { "primary" } else { "secondary" };
    say(&format!("\n>>> h{victim} ({role}, {carried} VMs) loses power\n"));
    let (crash_us, crash) = (unix_us(), Instant::now());
    lab.host(victim)?.power_off()?;
    let limit = Duration::from_millis(timing.failure_timeout.as_millis()) + RETURN_PATIENCE;
    let mut told = Narration { follow, crash_us, carried, waiting: Vec::new() };
    narrate(&mut watch, &mut told, crash, limit)?;
    drop(told);
    say("");
    show_status(asked)?;
    conclude(&watch, victim)
}

/// Lines come from several hosts, each a moment late; one is told when none older than it is likely to come.
const SETTLED: f64 = 0.25;

/// What the agents say and what is seen from outside, told in the order in which it happened.
struct Narration {
    follow: Follow,
    crash_us: u64,
    carried: usize,
    /// Seconds since the power loss, who, what.
    waiting: Vec<(f64, String, String)>,
}

impl Narration {
    fn see(&mut self, seconds: f64, text: String) {
        self.waiting.push((seconds, "lab".into(), text));
    }

    /// Tells what is settled.
    fn tell(&mut self) {
        for record in self.follow.news() {
            if is_worth_telling(&record, self.carried) {
                let seconds = record.at_unix_us as f64 / 1e6 - self.crash_us as f64 / 1e6;
                let who = with_host_names(record.host.as_str());
                self.waiting.push((seconds, who, with_host_names(&record.text)));
            }
        }
        self.waiting.sort_by(|a, b| a.0.total_cmp(&b.0));
        let now = unix_us() as f64 / 1e6 - self.crash_us as f64 / 1e6;
        let settled = self.waiting.partition_point(|line| line.0 + SETTLED <= now);
        for (seconds, who, text) in self.waiting.drain(..settled) {
            say(&format!("{seconds:>+7.2} s  {who:<4} {text}"));
        }
    }
}

/// Tells what happens until all VMs run again or patience ends, and what the agents say a moment later.
fn narrate(
    watch: &mut Watch<'_>,
    told: &mut Narration,
    crash: Instant,
    limit: Duration,
) -> anyhow::Result<()> {
    while !watch.is_done() && crash.elapsed() < limit {
        ending::pause(LOOK)?;
        for news in watch.look(crash.elapsed())? {
            told.see(
                crash.elapsed().as_secs_f64(),
                match news {
                    News::Process(vm, host) => format!("seen from outside: QEMU runs {vm} on h{host}"),
                    News::Beat(vm, host) => format!("seen from outside: {vm}'s guest is up on h{host}"),
                },
            );
        }
        told.tell();
    }
    let end = Instant::now();
    while end.elapsed() < Duration::from_millis(1200) {
        ending::pause(Duration::from_millis(100))?;
        told.tell();
    }
    Ok(())
}

/// With many VMs, only decisions and results are told. That a VM runs again says that it is protected again.
fn is_worth_telling(record: &EventRecord, carried: usize) -> bool {
    match record.event {
        Some(Event::VmProtected { .. }) => false,
        Some(
            Event::TakeoverIntended { .. }
            | Event::VmClaimed { .. }
            | Event::VmStarted { .. }
            | Event::DefinitionDropped { .. },
        ) => carried <= VMS_TOLD_IN_FULL,
        Some(_) | None => true,
    }
}

/// Shows the status as a user would.
fn show_status(host: usize) -> anyhow::Result<()> {
    let exe = std::env::current_exe().context("find this program's directory")?;
    let program = exe.parent().unwrap_or(Path::new("")).join("mainstay");
    say(&format!("$ mainstay --host h{host} status"));
    let output = Command::new(&program)
        .args(["--host", &format!("h{host}"), "status"])
        .output()
        .with_context(|| format!("run {} (build it with `make build`)", program.display()))?;
    print_data(&String::from_utf8_lossy(&output.stdout));
    if !output.status.success() {
        bail!("{} status failed: {}", program.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn seconds(length: Option<Duration>) -> String {
    length.map_or("-".into(), |l| format!("{:.2} s", l.as_secs_f64()))
}

/// The table and the verdict.
fn conclude(watch: &Watch<'_>, victim: usize) -> anyhow::Result<bool> {
    let mut table = Table::new(&["VM", "FROM", "TO", "QEMU RUNS AFTER", "GUEST BEATS AFTER"]);
    for Fate { vm, from, to, process, beat, .. } in watch.fates() {
        let to = to.map_or("-".into(), |h| format!("h{h}"));
        table.row([vm.clone(), format!("h{from}"), to, seconds(*process), seconds(*beat)]);
    }
    say(&format!("\n{}", table.text()));
    let faults = watch.faults()?;
    if faults.is_empty() {
        let last = watch.fates().iter().filter_map(|f| f.beat).max();
        say(&format!(
            "All {} VMs of h{victim} run again, each on exactly one other host and booted exactly once; the last one's guest was up\n\
             {} after the power loss. The VMs of the other hosts did not notice.",
            watch.fates().len(),
            seconds(last)
        ));
        return Ok(true);
    }
    say("Not as promised:");
    for fault in faults {
        say(&format!("  - {fault}"));
    }
    Ok(false)
}
