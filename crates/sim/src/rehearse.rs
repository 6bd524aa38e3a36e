//! A rehearsal: what would happen to *this* cluster if that host failed? Its [`View`] becomes a simulated cluster of the same
//! hosts, datastores, VMs, times, rules and isolation responses, on which the same core runs that runs in its agents; the faults are
//! played there, and what follows is told on a timeline that begins with them. The real cluster is not touched.
//!
//! Reading order: [`rehearse`] (the course of it), then in files of their own `cluster` (from the view to the simulated cluster, all
//! in one place), `settings` (what people have set), `node` (what the world's setup has no words for), `follow` (what becomes of each VM), `outcome` and `timeline`.
//!
//! **What the times are made of.** The cluster's own time-outs (heartbeat, lease, failure time-out), which are as they are, and
//! modelled ones, which are typical: register operations of about a millisecond, QEMU created within 0.15 to 0.55 s and now and
//! then 2 s later, [`GUEST_SHUTDOWN`] for a guest that is asked to shut down, image locks kept for as long as
//! [`Surroundings::lock_release`] says, [`GUEST_BOOT`] for a guest whose agent others wait for. Otherwise guests' own boot times are
//! not in them: a VM counts as running when it executes. So they are expectations, not promises; and one course of many: the instant of the fault between two heartbeats moves each of them by up to
//! a heartbeat.
//!
//! Who is judged what, which VMs come back and where, which wait and why: that is decided by the core, as it would be there. Where
//! two answers are as good as each other (equal hosts, equal VMs that do not all fit), the real one can be the other.
//!
//! Invariant: the same view, faults and surroundings give the same result; there is no chance but a fixed seed.
//!
//! What it does not do: know anything of the cluster that its view does not say. What that is stands in
//! [`Rehearsed::assumptions`] and [`Surroundings`].

mod cluster;
mod follow;
mod node;
mod outcome;
mod settings;
mod timeline;

use crate::action::Action;
use crate::world::World;
use cluster::Cluster;
use follow::Followed;
use mainstay_core::host_liveness::HostState;
use mainstay_core::view::{Role, VmState};
use mainstay_core::{DatastoreName, HostId, Span, Timing, View};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use outcome::{HostOutcome, Judgement, LeftOut, Moment, Outcome, Rehearsed, VmOutcome};

/// How long a guest takes to shut down when its isolation response asks it to: what a server without much to write takes.
pub const GUEST_SHUTDOWN: Span = Span::from_secs(10);
/// How long a guest takes from its start until its agent answers, where others wait for that.
pub const GUEST_BOOT: Span = Span::from_secs(30);
/// Within so long a guest that boots is asked once more, with time to answer: the core asks every five seconds.
const GUESTS_ASKED: Span = Span::from_secs(8);
/// A rehearsal that has not come to rest by then ends all the same.
pub const BOUND: Span = Span::from_secs(600);
/// The simulated cluster has to be as the view says within this.
pub const SETTLE_BOUND: Span = Span::from_secs(300);
/// Any will do; always the same.
const SEED: u64 = 1;
/// How often the truth about VMs is looked at. A start takes longer, so nothing is missed.
const LOOK: u64 = 50_000;
/// How often it is asked whether the simulated cluster is as the view says.
const SETTLE_LOOK: u64 = 500_000;

/// A fault to be played. All are played at the same instant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RehearsedFault {
    /// The host loses its power.
    Fail(HostId),
    /// All networks of the host are cut: it reaches no other host and no isolation address. Its storage stays.
    Isolate(HostId),
    /// The host loses its path to that datastore, or to all.
    CutStorage(HostId, Option<DatastoreName>),
}

impl RehearsedFault {
    /// The host that it strikes.
    pub fn host(&self) -> &HostId {
        match self {
            RehearsedFault::Fail(host)
            | RehearsedFault::Isolate(host)
            | RehearsedFault::CutStorage(host, _) => host,
        }
    }
}

/// What a view does not tell and an outcome may depend on. The default is that of a fresh installation.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Hosts have isolation addresses. Without, no host ever believes that it is isolated.
    pub isolation_addresses: bool,
    /// How many VMs a host starts at once.
    pub concurrent_starts: u32,
    /// How long each datastore keeps the image locks of a host that died: restarts wait for that. What is not named: not at all.
    pub lock_release: BTreeMap<DatastoreName, Span>,
}

impl Default for Surroundings {
    fn default() -> Surroundings {
        Surroundings { isolation_addresses: true, concurrent_starts: 4, lock_release: BTreeMap::new() }
    }
}

/// Why there is nothing to show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RehearseError {
    /// Nothing is to be played.
    #[error("no fault is named: name at least one host that is to fail, be isolated or lose storage")]
    NoFault,
    /// Only a primary knows the whole cluster.
    #[error(
        "the view of {host} is not a primary's and does not have the whole cluster: {}",
        match .primary {
            Some(primary) => format!("ask {primary}, which is the primary"),
            None => String::from("no primary is elected now, try again in some seconds"),
        }
    )]
    NotFromPrimary {
        /// Whose view it is.
        host: HostId,
        /// Whom it follows.
        primary: Option<HostId>,
    },
    /// A host that the cluster does not have.
    #[error("there is no host {host} in the cluster: its hosts are {}", list(.known))]
    UnknownHost {
        /// What was named.
        host: HostId,
        /// What could have been.
        known: Vec<HostId>,
    },
    /// A datastore that the cluster does not have.
    #[error("there is no datastore {datastore} in the cluster: its datastores are {}", list(.known))]
    UnknownDatastore {
        /// What was named.
        datastore: DatastoreName,
        /// What could have been.
        known: Vec<DatastoreName>,
    },
    /// A fault of a host that is down already.
    #[error("{host} is failed already: name a host that is connected")]
    FailedAlready {
        /// The host that was named.
        host: HostId,
    },
    /// The cluster is in the middle of something.
    #[error(
        "{host} is {state} now, and a rehearsal begins with hosts that are connected (or failed): \
         try again when it is connected; `mainstay status` and `mainstay events` say what is wrong with it"
    )]
    HostInTrouble {
        /// The host that was named.
        host: HostId,
        /// What it is.
        state: HostState,
    },
    /// No host is left.
    #[error("every host that is up would fail: leave one, nobody restarts anything otherwise")]
    NothingLeft,
    /// The view describes a cluster that no agent would accept.
    #[error("this cluster can't be rehearsed: {what}")]
    Impossible {
        /// What stands in the way, in words for people.
        what: String,
    },
    /// The simulated cluster did not become what the view says.
    #[error(
        "the simulated cluster is not as the real one after {within}, so nothing was rehearsed: {}; \
         try again when the cluster is at rest, and report it as a bug of Mainstay if that does not help",
        .missing.join("; ")
    )]
    NotSettled {
        /// How long it was waited for.
        within: Span,
        /// What is not as it should be (the first few).
        missing: Vec<String>,
    },
    /// A checker of the simulator objects.
    #[error(
        "the rehearsal broke a promise of Mainstay, {after} after the faults: {what}; \
         this is a bug of Mainstay: report it, with the output of `mainstay status --json` and the faults"
    )]
    Violated {
        /// Which, with names.
        what: String,
        /// When, since the faults; zero before them.
        after: Span,
    },
}

fn list<T: ToString>(names: &[T]) -> String {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    if names.is_empty() { String::from("none") } else { names.join(", ") }
}

/// Plays faults on a simulated copy of the cluster of that view, which has to be its primary's.
pub fn rehearse(
    view: &View,
    faults: &[RehearsedFault],
    surroundings: &Surroundings,
) -> Result<Rehearsed, RehearseError> {
    let faults = check(view, faults)?;
    let play = || play(view, &faults, surroundings);
    catch_unwind(AssertUnwindSafe(play)).unwrap_or_else(|payload| {
        let said = payload.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no text");
        let what = format!("an assertion of the core failed: {said}");
        Err(RehearseError::Violated { what, after: Span::ZERO })
    })
}

/// Refuses what can't be played; gives each fault once.
fn check(view: &View, faults: &[RehearsedFault]) -> Result<Vec<RehearsedFault>, RehearseError> {
    if view.role != Role::Primary {
        let primary = view.primary.clone();
        return Err(RehearseError::NotFromPrimary { host: view.host.clone(), primary });
    }
    for fault in faults {
        let Some(seen) = view.hosts.iter().find(|seen| seen.host == *fault.host()) else {
            let known = view.hosts.iter().map(|seen| seen.host.clone()).collect();
            return Err(RehearseError::UnknownHost { host: fault.host().clone(), known });
        };
        if seen.state == HostState::Failed {
            return Err(RehearseError::FailedAlready { host: seen.host.clone() });
        }
        if let RehearsedFault::CutStorage(_, Some(name)) = fault
            && !view.datastores.iter().any(|store| store.datastore == *name)
        {
            let known = view.datastores.iter().map(|store| store.datastore.clone()).collect();
            return Err(RehearseError::UnknownDatastore { datastore: name.clone(), known });
        }
    }
    let mut each: Vec<RehearsedFault> = Vec::new();
    for fault in faults.iter().filter(|fault| !fails(faults, fault.host()) || is_fail(fault)) {
        if !each.contains(fault) {
            each.push(fault.clone());
        }
    }
    if each.is_empty() {
        return Err(RehearseError::NoFault);
    }
    let mut up = view.hosts.iter().filter(|seen| seen.state != HostState::Failed);
    if up.all(|seen| fails(&each, &seen.host)) {
        return Err(RehearseError::NothingLeft);
    }
    Ok(each)
}

fn is_fail(fault: &RehearsedFault) -> bool {
    matches!(fault, RehearsedFault::Fail(_))
}

/// What else is to happen to a host that loses its power does not matter.
fn fails(faults: &[RehearsedFault], host: &HostId) -> bool {
    faults.iter().any(|fault| is_fail(fault) && fault.host() == host)
}

fn play(
    view: &View,
    faults: &[RehearsedFault],
    surroundings: &Surroundings,
) -> Result<Rehearsed, RehearseError> {
    let cluster = Cluster::of(view, surroundings)?;
    let _staged = node::stage(cluster.plan.clone());
    let mut world = World::new(cluster.setup.clone(), SEED, node::rehearsing_node, false);
    for (store, host) in &cluster.no_paths {
        world.no_path(*store, *host);
    }
    for host in &cluster.down {
        let host = cluster.setup.hosts[*host].id.clone();
        world.schedule(0, Action::PowerOff { host });
    }
    settle(&mut world, &cluster)?;
    let fault_at = world.now();
    for action in faults.iter().flat_map(|fault| cluster.actions(fault)) {
        world.schedule(fault_at, action);
    }
    let mut followed = Followed::new(&world, fault_at);
    let mut heard = world.told().len();
    let mut last = fault_at;
    // A restart of a VM whose guest is asked is over when that has answered.
    let isolated = faults.iter().any(|fault| matches!(fault, RehearsedFault::Isolate(_)));
    let mut unfinished = !cluster.settings.vms.is_empty();
    let mut complete = false;
    while !complete && world.now() < fault_at + BOUND.0 {
        world.run_until(world.now() + LOOK);
        not_violated(&world, fault_at)?;
        let moved = followed.look(&world);
        let told = &world.told()[heard..];
        heard += told.len();
        if moved || told.iter().any(|told| timeline::matters(&told.event)) {
            last = world.now();
        }
        unfinished |= told.iter().any(|told| timeline::takes_its_time(&told.event));
        let patience = (unfinished || !followed.all_execute()).then_some(cluster.patience);
        complete = world.now() >= last + rest(&view.timing, isolated, patience).0;
    }
    Ok(outcome::result(&world, cluster, faults, &followed, (fault_at, last, complete)))
}

/// After so long without anything that matters nothing more is to come: longer than the longest silence of the protocol, a second
/// failure time-out after a storm. `patience`: guests may be shutting down, or VMs wait or are tried again, for so long as a rule.
fn rest(timing: &Timing, isolated: bool, patience: Option<Span>) -> Span {
    // A host that is cut off does nothing until it believes that it is isolated (R60).
    let silent = if isolated { timing.isolation_timeout() } else { Span::ZERO };
    let silence = timing.storm_timeout().max(silent) + timing.network_timeout();
    patience.map_or(silence, |patience| silence.scaled(2, 1) + patience)
}

/// Runs until the simulated cluster is as the view says, and a little longer, so that leases and promises are those of a quiet day.
fn settle(world: &mut World, cluster: &Cluster) -> Result<(), RehearseError> {
    until_settled(world, |world| unsettled(world, cluster, Stage::Protected))?;
    for command in &cluster.commands {
        world.schedule(world.now(), Action::Command { command: command.clone() });
    }
    until_settled(world, |world| unsettled(world, cluster, Stage::AsSet))?;
    // Guests of a cluster at rest have booted long ago, and have been asked since.
    let booted = world.now().max(cluster.patience.0 + GUESTS_ASKED.0);
    world.run_until(booted + 10 * cluster.setup.timing.heartbeat.0);
    not_violated(world, world.now())
}

fn until_settled(world: &mut World, unsettled: impl Fn(&World) -> Vec<String>) -> Result<(), RehearseError> {
    loop {
        world.run_until(world.now() + SETTLE_LOOK);
        not_violated(world, world.now())?;
        let missing = unsettled(world);
        if missing.is_empty() {
            return Ok(());
        }
        if world.now() >= SETTLE_BOUND.0 {
            return Err(RehearseError::NotSettled { within: SETTLE_BOUND, missing });
        }
    }
}

/// How far the simulated cluster is on its way to what the view says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// All VMs run where they are to and are protected.
    Protected,
    /// And everything is set as people have set it.
    AsSet,
}

fn not_violated(world: &World, fault_at: u64) -> Result<(), RehearseError> {
    let Some(violation) = world.violation() else { return Ok(()) };
    if violation.checker == "setup" {
        // The core has refused its configuration: that is the view's matter, and no broken promise.
        return Err(RehearseError::Impossible { what: violation.what.clone() });
    }
    let after = Span(world.now().saturating_sub(fault_at));
    Err(RehearseError::Violated { what: violation.to_string(), after })
}

/// What is not yet as the view says: the first few things.
fn unsettled(world: &World, cluster: &Cluster, stage: Stage) -> Vec<String> {
    const SHOWN: usize = 3;
    let id = &cluster.setup.hosts[cluster.primary].id;
    let Some(seen) = world.view(cluster.primary).filter(|seen| seen.role == Role::Primary) else {
        return vec![format!("{id} is not primary")];
    };
    let hosts = seen.hosts.iter().filter_map(|host| {
        let down = cluster.down.iter().any(|down| cluster.setup.hosts[*down].id == host.host);
        let wanted = if down { HostState::Failed } else { HostState::Connected };
        (host.state != wanted).then(|| format!("{} is {}, not {wanted}", host.host, host.state))
    });
    let stores = seen.datastores.iter().filter(|store| store.connected && store.ownership_left.is_none());
    let stores = stores.map(|store| format!("{id} does not own datastore {}", store.datastore));
    let by_id: BTreeMap<_, _> = seen.vms.iter().map(|vm| (vm.vm, vm)).collect();
    let vms = cluster.expected.iter().enumerate().filter_map(|(vm, expected)| {
        let found = by_id.get(&cluster.setup.vm_id(vm));
        let as_wanted = found.is_some_and(|found| {
            found.state == VmState::Running
                && found.host.as_ref() == Some(&cluster.setup.hosts[cluster.setup.vms[vm].host].id)
                && match stage {
                    Stage::Protected => found.protected,
                    Stage::AsSet => {
                        found.protected == expected.protected
                            && found.isolation_response == expected.isolation_response
                            && found.shutdown_timeout == expected.shutdown_timeout
                    }
                }
        });
        let protected = if expected.protected { "and protected" } else { "without protection" };
        (!as_wanted).then(|| {
            let (name, host) = (&cluster.setup.vms[vm].name, cluster.setup.vms[vm].host);
            format!("{name} does not run on {} {protected}, as it is set", cluster.setup.hosts[host].id)
        })
    });
    let same = stage == Stage::Protected || settings::are_same(&seen.settings, &cluster.settings);
    let settings = (!same).then(|| String::from("the settings are not the cluster's"));
    hosts.chain(stores).chain(vms).chain(settings).take(SHOWN).collect()
}
