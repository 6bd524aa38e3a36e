//! Watching the other hosts: pings, evidence, judgements.

use super::*;

impl Core {
    /// The peers that this host watches by itself: a secondary only its primary, others everybody.
    pub(super) fn watched(&self) -> impl Iterator<Item = &Peer> {
        let only = match &self.election.standing {
            Standing::Secondary { primary, .. } => Some(primary),
            Standing::Candidate { .. } | Standing::Primary { .. } => None,
        };
        self.peers.values().filter(move |peer| only.is_none_or(|host| *host == peer.host))
    }

    pub(super) fn is_quiet(&self, peer: &Peer, now: Time) -> bool {
        peer.network_silence(self.election.watching_since, now) >= self.config.timing.suspicion()
    }

    /// Pings those of whom nothing was heard for a while.
    pub(super) fn ping_the_quiet(&mut self, out: &mut Out<'_>) {
        let timing = self.config.timing;
        let quiet: Vec<HostId> = self
            .watched()
            .filter(|peer| self.is_quiet(peer, out.now))
            .map(|peer| peer.host.clone())
            .collect();
        for host in quiet {
            let Some(peer) = self.peers.get_mut(&host) else { continue };
            let known = match peer.state {
                HostState::Connected | HostState::Unknown => false,
                HostState::Partitioned
                | HostState::Isolated
                | HostState::AgentUnreachable
                | HostState::Failed => true,
            };
            let interval = if known { timing.resync() } else { timing.heartbeat.scaled(1, 2) };
            if peer.take_ping(interval, out.now) {
                out.effects.push(Effect::Ping { host });
            }
        }
    }

    /// Judges everybody, as primary.
    pub(super) fn judge(&mut self, out: &mut Out<'_>) {
        let timing = self.config.timing;
        let watching_since = self.election.watching_since;
        self.states.insert(self.config.me.clone(), HostState::Connected);
        if !self.election.is_primary() {
            let primary = self.election.primary().cloned();
            for peer in self.peers.values_mut() {
                let state = if Some(&peer.host) == primary.as_ref() {
                    HostState::Connected
                } else {
                    HostState::Unknown
                };
                if peer.state != state {
                    peer.state = state;
                    peer.since = out.now;
                }
                self.states.insert(peer.host.clone(), state);
            }
            return;
        }
        let mut changed = false;
        for peer in self.peers.values_mut() {
            let mut disk = DiskEvidence::default();
            for datastore in self.datastores.values() {
                let Some(evidence) = datastore.evidence(&peer.host, out.now) else { continue };
                disk.still = Some(disk.still.map_or(evidence.still, |still| Some(still).min(evidence.still)))
                    .flatten();
                disk.changed = disk.changed.max(evidence.changed);
                disk.isolation_flag |= evidence.isolation_flag;
                disk.agent_well |= evidence.agent_well;
            }
            if let Some(state) = peer.judge(disk, watching_since, &timing, out.now)
                && state != peer.state
            {
                let silent_since =
                    peer.last_network.unwrap_or(watching_since).max(disk.changed.unwrap_or_default());
                out.event(Event::HostStateChanged {
                    host: peer.host.clone(),
                    from: peer.state,
                    to: state,
                    last_evidence: out.now.since(silent_since),
                });
                peer.state = state;
                peer.since = out.now;
                changed = true;
            }
            self.states.insert(peer.host.clone(), peer.state);
        }
        if changed {
            for datastore in self.datastores.values_mut() {
                datastore.review_wanted = true;
            }
        }
    }

    /// Somebody is silent who was not judged for it yet, or a datastore is still to be owned.
    pub(super) fn is_suspicious(&self, now: Time) -> bool {
        if self.election.is_primary() {
            let unowned = self.datastores.values().any(|store| store.connected && store.list.is_none());
            let unsettled = |peer: &Peer| matches!(peer.state, HostState::Connected | HostState::Unknown);
            let silent = |peer: &&Peer| self.is_quiet(peer, now) && unsettled(peer);
            return unowned || self.peers.values().find(silent).is_some();
        }
        let primary = self.election.primary().and_then(|host| self.peers.get(host));
        primary.is_none_or(|peer| self.is_quiet(peer, now))
    }
}
