//! Reading and writing registers, as one thread of a datastore does it. Each thread has one of these for itself: no locks.
//!
//! How a register is written:
//! * A writer alternates between the two slots and gives each write the next sequence number; it never touches the better slot.
//! * Its *first* write (after a start, a failed write, or when the file was replaced) reads what is there, goes on at +1,000, and writes *both* slots,
//!   the worse one first. So a write of a former incarnation that is still under way somewhere can neither win (its number is lower) nor leave no valid slot
//!   (it hits one of two).
//! * A slot that holds nothing of this register is filled with its first sector zeroed, which means "never written", and gets
//!   its header last. So a first write that is cut short leaves the register missing, not unreadable.
//!
//! What this does not do: a late write of a former incarnation may replace the *newest* value after two more writes of this
//! one; readers then see the one before, until the next write. That takes a write that outlives its process: see
//! [`crate::host_lock`], which a former process of this host holds for exactly that long.

use crate::counters::{SharedCounters, add};
use crate::datastore::DatastoreConfig;
use crate::error::StorageError;
use crate::folder::{Folder, lay_out};
use crate::register_file::{Access, RegisterFile};
use mainstay_formats::disk::register_name;
use mainstay_formats::layout::{ATOMIC, BLOCK, Location, SLOTS, locate};
use mainstay_formats::{ClusterId, Slot, SlotError, decode_slot, encode_slot, read_header};
use mainstay_words::register::RegisterId;
use mainstay_words::{ReadRegister, RegisterValue};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How far a new incarnation jumps ahead of what it finds: further than a former one could still have writes under way.
const SEQUENCE_JUMP: u64 = 1000;

pub(crate) struct Registers {
    config: Arc<DatastoreConfig>,
    cluster: ClusterId,
    counters: Arc<SharedCounters>,
    folder: Option<Folder>,
    readers: BTreeMap<String, RegisterFile>,
    writers: BTreeMap<String, RegisterFile>,
    positions: BTreeMap<RegisterId, Position>,
    /// The highest sequence number used by this run, whatever became of it.
    sequence_max: u64,
}

/// Where the next write of a register goes.
struct Position {
    slot: usize,
    sequence: u64,
}

impl Registers {
    pub(crate) fn new(
        config: Arc<DatastoreConfig>,
        cluster: ClusterId,
        counters: Arc<SharedCounters>,
    ) -> Self {
        Self {
            config,
            cluster,
            counters,
            folder: None,
            readers: BTreeMap::new(),
            writers: BTreeMap::new(),
            positions: BTreeMap::new(),
            sequence_max: 0,
        }
    }

    /// Lays out that register's file ahead of its first use.
    pub(crate) fn prepare(&mut self, id: &RegisterId) -> Result<(), StorageError> {
        let at = locate(id)?;
        self.open_writer(&at)
    }

    /// Reads a register; a handle that has gone bad is opened anew, once.
    pub(crate) fn read(&mut self, id: &RegisterId) -> Result<ReadRegister, StorageError> {
        let at = locate(id)?;
        match self.read_once(id, &at) {
            Err(error) if error.is_stale_handle() => {
                self.readers.remove(&at.file);
                self.read_once(id, &at)
            }
            other => other,
        }
    }

    fn read_once(&mut self, id: &RegisterId, at: &Location) -> Result<ReadRegister, StorageError> {
        if self.readers.get(&at.file).is_none_or(|file| !file.is_current()) {
            self.readers.remove(&at.file);
            let path = self.folder()?.path.join(&at.file);
            if let Some(file) = RegisterFile::open(&path, Access::Read, &self.counters)? {
                self.readers.insert(at.file.clone(), file);
            }
        }
        add(&self.counters.reads, 1);
        let Some(file) = self.readers.get(&at.file) else { return Ok(ReadRegister::Missing) };
        let (chosen, mark) = file.read_register(&self.cluster, id, at, &self.counters)?;
        if chosen.is_fallback() {
            add(&self.counters.slot_fallbacks, 1);
        }
        let read = chosen.into_read(mark);
        match &read {
            ReadRegister::Unreadable(reason, _) => {
                add(&self.counters.unreadable, 1);
                tracing::debug!(file = %file.path().display(), %reason, "unreadable register");
            }
            ReadRegister::Value(_) | ReadRegister::Missing => {}
        }
        Ok(read)
    }

    /// Writes a register. On disk, and visible to others, when this returns.
    pub(crate) fn write(&mut self, id: &RegisterId, value: &RegisterValue) -> Result<(), StorageError> {
        self.check_writer(id, value)?;
        let at = locate(id)?;
        let written = match self.write_once(id, value, &at) {
            Err(error) if error.is_stale_handle() => {
                self.forget(&at.file);
                self.write_once(id, value, &at)
            }
            other => other,
        };
        if written.is_err() {
            self.forget(&at.file);
        }
        add(&self.counters.writes, u64::from(written.is_ok()));
        written
    }

    fn write_once(
        &mut self,
        id: &RegisterId,
        value: &RegisterValue,
        at: &Location,
    ) -> Result<(), StorageError> {
        self.open_writer(at)?;
        match self.positions.remove(id) {
            Some(Position { slot, sequence }) => {
                let bytes = encode_slot(&self.cluster, id, sequence, value)?;
                self.writer(at)?.write_at(at.slots[slot], &bytes, &self.counters)?;
                self.advance(id, slot, sequence);
            }
            None => self.write_both(id, value, at)?,
        }
        let file = self.writer(at)?;
        if file.is_current() {
            Ok(())
        } else {
            Err(StorageError::Replaced { path: file.path().to_path_buf() })
        }
    }

    /// The first write of this run: see the module's header.
    fn write_both(
        &mut self,
        id: &RegisterId,
        value: &RegisterValue,
        at: &Location,
    ) -> Result<(), StorageError> {
        // Other epochs' positions are of no use any more.
        if let RegisterId::ProtectedList(_) = id {
            self.positions.retain(|other, _| !matches!(other, RegisterId::ProtectedList(_)));
        }
        let look = self.writer(at)?.look(at, &self.counters)?;
        let mut used = self.sequence_max;
        for bytes in &look {
            if let Ok(Some(header)) = read_header(bytes) {
                used = used.max(header.sequence);
            }
        }
        let slots = look.map(|bytes| decode_slot(&self.cluster, id, &bytes));
        let Plan { order, is_fresh } = plan_first_write(&slots).map_err(|reason| StorageError::Occupied {
            register: register_name(id),
            reason: reason.to_string(),
        })?;
        let mut sequence = used.saturating_add(SEQUENCE_JUMP);
        for slot in order {
            let bytes = encode_slot(&self.cluster, id, sequence, value)?;
            let file = self.writer(at)?;
            // What fits into the atomically written sector can't be torn.
            if is_fresh[slot] && bytes[ATOMIC..].iter().any(|byte| !byte.is_ascii_whitespace()) {
                let mut body_first = bytes.clone();
                body_first[..ATOMIC].fill(0);
                file.write_at(at.slots[slot], &body_first, &self.counters)?;
                file.write_at(at.slots[slot], &bytes[..BLOCK], &self.counters)?;
            } else {
                file.write_at(at.slots[slot], &bytes, &self.counters)?;
            }
            self.advance(id, slot, sequence);
            sequence = sequence.saturating_add(1);
        }
        Ok(())
    }

    fn advance(&mut self, id: &RegisterId, slot: usize, sequence: u64) {
        self.sequence_max = self.sequence_max.max(sequence);
        self.positions.insert(id.clone(), Position { slot: 1 - slot, sequence: sequence.saturating_add(1) });
    }

    /// The next write to that file opens it anew and begins like a first one.
    fn forget(&mut self, file: &str) {
        self.writers.remove(file);
        self.positions.retain(|id, _| locate(id).is_ok_and(|at| at.file != file));
    }

    fn open_writer(&mut self, at: &Location) -> Result<(), StorageError> {
        if self.writers.get(&at.file).is_some_and(RegisterFile::is_current) {
            return Ok(());
        }
        self.forget(&at.file);
        let me = self.config.me.clone();
        let folder = self.folder()?.path.clone();
        lay_out(&folder, &at.file, at.file_size, &me)?;
        let path = folder.join(&at.file);
        let file = RegisterFile::open(&path, Access::Write, &self.counters)?
            .ok_or(StorageError::Replaced { path })?;
        self.writers.insert(at.file.clone(), file);
        Ok(())
    }

    fn writer(&self, at: &Location) -> Result<&RegisterFile, StorageError> {
        self.writers
            .get(&at.file)
            .ok_or_else(|| StorageError::Replaced { path: self.config.path.join(&at.file) })
    }

    fn folder(&mut self) -> Result<&Folder, StorageError> {
        match self.folder.take() {
            Some(folder) if folder.is_current() => Ok(self.folder.insert(folder)),
            Some(_) | None => {
                let config = &self.config;
                let folder =
                    Folder::open(&config.path, &self.cluster, &config.cluster_name, config.allow_unmounted)?;
                Ok(self.folder.insert(folder))
            }
        }
    }

    fn check_writer(&self, id: &RegisterId, value: &RegisterValue) -> Result<(), StorageError> {
        let me = &self.config.me;
        let is_mine = match (id, value) {
            (RegisterId::Heartbeat(host) | RegisterId::PowerOn(host) | RegisterId::Ownership(host), _) => {
                host == me
            }
            (RegisterId::ProtectedList(_), RegisterValue::ProtectedList(list)) => list.owner == *me,
            // The encoder refuses this with a better text.
            (RegisterId::ProtectedList(_), _) => true,
        };
        if is_mine {
            Ok(())
        } else {
            Err(StorageError::NotTheWriter { me: me.clone(), register: register_name(id) })
        }
    }
}

/// How the first write of a run goes about it.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    /// Which slot first.
    order: [usize; SLOTS],
    /// Which slots hold nothing of this register.
    is_fresh: [bool; SLOTS],
}

/// The worse slot first, so that the better one stays until there is a newer one. Damaged slots may be overwritten; intact ones that
/// belong to somebody else, or to a newer program, may not.
fn plan_first_write(slots: &[Slot; SLOTS]) -> Result<Plan, SlotError> {
    let mut better = None;
    let mut is_fresh = [false; SLOTS];
    for (index, slot) in slots.iter().enumerate() {
        match slot {
            Slot::Empty => is_fresh[index] = true,
            Slot::Valid { sequence, .. } => better = better.max(Some((*sequence, index))),
            Slot::Unreadable { reason } if reason.is_damage() => {}
            Slot::Unreadable { reason } => return Err(reason.clone()),
        }
    }
    let first = better.map_or(0, |(_, index)| 1 - index);
    Ok(Plan { order: [first, 1 - first], is_fresh })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_testkit::made::heartbeat;

    fn valid(sequence: u64) -> Slot {
        Slot::Valid { sequence, value: RegisterValue::Heartbeat(heartbeat(1)) }
    }

    #[test]
    fn the_better_slot_is_overwritten_last() {
        let damaged = || Slot::Unreadable { reason: SlotError::BadChecksum { sequence: 9 } };
        let order = |slots: [Slot; 2]| plan_first_write(&slots).map(|plan| plan.order);
        assert_eq!(order([valid(5), valid(6)]), Ok([0, 1]));
        assert_eq!(order([valid(6), valid(5)]), Ok([1, 0]));
        assert_eq!(order([valid(5), damaged()]), Ok([1, 0]));
        assert_eq!(order([damaged(), valid(5)]), Ok([0, 1]));
        assert_eq!(order([valid(5), Slot::Empty]), Ok([1, 0]));
        let fresh = plan_first_write(&[Slot::Empty, valid(5)]).map(|plan| plan.is_fresh);
        assert_eq!(fresh, Ok([true, false]));
        let foreign = SlotError::ForeignCluster { found: "x".into() };
        assert_eq!(order([valid(5), Slot::Unreadable { reason: foreign.clone() }]), Err(foreign));
    }
}
