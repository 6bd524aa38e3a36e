//! R1, R37: this host's own registers on one datastore, and its writes of them.
//!
//! They are its ownership block, its power-on list, and the protected list while it is the owner. What is to be written is
//! decided elsewhere; whether it can be written now, and what is on disk, is known here.
//!
//! Invariant: at most one write of each register is under way, so that writes of a register never overtake each other.
//!
//! It does not: write heartbeats (the guard does), or decide what a register says.

use super::file_of;
use crate::effect::DiskAction;
use crate::event::Event;
use crate::guard::GuardWord;
use crate::ids::{DatastoreName, Epoch, HostId, OpId};
use crate::out::Out;
use crate::register::{OwnershipBlock, PowerOnList, ProtectedList, RegisterId, RegisterValue};
use crate::settings::HostOffers;
use crate::time::Time;
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use serde::{Deserialize, Serialize};

/// A write under way, and what is to be known of it when it is done.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct UnderWay<T> {
    op: OpId,
    what: T,
}

/// R1: the writes of one register.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Writer<T> {
    under_way: Option<UnderWay<T>>,
    /// After a write that failed: the next one not before that.
    not_before: Time,
}

impl<T> Writer<T> {
    fn new(now: Time) -> Writer<T> {
        Writer { under_way: None, not_before: now }
    }

    fn is_idle(&self) -> bool {
        self.under_way.is_none()
    }

    fn may_write(&self, now: Time) -> bool {
        self.is_idle() && now >= self.not_before
    }

    fn expects(&self, op: OpId) -> bool {
        self.under_way.as_ref().is_some_and(|write| write.op == op)
    }

    fn begin(&mut self, op: OpId, what: T) {
        assert!(self.is_idle(), "R1: two writes of one register are under way");
        self.under_way = Some(UnderWay { op, what });
    }

    /// That write is done, or has failed.
    fn take(&mut self, op: OpId, retry_at: Option<Time>) -> Option<T> {
        let done = self.under_way.take_if(|write| write.op == op)?;
        self.not_before = retry_at.unwrap_or(self.not_before);
        Some(done.what)
    }
}

/// How a write went.
pub(crate) struct Outcome {
    /// Why it failed, if it did. It may still land.
    pub(crate) failure: Option<Arc<str>>,
    /// When to try again, if it failed.
    pub(crate) retry_at: Time,
    /// This host's heartbeats arrive on the datastore.
    pub(crate) connected: bool,
}

/// What was written, or could not be.
#[derive(Debug)]
pub(crate) enum Done {
    /// The ownership block, since `started`.
    Block {
        started: Time,
    },
    PowerOn(Arc<PowerOnList>),
    List,
    /// That operation is none of these.
    Foreign,
}

/// This host's power-on list: what is on disk of it, and what is on the way.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct PowerOn {
    writer: Writer<Arc<PowerOnList>>,
    version: u64,
    durable: Option<Arc<PowerOnList>>,
    /// The isolation flag, as written or to be written.
    isolated: bool,
    /// Whether all that runs here is claimed ([`PowerOnList::complete`]), as written or to be written.
    complete: bool,
    /// What it says of the guard, as written or to be written.
    guard: GuardWord,
    /// What the host offers, as the list under way or on disk says it.
    offers: Option<Arc<HostOffers>>,
    /// R37: the list can't be read: nothing is written there before it is known what runs here.
    lost: bool,
    /// Since when the isolation flag is on disk.
    flagged: Option<Time>,
    /// The version on disk has changed: worth a heartbeat at once.
    news: bool,
}

impl PowerOn {
    fn new(now: Time) -> PowerOn {
        PowerOn {
            writer: Writer::new(now),
            version: 0,
            durable: None,
            isolated: false,
            complete: false,
            guard: GuardWord::default(),
            offers: None,
            lost: false,
            flagged: None,
            news: false,
        }
    }

    /// The isolation flag is on disk, and no write is under way that takes it down.
    fn flag_stands(&self) -> bool {
        let falls = self.writer.under_way.as_ref().is_some_and(|write| !write.what.isolated);
        !falls && self.durable.as_ref().is_some_and(|list| list.isolated)
    }
}

/// This host's own registers on one datastore.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Own {
    datastore: DatastoreName,
    me: HostId,
    /// Of the ownership block: when its write was started.
    block: Writer<Time>,
    /// The block on disk is not what it is to be.
    block_wanted: bool,
    power_on: PowerOn,
    /// Of the protected list of that epoch.
    list: Writer<Epoch>,
    /// Registers whose last write failed although heartbeats arrive, and people know.
    unwritable_told: BTreeSet<RegisterId>,
}

impl Own {
    pub(crate) fn new(datastore: DatastoreName, me: HostId, now: Time) -> Own {
        Own {
            datastore,
            me,
            block: Writer::new(now),
            block_wanted: false,
            power_on: PowerOn::new(now),
            list: Writer::new(now),
            unwritable_told: BTreeSet::new(),
        }
    }

    fn write(&self, id: RegisterId, value: RegisterValue, out: &mut Out<'_>) -> OpId {
        out.disk(&self.datastore, DiskAction::Write(id, value))
    }

    /// Whether that operation is one of these writes.
    pub(crate) fn expects(&self, op: OpId) -> bool {
        self.block.expects(op) || self.power_on.writer.expects(op) || self.list.expects(op)
    }

    /// That operation is done. People are told when a register can't be written although heartbeats arrive (I8).
    pub(crate) fn on_done(&mut self, op: OpId, outcome: &Outcome, out: &mut Out<'_>) -> Done {
        let retry_at = outcome.failure.is_some().then_some(outcome.retry_at);
        let (id, done) = if let Some(started) = self.block.take(op, retry_at) {
            (RegisterId::Ownership(self.me.clone()), Done::Block { started })
        } else if let Some(list) = self.power_on.writer.take(op, retry_at) {
            (RegisterId::PowerOn(self.me.clone()), Done::PowerOn(list))
        } else if let Some(epoch) = self.list.take(op, retry_at) {
            (RegisterId::ProtectedList(epoch), Done::List)
        } else {
            return Done::Foreign;
        };
        self.tell_of_write(id, outcome, out);
        done
    }

    /// Says once that a register of this host can't be written, and when it can again.
    fn tell_of_write(&mut self, id: RegisterId, outcome: &Outcome, out: &mut Out<'_>) {
        let (datastore, register) = (self.datastore.clone(), file_of(&id));
        match &outcome.failure {
            Some(reason) if outcome.connected && self.unwritable_told.insert(id.clone()) => {
                out.event(Event::RegisterUnwritable { datastore, register, reason: reason.clone() });
            }
            None if self.unwritable_told.remove(&id) => {
                out.event(Event::RegisterReadable { datastore, register });
            }
            Some(_) | None => {}
        }
    }

    /// What people were told of registers counts no more.
    pub(crate) fn forget_told(&mut self) {
        self.unwritable_told.clear();
    }

    /// The ownership block is to be written.
    pub(crate) fn want_block(&mut self) {
        self.block_wanted = true;
    }

    /// A write of the ownership block is under way.
    pub(crate) fn is_writing_block(&self) -> bool {
        !self.block.is_idle()
    }

    /// The ownership block is to be written, and can be now.
    pub(crate) fn is_block_due(&self, now: Time) -> bool {
        self.block_wanted && self.block.may_write(now)
    }

    /// Writes the ownership block.
    pub(crate) fn write_block(&mut self, block: OwnershipBlock, out: &mut Out<'_>) {
        self.block_wanted = false;
        let id = RegisterId::Ownership(self.me.clone());
        let op = self.write(id, RegisterValue::Ownership(block), out);
        self.block.begin(op, out.now);
    }

    /// The protected list can be written now.
    pub(crate) fn may_write_list(&self, now: Time) -> bool {
        self.list.may_write(now)
    }

    /// Writes the protected list.
    pub(crate) fn write_list(&mut self, list: ProtectedList, out: &mut Out<'_>) {
        let epoch = list.epoch;
        let op = self.write(RegisterId::ProtectedList(epoch), RegisterValue::ProtectedList(list), out);
        self.list.begin(op, epoch);
    }

    /// The epoch is over: a write of its list that is still under way is nobody's.
    pub(crate) fn forget_list(&mut self) {
        self.list.under_way = None;
    }

    /// The version of the power-on list that an earlier run left on disk.
    pub(crate) fn find_power_on(&mut self, version: u64) {
        self.power_on.version = version;
    }

    /// R37: the power-on list can't be read.
    pub(crate) fn lose_power_on(&mut self) {
        self.power_on.lost = true;
    }

    /// Whether the power-on list says something else than this, or will when it is written.
    pub(crate) fn power_on_differs(
        &self,
        isolated: bool,
        complete: bool,
        guard: GuardWord,
        offers: Option<&Arc<HostOffers>>,
    ) -> bool {
        let power_on = &self.power_on;
        // What the run before left there may say that all is well.
        let says = power_on.version > 0 && (power_on.durable.is_some() || !guard.is_guarded());
        if guard != power_on.guard && says {
            return true;
        }
        offers != power_on.offers.as_ref() || isolated != power_on.isolated || complete != power_on.complete
    }

    /// Whether the power-on list can be written now. `complete`: all that runs here is claimed, so that what was lost is known
    /// again (R37).
    pub(crate) fn may_write_power_on(&mut self, complete: bool, now: Time) -> bool {
        self.power_on.lost &= !complete;
        !self.power_on.lost && self.power_on.writer.may_write(now)
    }

    /// Writes the power-on list, under a new version.
    pub(crate) fn write_power_on(&mut self, list: PowerOnList, out: &mut Out<'_>) {
        let power_on = &mut self.power_on;
        assert!(!power_on.lost, "R37: a power-on list is written before it is known what runs here");
        power_on.isolated = list.isolated;
        power_on.complete = list.complete;
        power_on.guard = list.guard;
        power_on.offers.clone_from(&list.offers);
        power_on.version = power_on.version.wrapping_add(1);
        let list = Arc::new(PowerOnList { version: power_on.version, ..list });
        let id = RegisterId::PowerOn(self.me.clone());
        let op = self.write(id, RegisterValue::PowerOn(PowerOnList::clone(&list)), out);
        self.power_on.writer.begin(op, list);
    }

    /// That power-on list is on disk.
    pub(crate) fn on_power_on_written(&mut self, list: Arc<PowerOnList>, now: Time) {
        let power_on = &mut self.power_on;
        power_on.flagged = list.isolated.then(|| power_on.flagged.unwrap_or(now));
        power_on.durable = Some(list);
        power_on.news = true;
    }

    /// The power-on list on disk.
    pub(crate) fn power_on(&self) -> Option<&Arc<PowerOnList>> {
        self.power_on.durable.as_ref()
    }

    /// Whether the power-on list on disk shows all that runs here, and no other is on the way.
    pub(crate) fn is_power_on_settled(&self) -> bool {
        self.power_on().is_some_and(|list| list.complete) && self.power_on.writer.is_idle()
    }

    /// Whether the version of the power-on list on disk has changed since this was last asked.
    pub(crate) fn take_power_on_news(&mut self) -> bool {
        core::mem::take(&mut self.power_on.news)
    }

    /// Whether this host is isolated. Isolated once more, it looks once more.
    pub(crate) fn note_isolation(&mut self, isolated: bool, now: Time) {
        let power_on = &mut self.power_on;
        if !isolated {
            power_on.flagged = None;
        } else if power_on.flagged.is_none() && power_on.flag_stands() {
            power_on.flagged = Some(now);
        }
    }

    /// Since when the isolation flag of this host is on disk.
    pub(crate) fn flagged(&self) -> Option<Time> {
        self.power_on.flagged
    }

    /// When to write next. `claims_changed`: the power-on list is not what it is to be. `owns`: this host has the protected list.
    pub(crate) fn deadline(&self, claims_changed: bool, owns: bool, now: Time) -> Option<Time> {
        let block = (self.block_wanted && self.block.is_idle()).then_some(self.block.not_before);
        let list = (owns && self.list.is_idle()).then_some(self.list.not_before).filter(|at| *at > now);
        let power_on = &self.power_on;
        let writes = claims_changed && !power_on.lost && power_on.writer.is_idle();
        let power_on = writes.then_some(power_on.writer.not_before);
        [block, list, power_on].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::{OpId, Time, Writer};

    #[test]
    fn a_write_that_failed_is_tried_again_later() {
        let mut writer = Writer::new(Time(0));
        writer.begin(OpId(1), ());
        assert!(!writer.may_write(Time(5)));
        assert_eq!(writer.take(OpId(2), None), None);
        assert_eq!(writer.take(OpId(1), Some(Time(20))), Some(()));
        assert!(!writer.may_write(Time(19)));
        assert!(writer.may_write(Time(20)));
    }

    #[test]
    #[should_panic(expected = "R1")]
    fn two_writes_of_one_register_are_a_broken_invariant() {
        let mut writer = Writer::new(Time(0));
        writer.begin(OpId(1), ());
        writer.begin(OpId(2), ());
    }
}
