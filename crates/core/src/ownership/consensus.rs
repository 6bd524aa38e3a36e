//! R20 to R22: who owns a datastore, chosen by Disk Paxos (Gafni and Lamport) over single-writer blocks, one for each host.
//!
//! An owner beats in its own block. Its ownership lasts one lease from the *start* of the last beat that was written.
//!
//! - R20: one contends for epoch n+1 only when the owner of epoch n released it, is an earlier run of oneself, or was seen to
//!   stand still for the failure time-out.
//! - R21: a contender reads all blocks once more after its own phase-one write has landed. If the former owner's changed, or an
//!   owner of a later epoch beats, it gives up.
//! - R22: a new owner, or one whose ownership lapsed, acts only after it wrote its beat and *then* read all blocks and
//!   found none of a later epoch.
//!
//! The arguments are in docs/internals/protocol/ownership.md.
//!
//! It does not: read or write anything itself. The datastore around it does, and hands over what was read.

use crate::files::FilesDigest;
use crate::ids::{BootId, Epoch, HostId, Incarnation};
use crate::register::{Accepted, Ballot, OwnerBeat, OwnershipBlock};
use crate::store::Blocks;
use crate::time::{Span, Time};
use crate::timing::Timing;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use serde::{Deserialize, Serialize};

/// Where this host stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum Stage {
    /// Not the owner; contends no sooner than at that time.
    Idle { not_before: Time },
    /// A phase's write is under way.
    Writing(Phase),
    /// A phase's write is on disk; the read after it is under way.
    Reading(Phase),
    /// The owner, until `lease_end`.
    Owned { lease_end: Time },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum Phase {
    /// Phase one of Disk Paxos. `witness` is the former owner's block as it stood still, `epoch` the last that was owned.
    One { witness: Option<Witness>, epoch: Epoch },
    /// Phase two of Disk Paxos: the value is accepted when no higher ballot shows.
    Two,
    /// The first beat, or the first after a lapse, written since `started`.
    Confirm { started: Time },
}

/// R21: the former owner's block as it stood still. It must not have changed when phase one is on disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Witness {
    owner: HostId,
    block: Option<OwnershipBlock>,
}

/// What the datastore has to do next for the ownership.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Next {
    Nothing,
    /// Write this host's block, [`Consensus::block`].
    Write,
    /// Read all other hosts' blocks.
    ReadAll,
    /// The ownership has begun (or goes on after a lapse).
    Begun {
        former: Option<HostId>,
    },
    /// The ownership is over.
    Ended {
        reason: Arc<str>,
    },
}

/// What a host looks at when it decides whether to contend.
pub(super) struct Grounds<'a> {
    /// The blocks of the other hosts, each with how long it stands still.
    pub(super) blocks: &'a Blocks,
    /// R14: the failure time-outs that hosts have written.
    pub(super) timeouts: &'a BTreeMap<HostId, Span>,
    /// This host has promised not to contend before that, unless the owner gives up.
    pub(super) promised: Time,
    /// The epoch that its owner has said it gave up.
    pub(super) released: Option<Epoch>,
}

/// An epoch whose winner was learned but has not been seen to beat.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Learned {
    epoch: Epoch,
    winner: HostId,
    at: Time,
}

/// This host's part in the consensus.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Consensus {
    me: HostId,
    /// My block, as written or to be written.
    block: OwnershipBlock,
    stage: Stage,
    beat_due: Time,
    learned: Option<Learned>,
    former: Option<HostId>,
    /// The former owner had not stood still for the failure time-out: it gave the ownership up, or was a former run of
    /// this host. What it granted by network may still hold.
    early: bool,
    /// Spreads the retries of hosts that contend at the same time.
    retries: u64,
}

/// The others' beats as owners.
fn beats(blocks: &Blocks) -> impl Iterator<Item = (&HostId, &OwnerBeat)> {
    blocks
        .iter()
        .filter_map(|(host, sighting)| Some((host, sighting.as_ref()?.value.as_ref()?.beat.as_ref()?)))
}

impl Consensus {
    pub(super) fn new(
        me: HostId,
        boot: BootId,
        incarnation: Incarnation,
        files: Option<FilesDigest>,
    ) -> Self {
        let block = OwnershipBlock {
            boot,
            incarnation,
            instance: Epoch(0),
            promised: None,
            accepted: None,
            beat: None,
            files,
        };
        Consensus {
            me,
            block,
            stage: Stage::Idle { not_before: Time(0) },
            beat_due: Time(0),
            learned: None,
            former: None,
            early: false,
            retries: 0,
        }
    }

    /// Goes on from the block that an earlier run of this host wrote.
    pub(super) fn find(&mut self, found: OwnershipBlock) {
        let OwnershipBlock { boot, incarnation, files, .. } = self.block;
        self.block = OwnershipBlock { boot, incarnation, files, ..found };
    }

    /// My block, as written or to be written.
    pub(super) fn block(&self) -> &OwnershipBlock {
        &self.block
    }

    /// It neither owns anything nor contends for it.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Idle { .. })
    }

    /// R26: this host's block was lost. There were epochs up to `floor`; one later than all that others show was its own, and it
    /// owns nothing now.
    pub(super) fn recover(&mut self, floor: Epoch, blocks: &Blocks) {
        let owned = self.present_owner(blocks).map_or(Epoch(0), |(epoch, _)| epoch);
        self.block.instance = floor.max(self.highest_instance(blocks));
        if floor > owned {
            self.block.beat = Some(OwnerBeat { epoch: floor, counter: 0, released: true });
        }
    }

    /// R6: there were epochs up to `floor`. One later than all that the others show had an owner that this host does not know: the
    /// next one to contend for is later still.
    pub(super) fn catch_up(&mut self, floor: Epoch, blocks: &Blocks) {
        let shown = self.present_owner(blocks).map_or(Epoch(0), |(epoch, _)| epoch);
        if floor > shown && self.block.instance <= floor {
            self.block.instance = floor.next();
            self.block.promised = None;
            self.block.accepted = None;
        }
    }

    /// The epoch that this host owns at `now`. Every act of an owner asks here first.
    pub(super) fn epoch(&self, now: Time) -> Option<Epoch> {
        match self.stage {
            Stage::Owned { lease_end } if now < lease_end => Some(self.block.instance),
            Stage::Owned { .. } | Stage::Idle { .. } | Stage::Writing(_) | Stage::Reading(_) => None,
        }
    }

    /// What is left of the ownership.
    pub(super) fn left(&self, now: Time) -> Option<Span> {
        match self.stage {
            Stage::Owned { lease_end } if now < lease_end => Some(lease_end.since(now)),
            Stage::Owned { .. } | Stage::Idle { .. } | Stage::Writing(_) | Stage::Reading(_) => None,
        }
    }

    /// Whether the ownership that has begun was taken without waiting for the former one to run out.
    pub(super) fn is_early(&self) -> bool {
        self.early
    }

    /// When the ownership ends, unless it is renewed; also a time that has passed.
    pub(super) fn lease_end(&self) -> Option<Time> {
        match self.stage {
            Stage::Owned { lease_end } => Some(lease_end),
            Stage::Idle { .. } | Stage::Writing(_) | Stage::Reading(_) => None,
        }
    }

    /// Whether this host may promise to leave that epoch's owner alone: it is not about to take over.
    pub(super) fn may_promise(&self, epoch: Epoch) -> bool {
        self.is_idle() && self.block.instance <= epoch
    }

    /// Everybody else has promised not to contend before that. Only while there is an ownership.
    pub(super) fn prolong(&mut self, until: Time) {
        if let Stage::Owned { lease_end } = &mut self.stage {
            *lease_end = until.max(*lease_end);
        }
    }

    /// The highest epoch in which an owner has been seen to beat, and who it is.
    pub(super) fn present_owner<'a>(&'a self, blocks: &'a Blocks) -> Option<(Epoch, &'a HostId)> {
        let mine = self.block.beat.as_ref().map(|beat| (beat.epoch, &self.me));
        let others = blocks.iter().filter_map(|(host, sighting)| {
            let beat = sighting.as_ref()?.value.as_ref()?.beat.as_ref()?;
            Some((beat.epoch, host))
        });
        others.chain(mine).max()
    }

    /// R6: another host that beats as owner in the epoch in which this one does: each has not read the other's block.
    pub(super) fn other_owner(&self, blocks: &Blocks) -> Option<HostId> {
        let Stage::Owned { .. } = self.stage else { return None };
        beats(blocks)
            .find(|(_, beat)| beat.epoch == self.block.instance && !beat.released)
            .map(|(host, _)| host.clone())
    }

    /// Somebody is about to own an epoch later than that.
    pub(super) fn is_contended(&self, epoch: Epoch, blocks: &Blocks) -> bool {
        let others = blocks.values().flatten().filter_map(|sighting| sighting.value.as_ref());
        others.chain([&self.block]).any(|block| block.instance > epoch && block.accepted.is_some())
    }

    fn highest_instance(&self, blocks: &Blocks) -> Epoch {
        let others = blocks.values().filter_map(|sighting| Some(sighting.as_ref()?.value.as_ref()?.instance));
        others.chain([self.block.instance]).max().unwrap_or(Epoch(0))
    }

    /// Whether to contend now; begins phase one if so. Nobody contends before every other host's block was read once.
    pub(super) fn contend(&mut self, grounds: &Grounds<'_>, timing: &Timing, now: Time) -> Next {
        let blocks = grounds.blocks;
        let Stage::Idle { not_before } = self.stage else { return Next::Nothing };
        if now < not_before || blocks.values().any(Option::is_none) {
            return Next::Nothing;
        }
        let owner = self.present_owner(blocks);
        let epoch = owner.map_or(Epoch(0), |(epoch, _)| epoch);
        let highest = self.highest_instance(blocks);
        // Somebody contends for a later epoch: let it finish, unless it has stood still for the failure time-out.
        let busy = blocks.values().flatten().any(|sighting| {
            sighting.value.as_ref().is_some_and(|block| block.instance > epoch)
                && sighting.still() < timing.failure_timeout
        });
        if busy {
            return Next::Nothing;
        }
        // R6: of two owners of one epoch, each must have given it up or stand still.
        let acts = |(host, beat): (&HostId, &OwnerBeat)| {
            let still =
                blocks.get(host).and_then(Option::as_ref).map_or(Span::ZERO, |sighting| sighting.still());
            beat.epoch == epoch && !beat.released && still < timing.failure_timeout
        };
        if beats(blocks).filter(|(_, beat)| beat.epoch == epoch).count() > 1 && beats(blocks).any(acts) {
            return Next::Nothing;
        }
        let mut witness = None;
        let mut early = owner.is_some();
        if let Some((_, host)) = owner
            && *host != self.me
        {
            let Some(Some(sighting)) = blocks.get(host) else { return Next::Nothing };
            let released = sighting
                .value
                .as_ref()
                .and_then(|block| block.beat.as_ref())
                .is_some_and(|beat| beat.released)
                || grounds.released == Some(epoch);
            // An owner that lived on promises may have stood still on disk for long, and granted until just now.
            // R14: the owner's own failure time-out counts, where it is longer.
            let theirs = grounds.timeouts.get(host).copied().unwrap_or_default();
            early = sighting.still() < timing.failure_timeout.max(theirs) || now < grounds.promised;
            if !released && early {
                return Next::Nothing;
            }
            witness = Some(Witness { owner: host.clone(), block: sighting.value.clone() });
        }
        let instance = match &self.learned {
            Some(learned) if learned.epoch >= highest && learned.epoch > epoch => {
                if now.since(learned.at) < timing.failure_timeout {
                    return Next::Nothing;
                }
                learned.epoch.next()
            }
            Some(_) | None if highest > epoch => highest,
            Some(_) | None => epoch.next(),
        };
        self.former = owner.map(|(_, host)| host.clone());
        self.early = early;
        self.begin(instance, epoch, witness, blocks)
    }

    fn begin(&mut self, instance: Epoch, epoch: Epoch, witness: Option<Witness>, blocks: &Blocks) -> Next {
        assert!(instance >= self.block.instance, "R20: this host contends for an earlier epoch than before");
        if self.block.instance != instance {
            self.block.instance = instance;
            self.block.promised = None;
            self.block.accepted = None;
        }
        let rounds = blocks.values().flatten().filter_map(|sighting| {
            let block = sighting.value.as_ref()?;
            (block.instance == instance).then_some(block.promised.as_ref()?.round)
        });
        let mine = self.block.promised.as_ref().map(|ballot| ballot.round);
        let round = rounds.chain(mine).max().unwrap_or(0).saturating_add(1);
        self.block.promised = Some(Ballot { round, host: self.me.clone() });
        self.stage = Stage::Writing(Phase::One { witness, epoch });
        Next::Write
    }

    fn give_up(&mut self, reason: &str, timing: &Timing, now: Time) -> Next {
        self.retries += 1;
        // Deterministic and different for each host: the length and last character of the id, and the number of the try.
        let spice = self
            .me
            .as_str()
            .bytes()
            .fold(self.retries, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)))
            % 8;
        self.stage = Stage::Idle { not_before: now + timing.close_look().scaled(4 + spice, 4) };
        Next::Ended { reason: reason.into() }
    }

    /// My block, written since `started`, is on disk.
    pub(super) fn on_written(&mut self, started: Time, timing: &Timing, now: Time) -> Next {
        match self.stage.clone() {
            Stage::Writing(phase) => {
                self.stage = Stage::Reading(phase);
                Next::ReadAll
            }
            Stage::Owned { lease_end } if now < lease_end => {
                // Counted from the start of the write, never from its answer.
                self.stage = Stage::Owned { lease_end: lease_end.max(started + timing.lease) };
                Next::Nothing
            }
            Stage::Owned { .. } => {
                // R22: it lapsed before this beat was on disk; somebody may have contended meanwhile.
                self.stage = Stage::Reading(Phase::Confirm { started });
                Next::ReadAll
            }
            Stage::Idle { .. } | Stage::Reading(_) => Next::Nothing,
        }
    }

    /// My block could not be written (it may still land).
    pub(super) fn on_write_failed(&mut self, timing: &Timing, now: Time) -> Next {
        match self.stage {
            Stage::Writing(_) => self.give_up("its own block could not be written", timing, now),
            Stage::Owned { .. } | Stage::Idle { .. } | Stage::Reading(_) => Next::Nothing,
        }
    }

    /// The read after a phase's write could not see every block.
    pub(super) fn on_read_failed(&mut self, timing: &Timing, now: Time) -> Next {
        match self.stage {
            Stage::Reading(_) => self.give_up("not every host's block could be read", timing, now),
            Stage::Owned { .. } | Stage::Idle { .. } | Stage::Writing(_) => Next::Nothing,
        }
    }

    /// All other hosts' blocks, from a read that was started after my last write had landed.
    pub(super) fn on_all_read(
        &mut self,
        blocks: &BTreeMap<HostId, Option<OwnershipBlock>>,
        timing: &Timing,
        now: Time,
    ) -> Next {
        let Stage::Reading(phase) = self.stage.clone() else { return Next::Nothing };
        let instance = self.block.instance;
        if blocks.values().flatten().any(|block| block.instance > instance) {
            return self.give_up("another host is in a later epoch", timing, now);
        }
        let rivals = || blocks.values().flatten().filter(|block| block.instance == instance);
        match phase {
            Phase::One { witness, epoch } => {
                if blocks
                    .values()
                    .flatten()
                    .filter_map(|block| block.beat.as_ref())
                    .any(|beat| beat.epoch > epoch)
                {
                    return self.give_up("another host owns a later epoch", timing, now);
                }
                if rivals().any(|block| block.promised > self.block.promised) {
                    return self.give_up("another host has a higher ballot", timing, now);
                }
                if let Some(Witness { owner, block }) = &witness
                    && blocks.get(owner) != Some(block)
                {
                    return self.give_up("the former owner showed itself", timing, now);
                }
                let accepted = rivals().filter_map(|block| block.accepted.as_ref());
                let highest = accepted.chain(self.block.accepted.as_ref()).max();
                let value = highest.map_or_else(|| self.me.clone(), |accepted| accepted.owner.clone());
                let ballot = self.block.promised.clone();
                self.block.accepted = ballot.map(|ballot| Accepted { ballot, owner: value });
                self.stage = Stage::Writing(Phase::Two);
                Next::Write
            }
            Phase::Two => {
                if rivals().any(|block| block.promised > self.block.promised) {
                    return self.give_up("another host has a higher ballot", timing, now);
                }
                let winner = self.block.accepted.as_ref().map(|accepted| accepted.owner.clone());
                match winner {
                    Some(winner) if winner == self.me => self.beat_first(now),
                    Some(winner) => {
                        let reason = alloc::format!("epoch {instance} is {winner}'s");
                        self.learned = Some(Learned { epoch: instance, winner, at: now });
                        self.give_up(&reason, timing, now)
                    }
                    None => self.give_up("no value", timing, now),
                }
            }
            Phase::Confirm { started } => {
                let lease_end = started + timing.lease;
                if now >= lease_end {
                    return self.beat_first(now);
                }
                self.retries = 0;
                self.stage = Stage::Owned { lease_end };
                self.beat_due = started + timing.heartbeat;
                Next::Begun { former: self.former.clone() }
            }
        }
    }

    fn beat_first(&mut self, now: Time) -> Next {
        self.beat();
        self.stage = Stage::Writing(Phase::Confirm { started: now });
        Next::Write
    }

    fn beat(&mut self) {
        let counter = self.block.beat.as_ref().map_or(0, |beat| beat.counter).wrapping_add(1);
        self.block.beat = Some(OwnerBeat { epoch: self.block.instance, counter, released: false });
    }

    /// When the next beat is due, or the ownership ends. `writing`: the beat has to wait for a write that is under way.
    pub(super) fn deadline(&self, writing: bool, now: Time) -> Option<Time> {
        let Stage::Owned { lease_end } = self.stage else { return None };
        let beat = (!writing).then_some(self.beat_due);
        beat.into_iter().chain(Some(lease_end).filter(|end| now < *end)).min()
    }

    /// The next beat, when one is due.
    pub(super) fn take_beat(&mut self, timing: &Timing, now: Time) -> bool {
        if !matches!(self.stage, Stage::Owned { .. }) || now < self.beat_due {
            return false;
        }
        self.beat();
        self.beat_due = now + timing.heartbeat;
        true
    }

    /// Gives the ownership up, or stops contending. Returns whether the block has to be written for it.
    pub(super) fn release(&mut self) -> bool {
        let owned = matches!(self.stage, Stage::Owned { .. });
        self.stage = Stage::Idle { not_before: Time(0) };
        if owned && let Some(beat) = &mut self.block.beat {
            beat.counter = beat.counter.wrapping_add(1);
            beat.released = true;
        }
        owned
    }
}

#[cfg(test)]
mod tests;
