//! R20 to R26: the ownership of one datastore. Its owner may decide over the VMs homed there.
//!
//! An ownership is numbered: its number is its *epoch*. A later epoch silences earlier ones. The parts:
//!
//! | part | rules | what it knows |
//! | --- | --- | --- |
//! | `consensus` | R20 to R22 | this host's block, and where it stands in winning or keeping an epoch |
//! | `promises` | R25 | who has promised not to contend, until when |
//! | `releases` | R20 | which epoch was given up, here or elsewhere |
//! | `recovery` | R26 | that this host's own block was lost, and which epochs there were |
//! | `take_over` | R23, R24 | what a new owner waits for |
//!
//! Invariant: this host owns an epoch only while [`Epochs::epoch`] says so. Every act of an owner asks there first.
//!
//! It does not: read or write anything itself, or keep the protected list. The datastore around it does.

mod consensus;
mod promises;
mod recovery;
mod releases;
mod take_over;

pub(crate) use consensus::Next;

use crate::config::Config;
use crate::event::Event;
use crate::files::{Files, FilesDigest};
use crate::ids::{DatastoreName, Epoch, HostId};
use crate::message::Promise;
use crate::out::Out;
use crate::register::{OwnershipBlock, ProtectedList, RegisterId};
use crate::store::{Blocks, Mirror};
use crate::time::{Span, Time};
use crate::timing::Timing;
use alloc::sync::Arc;
use alloc::vec::Vec;
use consensus::{Consensus, Grounds};
use promises::Promises;
use recovery::Recovery;
use releases::Releases;
use serde::{Deserialize, Serialize};
use take_over::TakeOver;

/// How an epoch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beginning {
    /// The ownership had lapsed and goes on in the same epoch: nobody else was owner in between.
    GoesOn,
    /// What the former owner decided has to be taken over.
    TakesOver,
}

/// What came of a read of everything that tells of epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recovered {
    /// It did not show every block: it is done again later.
    NotYet,
    /// It showed epochs that were not known: there may be more.
    ReadOn,
    /// This host knows all epochs, and takes part again.
    Done,
}

/// The ownership of one datastore, as this host has to do with it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Epochs {
    datastore: DatastoreName,
    consensus: Consensus,
    promises: Promises,
    releases: Releases,
    recovery: Recovery,
    take_over: TakeOver,
    /// People know that the ownership has lapsed.
    lapse_told: bool,
    /// R6: this host does not contend before that.
    rests_until: Time,
    /// R26: the block could not be read.
    block_lost: bool,
}

impl Epochs {
    pub(crate) fn new(datastore: DatastoreName, config: &Config, now: Time) -> Epochs {
        let files = Some(Files::of(config).digest());
        Epochs {
            datastore,
            consensus: Consensus::new(config.me.clone(), config.boot, config.incarnation, files),
            promises: Promises::default(),
            releases: Releases::default(),
            recovery: Recovery::new(now),
            take_over: TakeOver::default(),
            lapse_told: false,
            rests_until: Time(0),
            block_lost: false,
        }
    }

    /// The epoch that this host owns at `now`. Every act of an owner asks here first.
    pub(crate) fn epoch(&self, now: Time) -> Option<Epoch> {
        self.consensus.epoch(now)
    }

    /// What is left of the ownership.
    pub(crate) fn left(&self, now: Time) -> Option<Span> {
        self.consensus.left(now)
    }

    /// When the ownership ends, unless it is renewed; also a time that has passed.
    pub(crate) fn lease_end(&self) -> Option<Time> {
        self.consensus.lease_end()
    }

    /// It neither owns anything nor contends for it.
    pub(crate) fn is_idle(&self) -> bool {
        self.consensus.is_idle()
    }

    /// This host's block, to be written now.
    pub(crate) fn block_to_write(&self) -> OwnershipBlock {
        assert!(
            !self.is_recovering(),
            "R26: a lost block is written before it is known which epochs there were"
        );
        self.block().clone()
    }

    /// This host's block, as written or to be written.
    fn block(&self) -> &OwnershipBlock {
        self.consensus.block()
    }

    /// The highest epoch in which an owner has been seen to beat, and who it is.
    pub(crate) fn present_owner<'a>(&'a self, blocks: &'a Blocks) -> Option<(Epoch, &'a HostId)> {
        self.consensus.present_owner(blocks)
    }

    /// Somebody is about to own an epoch later than that.
    pub(crate) fn is_contended(&self, epoch: Epoch, blocks: &Blocks) -> bool {
        self.consensus.is_contended(epoch, blocks)
    }

    /// The block that an earlier run of this host wrote.
    pub(crate) fn find(&mut self, block: OwnershipBlock) {
        self.consensus.find(block);
    }

    /// R6: what this host's block says of its file.
    pub(crate) fn block_files(&self) -> Option<FilesDigest> {
        self.block().files
    }

    /// The epoch that this host owns, or that it last had to do with.
    pub(crate) fn own_epoch(&self) -> Epoch {
        self.block().instance
    }

    /// R6: another host that beats as owner in the epoch in which this one does.
    pub(crate) fn other_owner(&self, blocks: &Blocks) -> Option<HostId> {
        self.consensus.other_owner(blocks)
    }

    /// Begins phase one for the next epoch, if this host may contend now.
    pub(crate) fn contend(&mut self, mirror: &Mirror, timing: &Timing, now: Time) -> Next {
        assert!(!self.is_recovering(), "R26: this host contends although its own block is lost");
        if now < self.rests_until {
            return Next::Nothing;
        }
        let grounds = Grounds {
            blocks: mirror.blocks(),
            timeouts: mirror.timeouts(),
            promised: self.promises.given(),
            released: self.releases.heard(),
        };
        let next = self.consensus.contend(&grounds, timing, now);
        if next == Next::Write {
            self.promises.forget_received();
        }
        next
    }

    /// The next beat, when one is due.
    pub(crate) fn take_beat(&mut self, timing: &Timing, now: Time) -> bool {
        self.consensus.take_beat(timing, now)
    }

    /// This host's block, written since `started`, is on disk.
    pub(crate) fn on_written(&mut self, started: Time, timing: &Timing, now: Time) -> Next {
        self.consensus.on_written(started, timing, now)
    }

    /// This host's block could not be written (it may still land).
    pub(crate) fn on_write_failed(&mut self, timing: &Timing, now: Time) -> Next {
        self.consensus.on_write_failed(timing, now)
    }

    /// All other hosts' blocks were read, since the last write of this host's own had landed.
    pub(crate) fn on_all_read(&mut self, mirror: &Mirror, timing: &Timing, now: Time) -> Next {
        self.consensus.on_all_read(&mirror.block_values(), timing, now)
    }

    /// The read after a phase's write could not see every block.
    pub(crate) fn on_read_failed(&mut self, timing: &Timing, now: Time) -> Next {
        self.consensus.on_read_failed(timing, now)
    }

    /// An ownership has begun, or goes on. `list`: the epoch of the protected list that this host has. `longest`: the longest
    /// failure time-out of any host.
    pub(crate) fn begin(
        &mut self,
        former: Option<HostId>,
        list: Option<Epoch>,
        longest: Span,
        out: &mut Out<'_>,
    ) -> Beginning {
        let epoch = self.block().instance;
        assert_eq!(self.epoch(out.now), Some(epoch), "R22: an epoch begins that is not owned");
        self.lapse_told = false;
        out.event(Event::OwnershipAcquired { datastore: self.datastore.clone(), epoch, former });
        if list == Some(epoch) {
            return Beginning::GoesOn;
        }
        if self.consensus.is_early() {
            // R24: what the former owner granted by network lasts no longer than that.
            self.take_over.hold(out.now + longest);
        }
        Beginning::TakesOver
    }

    /// Says once that the ownership of that epoch has lapsed.
    pub(crate) fn tell_lapse(&mut self, epoch: Epoch, out: &mut Out<'_>) {
        if self.epoch(out.now).is_none() && !self.lapse_told {
            self.lapse_told = true;
            self.tell_lost(epoch, "its beats as owner do not come back in time".into(), out);
        }
    }

    /// The consensus has given up. `list`: the epoch of the protected list that this host has.
    pub(crate) fn end(&mut self, list: Option<Epoch>, reason: Arc<str>, out: &mut Out<'_>) {
        if let Some(epoch) = list {
            self.tell_lost(epoch, reason, out);
        }
        self.take_over.end_wait();
    }

    /// Gives the ownership up, or stops contending. Returns whether the block has to be written for it.
    pub(crate) fn release(&mut self, reason: &str, out: &mut Out<'_>) -> bool {
        let epoch = self.block().instance;
        let owned = self.consensus.release();
        if owned {
            self.releases.tell(epoch, out.now);
            if !self.lapse_told {
                self.tell_lost(epoch, reason.into(), out);
            }
        }
        self.take_over.end_wait();
        owned
    }

    fn tell_lost(&self, epoch: Epoch, reason: Arc<str>, out: &mut Out<'_>) {
        out.event(Event::OwnershipLost { datastore: self.datastore.clone(), epoch, reason });
    }

    /// That host says that it has given the ownership up (R20). It acts no more by then, and a write of it that is still
    /// under way lands in an epoch where nobody looks.
    pub(crate) fn on_released(&mut self, from: &HostId, epoch: Epoch, blocks: &Blocks) {
        if self.present_owner(blocks) == Some((epoch, from)) {
            self.releases.hear(epoch);
        }
    }

    /// The epoch that this host has given up, if others are to hear of it now.
    pub(crate) fn take_release(&mut self, timing: &Timing, now: Time) -> Option<Epoch> {
        self.releases.take_due(timing.close_look(), now)
    }

    /// R25: the primary shows that it owns this datastore in that epoch. Whether this host promises not to contend for a
    /// failure time-out from now.
    pub(crate) fn promise(&mut self, epoch: Epoch, blocks: &Blocks, timing: &Timing, now: Time) -> bool {
        let knows_later = self.present_owner(blocks).is_some_and(|(known, _)| known > epoch);
        let promises = !knows_later && self.consensus.may_promise(epoch);
        if promises {
            self.promises.give(timing.failure_timeout, now);
        }
        promises
    }

    /// R25: `host` has promised not to contend for the next epoch for a failure time-out. While all `others` have, the
    /// ownership goes on without the disk.
    pub(crate) fn on_promise(
        &mut self,
        host: &HostId,
        promise: &Promise,
        others: usize,
        timing: &Timing,
        now: Time,
    ) {
        // Counted from when this owner sent what the promise answers.
        let sent = promise.echo;
        if self.epoch(now) == Some(promise.epoch)
            && sent <= now
            && let Some(common) = self.promises.receive(host, sent + timing.promise(), others)
        {
            self.consensus.prolong(common);
        }
    }

    /// R26: this host's block can't be read.
    pub(crate) fn lose_block(&mut self) {
        self.block_lost = true;
        self.recovery.begin();
    }

    /// R6: this host's file is another than that of its last run. It reads as in R26, and does not contend before `at`.
    pub(crate) fn find_new_file(&mut self, at: Time) {
        self.rests_until = at;
        self.recovery.begin();
    }

    /// R26: this host takes no part, since it does not know which epochs there were.
    pub(crate) fn is_recovering(&self) -> bool {
        self.recovery.is_under_way()
    }

    /// R26: up to which epoch this host knows of epochs, and what tells of later ones, if that is to be read now.
    pub(crate) fn recovery_due(
        &self,
        me: &HostId,
        peers: &[HostId],
        now: Time,
    ) -> Option<(Epoch, Vec<RegisterId>)> {
        let due = self.recovery.is_under_way() && now >= self.recovery.due();
        due.then(|| (self.recovery.known(), self.recovery.registers(me, peers)))
    }

    /// R26: it could not be read.
    pub(crate) fn retry_recovery(&mut self, at: Time) {
        self.recovery.try_again(at);
    }

    /// R26: everything that tells of epochs after `known` was read; `lists` are protected lists, the mirror has the rest.
    pub(crate) fn on_recovered(
        &mut self,
        known: Epoch,
        lists: &[ProtectedList],
        mirror: &Mirror,
        retry_at: Time,
    ) -> Recovered {
        if !mirror.has_all_blocks() {
            self.recovery.try_again(retry_at);
            return Recovered::NotYet;
        }
        let claimed = mirror.latest_claimed_epoch();
        let written = lists.iter().map(|list| list.epoch).max();
        let beaten = self.present_owner(mirror.blocks()).map(|(epoch, _)| epoch);
        if !self.recovery.take_in(known, claimed.max(written).max(beaten)) {
            return Recovered::ReadOn;
        }
        if self.block_lost {
            self.consensus.recover(known, mirror.blocks());
        } else {
            self.consensus.catch_up(known, mirror.blocks());
        }
        Recovered::Done
    }

    /// R23: the epoch for which is to be read what its owner takes over, when that is due.
    pub(crate) fn take_over_due(&self, now: Time) -> Option<Epoch> {
        self.take_over.due().filter(|due| now >= *due).map(|_| self.block().instance)
    }

    /// R23: what the owner of the present epoch takes over. It is read now.
    pub(crate) fn begin_take_over(&mut self, peers: &[HostId]) -> (Epoch, Vec<RegisterId>) {
        self.take_over.end_wait();
        let epoch = self.block().instance;
        (epoch, take_over::registers(epoch, peers))
    }

    /// R23: it could not be read, or the ownership has lapsed meanwhile.
    pub(crate) fn retry_take_over(&mut self, at: Time) {
        self.take_over.try_again(at);
    }

    /// R24: until then no host is called failed here.
    pub(crate) fn hold_until(&self) -> Time {
        self.take_over.hold_until()
    }

    /// When something is to be done next. `writing`: a write of the block is under way. `recovering`: a read for the recovery is.
    pub(crate) fn deadline(&self, writing: bool, recovering: bool, now: Time) -> Option<Time> {
        let held = Some(self.hold_until()).filter(|until| *until > now);
        let recovery = (self.is_recovering() && !recovering).then(|| self.recovery.due());
        let consensus = self.consensus.deadline(writing, now);
        [held, recovery, consensus, self.releases.deadline(), self.take_over.due()]
            .into_iter()
            .flatten()
            .min()
    }
}
