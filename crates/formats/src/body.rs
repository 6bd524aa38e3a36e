//! The body of a slot: the JSON of the core's type, with one line for each VM of a list, so that `cat`, `grep` and `diff`
//! are of use on it.

use crate::error::EncodeError;
use mainstay_words::RegisterValue;
use mainstay_words::register::RegisterId;
use serde::{Deserialize, Serialize};
use serde_json::ser::Formatter;
use std::io;

/// The kind's name in header lines.
pub(crate) fn kind_of_id(id: &RegisterId) -> &'static str {
    match id {
        RegisterId::Heartbeat(_) => "heartbeat",
        RegisterId::PowerOn(_) => "power-on",
        RegisterId::Ownership(_) => "ownership",
        RegisterId::ProtectedList(_) => "protected-list",
    }
}

/// The same for a value.
pub(crate) fn kind_of_value(value: &RegisterValue) -> &'static str {
    match value {
        RegisterValue::Heartbeat(_) => "heartbeat",
        RegisterValue::PowerOn(_) => "power-on",
        RegisterValue::Ownership(_) => "ownership",
        RegisterValue::ProtectedList(_) => "protected-list",
    }
}

/// Writes the value, with a newline at the end.
pub(crate) fn write(value: &RegisterValue) -> Result<Vec<u8>, EncodeError> {
    let mut body = Vec::with_capacity(1024);
    let written = match value {
        RegisterValue::Heartbeat(value) => serde_json::to_writer(&mut body, value),
        RegisterValue::Ownership(value) => serde_json::to_writer(&mut body, value),
        RegisterValue::PowerOn(value) => write_lines(&mut body, value),
        RegisterValue::ProtectedList(value) => write_lines(&mut body, value),
    };
    written.map_err(|error| EncodeError::Unserializable {
        kind: kind_of_value(value),
        reason: error.to_string(),
    })?;
    body.push(b'\n');
    Ok(body)
}

/// Reads the body of that register.
pub(crate) fn read(id: &RegisterId, body: &[u8]) -> Result<RegisterValue, serde_json::Error> {
    fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, serde_json::Error> {
        serde_json::from_slice(body)
    }
    Ok(match id {
        RegisterId::Heartbeat(_) => RegisterValue::Heartbeat(parse(body)?),
        RegisterId::PowerOn(_) => RegisterValue::PowerOn(parse(body)?),
        RegisterId::Ownership(_) => RegisterValue::Ownership(parse(body)?),
        RegisterId::ProtectedList(_) => RegisterValue::ProtectedList(parse(body)?),
    })
}

fn write_lines<T: Serialize>(body: &mut Vec<u8>, value: &T) -> Result<(), serde_json::Error> {
    value.serialize(&mut serde_json::Serializer::with_formatter(body, LinePerEntry::default()))
}

/// Compact JSON, except that each element of an array directly in the outermost object begins a line.
#[derive(Default)]
struct LinePerEntry {
    depth: u32,
}

impl LinePerEntry {
    /// Inside the outermost object's array: object 1, array 2.
    const ENTRY_DEPTH: u32 = 2;
}

impl Formatter for LinePerEntry {
    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.depth += 1;
        writer.write_all(b"[")
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.depth -= 1;
        writer.write_all(b"]")
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if !first {
            writer.write_all(b",")?;
        }
        if self.depth == Self::ENTRY_DEPTH { writer.write_all(b"\n") } else { Ok(()) }
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.depth += 1;
        writer.write_all(b"{")
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.depth -= 1;
        writer.write_all(b"}")
    }
}
