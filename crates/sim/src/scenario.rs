//! Scenarios as data: a topology, actions at times, and what has to be seen. `scenarios/README.md` describes the language.

use crate::action::Action;
use crate::node::NodeFactory;
use crate::setup::{BOOT, DISK, DatastoreSetup, HostSetup, NETWORK, START_DELAY, Setup, VmSetup};
use crate::world::{Told, World};
use mainstay_core::host_liveness::HostState;
use mainstay_core::register::Priority;
use mainstay_core::view::Role;
use mainstay_core::{DatastoreName, HostId, Timing};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

const SECOND: f64 = 1_000_000.0;
/// How often expectations are looked at, in virtual microseconds.
const LOOK: u64 = 100_000;

/// A scenario that can't be run, or that did not go as it says.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The text is no scenario.
    #[error("scenario {name} can't be read: {source}; see crates/sim/scenarios/README.md for the language")]
    Unreadable {
        /// Its name.
        name: String,
        /// What the parser says.
        source: Box<toml::de::Error>,
    },
    /// It names something that its topology does not have.
    #[error("scenario {name} names {what}, which is not in its topology: add it there or correct the name")]
    Unknown {
        /// Its name.
        name: String,
        /// What is not there.
        what: String,
    },
    /// A checker found a broken promise.
    #[error("scenario {name}: {what} at {at} us")]
    Violated {
        /// Its name.
        name: String,
        /// Which.
        what: String,
        /// When, in virtual microseconds.
        at: u64,
    },
    /// Expectations were not met.
    #[error("scenario {name}: not as expected:\n  {}", .unmet.join("\n  "))]
    Unmet {
        /// Its name.
        name: String,
        /// Which, and why.
        unmet: Vec<String>,
    },
}

/// A scenario.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it is about, for people.
    pub about: String,
    /// The hosts' ids.
    pub hosts: Vec<HostId>,
    /// The datastores' names.
    #[serde(default = "one_datastore")]
    pub datastores: Vec<DatastoreName>,
    /// The preset of times.
    #[serde(default = "standard")]
    pub timing: String,
    /// The seed of latencies.
    #[serde(default)]
    pub seed: u64,
    /// How long the storage keeps the image locks of a crashed host, in seconds.
    #[serde(default)]
    pub lock_release: f64,
    /// Whether QEMU locks images. Without it, only the protocol keeps a second copy away.
    #[serde(default = "yes")]
    pub image_lock: bool,
    /// Run it many times, with other latencies and with some steps shifted: for what depends on an instant.
    pub sweep: Option<Sweep>,
    /// The VMs.
    pub vm: Vec<ScenarioVm>,
    /// What is done.
    #[serde(default)]
    pub step: Vec<Step>,
    /// What has to be seen.
    pub expect: Vec<Expect>,
}

/// A VM of a scenario.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScenarioVm {
    /// Its name.
    pub name: String,
    /// Where it runs at first.
    pub host: HostId,
    /// Its home; the first datastore when left out.
    pub datastore: Option<DatastoreName>,
    /// It has no definition that outlives its run.
    #[serde(default)]
    pub transient: bool,
    /// Its restart priority.
    pub priority: Option<String>,
}

/// Variants of a scenario: each seed of the latencies with each shift. All must go as the scenario says.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sweep {
    /// How many seeds, from 0.
    pub seeds: u64,
    /// The largest shift, in seconds; the smallest is 0.
    pub until: f64,
    /// The difference between two shifts, in seconds.
    pub every: f64,
}

impl Sweep {
    fn shifts(&self) -> impl Iterator<Item = f64> + '_ {
        let steps = if self.every > 0.0 { (self.until / self.every) as u32 } else { 0 };
        (0..=steps).map(|step| f64::from(step) * self.every)
    }
}

/// Something done at an instant.
#[derive(Clone, Debug, Deserialize)]
pub struct Step {
    /// When, in seconds.
    pub at: f64,
    /// Whether a sweep shifts it.
    #[serde(default)]
    pub shifts: bool,
    /// What.
    #[serde(flatten)]
    pub action: Action,
}

/// Something that has to be seen from `after` on, within `within` seconds (or, for "never" and "always", throughout them).
#[derive(Clone, Debug, Deserialize)]
pub struct Expect {
    /// From when, in seconds.
    #[serde(default)]
    pub after: f64,
    /// For how long.
    pub within: f64,
    /// What.
    #[serde(flatten)]
    pub that: That,
}

/// The kinds of expectations.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "that", rename_all = "snake_case", deny_unknown_fields)]
pub enum That {
    /// At some instant, `seen_by` (or the primary that is not `host`) sees `host` in that state.
    HostState {
        /// The host.
        host: HostId,
        /// The state.
        state: HostState,
        /// In whose view.
        seen_by: Option<HostId>,
    },
    /// At no instant does anybody see `host` in that state.
    HostStateNever {
        /// The host.
        host: HostId,
        /// The state.
        state: HostState,
    },
    /// At some instant, the VM executes: on that host, or anywhere but on that one, or anywhere.
    VmRuns {
        /// The VM.
        vm: String,
        /// Here.
        on: Option<HostId>,
        /// Anywhere but here.
        not_on: Option<HostId>,
    },
    /// Throughout, the VM executes nowhere.
    VmStaysOff {
        /// The VM.
        vm: String,
    },
    /// Throughout, the VM executes, without a change.
    VmUninterrupted {
        /// The VM.
        vm: String,
    },
    /// At some instant, so many hosts at least are primary at once.
    Primaries {
        /// How many.
        at_least: usize,
    },
    /// At some instant, that host is the only primary.
    PrimaryIs {
        /// Which.
        host: HostId,
    },
    /// An event of that kind with these fields is told (by that host).
    Event {
        /// Its kind.
        kind: String,
        /// Fields that must be equal; a VM is given by its name.
        #[serde(default)]
        fields: BTreeMap<String, serde_json::Value>,
        /// By whom.
        by: Option<HostId>,
    },
    /// No such event is told.
    NoEvent {
        /// Its kind.
        kind: String,
        /// Fields that must be equal; a VM is given by its name.
        #[serde(default)]
        fields: BTreeMap<String, serde_json::Value>,
    },
}

fn yes() -> bool {
    true
}

fn one_datastore() -> Vec<DatastoreName> {
    vec![DatastoreName::new("ds1")]
}

fn standard() -> String {
    String::from("standard")
}

impl Scenario {
    /// Reads a scenario from its text.
    pub fn parse(name: &str, text: &str) -> Result<Scenario, ScenarioError> {
        toml::from_str(text)
            .map_err(|source| ScenarioError::Unreadable { name: name.into(), source: Box::new(source) })
    }

    fn setup(&self, name: &str) -> Result<Setup, ScenarioError> {
        let unknown = |what: &str| ScenarioError::Unknown { name: name.into(), what: what.into() };
        let timing = Timing::preset(&self.timing).ok_or_else(|| unknown(&self.timing))?;
        let mut vms = Vec::new();
        for vm in &self.vm {
            let host = self.hosts.iter().position(|host| *host == vm.host);
            let datastore = match &vm.datastore {
                None => Some(0),
                Some(wanted) => self.datastores.iter().position(|store| store == wanted),
            };
            let priority = vm.priority.as_deref().map_or(Some(Priority::Medium), Priority::parse);
            vms.push(VmSetup {
                name: Arc::from(vm.name.as_str()),
                host: host.ok_or_else(|| unknown(vm.host.as_str()))?,
                datastore: datastore.ok_or_else(|| unknown(&format!("the datastore of {}", vm.name)))?,
                transient: vm.transient,
                priority: priority.ok_or_else(|| unknown(&format!("the priority of {}", vm.name)))?,
                memory_mib: 512,
            });
        }
        let lock_release = (self.lock_release * SECOND) as u64;
        let host = |(index, id): (usize, &HostId)| HostSetup {
            id: id.clone(),
            clock_base: 1_000_000_000 * (index as u64 + 1),
            drift_ppm: 100 * index as i64,
            agent_starts: 10_000 * index as u64,
        };
        let store = |name: &DatastoreName| DatastoreSetup { name: name.clone(), lock_release };
        Ok(Setup {
            hosts: self.hosts.iter().enumerate().map(host).collect(),
            datastores: self.datastores.iter().map(store).collect(),
            vms,
            timing,
            disk: DISK,
            network: NETWORK,
            loss_permille: 0,
            duplicate_permille: 0,
            start_delay: START_DELAY,
            start_failure_permille: 0,
            image_lock: self.image_lock,
            boot: BOOT,
        })
    }

    /// Refuses names that the topology does not have: a misspelt host would make an expectation vacuous.
    fn check_names(&self, name: &str, setup: &Setup) -> Result<(), ScenarioError> {
        let steps = self.step.iter().map(|step| serde_json::to_value(&step.action));
        let expects = self.expect.iter().map(|expect| serde_json::to_value(&expect.that));
        for value in steps.chain(expects).flatten() {
            for (key, value) in value.as_object().into_iter().flatten() {
                let Some(text) = value.as_str() else { continue };
                let known = match key.as_str() {
                    "host" | "from" | "to" | "seen_by" | "on" | "not_on" | "by" => {
                        setup.host(&HostId::new(text)).is_some()
                    }
                    "datastore" => setup.datastore(&DatastoreName::new(text)).is_some(),
                    "vm" => setup.vm(text).is_some(),
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

/// Runs a scenario, or all its variants up to the first that fails; the text trace (of the last one) comes back when `trace` is
/// set, whatever the result.
pub fn run_scenario(
    name: &str,
    scenario: &Scenario,
    node: NodeFactory,
    trace: bool,
) -> (Result<(), ScenarioError>, Vec<String>) {
    let Some(sweep) = &scenario.sweep else {
        return run_variant(name, scenario, (scenario.seed, 0.0), node, trace);
    };
    let mut last = (Ok(()), Vec::new());
    for seed in 0..sweep.seeds {
        for shift in sweep.shifts() {
            let variant = format!("{name} (seed {seed}, shifted by {shift:.3} s)");
            last = run_variant(&variant, scenario, (seed, shift), node, trace);
            if last.0.is_err() {
                return last;
            }
        }
    }
    last
}

fn run_variant(
    name: &str,
    scenario: &Scenario,
    (seed, shift): (u64, f64),
    node: NodeFactory,
    trace: bool,
) -> (Result<(), ScenarioError>, Vec<String>) {
    let setup =
        match scenario.setup(name).and_then(|setup| scenario.check_names(name, &setup).map(|()| setup)) {
            Ok(setup) => setup,
            Err(error) => return (Err(error), Vec::new()),
        };
    let mut world = World::new(setup, seed, node, trace);
    for step in &scenario.step {
        let at = if step.shifts { step.at + shift } else { step.at };
        world.schedule((at * SECOND) as u64, step.action.clone());
    }
    let mut watched: Vec<Watched> = scenario.expect.iter().map(Watched::new).collect();
    let end = watched.iter().map(|watched| watched.to).max().unwrap_or(0);
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

/// An expectation while the world runs.
struct Watched<'a> {
    that: &'a That,
    from: u64,
    to: u64,
    met: bool,
    broken: Option<u64>,
}

impl<'a> Watched<'a> {
    fn new(expect: &'a Expect) -> Watched<'a> {
        let from = (expect.after * SECOND) as u64;
        let to = from + (expect.within * SECOND) as u64;
        Watched { that: &expect.that, from, to, met: false, broken: None }
    }

    fn look(&mut self, world: &World) {
        let now = world.now();
        if now < self.from || now > self.to {
            return;
        }
        let holds = match self.that {
            That::HostState { host, state, seen_by } => views(world).any(|view| {
                let asked = match seen_by {
                    Some(by) => view.host == *by,
                    None => view.role == Role::Primary && view.host != *host,
                };
                asked && view.hosts.iter().any(|seen| seen.host == *host && seen.state == *state)
            }),
            That::HostStateNever { host, state } => !views(world)
                .any(|view| view.hosts.iter().any(|seen| seen.host == *host && seen.state == *state)),
            That::VmRuns { vm, on, not_on } => runs(world, vm).iter().any(|host| {
                on.as_ref().is_none_or(|on| on == host) && not_on.as_ref().is_none_or(|not_on| not_on != host)
            }),
            That::VmStaysOff { vm } => runs(world, vm).is_empty(),
            That::VmUninterrupted { vm } => {
                let since = world.setup().vm(vm).map_or(0, |vm| world.last_change(vm));
                runs(world, vm).len() == 1 && since <= self.from
            }
            That::Primaries { at_least } => primaries(world).len() >= *at_least,
            That::PrimaryIs { host } => primaries(world) == [host.clone()],
            That::Event { .. } | That::NoEvent { .. } => return,
        };
        if holds {
            self.met = true;
        } else if self.broken.is_none() {
            self.broken = Some(now);
        }
    }

    /// Why it was not met.
    fn unmet(&self, world: &World) -> Option<String> {
        let window = || format!("from {} s to {} s", self.from as f64 / SECOND, self.to as f64 / SECOND);
        match self.that {
            That::HostState { .. }
            | That::VmRuns { .. }
            | That::Primaries { .. }
            | That::PrimaryIs { .. } => (!self.met).then(|| format!("never, {}: {:?}", window(), self.that)),
            That::HostStateNever { .. } | That::VmStaysOff { .. } | That::VmUninterrupted { .. } => self
                .broken
                .map(|at| format!("broken at {} s, {}: {:?}", at as f64 / SECOND, window(), self.that)),
            That::Event { kind, fields, by } => {
                let told = self.told(world).any(|told| {
                    by.as_ref().is_none_or(|by| world.setup().hosts[told.host].id == *by)
                        && matches(told, kind, fields)
                });
                (!told).then(|| format!("never, {}: {:?}", window(), self.that))
            }
            That::NoEvent { kind, fields } => self
                .told(world)
                .find(|told| matches(told, kind, fields))
                .map(|told| format!("told at {} us: {}, against {:?}", told.at, told.event, self.that)),
        }
    }

    fn told<'w>(&'w self, world: &'w World) -> impl Iterator<Item = &'w Told> {
        world.told().iter().filter(|told| told.at >= self.from && told.at <= self.to)
    }
}

fn views(world: &World) -> impl Iterator<Item = mainstay_core::View> + '_ {
    (0..world.setup().hosts.len()).filter_map(|host| world.view(host))
}

fn primaries(world: &World) -> Vec<HostId> {
    views(world).filter(|view| view.role == Role::Primary).map(|view| view.host).collect()
}

fn runs(world: &World, vm: &str) -> Vec<HostId> {
    let vm = world.setup().vm(vm);
    vm.into_iter()
        .flat_map(|vm| world.executing(vm))
        .map(|host| world.setup().hosts[host].id.clone())
        .collect()
}

/// Whether an event is of that kind and has these fields.
fn matches(told: &Told, kind: &str, fields: &BTreeMap<String, serde_json::Value>) -> bool {
    let Ok(event) = serde_json::to_value(&told.event) else { return false };
    event.get("kind").is_some_and(|is| is == kind)
        && fields.iter().all(|(field, wanted)| {
            event.get(field).is_some_and(|value| value == wanted || value.get("name") == Some(wanted))
        })
}
