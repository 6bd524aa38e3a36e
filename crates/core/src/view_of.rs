//! Makes the [`View`]: what this host believes of the cluster, in words for people.

use crate::claims::Look;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::datastore::Datastore;
use crate::datastores::Datastores;
use crate::election::Election;
use crate::guard_side::GuardSide;
use crate::heartbeat_datastores::HeartbeatDatastores;
use crate::host_liveness::HostState;
use crate::hosts::{Hosts, Peer};
use crate::ids::{Epoch, HostId, VmId};
use crate::isolation::Isolation;
use crate::local_vms::LocalVms;
use crate::message::Halt;
use crate::placing::Refusals;
use crate::protected_list::Wait;
use crate::register::{Claim, ClaimState, Desired, Entry, IsolationResponse, OrderKind};
use crate::time::{Span, Time};
use crate::view::{
    DatastoreView, Emptying, HeartbeatAge, HostView, Role, SuspensionView, View, VmState, VmView,
};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// The same end, as two hosts work it out: a hold is told anew when it changes by a second, and a heartbeat is as old.
const HOLD_DEVIATION: Span = Span::from_secs(3);

/// All rooms that a view looks into.
pub(crate) struct Known<'a> {
    pub(crate) config: &'a Config,
    /// When this run of the agent began.
    pub(crate) begun: Time,
    pub(crate) election: &'a Election,
    pub(crate) isolation: &'a Isolation,
    pub(crate) guard: &'a GuardSide,
    pub(crate) heartbeat_datastores: &'a HeartbeatDatastores,
    /// What admission control has against the cluster.
    pub(crate) objection: Option<&'a Arc<str>>,
    pub(crate) hosts: &'a Hosts,
    pub(crate) datastores: &'a Datastores,
    pub(crate) vms: &'a LocalVms,
    pub(crate) cluster: Cluster<'a>,
}

pub(crate) fn view_of(known: &Known<'_>, now: Time) -> View {
    let role = match known.election.primary() {
        None => Role::Candidate,
        Some(_) if known.election.is_primary() => Role::Primary,
        Some(_) => Role::Secondary,
    };
    let mut hosts: Vec<HostView> = known.hosts.all().map(|peer| peer_view(known, peer, now)).collect();
    hosts.push(own_view(known, now));
    hosts.sort_by(|a, b| a.host.cmp(&b.host));
    let mut vms: BTreeMap<_, VmView> = BTreeMap::new();
    for datastore in known.datastores.all() {
        for vm in vm_views(known, datastore, now) {
            vms.insert((vm.name.clone(), vm.vm), vm);
        }
    }
    for (domain, problem) in known.vms.problems() {
        let view = VmView {
            vm: domain.vm,
            name: domain.name.clone(),
            datastore: domain.home.clone().unwrap_or_else(|| "-".into()),
            host: Some(known.config.me.clone()),
            state: VmState::Running,
            protected: false,
            unprotected: false,
            note: Some(problem.to_string()),
            priority: domain.spec.as_ref().map(|spec| spec.priority).unwrap_or_default(),
            token: None,
            memory_mib: domain.spec.as_ref().map_or(0, |spec| spec.memory_mib),
            vcpus: domain.spec.as_ref().map_or(0, |spec| spec.vcpus),
            isolation_response: known.config.isolation_response,
            isolation_response_own: false,
            shutdown_timeout: known.config.shutdown_timeout,
            shutdown_timeout_own: false,
            order: None,
        };
        vms.entry((domain.name.clone(), domain.vm)).or_insert(view);
    }
    View {
        host: known.config.me.clone(),
        now,
        role,
        primary: known.election.primary().cloned(),
        primary_reason: known.election.reason().cloned(),
        timing: known.config.timing,
        hosts,
        datastores: known.datastores.all().map(|datastore| datastore_view(known, datastore, now)).collect(),
        vms: vms.into_values().collect(),
        hypervisor_well: known.vms.is_well(),
        isolated: known.isolation.is_isolated(),
        guard: known.guard.is_connected(),
        settings: known.cluster.settings().clone(),
        suspensions: known
            .datastores
            .all()
            .filter_map(|datastore| {
                let own = datastore.list().map(|list| list.suspension().left(now));
                let suspension = own.unwrap_or_else(|| datastore.suspension_read(now))?;
                let waits_for = own.map(|_| would_freeze(known, datastore, suspension.left, now));
                Some(SuspensionView { datastore: datastore.name().clone(), suspension, waits_for })
            })
            .collect(),
        objection: known.objection.cloned(),
    }
}

/// Hosts that do not honour the suspension of protection on that datastore, as far as its owner knows, or not for as long.
fn would_freeze(known: &Known<'_>, datastore: &Datastore, left: Span, now: Time) -> Vec<HostId> {
    let name = datastore.name();
    let wanted = now + left;
    let holders: BTreeSet<&HostId> = datastore
        .list()
        .into_iter()
        .flat_map(|list| list.entries().filter_map(|(entry, _)| entry.holder.as_ref()))
        .collect();
    let unaware = |peer: &&Peer| {
        let heartbeat = peer.heartbeat();
        // What it said before it went silent counts: until its time a hold ends only by what the host hears.
        let held = heartbeat.is_some_and(|heartbeat| {
            let mut holds = heartbeat.held.iter();
            holds.any(|hold| {
                hold.datastore == *name && peer.heartbeat_at() + hold.left + HOLD_DEVIATION >= wanted
            })
        });
        let concerned = match peer.state() {
            // It may be alive and held.
            HostState::Failed => holders.contains(peer.host()),
            // Where it neither reaches the datastore nor has a VM of it, nothing can be frozen.
            HostState::Connected => {
                holders.contains(peer.host()) || heartbeat.is_none_or(|it| it.datastores.contains(name))
            }
            HostState::Unknown
            | HostState::AgentUnreachable
            | HostState::Unguarded
            | HostState::Isolated
            | HostState::Partitioned => true,
        };
        concerned && !held
    };
    let mut hosts: Vec<HostId> = known.hosts.all().filter(unaware).map(|peer| peer.host().clone()).collect();
    let own = datastore.own_hold().left(now).is_some_and(|length| now + length + HOLD_DEVIATION >= wanted);
    if (datastore.is_connected() || holders.contains(&known.config.me)) && !own {
        hosts.push(known.config.me.clone());
    }
    hosts.sort();
    hosts
}

/// A host knows of itself whether it is isolated.
fn own_state(known: &Known<'_>) -> HostState {
    if known.isolation.is_isolated() { HostState::Isolated } else { HostState::Connected }
}

fn own_view(known: &Known<'_>, now: Time) -> HostView {
    let connected = known.datastores.connected();
    HostView {
        host: known.config.me.clone(),
        state: own_state(known),
        since: now.since(known.begun),
        network_heartbeat: None,
        datastore_heartbeats: known
            .datastores
            .all()
            .filter_map(|datastore| {
                let age = now.since(datastore.reach().beaten()?);
                Some(HeartbeatAge { datastore: datastore.name().clone(), age })
            })
            .collect(),
        ping: None,
        datastores: connected.map(|datastore| datastore.name().clone()).collect(),
        capacity: Some(known.vms.capacity()),
        hypervisor_well: Some(known.vms.is_well()),
        maintenance: maintenance(known, &known.config.me),
        failover_host: known.cluster.settings().failover_hosts.contains(&known.config.me),
    }
}

fn peer_view(known: &Known<'_>, peer: &Peer, now: Time) -> HostView {
    let host = peer.host();
    let evidence = known.datastores.all().filter_map(|datastore| {
        let changed = datastore.mirror().evidence(host, &known.config.timing, now)?.changed?;
        Some(HeartbeatAge { datastore: datastore.name().clone(), age: now.since(changed) })
    });
    let heartbeat = peer.heartbeat();
    HostView {
        host: host.clone(),
        state: peer.state(),
        since: now.since(peer.since()),
        network_heartbeat: peer.last_network().map(|at| now.since(at)),
        datastore_heartbeats: evidence.collect(),
        ping: peer.answers_pings(&known.config.timing, now),
        // What it said before it went silent says nothing about now.
        datastores: heartbeat
            .filter(|_| peer.state() == HostState::Connected)
            .map(|heartbeat| heartbeat.datastores.clone())
            .unwrap_or_default(),
        capacity: heartbeat.map(|heartbeat| heartbeat.capacity),
        hypervisor_well: heartbeat.map(|heartbeat| heartbeat.hypervisor_well),
        maintenance: maintenance(known, host),
        failover_host: known.cluster.settings().failover_hosts.contains(host),
    }
}

fn maintenance(known: &Known<'_>, host: &HostId) -> Option<Emptying> {
    let how = *known.cluster.settings().maintenance.get(host)?;
    Some(Emptying { how, left: known.cluster.left_on(host) })
}

fn datastore_view(known: &Known<'_>, datastore: &Datastore, now: Time) -> DatastoreView {
    let owner = datastore.present_owner();
    let own_list = datastore.list().and_then(|list| list.on_disk());
    DatastoreView {
        datastore: datastore.name().clone(),
        connected: datastore.is_connected(),
        error: datastore.reach().problem(),
        epoch: owner.map_or(Epoch(0), |(epoch, _)| epoch),
        owner: owner.map(|(_, host)| host.clone()),
        list: own_list.or(datastore.look().map(|look: &Look| look.list.stamp())),
        ownership_left: datastore.ownership().left(now),
        heartbeat: known.heartbeat_datastores.chosen().contains(datastore.name()),
        lease_left: known.guard.lease(datastore.name(), now).map(|lease| lease.left),
        unreadable_registers: datastore.mirror().unreadable(),
    }
}

fn vm_views(known: &Known<'_>, datastore: &Datastore, now: Time) -> Vec<VmView> {
    let entries: Vec<(Entry, Option<(String, Wait)>)> = match datastore.list() {
        Some(list) => list
            .entries()
            .map(|(entry, waits)| (entry.clone(), waits.map(|waits| (reasons(waits), waits.1))))
            .collect(),
        None => {
            let look = datastore.look().map(|look| look.list.entries.as_slice());
            look.unwrap_or_default().iter().map(|entry| (entry.clone(), None)).collect()
        }
    };
    let power_on = datastore.power_on_lists(now);
    // A host whose VMs are frozen for want of a datastore can't write that there: of its own claims it knows more.
    let own_claims = datastore.claims().snapshot();
    let own = datastore.list().is_some();
    let halts = halts(known, datastore, now);
    entries
        .into_iter()
        .map(|(entry, waits)| {
            let here = entry.holder.as_ref() == Some(&known.config.me);
            let claims = entry.holder.as_ref().and_then(|holder| power_on.get(holder));
            let claim = claims.and_then(|seen| claim_of(&seen.list.claims, &entry));
            let frozen_here =
                claim_of(&own_claims, &entry).filter(|claim| here && claim.state == ClaimState::Frozen);
            let claim = frozen_here.or(claim).map(|claim| &claim.state);
            let holder_state = entry.holder.as_ref().map(|holder| {
                if here { HostState::Connected } else { known.hosts.state(holder).unwrap_or_default() }
            });
            let halted = entry.holder.clone().and_then(|holder| halts.get(&(entry.vm, holder)));
            let state = match (vm_state(&entry, claim, holder_state, own), halted) {
                (VmState::Running, Some(Halted { why: Halt::Frozen, .. })) => VmState::Frozen,
                (state, _) => state,
            };
            // It does not run: a host is all that it wants.
            let placeless = waits
                .as_ref()
                .is_some_and(|(_, kind)| matches!(kind, Wait::ForHost | Wait::Orphaned | Wait::ForOthers));
            let gone = holder_state == Some(HostState::Failed) && placeless;
            let state = if gone { VmState::Waiting } else { state };
            let waits = waits.map(|(text, _)| text);
            let seen = SeenOf { state, claim, halted, holder: holder_state.unwrap_or_default() };
            let notes = notes(known, &entry, waits, &seen);
            VmView {
                vm: entry.vm,
                name: entry.name.clone(),
                datastore: datastore.name().clone(),
                host: entry.holder.clone(),
                state,
                // What is on disk is what counts: the VM of a silent host is protected too.
                protected: matches!(state, VmState::Running | VmState::Unknown) && !entry.unprotected && own,
                unprotected: entry.unprotected,
                note: (!notes.is_empty()).then(|| notes.join("; ")),
                priority: known.cluster.settings().priority(entry.vm, entry.spec.priority),
                token: Some(entry.token),
                memory_mib: entry.spec.memory_mib,
                vcpus: entry.spec.vcpus,
                isolation_response: response(known, &entry),
                isolation_response_own: entry.isolation_response.is_some(),
                shutdown_timeout: entry.shutdown_timeout.unwrap_or(known.config.shutdown_timeout),
                shutdown_timeout_own: entry.shutdown_timeout.is_some(),
                order: entry.order.as_ref().map(|order| order.what.clone()),
            }
        })
        .collect()
}

/// Why a VM does not execute although its host has it.
struct Halted {
    why: Halt,
    /// The host hears an owner: what it misses is the datastore.
    leased: bool,
}

/// What hosts, as far as they are heard, say not to execute.
fn halts(known: &Known<'_>, datastore: &Datastore, now: Time) -> BTreeMap<(VmId, HostId), Halted> {
    let leased = known.guard.lease(datastore.name(), now).is_some();
    let own = datastore.claims().halted(known.vms.domains());
    let own = own.map(|one| ((one.vm, known.config.me.clone()), Halted { why: one.why, leased }));
    let mut halts: BTreeMap<_, _> = own.collect();
    let leased = datastore.present_owner().is_some();
    for peer in known.hosts.members() {
        let told = peer.heartbeat().into_iter().flat_map(|heartbeat| &heartbeat.halted);
        halts.extend(told.map(|one| ((one.vm, peer.host().clone()), Halted { why: one.why, leased })));
    }
    halts
}

/// The claim under the entry's grant.
fn claim_of<'a>(claims: &'a [Claim], entry: &Entry) -> Option<&'a Claim> {
    let index = claims.binary_search_by_key(&entry.vm, |claim| claim.vm).ok()?;
    Some(&claims[index]).filter(|claim| claim.token == Some(entry.token))
}

fn response(known: &Known<'_>, entry: &Entry) -> IsolationResponse {
    entry.isolation_response.unwrap_or(known.config.isolation_response)
}

/// What is seen of a VM and its holder.
struct SeenOf<'a> {
    state: VmState,
    /// What its holder says that it does with it.
    claim: Option<&'a ClaimState>,
    halted: Option<&'a Halted>,
    holder: HostState,
}

/// What a person is to know of a VM besides its state.
fn notes(known: &Known<'_>, entry: &Entry, waits: Option<String>, seen: &SeenOf<'_>) -> Vec<String> {
    let SeenOf { state, claim, halted, holder } = *seen;
    let mut notes = Vec::new();
    match (state, halted) {
        (VmState::Running, Some(Halted { why: Halt::IoError, .. })) => {
            notes.push(String::from(
                "paused by QEMU, for its disk failed: it goes on when its datastore is back",
            ));
        }
        (VmState::Frozen, Some(Halted { leased: true, .. })) => {
            notes.push(String::from("frozen: its host can't read its datastore yet"));
        }
        (VmState::Frozen, _) => {
            notes.push(String::from(
                "frozen: its host reaches neither its datastore nor the datastore's owner",
            ));
        }
        (VmState::Running | VmState::Starting | VmState::Unknown | VmState::Waiting | VmState::Off, _) => {}
    }
    match claim {
        Some(ClaimState::Stopping) if state == VmState::Running => {
            notes
                .push(alloc::format!("its host is isolated, isolation response: {}", response(known, entry)));
        }
        Some(
            ClaimState::Starting
            | ClaimState::Running
            | ClaimState::Frozen
            | ClaimState::Stopping
            | ClaimState::Migrating
            | ClaimState::Stopped { .. }
            | ClaimState::StartFailed { .. },
        )
        | None => {}
    }
    if state == VmState::Unknown {
        let last = if claim == Some(&ClaimState::Frozen) { "frozen" } else { "running" };
        notes.push(alloc::format!("last seen {last}; its host is {holder}"));
    }
    match (&entry.intent, waits, &entry.responsible) {
        (Some(to), _, _) => notes.push(alloc::format!("is to move to {to}")),
        (None, Some(waits), _) => notes.push(waits),
        (None, None, Some(to)) => {
            notes.push(alloc::format!("will be restarted on {to} when its host has stopped it"))
        }
        (None, None, None) => {}
    }
    match entry.order.as_ref().map(|order| &order.what) {
        Some(OrderKind::Migrate(to)) => notes.push(alloc::format!("migrates to {to}")),
        Some(OrderKind::ShutDown) => notes.push(String::from("is asked to shut down, for maintenance")),
        Some(OrderKind::StartElsewhere) => {
            notes.push(String::from("its guest agent does not answer: it is to be started elsewhere"));
        }
        None => {}
    }
    if entry.unprotected {
        notes.push(String::from("unprotected by its user"));
    } else if notes.is_empty() && state == VmState::Off {
        notes.push(String::from("stopped on purpose; protected again as soon as it is started"));
    }
    notes
}

fn reasons((waits, kind): (&Refusals, Wait)) -> String {
    let each: Vec<String> = waits.iter().map(|one| alloc::format!("{}: {}", one.host, one.reason)).collect();
    let what = match kind {
        Wait::ForHost => "no host can take it",
        Wait::Orphaned => "orphaned, only hosts that are down may run it",
        Wait::ForOthers => "waits for others",
        Wait::ToMove => "can't be moved away",
        Wait::ForSight => "is not restarted yet",
        Wait::Suspended => "is not restarted",
    };
    alloc::format!("{what} ({})", each.join("; "))
}

fn vm_state(entry: &Entry, claim: Option<&ClaimState>, holder: Option<HostState>, own: bool) -> VmState {
    if holder.is_none() {
        return if entry.desired == Desired::Off { VmState::Off } else { VmState::Waiting };
    }
    if own && holder != Some(HostState::Connected) {
        return VmState::Unknown;
    }
    match claim {
        Some(ClaimState::Running | ClaimState::Migrating | ClaimState::Stopping) => VmState::Running,
        Some(ClaimState::Frozen) => VmState::Frozen,
        Some(ClaimState::Starting) => VmState::Starting,
        Some(ClaimState::Stopped { .. } | ClaimState::StartFailed { .. }) => VmState::Waiting,
        None if own => VmState::Starting,
        None => VmState::Unknown,
    }
}
