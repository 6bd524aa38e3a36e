//! The model check's registers.

use mainstay_check::Bench;
use mainstay_contracts::Excuse;
use mainstay_contracts::datastore::{DatastoreUnderTest, RULES, Rule};
use mainstay_core::{
    DiskAction, DiskOutcome, Effect, FoundRegister, HostId, Input, OpId, ReadRegister, RegisterId,
    RegisterValue,
};

/// What is not modelled.
const LACKS: [Excuse; 6] = [
    ("a torn write leaves the value before it", NO_DAMAGE),
    ("a first write that is torn leaves its register missing, or readable", NO_DAMAGE),
    ("a damaged newest copy leaves the value before", NO_DAMAGE),
    ("a restart repairs both copies", NO_DAMAGE),
    ("a destroyed register is unreadable, and can be written again", NO_DAMAGE),
    ("two clusters on one storage don't see each other", "there is one cluster"),
];

const NO_DAMAGE: &str = "no register is damaged, and none has copies";

#[derive(Default)]
struct Checked {
    bench: Bench,
    ops: u64,
}

fn index(host: &HostId) -> usize {
    match host.as_str() {
        "host-1" => 0,
        "host-2" => 1,
        other => panic!("a rule with a host {other}"),
    }
}

impl Checked {
    /// The model's hosts have names of their own.
    fn name(&self, host: &HostId) -> HostId {
        self.bench.id(index(host))
    }

    fn id(&self, id: &RegisterId) -> RegisterId {
        match id {
            RegisterId::Heartbeat(host) => RegisterId::Heartbeat(self.name(host)),
            RegisterId::PowerOn(host) => RegisterId::PowerOn(self.name(host)),
            RegisterId::Ownership(host) => RegisterId::Ownership(self.name(host)),
            RegisterId::ProtectedList(epoch) => RegisterId::ProtectedList(*epoch),
        }
    }

    fn submit(&mut self, host: &HostId, action: DiskAction) -> OpId {
        self.ops += 1;
        let op = OpId(self.ops);
        self.bench.ask(index(host), Effect::Disk { op, datastore: self.bench.datastore(), action });
        op
    }

    fn run(&mut self, by: &HostId, action: DiskAction) -> Result<DiskOutcome, String> {
        let op = self.submit(by, action);
        while self.bench.go_on() {}
        let answer = |told: &mainstay_check::Told| match &told.input {
            Input::DiskDone { op: done, outcome } if *done == op => Some(outcome.clone()),
            _ => None,
        };
        self.bench.told().iter().rev().find_map(answer).ok_or_else(|| format!("{op:?} is not answered"))
    }

    fn value(&self, mut value: RegisterValue) -> RegisterValue {
        if let RegisterValue::ProtectedList(list) = &mut value {
            list.owner = self.name(&list.owner);
        }
        value
    }

    fn back(&self, mut read: ReadRegister) -> ReadRegister {
        if let ReadRegister::Value(RegisterValue::ProtectedList(list)) = &mut read {
            let number = if list.owner == self.bench.id(0) { 1 } else { 2 };
            list.owner = HostId::new(&format!("host-{number}"));
        }
        read
    }
}

impl DatastoreUnderTest for Checked {
    fn write(&mut self, host: &HostId, id: RegisterId, value: RegisterValue) -> Result<(), String> {
        let action = DiskAction::Write(self.id(&id), self.value(value));
        match self.run(host, action)? {
            DiskOutcome::Written => Ok(()),
            DiskOutcome::Failed(why) => Err(why.to_string()),
            DiskOutcome::Read(read) => Err(format!("{read:?} in answer to a write")),
        }
    }

    fn read(&mut self, host: &HostId, ids: &[RegisterId]) -> Result<Vec<FoundRegister>, String> {
        let theirs: Vec<RegisterId> = ids.iter().map(|id| self.id(id)).collect();
        match self.run(host, DiskAction::Read(theirs.clone()))? {
            DiskOutcome::Read(values) => {
                let name =
                    |id: RegisterId| theirs.iter().position(|their| *their == id).map(|at| ids[at].clone());
                let renamed = |read: FoundRegister| {
                    Some(FoundRegister { id: name(read.id)?, found: self.back(read.found) })
                };
                Ok(values.into_iter().filter_map(renamed).collect())
            }
            DiskOutcome::Failed(why) => Err(why.to_string()),
            DiskOutcome::Written => Err("`Written` in answer to a read".into()),
        }
    }

    fn reopen(&mut self, host: &HostId) {
        self.bench.restart(index(host));
    }

    fn tear_newest(&mut self, _: &RegisterId) -> bool {
        false
    }

    fn write_torn(&mut self, _: &HostId, _: RegisterId, _: RegisterValue) -> bool {
        false
    }

    fn write_late(&mut self, host: &HostId, id: RegisterId, value: RegisterValue) -> bool {
        let action = DiskAction::Write(self.id(&id), self.value(value));
        self.submit(host, action);
        self.bench.hold();
        true
    }

    fn land_late(&mut self) {
        self.bench.land();
    }

    fn destroy(&mut self, _: &RegisterId) -> bool {
        false
    }

    fn second_cluster(&mut self) -> Option<Box<dyn DatastoreUnderTest>> {
        None
    }
}

#[test]
fn the_checked_registers_keep_the_contract() {
    let checked = |_, rule: Rule| rule(&mut Checked::default());
    assert_eq!(mainstay_contracts::broken(&RULES, &LACKS, checked), [""; 0]);
}
