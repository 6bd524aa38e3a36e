//! What a scenario has to show: kinds of expectations, and how they are judged while the world runs.

use super::topology::micros;
use super::{ScenarioError, number, steps};
use crate::setup::Setup;
use crate::world::{Told, World};
use mainstay_core::host_liveness::HostState;
use mainstay_core::view::{Role, SuspensionView, VmState};
use mainstay_core::{DatastoreName, Event, HostId, View};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use toml::Table;

const SECOND: f64 = 1_000_000.0;

/// Something that has to be seen from `after` on, within `within` seconds (or, for what has to last, throughout them).
#[derive(Clone, Debug)]
pub struct Expect {
    /// From when, in virtual microseconds.
    pub from: u64,
    /// Until when, in virtual microseconds; that instant included.
    pub to: u64,
    /// What has to be so in that window.
    pub that: That,
}

/// The kinds of expectations.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "that", rename_all = "snake_case", deny_unknown_fields)]
pub enum That {
    /// At some instant, `seen_by` (or a primary that is not `host`) sees `host` in that state.
    HostState {
        /// The host that is judged.
        host: HostId,
        /// The state that it has to be seen in.
        state: HostState,
        /// In whose view.
        seen_by: Option<HostId>,
    },
    /// At no instant does anybody (or `seen_by`) see `host` in that state.
    HostStateNever {
        /// The host that is judged.
        host: HostId,
        /// The state that nobody may see it in.
        state: HostState,
        /// In whose view.
        seen_by: Option<HostId>,
    },
    /// At some instant, a primary (or `seen_by`) sees the VM in that state.
    VmState {
        /// The VM, by its name in the topology.
        vm: String,
        /// The state that has to be shown.
        state: VmState,
        /// In whose view.
        seen_by: Option<HostId>,
    },
    /// At some instant, a primary sees the VM as protected.
    VmProtected {
        /// The VM, by its name in the topology.
        vm: String,
    },
    /// At some instant, the VM executes: on that host, or anywhere but on that one, or anywhere.
    VmRuns {
        /// The VM, by its name in the topology.
        vm: String,
        /// Only on that host; on any when left out.
        on: Option<HostId>,
        /// Anywhere but here.
        not_on: Option<HostId>,
    },
    /// At some instant, a primary says that the VM waits, or is in some way not as it should be, for a reason with these words.
    VmWaits {
        /// The VM, by its name in the topology.
        vm: String,
        /// Words of the reason.
        because: String,
    },
    /// Throughout, no primary says so.
    VmWaitsNever {
        /// The VM, by its name in the topology.
        vm: String,
        /// Words of the reason.
        because: String,
    },
    /// Both VMs are started in the window, and the first start of the one comes before that of the other.
    VmStartsBefore {
        /// The VM that starts first, by its name in the topology.
        vm: String,
        /// The VM that starts later, by its name in the topology.
        other: String,
        /// At least so many seconds before.
        #[serde(default)]
        by_seconds: f64,
    },
    /// Throughout, the VM is started nowhere. (That it is frozen and thawed, or migrates, is no start.)
    VmNotStarted {
        /// The VM, by its name in the topology.
        vm: String,
    },
    /// At some instant, there is no VM on that host, not even a stopped process of one.
    HostEmpty {
        /// The host that has to be without VMs.
        host: HostId,
    },
    /// A person who asked for that (by the word of the step) is answered: done, or refused, with these words.
    Answered {
        /// The word of the step.
        ask: String,
        /// Whether it is done; refused otherwise.
        done: bool,
        /// Words of the answer.
        #[serde(default)]
        says: String,
    },
    /// Throughout, the VM does not execute on that host.
    VmNeverOn {
        /// The VM, by its name in the topology.
        vm: String,
        /// The host on which it must not execute.
        host: HostId,
    },
    /// Throughout, the VM executes nowhere.
    VmStaysOff {
        /// The VM, by its name in the topology.
        vm: String,
    },
    /// Throughout, the VM executes, without a change.
    VmUninterrupted {
        /// The VM, by its name in the topology.
        vm: String,
    },
    /// At some instant, an owner says that protection is suspended, and all hosts that may be up honour it.
    SuspendedEverywhere {},
    /// Throughout, no owner says so.
    SuspendedEverywhereNever {},
    /// At some instant, an owner says that protection is suspended, but that host does not honour it yet.
    SuspensionWaitsFor {
        /// The host that does not honour the suspension yet.
        host: HostId,
    },
    /// At some instant, so many hosts at least are primary at once.
    Primaries {
        /// The least number of primaries at one instant.
        at_least: usize,
    },
    /// Throughout, so many hosts at most are primary at once.
    PrimariesNeverMore {
        /// Than how many.
        than: usize,
    },
    /// At some instant, that host is the only primary.
    PrimaryIs {
        /// The host that has to be the only primary.
        host: HostId,
    },
    /// At some instant, that host owns that datastore, by its own view.
    OwnerIs {
        /// The datastore that is owned.
        datastore: DatastoreName,
        /// The host that has to own it.
        host: HostId,
    },
    /// An event of that kind with these fields is told (by that host; so many times, when that is said).
    Event {
        /// The event's kind, as in its JSON, such as `vm_restarted`.
        kind: String,
        /// Fields that must be equal; a VM is given by its name.
        #[serde(default)]
        fields: BTreeMap<String, serde_json::Value>,
        /// The host that tells it; any when left out.
        by: Option<HostId>,
        /// Exactly so many times; at least once when left out.
        count: Option<usize>,
    },
    /// No such event is told.
    NoEvent {
        /// The event's kind, as in its JSON, such as `vm_restarted`.
        kind: String,
        /// Fields that must be equal; a VM is given by its name.
        #[serde(default)]
        fields: BTreeMap<String, serde_json::Value>,
        /// The host that must not tell it; nobody may when left out.
        by: Option<HostId>,
    },
}

/// Reads the expectations of a scenario, unfolded.
pub fn unfold(scenario: &str, tables: &[Table], setup: &Setup) -> Result<Vec<Expect>, ScenarioError> {
    let mut expects = Vec::new();
    for (index, table) in tables.iter().enumerate() {
        let wrong = |what: String| ScenarioError::Unreadable {
            name: scenario.into(),
            what: Arc::from(format!("expectation {}: {what}", index + 1)),
        };
        unfold_one(table, setup, &mut expects).map_err(wrong)?;
    }
    Ok(expects)
}

fn unfold_one(table: &Table, setup: &Setup, expects: &mut Vec<Expect>) -> Result<(), String> {
    let mut rest = table.clone();
    let mut seconds = |key: &str| rest.remove(key).map(|value| number(key, &value)).transpose();
    let from = micros(seconds("after")?.unwrap_or(0.0));
    let within = seconds("within")?.ok_or("`within` is missing: for how many seconds it is looked for")?;
    let to = from + micros(within);
    for single in steps::each_of(&rest, setup)? {
        let that = That::deserialize(toml::Value::Table(single)).map_err(steps::plain)?;
        if let That::Event { kind, .. } | That::NoEvent { kind, .. } = &that
            && !event_kinds().contains(kind)
        {
            return Err(format!("there is no event '{kind}'; the kinds are {}", event_kinds().join(", ")));
        }
        expects.push(Expect { from, to, that });
    }
    Ok(())
}

/// All words that `that` may be, for the document's test.
pub fn words() -> Vec<String> {
    super::words_of(|probe| That::deserialize(probe).map(drop), "that")
}

/// All kinds of events.
pub fn event_kinds() -> Vec<String> {
    super::words_of(|probe| Event::deserialize(probe).map(drop), "kind")
}

/// An expectation while the world runs.
#[derive(Debug)]
pub struct Watched<'a> {
    expect: &'a Expect,
    met: bool,
    broken: Option<u64>,
    looked_at: u64,
}

impl<'a> Watched<'a> {
    /// Nothing has been looked at yet.
    pub fn new(expect: &'a Expect) -> Watched<'a> {
        Watched { expect, met: false, broken: None, looked_at: expect.from }
    }

    /// Looks at the world as it is now.
    pub fn look(&mut self, world: &World) {
        let now = world.now();
        if now < self.expect.from || now > self.expect.to {
            return;
        }
        if self.holds(world) {
            self.met = true;
        } else if self.broken.is_none() {
            self.broken = Some(now);
        }
        self.looked_at = now;
    }

    fn holds(&self, world: &World) -> bool {
        match &self.expect.that {
            That::HostState { host, state, seen_by } => {
                let asked = |view: &View| match seen_by {
                    Some(by) => view.host == *by,
                    None => view.role == Role::Primary && view.host != *host,
                };
                views(world).any(|view| asked(&view) && sees_host(&view, host, *state))
            }
            That::HostStateNever { host, state, seen_by } => !views(world).any(|view| {
                seen_by.as_ref().is_none_or(|by| view.host == *by) && sees_host(&view, host, *state)
            }),
            That::VmState { vm, state, seen_by } => views(world).any(|view| {
                let asked = seen_by.as_ref().map_or(view.role == Role::Primary, |by| view.host == *by);
                asked && view.vms.iter().any(|seen| *seen.name == **vm && seen.state == *state)
            }),
            That::VmProtected { vm } => views(world).any(|view| {
                view.role == Role::Primary && view.vms.iter().any(|seen| *seen.name == **vm && seen.protected)
            }),
            That::VmRuns { vm, on, not_on } => runs(world, vm).any(|host| {
                on.as_ref().is_none_or(|on| on == host) && not_on.as_ref().is_none_or(|not_on| not_on != host)
            }),
            That::VmWaits { vm, because } => is_noted(world, vm, because),
            That::VmWaitsNever { vm, because } => !is_noted(world, vm, because),
            That::HostEmpty { host } => world.setup().host(host).is_some_and(|host| world.is_empty(host)),
            That::VmNeverOn { vm, host } => runs(world, vm).all(|at| at != host),
            // A start and a stop between two looks are seen by the change.
            That::VmStaysOff { vm } => {
                runs(world, vm).next().is_none() && last_change(world, vm) <= self.looked_at
            }
            That::VmUninterrupted { vm } => {
                runs(world, vm).count() == 1 && last_change(world, vm) <= self.expect.from
            }
            That::SuspendedEverywhere {} => is_suspended_everywhere(world),
            That::SuspendedEverywhereNever {} => !is_suspended_everywhere(world),
            That::SuspensionWaitsFor { host } => suspensions(world)
                .any(|it| it.suspension.stands && it.waits_for.is_some_and(|hosts| hosts.contains(host))),
            That::Primaries { at_least } => primaries(world).len() >= *at_least,
            That::PrimariesNeverMore { than } => primaries(world).len() <= *than,
            That::PrimaryIs { host } => primaries(world) == [host.clone()],
            That::OwnerIs { datastore, host } => views(world).any(|view| {
                view.host == *host
                    && view
                        .datastores
                        .iter()
                        .any(|store| store.datastore == *datastore && store.ownership_left.is_some())
            }),
            // Judged in the end, over everything that was told.
            That::Event { .. }
            | That::NoEvent { .. }
            | That::VmStartsBefore { .. }
            | That::VmNotStarted { .. }
            | That::Answered { .. } => true,
        }
    }

    /// Why it was not met.
    pub fn unmet(&self, world: &World) -> Option<String> {
        let that = &self.expect.that;
        match that {
            That::HostState { .. }
            | That::VmState { .. }
            | That::VmProtected { .. }
            | That::VmRuns { .. }
            | That::VmWaits { .. }
            | That::HostEmpty { .. }
            | That::SuspendedEverywhere {}
            | That::SuspensionWaitsFor { .. }
            | That::Primaries { .. }
            | That::PrimaryIs { .. }
            | That::OwnerIs { .. } => (!self.met).then(|| format!("never, {}: {that:?}", self.window())),
            That::HostStateNever { .. }
            | That::VmNeverOn { .. }
            | That::VmWaitsNever { .. }
            | That::VmStaysOff { .. }
            | That::SuspendedEverywhereNever {}
            | That::VmUninterrupted { .. }
            | That::PrimariesNeverMore { .. } => self
                .broken
                .map(|at| format!("broken at {} s, {}: {that:?}", at as f64 / SECOND, self.window())),
            That::Event { kind, fields, by, count } => {
                let told = self.told(world, by.as_ref()).filter(|told| matches(told, kind, fields)).count();
                let met = count.map_or(told > 0, |count| told == count);
                (!met).then(|| format!("told {told} times, {}: {that:?}", self.window()))
            }
            That::VmNotStarted { vm } => self
                .first_start(world, vm)
                .map(|at| format!("started at {} s, {}: {that:?}", at as f64 / SECOND, self.window())),
            That::VmStartsBefore { vm, other, by_seconds } => {
                match (self.first_start(world, vm), self.first_start(world, other)) {
                    (Some(one), Some(two)) if one + micros(*by_seconds) < two => None,
                    (one, two) => {
                        let told = |at: Option<u64>| {
                            at.map_or(String::from("not"), |at| format!("at {} s", at as f64 / SECOND))
                        };
                        Some(format!(
                            "{vm} started {}, {other} {}, {}: {that:?}",
                            told(one),
                            told(two),
                            self.window()
                        ))
                    }
                }
            }
            That::Answered { ask, done, says } => self.unanswered(world, ask, *done, says),
            That::NoEvent { kind, fields, by } => self.misspelt(world, kind, fields).or_else(|| {
                self.told(world, by.as_ref()).find(|told| matches(told, kind, fields)).map(|told| {
                    format!("told at {} s: {}, against {that:?}", told.at as f64 / SECOND, told.event)
                })
            }),
        }
    }

    /// When a VM was first started in the window.
    fn first_start(&self, world: &World, vm: &str) -> Option<u64> {
        let vm = world.setup().vm(vm)?;
        let mut boots = world.boots().iter().filter(|boot| boot.vm == vm);
        boots.find(|boot| boot.at >= self.expect.from && boot.at <= self.expect.to).map(|boot| boot.at)
    }

    fn unanswered(&self, world: &World, ask: &str, done: bool, says: &str) -> Option<String> {
        let in_time = |at: u64| at >= self.expect.from && at <= self.expect.to;
        let answers = world.answered().iter();
        let answers: Vec<&Result<String, String>> = answers
            .filter(|answer| in_time(answer.at) && crate::world::word_of(&answer.command) == ask)
            .map(|answer| &answer.result)
            .collect();
        let as_wanted = |result: &&Result<String, String>| match result {
            Ok(said) => done && said.contains(says),
            Err(said) => !done && said.contains(says),
        };
        let met = answers.iter().any(as_wanted);
        (!met).then(|| format!("answered {answers:?}, {}: {:?}", self.window(), self.expect.that))
    }

    fn window(&self) -> String {
        format!("from {} s to {} s", self.expect.from as f64 / SECOND, self.expect.to as f64 / SECOND)
    }

    fn told<'w>(&'w self, world: &'w World, by: Option<&'w HostId>) -> impl Iterator<Item = &'w Told> {
        let in_time = |told: &&Told| told.at >= self.expect.from && told.at <= self.expect.to;
        let asked = move |told: &&Told| by.is_none_or(|by| world.setup().hosts[told.host].id == *by);
        world.told().iter().filter(in_time).filter(asked)
    }

    /// A field that events of that kind do not have: the expectation would hold by a typing mistake.
    fn misspelt(
        &self,
        world: &World,
        kind: &str,
        fields: &BTreeMap<String, serde_json::Value>,
    ) -> Option<String> {
        let of_kind = |told: &&Told| matches(told, kind, &BTreeMap::new());
        let example = serde_json::to_value(&world.told().iter().find(of_kind)?.event).ok()?;
        let field = fields.keys().find(|field| example.get(field).is_none())?;
        Some(format!("an event {kind} has no field '{field}': {:?}", self.expect.that))
    }
}

fn views(world: &World) -> impl Iterator<Item = View> + '_ {
    (0..world.setup().hosts.len()).filter_map(|host| world.view(host))
}

fn suspensions(world: &World) -> impl Iterator<Item = SuspensionView> + '_ {
    views(world).flat_map(|view| view.suspensions)
}

/// On each datastore, by the word of an owner.
fn is_suspended_everywhere(world: &World) -> bool {
    world.setup().datastores.iter().all(|store| {
        let here = |it: &SuspensionView| it.datastore == store.name && it.suspension.stands;
        suspensions(world).any(|it| here(&it) && it.waits_for.is_some_and(|hosts| hosts.is_empty()))
    })
}

fn is_noted(world: &World, vm: &str, words: &str) -> bool {
    views(world).filter(|view| view.role == Role::Primary).any(|view| {
        let noted = |note: &String| note.contains(words);
        view.vms.iter().any(|seen| *seen.name == *vm && seen.note.as_ref().is_some_and(noted))
    })
}

fn sees_host(view: &View, host: &HostId, state: HostState) -> bool {
    view.hosts.iter().any(|seen| seen.host == *host && seen.state == state)
}

fn primaries(world: &World) -> Vec<HostId> {
    views(world).filter(|view| view.role == Role::Primary).map(|view| view.host).collect()
}

fn runs<'w>(world: &'w World, vm: &str) -> impl Iterator<Item = &'w HostId> {
    let vm = world.setup().vm(vm);
    vm.into_iter().flat_map(|vm| world.executing(vm)).map(|host| &world.setup().hosts[host].id)
}

fn last_change(world: &World, vm: &str) -> u64 {
    world.setup().vm(vm).map_or(0, |vm| world.last_change(vm))
}

/// Whether an event is of that kind and has these fields.
fn matches(told: &Told, kind: &str, fields: &BTreeMap<String, serde_json::Value>) -> bool {
    let Ok(event) = serde_json::to_value(&told.event) else { return false };
    event.get("kind").is_some_and(|is| is == kind)
        && fields.iter().all(|(field, wanted)| {
            event.get(field).is_some_and(|value| value == wanted || value.get("name") == Some(wanted))
        })
}
