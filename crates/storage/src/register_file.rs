//! One open register file: whole blocks, O_DIRECT, O_DSYNC.

use crate::aligned::AlignedBuffer;
use crate::counters::{SharedCounters, add};
use crate::error::StorageError;
use crate::folder::{Identity, identity};
use mainstay_formats::layout::{BLOCK, Location, round_up};
use mainstay_formats::{Chosen, ClusterId, Slot, choose, decode_slot, read_header};
use mainstay_words::register::RegisterId;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often a register is looked at, at most, until two looks in a row see the same bytes.
const LOOKS_MAX: u32 = 5;

/// Between two looks: about as long as a write of a small register takes.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(1);

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

pub(crate) struct RegisterFile {
    file: File,
    path: PathBuf,
    identity: Identity,
}

/// The bytes of both slots.
type Look = [Vec<u8>; 2];

impl RegisterFile {
    /// Opens an existing file; `Ok(None)` when there is none.
    pub(crate) fn open(
        path: &Path,
        access: Access,
        counters: &SharedCounters,
    ) -> Result<Option<RegisterFile>, StorageError> {
        let flags = OFlags::CLOEXEC
            | match access {
                Access::Read => OFlags::RDONLY,
                Access::Write => OFlags::RDWR | OFlags::DSYNC,
            };
        let fd = match rustix::fs::open(path, flags | OFlags::DIRECT, Mode::empty()) {
            Err(Errno::INVAL) => {
                if !counters.without_direct_io.swap(true, Ordering::Relaxed) {
                    tracing::warn!(path = %path.display(), "this file system refuses O_DIRECT: it is not fit for a shared datastore");
                }
                rustix::fs::open(path, flags, Mode::empty())
            }
            other => other,
        };
        let file = match fd {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(StorageError::io("opening", path, error)),
        };
        let metadata = file.metadata().map_err(|error| StorageError::io("opening", path, error))?;
        Ok(Some(RegisterFile { file, path: path.to_path_buf(), identity: identity(&metadata) }))
    }

    /// Whether the path still leads to this file. A host that went on writing to a removed file would think itself alive
    /// while nobody sees it.
    pub(crate) fn is_current(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|metadata| identity(&metadata) == self.identity)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads up to `length` bytes; fewer at the end of the file.
    fn read_at(
        &self,
        offset: u64,
        length: usize,
        counters: &SharedCounters,
    ) -> Result<Vec<u8>, StorageError> {
        let mut buffer = AlignedBuffer::zeroed(length);
        let mut done = 0;
        while done < length {
            match rustix::io::pread(&self.file, &mut buffer.as_mut_slice()[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => {
                    done += count;
                    // The end of a file that ends inside a block; O_DIRECT can't go on from there.
                    if count % BLOCK != 0 {
                        break;
                    }
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(StorageError::io("reading", &self.path, error)),
            }
        }
        let done = done.min(length);
        add(&counters.bytes_read, done as u64);
        Ok(buffer.as_slice()[..done].to_vec())
    }

    /// Writes whole blocks. Durable when it returns.
    pub(crate) fn write_at(
        &self,
        offset: u64,
        bytes: &[u8],
        counters: &SharedCounters,
    ) -> Result<(), StorageError> {
        let buffer = AlignedBuffer::from_slice(bytes);
        let content = buffer.as_slice();
        let mut done = 0;
        while done < content.len() {
            match rustix::io::pwrite(&self.file, &content[done..], offset + done as u64) {
                Ok(0) => return Err(StorageError::io("writing", &self.path, Errno::IO)),
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(StorageError::io("writing", &self.path, error)),
            }
        }
        add(&counters.bytes_written, content.len() as u64);
        Ok(())
    }

    /// The first block of a slot, and the rest as far as its header says that there is more.
    fn read_slot(
        &self,
        offset: u64,
        slot_size: usize,
        counters: &SharedCounters,
    ) -> Result<Vec<u8>, StorageError> {
        let mut bytes = self.read_at(offset, BLOCK, counters)?;
        if let Ok(Some(header)) = read_header(&bytes) {
            let total = header.total_length();
            if total > bytes.len() && bytes.len() == BLOCK && total <= slot_size {
                let rest = self.read_at(offset + BLOCK as u64, round_up(total) - BLOCK, counters)?;
                bytes.extend_from_slice(&rest);
            }
        }
        Ok(bytes)
    }

    /// Both slots' bytes, read one after the other.
    pub(crate) fn look(&self, at: &Location, counters: &SharedCounters) -> Result<Look, StorageError> {
        let [first, second] = at.slots;
        Ok([self.read_slot(first, at.slot_size, counters)?, self.read_slot(second, at.slot_size, counters)?])
    }

    /// What the register holds.
    ///
    /// Safety argument: two whole slots are conclusive (the better of them was the present value at some moment of this
    /// read, since a writer never touches the better one). If one is not whole, a write may have been going on, and the other slot may
    /// have been overtaken in the meantime; so look again until nothing has changed between two looks.
    pub(crate) fn read_register(
        &self,
        cluster: &ClusterId,
        id: &RegisterId,
        at: &Location,
        counters: &SharedCounters,
    ) -> Result<(Chosen, u64), StorageError> {
        settle(cluster, id, counters, || self.look(at, counters))
    }
}

/// A number that changes when the bytes do.
fn mark(slots: &Look) -> u64 {
    let sums = [crc32c::crc32c(&slots[0]), crc32c::crc32c(&slots[1])];
    (u64::from(sums[0]) << 32) | u64::from(sums[1])
}

/// Looks until what was seen is conclusive: see [`RegisterFile::read_register`]. With its [`mark`].
fn settle(
    cluster: &ClusterId,
    id: &RegisterId,
    counters: &SharedCounters,
    mut look: impl FnMut() -> Result<Look, StorageError>,
) -> Result<(Chosen, u64), StorageError> {
    let mut seen = look()?;
    for _ in 1..LOOKS_MAX {
        let slots = [decode_slot(cluster, id, &seen[0]), decode_slot(cluster, id, &seen[1])];
        let whole = slots.iter().all(|slot| match slot {
            Slot::Valid { .. } => true,
            Slot::Empty | Slot::Unreadable { .. } => false,
        });
        let [first, second] = slots;
        let chosen = choose(first, second);
        if whole {
            return Ok((chosen, mark(&seen)));
        }
        if chosen != Chosen::Missing {
            add(&counters.second_looks, 1);
            std::thread::sleep(LOOK_AGAIN_AFTER);
        }
        let again = look()?;
        if again == seen {
            return Ok((chosen, mark(&seen)));
        }
        seen = again;
    }
    Ok((choose(decode_slot(cluster, id, &seen[0]), decode_slot(cluster, id, &seen[1])), mark(&seen)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_formats::encode_slot;
    use mainstay_testkit::made::heartbeat;
    use mainstay_words::RegisterValue;
    use mainstay_words::ids::HostId;

    fn cluster() -> ClusterId {
        ClusterId::parse("lab").expect("good")
    }

    fn id() -> RegisterId {
        RegisterId::Heartbeat(HostId::new("host-1"))
    }

    fn slot(sequence: u64) -> Vec<u8> {
        let value = RegisterValue::Heartbeat(heartbeat(sequence));
        encode_slot(&cluster(), &id(), sequence, &value).expect("it fits")
    }

    fn torn(sequence: u64) -> Vec<u8> {
        let mut bytes = slot(sequence);
        bytes[150] ^= 1;
        bytes
    }

    /// The sequence number that comes out when the looks show these slots, one pair after the other.
    fn settled(looks: Vec<Look>) -> Option<u64> {
        let mut looks = looks.into_iter();
        let look = || Ok(looks.next().expect("it looks no more often"));
        let (chosen, _) = settle(&cluster(), &id(), &SharedCounters::default(), look).expect("looks succeed");
        assert_eq!(looks.next(), None, "it looks as often as needed");
        match chosen {
            Chosen::Value { sequence, .. } => Some(sequence),
            Chosen::Missing | Chosen::Unreadable { .. } => None,
        }
    }

    #[test]
    fn two_whole_slots_are_conclusive_at_once() {
        assert_eq!(settled(vec![[slot(5), slot(6)]]), Some(6));
    }

    #[test]
    fn an_overtaken_slot_is_not_taken_for_the_present_value() {
        // 6 was on disk when the read began; the writer wrote 7 over 5 and began 8 over 6 between the reads of the two slots.
        assert_eq!(settled(vec![[slot(5), torn(8)], [slot(7), slot(8)]]), Some(8));
        assert_eq!(settled(vec![[slot(5), torn(8)], [slot(7), torn(8)], [slot(7), torn(8)]]), Some(7));
        let unwritten = || vec![0; BLOCK];
        assert_eq!(settled(vec![[unwritten(), unwritten()], [slot(1000), slot(1001)]]), Some(1001));
    }

    #[test]
    fn damage_that_stays_falls_back() {
        assert_eq!(settled(vec![[slot(5), torn(6)], [slot(5), torn(6)]]), Some(5));
        assert_eq!(settled(vec![[torn(5), torn(6)], [torn(5), torn(6)]]), None);
    }
}
