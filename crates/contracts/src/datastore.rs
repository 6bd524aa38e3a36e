//! What every datastore must do. The real one, the simulator's and the model check's are run through these rules.
//!
//! Not in here: how long something takes, and when it hangs or fails. In that the models differ from each other by design.

use mainstay_words::ids::*;
use mainstay_words::register::*;
use mainstay_words::{FoundRegister, ReadRegister, RegisterValue};

/// A datastore on which several hosts work.
pub trait DatastoreUnderTest {
    /// That host writes a register; done when this returns.
    fn write(&mut self, host: &HostId, id: RegisterId, value: RegisterValue) -> Result<(), String>;
    /// That host reads registers.
    fn read(&mut self, host: &HostId, ids: &[RegisterId]) -> Result<Vec<FoundRegister>, String>;
    /// That host's agent ends and starts anew.
    fn reopen(&mut self, host: &HostId);
    /// Damages what was written last to the register, where it lies; `false` when there are no slots to damage.
    fn tear_newest(&mut self, id: &RegisterId) -> bool;
    /// That host's write is cut short: it is reported as failed, or its writer dies. `false` when that can't be done here.
    fn write_torn(&mut self, host: &HostId, id: RegisterId, value: RegisterValue) -> bool;
    /// That host begins a write that stays on its way, and its agent dies; `false` when that can't be done here.
    fn write_late(&mut self, host: &HostId, id: RegisterId, value: RegisterValue) -> bool;
    /// What is on its way lands now.
    fn land_late(&mut self);
    /// Damages everything that the register holds; `false` when that can't be done here.
    fn destroy(&mut self, id: &RegisterId) -> bool;
    /// Another cluster on the same storage; `None` when there is no such thing here.
    fn second_cluster(&mut self) -> Option<Box<dyn DatastoreUnderTest>>;
}

/// One rule of the contract. `Ok(false)`: the datastore under test has nothing that the rule could be tried on.
pub type Rule = fn(&mut dyn DatastoreUnderTest) -> Result<bool, String>;

/// All rules, with their names. Each wants a fresh datastore.
pub const RULES: [(&str, Rule); 14] = [
    ("a register that was never written is missing", never_written_is_missing),
    ("others read what one wrote", others_read_what_one_wrote),
    ("the last write counts, also after restarts", last_write_counts),
    ("a torn write leaves the value before it", torn_write_leaves_the_value_before),
    ("a first write that is torn leaves its register missing, or readable", torn_first_write_is_harmless),
    ("a damaged newest copy leaves the value before", damaged_newest_leaves_the_value_before),
    ("a restart repairs both copies", restart_repairs_both_copies),
    ("a late write never wins", late_write_never_wins),
    ("a destroyed register is unreadable, and can be written again", destroyed_is_unreadable),
    ("lists of different epochs are independent", epochs_are_independent),
    ("an epoch whose region a later one has taken can't be read", superseded_epoch_is_unreadable),
    ("a late owner can't overwrite a later epoch's region", late_owner_is_refused),
    ("a register has one writer", one_writer),
    ("two clusters on one storage don't see each other", clusters_are_apart),
];

fn host(number: u32) -> HostId {
    HostId::new(&format!("host-{number}"))
}

fn beat(counter: u64) -> RegisterValue {
    let boot = BootId([1; 16]);
    RegisterValue::Heartbeat(HeartbeatRegister {
        boot,
        incarnation: Incarnation(1),
        counter,
        agent: None,
        agent_well: true,
        failure_timeout: None,
        slow: false,
        hold: None,
        files: None,
    })
}

fn power_on(version: u64, claims: u32) -> RegisterValue {
    let claim = |index: u32| Claim {
        vm: VmId(u128::from(index).to_be_bytes()),
        name: format!("vm{index}").as_str().into(),
        token: None,
        state: ClaimState::Running,
        spec: None,
        asked_to_stop: false,
        powering_off: false,
        guest: Guest::Silent,
        order_failed: None,
        ended: false,
        under: Token::default(),
    };
    RegisterValue::PowerOn(PowerOnList {
        boot: BootId([1; 16]),
        incarnation: Incarnation(1),
        version,
        isolated: false,
        list_seen: None,
        complete: true,
        offers: None,
        guard: Default::default(),
        claims: (0..claims).map(claim).collect(),
    })
}

fn list(epoch: u64, version: u64, owner: &HostId) -> RegisterValue {
    let (epoch, owner) = (Epoch(epoch), owner.clone());
    RegisterValue::ProtectedList(ProtectedList {
        epoch,
        version,
        owner,
        entries: Vec::new(),
        settings: Default::default(),
        suspension: None,
        holds: None,
    })
}

type Register = (fn() -> RegisterId, fn(u64) -> RegisterValue);

/// One that fits into a single block, and one that spans many.
const REGISTERS_OF_HOST_1: [Register; 2] = [
    (|| RegisterId::Heartbeat(host(1)), beat),
    (|| RegisterId::PowerOn(host(1)), |version| power_on(version, 50)),
];

/// One read of one register.
fn read(ds: &mut dyn DatastoreUnderTest, by: &HostId, id: &RegisterId) -> Result<ReadRegister, String> {
    let mut read = ds.read(by, std::slice::from_ref(id))?;
    match (read.pop(), read.is_empty()) {
        (Some(one), true) if one.id == *id => Ok(one.found),
        other => Err(format!("{other:?} in answer to a read of {id:?}")),
    }
}

fn expect(
    ds: &mut dyn DatastoreUnderTest,
    by: &HostId,
    id: &RegisterId,
    value: &RegisterValue,
) -> Result<(), String> {
    match read(ds, by, id)? {
        ReadRegister::Value(found) if found == *value => Ok(()),
        other => Err(format!("{by} reads {id:?}: {other:?} instead of {value:?}")),
    }
}

fn expect_missing(ds: &mut dyn DatastoreUnderTest, by: &HostId, id: &RegisterId) -> Result<(), String> {
    match read(ds, by, id)? {
        ReadRegister::Missing => Ok(()),
        other => Err(format!("{by} reads {id:?}: {other:?} instead of nothing")),
    }
}

fn never_written_is_missing(ds: &mut dyn DatastoreUnderTest) -> Result<bool, String> {
    for id in [
        RegisterId::Heartbeat(host(2)),
        RegisterId::PowerOn(host(1)),
        RegisterId::Ownership(host(2)),
        RegisterId::ProtectedList(Epoch(0)),
        RegisterId::ProtectedList(Epoch(7)),
    ] {
        expect_missing(ds, &host(1), &id)?;
    }
    Ok(true)
}

fn others_read_what_one_wrote(ds: &mut dyn DatastoreUnderTest) -> Result<bool, String> {
    // The second one spans many blocks.
    let writes = [
        (RegisterId::Heartbeat(host(1)), beat(1)),
        (RegisterId::PowerOn(host(1)), power_on(1, 300)),
        (RegisterId::ProtectedList(Epoch(3)), list(3, 1, &host(1))),
    ];
    for (id, value) in &writes {
        ds.write(&host(1), id.clone(), value.clone())?;
    }
    for by in [host(1), host(2)] {
        for (id, value) in &writes {
            expect(ds, &by, id, value)?;
        }
        // In one operation, in the order asked for.
        let ids: Vec<RegisterId> = writes.iter().map(|(id, _)| id.clone()).rev().collect();
        let found: Vec<RegisterId> = ds.read(&by, &ids)?.into_iter().map(|one| one.id).collect();
        if found != ids {
            return Err(format!("{found:?} in answer to a read of {ids:?}"));
        }
    }
    Ok(true)
}

fn last_write_counts(ds: &mut dyn DatastoreUnderTest) -> Result<bool, String> {
    let id = RegisterId::PowerOn(host(1));
    for round in 1..=20 {
        // Growing and shrinking by turns: what is left of a longer value must not show.
        let value = power_on(round, if round % 2 == 0 { 200 } else { 2 });
        ds.write(&host(1), id.clone(), value.clone())?;
        expect(ds, &host(2), &id, &value)?;
        if round % 5 == 0 {
            ds.reopen(&host(1));
            expect(ds, &host(1), &id, &value)?;
            expect(ds, &host(2), &id, &value)?;
        }
    }
    Ok(true)
}

fn torn_write_leaves_the_value_before(ds: &mut dyn DatastoreUnderTest) -> Result<bool, String> {
    for (id, value) in REGISTERS_OF_HOST_1 {
        for version in 1..=3 {
            ds.write(&host(1), id(), value(version))?;
        }
        if !ds.write_torn(&host(1), id(), value(4)) {
            return Ok(false);
        }
        expect(ds, &host(2), &id(), &value(3))?;
        // After one that has failed, both copies are written: the tear may spare the new one. It never hits the only good one.
        let mut newest = 3;
        for version in 5..=7 {
            ds.write_torn(&host(1), id(), value(version));
            match read(ds, &host(2), &id())? {
                ReadRegister::Value(found) if found == value(newest) => {}
                ReadRegister::Value(found) if found == value(version) => newest = version,
                other => return Err(format!("{other:?} after torn writes, the last of version {version}")),
            }
        }
        ds.write(&host(1), id(), value(8))?;
        expect(ds, &host(2), &id(), &value(8))?;
    }
    Ok(true)
}

fn torn_first_write_is_harmless(ds: &mut dyn DatastoreUnderTest) -> Result<bool, String> {
    for (id, value) in REGISTERS_OF_HOST_1 {
        if !ds.write_torn(&host(1), id(), value(1)) {
            return Ok(false);
        }
        match read(ds, &host(2), &id())? {
            ReadRegister::Missing => {}
            // Only its second copy was spoilt.
            ReadRegister::Value(found) if found == value(1) => {}
            other => return Err(format!("{other:?} after a first write that was torn")),
        }
        ds.write(&host(1), id(), value(2))?;
        expect(ds, &host(2), &id(), &value(2))?;
    }
    Ok(true)
}

fn damaged_newest_leaves_the_value_before(ds: &mut dyn DatastoreUnderTest) -> Result<bool, String> {
    let id = RegisterId::PowerOn(host(1));
    for version in 1..=4 {
        ds.write(&host(1), id.clone(), power_on(version, 50))?;
    }
    if !ds.tear_newest(&id) {
        return Ok(false);
    }
    expect(ds, &host(2), &id, &power_on(3, 50))?;
    // The writer that comes back spares the only good slot and goes on.
    ds.reopen(&host(1));
    ds.write(&host(1), id.clone(), power_on(5, 50))?;
    expect(ds, &host(2), &id, &power_on(5, 50))?;
    Ok(true)
}

fn late_write_never_wins(ds: &mut dyn DatastoreUnderTest) -> Result<bool, String> {
    for between in 1..=3 {
        for (id, value) in REGISTERS_OF_HOST_1 {
            for version in 1..=3 {
                ds.write(&host(1), id(), value(version))?;
            }
            if !ds.write_late(&host(1), id(), value(4)) {
                return Ok(false);
            }
            ds.reopen(&host(1));
            for version in 5..5 + between {
                ds.write(&host(1), id(), value(version))?;
            }
            ds.land_late();
            let newest = 4 + between;
            match read(ds, &host(2), &id())? {
                ReadRegister::Value(found) if found == value(newest) => {}
                // After two more writes it may hit the newest copy. Then the one before is read until the next write.
                ReadRegister::Value(found) if between > 1 && found == value(newest - 1) => {}
                other => return Err(format!("{other:?} after {between} newer writes and a late one")),
            }
            ds.write(&host(1), id(), value(8))?;
            expect(ds, &host(2), &id(), &value(8))?;
        }
    }
    Ok(true)
}

fn restart_repairs_both_copies(ds: &mut dyn DatastoreUnderTest) -> Result<bool, String> {
    let id = RegisterId::Heartbeat(host(1));
    ds.write(&host(1), id.clone(), beat(1))?;
    ds.reopen(&host(1));
    ds.write(&host(1), id.clone(), beat(2))?;
    if !ds.tear_newest(&id) {
        return Ok(false);
    }
    expect(ds, &host(2), &id, &beat(2))?;
    Ok(true)
}

fn destroyed_is_unreadable(ds: &mut dyn DatastoreUnderTest) -> Result<bool, String> {
    let id = RegisterId::Heartbeat(host(1));
    ds.write(&host(1), id.clone(), beat(1))?;
    if !ds.destroy(&id) {
        return Ok(false);
    }
    match read(ds, &host(2), &id)? {
        ReadRegister::Unreadable(..) => {}
        other => return Err(format!("destroyed, and yet {other:?}")),
    }
    ds.reopen(&host(1));
    ds.write(&host(1), id.clone(), beat(2))?;
    expect(ds, &host(2), &id, &beat(2))?;
    Ok(true)
}

fn epochs_are_independent(ds: &mut dyn DatastoreUnderTest) -> Result<bool, String> {
    for epoch in 1..=LIST_REGIONS + 2 {
        let owner = host(1 + (epoch % 2) as u32);
        let id = RegisterId::ProtectedList(Epoch(epoch));
        expect_missing(ds, &host(2), &id)?;
        ds.write(&owner, id.clone(), list(epoch, 1, &owner))?;
        ds.write(&owner, id.clone(), list(epoch, 2, &owner))?;
        for back in 0..epoch.min(LIST_REGIONS - 1) {
            let (past, version) = (epoch - back, 2);
            let owner = host(1 + (past % 2) as u32);
            expect(ds, &host(1), &RegisterId::ProtectedList(Epoch(past)), &list(past, version, &owner))?;
        }
    }
    Ok(true)
}

fn superseded_epoch_is_unreadable(ds: &mut dyn DatastoreUnderTest) -> Result<bool, String> {
    let (old, new) =
        (RegisterId::ProtectedList(Epoch(2)), RegisterId::ProtectedList(Epoch(2 + LIST_REGIONS)));
    ds.write(&host(1), old.clone(), list(2, 1, &host(1)))?;
    ds.write(&host(2), new.clone(), list(2 + LIST_REGIONS, 1, &host(2)))?;
    match read(ds, &host(1), &old)? {
        ReadRegister::Unreadable(..) => {}
        other => return Err(format!("the list of epoch 2 was overwritten, and yet {other:?}")),
    }
    expect(ds, &host(1), &new, &list(2 + LIST_REGIONS, 1, &host(2)))?;
    Ok(true)
}

fn late_owner_is_refused(ds: &mut dyn DatastoreUnderTest) -> Result<bool, String> {
    let (old, new) = (2, 2 + LIST_REGIONS);
    ds.write(&host(1), RegisterId::ProtectedList(Epoch(new)), list(new, 1, &host(1)))?;
    if ds.write(&host(2), RegisterId::ProtectedList(Epoch(old)), list(old, 1, &host(2))).is_ok() {
        return Err("an owner of eight epochs ago overwrote the present list".into());
    }
    expect(ds, &host(2), &RegisterId::ProtectedList(Epoch(new)), &list(new, 1, &host(1)))?;
    Ok(true)
}

fn one_writer(ds: &mut dyn DatastoreUnderTest) -> Result<bool, String> {
    ds.write(&host(1), RegisterId::Heartbeat(host(1)), beat(1))?;
    if ds.write(&host(2), RegisterId::Heartbeat(host(1)), beat(9)).is_ok() {
        return Err("host-2 wrote the heartbeat of host-1".into());
    }
    expect(ds, &host(2), &RegisterId::Heartbeat(host(1)), &beat(1))?;
    Ok(true)
}

fn clusters_are_apart(ds: &mut dyn DatastoreUnderTest) -> Result<bool, String> {
    let Some(mut other) = ds.second_cluster() else { return Ok(false) };
    let id = RegisterId::Heartbeat(host(1));
    ds.write(&host(1), id.clone(), beat(1))?;
    expect_missing(other.as_mut(), &host(1), &id)?;
    other.write(&host(1), id.clone(), beat(2))?;
    expect(ds, &host(2), &id, &beat(1))?;
    expect(other.as_mut(), &host(2), &id, &beat(2))?;
    Ok(true)
}
