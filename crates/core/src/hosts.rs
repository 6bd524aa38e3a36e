//! The other hosts as this one sees them: who is heard, who is silent, and what follows from it (R10 to R16).
//!
//! A primary judges everybody, from network heartbeats, datastore heartbeats and pings. A secondary watches its primary only.
//!
//! Invariant: evidence only ever moves forward, and a judgement needs conclusive evidence.
//! Invariant: while a host is not primary it has no judgement: its primary counts as connected, all others are unknown.
//!
//! It does not: read datastores (they say what they have seen), elect anybody, or decide about VMs.

mod awake;
mod evidence;
mod guarding;
mod peer;
mod pings;
mod storm;

use crate::effect::Effect;
use crate::election::Election;
use crate::event::Event;
use crate::host_liveness::HostState;
use crate::ids::{DatastoreName, HostId, Incarnation};
use crate::message::{Heartbeat, Message};
use crate::out::Out;
use crate::time::Time;
use crate::timers::{Deadline, Timer};
use crate::timing::Timing;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use awake::Awake;
pub(crate) use evidence::DiskEvidence;
pub(crate) use guarding::Said;
pub(crate) use peer::Peer;
use serde::{Deserialize, Serialize};
use storm::Storm;

/// The other hosts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Hosts {
    me: HostId,
    peers: BTreeMap<HostId, Peer>,
    storm: Storm,
    awake: Awake,
    #[cfg(feature = "broken-rules")]
    failed_stands: bool,
}

/// How this host stands to all others (R60).
pub(crate) struct Contact {
    /// No other host is heard, and none answers pings.
    pub(crate) alone: bool,
    /// A primary misses somebody whom it has heard before.
    pub(crate) quiet: bool,
}

impl Hosts {
    pub(crate) fn new(me: HostId, others: &[HostId], now: Time) -> Hosts {
        let peers = others.iter().map(|host| (host.clone(), Peer::new(host.clone(), now))).collect();
        Hosts {
            me,
            peers,
            storm: Storm::default(),
            awake: Awake::default(),
            #[cfg(feature = "broken-rules")]
            failed_stands: false,
        }
    }

    /// A rule is broken on purpose.
    #[cfg(feature = "broken-rules")]
    pub(crate) fn let_failed_stand(&mut self) {
        self.failed_stands = true;
    }

    // What is known.

    /// The other hosts' names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &HostId> {
        self.peers.keys()
    }

    /// How many other hosts there are.
    pub(crate) fn count(&self) -> usize {
        self.peers.len()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Peer> {
        self.peers.values()
    }

    pub(crate) fn get(&self, host: &HostId) -> Option<&Peer> {
        self.peers.get(host)
    }

    /// Whether it is a host of this cluster.
    pub(crate) fn knows(&self, host: &HostId) -> bool {
        *host == self.me || self.peers.contains_key(host)
    }

    /// The judgement of a host; this one is connected to itself.
    pub(crate) fn state(&self, host: &HostId) -> Option<HostState> {
        if *host == self.me {
            return Some(HostState::Connected);
        }
        self.peers.get(host).map(Peer::state)
    }

    /// All judgements, with this host's own.
    pub(crate) fn states(&self) -> BTreeMap<HostId, HostState> {
        let others = self.peers.values().map(|peer| (peer.host().clone(), peer.state()));
        others.chain([(self.me.clone(), HostState::Connected)]).collect()
    }

    /// The hosts that this one's heartbeats connect it with.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Peer> {
        self.peers.values().filter(|peer| peer.state() == HostState::Connected)
    }

    /// The names of those whose state is one of these.
    pub(crate) fn in_state(&self, is_it: impl Fn(HostState) -> bool) -> Vec<HostId> {
        let those = self.peers.values().filter(|peer| is_it(peer.state()));
        those.map(|peer| peer.host().clone()).collect()
    }

    /// What a host said last, if it is connected.
    pub(crate) fn member_heartbeat(&self, host: &HostId) -> Option<&Heartbeat> {
        self.peers.get(host).filter(|peer| peer.state() == HostState::Connected)?.heartbeat()
    }

    /// It is heard, and what has become of its VMs does not reach that datastore.
    pub(crate) fn cannot_write(&self, host: &HostId, datastore: &DatastoreName) -> bool {
        let heartbeat = self.peers.get(host).and_then(Peer::heartbeat);
        heartbeat.is_some_and(|heartbeat| {
            heartbeat.unwritten.contains(datastore) || !heartbeat.datastores.contains(datastore)
        })
    }

    // What is heard.

    /// Whether to take a message in: it comes from a host of this cluster and is not doubled, overtaken or of a former run.
    /// Any such message is a sign of life.
    pub(crate) fn admits(&mut self, from: &HostId, message: &Message, now: Time) -> bool {
        let Some(peer) = self.peers.get_mut(from) else { return false };
        let admitted = peer.admits(message);
        if admitted {
            peer.on_message(now);
        }
        admitted
    }

    pub(crate) fn on_ping_done(&mut self, host: &HostId, answered: bool, now: Time) {
        if let Some(peer) = self.peers.get_mut(host) {
            peer.on_ping_done(answered, now);
        }
    }

    pub(crate) fn on_heartbeat(
        &mut self,
        from: &HostId,
        run: Incarnation,
        heartbeat: Heartbeat,
        timing: &Timing,
        out: &mut Out<'_>,
    ) {
        if let Some(peer) = self.peers.get_mut(from) {
            peer.take_word(Said { run, word: heartbeat.guard }, heartbeat.guard_error.as_ref(), out);
            peer.compare_times(heartbeat.failure_timeout, timing.failure_timeout, out);
            peer.on_heartbeat(heartbeat, out.now);
        }
    }

    // What is forgotten when the election turns.

    /// From here on everybody is watched. Until now only the primary was heard directly, and it is silent.
    pub(crate) fn watch_anew(&mut self, election: &Election, timing: &Timing, now: Time) {
        for peer in self.peers.values_mut() {
            if peer.network_silence(election.watching_since(), now) > timing.failure_timeout {
                peer.forget_network();
            }
        }
    }

    /// Somebody else is primary: this host judges nobody any more.
    pub(crate) fn forget_judgements(&mut self, now: Time) {
        for peer in self.peers.values_mut() {
            peer.forget_judgement(now);
        }
    }

    // R16.

    /// Before a step: whether this host has stood still until now.
    pub(crate) fn notice_standstill(&mut self, before: Time, now: Time, timing: &Timing) -> bool {
        self.awake.notice(before, now, timing)
    }

    // Who is silent.

    /// The hosts that this one watches by itself: a secondary only its primary, others everybody.
    fn watched(&self, election: &Election) -> impl Iterator<Item = &Peer> {
        let only = if election.is_primary() { None } else { election.primary() };
        self.peers.values().filter(move |peer| only.is_none_or(|host| host == peer.host()))
    }

    /// Pings those of whom nothing was heard for a while.
    pub(crate) fn ping_the_quiet(&mut self, election: &Election, timing: &Timing, out: &mut Out<'_>) {
        let quiet = |peer: &&Peer| is_quiet(peer, election, timing, out.now);
        let quiet: Vec<HostId> =
            self.watched(election).filter(quiet).map(|peer| peer.host().clone()).collect();
        for host in quiet {
            let Some(peer) = self.peers.get_mut(&host) else { continue };
            let interval =
                if is_settled(peer.state()) { timing.resync() } else { timing.heartbeat.scaled(1, 2) };
            if peer.take_ping(interval, out.now) {
                out.effects.push(Effect::Ping { host });
            }
        }
    }

    /// R60: whether this host reaches anybody.
    pub(crate) fn contact(&self, election: &Election, timing: &Timing, now: Time) -> Contact {
        let silence = |peer: &Peer| peer.network_silence(election.watching_since(), now);
        let mute = |peer: &Peer| silence(peer) >= timing.network_timeout() && peer.misses_pings();
        let missed = |peer: &Peer| silence(peer) >= timing.suspicion() && peer.last_network().is_some();
        Contact {
            alone: !self.peers.is_empty() && self.peers.values().all(mute),
            quiet: election.is_primary() && self.peers.values().any(missed),
        }
    }

    /// Somebody whom this host watches is silent and was not judged for it yet.
    pub(crate) fn are_suspicious(&self, election: &Election, timing: &Timing, now: Time) -> bool {
        let quiet = |peer: &Peer| is_quiet(peer, election, timing, now);
        if election.is_primary() {
            return self.peers.values().any(|peer| quiet(peer) && !is_settled(peer.state()));
        }
        let primary = election.primary().and_then(|host| self.peers.get(host));
        primary.is_none_or(quiet)
    }

    // Judgements.

    /// Judges everybody, as primary. Returns whether a judgement has changed.
    ///
    /// `evidence`: what the datastores say of a host. It is asked only about hosts that are silent, or whose state changes: that
    /// of all hosts on all datastores in each step costs a primary more than all else.
    /// `cut_off`: this host reaches nobody itself. What it finds silent is no alarm then.
    pub(crate) fn judge(
        &mut self,
        election: &Election,
        evidence: impl Fn(&Peer) -> DiskEvidence,
        cut_off: bool,
        timing: &Timing,
        out: &mut Out<'_>,
    ) -> bool {
        if !election.is_primary() {
            self.judge_nobody(election.primary(), out.now);
            return false;
        }
        let watching_since = election.watching_since();
        let just_awake = self.awake.is_recent(timing, out.now);
        if !just_awake {
            self.watch_for_storm(watching_since, timing, out);
        }
        let mut changed = false;
        for peer in self.peers.values_mut() {
            let silence = peer.network_silence(watching_since, out.now);
            // R16: a failed host that shows itself again is not failed, also to a host that finds nobody silent just now.
            let failed = peer.state() == HostState::Failed;
            #[cfg(feature = "broken-rules")]
            let failed = failed && !self.failed_stands;
            let asked = silence >= timing.network_timeout() && (failed || !just_awake);
            let mut disk = asked.then(|| evidence(peer));
            if let Some(disk) = &mut disk {
                if !just_awake {
                    peer.note_outlived(disk, watching_since, timing, out.now);
                }
                disk.can_freeze &= disk.confirmed_down || !peer.has_outlived();
            }
            let judged = peer.judge(disk, watching_since, timing, out.now);
            let moved = failed && disk.is_some_and(|disk| disk.has_moved(timing));
            let judged = judged.or(moved.then_some(HostState::Unknown));
            // R12: in a storm a host is called failed only after a second time-out with pings all along.
            let second_look = silence >= timing.storm_timeout();
            let judged =
                judged.filter(|state| *state != HostState::Failed || !self.storm.is_on() || second_look);
            let Some(state) = judged.filter(|state| *state != peer.state()) else { continue };
            let changed_at = disk.unwrap_or_else(|| evidence(peer)).changed.unwrap_or_default();
            let silent_since = peer.last_network().unwrap_or(watching_since).max(changed_at);
            out.event(Event::HostStateChanged {
                host: peer.host().clone(),
                from: peer.state(),
                to: state,
                last_evidence: out.now.since(silent_since),
                cut_off,
            });
            peer.set_state(state, out.now);
            peer.note_cut_off(cut_off);
            changed = true;
        }
        self.tell_of_those_still_gone(cut_off, watching_since, out);
        changed
    }

    /// This host is in contact again. Whom it has found silent meanwhile, and still does, is an alarm now.
    fn tell_of_those_still_gone(&mut self, cut_off: bool, watching_since: Time, out: &mut Out<'_>) {
        for peer in self.peers.values_mut() {
            if !cut_off && peer.take_cut_off() && is_settled(peer.state()) {
                let (host, state) = (peer.host().clone(), peer.state());
                let last_evidence = out.now.since(peer.last_network().unwrap_or(watching_since));
                out.event(Event::HostStateChanged { host, from: state, to: state, last_evidence, cut_off });
            }
        }
    }

    fn judge_nobody(&mut self, primary: Option<&HostId>, now: Time) {
        for peer in self.peers.values_mut() {
            let follows = primary == Some(peer.host());
            peer.set_state(if follows { HostState::Connected } else { HostState::Unknown }, now);
        }
    }

    fn watch_for_storm(&mut self, watching_since: Time, timing: &Timing, out: &mut Out<'_>) {
        let newly_silent = |peer: &&Peer| {
            peer.network_silence(watching_since, out.now) >= timing.network_timeout()
                && !is_settled(peer.state())
        };
        let silent = self.peers.values().filter(newly_silent).count();
        self.storm.watch(silent, self.peers.len(), out);
    }

    /// What must be true after each step. Panics otherwise.
    pub(crate) fn check(&self, election: &Election) {
        if election.is_primary() {
            return;
        }
        for peer in self.peers.values() {
            let follows = election.primary() == Some(peer.host());
            let expected = if follows { HostState::Connected } else { HostState::Unknown };
            assert_eq!(peer.state(), expected, "{}: who is not primary judges nobody", peer.host());
        }
    }

    /// When to look at the others again although nothing comes from them.
    pub(crate) fn deadline(&self, election: &Election, timing: &Timing, now: Time) -> Deadline<'_> {
        let limits =
            [timing.suspicion(), timing.network_timeout(), timing.failure_timeout, timing.storm_timeout()];
        let awake = self.awake.deadline(timing, now).map(|at| Deadline::new(at, Timer::Awake));
        let mut due = awake.unwrap_or(Deadline::NEVER);
        for peer in self.watched(election) {
            if let Some(at) = peer.ping_deadline().filter(|_| is_quiet(peer, election, timing, now)) {
                due = due.or(Deadline::new(at, Timer::Ping(peer.host())));
            }
            let silent_since = peer.last_network().unwrap_or(election.watching_since());
            let next = limits.into_iter().map(|limit| silent_since + limit).filter(|at| *at > now).min();
            if let Some(at) = next {
                due = due.or(Deadline::new(at, Timer::Silence(peer.host())));
            }
        }
        due
    }
}

fn is_quiet(peer: &Peer, election: &Election, timing: &Timing, now: Time) -> bool {
    peer.network_silence(election.watching_since(), now) >= timing.suspicion()
}

/// It was judged for its silence.
fn is_settled(state: HostState) -> bool {
    match state {
        HostState::Connected | HostState::Unknown => false,
        HostState::Partitioned
        | HostState::Isolated
        | HostState::AgentUnreachable
        | HostState::Unguarded
        | HostState::Failed => true,
    }
}
