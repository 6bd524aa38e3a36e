//! The cluster as this host knows it, put together from the rooms that know a part of it: for those who only look.
//!
//! It makes the picture that placement works on, and answers who could take a VM.
//! It does not: change anything, or keep anything between two steps.

use crate::datastores::Datastores;
use crate::hosts::{Hosts, Peer};
use crate::ids::{DatastoreName, HostId, VmId};
use crate::local_vms::LocalVms;
use crate::message::Rank;
use crate::placing::{HostScene, Scene, Taker, VmScene, make_scene};
use crate::protected_list::{Candidate, OwnerList};
use crate::register::Desired;
use crate::settings::Settings;
use crate::time::Time;
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

const NO_DATASTORE: &str = "it does not reach the datastore";

/// What this host knows of the cluster.
#[derive(Clone, Copy)]
pub(crate) struct Cluster<'a> {
    me: &'a HostId,
    hosts: &'a Hosts,
    datastores: &'a Datastores,
    vms: &'a LocalVms,
    settings: &'a Arc<Settings>,
}

impl<'a> Cluster<'a> {
    pub(crate) fn new(
        me: &'a HostId,
        hosts: &'a Hosts,
        datastores: &'a Datastores,
        vms: &'a LocalVms,
        settings: &'a Arc<Settings>,
    ) -> Cluster<'a> {
        Cluster { me, hosts, datastores, vms, settings }
    }

    pub(crate) fn me(&self) -> &'a HostId {
        self.me
    }

    pub(crate) fn hosts(&self) -> &'a Hosts {
        self.hosts
    }

    pub(crate) fn datastores(&self) -> &'a Datastores {
        self.datastores
    }

    pub(crate) fn settings(&self) -> &'a Arc<Settings> {
        self.settings
    }

    /// How this host ranks in an election (R3).
    pub(crate) fn rank(&self) -> Rank {
        // R79: a host in maintenance is primary only when there is nobody else.
        let serves = !self.settings.maintenance.contains_key(self.me);
        let connected = if serves { self.datastores.connected().count() } else { 0 };
        Rank { datastores: connected as u32, host: self.me.clone() }
    }

    /// The most datastores that another host reaches which is connected and not in maintenance.
    pub(crate) fn best_member(&self) -> u32 {
        let members =
            self.hosts.members().filter(|peer| !self.settings.maintenance.contains_key(peer.host()));
        let reached = members.filter_map(|peer| Some(peer.heartbeat()?.datastores.len() as u32));
        reached.max().unwrap_or(0)
    }

    /// The lists that this host decides about.
    pub(crate) fn lists(&self) -> impl Iterator<Item = &'a OwnerList> {
        self.datastores.lists()
    }

    /// Finds a VM on the datastores that this host owns.
    pub(crate) fn find_vm(&self, wanted: &str, now: Time) -> Result<VmId, String> {
        let mut lists = self.datastores.owned_lists(now);
        lists.find_map(|list| list.find(wanted)).ok_or_else(|| {
            alloc::format!("no VM called {wanted} is known on a datastore that {} owns", self.me)
        })
    }

    pub(crate) fn find_vms(&self, wanted: &[String], now: Time) -> Result<BTreeSet<VmId>, String> {
        wanted.iter().map(|name| self.find_vm(name, now)).collect()
    }

    pub(crate) fn check_host(&self, host: &HostId) -> Result<(), String> {
        if self.hosts.knows(host) {
            return Ok(());
        }
        Err(alloc::format!("{host} is no host of this cluster"))
    }

    /// How many VMs a host has, with those that nobody protects.
    pub(crate) fn left_on(&self, host: &HostId) -> u32 {
        let held = self.lists().map(|list| list.held_by(host)).sum::<u32>();
        let capacity = if host == self.me {
            Some(self.vms.capacity())
        } else {
            self.hosts.member_heartbeat(host).map(|heartbeat| heartbeat.capacity)
        };
        held.max(capacity.map_or(0, |capacity| capacity.domains))
    }

    /// Hosts that could take a VM homed on that datastore, and those that could not, with the reason.
    pub(crate) fn candidates(&self, name: &DatastoreName) -> Vec<Candidate> {
        let mine = self.datastores.get(name).is_some_and(|datastore| datastore.is_connected());
        let me = Candidate {
            host: self.me.clone(),
            unusable: unusable(true, self.vms.is_well()).or((!mine).then_some(NO_DATASTORE)),
        };
        let peers = self.hosts.all().map(|peer| {
            let reaches = peer.heartbeat().is_some_and(|heartbeat| heartbeat.datastores.contains(name));
            let unusable = unusable_peer(peer).or((!reaches).then_some(NO_DATASTORE));
            Candidate { host: peer.host().clone(), unusable }
        });
        let mut all: Vec<Candidate> = [me].into_iter().chain(peers).collect();
        for candidate in &mut all {
            if self.settings.maintenance.contains_key(&candidate.host) {
                candidate.unusable = candidate.unusable.or(Some("in maintenance mode"));
            }
        }
        all
    }

    /// Hosts that can take VMs, each by itself and with each datastore that it reaches.
    pub(crate) fn takers(&self) -> BTreeSet<Taker> {
        let mut takers = BTreeSet::new();
        if self.vms.is_well() {
            let connected = self.datastores.connected().map(|datastore| datastore.name());
            takers.extend(Taker::all_of(self.me, connected));
        }
        for peer in self.hosts.members() {
            let Some(heartbeat) = peer.heartbeat().filter(|heartbeat| heartbeat.hypervisor_well) else {
                continue;
            };
            takers.extend(Taker::all_of(peer.host(), heartbeat.datastores.iter()));
        }
        takers
    }

    /// The cluster as placement sees it.
    pub(crate) fn scene(&self, now: Time) -> Scene {
        self.scene_under(self.settings, now)
    }

    /// The same, with other settings.
    pub(crate) fn scene_under(&self, settings: &Settings, now: Time) -> Scene {
        let others = self.hosts.all().map(|peer| self.peer_scene(peer));
        let hosts: Vec<HostScene> = [self.own_scene()].into_iter().chain(others).collect();
        let mut vms: Vec<VmScene<'_>> = Vec::new();
        for datastore in self.datastores.all() {
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
                    on: entry.desired == Desired::On,
                })),
                (None, None) => {}
            }
        }
        // Of two entries of one VM (R47) the last of these counts.
        vms.sort_by_key(|vm| (vm.vm, !(vm.on && vm.host.is_some()), !vm.on));
        vms.dedup_by_key(|vm| vm.vm);
        make_scene(&hosts, &vms, settings)
    }

    fn own_scene(&self) -> HostScene {
        HostScene {
            host: self.me.clone(),
            unusable: unusable(true, self.vms.is_well()),
            datastores: self.datastores.connected().map(|datastore| datastore.name().clone()).collect(),
            memory_mib: self.vms.capacity().memory_mib,
            memory_free_mib: self.vms.capacity().memory_free_mib,
            offers: self.vms.offers().cloned(),
        }
    }

    fn peer_scene(&self, peer: &Peer) -> HostScene {
        let mut seen = self.datastores.all().filter_map(|datastore| datastore.mirror().power_on(peer.host()));
        let heartbeat = peer.heartbeat();
        let capacity = heartbeat.map(|heartbeat| heartbeat.capacity).unwrap_or_default();
        HostScene {
            host: peer.host().clone(),
            unusable: unusable_peer(peer),
            datastores: heartbeat.map(|heartbeat| heartbeat.datastores.clone()).unwrap_or_default(),
            memory_mib: capacity.memory_mib,
            memory_free_mib: capacity.memory_free_mib,
            offers: seen.find_map(|seen| seen.list.offers.clone()),
        }
    }
}

fn unusable_peer(peer: &Peer) -> Option<&'static str> {
    let connected = peer.state() == crate::host_liveness::HostState::Connected;
    unusable(connected, peer.heartbeat().is_some_and(|heartbeat| heartbeat.hypervisor_well))
}

/// Why a host can't take a VM, if it can't.
fn unusable(connected: bool, hypervisor_well: bool) -> Option<&'static str> {
    match (connected, hypervisor_well) {
        (false, _) => Some("not connected"),
        (true, false) => Some("its libvirt does not answer"),
        (true, true) => None,
    }
}
