//! Made-up contents of registers, as they are on an uneventful day. A test says what is different by struct update, and so shows
//! exactly what matters to it:
//!
//! ```
//! use mainstay_testkit::made::{entry, host};
//! use mainstay_words::register::Entry;
//!
//! let intended = Entry { intent: Some(host(2)), attempts: 1, ..entry(7) };
//! assert_eq!(intended.holder, Some(host(1)));
//! ```
//!
//! VM `n` is called `vmN`. In epoch 3, `host-1` owns the datastore and runs the VM under grant number `n`.

use mainstay_words::ids::{BootId, Epoch, HostId, Incarnation, Token, VmId, XmlId};
use mainstay_words::message::{Capacity, Heartbeat};
use mainstay_words::register::{
    Claim, ClaimState, Desired, Entry, Guest, HeartbeatRegister, IsolationResponse, OwnershipBlock,
    PowerOnList, Priority, ProtectedList, VmSpec,
};
use mainstay_words::settings::Settings;
use mainstay_words::{Config, DatastoreName, HeartbeatChoice, Span, Time, Timing};

/// The boot of all hosts.
pub const BOOT: BootId = BootId([1; 16]);
/// The run of all agents and guards.
pub const INCARNATION: Incarnation = Incarnation(1);
/// The epoch of grants and lists.
pub const EPOCH: Epoch = Epoch(3);

/// The host with that number: `host-1` and so on.
pub fn host(number: u32) -> HostId {
    HostId::new(&format!("host-{number}"))
}

/// The VM with that number.
pub fn vm(number: u8) -> VmId {
    VmId([number; 16])
}

/// The grant with that number of [`EPOCH`].
pub fn token(number: u64) -> Token {
    Token { epoch: EPOCH, number }
}

/// What every VM needs: 2 GiB and two CPUs.
pub fn spec() -> VmSpec {
    VmSpec {
        xml: XmlId(0xfeed),
        memory_mib: 2_048,
        vcpus: 2,
        priority: Priority::Medium,
        ..VmSpec::default()
    }
}

/// A VM that runs on `host-1` and is protected.
pub fn entry(number: u8) -> Entry {
    Entry {
        vm: vm(number),
        name: name(number),
        spec: spec(),
        desired: Desired::On,
        unprotected: false,
        holder: Some(host(1)),
        token: token(number.into()),
        intent: None,
        attempts: 0,
        failed_over_from: None,
        verified: false,
        responsible: None,
        isolation_response: None,
        shutdown_timeout: None,
        failed_on: Vec::new(),
        has_agent: false,
        order: None,
        evacuated_from: None,
        mute: false,
        ran_under: None,
        asked_to_stop: false,
    }
}

/// The claim that belongs to [`entry`] of the same number.
pub fn claim(number: u8, state: ClaimState) -> Claim {
    Claim {
        vm: vm(number),
        name: name(number),
        token: Some(token(number.into())),
        state,
        spec: Some(spec()),
        asked_to_stop: false,
        powering_off: false,
        guest: Guest::Silent,
        order_failed: None,
        ended: false,
        under: Token::default(),
    }
}

fn name(number: u8) -> std::sync::Arc<str> {
    format!("vm{number}").as_str().into()
}

/// A list of `host-1` as owner; its version is 1.
pub fn protected_list(epoch: Epoch, entries: Vec<Entry>) -> ProtectedList {
    ProtectedList {
        epoch,
        version: 1,
        owner: host(1),
        entries,
        settings: Settings::default().into(),
        suspension: None,
        holds: None,
    }
}

/// A list of a host that is not isolated and knows what its libvirt runs. It has acted on no protected list.
pub fn power_on_list(version: u64, claims: Vec<Claim>) -> PowerOnList {
    PowerOnList {
        boot: BOOT,
        incarnation: INCARNATION,
        version,
        complete: true,
        guard: Default::default(),
        claims,
        ..PowerOnList::empty()
    }
}

/// A heartbeat on a datastore, by a guard whose agent is well.
pub fn heartbeat(counter: u64) -> HeartbeatRegister {
    HeartbeatRegister {
        boot: BOOT,
        incarnation: INCARNATION,
        counter,
        agent: None,
        agent_well: true,
        failure_timeout: None,
        slow: false,
        hold: None,
        files: None,
    }
}

/// The block of a host that takes part in the contention for an epoch, has promised nothing yet, and owns nothing.
pub fn ownership_block(instance: Epoch) -> OwnershipBlock {
    OwnershipBlock {
        boot: BOOT,
        incarnation: INCARNATION,
        instance,
        promised: None,
        accepted: None,
        beat: None,
        files: None,
    }
}

/// A heartbeat over the network that says nothing but that the host is there.
pub fn heartbeat_message() -> Heartbeat {
    Heartbeat {
        sent: Time(1_000_000),
        datastores: Vec::new(),
        power_on: Vec::new(),
        capacity: Capacity::default(),
        hypervisor_well: true,
        promises: Vec::new(),
        failure_timeout: None,
        unwritten: Vec::new(),
        guard: Default::default(),
        guard_error: None,
        arriving: Vec::new(),
        halted: Vec::new(),
        held: Vec::new(),
    }
}

/// The configuration of `host-1` in a cluster of two with one datastore, `ds1`.
pub fn config() -> Config {
    Config {
        me: host(1),
        peers: vec![host(2)],
        datastores: vec![DatastoreName::new("ds1")],
        timing: Timing::STANDARD,
        boot: BOOT,
        incarnation: INCARNATION,
        concurrent_starts: 4,
        isolation_addresses: Vec::new(),
        isolation_timeout: None,
        isolation_response: IsolationResponse::LeavePoweredOn,
        shutdown_timeout: Span::from_secs(300),
        heartbeat_datastores: HeartbeatChoice::default(),
        rehearse: true,
    }
}
