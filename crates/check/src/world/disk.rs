//! The datastore: registers with one writer each. A write lands at some instant after its start, if need be long after its
//! writer has died; of two writes of one register the one that was started later wins, whenever they land.

use super::{Item, World};
use mainstay_core::register::{LIST_REGIONS, ProtectedList};
use mainstay_core::{
    DiskAction, DiskOutcome, Epoch, FoundRegister, HostId, Input, OpId, ReadRegister, RegisterId,
    RegisterValue,
};
use mainstay_guard_core::GuardInput;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Writer {
    /// That run of the host's agent.
    Agent(u64),
    /// The guard of that boot.
    Guard(u64),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Write {
    pub(crate) host: usize,
    pub(crate) writer: Writer,
    pub(crate) op: OpId,
    pub(crate) register: RegisterId,
    pub(crate) value: RegisterValue,
    pub(crate) order: u64,
    /// It was started after the VM's user had shut it down.
    pub(crate) after_stop: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Read {
    pub(crate) host: usize,
    pub(crate) run: u64,
    pub(crate) op: OpId,
    /// What is still to be read.
    pub(crate) wanted: Vec<RegisterId>,
    /// What was read.
    pub(crate) got: Vec<FoundRegister>,
}

/// What is on disk.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Registers(BTreeMap<RegisterId, Stored>);

#[derive(Clone, Debug, Hash)]
struct Stored {
    order: u64,
    id: RegisterId,
    value: RegisterValue,
}

/// Where a register lies: epochs share the regions of the protected list.
fn place(id: &RegisterId) -> RegisterId {
    match id {
        RegisterId::ProtectedList(epoch) => RegisterId::ProtectedList(Epoch(epoch.0 % LIST_REGIONS)),
        RegisterId::Heartbeat(_) | RegisterId::PowerOn(_) | RegisterId::Ownership(_) => id.clone(),
    }
}

impl Registers {
    fn read(&self, id: &RegisterId) -> ReadRegister {
        match self.0.get(&place(id)) {
            Some(stored) if stored.id == *id => ReadRegister::Value(stored.value.clone()),
            Some(stored) if stored.id > *id => {
                ReadRegister::Unreadable("a later epoch has taken the region".into(), stored.order)
            }
            // What an earlier epoch has left.
            Some(_) | None => ReadRegister::Missing,
        }
    }

    /// Why that host's write is refused.
    fn refusal(&self, me: &HostId, id: &RegisterId, value: &RegisterValue) -> Option<&'static str> {
        let writer = match (id, value) {
            (RegisterId::Heartbeat(host) | RegisterId::PowerOn(host) | RegisterId::Ownership(host), _) => {
                host
            }
            (RegisterId::ProtectedList(_), RegisterValue::ProtectedList(list)) => &list.owner,
            (RegisterId::ProtectedList(_), _) => me,
        };
        if writer != me {
            return Some("each register has one writer");
        }
        self.0.get(&place(id)).filter(|stored| stored.id > *id).map(|_| "a later epoch has taken the region")
    }

    /// The protected list of the highest epoch.
    pub(crate) fn list(&self) -> Option<&ProtectedList> {
        let lists = self.0.values().filter_map(|stored| match &stored.value {
            RegisterValue::ProtectedList(list) => Some(list),
            RegisterValue::Heartbeat(_) | RegisterValue::PowerOn(_) | RegisterValue::Ownership(_) => None,
        });
        lists.max_by_key(|list| list.stamp())
    }
}

impl World {
    /// A core asks for a register operation.
    pub(super) fn start_disk(&mut self, host: usize, op: OpId, action: DiskAction) {
        let run = self.hosts[host].run;
        match action {
            DiskAction::Read(wanted) => {
                self.ready.push_back(Item::Read(Read { host, run, op, wanted, got: Vec::new() }));
            }
            DiskAction::Write(register, value) => {
                self.start_write(host, Writer::Agent(run), op, register, value);
            }
        }
    }

    pub(super) fn start_write(
        &mut self,
        host: usize,
        writer: Writer,
        op: OpId,
        register: RegisterId,
        value: RegisterValue,
    ) {
        self.orders += 1;
        self.checks.on_write(host, &value);
        let (order, after_stop) = (self.orders, self.checks.is_stopped());
        self.ready.push_back(Item::Write(Write { host, writer, op, register, value, order, after_stop }));
    }

    /// A write lands and is answered.
    pub(super) fn write(&mut self, write: &Write) {
        match self.disk.refusal(&self.setup.id(write.host), &write.register, &write.value) {
            Some(why) => self.answer_write(write, Some(why.into())),
            None => {
                self.land(write);
                self.answer_write(write, None);
            }
        }
    }

    pub(super) fn land(&mut self, write: &Write) {
        let spot = place(&write.register);
        let wins = |stored: &Stored| stored.order < write.order && stored.id <= write.register;
        let newer = self.disk.0.get(&spot).is_none_or(wins);
        self.tell(write.host, || super::text::of_landing(write, newer));
        if newer {
            let (order, id, value) = (write.order, write.register.clone(), write.value.clone());
            Arc::make_mut(&mut self.disk).0.insert(spot, Stored { order, id, value });
        }
        let highest = self.disk.list().map(|list| list.epoch);
        self.checks.on_land(write.host, &write.value, write.after_stop, highest);
    }

    /// `error`: it was refused, and is not on disk.
    pub(super) fn answer_write(&mut self, write: &Write, error: Option<Arc<str>>) {
        match write.writer {
            Writer::Agent(run) => {
                let outcome = error.map_or(DiskOutcome::Written, DiskOutcome::Failed);
                self.feed_run(write.host, run, Input::DiskDone { op: write.op, outcome });
            }
            Writer::Guard(boot) if self.hosts[write.host].boot == boot => {
                self.feed_guard(write.host, GuardInput::Written { op: write.op, error });
            }
            Writer::Guard(_) => {}
        }
    }

    /// All that is still wanted is read, and answered.
    pub(super) fn read(&mut self, mut read: Read) {
        self.sample(&mut read, usize::MAX);
        let input = Input::DiskDone { op: read.op, outcome: DiskOutcome::Read(read.got) };
        self.feed_run(read.host, read.run, input);
    }

    /// So many of the wanted registers are read now.
    pub(super) fn sample(&self, read: &mut Read, count: usize) {
        let count = count.min(read.wanted.len());
        for id in read.wanted.drain(..count) {
            let value = self.disk.read(&id);
            read.got.push(FoundRegister { id, found: value });
        }
    }

    /// Writes that have not landed, of registers that this read is about to look at.
    pub(super) fn undecided(&self, read: &Read) -> impl Iterator<Item = usize> {
        let open =
            self.held.iter().enumerate().filter(|(_, held)| !held.landed && (!held.hung || held.orphan));
        let of = |(index, held): (usize, &super::Held)| match &held.item {
            Item::Write(write) if read.wanted.contains(&write.register) => Some(index),
            Item::Write(_)
            | Item::Read(_)
            | Item::Tick { .. }
            | Item::GuardTick { .. }
            | Item::Message { .. }
            | Item::Ping { .. }
            | Item::PingDone { .. }
            | Item::Order { .. }
            | Item::Report { .. }
            | Item::Deed { .. }
            | Item::Libvirt { .. }
            | Item::Domains { .. }
            | Item::Xml { .. } => None,
        };
        open.filter_map(of).collect::<Vec<_>>().into_iter()
    }
}
