//! The simulator's datastore.

use crate::puppet::{Puppets, for_each_seed, host};
use mainstay_contracts::Excuse;
use mainstay_contracts::datastore::{DatastoreUnderTest, RULES, Rule};
use mainstay_core::{
    DatastoreName, DiskAction, DiskOutcome, Effect, FoundRegister, HostId, Input, OpId, RegisterId,
    RegisterValue,
};
use mainstay_sim::Action;
use mainstay_sim::action::HostRegister;

/// What the model has nothing for.
const LACKS: [Excuse; 3] = [
    ("a damaged newest copy leaves the value before", "a register's copies are not modelled one by one"),
    ("a restart repairs both copies", "a register's copies are not modelled one by one"),
    ("two clusters on one storage don't see each other", "there is one cluster"),
];

/// Much depends on chance: where in an operation it is interrupted, and whether what was interrupted still lands.
const SEEDS: u64 = 8;

/// More than the longest that an operation, or a write that comes late, takes.
const PATIENCE: u64 = 60_000_000;

struct Simulated {
    puppets: Puppets,
    ops: u64,
    /// The host that has a write on its way.
    late: Option<HostId>,
}

fn store() -> DatastoreName {
    DatastoreName::new("ds1")
}

impl Simulated {
    fn new(seed: u64) -> Simulated {
        Simulated { puppets: Puppets::new(seed, true), ops: 0, late: None }
    }

    fn submit(&mut self, host: &HostId, action: DiskAction) -> OpId {
        self.ops += 1;
        let op = OpId(self.ops);
        self.puppets.order(host, Effect::Disk { op, datastore: store(), action });
        op
    }

    fn run(&mut self, by: &HostId, action: DiskAction) -> Result<DiskOutcome, String> {
        let op = self.submit(by, action);
        for _ in 0..PATIENCE / 1_000 {
            self.puppets.pass(1_000);
            let told =
                if *by == host(1) { std::mem::take(&mut self.puppets.heard) } else { self.puppets.told(by) };
            for heard in told {
                match heard.input {
                    Input::DiskDone { op: done, outcome } if done == op => return Ok(outcome),
                    _ => {}
                }
            }
        }
        Err(format!("{op:?} is not answered"))
    }

    fn restart(&mut self, host: &HostId) {
        self.puppets.act(Action::AgentKill { host: host.clone() });
        self.puppets.act(Action::agent_start(host.clone()));
    }
}

impl DatastoreUnderTest for Simulated {
    fn write(&mut self, host: &HostId, id: RegisterId, value: RegisterValue) -> Result<(), String> {
        match self.run(host, DiskAction::Write(id, value))? {
            DiskOutcome::Written => Ok(()),
            DiskOutcome::Failed(why) => Err(why.to_string()),
            DiskOutcome::Read(read) => Err(format!("{read:?} in answer to a write")),
        }
    }

    fn read(&mut self, host: &HostId, ids: &[RegisterId]) -> Result<Vec<FoundRegister>, String> {
        match self.run(host, DiskAction::Read(ids.to_vec()))? {
            DiskOutcome::Read(values) => Ok(values),
            DiskOutcome::Failed(why) => Err(why.to_string()),
            DiskOutcome::Written => Err("`Written` in answer to a read".into()),
        }
    }

    fn reopen(&mut self, host: &HostId) {
        self.restart(host);
    }

    fn tear_newest(&mut self, _: &RegisterId) -> bool {
        false
    }

    fn write_torn(&mut self, host: &HostId, id: RegisterId, value: RegisterValue) -> bool {
        let (datastore, of) = (store(), Some(host.clone()));
        self.puppets.act(Action::DatastoreTorn { datastore, host: of, count: 1 });
        self.write(host, id, value).is_err()
    }

    fn write_late(&mut self, host: &HostId, id: RegisterId, value: RegisterValue) -> bool {
        let of = Some(host.clone());
        self.puppets.act(Action::DatastoreSlow { datastore: store(), host: of.clone(), factor: 1_000 });
        self.submit(host, DiskAction::Write(id, value));
        self.puppets.pass(10_000);
        // It meets a path that is cut by now: it is reported as failed, and may land later.
        self.puppets.act(Action::DatastoreCut { datastore: store(), host: of.clone() });
        self.puppets.pass(2_000_000);
        self.puppets.act(Action::DatastoreHeal { datastore: store(), host: of });
        self.late = Some(host.clone());
        true
    }

    fn land_late(&mut self) {
        if self.late.take().is_some() {
            self.puppets.pass(25_000_000);
        }
    }

    fn destroy(&mut self, id: &RegisterId) -> bool {
        let (host, register) = match id {
            RegisterId::Heartbeat(host) => (host, HostRegister::Heartbeat),
            RegisterId::PowerOn(host) => (host, HostRegister::PowerOn),
            RegisterId::Ownership(host) => (host, HostRegister::Ownership),
            RegisterId::ProtectedList(_) => return false,
        };
        self.puppets.act(Action::RegisterDestroy { datastore: store(), host: host.clone(), register });
        true
    }

    fn second_cluster(&mut self) -> Option<Box<dyn DatastoreUnderTest>> {
        None
    }
}

#[test]
fn the_simulated_datastore_keeps_the_contract() {
    let simulated = |_, rule: Rule| for_each_seed(SEEDS, |seed| rule(&mut Simulated::new(seed)));
    assert_eq!(mainstay_contracts::broken(&RULES, &LACKS, simulated), [""; 0]);
}
