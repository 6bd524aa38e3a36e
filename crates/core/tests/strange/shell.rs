//! A host around a core: disks, a guard and libvirt that answer at once, or with whatever the dice give.

use crate::dice::Dice;
use mainstay_core::*;
use mainstay_testkit::made;
use std::collections::{BTreeMap, VecDeque};

/// The run of the core's agent.
pub const RUN: Incarnation = Incarnation(77);

/// How the disks answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Disks {
    /// With what was written there.
    Honest,
    /// Every third register that is read is anything; writes fail now and then.
    Strange,
}

pub struct Shell {
    pub core: Core,
    pub now: Time,
    disks: Disks,
    registers: BTreeMap<(DatastoreName, RegisterId), RegisterValue>,
    /// Registers that nobody can read.
    pub damaged: Vec<RegisterId>,
    answers: VecDeque<Input>,
}

pub fn config() -> Config {
    Config {
        peers: vec![made::host(2), made::host(3)],
        datastores: vec![DatastoreName::new("ds1"), DatastoreName::new("ds2")],
        incarnation: RUN,
        concurrent_starts: 2,
        isolation_addresses: vec!["10.0.0.1".into()],
        isolation_timeout: None,
        ..made::config()
    }
}

impl Shell {
    pub fn new(disks: Disks) -> Shell {
        Shell::with(disks, config())
    }

    pub fn with(disks: Disks, config: Config) -> Shell {
        let now = Time(1_000_000);
        let core = Core::new(config, now).expect("a good configuration");
        let mut shell = Shell {
            core,
            now,
            disks,
            registers: BTreeMap::new(),
            damaged: Vec::new(),
            answers: VecDeque::new(),
        };
        shell.answers.push_back(Input::Guard(GuardReport::Hello { incarnation: Incarnation(5) }));
        shell.answers.push_back(Input::Domains { as_of: now, domains: Vec::new() });
        shell
    }

    /// Puts something on a disk.
    pub fn put(&mut self, datastore: DatastoreName, id: RegisterId, value: RegisterValue) {
        self.registers.insert((datastore, id), value);
    }

    pub fn give(&mut self, input: Input, dice: &mut Dice) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.core.step(self.now, input, &mut effects);
        let told = effects.clone();
        for effect in effects {
            self.carry_out(effect, dice);
        }
        told
    }

    /// Lets time pass, answers included, until then.
    pub fn run_until(&mut self, end: Time, dice: &mut Dice) -> Vec<Effect> {
        let mut told = Vec::new();
        loop {
            if let Some(input) = self.answers.pop_front() {
                self.now += Span(100);
                told.extend(self.give(input, dice));
                continue;
            }
            // Each tick takes time, however soon the core wants the next.
            self.now = (self.now + Span(1_000)).max(self.core.next_deadline().min(end));
            for datastore in ["ds1", "ds2"].map(DatastoreName::new) {
                let (started, error) = (self.now, None);
                self.answers.push_back(Input::Guard(GuardReport::Beat { datastore, started, error }));
            }
            told.extend(self.give(Input::Tick, dice));
            if self.now >= end {
                return told;
            }
        }
    }

    fn carry_out(&mut self, effect: Effect, dice: &mut Dice) {
        match effect {
            Effect::Disk { op, datastore, action } => {
                let outcome = match action {
                    DiskAction::Read(ids) => DiskOutcome::Read(
                        ids.into_iter()
                            .map(|id| (id.clone(), self.read(&datastore, id, dice)).into())
                            .collect(),
                    ),
                    DiskAction::Write(..) if self.disks == Disks::Strange && dice.one_in(10) => {
                        DiskOutcome::Failed("no space left".into())
                    }
                    DiskAction::Write(id, value) => {
                        self.registers.insert((datastore, id), value);
                        DiskOutcome::Written
                    }
                };
                self.answers.push_back(Input::DiskDone { op, outcome });
            }
            Effect::Ping { host } => {
                self.answers.push_back(Input::PingDone { host, answered: dice.one_in(2) });
            }
            Effect::PingIsolation { index } => {
                self.answers.push_back(Input::IsolationPingDone { index, answered: true });
            }
            Effect::Vm { op, .. } => {
                self.answers.push_back(Input::VmDone { op, outcome: VmOutcome::Done });
            }
            Effect::StoreXml { datastore, vm, xml } => {
                self.answers.push_back(Input::XmlStored { datastore, vm, xml, error: None });
            }
            Effect::ReplaceGuard => {
                self.answers.push_back(Input::Guard(GuardReport::Hello { incarnation: Incarnation(6) }));
            }
            Effect::Send { .. } | Effect::Guard(_) | Effect::Event(_) | Effect::Reply { .. } => {}
        }
    }

    fn read(&mut self, datastore: &DatastoreName, id: RegisterId, dice: &mut Dice) -> ReadRegister {
        if self.damaged.contains(&id) {
            return ReadRegister::Unreadable("it belongs to the cluster elsewhere".into(), 0);
        }
        if self.disks == Disks::Strange && dice.one_in(3) {
            return dice.read();
        }
        match self.registers.get(&(datastore.clone(), id)) {
            Some(value) => ReadRegister::Value(value.clone()),
            None => ReadRegister::Missing,
        }
    }
}
