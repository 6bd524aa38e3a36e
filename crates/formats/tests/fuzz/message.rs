//! Fuzz target `message`: a datagram from another agent.

use crate::strange::{place_in, with_unknown_fields};
use mainstay_formats::wire::{WIRE_VERSION, decode_message, encode_message, kind};
use mainstay_formats::{ClusterId, WireError};
use serde::ser::{Serialize, Serializer};
use serde_json::Value;

/// The cluster of the corpus.
pub const CLUSTER: &str = "lab";

const FRAME: usize = 9;

/// Whether it is a message. Properties: see the comments.
pub fn check(bytes: &[u8]) -> bool {
    let cluster = ClusterId::parse(CLUSTER).expect("good");
    let stranger = ClusterId::parse("other").expect("good");
    let Ok(message) = decode_message(&cluster, bytes) else { return false };
    assert!(matches!(decode_message(&stranger, bytes), Err(WireError::OtherCluster { .. })));

    // What was read is written and read again as the same.
    let written = encode_message(&cluster, &message).expect("what was read can be written");
    assert_eq!(decode_message(&cluster, &written).as_ref(), Ok(&message));

    // No beginning of a message is a message, and nothing may come behind one.
    let cut = &bytes[..place_in(bytes, bytes.len())];
    assert!(decode_message(&cluster, cut).is_err(), "{} of {} bytes", cut.len(), bytes.len());
    assert!(decode_message(&cluster, &[bytes, &[0xf6]].concat()).is_err());

    // A newer version is named.
    let newer = [&[WIRE_VERSION + 1], &bytes[1..]].concat();
    assert_eq!(decode_message(&cluster, &newer), Err(WireError::NewerVersion { found: WIRE_VERSION + 1 }));

    // What a later version added is ignored; a kind that it added is refused by its name.
    let framed = |value: &Value| {
        let cbor = minicbor_serde::to_vec(AsCbor(value)).expect("a value");
        [&bytes[..FRAME], &cbor].concat()
    };
    let mut value = serde_json::to_value(&message).expect("a value");
    assert_eq!(decode_message(&cluster, &framed(&with_unknown_fields(&value))).as_ref(), Ok(&message));
    let known = kind(&message.body);
    let contents = value["body"].get(known).cloned().unwrap_or(Value::Null);
    value["body"] = serde_json::json!({ "Sing": contents });
    let unknown = WireError::UnknownKind { kind: "Sing".into() };
    assert_eq!(decode_message(&cluster, &framed(&value)), Err(unknown));
    true
}

/// A value as CBOR has it: there, what is missing is null, and the null of a JSON value would become an empty list.
struct AsCbor<'a>(&'a Value);

impl Serialize for AsCbor<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Null => serializer.serialize_none(),
            Value::Array(items) => serializer.collect_seq(items.iter().map(AsCbor)),
            Value::Object(fields) => {
                serializer.collect_map(fields.iter().map(|(name, value)| (name, AsCbor(value))))
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) => self.0.serialize(serializer),
        }
    }
}
