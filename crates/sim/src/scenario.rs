//! Scenarios as data: a topology, actions at times, and what has to be seen. `docs/scenarios.md` describes the language.
//!
//! [`topology`] becomes a [`Setup`], [`steps`] (among them what people ask for, [`commands`]) become [`crate::Action`]s, [`expect`] says
//! what is looked for.
//!
//! What it does not do: look at log text. Expectations are about who executes, about typed events, and about typed views.

pub mod commands;
pub mod expect;
pub mod steps;
pub mod topology;

use crate::node::{GuardFactory, NodeFactory};
use crate::setup::Setup;
use crate::world::World;
use expect::{Expect, Watched};
use mainstay_core::register::VmNeeds;
use mainstay_core::settings::HostOffers;
use mainstay_core::{DatastoreName, HostId};
use mainstay_guard_core::Guard;
use serde::Deserialize;
use std::sync::Arc;
use steps::Step;
use toml::{Table, Value};
use topology::{ScenarioTiming, Topology, micros};

/// How often expectations are looked at, in virtual microseconds.
const LOOK: u64 = 100_000;

/// A scenario that can't be run, or that did not go as it says.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The text is no scenario.
    #[error("scenario {name} can't be read: {what}; see docs/scenarios.md for the language")]
    Unreadable {
        /// The scenario's name: its file, without the ending.
        name: String,
        /// What the parser says.
        what: Arc<str>,
    },
    /// It names something that its topology does not have.
    #[error("scenario {name} names {what}, which is not in its topology: add it there or correct the name")]
    Unknown {
        /// The scenario's name: its file, without the ending.
        name: String,
        /// What is not there.
        what: String,
    },
    /// Its times can't be.
    #[error("scenario {name} can't be: {what}")]
    Impossible {
        /// The scenario's name: its file, without the ending.
        name: String,
        /// What can't be.
        what: Arc<str>,
    },
    /// A checker found a broken promise.
    #[error("scenario {name}: {what} at {at} us")]
    Violated {
        /// The scenario's name: its file, without the ending.
        name: String,
        /// The promise that was broken, and how.
        what: String,
        /// When, in virtual microseconds.
        at: u64,
    },
    /// Expectations were not met.
    #[error("scenario {name}: not as expected:\n  {}", .unmet.join("\n  "))]
    Unmet {
        /// The scenario's name: its file, without the ending.
        name: String,
        /// Which, and why.
        unmet: Vec<String>,
    },
    /// It is marked as known to fail, and goes as it says.
    #[error(
        "scenario {name} goes as it says, but is marked as known to fail ({reason}): remove the key `fails` from it"
    )]
    Mended {
        /// The scenario's name: its file, without the ending.
        name: String,
        /// Why it was to fail.
        reason: String,
    },
}

/// A scenario as its file has it: a world, what is done to it, and what has to be so.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What it is about, for people.
    pub about: String,
    /// The rules of docs/internals/protocol.md that it shows, such as `R41`.
    pub rules: Vec<String>,
    /// The seed of latencies.
    pub seed: u64,
    /// Run it many times, with other latencies and with some steps shifted: for what depends on an instant.
    pub sweep: Option<Sweep>,
    /// It is known not to go as it says, for that reason: a fault of the protocol that is still to be mended.
    pub fails: Option<String>,
    /// What does not change.
    pub topology: Topology,
    step: Vec<Table>,
    expect: Vec<Table>,
}

/// The part of the file that is not the topology.
#[derive(Deserialize)]
struct Frame {
    about: String,
    #[serde(default)]
    rules: Vec<String>,
    #[serde(default)]
    seed: u64,
    sweep: Option<Sweep>,
    fails: Option<String>,
    #[serde(default)]
    step: Vec<Table>,
    #[serde(default)]
    expect: Vec<Table>,
}

/// The keys of [`Frame`].
const FRAME: [&str; 7] = ["about", "rules", "seed", "sweep", "fails", "step", "expect"];

/// Variants of a scenario: each seed of the latencies with each shift. All must go as the scenario says.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sweep {
    /// How many seeds, from 0.
    pub seeds: u64,
    /// The largest shift, in seconds; the smallest is 0.
    #[serde(default)]
    pub until: f64,
    /// The difference between two shifts, in seconds.
    #[serde(default)]
    pub every: f64,
}

impl Sweep {
    fn shifts(&self) -> impl Iterator<Item = f64> + '_ {
        let steps = if self.every > 0.0 { (self.until / self.every) as u32 } else { 0 };
        (0..=steps).map(|step| f64::from(step) * self.every)
    }
}

/// What is tried in place of what the file says.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Times in place of the scenario's own.
    pub timing: Option<ScenarioTiming>,
    /// Another seed of latencies; there is no sweep then.
    pub seed: Option<u64>,
    /// So many bystanders.
    pub bystanders: Option<usize>,
}

impl Scenario {
    /// Reads a scenario from its text.
    pub fn parse(name: &str, text: &str) -> Result<Scenario, ScenarioError> {
        let wrong = |error: toml::de::Error| ScenarioError::Unreadable {
            name: name.into(),
            what: Arc::from(error.to_string().trim()),
        };
        let frame: Frame = toml::from_str(text).map_err(wrong)?;
        let mut rest: Table = toml::from_str(text).map_err(wrong)?;
        rest.retain(|key, _| !FRAME.contains(&key));
        let topology = Topology::deserialize(Value::Table(rest)).map_err(wrong)?;
        let Frame { about, rules, seed, sweep, fails, step, expect } = frame;
        if let Some(rule) = rules.iter().find(|rule| !is_rule(rule)) {
            let what =
                Arc::from(format!("`rules` names rules of the protocol, such as \"R41\", not {rule:?}"));
            return Err(ScenarioError::Unreadable { name: name.into(), what });
        }
        let scenario = Scenario { about, rules, seed, sweep, fails, topology, step, expect };
        // What is wrong in it is told now rather than after other files have been run.
        scenario.unfold(name).map(|_| scenario)
    }

    /// Has it run with something else than the file says.
    pub fn change(&mut self, overrides: &Overrides) {
        if let Some(timing) = &overrides.timing {
            self.topology.timing = timing.clone();
        }
        if let Some(bystanders) = overrides.bystanders {
            self.topology.bystanders = bystanders;
        }
        if let Some(seed) = overrides.seed {
            self.seed = seed;
            self.sweep = None;
        }
    }

    fn unfold(&self, name: &str) -> Result<Unfolded, ScenarioError> {
        let setup = self.topology.setup(name)?;
        let no_paths = self.topology.no_paths(name, &setup)?;
        let (offers, needs) = (self.topology.offers(), self.topology.needs());
        let steps = steps::unfold(name, &self.step, &setup)?;
        let expects = expect::unfold(name, &self.expect, &setup)?;
        let unfolded = Unfolded { setup, no_paths, offers, needs, steps, expects };
        if unfolded.expects.is_empty() {
            let what = Arc::from("it has no [[expect]]: say what has to be seen");
            return Err(ScenarioError::Unreadable { name: name.into(), what });
        }
        unfolded.check_names(name).map(|()| unfolded)
    }
}

/// A scenario, ready to be run.
struct Unfolded {
    setup: Setup,
    no_paths: Vec<(usize, usize)>,
    offers: Vec<Option<HostOffers>>,
    needs: Vec<VmNeeds>,
    steps: Vec<Step>,
    expects: Vec<Expect>,
}

impl Unfolded {
    /// Refuses names that the topology does not have: a misspelt host would make an expectation vacuous.
    fn check_names(&self, name: &str) -> Result<(), ScenarioError> {
        let steps = self.steps.iter().map(|step| serde_json::to_value(&step.action));
        let expects = self.expects.iter().map(|expect| serde_json::to_value(&expect.that));
        for value in steps.chain(expects).flatten() {
            for (key, value) in value.as_object().into_iter().flatten() {
                let Some(text) = value.as_str() else { continue };
                let known = match key.as_str() {
                    "host" | "from" | "to" | "seen_by" | "on" | "not_on" | "by" => {
                        self.setup.host(&HostId::new(text)).is_some()
                    }
                    "datastore" => self.setup.datastore(&DatastoreName::new(text)).is_some(),
                    "vm" | "other" => self.setup.vm(text).is_some(),
                    _ => true,
                };
                if !known {
                    return Err(ScenarioError::Unknown { name: name.into(), what: format!("{key} {text}") });
                }
            }
        }
        Ok(())
    }
}

/// Whether a text names a rule of the protocol: an R and a number without leading zeros.
fn is_rule(text: &str) -> bool {
    let digits = text.strip_prefix('R').unwrap_or_default();
    matches!(digits.len(), 1 | 2)
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && !digits.starts_with('0')
}

/// A number of the file, whole or not.
fn number(key: &str, value: &Value) -> Result<f64, String> {
    let found = match value {
        Value::Float(number) => Some(*number),
        Value::Integer(number) => Some(*number as f64),
        Value::String(_) | Value::Boolean(_) | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => None,
    };
    found
        .filter(|number| (0.0..1e9).contains(number))
        .ok_or_else(|| format!("`{key}` is a number that is not negative, not {value}"))
}

/// The words that a tagged enum knows, out of what its reader says to one that it does not know.
fn words_of(read: impl Fn(Value) -> Result<(), toml::de::Error>, tag: &str) -> Vec<String> {
    let mut probe = Table::new();
    probe.insert(tag.into(), Value::String(String::from("?")));
    let said = read(Value::Table(probe)).err().map(|error| error.message().to_owned()).unwrap_or_default();
    said.split('`').skip(3).step_by(2).map(String::from).collect()
}

/// Runs a scenario, or all its variants up to the first that fails; the text trace (of the last one) comes back when `trace` is
/// set, whatever the result.
pub fn run_scenario(
    name: &str,
    scenario: &Scenario,
    node: NodeFactory,
    trace: bool,
) -> (Result<(), ScenarioError>, Vec<String>) {
    run_scenario_on(name, scenario, (node, Guard::new), trace)
}

/// The same with guards of another making.
pub fn run_scenario_on(
    name: &str,
    scenario: &Scenario,
    node: (NodeFactory, GuardFactory),
    trace: bool,
) -> (Result<(), ScenarioError>, Vec<String>) {
    let unfolded = match scenario.unfold(name) {
        Ok(unfolded) => unfolded,
        Err(error) => return (Err(error), Vec::new()),
    };
    let (went, lines) = run_variants(name, scenario, &unfolded, node, trace);
    let verdict = match (&scenario.fails, went) {
        (None, went) => went,
        (Some(reason), Ok(())) => Err(ScenarioError::Mended { name: name.into(), reason: reason.clone() }),
        (Some(_), Err(_)) => Ok(()),
    };
    (verdict, lines)
}

fn run_variants(
    name: &str,
    scenario: &Scenario,
    unfolded: &Unfolded,
    node: (NodeFactory, GuardFactory),
    trace: bool,
) -> (Result<(), ScenarioError>, Vec<String>) {
    let Some(sweep) = &scenario.sweep else {
        return run_variant(name, unfolded, (scenario.seed, 0.0), node, trace);
    };
    let mut last = (Ok(()), Vec::new());
    for seed in 0..sweep.seeds {
        for shift in sweep.shifts() {
            let variant = format!("{name} (seed {seed}, shifted by {shift:.3} s)");
            last = run_variant(&variant, unfolded, (seed, shift), node, trace);
            if last.0.is_err() {
                return last;
            }
        }
    }
    last
}

fn run_variant(
    name: &str,
    unfolded: &Unfolded,
    (seed, shift): (u64, f64),
    (node, guard): (NodeFactory, GuardFactory),
    trace: bool,
) -> (Result<(), ScenarioError>, Vec<String>) {
    let mut world = World::new(unfolded.setup.clone(), seed, node, trace);
    world.guards_are(guard);
    for (store, host) in &unfolded.no_paths {
        world.no_path(*store, *host);
    }
    for (host, offers) in unfolded.offers.iter().enumerate() {
        if let Some(offers) = offers {
            world.offer(host, offers.clone());
        }
    }
    for (vm, needs) in unfolded.needs.iter().enumerate() {
        world.need(vm, needs.clone());
    }
    for step in &unfolded.steps {
        let at = if step.shifts { step.at + micros(shift) } else { step.at };
        world.schedule(at, step.action.clone());
    }
    let mut watched: Vec<Watched> = unfolded.expects.iter().map(Watched::new).collect();
    let end = unfolded.expects.iter().map(|expect| expect.to).max().unwrap_or(0);
    while world.now() < end && world.violation().is_none() {
        world.run_until(world.now() + LOOK);
        for watched in &mut watched {
            watched.look(&world);
        }
    }
    let verdict = match world.violation() {
        Some(violation) => {
            Err(ScenarioError::Violated { name: name.into(), what: violation.to_string(), at: world.now() })
        }
        None => {
            let unmet: Vec<String> = watched.iter().filter_map(|watched| watched.unmet(&world)).collect();
            if unmet.is_empty() { Ok(()) } else { Err(ScenarioError::Unmet { name: name.into(), unmet }) }
        }
    };
    (verdict, world.into_trace().into_lines())
}
