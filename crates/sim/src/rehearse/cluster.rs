//! From the view of a primary to a simulated cluster: the one place that knows what of a [`View`] becomes what of a [`Setup`].
//! What the view gains has to be carried over here; what people have set, in `settings`.

use super::node::{Plan, Room};
use super::outcome::LeftOut;
use super::settings;
use super::{GUEST_BOOT, GUEST_SHUTDOWN, RehearseError, RehearsedFault, Surroundings};
use crate::action::Action;
use crate::setup::{BOOT, DISK, DatastoreSetup, HostSetup, Latencies, NETWORK, START_DELAY, Setup, VmSetup};
use mainstay_core::host_liveness::HostState;
use mainstay_core::register::IsolationResponse;
use mainstay_core::settings::{ReadyWhen, Settings};
use mainstay_core::view::{DatastoreView, HostView, VmState, VmView};
use mainstay_core::{Capacity, Command, HostId, Span, View, VmId};
use std::rc::Rc;

/// A UUID of the simulator has room for so many.
const VMS_MAX: usize = u16::MAX as usize - 1;
/// The primary is alone for so many heartbeats, so that it is the one that is elected here as well.
const HEAD_START: u64 = 8;

/// A simulated cluster, and what it is to look like before anything happens to it.
pub(super) struct Cluster {
    pub setup: Setup,
    /// What the nodes do that the setup has no words for.
    pub plan: Rc<Plan>,
    /// Hosts that are failed in the view.
    pub down: Vec<usize>,
    /// Datastores and hosts that do not reach them.
    pub no_paths: Vec<(usize, usize)>,
    pub primary: usize,
    /// By VM of the setup.
    pub expected: Vec<Expected>,
    /// What is asked of the primary when all VMs are protected.
    pub commands: Vec<Command>,
    /// What the settings are to be after that.
    pub settings: Settings,
    /// How long guests take, to shut down or until those may start that wait for them.
    pub patience: Span,
    pub left_out: Vec<LeftOut>,
    pub assumptions: Vec<String>,
}

/// What the simulated primary has to say of a VM before the faults.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    pub protected: bool,
    pub isolation_response: IsolationResponse,
    pub shutdown_timeout: Span,
    /// What of the two is its own.
    pub own_isolation: Option<(Option<IsolationResponse>, Option<Span>)>,
}

impl Cluster {
    /// The simulated cluster of that view.
    pub fn of(view: &View, surroundings: &Surroundings) -> Result<Cluster, RehearseError> {
        let impossible = |what: String| RehearseError::Impossible { what };
        view.timing.check().map_err(impossible)?;
        let in_trouble = |seen: &&HostView| !matches!(seen.state, HostState::Connected | HostState::Failed);
        if let Some(seen) = view.hosts.iter().find(in_trouble) {
            return Err(RehearseError::HostInTrouble { host: seen.host.clone(), state: seen.state });
        }
        if view.datastores.is_empty() {
            return Err(impossible(String::from("its view has no datastore")));
        }
        let Some(primary) = view.hosts.iter().position(|seen| seen.host == view.host) else {
            return Err(impossible(format!("{} is not among the hosts of its own view", view.host)));
        };
        let mut left_out = Vec::new();
        let mut chosen: Vec<&VmView> = Vec::new();
        for vm in &view.vms {
            match why_left_out(view, vm) {
                Some(why) => left_out.push(LeftOut { vm: vm.name.clone(), why }),
                None => chosen.push(vm),
            }
        }
        if chosen.len() > VMS_MAX {
            return Err(impossible(format!("it has {} VMs, {VMS_MAX} can be simulated", chosen.len())));
        }
        // In the order of their UUIDs, by which the core takes VMs of the same priority: so it is here as there.
        chosen.sort_by_key(|vm| vm.vm);
        let default = chosen.iter().find(|vm| !vm.isolation_response_own);
        let isolation_response = default.map_or(IsolationResponse::default(), |vm| vm.isolation_response);
        let default = chosen.iter().find(|vm| !vm.shutdown_timeout_own);
        let shutdown_timeout = default.map_or(Span::from_secs(300), |vm| vm.shutdown_timeout);
        let mut setup = empty(view, surroundings, primary);
        setup.isolation_response = isolation_response;
        setup.shutdown_timeout = shutdown_timeout;
        let vms = chosen.iter().filter_map(|vm| vm_setup(&setup, vm)).collect();
        setup.vms = vms;
        let wanted = settings::translated(&view.settings, &chosen, &setup);
        // A guest whose agent others wait for has one.
        for (vm, its) in setup.vms.iter_mut().enumerate() {
            its.agent_after = asks_guest(&view.settings, chosen[vm].vm).then_some(GUEST_BOOT.0);
        }
        let mut assumptions = assumptions(view);
        let rooms = rooms(view, &mut setup, &mut assumptions);
        let expected: Vec<Expected> = chosen.iter().map(|vm| expected(view, vm)).collect();
        let down = |(_, seen): &(usize, &HostView)| seen.state == HostState::Failed;
        Ok(Cluster {
            plan: Rc::new(Plan { rooms, concurrent_starts: surroundings.concurrent_starts.max(1) }),
            down: view.hosts.iter().enumerate().filter(down).map(|(index, _)| index).collect(),
            no_paths: no_paths(view),
            primary,
            commands: settings::commands(&wanted, &expected, &setup),
            patience: patience(&wanted),
            settings: wanted,
            expected,
            left_out,
            assumptions,
            setup,
        })
    }

    /// What is done to the world for that fault.
    pub fn actions(&self, fault: &RehearsedFault) -> Vec<Action> {
        match fault {
            RehearsedFault::Fail(host) => vec![Action::PowerOff { host: host.clone() }],
            RehearsedFault::Isolate(host) => vec![Action::NetworkCut { host: host.clone() }],
            RehearsedFault::CutStorage(host, datastore) => {
                let stores = self.setup.datastores.iter().map(|store| store.name.clone());
                let stores = stores.filter(|name| datastore.as_ref().is_none_or(|wanted| wanted == name));
                let cut = |datastore| Action::DatastoreCut { datastore, host: Some(host.clone()) };
                stores.map(cut).collect()
            }
        }
    }
}

/// Hosts, datastores and times, without VMs.
fn empty(view: &View, surroundings: &Surroundings, primary: usize) -> Setup {
    let beat = view.timing.heartbeat.0;
    let hosts = view.hosts.iter().enumerate().map(|(index, seen)| HostSetup {
        id: seen.host.clone(),
        clock_base: 1_000_000_000 * (index as u64 + 1),
        drift_ppm: 0,
        agent_starts: if index == primary { 0 } else { HEAD_START * beat + 10_000 * index as u64 },
        timing: None,
        file: Default::default(),
        newer: false,
        memory_mib: crate::setup::HOST_MEMORY,
    });
    let datastores = view.datastores.iter().map(|seen| DatastoreSetup {
        name: seen.datastore.clone(),
        lock_release: surroundings.lock_release.get(&seen.datastore).map_or(0, |span| span.0),
    });
    Setup {
        hosts: hosts.collect(),
        datastores: datastores.collect(),
        vms: Vec::new(),
        timing: view.timing,
        latencies: Latencies { disk: DISK, network: NETWORK, start: START_DELAY, boot: BOOT },
        loss_permille: 0,
        duplicate_permille: 0,
        start_failure_permille: 0,
        image_lock: true,
        hook: true,
        io_errors_permille: 0,
        gateway: surroundings.isolation_addresses,
        isolation_response: IsolationResponse::default(),
        shutdown_timeout: Span::ZERO,
        isolation_timeout: None,
    }
}

fn vm_setup(setup: &Setup, seen: &VmView) -> Option<VmSetup> {
    Some(VmSetup {
        name: seen.name.clone(),
        host: setup.host(seen.host.as_ref()?)?,
        datastore: setup.datastore(&seen.datastore)?,
        transient: false,
        priority: seen.priority,
        memory_mib: seen.memory_mib,
        shutdown: Some(GUEST_SHUTDOWN.0),
        agent_after: None,
    })
}

fn store<'a>(view: &'a View, vm: &VmView) -> Option<&'a DatastoreView> {
    view.datastores.iter().find(|store| store.datastore == vm.datastore)
}

/// A VM that does not take part, and why: what the cluster does not run and protect now, a fault does nothing to.
fn why_left_out(view: &View, vm: &VmView) -> Option<String> {
    let note = || vm.note.clone().unwrap_or_else(|| String::from("no reason is known"));
    let Some(store) = store(view, vm) else {
        return Some(format!("it is not protected: {}", note()));
    };
    if !store.connected {
        return Some(format!("the primary does not reach its datastore {}", store.datastore));
    }
    match vm.state {
        VmState::Off => return Some(String::from("it is off")),
        VmState::Waiting => return Some(format!("it does not run now: {}", note())),
        VmState::Running | VmState::Starting | VmState::Frozen | VmState::Unknown => {}
    }
    if vm.token.is_none() {
        return Some(format!("it is not protected: {}", note()));
    }
    let Some(host) = view.hosts.iter().find(|seen| vm.host.as_ref() == Some(&seen.host)) else {
        return Some(String::from("no host of the cluster has it"));
    };
    if host.state == HostState::Failed {
        return Some(format!("its host {} is failed now", host.host));
    }
    if view.settings.maintenance.contains_key(&host.host) {
        return Some(format!("its host {} is being emptied for maintenance", host.host));
    }
    let reached = host.datastores.contains(&vm.datastore);
    (!reached).then(|| format!("its host {} does not reach its datastore {} now", host.host, vm.datastore))
}

/// Its user has taken it out of protection. Only an owner's word counts: to others every VM looks unprotected.
fn is_unprotected(view: &View, vm: &VmView) -> bool {
    let owned = store(view, vm).is_some_and(|store| store.ownership_left.is_some());
    owned && matches!(vm.state, VmState::Running | VmState::Unknown) && !vm.protected
}

fn expected(view: &View, vm: &VmView) -> Expected {
    let own = vm.isolation_response_own || vm.shutdown_timeout_own;
    let response = vm.isolation_response_own.then_some(vm.isolation_response);
    let timeout = vm.shutdown_timeout_own.then_some(vm.shutdown_timeout);
    Expected {
        protected: !is_unprotected(view, vm),
        isolation_response: vm.isolation_response,
        shutdown_timeout: vm.shutdown_timeout,
        own_isolation: own.then_some((response, timeout)),
    }
}

/// Whether others wait until that guest has shown itself.
fn asks_guest(settings: &Settings, vm: VmId) -> bool {
    match settings.readiness(vm).when {
        ReadyWhen::AgentAnswers | ReadyWhen::CommandSucceeds => true,
        ReadyWhen::Started | ReadyWhen::Running => false,
    }
}

/// How long the slowest guest takes to what others wait for, be it its end or its beginning.
fn patience(settings: &Settings) -> Span {
    let readiness = settings.vms.values().filter_map(|vm| vm.readiness.as_ref());
    readiness.map(|readiness| GUEST_BOOT + readiness.delay).fold(GUEST_SHUTDOWN, Span::max)
}

/// What of the cluster as it is now is not played.
fn assumptions(view: &View) -> Vec<String> {
    let suspended = view.suspensions.iter().map(|it| {
        let (datastore, left) = (&it.datastore, it.suspension.left);
        format!("protection is suspended on datastore {datastore} for {left} yet: played as if it were not")
    });
    suspended.collect()
}

/// Memory of the hosts. What VMs that take no part, other programs and reserves have is not to be had, as it is now.
fn rooms(view: &View, setup: &mut Setup, assumptions: &mut Vec<String>) -> Vec<(HostId, Room)> {
    let all: u64 = setup.vms.iter().map(|vm| vm.memory_mib).sum();
    let mut rooms = Vec::new();
    for (index, seen) in view.hosts.iter().enumerate() {
        let here = setup.vms.iter().filter(|vm| vm.host == index);
        let (count, used) = here.fold((0, 0), |(count, used), vm| (count + 1, used + vm.memory_mib));
        let capacity = seen.capacity.filter(|capacity| capacity.memory_mib > 0);
        let (room, for_vms) = match capacity {
            Some(Capacity { memory_mib, memory_free_mib, cpus, domains }) => {
                let others = domains.saturating_sub(count);
                (Room { memory_mib, cpus, others }, memory_free_mib.saturating_add(used))
            }
            None => (Room { memory_mib: all, cpus: 1, others: 0 }, all),
        };
        setup.hosts[index].memory_mib = for_vms;
        if capacity.is_none() && seen.state == HostState::Connected {
            let what =
                format!("{} has not said how much memory it has: counted as enough for every VM", seen.host);
            assumptions.push(what);
        }
        rooms.push((seen.host.clone(), room));
    }
    rooms
}

fn no_paths(view: &View) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for (store, datastore) in view.datastores.iter().enumerate() {
        for (host, seen) in view.hosts.iter().enumerate() {
            if seen.state == HostState::Connected && !seen.datastores.contains(&datastore.datastore) {
                found.push((store, host));
            }
        }
    }
    found
}
