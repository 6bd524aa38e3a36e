//! Slots of registers: round trips, damage, versions, and what two slots say together.

use mainstay_formats::layout::{self, ClusterId};
use mainstay_formats::*;
use mainstay_testkit::made;
use mainstay_words::ids::*;
use mainstay_words::register::*;
use proptest::prelude::*;

fn cluster() -> ClusterId {
    ClusterId::parse("6f1c0c1e-3c1f-4a5e-9f10-0123456789ab").expect("a UUID")
}

fn heartbeat(counter: u64) -> (RegisterId, RegisterValue) {
    let value = HeartbeatRegister { incarnation: Incarnation(3), ..made::heartbeat(counter) };
    (RegisterId::Heartbeat(HostId::new("host-1")), RegisterValue::Heartbeat(value))
}

fn list(epoch: u64, entries: usize) -> (RegisterId, RegisterValue) {
    let spec = VmSpec { xml: XmlId(7), priority: Priority::High, ..made::spec() };
    let entry = |index: usize| Entry {
        vm: VmId((index as u128).to_be_bytes()),
        name: format!("vm{index}").as_str().into(),
        spec: spec.clone(),
        token: Token { epoch: Epoch(epoch), number: 1 },
        ..made::entry(1)
    };
    let list = made::protected_list(Epoch(epoch), (0..entries).map(entry).collect());
    let value = ProtectedList { owner: made::host(2), ..list };
    (RegisterId::ProtectedList(Epoch(epoch)), RegisterValue::ProtectedList(value))
}

fn slot(sequence: u64, (id, value): &(RegisterId, RegisterValue)) -> Vec<u8> {
    encode_slot(&cluster(), id, sequence, value).expect("it fits")
}

fn decode(id: &RegisterId, bytes: &[u8]) -> Slot {
    decode_slot(&cluster(), id, bytes)
}

fn reason(slot: Slot) -> SlotError {
    match slot {
        Slot::Unreadable { reason } => reason,
        Slot::Empty | Slot::Valid { .. } => panic!("readable: {slot:?}"),
    }
}

fn is_value(slot: &Slot) -> bool {
    match slot {
        Slot::Valid { .. } => true,
        Slot::Empty | Slot::Unreadable { .. } => false,
    }
}

/// A slot with a hand-made header (right checksums) and body.
fn hand_made(header: &str, body: &str) -> Vec<u8> {
    let header = header
        .replace("LENGTH", &body.len().to_string())
        .replace("BODYCRC", &format!("{:08x}", crc32c::crc32c(body.as_bytes())));
    let checksum = format!("{:08x}", crc32c::crc32c(header.replace("HEADCRC", "00000000").as_bytes()));
    format!("{}\n{body}", header.replace("HEADCRC", &checksum)).into_bytes()
}

proptest! {
    #[test]
    fn every_register_survives_the_round_trip((id, value) in crate::generators::register(), sequence in any::<u64>()) {
        let bytes = encode_slot(&cluster(), &id, sequence, &value).expect("it fits");
        prop_assert_eq!(bytes.len() % layout::BLOCK, 0);
        prop_assert!(bytes.len() <= layout::slot_size(&id));
        let header = read_header(&bytes).expect("good").expect("written");
        prop_assert_eq!(&header.register, &id);
        prop_assert!(header.body_start <= layout::ATOMIC);
        prop_assert_eq!(decode(&id, &bytes), Slot::Valid { sequence, value });
    }

    #[test]
    fn a_flipped_bit_never_makes_another_value(
        (id, value) in crate::generators::register(),
        sequence in any::<u64>(),
        at in any::<prop::sample::Index>(),
        bit in 0..8u8,
    ) {
        let mut bytes = encode_slot(&cluster(), &id, sequence, &value).expect("it fits");
        let used = read_header(&bytes).expect("good").expect("written").total_length();
        let index = at.index(used);
        bytes[index] ^= 1 << bit;
        prop_assert!(matches!(decode(&id, &bytes), Slot::Unreadable { .. }), "byte {index} bit {bit}");
    }

    #[test]
    fn a_slot_that_is_cut_off_is_never_a_value((id, value) in crate::generators::register(), at in any::<prop::sample::Index>()) {
        let bytes = encode_slot(&cluster(), &id, 1, &value).expect("it fits");
        let used = read_header(&bytes).expect("good").expect("written").total_length();
        let cut = &bytes[..at.index(used)];
        let read = decode(&id, cut);
        prop_assert!(!is_value(&read), "{read:?}");
    }

    #[test]
    fn any_bytes_are_survived(
        (id, value) in crate::generators::register(),
        noise in prop::collection::vec(any::<u8>(), 0..600),
        at in any::<prop::sample::Index>(),
    ) {
        let read = decode(&id, &noise);
        prop_assert!(!is_value(&read), "{read:?}");
        let mut bytes = encode_slot(&cluster(), &id, 1, &value).expect("it fits");
        let used = read_header(&bytes).expect("good").expect("written").total_length();
        let start = at.index(used);
        let end = (start + noise.len()).min(used);
        let before = bytes[start..end].to_vec();
        bytes[start..end].copy_from_slice(&noise[..end - start]);
        let read = decode(&id, &bytes);
        if before == noise[..end - start] {
            prop_assert_eq!(read, Slot::Valid { sequence: 1, value });
        } else {
            prop_assert!(!is_value(&read), "{read:?}");
        }
    }

    /// Every mixture of an old and a new write, at the grain of the sectors that are written atomically.
    #[test]
    fn a_torn_write_is_old_new_or_damaged(
        old in crate::generators::register(),
        new in crate::generators::register(),
        torn in prop::collection::vec(any::<bool>(), 64),
    ) {
        let (mut bytes, fresh) = (slot(1, &old), slot(2, &new));
        bytes.resize(bytes.len().max(fresh.len()), 0);
        for (index, sector) in fresh.chunks(layout::ATOMIC).enumerate() {
            if torn[index % torn.len()] {
                bytes[index * layout::ATOMIC..][..sector.len()].copy_from_slice(sector);
            }
        }
        match decode(&new.0, &bytes) {
            Slot::Valid { sequence: 2, value } => prop_assert_eq!(value, new.1),
            Slot::Valid { sequence, value } => prop_assert_eq!((sequence, new.0, value), (1, old.0, old.1)),
            Slot::Empty | Slot::Unreadable { .. } => {}
        }
    }
}

#[test]
fn every_single_bit_of_a_heartbeat_counts() {
    let register = heartbeat(42);
    let good = slot(7, &register);
    let used = read_header(&good).expect("good").expect("written").total_length();
    for bit in 0..used * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(decode(&register.0, &bytes), Slot::Unreadable { .. }), "bit {bit}");
    }
}

#[test]
fn a_slot_with_a_zeroed_first_sector_was_never_written() {
    let register = list(3, 50);
    let mut bytes = slot(1, &register);
    bytes[..layout::ATOMIC].fill(0);
    assert_eq!(decode(&register.0, &bytes), Slot::Empty);
    assert_eq!(decode(&register.0, &[]), Slot::Empty);
}

#[test]
fn errors_name_what_is_wrong() {
    let register = heartbeat(1);
    let bytes = slot(9, &register);
    let other = ClusterId::parse("other").expect("good");
    assert_eq!(
        reason(decode_slot(&other, &register.0, &bytes)),
        SlotError::ForeignCluster { found: cluster().to_string() }
    );
    assert_eq!(
        reason(decode(&RegisterId::Heartbeat(HostId::new("host-2")), &bytes)),
        SlotError::WrongRegister { found: "heartbeat of host-1".into() }
    );
    let newer = hand_made(r#"{"mainstay":2,"whatever":true}"#, "{}");
    assert_eq!(reason(decode(&register.0, &newer)), SlotError::NewerVersion { found: 2 });
    let mut torn = slot(9, &list(3, 50));
    torn[9_000] ^= 1;
    assert_eq!(reason(decode(&list(3, 0).0, &torn)), SlotError::BadChecksum { sequence: 9 });
    let header = read_header(&torn).expect("good").expect("written");
    let needed = header.total_length();
    assert_eq!(reason(decode(&list(3, 0).0, &torn[..4096])), SlotError::Truncated { needed, have: 4096 });
    assert!(matches!(reason(decode(&register.0, b"hello\n")), SlotError::BadHeader(_)));
}

#[test]
fn epochs_share_a_region_without_confusion() {
    let (old, new) = (list(7, 3), list(15, 1));
    assert_eq!(layout::locate(&old.0), layout::locate(&new.0));
    let mut left_behind = slot(500, &old);
    assert_eq!(decode(&new.0, &left_behind), Slot::Empty);
    left_behind[700] ^= 1;
    assert_eq!(decode(&new.0, &left_behind), Slot::Empty, "what an earlier epoch left torn is of no matter");
    assert_eq!(reason(decode(&old.0, &slot(1, &new))), SlotError::Superseded { found: Epoch(15) });
    assert_eq!(
        choose(decode(&new.0, &slot(500, &old)), decode(&new.0, &slot(1, &new))),
        Chosen::Value { sequence: 1, value: new.1, other_slot: None }
    );
}

#[test]
fn a_value_must_fit_its_register() {
    let big = list(1, 8000);
    let error = encode_slot(&cluster(), &big.0, 1, &big.1).map(|_| ());
    assert!(matches!(error, Err(EncodeError::TooBig { available: layout::LIST_SLOT, .. })), "{error:?}");
    let error = encode_slot(&cluster(), &RegisterId::ProtectedList(Epoch(2)), 1, &list(1, 0).1);
    assert!(matches!(error, Err(EncodeError::Mismatch { .. })));
    let error = encode_slot(&cluster(), &heartbeat(1).0, 1, &list(1, 0).1);
    assert!(matches!(error, Err(EncodeError::Mismatch { .. })));
    let long = RegisterId::Heartbeat(HostId::new(&"x".repeat(400)));
    let error = encode_slot(&cluster(), &long, 1, &heartbeat(1).1);
    assert!(matches!(error, Err(EncodeError::HeaderTooLong { .. })));
}

/// What an entry of an ordinary VM takes in the middle of a failover.
fn entry_in_failover(number: u64) -> Entry {
    let needs = VmNeeds {
        networks: vec!["bridge br-vlan120".into()],
        cpu_model: Some("Cascadelake-Server-noTSX".into()),
        machine: Some("pc-q35-rhel9.4.0".into()),
        ..VmNeeds::default()
    };
    let spec = VmSpec {
        xml: XmlId(u64::MAX - number),
        memory_mib: 16_384,
        vcpus: 8,
        priority: Priority::High,
        overhead_mib: 384,
        guest_agent: true,
        needs: needs.into(),
        ..VmSpec::default()
    };
    let RegisterValue::ProtectedList(list) = list(3, 1).1 else { unreachable!("a list") };
    let mut entry = list.entries[0].clone();
    entry.vm = VmId(u128::from(number).to_be_bytes());
    entry.name = format!("customer-{number:04}-db").as_str().into();
    entry.spec = spec;
    entry.attempts = 1;
    entry.has_agent = true;
    entry.failed_over_from = Some(HostId::new("host-17"));
    entry.intent = Some(HostId::new("host-23"));
    entry
}

#[test]
fn two_thousand_vms_in_a_failover_fit_beside_the_largest_settings() {
    let entries: Vec<Entry> = (0..2_000).map(entry_in_failover).collect();
    let RegisterValue::ProtectedList(empty) = list(3, 0).1 else { unreachable!("a list") };
    let value = RegisterValue::ProtectedList(ProtectedList { entries, ..empty });
    let bytes = encode_slot(&cluster(), &list(3, 0).0, 1, &value).expect("it fits");
    // The core refuses settings that take more than 128 KiB.
    let left = layout::LIST_SLOT - bytes.len();
    assert!(left >= 128 * 1024, "{left} bytes are left, {} a VM", bytes.len() / 2_000);
}

#[test]
fn slots_hold_as_many_vms_as_the_layout_says() {
    let full = list(1, 3000);
    assert!(encode_slot(&cluster(), &full.0, 1, &full.1).is_ok());
}

#[test]
fn an_old_reader_ignores_what_a_newer_writer_added() {
    let header = r#"{"mainstay":1,"schema":9,"kind":"heartbeat","cluster":"lab","host":"host-1","sequence":7,"length":LENGTH,"body_crc32c":"BODYCRC","crc32c":"HEADCRC"}"#;
    let body = r#"{"boot":"01010101-0101-0101-0101-010101010101","incarnation":3,"counter":42,"agent_well":true,"mood":{"good":[1,2]}}"#;
    let (id, value) = heartbeat(42);
    let lab = ClusterId::parse("lab").expect("good");
    let read = decode_slot(&lab, &id, &hand_made(header, body));
    assert_eq!(read, Slot::Valid { sequence: 7, value });
}

#[test]
fn a_new_reader_fills_in_what_an_older_writer_left_out() {
    let header = r#"{"mainstay":1,"kind":"ownership","cluster":"lab","host":"host-1","sequence":7,"length":LENGTH,"body_crc32c":"BODYCRC","crc32c":"HEADCRC"}"#;
    let body = r#"{"boot":"01010101-0101-0101-0101-010101010101","incarnation":3,"instance":0}"#;
    let lab = ClusterId::parse("lab").expect("good");
    let id = RegisterId::Ownership(HostId::new("host-1"));
    let Slot::Valid { value: RegisterValue::Ownership(block), .. } =
        decode_slot(&lab, &id, &hand_made(header, body))
    else {
        panic!("unreadable");
    };
    assert_eq!((block.promised, block.accepted, block.beat), (None, None, None));
}

#[test]
fn an_intact_slot_that_is_not_understood_hides_the_older_one() {
    let header = r#"{"mainstay":1,"kind":"power-on","cluster":"6f1c0c1e-3c1f-4a5e-9f10-0123456789ab","host":"host-1","sequence":8,"length":LENGTH,"body_crc32c":"BODYCRC","crc32c":"HEADCRC"}"#;
    let body = r#"{"boot":"01010101-0101-0101-0101-010101010101","incarnation":3,"version":1,"isolated":false,"claims":[{"vm":"01010101-0101-0101-0101-010101010101","name":"a","state":"Teleporting"}]}"#;
    let id = RegisterId::PowerOn(HostId::new("host-1"));
    let newer = decode(&id, &hand_made(header, body));
    let Slot::Unreadable { reason } = &newer else { panic!("readable") };
    assert!(matches!(reason, SlotError::Malformed(_)) && !reason.is_damage(), "{reason}");
    let older = Slot::Valid { sequence: 7, value: heartbeat(1).1 };
    assert!(matches!(choose(older, newer), Chosen::Unreadable { first: None, second: Some(_) }));
}

#[test]
fn the_higher_sequence_counts_and_damage_falls_back() {
    let valid = |sequence| Slot::Valid { sequence, value: heartbeat(sequence).1 };
    let damaged = || Slot::Unreadable { reason: SlotError::BadChecksum { sequence: 6 } };
    let foreign = || Slot::Unreadable { reason: SlotError::ForeignCluster { found: "x".into() } };
    let sequence = |chosen: Chosen| match chosen {
        Chosen::Value { sequence, ref other_slot, .. } => Some((sequence, other_slot.is_some())),
        Chosen::Missing | Chosen::Unreadable { .. } => None,
    };
    assert_eq!(choose(Slot::Empty, Slot::Empty), Chosen::Missing);
    assert_eq!(sequence(choose(valid(4), valid(5))), Some((5, false)));
    assert_eq!(sequence(choose(valid(5), valid(4))), Some((5, false)));
    assert_eq!(sequence(choose(valid(5), Slot::Empty)), Some((5, false)));
    assert_eq!(sequence(choose(Slot::Empty, valid(5))), Some((5, false)));
    assert_eq!(sequence(choose(valid(5), damaged())), Some((5, true)));
    assert_eq!(sequence(choose(damaged(), valid(5))), Some((5, true)));
    for pair in
        [(damaged(), Slot::Empty), (Slot::Empty, damaged()), (damaged(), damaged()), (foreign(), valid(5))]
    {
        assert!(matches!(choose(pair.0, pair.1), Chosen::Unreadable { .. }));
    }
    let words = format!("{:?}", choose(damaged(), foreign()).into_read(7));
    assert!(words.contains("first slot: its body") && words.contains("second slot: it belongs"), "{words}");
}
