//! Watching the other hosts: pings, evidence, judgements.

use super::*;
use crate::heartbeat_datastores::choose;
use crate::time::Span;

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
        if self.is_just_awake(out.now) {
            return self.storm;
        }
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
        let just_awake = self.is_just_awake(out.now);
        for peer in self.peers.values_mut() {
            let mut disk = DiskEvidence::default();
            let of = |datastore: &Datastore| datastore.evidence(&peer.host, out.now);
            let all: Vec<DiskEvidence> = self.datastores.values().filter_map(of).collect();
            // R13: where it beats in full it is missed soonest; an agent that is well beats in full elsewhere when it loses one.
            let full = all.iter().any(|evidence| !evidence.slow);
            for evidence in all.into_iter().filter(|evidence| !full || !evidence.slow) {
                disk.still = Some(disk.still.map_or(evidence.still, |still| Some(still).min(evidence.still)))
                    .flatten();
                disk.changed = disk.changed.max(evidence.changed);
                disk.isolation_flag |= evidence.isolation_flag;
                disk.agent_well |= evidence.agent_well;
                disk.failure_timeout = disk.failure_timeout.max(evidence.failure_timeout);
            }
            let judged = peer.judge(disk, watching_since, just_awake, &timing, out.now);
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

    /// R13: the primary's choice.
    pub(super) fn choose_heartbeat_datastores(&mut self, out: &mut Out<'_>) {
        if !self.election.is_primary() || out.now < self.heartbeat_datastores.due {
            return;
        }
        self.heartbeat_datastores.due = out.now + self.config.timing.heartbeat;
        let members: Vec<&Peer> =
            self.peers.values().filter(|peer| peer.state == HostState::Connected).collect();
        let reach = self.datastores.iter().map(|(name, datastore)| {
            let reaches = |peer: &&&Peer| {
                peer.heartbeat.as_ref().is_some_and(|heartbeat| heartbeat.datastores.contains(name))
            };
            (name.clone(), members.iter().filter(reaches).count() + usize::from(datastore.connected))
        });
        let (reach, present) = (reach.collect::<Vec<_>>(), &self.heartbeat_datastores.chosen);
        let chosen = choose(&reach, present, &self.config.heartbeat_datastores);
        if chosen != *present && !chosen.is_empty() {
            self.heartbeat_datastores.chosen = chosen.clone();
            out.event(Event::HeartbeatDatastoresChosen { datastores: chosen });
        }
    }

    /// R13: how often this host beats where.
    pub(super) fn set_paces(&mut self, out: &mut Out<'_>) {
        let chosen = &self.heartbeat_datastores.chosen;
        let count = self.config.heartbeat_datastores.count as usize;
        let few = self.datastores.len() <= count || chosen.is_empty();
        let reached =
            chosen.iter().filter(|name| self.datastores.get(*name).is_some_and(|store| store.connected));
        let mut missing = count.saturating_sub(reached.count());
        for (name, datastore) in &mut self.datastores {
            let mut fast = few || chosen.contains(name);
            if !fast && missing > 0 && datastore.connected {
                missing -= 1;
                fast = true;
            }
            let slow = !fast && !datastore.is_used();
            datastore.set_pace(slow, out.now);
            self.guard.pace(name, slow, out);
        }
    }

    /// R14: a secondary with other times is an alarm.
    pub(super) fn compare_times(&mut self, host: &HostId, theirs: Option<Span>, out: &mut Out<'_>) {
        let ours = self.config.timing.failure_timeout;
        let Some(peer) = self.peers.get_mut(host) else { return };
        let differs = theirs.filter(|theirs| *theirs != ours);
        if core::mem::replace(&mut peer.differs, differs.is_some()) == differs.is_some() {
            return;
        }
        let host = host.clone();
        out.event(match differs {
            Some(theirs) => Event::TimingDiffers { host, theirs, ours },
            None => Event::TimingAgrees { host },
        });
    }
}
