//! One example of each format, as a person sees it with `cat`. A change here is a change of the format.

use expect_test::{Expect, expect};
use mainstay_formats::wire::encode_message;
use mainstay_formats::{ClusterId, encode_slot};
use mainstay_testkit::made::{self, entry, host};
use mainstay_words::ids::*;
use mainstay_words::message::*;
use mainstay_words::register::*;
use mainstay_words::time::{Span, Time};

fn shows(id: RegisterId, value: RegisterValue, expected: Expect) {
    let cluster = ClusterId::parse("lab").expect("good");
    let slot = encode_slot(&cluster, &id, 1042, &value).expect("it fits");
    let text = String::from_utf8(slot).expect("legible");
    assert!(text.ends_with(" \n"), "padded, and a line end last");
    expected.assert_eq(&format!("{}\n", text.trim_end()));
}

#[test]
fn heartbeat() {
    let value = HeartbeatRegister {
        boot: BootId([9; 16]),
        incarnation: Incarnation(5),
        agent: Some(Incarnation(6)),
        failure_timeout: Some(Span::from_millis(4_500)),
        ..made::heartbeat(77)
    };
    shows(
        RegisterId::Heartbeat(host(1)),
        RegisterValue::Heartbeat(value),
        expect![[r#"
            {"mainstay":1,"kind":"heartbeat","cluster":"lab","host":"host-1","sequence":1042,"length":144,"body_crc32c":"54eea119","crc32c":"18afdd62"}
            {"boot":"09090909-0909-0909-0909-090909090909","incarnation":5,"counter":77,"agent":6,"agent_well":true,"failure_timeout":4500000,"slow":false}
        "#]],
    );
}

#[test]
fn power_on_list() {
    let claim = |number, state| Claim { token: Some(made::token(8)), ..made::claim(number, state) };
    let claims = vec![
        claim(1, ClaimState::Running),
        claim(2, ClaimState::Stopped { cause: StopCause::GuestShutdown }),
    ];
    let value = PowerOnList {
        boot: BootId([9; 16]),
        incarnation: Incarnation(5),
        list_seen: Some(ListStamp { epoch: Epoch(3), version: 4 }),
        ..made::power_on_list(12, claims)
    };
    shows(
        RegisterId::PowerOn(host(1)),
        RegisterValue::PowerOn(value),
        expect![[r#"
            {"mainstay":1,"kind":"power-on","cluster":"lab","host":"host-1","sequence":1042,"length":541,"body_crc32c":"85f4a85c","crc32c":"b0534b2a"}
            {"boot":"09090909-0909-0909-0909-090909090909","incarnation":5,"version":12,"isolated":false,"list_seen":{"epoch":3,"version":4},"complete":true,"claims":[
            {"vm":"01010101-0101-0101-0101-010101010101","name":"vm1","token":{"epoch":3,"number":8},"state":"Running","spec":{"xml":65261,"memory_mib":2048,"vcpus":2,"priority":"Medium"}},
            {"vm":"02020202-0202-0202-0202-020202020202","name":"vm2","token":{"epoch":3,"number":8},"state":{"Stopped":{"cause":"GuestShutdown"}},"spec":{"xml":65261,"memory_mib":2048,"vcpus":2,"priority":"Medium"}}]}
        "#]],
    );
}

#[test]
fn ownership() {
    let ballot = Ballot { round: 2, host: host(1) };
    let value = OwnershipBlock {
        boot: BootId([9; 16]),
        incarnation: Incarnation(5),
        instance: Epoch(3),
        promised: Some(ballot.clone()),
        accepted: Some((ballot, host(1)).into()),
        beat: Some(OwnerBeat { epoch: Epoch(3), counter: 400, released: false }),
        files: None,
    };
    shows(
        RegisterId::Ownership(host(1)),
        RegisterValue::Ownership(value),
        expect![[r#"
        {"mainstay":1,"kind":"ownership","cluster":"lab","host":"host-1","sequence":1042,"length":216,"body_crc32c":"1676d308","crc32c":"1d4163f5"}
        {"boot":"09090909-0909-0909-0909-090909090909","incarnation":5,"instance":3,"promised":{"round":2,"host":"host-1"},"accepted":[{"round":2,"host":"host-1"},"host-1"],"beat":{"epoch":3,"counter":400,"released":false}}
    "#]],
    );
}

#[test]
fn protected_list() {
    let list = made::protected_list(Epoch(3), vec![entry(1), entry(2)]);
    let value = ProtectedList { version: 4, ..list };
    shows(
        RegisterId::ProtectedList(Epoch(3)),
        RegisterValue::ProtectedList(value),
        expect![[r#"
            {"mainstay":1,"kind":"protected-list","cluster":"lab","epoch":3,"sequence":1042,"length":465,"body_crc32c":"7aaf84f2","crc32c":"26ada81e"}
            {"epoch":3,"version":4,"owner":"host-1","entries":[
            {"vm":"01010101-0101-0101-0101-010101010101","name":"vm1","spec":{"xml":65261,"memory_mib":2048,"vcpus":2,"priority":"Medium"},"desired":"On","holder":"host-1","token":{"epoch":3,"number":1},"attempts":0},
            {"vm":"02020202-0202-0202-0202-020202020202","name":"vm2","spec":{"xml":65261,"memory_mib":2048,"vcpus":2,"priority":"Medium"},"desired":"On","holder":"host-1","token":{"epoch":3,"number":2},"attempts":0}]}
        "#]],
    );
}

#[test]
fn message() {
    let body = Body::HeartbeatAck(HeartbeatAck {
        echo: Time(1_000_000),
        run: Incarnation(4),
        sent: Time(2_000_000),
        owned: vec![OwnedDatastore {
            datastore: DatastoreName::new("ds1"),
            epoch: Epoch(3),
            list: Some(ListStamp { epoch: Epoch(3), version: 4 }),
            lease: Span::from_secs(3),
            hold: None,
        }],
        heartbeat_datastores: vec![DatastoreName::new("ds1")],
    });
    let message = Message { incarnation: Incarnation(5), sequence: 6, files: None, body };
    let cluster = ClusterId::parse("lab").expect("good");
    let bytes = encode_message(&cluster, &message).expect("encodes");
    let frame: String = bytes[..9].iter().map(|byte| format!("{byte:02x}")).collect();
    let cbor = bytes[9..].escape_ascii();
    expect![[r#"
        01126596191dc1ebb4 \xa3kincarnation\x05hsequence\x06dbody\xa1lHeartbeatAck\xa5decho\x1a\x00\x0fB@crun\x04dsent\x1a\x00\x1e\x84\x80eowned\x81\xa4idatastorecds1eepoch\x03dlist\xa2eepoch\x03gversion\x04elease\x1a\x00-\xc6\xc0theartbeat_datastores\x81cds1
    "#]].assert_eq(&format!("{frame} {cbor}\n"));
}
