//! One other host as this one has seen it: its messages, network heartbeats and pings, and the judgement from these and the
//! datastore heartbeats (R10, R14).
//!
//! Invariant: evidence only ever moves forward. A judgement other than `Connected` is made only when the evidence is
//! conclusive. So a dying host goes from connected to failed without passing through states that it is not in.

use super::evidence::DiskEvidence;
use super::guarding::{Guarding, Said};
use super::pings::Pings;
use crate::event::Event;
use crate::host_liveness::{HostState, Observations, classify};
use crate::ids::{HostId, Incarnation};
use crate::message::{Heartbeat, Message};
use crate::out::Out;
use crate::time::{Span, Time};
use crate::timing::Timing;
use alloc::sync::Arc;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// How many former runs of a peer's agent are remembered, to drop messages of theirs that come late.
const FORMER_RUNS: usize = 8;

/// A run that was taken for a former one is the present one when so many messages of it come, each newer than the one before,
/// and none of the other. Fewer may be what the network held back of a dead run; should it have held back as many, the live run
/// wins in the same way.
const GOES_ON: u32 = 3;

/// Another host, as this one knows it: what was last heard of it, and how it is judged.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Peer {
    host: HostId,
    incarnation: Option<Incarnation>,
    former: Vec<Incarnation>,
    revenant: Option<Revenant>,
    sequence: u64,
    /// When its last network heartbeat arrived here (or an answer, when it is the primary).
    last_network: Option<Time>,
    /// Its last network heartbeat.
    heartbeat: Option<Heartbeat>,
    /// When that arrived.
    heartbeat_at: Time,
    pings: Pings,
    guarding: Guarding,
    state: HostState,
    since: Time,
    /// People know that it has other times than this host.
    differs: bool,
    /// It was judged while the judge reached nobody, and people were not alarmed for it.
    judged_cut_off: bool,
}

/// A former run that is heard although nothing comes from the present one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Revenant {
    run: Incarnation,
    /// Of its last message.
    sequence: u64,
    /// How often it was heard.
    heard: u32,
}

impl Peer {
    pub(crate) fn new(host: HostId, now: Time) -> Peer {
        Peer {
            host,
            incarnation: None,
            former: Vec::new(),
            revenant: None,
            sequence: 0,
            last_network: None,
            heartbeat: None,
            heartbeat_at: now,
            pings: Pings::new(now),
            guarding: Guarding::default(),
            state: HostState::Unknown,
            since: now,
            differs: false,
            judged_cut_off: false,
        }
    }

    /// Whether to take the message: not doubled, not overtaken, not of a former run of that agent.
    pub(crate) fn admits(&mut self, message: &Message) -> bool {
        if self.incarnation == Some(message.incarnation) {
            let newer = message.sequence > self.sequence;
            self.sequence = self.sequence.max(message.sequence);
            self.revenant = None;
            return newer;
        }
        if let Some(index) = self.former.iter().position(|run| *run == message.incarnation) {
            if !self.goes_on(message) {
                return false;
            }
            self.former.remove(index);
        }
        self.revenant = None;
        if let Some(previous) = self.incarnation.replace(message.incarnation) {
            self.former.push(previous);
            if self.former.len() > FORMER_RUNS {
                self.former.remove(0);
            }
        }
        self.sequence = message.sequence;
        true
    }

    /// R4: whether a run that was taken for a former one is the present one after all: a late datagram of a dead run had come first.
    fn goes_on(&mut self, message: &Message) -> bool {
        let run = message.incarnation;
        let heard = match &self.revenant {
            Some(before) if before.run == run => {
                if message.sequence <= before.sequence {
                    return false;
                }
                before.heard + 1
            }
            Some(_) | None => 1,
        };
        self.revenant = Some(Revenant { run, sequence: message.sequence, heard });
        heard >= GOES_ON
    }

    pub(crate) fn host(&self) -> &HostId {
        &self.host
    }

    pub(crate) fn state(&self) -> HostState {
        self.state
    }

    /// Since when it is in that state.
    pub(crate) fn since(&self) -> Time {
        self.since
    }

    /// What it said last. It says nothing about now when the host has gone silent since.
    pub(crate) fn heartbeat(&self) -> Option<&Heartbeat> {
        self.heartbeat.as_ref()
    }

    /// When that arrived.
    pub(crate) fn heartbeat_at(&self) -> Time {
        self.heartbeat_at
    }

    /// When any message of it last arrived.
    pub(crate) fn last_network(&self) -> Option<Time> {
        self.last_network
    }

    pub(crate) fn set_state(&mut self, state: HostState, now: Time) {
        if self.state != state {
            self.state = state;
            self.since = now;
        }
    }

    /// The run of its agent that was last heard.
    pub(crate) fn incarnation(&self) -> Option<Incarnation> {
        self.incarnation
    }

    pub(crate) fn on_heartbeat(&mut self, heartbeat: Heartbeat, now: Time) {
        self.heartbeat = Some(heartbeat);
        self.heartbeat_at = now;
    }

    /// Any message is a sign of life.
    pub(crate) fn on_message(&mut self, now: Time) {
        self.last_network = Some(now);
        self.guarding.on_heard();
        self.pings.on_heard();
    }

    /// What was heard under another primary says nothing any more: this host does not get everybody's heartbeats then.
    pub(crate) fn forget_network(&mut self) {
        self.last_network = None;
        self.heartbeat = None;
    }

    /// Another host judges it from now on.
    pub(crate) fn forget_judgement(&mut self, now: Time) {
        self.state = HostState::Unknown;
        self.since = now;
        self.heartbeat = None;
        // What people were told of its times ends with this host's part in it.
        self.differs = false;
        self.guarding.forget_told();
    }

    /// What it says of its guard.
    pub(crate) fn take_word(&mut self, said: Said, error: Option<&Arc<str>>, out: &mut Out<'_>) {
        self.guarding.take_in(&self.host, said, error, out);
    }

    /// Whether its guard freezes what it runs when its leases end. `lists`: what its power-on lists say of that.
    pub(crate) fn can_freeze(&self, lists: impl Iterator<Item = Said> + Clone) -> bool {
        self.guarding.can_freeze(&self.former, lists)
    }

    /// Whether it has answered a ping after its leases had ended.
    pub(crate) fn has_outlived(&self) -> bool {
        self.guarding.has_outlived()
    }

    /// Takes note of that.
    pub(crate) fn note_outlived(
        &mut self,
        disk: &DiskEvidence,
        watching_since: Time,
        timing: &Timing,
        now: Time,
    ) {
        let last = self.last_network.unwrap_or(watching_since);
        self.guarding.note_outlived(disk, last, self.pings.answer_sent(), timing, now);
    }

    /// Whether this host reached nobody when it judged that one.
    pub(crate) fn note_cut_off(&mut self, cut_off: bool) {
        self.judged_cut_off = cut_off;
    }

    /// Whether it was judged so, asked once.
    pub(crate) fn take_cut_off(&mut self) -> bool {
        core::mem::take(&mut self.judged_cut_off)
    }

    /// R14: a secondary with other times is an alarm.
    pub(crate) fn compare_times(&mut self, theirs: Option<Span>, ours: Span, out: &mut Out<'_>) {
        let differs = theirs.filter(|theirs| *theirs != ours);
        if core::mem::replace(&mut self.differs, differs.is_some()) == differs.is_some() {
            return;
        }
        let host = self.host.clone();
        out.event(match differs {
            Some(theirs) => Event::TimingDiffers { host, theirs, ours },
            None => Event::TimingAgrees { host },
        });
    }

    /// How long nothing has come from it. A watcher that has just begun counts from its beginning.
    pub(crate) fn network_silence(&self, watching_since: Time, now: Time) -> Span {
        now.since(self.last_network.unwrap_or(watching_since))
    }

    pub(crate) fn on_ping_done(&mut self, answered: bool, now: Time) {
        self.pings.on_done(answered, now);
    }

    /// It has not answered two pings in a row.
    pub(crate) fn misses_pings(&self) -> bool {
        self.pings.are_missed()
    }

    /// Whether it answers pings, as far as that is known: an answer says nothing any more after two resyncs.
    pub(crate) fn answers_pings(&self, timing: &Timing, now: Time) -> Option<bool> {
        let recent = |at: Time| now.since(at) < timing.resync().scaled(2, 1);
        if self.misses_pings() {
            return Some(false);
        }
        self.pings.answered().is_some_and(recent).then_some(true)
    }

    /// Whether to send a ping now (at most one is under way).
    pub(crate) fn take_ping(&mut self, interval: Span, now: Time) -> bool {
        self.pings.take(interval, now)
    }

    pub(crate) fn ping_deadline(&self) -> Option<Time> {
        self.pings.deadline()
    }

    /// The judgement, or `None` while the evidence is not conclusive.
    ///
    /// `disk`: what the datastores say, asked for only when the host is silent. `None` as well on a host that has stood
    /// still a moment ago: it finds nobody silent.
    ///
    /// R10: failed needs the failure time-out on both paths, counted from the last evidence *seen*, and two pings in a
    /// row that were not answered.
    pub(crate) fn judge(
        &self,
        disk: Option<DiskEvidence>,
        watching_since: Time,
        timing: &Timing,
        now: Time,
    ) -> Option<HostState> {
        let silence = self.network_silence(watching_since, now);
        if silence < timing.network_timeout() {
            self.last_network?;
            // Heard, but it does not follow this host (yet): certainly not failed, and no more can be said.
            return Some(if self.heartbeat.is_some() { HostState::Connected } else { HostState::Unknown });
        }
        let disk = disk?;
        let failure_timeout = timing.failure_timeout.max(disk.failure_timeout);
        let silent_since = self.last_network.unwrap_or(watching_since);
        let disk_since = silent_since + timing.heartbeat.scaled(2, 1);
        let alive_on_disk = disk.changed.is_some_and(|at| at >= disk_since)
            && disk.still.is_some_and(|still| still < failure_timeout);
        // Where no datastore can be read, the network alone has to do: three times as long.
        let dead_on_disk = match disk.still {
            Some(still) => still >= failure_timeout,
            None => silence >= failure_timeout.scaled(3, 1),
        };
        let ping = self.pings.answered().is_some_and(|at| at >= disk_since) && !self.misses_pings();
        let conclusive =
            alive_on_disk || (silence >= failure_timeout && dead_on_disk && (ping || self.misses_pings()));
        conclusive.then(|| {
            classify(Observations {
                network_heartbeat: false,
                datastore_heartbeat: alive_on_disk,
                ping,
                isolation_flag: disk.isolation_flag,
                agent_well: disk.agent_well,
                can_freeze: disk.can_freeze,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Incarnation, Message, Peer, Time};
    use crate::ids::HostId;
    use crate::message::Body;
    use alloc::vec::Vec;

    fn heard(peer: &mut Peer, run: u64, sequence: u64) -> bool {
        peer.admits(&Message {
            incarnation: Incarnation(run),
            sequence,
            files: None,
            body: Body::SteppingDown,
        })
    }

    #[test]
    fn a_late_datagram_of_a_dead_run_is_dropped() {
        let mut peer = Peer::new(HostId::new("host-2"), Time(0));
        assert!(heard(&mut peer, 1, 5));
        assert!(heard(&mut peer, 2, 1));
        for sequence in 6..30 {
            assert!(!heard(&mut peer, 1, sequence));
            assert!(heard(&mut peer, 2, sequence));
        }
        assert_eq!(peer.incarnation(), Some(Incarnation(2)));
    }

    #[test]
    fn a_run_that_goes_on_is_the_present_one_although_a_dead_one_was_heard_after_it() {
        let mut peer = Peer::new(HostId::new("host-2"), Time(0));
        assert!(heard(&mut peer, 2, 1));
        // This host had been restarted, and so had not known of that run.
        assert!(heard(&mut peer, 1, 90));
        let taken: Vec<bool> = [2, 2, 3, 3, 4, 5].into_iter().map(|at| heard(&mut peer, 2, at)).collect();
        assert_eq!(taken, [false, false, false, false, true, true], "doubled ones do not count");
        assert_eq!(peer.incarnation(), Some(Incarnation(2)));
        assert!(!heard(&mut peer, 1, 91));
    }
}
