//! The good examples of the corpus, and the damaged ones that everybody thinks of first.

use crate::register;
use crate::short_run::corpus_of;
use mainstay_formats::wire::encode_message;
use mainstay_formats::{ClusterId, encode_slot};
use mainstay_testkit::made::{self, host};
use mainstay_words::ids::*;
use mainstay_words::message::*;
use mainstay_words::register::*;
use mainstay_words::time::{Span, Time};

fn spec() -> VmSpec {
    VmSpec { priority: Priority::High, ..made::spec() }
}

fn claim(number: u8, state: ClaimState) -> Claim {
    let (name, token) = ("db\u{e4}\"1".into(), Some(made::token(1)));
    Claim { name, token, spec: Some(spec()), ..made::claim(number, state) }
}

fn entry(number: u8) -> Entry {
    Entry {
        name: "web1".into(),
        spec: spec(),
        intent: Some(host(2)),
        attempts: 1,
        failed_over_from: Some(host(3)),
        verified: true,
        responsible: Some(host(2)),
        isolation_response: Some(IsolationResponse::ShutDown),
        shutdown_timeout: Some(Span::from_secs(300)),
        ..made::entry(number)
    }
}

/// One of each kind.
pub fn registers() -> Vec<(RegisterId, RegisterValue)> {
    let (boot, incarnation) = (BootId([9; 16]), Incarnation(5));
    let claims = vec![
        claim(1, ClaimState::Running),
        claim(2, ClaimState::Stopped { cause: StopCause::GuestShutdown }),
        claim(3, ClaimState::StartFailed { reason: "no room".into() }),
    ];
    let ballot = Ballot { round: 2, host: host(1) };
    let values = [
        RegisterValue::Heartbeat(HeartbeatRegister {
            boot,
            incarnation,
            agent: Some(Incarnation(6)),
            failure_timeout: Some(Span::from_millis(4_500)),
            ..made::heartbeat(77)
        }),
        RegisterValue::PowerOn(PowerOnList {
            boot,
            incarnation,
            isolated: true,
            list_seen: Some(ListStamp { epoch: Epoch(3), version: 4 }),
            ..made::power_on_list(12, claims)
        }),
        RegisterValue::Ownership(OwnershipBlock {
            boot,
            incarnation,
            instance: Epoch(3),
            promised: Some(ballot.clone()),
            accepted: Some((ballot, host(1)).into()),
            beat: Some(OwnerBeat { epoch: Epoch(3), counter: 400, released: false }),
            files: None,
        }),
        RegisterValue::ProtectedList(ProtectedList {
            version: 4,
            ..made::protected_list(register::EPOCH, vec![entry(1), entry(2)])
        }),
    ];
    register::registers().into_iter().zip(values).collect()
}

/// One of each kind.
pub fn messages() -> Vec<Message> {
    let datastore = DatastoreName::new("ds1");
    let rank = Rank { datastores: 2, host: host(1) };
    let stamp = ListStamp { epoch: Epoch(3), version: 4 };
    let promise = Promise { datastore: datastore.clone(), epoch: Epoch(3), echo: Time(5) };
    let owned = OwnedDatastore {
        datastore: datastore.clone(),
        epoch: Epoch(3),
        list: Some(stamp),
        lease: Span::from_secs(3),
        hold: None,
    };
    let bodies = [
        Body::Heartbeat(Box::new(Heartbeat {
            sent: Time(86_400_000_000),
            datastores: vec![datastore.clone()],
            power_on: vec![(datastore.clone(), 1_234).into()],
            capacity: Capacity { memory_mib: 524_288, memory_free_mib: 262_144, cpus: 128, domains: 60 },
            promises: vec![promise],
            failure_timeout: Some(Span::from_millis(4_500)),
            guard: Default::default(),
            guard_error: None,
            halted: vec![(VmId([7; 16]), Halt::IoError).into()],
            held: vec![("ds1".into(), Span::from_secs(3_600)).into()],
            ..made::heartbeat_message()
        })),
        Body::HeartbeatAck(HeartbeatAck {
            echo: Time(1_000_000),
            run: Incarnation(4),
            sent: Time(2_000_000),
            owned: vec![owned],
            heartbeat_datastores: vec![datastore.clone()],
        }),
        Body::Elect { rank: rank.clone(), window: Some(Span::from_secs(1)) },
        Body::Announce { rank, owned: 1 },
        Body::ListChanged { datastore: datastore.clone(), stamp },
        Body::Released { datastores: vec![(datastore, Epoch(3)).into()] },
        Body::SteppingDown,
    ];
    bodies
        .into_iter()
        .zip(1..)
        .map(|(body, sequence)| Message {
            incarnation: Incarnation(u64::MAX / 3),
            sequence,
            files: None,
            body,
        })
        .collect()
}

/// For a format that has changed on purpose: `cargo test -p mainstay-formats --test fuzz -- --ignored`.
#[test]
#[ignore = "writes fuzz/corpus; run it when a format has changed on purpose"]
fn write_the_corpus() {
    let cluster = ClusterId::parse(register::CLUSTER).expect("good");
    let other = ClusterId::parse("elsewhere").expect("good");
    let store = |target: &str, name: String, bytes: Vec<u8>| {
        std::fs::create_dir_all(corpus_of(target)).expect("made");
        std::fs::write(corpus_of(target).join(name), bytes).expect("written");
    };
    for ((id, value), kind) in registers().iter().zip(["heartbeat", "power-on", "ownership", "list"]) {
        let slot = encode_slot(&cluster, id, 1042, value).expect("it fits");
        let text_end = slot.iter().rposition(|byte| *byte == b'}').expect("a body");
        store("register", format!("valid-{kind}"), slot.clone());
        let mut torn = slot[..512].to_vec();
        torn.resize(slot.len(), 0);
        if text_end >= 512 {
            store("register", format!("damaged-{kind}-torn"), torn);
        }
        let mut flipped = slot.clone();
        flipped[text_end - 3] ^= 4;
        store("register", format!("damaged-{kind}-flipped"), flipped);
        store("register", format!("damaged-{kind}-cut"), slot[..text_end - 9].to_vec());
        let foreign = encode_slot(&other, id, 7, value).expect("it fits");
        store("register", format!("damaged-{kind}-foreign-cluster"), foreign);
        let newer = String::from_utf8_lossy(&slot).replacen("\"mainstay\":1", "\"mainstay\":2", 1);
        store("register", format!("damaged-{kind}-newer"), newer.into_bytes());
    }
    let names = ["heartbeat", "ack", "elect", "announce", "list-changed", "released", "stepping-down"];
    for (message, kind) in messages().iter().zip(names) {
        let bytes = encode_message(&cluster, message).expect("encodes");
        store("message", format!("valid-{kind}"), bytes.clone());
        store("message", format!("damaged-{kind}-cut"), bytes[..bytes.len() - 5].to_vec());
        store("message", format!("damaged-{kind}-newer"), [&[2], &bytes[1..]].concat());
        let foreign = encode_message(&other, message).expect("encodes");
        store("message", format!("damaged-{kind}-foreign-cluster"), foreign);
    }
}
