//! The owner's decisions: what it sees when it makes them, and when it does.

use super::*;
use crate::placing::{HostScene, Placed, Scene, VmScene, make_scene, place};
use crate::protected_list::OwnerList;
use alloc::sync::Arc;

/// What the owner of a datastore sees of it in one review.
struct Sight {
    power_on: BTreeMap<HostId, PowerOnSeen>,
    states: BTreeMap<HostId, HostState>,
    heartbeat_read: BTreeMap<HostId, Time>,
    candidates: Vec<Candidate>,
    current: BTreeSet<HostId>,
    dark: Vec<HostId>,
    watched: BTreeSet<HostId>,
    held: BTreeSet<HostId>,
}

impl Core {
    /// Hosts that could take a VM homed on that datastore.
    fn candidates(&self, name: &DatastoreName) -> Vec<Candidate> {
        let mine = self.datastores.get(name).is_some_and(|datastore| datastore.is_connected());
        let me = Candidate {
            host: self.config.me.clone(),
            unusable: unusable(true, self.vms.is_well()).or((!mine).then_some(NO_DATASTORE)),
        };
        let peers = self.hosts.all().map(|peer| {
            let heartbeat = peer.heartbeat();
            let reaches = heartbeat.is_some_and(|heartbeat| heartbeat.datastores.contains(name));
            let well = heartbeat.is_some_and(|heartbeat| heartbeat.hypervisor_well);
            let unusable = unusable(peer.state() == HostState::Connected, well);
            Candidate { host: peer.host().clone(), unusable: unusable.or((!reaches).then_some(NO_DATASTORE)) }
        });
        let mut all: Vec<Candidate> = [me].into_iter().chain(peers).collect();
        for candidate in &mut all {
            if self.settings.maintenance.contains_key(&candidate.host) {
                candidate.unusable = candidate.unusable.or(Some("in maintenance mode"));
            }
        }
        all
    }

    /// Datastores whose VMs are decided about now.
    fn due_for_review(&mut self, now: Time) -> Vec<DatastoreName> {
        let placing = self.place_again.take_if(|at| *at <= now).is_some();
        let owned =
            |datastore: &&Datastore| datastore.ownership().epoch(now).is_some() && datastore.list().is_some();
        let due = |datastore: &&Datastore| {
            let last = datastore.reviewed();
            let held = now < datastore.ownership().hold_until();
            let list = datastore.list();
            let overdue =
                list.and_then(|list| list.deadline(&self.config.timing, last)).is_some_and(|at| at <= now);
            datastore.is_review_wanted() || overdue || (!held && last < datastore.ownership().hold_until())
        };
        let any = placing || self.datastores.values().filter(owned).any(|datastore| due(&datastore));
        // Who waits may be let go by what happens to another, wherever that is homed.
        let waits = |datastore: &&Datastore| any && datastore.list().is_some_and(OwnerList::is_waiting);
        let wanted =
            self.datastores.values().filter(owned).filter(|datastore| due(datastore) || waits(datastore));
        wanted.map(|datastore| datastore.name().clone()).collect()
    }

    pub(super) fn review(&mut self, out: &mut Out<'_>) {
        self.share_settings();
        let due = self.due_for_review(out.now);
        if due.is_empty() {
            return;
        }
        self.note_relevant(out.now);
        let (me, timing) = (self.config.me.clone(), self.config.timing);
        let anchored = self.isolation.is_anchored(&timing, out.now);
        let isolation_response = self.config.isolation_response;
        let sights: BTreeMap<DatastoreName, Sight> =
            due.iter().filter_map(|name| Some((name.clone(), self.sight(name, out.now)?))).collect();
        let side = |sight| side_of(sight, &me, &timing, anchored, isolation_response);
        let mut wants = Vec::new();
        for (name, sight) in &sights {
            let Some(datastore) = self.datastores.get_mut(name) else { continue };
            datastore.begin_review(out.now);
            if let Some(list) = datastore.list_mut() {
                wants.extend(list.prepare(&side(sight), out));
            }
        }
        let mut placed = Placed::default();
        if !wants.is_empty() {
            let scene = self.scene(out.now);
            let mut under_way = BTreeMap::new();
            for datastore in self.datastores.values() {
                if let Some(list) = datastore.list() {
                    under_way.extend(list.under_way(&datastore.power_on_lists(out.now)));
                }
            }
            let began = *self.round.get_or_insert(out.now);
            placed = place(&scene, &wants, &under_way, &self.standing, began, out.now);
        }
        let room = self.relevant.due();
        self.place_again = placed.look_again.into_iter().chain(room).filter(|at| *at > out.now).min();
        for (name, sight) in &sights {
            let Some(datastore) = self.datastores.get_mut(name) else { continue };
            if let Some(list) = datastore.list_mut() {
                list.give_up_on(&placed.given_up, out);
                list.review(&side(sight), &mut placed.places, out);
            }
            datastore.write_list(out);
        }
        self.end_round(wants.is_empty());
        self.rehearsal_stale = true;
    }

    /// The lists that this host decides about.
    pub(super) fn lists(&self) -> impl Iterator<Item = &OwnerList> {
        self.datastores.values().filter_map(|datastore| datastore.list())
    }

    /// Whether some VM waits for a host.
    pub(super) fn is_waiting(&self) -> bool {
        self.lists().any(OwnerList::is_waiting)
    }

    /// When nobody waits for anybody, what was noted for those that do is done with.
    fn end_round(&mut self, no_wants: bool) {
        if no_wants && !self.is_waiting() {
            self.round = None;
            for datastore in self.datastores.values_mut() {
                if let Some(list) = datastore.list_mut() {
                    list.end_round();
                }
            }
        }
    }

    fn sight(&self, name: &DatastoreName, now: Time) -> Option<Sight> {
        let datastore = self.datastores.get(name)?;
        let mut states = self.hosts.states();
        let mut held = BTreeSet::new();
        for (host, state) in states.iter_mut().filter(|(_, state)| **state == HostState::Failed) {
            // R72: its guard was told not to freeze.
            let holds = datastore.held_until(host).is_some_and(|until| now < until);
            #[cfg(feature = "broken-rules")]
            let holds = holds && self.broken != Some(crate::BrokenRule::HoldsIgnored);
            if holds {
                held.insert(host.clone());
            }
            // R24: it may still hold a lease that the former owner granted by network.
            if holds || now < datastore.ownership().hold_until() {
                *state = HostState::Unknown;
            }
        }
        let power_on = datastore.power_on_lists(now);
        let mut complete: BTreeSet<&HostId> = BTreeSet::new();
        let mut current: BTreeSet<HostId> = BTreeSet::from([self.config.me.clone()]);
        for (host, seen) in &power_on {
            let Some(peer) = self.hosts.get(host) else { continue };
            let alive = match peer.state() {
                HostState::Connected => peer.incarnation(),
                HostState::Partitioned | HostState::Isolated => {
                    datastore.mirror().heartbeat_incarnation(host)
                }
                HostState::Unknown | HostState::AgentUnreachable | HostState::Failed => None,
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
        let dark = |peer: &&Peer| {
            let heartbeat = peer.heartbeat().filter(|_| peer.state() == HostState::Connected);
            let reaches = peer.state() != HostState::Connected
                || heartbeat.is_none_or(|heartbeat| heartbeat.datastores.contains(name));
            let unwritten = heartbeat.is_some_and(|heartbeat| heartbeat.unwritten.contains(name));
            // It has written what this host has yet to read.
            let read = power_on.get(peer.host()).map_or(0, |seen| seen.list.version);
            let newer = |(written, version): &(DatastoreName, u64)| written == name && *version > read;
            let unread = heartbeat.is_some_and(|heartbeat| heartbeat.power_on.iter().any(newer));
            let shows =
                complete.contains(peer.host()) && heartbeat.is_none_or(|heartbeat| heartbeat.hypervisor_well);
            !failed(peer.host()) && (unwritten || unread || (reaches && !shows))
        };
        let others = self.hosts.all().filter(dark).map(|peer| peer.host().clone());
        let blind = !self.vms.is_well() || datastore.is_unwritten(self.vms.domains());
        let dark: Vec<HostId> = others.chain(blind.then(|| self.config.me.clone())).collect();
        let kept = |(host, seen): &(&HostId, &PowerOnSeen)| {
            **host == self.config.me || datastore.mirror().was_well(host, seen.list.incarnation)
        };
        let watched = power_on.iter().filter(kept).map(|(host, _)| host.clone()).collect();
        Some(Sight {
            states,
            heartbeat_read: datastore.mirror().heartbeat_reads(),
            candidates: self.candidates(name),
            current,
            dark,
            watched,
            held,
            power_on,
        })
    }

    /// The cluster as placement sees it.
    pub(super) fn scene(&self, now: Time) -> Scene {
        self.scene_under(&self.settings, now)
    }

    /// The same, with other settings.
    pub(super) fn scene_under(&self, settings: &Settings, now: Time) -> Scene {
        let offers = |host: &HostId| {
            let lists = self.datastores.values().filter_map(|datastore| datastore.mirror().power_on(host));
            lists.filter_map(|seen| seen.list.offers.clone()).next()
        };
        let connected = self.datastores.values().filter(|datastore| datastore.is_connected());
        let me = HostScene {
            host: self.config.me.clone(),
            unusable: unusable(true, self.vms.is_well()),
            datastores: connected.map(|datastore| datastore.name().clone()).collect(),
            memory_mib: self.vms.capacity.memory_mib,
            memory_free_mib: self.vms.capacity.memory_free_mib,
            offers: self.vms.offers.clone(),
        };
        let peers = self.hosts.all().map(|peer| {
            let heartbeat = peer.heartbeat();
            let well = heartbeat.is_some_and(|heartbeat| heartbeat.hypervisor_well);
            let capacity = heartbeat.map(|heartbeat| heartbeat.capacity).unwrap_or_default();
            HostScene {
                host: peer.host().clone(),
                unusable: unusable(peer.state() == HostState::Connected, well),
                datastores: heartbeat.map(|heartbeat| heartbeat.datastores.clone()).unwrap_or_default(),
                memory_mib: capacity.memory_mib,
                memory_free_mib: capacity.memory_free_mib,
                offers: offers(peer.host()),
            }
        });
        let hosts: Vec<HostScene> = [me].into_iter().chain(peers).collect();
        let mut vms: Vec<VmScene<'_>> = Vec::new();
        for datastore in self.datastores.values() {
            let list = datastore.list().filter(|_| datastore.ownership().epoch(now).is_some());
            match (list, datastore.look()) {
                (Some(list), _) => vms.extend(list.scenes(&datastore.power_on_lists(now))),
                // Somebody else's: they take room, and are its matter.
                (None, Some(look)) => vms.extend(look.list.entries.iter().map(|entry| VmScene {
                    vm: entry.vm,
                    name: &entry.name,
                    spec: &entry.spec,
                    datastore: datastore.name(),
                    host: entry.holder.as_ref(),
                    running: true,
                    starting: false,
                    wanted: false,
                    failed_on: Vec::new(),
                    on: entry.desired == crate::register::Desired::On,
                })),
                (None, None) => {}
            }
        }
        // Of two entries of one VM (R47) the last of these counts.
        vms.sort_by_key(|vm| (vm.vm, !(vm.on && vm.host.is_some()), !vm.on));
        vms.dedup_by_key(|vm| vm.vm);
        make_scene(&hosts, &vms, settings)
    }

    /// R70: of all settings that were read, the newest count, and every list of this owner is to have them.
    fn share_settings(&mut self) {
        for datastore in self.datastores.values() {
            let own = datastore.list().map(|list| list.settings());
            let read = datastore.look().map(|look| &look.list.settings);
            for settings in own.into_iter().chain(read) {
                if settings.is_newer_than(&self.settings) {
                    self.settings = Arc::clone(settings);
                }
            }
        }
        for datastore in self.datastores.values_mut() {
            if let Some(list) = datastore.list_mut()
                && list.take_settings(&self.settings)
            {
                datastore.want_review();
            }
        }
    }
}

fn side_of<'a>(
    sight: &'a Sight,
    me: &'a HostId,
    timing: &'a crate::timing::Timing,
    anchored: bool,
    isolation_response: crate::register::IsolationResponse,
) -> OwnerSide<'a> {
    OwnerSide {
        me,
        timing,
        power_on: &sight.power_on,
        states: &sight.states,
        heartbeat_read: &sight.heartbeat_read,
        candidates: &sight.candidates,
        current: &sight.current,
        dark: &sight.dark,
        watched: &sight.watched,
        held: &sight.held,
        anchored,
        isolation_response,
    }
}

const NO_DATASTORE: &str = "it does not reach the datastore";

/// Why a host can't take a VM, if it can't.
fn unusable(connected: bool, hypervisor_well: bool) -> Option<&'static str> {
    match (connected, hypervisor_well) {
        (false, _) => Some("not connected"),
        (true, false) => Some("its libvirt does not answer"),
        (true, true) => None,
    }
}
