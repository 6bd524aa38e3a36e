//! Datastores as seen through their registers: one writer each, double-buffered, so that a write lands whole or not at all,
//! at some instant between its start and its end, or, when it failed, at any later time or never.
//!
//! Of two writes to one register the one that was started later wins, whenever they land: that is what the sequence number of
//! a double-buffered register is for. It passes `mainstay-contracts`' rules of datastores, as the real one does.
//!
//! A torn write is one that the storage reports as failed after it has spoilt a copy of the register. (One that spoils a register
//! and reports success would break the assumption that I1 rests on: what was acknowledged can be read.)
//!
//! One thing is kinder than the real one: there, a late write may hit the newest copy after two more writes, and the value before it
//! is read until the next write. (See the header of `registers.rs` in `storage`.)

mod damage;

use super::World;
use super::hypervisor::Lock;
use super::queue::Happening;
use crate::checkers::Landing;
use crate::setup::Setup;
use mainstay_core::register::LIST_REGIONS;
use mainstay_core::{
    DiskAction, DiskOutcome, Epoch, FoundRegister, HostId, Input, OpId, ReadRegister, RegisterId,
    RegisterValue, VmId, XmlId,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The longest that an operation on a slow datastore takes.
const SLOWEST: u64 = 15_000_000;

/// How a datastore behaves towards a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    Well,
    Cut,
    Hung,
    Slow(u64),
}

/// A datastore.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    /// For each host, in the setup's order: how the datastore is reached.
    pub paths: Vec<Path>,
    /// By host: since when its path is what it is.
    since: Vec<u64>,
    pub full: bool,
    /// By host: there is no path and never will be, whatever is healed.
    no_path: Vec<bool>,
    /// By host: reads work, writes fail.
    read_only: Vec<bool>,
    /// By host: so many of its next writes are torn.
    torn: Vec<u32>,
    registers: BTreeMap<RegisterId, Stored>,
    snapshot: Option<damage::Snapshot>,
    pub xml: BTreeSet<(VmId, XmlId)>,
    /// Operations that hang.
    parked: Vec<u64>,
    /// Registers whose last write by that process went well: the next one touches one copy only.
    settled: BTreeSet<(u64, RegisterId)>,
}

#[derive(Clone, Debug)]
struct Stored {
    /// What was written: of the epochs that share a region, the last.
    register: RegisterId,
    order: u64,
    writer: usize,
    /// In the format of a newer release.
    newer: bool,
    /// `None`: damaged.
    value: Option<RegisterValue>,
}

/// A register operation under way.
#[derive(Clone, Debug)]
pub(crate) struct DiskOp {
    host: usize,
    boot: u64,
    process: u64,
    store: usize,
    op: OpId,
    work: Work,
}

#[derive(Clone, Debug)]
enum Work {
    /// `turn`: with which of them it began.
    Read {
        wanted: Vec<RegisterId>,
        turn: usize,
        next: usize,
        got: Vec<FoundRegister>,
        step: u64,
    },
    Write {
        register: RegisterId,
        value: RegisterValue,
        started: u64,
        order: u64,
        rest: u64,
        landed: bool,
    },
}

impl Store {
    pub fn new(hosts: usize) -> Store {
        Store {
            paths: vec![Path::Well; hosts],
            since: vec![0; hosts],
            full: false,
            no_path: vec![false; hosts],
            read_only: vec![false; hosts],
            torn: vec![0; hosts],
            registers: BTreeMap::new(),
            snapshot: None,
            xml: BTreeSet::new(),
            parked: Vec::new(),
            settled: BTreeSet::new(),
        }
    }

    /// What a register holds, as that host would find it now.
    pub fn read(&self, register: &RegisterId, reader: usize, setup: &Setup) -> ReadRegister {
        // What an earlier epoch has left in the region is nothing to a later one.
        let stored = self.registers.get(&place(register)).filter(|stored| stored.register >= *register);
        if let Some(stored) = stored.filter(|stored| stored.register > *register) {
            let why = "the region holds the list of a later epoch";
            return ReadRegister::Unreadable(Arc::from(why), stored.order);
        }
        if let Some(stored) =
            stored.filter(|stored| stored.newer && !setup.understands(reader, stored.writer))
        {
            let why = "it has format version 2, this program reads up to 1: upgrade Mainstay on this host";
            return ReadRegister::Unreadable(Arc::from(why), stored.order);
        }
        match stored {
            Some(Stored { value: Some(value), .. }) => ReadRegister::Value(value.clone()),
            Some(Stored { value: None, order, .. }) => {
                let why = "both copies are damaged: the checksums do not match";
                ReadRegister::Unreadable(Arc::from(why), *order)
            }
            None => ReadRegister::Missing,
        }
    }

    /// Why a write is refused before it reaches the storage.
    fn refusal(&self, me: &HostId, register: &RegisterId, value: &RegisterValue) -> Option<&'static str> {
        let writer = match (register, value) {
            (RegisterId::Heartbeat(host) | RegisterId::PowerOn(host) | RegisterId::Ownership(host), _) => {
                host
            }
            (RegisterId::ProtectedList(_), RegisterValue::ProtectedList(list)) => &list.owner,
            (RegisterId::ProtectedList(_), _) => me,
        };
        if writer != me {
            return Some("each register has one writer");
        }
        let later = self.registers.get(&place(register)).filter(|stored| stored.register > *register);
        later.map(|_| "the region holds the list of a later epoch")
    }

    /// Whether a write of that age lands on what is there, or comes too late.
    fn takes(&self, register: &RegisterId, order: u64) -> bool {
        let stored = self.registers.get(&place(register));
        stored.is_none_or(|stored| stored.order < order && stored.register <= *register)
    }

    /// Whether nothing is wrong with that host's path.
    pub fn is_well(&self, host: usize) -> bool {
        self.paths[host] == Path::Well && !self.read_only[host] && self.torn[host] == 0
    }

    /// Whether that host cannot write there.
    pub fn is_read_only(&self, host: usize) -> bool {
        self.read_only[host]
    }

    /// Whether the storage hears nothing of that host.
    pub fn is_lost_to(&self, host: usize) -> bool {
        match self.paths[host] {
            Path::Cut | Path::Hung => true,
            Path::Well | Path::Slow(_) => false,
        }
    }

    /// What it holds, for the checkers.
    pub fn value(&self, register: &RegisterId) -> Option<&RegisterValue> {
        self.registers.get(&place(register)).and_then(|stored| stored.value.as_ref())
    }
}

/// Where a register lies: epochs share the regions of the protected list.
fn place(register: &RegisterId) -> RegisterId {
    match register {
        RegisterId::ProtectedList(epoch) => RegisterId::ProtectedList(Epoch(epoch.0 % LIST_REGIONS)),
        RegisterId::Heartbeat(_) | RegisterId::PowerOn(_) | RegisterId::Ownership(_) => register.clone(),
    }
}

impl World {
    /// A core asked for a register operation.
    pub(super) fn start_disk(
        &mut self,
        host: usize,
        process: u64,
        op: OpId,
        store: usize,
        action: DiskAction,
    ) {
        let mut time = self.dice.latency(self.setup.latencies.disk);
        if let Path::Slow(factor) = self.stores[store].paths[host] {
            // Slower than that is a hang, which is a fault of its own.
            time = (time * factor).min(SLOWEST);
        }
        self.under_way.last_key += 1;
        let key = self.under_way.last_key;
        let (work, first) = match action {
            DiskAction::Read(mut wanted) => {
                // Registers are read one after the other, each at an instant of its own. (Here in any order: nothing may
                // hang on it.)
                let turn = self.dice.index(wanted.len());
                wanted.rotate_left(turn);
                let step = time / (wanted.len() as u64 + 1);
                (Work::Read { wanted, turn, next: 0, got: Vec::new(), step }, step)
            }
            DiskAction::Write(register, value) => {
                let first = self.dice.between(1, time.max(1));
                let work = Work::Write {
                    register,
                    value,
                    started: self.now,
                    order: key,
                    rest: time.saturating_sub(first),
                    landed: false,
                };
                (work, first)
            }
        };
        let boot = self.hosts[host].boot;
        self.under_way.disk_ops.insert(key, DiskOp { host, boot, process, store, op, work });
        self.queue.push(self.now + first, Happening::Disk { key });
    }

    /// The next stage of an operation.
    pub(super) fn on_disk(&mut self, key: u64) {
        let Some(mut op) = self.under_way.disk_ops.remove(&key) else { return };
        let path = self.stores[op.store].paths[op.host];
        if path == Path::Hung {
            self.stores[op.store].parked.push(key);
            self.under_way.disk_ops.insert(key, op);
            return;
        }
        let lives = self.hosts[op.host].powered && self.hosts[op.host].boot == op.boot;
        match &mut op.work {
            Work::Read { wanted, turn, next, got, step } => {
                if !lives || path == Path::Cut {
                    self.disk_failed(&op);
                    return;
                }
                if let Some(register) = wanted.get(*next) {
                    let found = self.stores[op.store].read(register, op.host, &self.setup);
                    got.push(FoundRegister { id: register.clone(), found });
                    *next += 1;
                    let wait = if *step == 0 { 1 } else { self.dice.between(1, *step * 2) };
                    // The last register read, the answer is on its way.
                    self.queue.push(self.now + wait, Happening::Disk { key });
                    self.under_way.disk_ops.insert(key, op);
                } else {
                    // The answer keeps the order of the question.
                    got.rotate_right(*turn);
                    let outcome = DiskOutcome::Read(std::mem::take(got));
                    self.disk_done(&op, outcome);
                }
            }
            Work::Write { register, landed, .. } if *landed => {
                let writer = (op.process, place(register));
                let outcome = if path == Path::Cut {
                    self.record.seen.saw("write reported failed but landed");
                    self.stores[op.store].settled.remove(&writer);
                    DiskOutcome::Failed("the storage gave no answer".into())
                } else {
                    self.stores[op.store].settled.insert(writer);
                    DiskOutcome::Written
                };
                self.disk_done(&op, outcome);
            }
            Work::Write { register, value, rest, landed, .. } => {
                let rest = (*rest).max(1);
                if !lives && self.dice.permille(500) {
                    return;
                }
                if path == Path::Cut {
                    self.cut_write(key, op);
                    return;
                }
                let me = &self.setup.hosts[op.host].id;
                if let Some(why) = self.stores[op.store].refusal(me, register, value) {
                    self.disk_done(&op, DiskOutcome::Failed(why.into()));
                    return;
                }
                if self.stores[op.store].read_only[op.host] {
                    self.disk_failed(&op);
                    return;
                }
                if self.stores[op.store].torn[op.host] > 0 {
                    self.stores[op.store].torn[op.host] -= 1;
                    self.tear(&op, lives);
                    self.disk_failed(&op);
                    return;
                }
                *landed = true;
                self.land(&op, lives);
                self.under_way.disk_ops.insert(key, op);
                self.queue.push(self.now + rest, Happening::Disk { key });
            }
        }
    }

    /// A write meets a path that is cut: it fails, and lands at once, later or never.
    fn cut_write(&mut self, key: u64, op: DiskOp) {
        self.disk_failed(&op);
        // Only what was on its way when the path was cut can still arrive.
        let Work::Write { started, .. } = &op.work else { return };
        if *started >= self.stores[op.store].since[op.host] {
            return;
        }
        let at = match self.dice.below(10) {
            0..=5 => return,
            6 => self.now,
            7..=8 => self.now + self.dice.below(2_000_000),
            _ => self.now + self.dice.below(20_000_000),
        };
        self.under_way.disk_ops.insert(key, op);
        self.queue.push(at, Happening::LateLanding { key });
    }

    /// A write that failed lands after all.
    pub(super) fn on_late_landing(&mut self, key: u64) {
        if let Some(op) = self.under_way.disk_ops.remove(&key) {
            self.record.seen.saw("write reported failed but landed");
            let lives = self.hosts[op.host].boot == op.boot && self.hosts[op.host].powered;
            self.land(&op, lives);
        }
    }

    fn land(&mut self, op: &DiskOp, lives: bool) {
        let Work::Write { register, value, started, order, .. } = &op.work else { return };
        if !lives {
            self.record.seen.saw("late write landed after its host had died");
        }
        let spot = place(register);
        let newer = self.stores[op.store].takes(register, *order);
        self.record.trace.facts(&[self.now, 1, op.host as u64, op.store as u64, *order, u64::from(newer)]);
        let host = &self.setup.hosts[op.host].id;
        self.record.trace.line(self.now, host.as_str(), || {
            let late = if newer { "" } else { " (too late: a newer one is there)" };
            format!("  landed on {}: {register:?}{late}", self.setup.datastores[op.store].name)
        });
        if newer {
            self.watch_grants(op.store, value);
            let stored = Stored {
                register: register.clone(),
                order: *order,
                writer: op.host,
                newer: self.setup.hosts[op.host].newer,
                value: Some(value.clone()),
            };
            self.stores[op.store].registers.insert(spot, stored);
        }
        let (at, started) = (self.now, *started);
        let landing = Landing { at, started, store: op.store, host: op.host, register, value };
        let found = self.record.checks.on_land(&landing, &self.setup);
        self.report(found);
    }

    /// A write spoils a copy of its register. A writer never touches the better copy, so what was there before is what is read. But a
    /// first write, after a start or after one that failed, fills both copies; when the second one is spoilt, the first one counts.
    fn tear(&mut self, op: &DiskOp, lives: bool) {
        let Work::Write { register, order, .. } = &op.work else { return };
        let is_first = !self.stores[op.store].settled.contains(&(op.process, place(register)));
        let second = is_first && self.dice.permille(500);
        self.record.trace.facts(&[self.now, 9, op.host as u64, op.store as u64, *order, u64::from(second)]);
        let host = &self.setup.hosts[op.host].id;
        self.record.trace.line(self.now, host.as_str(), || {
            format!("  torn on {}: {register:?}", self.setup.datastores[op.store].name)
        });
        self.record.seen.saw("register torn");
        if second {
            self.land(op, lives);
        }
    }

    fn disk_done(&mut self, op: &DiskOp, outcome: DiskOutcome) {
        let input = Input::DiskDone { op: op.op, outcome };
        self.queue.push(self.now, Happening::Deliver { host: op.host, process: op.process, input });
    }

    fn disk_failed(&mut self, op: &DiskOp) {
        if let Work::Write { register, .. } = &op.work {
            self.stores[op.store].settled.remove(&(op.process, place(register)));
        }
        // Some storage says so at once, some after its own time-out.
        let wait =
            if self.dice.permille(700) { self.dice.between(200, 20_000) } else { self.dice.below(2_000_000) };
        let input = Input::DiskDone {
            op: op.op,
            outcome: DiskOutcome::Failed(Arc::from("Input/output error: the datastore is not reachable")),
        };
        self.queue.push(self.now + wait, Happening::Deliver { host: op.host, process: op.process, input });
    }

    /// Sets how a datastore behaves towards a host (or all), and lets operations go on that it holds back no longer. A path
    /// that is well takes writes again, whole.
    pub(super) fn set_path(&mut self, store: usize, host: Option<usize>, path: Path) {
        for index in (0..self.hosts.len()).filter(|index| host.is_none_or(|host| host == *index)) {
            let store = &mut self.stores[store];
            if store.no_path[index] {
                continue;
            }
            store.paths[index] = path;
            if path == Path::Well {
                store.read_only[index] = false;
                store.torn[index] = 0;
            }
        }
        if path != Path::Hung {
            let parked = std::mem::take(&mut self.stores[store].parked);
            for key in parked {
                let wait = self.dice.between(1, 200_000);
                self.queue.push(self.now + wait, Happening::Disk { key });
            }
        }
        if let Some(host) = host {
            self.locks_of(store, host);
        }
    }

    /// The storage drops the locks of a client that it hears nothing of, after its time; a client that is back claims them again.
    /// (When nobody reaches the storage, it drops nothing: most likely it is the storage that is away.)
    fn locks_of(&mut self, store: usize, host: usize) {
        let here = self.hosts[host].domains.iter();
        let mine = here.filter(|(vm, _)| self.setup.vms[**vm].datastore == store);
        let mine: Vec<_> = mine.map(|(vm, qemu)| (*vm, *qemu)).collect();
        let at = self.now + self.setup.datastores[store].lock_release;
        let lost = self.stores[store].is_lost_to(host);
        for (vm, qemu) in mine {
            let locks = &mut self.vms[vm].locks;
            if lost {
                self.queue.push(at, Happening::LockExpires { vm, qemu: qemu.id });
            } else if locks.is_empty() && qemu.state.holds_image() {
                locks.push(Lock { qemu: qemu.id });
            }
        }
    }

    /// The host for which a register is being read: it has to live for that.
    pub(super) fn reader(&self, key: u64) -> Option<usize> {
        let op = self.under_way.disk_ops.get(&key)?;
        match op.work {
            Work::Read { .. } => Some(op.host),
            Work::Write { .. } => None,
        }
    }

    /// That host has no path to that datastore, from the beginning and for ever.
    pub fn no_path(&mut self, store: usize, host: usize) {
        self.stores[store].paths[host] = Path::Cut;
        self.stores[store].no_path[host] = true;
    }

    /// Reads of that host (or of all) work, writes fail, until its path is well again.
    pub(super) fn set_read_only(&mut self, store: usize, host: Option<usize>) {
        for index in (0..self.hosts.len()).filter(|index| host.is_none_or(|host| host == *index)) {
            self.stores[store].read_only[index] = true;
        }
    }

    /// So many of the next writes of that host (or of each) are torn.
    pub(super) fn tear_writes(&mut self, store: usize, host: Option<usize>, count: u32) {
        for index in (0..self.hosts.len()).filter(|index| host.is_none_or(|host| host == *index)) {
            self.stores[store].torn[index] = count;
        }
    }
}
