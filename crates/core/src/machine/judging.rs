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

    /// R60: whether this host reaches anybody.
    pub(super) fn look_for_contact(&mut self, out: &mut Out<'_>) {
        let timing = self.config.timing;
        let silent = |peer: &Peer, limit| {
            peer.network_silence(self.election.watching_since, out.now) >= limit
                && peer.last_network.is_none_or(|at| out.now.since(at) >= limit)
        };
        let mute = |peer: &Peer| silent(peer, timing.network_timeout()) && peer.pings_missed >= 2;
        let alone = !self.peers.is_empty() && self.peers.values().all(mute);
        let quiet = self.election.is_primary()
            && self
                .peers
                .values()
                .any(|peer| silent(peer, timing.suspicion()) && peer.last_network.is_some());
        self.isolation.tick(alone, quiet, &timing, out);
    }

    /// R12: whether most other hosts have gone silent at once. Says so when it begins and when it is over.
    fn watch_for_storm(&mut self, out: &mut Out<'_>) -> bool {
        let (timing, watching_since) = (self.config.timing, self.election.watching_since);
        let newly_silent = |peer: &&Peer| {
            peer.network_silence(watching_since, out.now) >= timing.network_timeout()
                && matches!(peer.state, HostState::Connected | HostState::Unknown)
        };
        let silent = self.peers.values().filter(newly_silent).count();
        let of = self.peers.len();
        let storm = silent >= 2 && silent * 2 > of;
        if storm && !self.storm {
            let (silent, of) = (silent as u32, of as u32);
            out.event(Event::StormSuspected { silent, of });
        } else if self.storm && silent == 0 {
            out.event(Event::StormOver);
        }
        // It lasts until everybody has been judged: the first one's judgement is not the end of it.
        self.storm = storm || (self.storm && silent > 0);
        self.storm
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
        let storm = self.watch_for_storm(out);
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
            let judged = peer.judge(disk, watching_since, &timing, out.now);
            // R12: in a storm a host is called failed only after a second time-out with pings all along.
            let second_look = peer.network_silence(watching_since, out.now) >= timing.storm_timeout();
            let judged = judged.filter(|state| *state != HostState::Failed || !storm || second_look);
            if let Some(state) = judged
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
