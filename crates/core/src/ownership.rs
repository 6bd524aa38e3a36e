//! Ownership of one datastore: who may decide over the VMs homed there.
//!
//! Epoch n's owner is chosen by Disk Paxos (Gafni and Lamport) over single-writer blocks, one for each host. An owner
//! beats in its own block; its ownership lasts one lease from the *start* of the last beat that was written.
//!
//! Rules (docs/internals/protocol.md has the arguments):
//! - R20: one contends for epoch n+1 only when the owner of epoch n released it, is an earlier run of oneself, or was seen to
//!   stand still for the failure time-out.
//! - R21: a contender reads all blocks once more after its own phase-one write has landed; if the former owner's changed, or an
//!   owner of a later epoch beats, it gives up.
//! - R22: a new owner, or one whose ownership lapsed, acts only after it wrote its beat and *then* read all blocks and
//!   found none of a later epoch.
//!
//! It does not: read or write anything itself. The datastore machine around it does, and hands over what was read.

use crate::ids::{BootId, Epoch, HostId, Incarnation};
use crate::register::{Ballot, OwnerBeat, OwnershipBlock};
use crate::store::Blocks;
use crate::time::{Span, Time};
use crate::timing::Timing;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use serde::{Deserialize, Serialize};

/// Where this host stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Stage {
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
pub(crate) enum Phase {
    /// Phase one of Disk Paxos. `witness` is the former owner's block as it stood still, `epoch` the last that was owned.
    One { witness: Option<(HostId, Option<OwnershipBlock>)>, epoch: Epoch },
    /// Phase two.
    Two,
    /// The first beat, or the first after a lapse, written since `started`.
    Confirm { started: Time },
}

/// What the datastore machine has to do next for the ownership.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Next {
    Nothing,
    /// Write `Ownership::block`.
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

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Ownership {
    me: HostId,
    /// My block, as written or to be written.
    pub(crate) block: OwnershipBlock,
    pub(crate) stage: Stage,
    pub(crate) beat_due: Time,
    /// An epoch whose winner was learned but has not been seen to beat, and when that was.
    learned: Option<(Epoch, HostId, Time)>,
    former: Option<HostId>,
    /// The former owner had not stood still for the failure time-out: it gave the ownership up, or was a former run of
    /// this host. What it granted by network may still hold (R24).
    early: bool,
    /// R25: the others' promises not to contend for the next epoch, each until then on this host's clock.
    promises: BTreeMap<HostId, Time>,
    /// Spreads the retries of hosts that contend at the same time.
    retries: u64,
}

impl Ownership {
    pub(crate) fn new(
        me: HostId,
        boot: BootId,
        incarnation: Incarnation,
        found: Option<OwnershipBlock>,
    ) -> Self {
        let empty = OwnershipBlock {
            boot,
            incarnation,
            instance: Epoch(0),
            promised: None,
            accepted: None,
            beat: None,
        };
        let block = OwnershipBlock { boot, incarnation, ..found.unwrap_or(empty) };
        Ownership {
            me,
            block,
            stage: Stage::Idle { not_before: Time(0) },
            beat_due: Time(0),
            learned: None,
            former: None,
            early: false,
            promises: BTreeMap::new(),
            retries: 0,
        }
    }

    /// R26: this host's block was lost. There were epochs up to `floor`; one later than all that others show was its own, and it
    /// owns nothing now.
    pub(crate) fn recover(&mut self, floor: Epoch, blocks: &Blocks) {
        let owned = self.present_owner(blocks).map_or(Epoch(0), |(epoch, _)| epoch);
        self.block.instance = floor.max(self.highest_instance(blocks));
        if floor > owned {
            self.block.beat = Some(OwnerBeat { epoch: floor, counter: 0, released: true });
        }
    }

    /// The epoch that this host owns at `now`. Every act of an owner asks here first.
    pub(crate) fn epoch(&self, now: Time) -> Option<Epoch> {
        match self.stage {
            Stage::Owned { lease_end } if now < lease_end => Some(self.block.instance),
            Stage::Owned { .. } | Stage::Idle { .. } | Stage::Writing(_) | Stage::Reading(_) => None,
        }
    }

    /// What is left of the ownership.
    pub(crate) fn left(&self, now: Time) -> Option<Span> {
        match self.stage {
            Stage::Owned { lease_end } if now < lease_end => Some(lease_end.since(now)),
            Stage::Owned { .. } | Stage::Idle { .. } | Stage::Writing(_) | Stage::Reading(_) => None,
        }
    }

    /// Whether the ownership that has begun was taken without waiting for the former one to run out.
    pub(crate) fn is_early(&self) -> bool {
        self.early
    }

    /// When the ownership ends, unless it is renewed; also a time that has passed.
    pub(crate) fn lease_end(&self) -> Option<Time> {
        match self.stage {
            Stage::Owned { lease_end } => Some(lease_end),
            Stage::Idle { .. } | Stage::Writing(_) | Stage::Reading(_) => None,
        }
    }

    /// Whether this host may promise to leave that epoch's owner alone: it is not about to take over.
    pub(crate) fn may_promise(&self, epoch: Epoch) -> bool {
        matches!(self.stage, Stage::Idle { .. }) && self.block.instance <= epoch
    }

    /// R25: `host` has promised, in answer to what this owner sent at `echo`, not to contend for the next epoch for a
    /// failure time-out. While everybody has, the ownership goes on without the disk. `others`: how many hosts there are besides this.
    pub(crate) fn on_promise(
        &mut self,
        host: &HostId,
        epoch: Epoch,
        echo: Time,
        others: usize,
        timing: &Timing,
        now: Time,
    ) {
        let Stage::Owned { lease_end } = self.stage else { return };
        if now >= lease_end || epoch != self.block.instance || echo > now {
            return;
        }
        let until = self.promises.entry(host.clone()).or_default();
        *until = (*until).max(echo + timing.promise());
        let all = self.promises.len() == others;
        let common = self.promises.values().min().copied().filter(|_| all).unwrap_or_default();
        self.stage = Stage::Owned { lease_end: lease_end.max(common) };
    }

    /// The highest epoch in which an owner has been seen to beat, and who it is.
    pub(crate) fn present_owner(&self, blocks: &Blocks) -> Option<(Epoch, HostId)> {
        let mine = self.block.beat.as_ref().map(|beat| (beat.epoch, self.me.clone()));
        let others = blocks.iter().filter_map(|(host, sighting)| {
            let beat = sighting.as_ref()?.value.as_ref()?.beat.as_ref()?;
            Some((beat.epoch, host.clone()))
        });
        others.chain(mine).max()
    }

    fn highest_instance(&self, blocks: &Blocks) -> Epoch {
        let others = blocks.values().filter_map(|sighting| Some(sighting.as_ref()?.value.as_ref()?.instance));
        others.chain([self.block.instance]).max().unwrap_or(Epoch(0))
    }

    /// Whether to contend now; begins phase one if so. `blocks` must hold a sighting of every other host.
    /// Not before `promised`, unless the owner gave up: in its block, or by saying so (`told`: that epoch).
    pub(crate) fn contend(
        &mut self,
        blocks: &Blocks,
        timeouts: &BTreeMap<HostId, Span>,
        promised: Time,
        told: Option<Epoch>,
        timing: &Timing,
        now: Time,
    ) -> Next {
        let Stage::Idle { not_before } = self.stage else { return Next::Nothing };
        if now < not_before || blocks.values().any(Option::is_none) {
            return Next::Nothing;
        }
        let owner = self.present_owner(blocks);
        let epoch = owner.as_ref().map_or(Epoch(0), |(epoch, _)| *epoch);
        let highest = self.highest_instance(blocks);
        // Somebody contends for a later epoch: let it finish, unless it has stood still for the failure time-out.
        let busy = blocks.values().flatten().any(|sighting| {
            sighting.value.as_ref().is_some_and(|block| block.instance > epoch)
                && sighting.still() < timing.failure_timeout
        });
        if busy {
            return Next::Nothing;
        }
        let mut witness = None;
        let mut early = owner.is_some();
        if let Some((_, host)) = &owner
            && *host != self.me
        {
            let Some(Some(sighting)) = blocks.get(host) else { return Next::Nothing };
            let released = sighting
                .value
                .as_ref()
                .and_then(|block| block.beat.as_ref())
                .is_some_and(|beat| beat.released)
                || told == Some(epoch);
            // An owner that lived on promises may have stood still on disk for long, and granted until just now.
            // R14: the owner's own failure time-out counts, where it is longer.
            let theirs = timeouts.get(host).copied().unwrap_or_default();
            early = sighting.still() < timing.failure_timeout.max(theirs) || now < promised;
            if !released && early {
                return Next::Nothing;
            }
            witness = Some((host.clone(), sighting.value.clone()));
        }
        let instance = match &self.learned {
            Some((learned, _, at)) if *learned >= highest && *learned > epoch => {
                if now.since(*at) < timing.failure_timeout {
                    return Next::Nothing;
                }
                learned.next()
            }
            Some(_) | None if highest > epoch => highest,
            Some(_) | None => epoch.next(),
        };
        self.former = owner.map(|(_, host)| host);
        self.early = early;
        self.promises.clear();
        self.begin(instance, epoch, witness, blocks)
    }

    fn begin(
        &mut self,
        instance: Epoch,
        epoch: Epoch,
        witness: Option<(HostId, Option<OwnershipBlock>)>,
        blocks: &Blocks,
    ) -> Next {
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
    pub(crate) fn on_written(&mut self, started: Time, timing: &Timing, now: Time) -> Next {
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
    pub(crate) fn on_write_failed(&mut self, timing: &Timing, now: Time) -> Next {
        match self.stage {
            Stage::Writing(_) => self.give_up("its own block could not be written", timing, now),
            Stage::Owned { .. } | Stage::Idle { .. } | Stage::Reading(_) => Next::Nothing,
        }
    }

    /// The read after a phase's write could not see every block.
    pub(crate) fn on_read_failed(&mut self, timing: &Timing, now: Time) -> Next {
        match self.stage {
            Stage::Reading(_) => self.give_up("not every host's block could be read", timing, now),
            Stage::Owned { .. } | Stage::Idle { .. } | Stage::Writing(_) => Next::Nothing,
        }
    }

    /// All other hosts' blocks, from a read that was started after my last write had landed.
    pub(crate) fn on_all_read(
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
                if let Some((host, block)) = &witness
                    && blocks.get(host) != Some(block)
                {
                    return self.give_up("the former owner showed itself", timing, now);
                }
                let accepted = rivals().filter_map(|block| block.accepted.as_ref());
                let highest = accepted.chain(self.block.accepted.as_ref()).max();
                let value = highest.map_or_else(|| self.me.clone(), |(_, value)| value.clone());
                let ballot = self.block.promised.clone();
                self.block.accepted = ballot.map(|ballot| (ballot, value));
                self.stage = Stage::Writing(Phase::Two);
                Next::Write
            }
            Phase::Two => {
                if rivals().any(|block| block.promised > self.block.promised) {
                    return self.give_up("another host has a higher ballot", timing, now);
                }
                let winner = self.block.accepted.as_ref().map(|(_, value)| value.clone());
                match winner {
                    Some(winner) if winner == self.me => self.beat_first(now),
                    Some(winner) => {
                        let reason = alloc::format!("epoch {instance} is {winner}'s");
                        self.learned = Some((instance, winner, now));
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

    /// The next beat, when one is due.
    pub(crate) fn take_beat(&mut self, timing: &Timing, now: Time) -> bool {
        if !matches!(self.stage, Stage::Owned { .. }) || now < self.beat_due {
            return false;
        }
        self.beat();
        self.beat_due = now + timing.heartbeat;
        true
    }

    /// Gives the ownership up, or stops contending. Returns whether the block has to be written for it.
    pub(crate) fn release(&mut self) -> bool {
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
