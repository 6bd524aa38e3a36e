//! The world as a stateright model.

use crate::setup::Setup;
use crate::world::{Choice, World};
use stateright::{Checker, HasDiscoveries, Model, Path, Property};
use std::time::{Duration, Instant};

/// What must not be violated.
pub const SAFE: &str = "I1, I3 and I4 hold";

/// A cluster that starts in its steady state.
#[derive(Clone, Debug)]
pub struct Cluster {
    start: World,
    /// What must be seen to happen.
    sometimes: Vec<Sometimes>,
}

/// Something that must be reachable within the bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sometimes {
    /// A VM was restarted ([`crate::checks::Happened::restarted`]).
    Restarted,
    /// A frozen VM was thawed ([`crate::checks::Happened::thawed`]).
    Thawed,
    /// An intent was written ([`crate::checks::Happened::intended`]).
    Intended,
    /// An intent was cancelled ([`crate::checks::Happened::cancelled`]).
    Cancelled,
    /// A copy under an earlier grant was removed ([`crate::checks::Happened::copy_removed`]).
    CopyRemoved,
    /// Another host became owner ([`crate::checks::Happened::owner_changed`]).
    OwnerChanged,
    /// An owner noted that the VM's user shut it down ([`crate::checks::Happened::stopped`]).
    Stopped,
}

impl Sometimes {
    /// All of them.
    pub const ALL: [Sometimes; 7] = [
        Sometimes::Restarted,
        Sometimes::Thawed,
        Sometimes::Intended,
        Sometimes::Cancelled,
        Sometimes::CopyRemoved,
        Sometimes::OwnerChanged,
        Sometimes::Stopped,
    ];
}

impl Model for Cluster {
    type State = World;
    type Action = Choice;

    fn init_states(&self) -> Vec<World> {
        vec![self.start.clone()]
    }

    fn actions(&self, state: &World, actions: &mut Vec<Choice>) {
        state.choices(actions);
    }

    fn next_state(&self, last: &World, choice: Choice) -> Option<World> {
        let mut next = last.clone();
        next.take(choice);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Cluster>> {
        let always = Property::always(SAFE, |_, state: &World| state.checks.violation.is_none());
        let sometimes = self.sometimes.iter().map(|what| match what {
            Sometimes::Restarted => {
                Property::sometimes("restarted elsewhere", |_, state: &World| state.checks.happened.restarted)
            }
            Sometimes::Thawed => {
                Property::sometimes("thawed", |_, state: &World| state.checks.happened.thawed)
            }
            Sometimes::Intended => {
                Property::sometimes("take-over intended", |_, state: &World| state.checks.happened.intended)
            }
            Sometimes::Cancelled => {
                Property::sometimes("take-over cancelled", |_, state: &World| state.checks.happened.cancelled)
            }
            Sometimes::CopyRemoved => Property::sometimes("stale copy removed", |_, state: &World| {
                state.checks.happened.copy_removed
            }),
            Sometimes::OwnerChanged => Property::sometimes("ownership changed hands", |_, state: &World| {
                state.checks.happened.owner_changed
            }),
            Sometimes::Stopped => {
                Property::sometimes("user's stop noted", |_, state: &World| state.checks.happened.stopped)
            }
        });
        [always].into_iter().chain(sometimes).collect()
    }
}

/// What an exploration has shown.
#[derive(Clone, Debug)]
pub struct Findings {
    /// Different states that were visited.
    pub states: usize,
    /// States that were come by, again or for the first time.
    pub visits: usize,
    /// The longest run, in choices.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// All that the bounds allow was explored.
    pub complete: bool,
    /// The violation and how it came about, line by line.
    pub violation: Option<Vec<String>>,
    /// What was to be seen and was not.
    pub unseen: Vec<&'static str>,
}

impl std::fmt::Display for Findings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rate = self.visits as f64 / self.took.as_secs_f64().max(1e-3);
        let (states, visits, depth) = (self.states, self.visits, self.depth);
        let took = self.took.as_secs_f64();
        write!(f, "{states} states, {visits} visits, depth {depth}, {took:.1} s, {rate:.0} visits/s")?;
        f.write_str(if self.complete { ", complete" } else { ", NOT complete" })?;
        if !self.unseen.is_empty() {
            write!(f, ", not seen: {}", self.unseen.join(", "))?;
        }
        Ok(())
    }
}

/// How an exploration is run.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// How many threads explore at the same time.
    pub threads: usize,
    /// It ends after so many visits, complete or not.
    pub visits_max: Option<usize>,
    /// Tells how far it has come, that often.
    pub progress: Option<Duration>,
}

/// Explores everything within the setup's bounds, or until a promise is broken.
pub fn explore(setup: Setup, sometimes: &[Sometimes], effort: Effort) -> Result<Findings, String> {
    let began = Instant::now();
    let cluster = Cluster { start: World::steady(setup)?, sometimes: sometimes.to_vec() };
    let failure = HasDiscoveries::AnyOf([SAFE].into());
    let mut builder = cluster.clone().checker().threads(effort.threads).finish_when(failure);
    if let Some(most) = effort.visits_max {
        builder = builder.target_state_count(most);
    }
    let mut checker = builder.spawn_dfs();
    let mut told = Instant::now();
    for handle in checker.handles() {
        while !handle.is_finished() {
            std::thread::sleep(Duration::from_millis(10));
            if effort.progress.is_some_and(|interval| told.elapsed() >= interval) {
                told = Instant::now();
                let (states, visits) = (checker.unique_state_count(), checker.state_count());
                eprintln!("{:>6.0} s  {states} states, {visits} visits", began.elapsed().as_secs_f64());
            }
        }
        handle.join().map_err(|_| String::from("the exploration panicked: see above"))?;
    }
    let discoveries = checker.discoveries();
    let violation = discoveries.get(SAFE).map(|path| retell(&cluster, path));
    let names = cluster.properties();
    let unseen = names.iter().map(|property| property.name).filter(|name| *name != SAFE);
    let unseen = unseen.filter(|name| !discoveries.contains_key(name)).collect();
    Ok(Findings {
        states: checker.unique_state_count(),
        visits: checker.state_count(),
        depth: checker.max_depth(),
        took: began.elapsed(),
        complete: violation.is_none() && effort.visits_max.is_none_or(|most| checker.state_count() < most),
        violation,
        unseen,
    })
}

/// One run, line by line: each fault of the menu that is named happens, or is repaired, as soon as it can after that time.
pub fn tell(setup: Setup, script: &[(Choice, u64)]) -> Result<Vec<String>, String> {
    let mut world = World::steady(setup)?.with_log();
    let mut script = script.iter().peekable();
    loop {
        let mut choices = Vec::new();
        world.choices(&mut choices);
        if choices.is_empty() {
            return Ok(world.log().to_vec());
        }
        let now = world.elapsed();
        match script.next_if(|(choice, at)| now >= *at && choices.contains(choice)) {
            Some((choice, _)) => world.take(*choice),
            None => world.take(Choice::Go),
        }
    }
}

/// Goes the same way once more and writes down what happens.
fn retell(cluster: &Cluster, path: &Path<World, Choice>) -> Vec<String> {
    let mut world = cluster.start.clone().with_log();
    for choice in path.clone().into_actions() {
        world.take(choice);
    }
    let mut story = world.log().to_vec();
    story.push(world.checks.violation.clone().unwrap_or_else(|| "no violation on this way".into()));
    story
}
