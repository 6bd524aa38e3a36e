//! Fuzz target `register`: a slot of a register, of each kind, as it is on disk.
//!
//! Checksums would keep a fuzzer out of everything behind them, so each input is read twice: as it is, and with the length and the
//! checksums of its header made right.

use crate::strange::{place_in, with_unknown_fields};
use mainstay_formats::disk::register_name;
use mainstay_formats::{
    Chosen, ClusterId, EncodeError, Slot, SlotError, choose, decode_slot, encode_slot, read_header,
};
use mainstay_words::register::{RegisterId, RegisterValue};
use mainstay_words::{Epoch, HostId};

/// The cluster of the corpus.
pub const CLUSTER: &str = "lab";

/// The epoch of the corpus' protected lists.
pub const EPOCH: Epoch = Epoch(3);

/// The registers that are looked for.
pub fn registers() -> [RegisterId; 4] {
    let host = HostId::new("host-1");
    [
        RegisterId::Heartbeat(host.clone()),
        RegisterId::PowerOn(host.clone()),
        RegisterId::Ownership(host),
        RegisterId::ProtectedList(EPOCH),
    ]
}

/// Whether it is, as it stands, one of [`registers`]. Properties: see the comments.
pub fn check(bytes: &[u8]) -> bool {
    if let Some(sealed) = seal(bytes, None) {
        check_slot(&sealed);
    }
    check_slot(bytes)
}

fn cluster() -> ClusterId {
    ClusterId::parse(CLUSTER).expect("good")
}

fn check_slot(bytes: &[u8]) -> bool {
    let mut found = false;
    for id in registers() {
        let slot = decode_slot(&cluster(), &id, bytes);
        check_choice(&slot);
        if let Slot::Valid { sequence, value } = slot {
            assert!(!found, "two registers in one slot");
            found = true;
            check_valid(bytes, &id, sequence, &value);
        }
    }
    found
}

fn check_valid(bytes: &[u8], id: &RegisterId, sequence: u64, value: &RegisterValue) {
    let kind_is_right = match (id, value) {
        (RegisterId::Heartbeat(_), RegisterValue::Heartbeat(_))
        | (RegisterId::PowerOn(_), RegisterValue::PowerOn(_))
        | (RegisterId::Ownership(_), RegisterValue::Ownership(_)) => true,
        (RegisterId::ProtectedList(epoch), RegisterValue::ProtectedList(list)) => list.epoch == *epoch,
        (
            RegisterId::Heartbeat(_)
            | RegisterId::PowerOn(_)
            | RegisterId::Ownership(_)
            | RegisterId::ProtectedList(_),
            _,
        ) => false,
    };
    assert!(kind_is_right, "{id:?} holds {value:?}");
    let valid = Slot::Valid { sequence, value: value.clone() };

    // What was read is written and read again as the same. (Defaults of fields that were left out may need more room.)
    match encode_slot(&cluster(), id, sequence, value) {
        Ok(written) => assert_eq!(decode_slot(&cluster(), id, &written), valid),
        Err(error) => assert!(matches!(error, EncodeError::TooBig { .. }), "{error}"),
    }

    // A flipped bit is noticed; no beginning of it is a value.
    let used = read_header(bytes).expect("good").expect("written").total_length();
    let mut flipped = bytes.to_vec();
    let bit = place_in(bytes, used * 8);
    flipped[bit / 8] ^= 1 << (bit % 8);
    let read = decode_slot(&cluster(), id, &flipped);
    assert!(matches!(read, Slot::Unreadable { .. }), "bit {bit}: {read:?}");
    let cut = &bytes[..place_in(bytes, used)];
    assert!(!matches!(decode_slot(&cluster(), id, cut), Slot::Valid { .. }), "{} bytes", cut.len());

    // It is nobody else's.
    let stranger = ClusterId::parse("other").expect("good");
    let foreign = SlotError::ForeignCluster { found: CLUSTER.into() };
    assert_eq!(decode_slot(&stranger, id, bytes), Slot::Unreadable { reason: foreign });
    let other_host = HostId::new("host-2");
    let others = [
        RegisterId::Heartbeat(other_host.clone()),
        RegisterId::PowerOn(other_host.clone()),
        RegisterId::Ownership(other_host),
    ];
    for other in others.iter().chain(registers().iter().filter(|other| *other != id)) {
        let wrong = SlotError::WrongRegister { found: register_name(id) };
        assert_eq!(decode_slot(&cluster(), other, bytes), Slot::Unreadable { reason: wrong }, "{other:?}");
    }

    // What a later version added is ignored.
    let header = read_header(bytes).expect("good").expect("written");
    let body = &bytes[header.body_start..header.total_length()];
    // (What is inside an unknown field is skipped and need not even be text; such a body is no value for this check.)
    let Ok(body) = serde_json::from_slice::<serde_json::Value>(body) else { return };
    let later = serde_json::to_vec(&with_unknown_fields(&body)).expect("a value");
    let sealed = seal(bytes, Some(&later)).expect("it has a header");
    if sealed.len() <= mainstay_formats::layout::slot_size(id) {
        assert_eq!(decode_slot(&cluster(), id, &sealed), valid);
    }
}

/// Of two slots the newer one counts, and only damage may be passed over.
fn check_choice(slot: &Slot) {
    let beat = |sequence| {
        let id = RegisterId::Heartbeat(HostId::new("host-1"));
        let value = mainstay_words::register::HeartbeatRegister {
            boot: mainstay_words::BootId([1; 16]),
            incarnation: mainstay_words::Incarnation(1),
            counter: 1,
            agent: None,
            agent_well: true,
            failure_timeout: None,
            slow: false,
            hold: None,
            files: None,
        };
        (id, Slot::Valid { sequence, value: RegisterValue::Heartbeat(value) })
    };
    let (_, other) = beat(1_000);
    let chosen = choose(slot.clone(), other.clone());
    let swapped = choose(other.clone(), slot.clone());
    let sequence_of = |chosen: &Chosen| match chosen {
        Chosen::Value { sequence, .. } => Some(*sequence),
        Chosen::Missing | Chosen::Unreadable { .. } => None,
    };
    assert_eq!(sequence_of(&chosen), sequence_of(&swapped));
    match slot {
        Slot::Empty => assert_eq!(sequence_of(&chosen), Some(1_000)),
        Slot::Valid { sequence, .. } => assert_eq!(sequence_of(&chosen), Some(1_000.max(*sequence))),
        Slot::Unreadable { reason } => {
            assert_eq!(sequence_of(&chosen).is_some(), reason.is_damage(), "{reason}");
        }
    }
}

/// The slot with that body (or its own, without the padding), and with the length and the checksums made right. `None` when there
/// is no line with the fields to do it in.
pub fn seal(slot: &[u8], body: Option<&[u8]>) -> Option<Vec<u8>> {
    let end = slot.iter().position(|byte| *byte == b'\n')?;
    let body = body.unwrap_or(&slot[end + 1..]);
    let used = body.iter().rposition(|byte| !matches!(byte, 0 | b' ' | b'\n')).map_or(0, |last| last + 1);
    let body = &body[..used];
    let mut line = slot[..end].to_vec();
    let length = after(&line, b"\"length\":")?;
    let digits = line[length..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    line.splice(length..length + digits, used.to_string().into_bytes());
    let at = after(&line, b"\"body_crc32c\":\"")?;
    let sum = format!("{:08x}", crc32c::crc32c(body));
    line.get_mut(at..at + 8)?.copy_from_slice(sum.as_bytes());
    let at = after(&line, b"\"crc32c\":\"")?;
    line.get_mut(at..at + 8)?.copy_from_slice(b"00000000");
    let sum = format!("{:08x}", crc32c::crc32c(&line));
    line[at..at + 8].copy_from_slice(sum.as_bytes());
    line.push(b'\n');
    line.extend_from_slice(body);
    Some(line)
}

fn after(bytes: &[u8], key: &[u8]) -> Option<usize> {
    bytes.windows(key.len()).position(|window| window == key).map(|at| at + key.len())
}
