//! The other hosts as this one has seen them: network heartbeats, pings, and the judgement from both and the datastore heartbeats.
//!
//! Invariant: evidence only ever moves forward; a judgement other than `Connected` is made only when the evidence is
//! conclusive, so that a dying host goes from connected to failed without passing through states that it is not in.

use crate::host_liveness::{HostState, Observations, classify};
use crate::ids::{HostId, Incarnation};
use crate::message::{Heartbeat, Message};
use crate::time::{Span, Time};
use crate::timing::Timing;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// How many former runs of a peer's agent are remembered, to drop messages of theirs that come late.
const FORMER_RUNS: usize = 8;

/// A run that was taken for a former one is the present one when so many messages of it come, each newer than the one before,
/// and none of the other. Fewer may be what the network held back of a dead run; should it have held back as many, the live run
/// wins in the same way.
const GOES_ON: u32 = 3;

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Peer {
    pub(crate) host: HostId,
    incarnation: Option<Incarnation>,
    former: Vec<Incarnation>,
    /// A former run that is heard although nothing comes from the present one: its last sequence, and how often it was heard.
    revenant: Option<(Incarnation, u64, u32)>,
    sequence: u64,
    /// When its last network heartbeat arrived here (or an answer, when it is the primary).
    pub(crate) last_network: Option<Time>,
    /// Its last network heartbeat.
    pub(crate) heartbeat: Option<Heartbeat>,
    /// When that arrived.
    pub(crate) heartbeat_at: Time,
    ping_in_flight: bool,
    ping_due: Time,
    pub(crate) ping_answered: Option<Time>,
    /// Pings in a row without an answer.
    pub(crate) pings_missed: u32,
    pub(crate) state: HostState,
    pub(crate) since: Time,
    /// People know that it has other times than this host.
    pub(crate) differs: bool,
}

/// What the datastores say of a host: over all that can be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct DiskEvidence {
    /// The shortest time for which a register of it was seen to stand still, from the answer of the first read that saw
    /// its present value to the start of the last read that still did. `None`: no datastore could be read.
    pub(crate) still: Option<Span>,
    /// When a change was last seen.
    pub(crate) changed: Option<Time>,
    pub(crate) isolation_flag: bool,
    /// Its guard says that the agent is well.
    pub(crate) agent_well: bool,
    /// The longest failure time-out that it has written anywhere (R14).
    pub(crate) failure_timeout: Span,
    /// It beats slowly there.
    pub(crate) slow: bool,
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
            ping_in_flight: false,
            ping_due: now,
            ping_answered: None,
            pings_missed: 0,
            state: HostState::Unknown,
            since: now,
            differs: false,
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

    /// Whether a run that was taken for a former one is the present one after all: a late datagram of a dead run had come first.
    fn goes_on(&mut self, message: &Message) -> bool {
        let heard = match self.revenant {
            Some((run, sequence, heard)) if run == message.incarnation => {
                if message.sequence <= sequence {
                    return false;
                }
                heard + 1
            }
            Some(_) | None => 1,
        };
        self.revenant = Some((message.incarnation, message.sequence, heard));
        heard >= GOES_ON
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
        self.pings_missed = 0;
    }

    /// What was heard under another primary says nothing any more: this host does not get everybody's heartbeats then.
    pub(crate) fn forget_network(&mut self) {
        self.last_network = None;
        self.heartbeat = None;
    }

    /// How long nothing has come from it. A watcher that has just begun counts from its beginning.
    pub(crate) fn network_silence(&self, watching_since: Time, now: Time) -> Span {
        now.since(self.last_network.unwrap_or(watching_since))
    }

    pub(crate) fn on_ping_done(&mut self, answered: bool, now: Time) {
        self.ping_in_flight = false;
        if answered {
            self.ping_answered = Some(now);
            self.pings_missed = 0;
        } else {
            self.pings_missed = self.pings_missed.saturating_add(1);
        }
    }

    /// Whether to send a ping now (at most one is under way).
    pub(crate) fn take_ping(&mut self, interval: Span, now: Time) -> bool {
        if self.ping_in_flight || now < self.ping_due {
            return false;
        }
        self.ping_in_flight = true;
        self.ping_due = now + interval;
        true
    }

    pub(crate) fn ping_deadline(&self) -> Option<Time> {
        (!self.ping_in_flight).then_some(self.ping_due)
    }

    /// The judgement, or `None` while the evidence is not conclusive.
    ///
    /// R10: failed needs the failure time-out on both paths, counted from the last evidence *seen*, and two pings in a
    /// row that were not answered. R16: nobody is found silent by a host that has stood still a moment ago.
    pub(crate) fn judge(
        &self,
        disk: DiskEvidence,
        watching_since: Time,
        just_awake: bool,
        timing: &Timing,
        now: Time,
    ) -> Option<HostState> {
        let silence = self.network_silence(watching_since, now);
        let failure_timeout = timing.failure_timeout.max(disk.failure_timeout);
        if silence < timing.network_timeout() {
            self.last_network?;
            // Heard, but it does not follow this host (yet): certainly not failed, and no more can be said.
            return Some(if self.heartbeat.is_some() { HostState::Connected } else { HostState::Unknown });
        }
        if just_awake {
            return None;
        }
        let silent_since = self.last_network.unwrap_or(watching_since);
        let disk_since = silent_since + timing.heartbeat.scaled(2, 1);
        let alive_on_disk = disk.changed.is_some_and(|at| at >= disk_since)
            && disk.still.is_some_and(|still| still < failure_timeout);
        // Where no datastore can be read, the network alone has to do: three times as long.
        let dead_on_disk = match disk.still {
            Some(still) => still >= failure_timeout,
            None => silence >= failure_timeout.scaled(3, 1),
        };
        let ping = self.ping_answered.is_some_and(|at| at >= disk_since) && self.pings_missed < 2;
        let conclusive =
            alive_on_disk || (silence >= failure_timeout && dead_on_disk && (ping || self.pings_missed >= 2));
        conclusive.then(|| {
            classify(Observations {
                network_heartbeat: false,
                datastore_heartbeat: alive_on_disk,
                ping,
                isolation_flag: disk.isolation_flag,
                agent_well: disk.agent_well,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Body;

    fn heard(peer: &mut Peer, run: u64, sequence: u64) -> bool {
        peer.admits(&Message { incarnation: Incarnation(run), sequence, body: Body::SteppingDown })
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
