//! Generators of every register value and every message.

use mainstay_words::ids::*;
use mainstay_words::message::*;
use mainstay_words::register::*;
use mainstay_words::time::{Span, Time};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use std::sync::Arc;

/// Any text, also such that needs escapes in JSON.
fn text() -> impl Strategy<Value = Arc<str>> {
    prop_oneof!["[a-z0-9-]{1,12}", "\\PC{0,12}", Just("a\"b\\c\n\u{0}\"crc32c\":\"".to_string())]
        .prop_map(|text| text.as_str().into())
}

fn host() -> impl Strategy<Value = HostId> {
    "host-[0-9]{1,4}".prop_map(|text| HostId::new(&text))
}

fn datastore() -> impl Strategy<Value = DatastoreName> {
    "[a-z0-9-]{1,12}".prop_map(|text| DatastoreName::new(&text))
}

fn boot() -> impl Strategy<Value = BootId> {
    any::<[u8; 16]>().prop_map(BootId)
}

fn vm() -> impl Strategy<Value = VmId> {
    any::<[u8; 16]>().prop_map(VmId)
}

fn incarnation() -> impl Strategy<Value = Incarnation> {
    any::<u64>().prop_map(Incarnation)
}

fn epoch() -> impl Strategy<Value = Epoch> {
    any::<u64>().prop_map(Epoch)
}

fn token() -> impl Strategy<Value = Token> {
    (epoch(), any::<u64>()).prop_map(|(epoch, number)| Token { epoch, number })
}

fn stamp() -> impl Strategy<Value = ListStamp> {
    (epoch(), any::<u64>()).prop_map(|(epoch, version)| ListStamp { epoch, version })
}

fn cause() -> impl Strategy<Value = StopCause> {
    prop::sample::select(vec![
        StopCause::GuestShutdown,
        StopCause::Maintenance,
        StopCause::UserShutdown,
        StopCause::UserDestroyed,
        StopCause::Saved,
        StopCause::Migrated,
        StopCause::Crashed,
        StopCause::HostFailed,
        StopCause::Withdrawn,
        StopCause::Unknown,
    ])
}

fn spec() -> impl Strategy<Value = VmSpec> {
    let priority = prop::sample::select(vec![
        Priority::Disabled,
        Priority::Lowest,
        Priority::Low,
        Priority::Medium,
        Priority::High,
        Priority::Highest,
    ]);
    (any::<u64>(), any::<u64>(), any::<u32>(), priority).prop_map(|(xml, memory_mib, vcpus, priority)| {
        VmSpec { xml: XmlId(xml), memory_mib, vcpus, priority, ..VmSpec::default() }
    })
}

fn isolation_response() -> impl Strategy<Value = IsolationResponse> {
    prop::sample::select(vec![
        IsolationResponse::LeavePoweredOn,
        IsolationResponse::ShutDown,
        IsolationResponse::PowerOff,
    ])
}

fn claim() -> impl Strategy<Value = Claim> {
    let state = prop_oneof![
        Just(ClaimState::Starting),
        Just(ClaimState::Running),
        Just(ClaimState::Frozen),
        Just(ClaimState::Stopping),
        Just(ClaimState::Migrating),
        cause().prop_map(|cause| ClaimState::Stopped { cause }),
        text().prop_map(|reason| ClaimState::StartFailed { reason }),
    ];
    (vm(), text(), of(token()), state, of(spec())).prop_map(|(vm, name, token, state, spec)| Claim {
        vm,
        name,
        token,
        state,
        spec,
        asked_to_stop: false,
        powering_off: false,
        guest: Guest::Silent,
        order_failed: None,
        ended: false,
        under: Token::default(),
    })
}

fn entry() -> impl Strategy<Value = Entry> {
    let desired = prop::sample::select(vec![Desired::On, Desired::Off]);
    let first = (vm(), text(), spec(), desired, any::<bool>());
    let second = (of(host()), token(), of(host()), any::<u32>(), (of(host()), any::<bool>()));
    let third = (of(host()), of(isolation_response()), of(any::<u64>().prop_map(Span)));
    (first, second, third).prop_map(
        |(
            (vm, name, spec, desired, unprotected),
            (holder, token, intent, attempts, (failed_over_from, verified)),
            (responsible, isolation_response, shutdown_timeout),
        )| {
            Entry {
                vm,
                name,
                spec,
                desired,
                unprotected,
                holder,
                token,
                intent,
                attempts,
                failed_over_from,
                verified,
                responsible,
                isolation_response,
                shutdown_timeout,
                failed_on: Vec::new(),
                has_agent: false,
                order: None,
                evacuated_from: None,
                mute: verified && attempts > 1,
                ran_under: None,
                asked_to_stop: false,
            }
        },
    )
}

fn ballot() -> impl Strategy<Value = Ballot> {
    (any::<u64>(), host()).prop_map(|(round, host)| Ballot { round, host })
}

fn heartbeat_register() -> impl Strategy<Value = RegisterValue> {
    (boot(), incarnation(), any::<u64>(), any::<bool>()).prop_map(
        |(boot, incarnation, counter, agent_well)| {
            let agent = agent_well.then_some(Incarnation(counter));
            let (failure_timeout, slow) = (agent_well.then_some(Span(counter)), !agent_well);
            RegisterValue::Heartbeat(HeartbeatRegister {
                boot,
                incarnation,
                counter,
                agent,
                agent_well,
                failure_timeout,
                slow,
                hold: None,
                files: None,
            })
        },
    )
}

fn power_on() -> impl Strategy<Value = RegisterValue> {
    (boot(), incarnation(), any::<u64>(), any::<bool>(), of(stamp()), vec(claim(), 0..30)).prop_map(
        |(boot, incarnation, version, isolated, list_seen, claims)| {
            let complete = !isolated;
            RegisterValue::PowerOn(PowerOnList {
                boot,
                incarnation,
                version,
                isolated,
                list_seen,
                complete,
                guard: mainstay_words::GuardWord(version as u32),
                claims,
                offers: None,
            })
        },
    )
}

fn ownership() -> impl Strategy<Value = RegisterValue> {
    let beat = (epoch(), any::<u64>(), any::<bool>()).prop_map(|(epoch, counter, released)| OwnerBeat {
        epoch,
        counter,
        released,
    });
    (boot(), incarnation(), epoch(), of(ballot()), of((ballot(), host()).prop_map(Accepted::from)), of(beat))
        .prop_map(|(boot, incarnation, instance, promised, accepted, beat)| {
            RegisterValue::Ownership(OwnershipBlock {
                boot,
                incarnation,
                instance,
                promised,
                accepted,
                beat,
                files: None,
            })
        })
}

fn protected_list() -> impl Strategy<Value = (RegisterId, RegisterValue)> {
    (epoch(), any::<u64>(), host(), vec(entry(), 0..30)).prop_map(|(epoch, version, owner, entries)| {
        let value = RegisterValue::ProtectedList(ProtectedList {
            epoch,
            version,
            owner,
            entries,
            settings: Default::default(),
            suspension: None,
            holds: None,
        });
        (RegisterId::ProtectedList(epoch), value)
    })
}

/// Any register with any value.
pub fn register() -> impl Strategy<Value = (RegisterId, RegisterValue)> {
    prop_oneof![
        (host().prop_map(RegisterId::Heartbeat), heartbeat_register()),
        (host().prop_map(RegisterId::PowerOn), power_on()),
        (host().prop_map(RegisterId::Ownership), ownership()),
        protected_list(),
    ]
}

/// Any message at all.
pub fn message() -> impl Strategy<Value = Message> {
    let rank = || (any::<u32>(), host()).prop_map(|(datastores, host)| Rank { datastores, host });
    let capacity = (any::<u64>(), any::<u64>(), any::<u32>(), any::<u32>()).prop_map(
        |(memory_mib, memory_free_mib, cpus, domains)| Capacity {
            memory_mib,
            memory_free_mib,
            cpus,
            domains,
        },
    );
    let names = vec(datastore(), 0..6);
    let power_on = vec((datastore(), any::<u64>()).prop_map(PowerOnVersion::from), 0..6);
    let promise = (datastore(), epoch(), any::<u64>()).prop_map(|(datastore, epoch, echo)| Promise {
        datastore,
        epoch,
        echo: Time(echo),
    });
    let heartbeat = (any::<u64>(), names, power_on, capacity, any::<bool>(), vec(promise, 0..6)).prop_map(
        |(sent, datastores, power_on, capacity, hypervisor_well, promises)| {
            let sent = Time(sent);
            let failure_timeout = hypervisor_well.then_some(Span(sent.0));
            let unwritten = datastores.clone();
            let held = power_on.iter().map(|one| (one.datastore.clone(), Span(one.version)).into());
            let held = held.collect();
            let halted = vec![(VmId([6; 16]), Halt::Frozen).into()];
            Body::Heartbeat(Box::new(Heartbeat {
                sent,
                datastores,
                power_on,
                capacity,
                hypervisor_well,
                promises,
                failure_timeout,
                unwritten,
                arriving: Vec::new(),
                held,
                guard: Default::default(),
                guard_error: None,
                halted,
            }))
        },
    );
    let owned =
        (datastore(), epoch(), of(stamp()), any::<u64>()).prop_map(|(datastore, epoch, list, lease)| {
            OwnedDatastore { datastore, epoch, list, lease: Span(lease), hold: None }
        });
    let ack =
        (any::<u64>(), incarnation(), any::<u64>(), vec(owned, 0..6)).prop_map(|(echo, run, sent, owned)| {
            Body::HeartbeatAck(HeartbeatAck {
                echo: Time(echo),
                run,
                sent: Time(sent),
                owned,
                heartbeat_datastores: Vec::new(),
            })
        });
    let body = prop_oneof![
        (rank(), of(any::<u64>())).prop_map(|(rank, window)| Body::Elect { rank, window: window.map(Span) }),
        (rank(), any::<u32>()).prop_map(|(rank, owned)| Body::Announce { rank, owned }),
        heartbeat,
        ack,
        (datastore(), stamp()).prop_map(|(datastore, stamp)| Body::ListChanged { datastore, stamp }),
        (datastore(), epoch())
            .prop_map(|(datastore, epoch)| Body::Released { datastores: vec![(datastore, epoch).into()] }),
        Just(Body::SteppingDown),
    ];
    (incarnation(), any::<u64>(), body).prop_map(|(incarnation, sequence, body)| Message {
        incarnation,
        sequence,
        files: None,
        body,
    })
}
