//! The real datastore against the contract.

use crate::harness::{Client, as_seen_by_others, config, directory};
use mainstay_contracts::datastore::{DatastoreUnderTest, RULES, Rule};
use mainstay_formats::layout::{ATOMIC, locate, round_up};
use mainstay_formats::{ClusterId, Slot, decode_slot, read_header};
use mainstay_words::ids::HostId;
use mainstay_words::register::RegisterId;
use mainstay_words::{FoundRegister, RegisterValue};
use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::rc::Rc;
use tempfile::TempDir;

struct Real {
    directory: Rc<TempDir>,
    cluster: &'static str,
    clients: BTreeMap<HostId, Client>,
    /// Writes that are on their way.
    late: Vec<Interrupted>,
}

/// A write that has not reached the file.
struct Interrupted {
    path: PathBuf,
    /// The slot that it writes first.
    slot: Range<usize>,
    bytes: Vec<u8>,
}

impl Real {
    fn new(directory: Rc<TempDir>, cluster: &'static str) -> Real {
        Real { directory, cluster, clients: BTreeMap::new(), late: Vec::new() }
    }

    fn client(&mut self, host: &HostId) -> &Client {
        let path = match host.as_str() {
            "host-1" => self.directory.path().to_path_buf(),
            _ => as_seen_by_others(self.directory.path()),
        };
        let start = || Client::start(config(&path, self.cluster, host));
        self.clients.entry(host.clone()).or_insert_with(start)
    }

    fn file(&self, id: &RegisterId) -> (PathBuf, [Range<usize>; 2]) {
        let at = locate(id).expect("a good name");
        let folder = self.directory.path().join(format!(".mainstay/{}-test", self.cluster));
        (folder.join(at.file), at.slots.map(|start| start as usize..start as usize + at.slot_size))
    }

    /// Writes, and takes it back: the file is as before, and the writer's process has ended. A first write fills both slots; then
    /// the process ended before it came to the second one.
    fn interrupt(&mut self, host: &HostId, id: RegisterId, value: RegisterValue) -> Interrupted {
        let (path, slots) = self.file(&id);
        let before = fs::read(&path).ok();
        self.client(host).write(id.clone(), value).expect("written");
        self.clients.remove(host);
        let after = fs::read(&path).expect("the register's file");
        let before = before.unwrap_or_else(|| vec![0; after.len()]);
        let sequence = |slot: &Range<usize>| {
            read_header(&after[slot.clone()]).ok().flatten().map(|header| header.sequence)
        };
        let changed = slots.into_iter().filter(|slot| before[slot.clone()] != after[slot.clone()]);
        let slot = changed.min_by_key(sequence).expect("it was written somewhere");
        let bytes = after[slot.clone()].to_vec();
        fs::write(&path, before).expect("taking it back");
        Interrupted { path, slot, bytes }
    }

    /// Damages those slots that `which` picks by their sequence numbers.
    fn damage(&mut self, id: &RegisterId, which: impl Fn(u64, u64) -> bool) {
        let (path, slots) = self.file(id);
        let mut bytes = fs::read(&path).expect("the register's file");
        let cluster = ClusterId::parse(self.cluster).expect("good");
        let sequences = slots.clone().map(|slot| match decode_slot(&cluster, id, &bytes[slot]) {
            Slot::Valid { sequence, .. } => sequence,
            Slot::Empty | Slot::Unreadable { .. } => 0,
        });
        let best = sequences[0].max(sequences[1]);
        for (slot, sequence) in slots.into_iter().zip(sequences) {
            if which(sequence, best) {
                let header = read_header(&bytes[slot.clone()]).expect("valid").expect("written");
                // The last byte of the body, with all behind it: what a write that was cut short leaves.
                let from = slot.start + header.total_length() - 1;
                let to = slot.start + round_up(header.total_length());
                bytes[from..to].fill(0);
            }
        }
        fs::write(&path, bytes).expect("damaging the file");
    }
}

impl DatastoreUnderTest for Real {
    fn write(&mut self, host: &HostId, id: RegisterId, value: RegisterValue) -> Result<(), String> {
        self.client(host).write(id, value)
    }

    fn read(&mut self, host: &HostId, ids: &[RegisterId]) -> Result<Vec<FoundRegister>, String> {
        self.client(host).read_all(ids)
    }

    fn reopen(&mut self, host: &HostId) {
        self.clients.remove(host);
    }

    fn tear_newest(&mut self, id: &RegisterId) -> bool {
        self.damage(id, |sequence, best| sequence == best);
        true
    }

    fn write_torn(&mut self, host: &HostId, id: RegisterId, value: RegisterValue) -> bool {
        let Interrupted { path, slot, bytes: mut torn } = self.interrupt(host, id, value);
        let mut bytes = fs::read(&path).expect("the register's file");
        if let Ok(None) = read_header(&bytes[slot.clone()]) {
            // A slot that was never written gets its header last.
            torn[..ATOMIC].fill(0);
        } else {
            let length = read_header(&torn).expect("valid").expect("written").total_length();
            torn[length - 1..].fill(0);
        }
        bytes[slot].copy_from_slice(&torn);
        fs::write(&path, bytes).expect("tearing the write");
        true
    }

    fn write_late(&mut self, host: &HostId, id: RegisterId, value: RegisterValue) -> bool {
        let write = self.interrupt(host, id, value);
        self.late.push(write);
        true
    }

    fn land_late(&mut self) {
        for Interrupted { path, slot, bytes: late } in std::mem::take(&mut self.late) {
            let mut bytes = fs::read(&path).expect("the register's file");
            bytes[slot].copy_from_slice(&late);
            fs::write(&path, bytes).expect("landing");
        }
    }

    fn destroy(&mut self, id: &RegisterId) -> bool {
        self.damage(id, |_, _| true);
        true
    }

    fn second_cluster(&mut self) -> Option<Box<dyn DatastoreUnderTest>> {
        Some(Box::new(Real::new(self.directory.clone(), "other")))
    }
}

#[test]
fn the_real_datastore_keeps_the_contract() {
    let real = |_, rule: Rule| rule(&mut Real::new(Rc::new(directory()), "lab"));
    assert_eq!(mainstay_contracts::broken(&RULES, &[], real), [""; 0]);
}
