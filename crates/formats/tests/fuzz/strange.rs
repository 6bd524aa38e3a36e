//! Values as a later version might write them.

use serde_json::{Map, Value};

/// The same value with a field that this version does not know in each structure, and a deep one in the outermost. Variants of
/// enums have capital letters, fields have not: that tells a structure from a variant with contents.
pub fn with_unknown_fields(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let changed = fields.iter().map(|(name, value)| (name.clone(), with_unknown_fields(value)));
            let mut changed: Map<String, Value> = changed.collect();
            let is_structure = !fields.is_empty()
                && fields.keys().all(|name| name.starts_with(|c: char| c.is_ascii_lowercase()));
            if is_structure {
                let novelty = serde_json::json!({"later": [1, null, {"than": -1.5}, "this"], "x": [[[[]]]]});
                changed.insert("zz_novelty".into(), novelty);
            }
            Value::Object(changed)
        }
        Value::Array(items) => Value::Array(items.iter().map(with_unknown_fields).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// A number that depends on all bytes: where to damage something, the same at each run.
pub fn place_in(bytes: &[u8], length: usize) -> usize {
    crc32c::crc32c(bytes) as usize % length.max(1)
}
