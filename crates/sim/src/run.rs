//! One seed, and a batch of seeds: a safety phase with faults, then everything is healed but hosts that stay dead, then a
//! liveness phase with a bound.

use crate::action::Action;
use crate::checkers::liveness;
use crate::generator::stories::Story;
use crate::generator::{Plan, Shape, plan, plan_of_one_fault, plan_of_story};
use crate::node::{GuardFactory, NodeFactory, real_core};
use crate::sometimes::Sometimes;
use crate::world::World;
use mainstay_core::HostId;
use mainstay_guard_core::Guard;
use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const SECOND: u64 = 1_000_000;

/// How a seed is run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Keep a text trace.
    pub trace: bool,
    /// What runs on the hosts.
    pub node: NodeFactory,
    /// What guards them.
    pub guard: GuardFactory,
    /// What of the clusters is given and not drawn.
    pub shape: Shape,
    /// The story that every seed tells; drawn in a share of the seeds when left out.
    pub story: Option<Story>,
    /// How long after the healing everything must be well, in virtual seconds.
    pub liveness_bound: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            trace: false,
            node: real_core,
            guard: Guard::new,
            shape: Shape::default(),
            story: None,
            liveness_bound: 300,
        }
    }
}

/// What came out of a seed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed that the run was drawn from; the same seed gives the same run.
    pub seed: u64,
    /// The hash of all that happened.
    pub hash: u64,
    /// Whether all promises held.
    pub verdict: Result<(), Failure>,
    /// What was seen.
    pub seen: Sometimes,
    /// How much virtual time it took, in microseconds.
    pub virtual_time: u64,
    /// The text trace, when asked for.
    pub trace: Vec<String>,
}

/// A broken promise, and how to see it again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}\n  at {at} us of virtual time; see it again with: {paste}")]
pub struct Failure {
    /// What is wrong.
    pub what: String,
    /// When, in virtual microseconds.
    pub at: u64,
    /// A line to paste into a shell.
    pub paste: String,
}

/// Runs one seed.
pub fn run_seed(seed: u64, options: &Options) -> Outcome {
    let plan = match options.story {
        Some(story) => plan_of_story(seed, &options.shape, story),
        None => plan(seed, &options.shape),
    };
    run_plan(seed, plan, options)
}

/// Runs one seed in the mode for I6: exactly one fault, and no VM may stop, be frozen or be moved for it.
pub fn run_one_fault(seed: u64, options: &Options) -> Outcome {
    let plan = plan_of_one_fault(seed, &options.shape);
    let faults = format!("{:?}", plan.schedule.first());
    let pause = Pause::of(&plan);
    let mut world = World::new(plan.setup, seed, options.node, options.trace);
    world.guards_are(options.guard);
    for (at, action) in &plan.schedule {
        world.schedule(*at, action.clone());
    }
    world.run_until(plan.faults_end);
    let mut what = world.violation().map(ToString::to_string).or_else(|| live(&mut world, options));
    let vms = 0..world.setup().vms.len();
    let interrupted: Vec<String> = vms
        .filter(|vm| world.last_change(*vm) > 0 && !pause.explains(&world, *vm))
        .map(|vm| format!("{} at {} us", world.setup().vms[vm].name, world.last_change(vm)))
        .collect();
    if what.is_none() && !interrupted.is_empty() {
        what = Some(format!("one fault interrupted {}: {faults}", interrupted.join(", ")));
    }
    let at = world.now();
    let paste = format!("mainstay sim run --one-fault --seed {seed}{} --trace", flags(&options.shape));
    let verdict =
        what.map_or(Ok(()), |what| Err(Failure { what: format!("seed {seed}: {what}"), at, paste }));
    let (seen, hash) = (world.seen().clone(), world.trace().hash());
    Outcome { seed, hash, verdict, seen, virtual_time: at, trace: world.into_trace().into_lines() }
}

/// A host that stands still takes its own VMs with it, until the instant at which it goes on.
struct Pause(Option<(HostId, u64)>);

impl Pause {
    fn of(plan: &Plan) -> Pause {
        Pause(plan.schedule.iter().find_map(|(at, action)| {
            if let Action::HostResume { host } = action { Some((host.clone(), *at)) } else { None }
        }))
    }

    fn explains(&self, world: &World, vm: usize) -> bool {
        self.0.as_ref().is_some_and(|(host, until)| {
            let host = world.setup().host(host);
            world.last_change(vm) == *until && world.executing(vm).next() == host && host.is_some()
        })
    }
}

fn run_plan(seed: u64, plan: Plan, options: &Options) -> Outcome {
    let mut world = World::new(plan.setup, seed, options.node, options.trace);
    world.guards_are(options.guard);
    world.watch(plan.story.map_or(&[], Story::extras));
    for (at, action) in plan.schedule.iter().filter(|(at, _)| *at < plan.faults_end) {
        world.schedule(*at, action.clone());
    }
    world.run_until(plan.faults_end);
    let mut what = world.violation().map(ToString::to_string);
    if what.is_none() {
        what = live(&mut world, options);
    }
    let at = world.now();
    let verdict = match what {
        None => Ok(()),
        Some(what) => Err(Failure { what: format!("seed {seed}: {what}"), at, paste: paste(seed, options) }),
    };
    let (seen, hash) = (world.seen().clone(), world.trace().hash());
    Outcome { seed, hash, verdict, seen, virtual_time: at, trace: world.into_trace().into_lines() }
}

/// The line that shows a seed again.
fn paste(seed: u64, options: &Options) -> String {
    let story = options.story.map(|story| format!(" --story {story}")).unwrap_or_default();
    format!("mainstay sim run --seed {seed}{story}{} --trace", flags(&options.shape))
}

/// The flags of `mainstay sim` for that shape.
fn flags(shape: &Shape) -> String {
    let numbers = [("hosts", shape.hosts), ("datastores", shape.datastores), ("vms", shape.vms)];
    let numbers = numbers.into_iter().filter_map(|(flag, value)| Some(format!(" --{flag} {}", value?)));
    let seconds = |span: mainstay_core::Span| span.0 as f64 / SECOND as f64;
    let timing = shape.timing.map(|timing| {
        let [heartbeat, lease, failure] =
            [timing.heartbeat, timing.lease, timing.failure_timeout].map(seconds);
        format!(" --timing {heartbeat},{lease},{failure}")
    });
    numbers.chain(timing).collect()
}

/// The longest wait between two rounds of tries, and some time for the try.
const RETRIED_WITHIN: u64 = 1_900 * SECOND;

/// Heals, and waits until all is well; says what is not, when the bound is over.
fn live(world: &mut World, options: &Options) -> Option<String> {
    world.heal();
    let hosts = world.setup().hosts.len();
    if (0..hosts).all(|host| !world.powered(host)) {
        let host = world.setup().hosts[0].id.clone();
        world.schedule(world.now(), Action::PowerOn { host });
    }
    let end = world.now() + options.liveness_bound * SECOND;
    loop {
        world.run_until(world.now() + SECOND);
        if let Some(violation) = world.violation() {
            return Some(violation.to_string());
        }
        let stuck = liveness::stuck(world);
        if stuck.is_empty() {
            return None;
        }
        // R75: what could be started nowhere is tried again within half an hour.
        let retried = world.now() < end + RETRIED_WITHIN && liveness::only_retries_left(world);
        if world.now() >= end && !retried {
            return Some(format!(
                "liveness: {} s after everything was healed:\n    {}\n{}",
                options.liveness_bound,
                stuck.join("\n    "),
                owners_views(world)
            ));
        }
    }
}

/// What those believe who own something, or all when nobody does.
fn owners_views(world: &World) -> String {
    let mut text = String::new();
    for host in 0..world.setup().hosts.len() {
        let id = &world.setup().hosts[host].id;
        let Some(view) = world.view(host) else {
            text.push_str(&format!("    {id}: no agent (power {})\n", world.powered(host)));
            continue;
        };
        let owns = view.datastores.iter().any(|store| store.ownership_left.is_some());
        if owns {
            text.push_str(&format!("    {id} is {:?} and owner; its view of VMs:\n", view.role));
            for vm in &view.vms {
                text.push_str(&format!(
                    "      {} {:?} on {:?}, protected {}, note {:?}\n",
                    vm.name, vm.state, vm.host, vm.protected, vm.note
                ));
            }
            for seen in &view.hosts {
                text.push_str(&format!("      sees {} {} for {}\n", seen.host, seen.state, seen.since));
            }
        } else {
            text.push_str(&format!("    {id} is {:?}, owns nothing\n", view.role));
        }
    }
    text
}

/// What came out of a batch of seeds.
#[derive(Clone, Debug, Default)]
pub struct Soak {
    /// How many seeds were run.
    pub seeds: u64,
    /// Those that failed, by seed.
    pub failures: Vec<(u64, Failure)>,
    /// What was seen, over all.
    pub seen: Sometimes,
    /// All hashes in one; their order does not matter.
    pub hash: u64,
    /// Virtual time of all, in microseconds.
    pub virtual_time: u64,
}

impl Soak {
    fn add(&mut self, outcome: Outcome) {
        self.seeds += 1;
        self.seen.add(&outcome.seen);
        self.hash = self.hash.wrapping_add(outcome.hash ^ outcome.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        self.virtual_time += outcome.virtual_time;
        if let Err(failure) = outcome.verdict {
            self.failures.push((outcome.seed, failure));
        }
    }
}

impl fmt::Display for Soak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} seeds, {} failed, {} s of virtual time, hash {:016x}",
            self.seeds,
            self.failures.len(),
            self.virtual_time / SECOND,
            self.hash
        )?;
        f.write_str(&self.seen.table())
    }
}

/// Runs a batch of seeds on so many threads. The result does not depend on their number.
pub fn soak(seeds: Range<u64>, threads: usize, options: &Options) -> Soak {
    soak_watched(seeds, threads, options, &|_, _| Go::On)
}

/// Whether a batch goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Go {
    /// With the next seeds.
    On,
    /// No further seed is begun; those that run are finished.
    NoFurther,
}

/// Runs a batch of seeds; after each, `watch` is shown all so far and that seed's failure, if it failed.
pub fn soak_watched(
    seeds: Range<u64>,
    threads: usize,
    options: &Options,
    watch: &(dyn Fn(&Soak, Option<&Failure>) -> Go + Sync),
) -> Soak {
    let next = AtomicU64::new(seeds.start);
    let stop = AtomicBool::new(false);
    let done = Mutex::new(Soak::default());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let outcome = run_seed_guarded(seed, options);
                    let failure = outcome.verdict.as_ref().err().cloned();
                    // Poisoned by a panic of `watch`: the scope passes that on.
                    let Ok(mut done) = done.lock() else { return };
                    done.add(outcome);
                    if watch(&done, failure.as_ref()) == Go::NoFurther {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let mut soak = done.into_inner().unwrap_or_default();
    soak.failures.sort_by_key(|(seed, _)| *seed);
    soak
}

/// The core asserts its invariants also in release. In a batch, a broken one is a finding about that seed and not the end of
/// all others.
fn run_seed_guarded(seed: u64, options: &Options) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| run_seed(seed, options))).unwrap_or_else(|payload| {
        let said = payload.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no text");
        let what = format!("seed {seed}: an assertion of the core failed: {said}");
        let failure = Failure { what, at: 0, paste: paste(seed, options) };
        let (seen, trace) = (Sometimes::default(), Vec::new());
        Outcome { seed, hash: 0, verdict: Err(failure), seen, virtual_time: 0, trace }
    })
}
