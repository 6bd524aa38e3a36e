//! The owner's review: what it sees of each datastore that it owns, and when it decides about the VMs homed there.
//!
//! Invariant: nobody but an owner reviews, and only within its ownership.
//! It does not: decide about a VM (`failover`), or choose a host for it (`placing`).

use crate::datastore::Datastore;
use crate::desk::Desk;
use crate::host_liveness::HostState;
use crate::hosts::Peer;
use crate::ids::{DatastoreName, HostId, VmId};
use crate::message::PowerOnVersion;
use crate::out::Out;
use crate::placing::{Placed, RelevantLook, UnderWay, VmPlace};
use crate::protected_list::{Candidate, Claimants, OwnerList, OwnerSide};
use crate::store::PowerOnSeen;
use crate::time::Time;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// What the owner of a datastore sees of it in one review. [`OwnerSide`] lends these fields to the list, and explains them.
struct Sight {
    power_on: BTreeMap<HostId, PowerOnSeen>,
    states: BTreeMap<HostId, HostState>,
    heartbeat_read: BTreeMap<HostId, Time>,
    candidates: Vec<Candidate>,
    current: BTreeSet<HostId>,
    dark: Vec<HostId>,
    watched: BTreeSet<HostId>,
    held: BTreeSet<HostId>,
    arriving: BTreeSet<VmPlace>,
}

/// Decides about the VMs of all datastores that want it now. `anchored`: this host is sure that it is not isolated.
pub(crate) fn review(desk: &mut Desk<'_>, anchored: bool, out: &mut Out<'_>) {
    desk.settings.share(desk.datastores);
    let due = due_for_review(desk, out.now);
    if due.is_empty() {
        return;
    }
    note_relevant(desk, out.now);
    let sights: BTreeMap<DatastoreName, Sight> =
        due.iter().filter_map(|name| Some((name.clone(), sight(desk, name, out.now)?))).collect();
    let config = desk.config;
    let claimants: Vec<Claimants<'_>> = sights.values().map(|sight| Claimants::of(&sight.power_on)).collect();
    let sides: Vec<(&DatastoreName, OwnerSide<'_>)> = sights
        .iter()
        .zip(&claimants)
        .map(|((name, sight), claimants)| (name, side_of(sight, claimants, config, anchored)))
        .collect();
    let mut wants = Vec::new();
    for (name, side) in &sides {
        let Some(datastore) = desk.datastores.get_mut(name) else { continue };
        datastore.begin_review(out.now);
        if let Some(list) = datastore.list_mut() {
            wants.extend(list.prepare(side, out));
        }
    }
    let mut placed = Placed::default();
    if !wants.is_empty() {
        let (scene, under_way) = (desk.cluster().scene(out.now), under_way(desk, out.now));
        placed = desk.placing.place(&scene, &wants, &under_way, out.now);
    }
    desk.placing.look_again(placed.look_again, out.now);
    for (name, side) in &sides {
        let Some(datastore) = desk.datastores.get_mut(name) else { continue };
        if let Some(list) = datastore.list_mut() {
            list.give_up_on(&placed.given_up, out);
            list.review(side, &mut placed.places, out);
        }
        datastore.write_list(out);
    }
    if wants.is_empty() && !desk.datastores.is_waiting() {
        // When nobody waits for anybody, what was noted for those that do is done with.
        desk.placing.end_round();
        desk.datastores.lists_mut().for_each(OwnerList::end_round);
    }
    desk.placing.rehearsing_mut().mark_stale();
}

/// Datastores whose VMs are decided about now.
fn due_for_review(desk: &mut Desk<'_>, now: Time) -> Vec<DatastoreName> {
    let placing = desk.placing.take_due(now);
    desk.datastores.all_mut().for_each(|datastore| datastore.remember_deadline());
    let timing = &desk.config.timing;
    let owned = || desk.datastores.owned(now).filter(|datastore| datastore.list().is_some());
    let due = |datastore: &Datastore| {
        let last = datastore.reviewed();
        let held = now < datastore.ownership().hold_until();
        let list = datastore.list();
        let overdue = list.and_then(|list| list.deadline(timing, last)).is_some_and(|at| at <= now);
        datastore.is_review_wanted() || overdue || (!held && last < datastore.ownership().hold_until())
    };
    let any = placing || owned().any(due);
    // Who waits may be let go by what happens to another, wherever that is homed.
    let waits = |datastore: &Datastore| any && datastore.list().is_some_and(OwnerList::is_waiting);
    let wanted = owned().filter(|datastore| due(datastore) || waits(datastore));
    wanted.map(|datastore| datastore.name().clone()).collect()
}

/// R75: hastens the tries of all VMs that wait for their time when something has come that may help them.
fn note_relevant(desk: &mut Desk<'_>, now: Time) {
    let (mut settled, mut missing) = (BTreeSet::new(), BTreeSet::new());
    for list in desk.datastores.lists() {
        list.where_they_run(&mut settled, &mut missing);
    }
    let look = RelevantLook {
        takers: desk.cluster().takers(),
        revision: desk.settings.get().revision,
        settled,
        missing,
        in_need: desk.datastores.lists().any(OwnerList::is_in_need),
        waiting: desk.datastores.is_waiting(),
    };
    if desk.placing.note_relevant(look, now) {
        desk.datastores.lists_mut().for_each(|list| list.hurry(now));
    }
}

fn under_way(desk: &Desk<'_>, now: Time) -> BTreeMap<VmId, UnderWay> {
    let mut under_way = BTreeMap::new();
    for datastore in desk.datastores.all() {
        if let Some(list) = datastore.list() {
            under_way.extend(list.under_way(&datastore.power_on_lists(now)));
        }
    }
    under_way
}

/// What the owner sees of one datastore. R42: a host counts as `current` only if the run of its agent that is alive wrote its list.
fn sight(desk: &Desk<'_>, name: &DatastoreName, now: Time) -> Option<Sight> {
    let datastore = desk.datastores.get(name)?;
    let (states, held) = states(desk, datastore, now);
    let power_on = datastore.power_on_lists(now);
    let mut complete: BTreeSet<&HostId> = BTreeSet::new();
    let mut current: BTreeSet<HostId> = BTreeSet::from([desk.config.me.clone()]);
    for (host, seen) in &power_on {
        let Some(peer) = desk.hosts.get(host) else { continue };
        let alive = match peer.state() {
            HostState::Connected => peer.incarnation(),
            HostState::Partitioned | HostState::Isolated => datastore.mirror().heartbeat_incarnation(host),
            HostState::Unknown | HostState::AgentUnreachable | HostState::Unguarded | HostState::Failed => {
                None
            }
        };
        if alive == Some(seen.list.incarnation) && !seen.damaged {
            current.insert(host.clone());
            if seen.list.complete {
                complete.insert(host);
            }
        }
    }
    // R24 applies to R45 as well: who may still hold a lease may still run what it does not show.
    let failed = |host: &HostId| states.get(host) == Some(&HostState::Failed);
    let read = |host: &HostId| power_on.get(host).map_or(0, |seen| seen.list.version);
    let dark = |peer: &&Peer| {
        let host = peer.host();
        !failed(host) && is_dark(peer, name, read(host), complete.contains(host))
    };
    let others = desk.hosts.all().filter(dark).map(|peer| peer.host().clone());
    let blind = !desk.vms.is_well() || datastore.is_unwritten(desk.vms.domains());
    let dark: Vec<HostId> = others.chain(blind.then(|| desk.config.me.clone())).collect();
    let kept = |(host, seen): &(&HostId, &PowerOnSeen)| {
        **host == desk.config.me || datastore.mirror().was_well(host, seen.list.incarnation)
    };
    let place = |vm: VmId, host: &HostId| VmPlace { vm, host: host.clone() };
    let said = |peer: &&Peer| peer.state() == HostState::Connected;
    let said = desk.hosts.all().filter(said).filter_map(|peer| Some((peer.host(), peer.heartbeat()?)));
    let said = said.flat_map(|(host, said)| said.arriving.iter().map(|vm| place(*vm, host)));
    let own = datastore.arriving(desk.vms.domains()).map(|vm| place(vm, &desk.config.me));
    let arriving = said.chain(own).collect();
    let watched = power_on.iter().filter(kept).map(|(host, _)| host.clone()).collect();
    Some(Sight {
        states,
        heartbeat_read: datastore.mirror().heartbeat_reads(),
        candidates: desk.cluster().candidates(name),
        current,
        dark,
        watched,
        held,
        arriving,
        power_on,
    })
}

/// The judgements as they count for this datastore, and the failed hosts that may run on all the same.
fn states(
    desk: &Desk<'_>,
    datastore: &Datastore,
    now: Time,
) -> (BTreeMap<HostId, HostState>, BTreeSet<HostId>) {
    let mut states = desk.hosts.states();
    let mut held = BTreeSet::new();
    for (host, state) in states.iter_mut().filter(|(_, state)| **state == HostState::Failed) {
        // Its guard was told not to freeze.
        let holds = datastore.may_hold(host, now);
        #[cfg(feature = "broken-rules")]
        let holds = holds && !datastore.breaks(crate::BrokenRule::HoldsIgnored);
        if holds {
            held.insert(host.clone());
        }
        // R24: it may still hold a lease that the former owner granted by network.
        // Nobody knows what a silent host does whose last word was another file.
        if holds || desk.agreement.is_apart(host) || now < datastore.ownership().hold_until() {
            *state = HostState::Unknown;
        }
    }
    (states, held)
}

/// R45: whether a host does not show what runs on it. `read`: the version of its power-on list that this host has read;
/// `complete`: that list shows everything.
fn is_dark(peer: &Peer, name: &DatastoreName, read: u64, complete: bool) -> bool {
    let heartbeat = peer.heartbeat().filter(|_| peer.state() == HostState::Connected);
    let reaches = peer.state() != HostState::Connected
        || heartbeat.is_none_or(|heartbeat| heartbeat.datastores.contains(name));
    let unwritten = heartbeat.is_some_and(|heartbeat| heartbeat.unwritten.contains(name));
    // It has written what this host has yet to read.
    let newer = |list: &PowerOnVersion| list.datastore == *name && list.version > read;
    let unread = heartbeat.is_some_and(|heartbeat| heartbeat.power_on.iter().any(newer));
    let shows = complete && heartbeat.is_none_or(|heartbeat| heartbeat.hypervisor_well);
    unwritten || unread || (reaches && !shows)
}

fn side_of<'a>(
    sight: &'a Sight,
    claimants: &'a Claimants<'a>,
    config: &'a crate::config::Config,
    anchored: bool,
) -> OwnerSide<'a> {
    OwnerSide {
        me: &config.me,
        timing: &config.timing,
        power_on: &sight.power_on,
        claimants,
        states: &sight.states,
        heartbeat_read: &sight.heartbeat_read,
        candidates: &sight.candidates,
        current: &sight.current,
        dark: &sight.dark,
        watched: &sight.watched,
        held: &sight.held,
        arriving: &sight.arriving,
        anchored,
        isolation_response: config.isolation_response,
    }
}
