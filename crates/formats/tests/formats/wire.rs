//! Messages: round trips, noise, versions, sizes.

use mainstay_formats::wire::{WIRE_VERSION, decode_message, encode_message};
use mainstay_formats::{ClusterId, WireError};
use mainstay_testkit::made;
use mainstay_words::ids::*;
use mainstay_words::message::*;
use mainstay_words::register::ListStamp;
use mainstay_words::time::{Span, Time};
use minicbor::Encoder;
use proptest::prelude::*;

fn cluster() -> ClusterId {
    ClusterId::parse("lab").expect("good")
}

fn typical_heartbeat() -> Message {
    let names = ["datastore1", "datastore2", "datastore3"].map(DatastoreName::new);
    Message {
        incarnation: Incarnation(u64::MAX / 3),
        sequence: 86_400,
        files: Some(mainstay_words::FilesDigest(u64::MAX / 7)),
        body: Body::Heartbeat(Box::new(Heartbeat {
            sent: Time(86_400_000_000),
            datastores: names.to_vec(),
            power_on: names.iter().map(|name| (name.clone(), 1_234).into()).collect(),
            capacity: Capacity { memory_mib: 524_288, memory_free_mib: 262_144, cpus: 128, domains: 60 },
            promises: names
                .map(|datastore| Promise { datastore, epoch: Epoch(12), echo: Time(86_400_000_000) })
                .to_vec(),
            failure_timeout: Some(Span::from_millis(4_500)),
            ..made::heartbeat_message()
        })),
    }
}

fn typical_ack() -> Message {
    let owned = |name: &str| OwnedDatastore {
        datastore: DatastoreName::new(name),
        epoch: Epoch(12),
        list: Some(ListStamp { epoch: Epoch(12), version: 1_234 }),
        lease: Span::from_millis(2_950),
        hold: None,
    };
    Message {
        incarnation: Incarnation(u64::MAX / 3),
        sequence: 86_400,
        files: Some(mainstay_words::FilesDigest(u64::MAX / 7)),
        body: Body::HeartbeatAck(HeartbeatAck {
            echo: Time(86_400_000_000),
            run: Incarnation(u64::MAX / 5),
            sent: Time(86_400_000_000),
            owned: vec![owned("datastore1"), owned("datastore2"), owned("datastore3")],
            heartbeat_datastores: ["datastore1", "datastore2"].map(DatastoreName::new).to_vec(),
        }),
    }
}

#[test]
fn a_heartbeat_and_its_answer_are_small() {
    for message in [typical_heartbeat(), typical_ack()] {
        let bytes = encode_message(&cluster(), &message).expect("encodes");
        assert!(bytes.len() < 450, "{} bytes", bytes.len());
        assert_eq!(decode_message(&cluster(), &bytes), Ok(message));
    }
}

proptest! {
    #[test]
    fn every_message_survives_the_round_trip(message in crate::generators::message()) {
        let bytes = encode_message(&cluster(), &message).expect("encodes");
        prop_assert_eq!(decode_message(&cluster(), &bytes), Ok(message));
    }

    #[test]
    fn damaged_messages_are_survived(
        message in crate::generators::message(),
        at in any::<prop::sample::Index>(),
        bit in 0..8u8,
        noise in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let good = encode_message(&cluster(), &message).expect("encodes");
        prop_assert!(decode_message(&cluster(), &good[..at.index(good.len())]).is_err());
        // No checksum on the wire: the transport authenticates every datagram. So a flip may give another message, but never a panic.
        let mut flipped = good.clone();
        flipped[at.index(good.len())] ^= 1 << bit;
        let _ = decode_message(&cluster(), &flipped);
        let mut framed = good[..9].to_vec();
        framed.extend_from_slice(&noise);
        let _ = decode_message(&cluster(), &framed);
        let _ = decode_message(&cluster(), &noise);
        let mut longer = good;
        longer.push(0);
        prop_assert!(decode_message(&cluster(), &longer).is_err());
    }
}

#[test]
fn errors_name_what_is_wrong() {
    let good = encode_message(&cluster(), &typical_ack()).expect("encodes");
    assert_eq!(decode_message(&cluster(), &good[..8]), Err(WireError::TooShort(8)));
    let mut newer = good.clone();
    newer[0] = WIRE_VERSION + 1;
    assert_eq!(decode_message(&cluster(), &newer), Err(WireError::NewerVersion { found: 2 }));
    let other = ClusterId::parse("other").expect("good");
    assert!(matches!(decode_message(&other, &good), Err(WireError::OtherCluster { .. })));
    assert!(matches!(decode_message(&cluster(), &good[..20]), Err(WireError::Malformed(_))));
}

/// The frame of this cluster with that CBOR behind it.
fn framed(write: impl FnOnce(&mut Encoder<&mut Vec<u8>>)) -> Vec<u8> {
    let mut bytes = encode_message(&cluster(), &typical_ack()).expect("encodes");
    bytes.truncate(9);
    write(&mut Encoder::new(&mut bytes));
    bytes
}

#[test]
fn an_unknown_kind_is_told_from_damage() {
    let with_contents = framed(|cbor| {
        cbor.map(4)
            .and_then(|c| c.str("novelty"))
            .and_then(|c| c.map(1))
            .and_then(|c| c.u8(1))
            .and_then(|c| c.u8(2))
            .expect("vec");
        cbor.str("incarnation")
            .and_then(|c| c.u8(1))
            .and_then(|c| c.str("sequence"))
            .and_then(|c| c.u8(1))
            .expect("vec");
        cbor.str("body")
            .and_then(|c| c.map(1))
            .and_then(|c| c.str("Sing"))
            .and_then(|c| c.array(0))
            .expect("vec");
    });
    let unknown = Err(WireError::UnknownKind { kind: "Sing".into() });
    assert_eq!(decode_message(&cluster(), &with_contents), unknown);
    let bare = framed(|cbor| {
        cbor.map(3)
            .and_then(|c| c.str("incarnation"))
            .and_then(|c| c.u8(1))
            .and_then(|c| c.str("sequence"))
            .expect("vec");
        cbor.u8(1).and_then(|c| c.str("body")).and_then(|c| c.str("Sing")).expect("vec");
    });
    assert_eq!(decode_message(&cluster(), &bare), unknown);
}

#[test]
fn unknown_fields_are_ignored_and_optional_ones_may_be_missing() {
    let bytes = framed(|cbor| {
        cbor.map(4)
            .and_then(|c| c.str("incarnation"))
            .and_then(|c| c.u8(1))
            .and_then(|c| c.str("sequence"))
            .expect("vec");
        cbor.u8(2)
            .and_then(|c| c.str("trace"))
            .and_then(|c| c.array(1))
            .and_then(|c| c.str("x"))
            .expect("vec");
        cbor.str("body")
            .and_then(|c| c.map(1))
            .and_then(|c| c.str("HeartbeatAck"))
            .and_then(|c| c.map(5))
            .expect("vec");
        cbor.str("run").and_then(|c| c.u8(6)).and_then(|c| c.str("sent")).and_then(|c| c.u8(7)).expect("vec");
        cbor.str("echo")
            .and_then(|c| c.u8(5))
            .and_then(|c| c.str("mood"))
            .and_then(|c| c.bool(true))
            .expect("vec");
        cbor.str("owned")
            .and_then(|c| c.array(1))
            .and_then(|c| c.map(3))
            .and_then(|c| c.str("datastore"))
            .expect("vec");
        cbor.str("ds1")
            .and_then(|c| c.str("epoch"))
            .and_then(|c| c.u8(4))
            .and_then(|c| c.str("lease"))
            .expect("vec");
        cbor.u8(9).expect("vec");
    });
    let owned = OwnedDatastore {
        datastore: DatastoreName::new("ds1"),
        epoch: Epoch(4),
        list: None,
        lease: Span(9),
        hold: None,
    };
    let body = Body::HeartbeatAck(HeartbeatAck {
        echo: Time(5),
        run: Incarnation(6),
        sent: Time(7),
        owned: vec![owned],
        heartbeat_datastores: Vec::new(),
    });
    let message = Message { incarnation: Incarnation(1), sequence: 2, files: None, body };
    assert_eq!(decode_message(&cluster(), &bytes), Ok(message));
}
