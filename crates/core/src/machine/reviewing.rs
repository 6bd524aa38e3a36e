//! The owner's decisions: what it sees when it makes them, and when it does.

use super::*;

impl Core {
    pub(super) fn candidates(&self, name: &DatastoreName) -> Vec<Candidate> {
        let mine = self.datastores.get(name).is_some_and(|datastore| datastore.connected);
        let me = Candidate {
            host: self.config.me.clone(),
            unusable: unusable(true, self.vms.is_well(), mine),
            memory_free_mib: self.vms.capacity.memory_free_mib,
            domains: self.vms.capacity.domains,
        };
        let peers = self.peers.values().map(|peer| {
            let heartbeat = peer.heartbeat.as_ref();
            let reaches = heartbeat.is_some_and(|heartbeat| heartbeat.datastores.contains(name));
            let well = heartbeat.is_some_and(|heartbeat| heartbeat.hypervisor_well);
            let capacity = heartbeat.map(|heartbeat| heartbeat.capacity).unwrap_or_default();
            Candidate {
                host: peer.host.clone(),
                unusable: unusable(peer.state == HostState::Connected, well, reaches),
                memory_free_mib: capacity.memory_free_mib,
                domains: capacity.domains,
            }
        });
        [me].into_iter().chain(peers).collect()
    }

    /// The owner's decisions, where something may have changed.
    pub(super) fn review(&mut self, out: &mut Out<'_>) {
        for name in self.config.datastores.clone() {
            let Some(datastore) = self.datastores.get(&name) else { continue };
            let last = self.last_review(&name);
            let held = out.now < datastore.hold_until;
            let overdue =
                datastore.list.as_ref().is_some_and(|list| {
                    list.deadline(&self.config.timing, last).is_some_and(|at| at <= out.now)
                }) || (!held && last < datastore.hold_until);
            let owned = datastore.ownership.epoch(out.now).is_some();
            if !owned || datastore.list.is_none() || !(datastore.review_wanted || overdue) {
                continue;
            }
            let candidates = self.candidates(&name);
            let mut states = self.states.clone();
            if held {
                // R24: it may still hold a lease that the former owner granted by network.
                states.values_mut().filter(|state| **state == HostState::Failed).for_each(|state| {
                    *state = HostState::Unknown;
                });
            }
            let Some(datastore) = self.datastores.get_mut(&name) else { continue };
            datastore.review_wanted = false;
            datastore.reviewed = out.now;
            let power_on = datastore.power_on_lists(out.now);
            let heartbeat_read = datastore.heartbeat_reads();
            let mut complete: BTreeSet<&HostId> = BTreeSet::new();
            let mut current: BTreeSet<HostId> = BTreeSet::from([self.config.me.clone()]);
            for (host, seen) in &power_on {
                let Some(peer) = self.peers.get(host) else { continue };
                let alive = match peer.state {
                    HostState::Connected => peer.incarnation(),
                    HostState::Partitioned | HostState::Isolated => datastore.heartbeat_incarnation(host),
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
                let heartbeat = peer.heartbeat.as_ref().filter(|_| peer.state == HostState::Connected);
                let reaches = peer.state != HostState::Connected
                    || heartbeat.is_none_or(|heartbeat| heartbeat.datastores.contains(&name));
                let unwritten = heartbeat.is_some_and(|heartbeat| heartbeat.unwritten.contains(&name));
                let shows = complete.contains(&peer.host)
                    && heartbeat.is_none_or(|heartbeat| heartbeat.hypervisor_well);
                !failed(&peer.host) && (unwritten || (reaches && !shows))
            };
            let others = self.peers.values().filter(dark).map(|peer| peer.host.clone());
            let blind = !self.vms.is_well() || datastore.is_unwritten(self.vms.domains());
            let dark: Vec<HostId> = others.chain(blind.then(|| self.config.me.clone())).collect();
            let kept = |(host, seen): &(&HostId, &PowerOnSeen)| {
                **host == self.config.me || datastore.was_well(host, seen.list.incarnation)
            };
            let watched = power_on.iter().filter(kept).map(|(host, _)| host.clone()).collect();
            let side = OwnerSide {
                me: &self.config.me,
                timing: &self.config.timing,
                power_on: &power_on,
                states: &states,
                heartbeat_read: &heartbeat_read,
                candidates: &candidates,
                current: &current,
                dark: &dark,
                watched: &watched,
                anchored: self.isolation.is_anchored(&self.config.timing, out.now),
                isolation_response: self.config.isolation_response,
            };
            if let Some(list) = &mut datastore.list {
                list.review(&side, out);
            }
            datastore.write_list(out);
        }
    }

    pub(super) fn last_review(&self, name: &DatastoreName) -> Time {
        self.datastores.get(name).map(|datastore| datastore.reviewed).unwrap_or_default()
    }
}

fn unusable(connected: bool, hypervisor_well: bool, reaches: bool) -> Option<&'static str> {
    match (connected, hypervisor_well, reaches) {
        (false, _, _) => Some("not connected"),
        (true, false, _) => Some("its libvirt does not answer"),
        (true, true, false) => Some("it does not reach the datastore"),
        (true, true, true) => None,
    }
}
