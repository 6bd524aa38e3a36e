//! One slot of a register: a header line, the body, and padding up to a whole block.
//!
//! ```text
//! {"mainstay":1,"kind":"heartbeat","cluster":"…","host":"host-1","sequence":7,"length":123,"body_crc32c":"…","crc32c":"…"}
//! {"boot":"…","incarnation":1,"counter":42,"agent_well":true}
//! ```
//!
//! The header has a checksum of its own (over the line, with the digits of the checksum as zeros). It lies within the first
//! [`ATOMIC`] bytes, so a torn write leaves an old header or a new one, never a mixture; with it a reader can tell an
//! *unfinished* slot from one that belongs to somebody else, is of another epoch, or needs a newer program.
//!
//! A slot that was never written begins with [`ATOMIC`] zero bytes; what comes behind them is of no matter. A writer relies on
//! that: it fills a slot that has no valid contents with a zeroed first sector, and puts the header there last.

use crate::body;
use crate::error::{EncodeError, SlotError};
use crate::layout::{ATOMIC, ClusterId, round_up, slot_size};
use mainstay_words::register::RegisterId;
use mainstay_words::{Epoch, HostId, RegisterValue};
use serde::{Deserialize, Serialize};

/// The version of the format. A reader refuses slots of a higher one.
pub const DISK_VERSION: u32 = 1;

/// Every slot that was ever written begins so.
const BEGINNING: &[u8] = b"{\"mainstay\":";

/// What stands before the digits of the header's checksum. No string inside the header can contain it: quotes are escaped there.
const CHECKSUM_KEY: &[u8] = b"\"crc32c\":\"";

/// Digits of a checksum.
const CHECKSUM_DIGITS: usize = 8;

/// What a slot holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Never written, or (of a protected list) last written in an earlier epoch.
    Empty,
    /// The slot is whole and holds a value.
    Valid {
        /// Of the two slots of a register, the one with the higher number counts.
        sequence: u64,
        /// What was written there.
        value: RegisterValue,
    },
    /// Nothing that can be used.
    Unreadable {
        /// What is wrong with its bytes.
        reason: SlotError,
    },
}

/// The header line, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotHeader {
    /// The cluster that wrote it.
    pub cluster: String,
    /// The register that the slot belongs to.
    pub register: RegisterId,
    /// The number of the write.
    pub sequence: u64,
    /// Where the body begins.
    pub body_start: usize,
    /// How long it is.
    pub body_length: usize,
    body_checksum: u32,
}

impl SlotHeader {
    /// Bytes from the start of the slot to the end of the body.
    pub fn total_length(&self) -> usize {
        self.body_start.saturating_add(self.body_length)
    }
}

/// The header line as JSON.
#[derive(Serialize, Deserialize)]
struct HeaderLine {
    mainstay: u32,
    kind: String,
    cluster: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host: Option<HostId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epoch: Option<Epoch>,
    sequence: u64,
    length: u64,
    body_crc32c: String,
    /// Last, so that the writer finds its digits.
    crc32c: String,
}

/// The part of the header line that no later version may change.
#[derive(Deserialize)]
struct VersionOnly {
    mainstay: u32,
}

/// Writes a slot: whole blocks, no longer than needed.
pub fn encode_slot(
    cluster: &ClusterId,
    id: &RegisterId,
    sequence: u64,
    value: &RegisterValue,
) -> Result<Vec<u8>, EncodeError> {
    let kind = body::kind_of_id(id);
    if kind != body::kind_of_value(value) || !epoch_matches(id, value) {
        return Err(EncodeError::Mismatch { register: register_name(id), value: body::kind_of_value(value) });
    }
    let body = body::write(value)?;
    let (host, epoch) = match id {
        RegisterId::Heartbeat(host) | RegisterId::PowerOn(host) | RegisterId::Ownership(host) => {
            (Some(host.clone()), None)
        }
        RegisterId::ProtectedList(epoch) => (None, Some(*epoch)),
    };
    let line = HeaderLine {
        mainstay: DISK_VERSION,
        kind: kind.to_string(),
        cluster: cluster.as_str().to_string(),
        host,
        epoch,
        sequence,
        length: body.len() as u64,
        body_crc32c: format!("{:08x}", crc32c::crc32c(&body)),
        crc32c: "00000000".to_string(),
    };
    let mut slot = serde_json::to_vec(&line)
        .map_err(|error| EncodeError::Unserializable { kind, reason: error.to_string() })?;
    let checksum = format!("{:08x}", crc32c::crc32c(&slot));
    slot.truncate(slot.len() - CHECKSUM_DIGITS - b"\"}".len());
    slot.extend_from_slice(checksum.as_bytes());
    slot.extend_from_slice(b"\"}\n");
    if slot.len() > ATOMIC {
        return Err(EncodeError::HeaderTooLong { kind, needed: slot.len() });
    }
    slot.extend_from_slice(&body);
    let (needed, available) = (slot.len(), slot_size(id));
    if needed > available {
        return Err(EncodeError::TooBig { kind, needed, available });
    }
    slot.resize(round_up(needed), b' ');
    // So that a `cat` of the file ends each slot with a line end.
    if needed < slot.len()
        && let Some(last) = slot.last_mut()
    {
        *last = b'\n';
    }
    Ok(slot)
}

/// Reads the header line. `Ok(None)`: the slot was never written.
pub fn read_header(slot: &[u8]) -> Result<Option<SlotHeader>, SlotError> {
    let sector = &slot[..slot.len().min(ATOMIC)];
    if sector.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    if !sector.starts_with(BEGINNING) {
        return Err(SlotError::BadHeader("it does not begin like a register of Mainstay".into()));
    }
    let end = sector
        .iter()
        .position(|byte| *byte == b'\n')
        .ok_or_else(|| SlotError::BadHeader("its line has no end".into()))?;
    let line = &sector[..end];
    // The version first: a newer one may compute its checksums differently.
    let bad_json = |error: serde_json::Error| SlotError::BadHeader(error.to_string());
    let version: VersionOnly = serde_json::from_slice(line).map_err(bad_json)?;
    if version.mainstay > DISK_VERSION {
        return Err(SlotError::NewerVersion { found: version.mainstay });
    }
    check_header_checksum(line)?;
    let header: HeaderLine =
        serde_json::from_slice(line).map_err(|error| SlotError::Malformed(error.to_string()))?;
    let body_checksum = u32::from_str_radix(&header.body_crc32c, 16)
        .map_err(|error| SlotError::Malformed(format!("body_crc32c: {error}")))?;
    let body_length =
        usize::try_from(header.length).map_err(|error| SlotError::Malformed(format!("length: {error}")))?;
    Ok(Some(SlotHeader {
        register: register_of_header(&header)?,
        cluster: header.cluster,
        sequence: header.sequence,
        body_start: end + 1,
        body_length,
        body_checksum,
    }))
}

/// Reads a slot of that register. `slot` must hold at least [`SlotHeader::total_length`] bytes for a value to come out.
pub fn decode_slot(cluster: &ClusterId, id: &RegisterId, slot: &[u8]) -> Slot {
    match decode(cluster, id, slot) {
        Ok(Some((sequence, value))) => Slot::Valid { sequence, value },
        Ok(None) => Slot::Empty,
        Err(reason) => Slot::Unreadable { reason },
    }
}

fn decode(
    cluster: &ClusterId,
    id: &RegisterId,
    slot: &[u8],
) -> Result<Option<(u64, RegisterValue)>, SlotError> {
    let Some(header) = read_header(slot)? else { return Ok(None) };
    if header.cluster != cluster.as_str() {
        return Err(SlotError::ForeignCluster { found: header.cluster });
    }
    match (&header.register, id) {
        (found, wanted) if found == wanted => {}
        // Epochs share regions. What an earlier one left is of no matter to a later one, be it whole or torn: to this
        // register it was never written.
        (RegisterId::ProtectedList(found), RegisterId::ProtectedList(wanted)) if found < wanted => {
            return Ok(None);
        }
        (RegisterId::ProtectedList(found), RegisterId::ProtectedList(_)) => {
            return Err(SlotError::Superseded { found: *found });
        }
        (found, _) => return Err(SlotError::WrongRegister { found: register_name(found) }),
    }
    let needed = header.total_length();
    if needed > slot_size(id) {
        return Err(SlotError::Malformed(format!("a length of {} bytes", header.body_length)));
    }
    let body =
        slot.get(header.body_start..needed).ok_or(SlotError::Truncated { needed, have: slot.len() })?;
    if crc32c::crc32c(body) != header.body_checksum {
        return Err(SlotError::BadChecksum { sequence: header.sequence });
    }
    let value = body::read(id, body).map_err(|error| SlotError::Malformed(error.to_string()))?;
    if !epoch_matches(id, &value) {
        return Err(SlotError::Malformed("header and body name different epochs".into()));
    }
    Ok(Some((header.sequence, value)))
}

fn check_header_checksum(line: &[u8]) -> Result<(), SlotError> {
    let bad = |why: &str| SlotError::BadHeader(why.into());
    let digits = line
        .windows(CHECKSUM_KEY.len())
        .position(|window| window == CHECKSUM_KEY)
        .map(|at| at + CHECKSUM_KEY.len())
        .ok_or_else(|| bad("it has no checksum"))?;
    let found = line.get(digits..digits + CHECKSUM_DIGITS).ok_or_else(|| bad("its checksum is cut off"))?;
    let mut crc = crc32c::crc32c(&line[..digits]);
    crc = crc32c::crc32c_append(crc, &[b'0'; CHECKSUM_DIGITS]);
    crc = crc32c::crc32c_append(crc, &line[digits + CHECKSUM_DIGITS..]);
    if format!("{crc:08x}").as_bytes() == found { Ok(()) } else { Err(bad("it does not match its checksum")) }
}

fn register_of_header(header: &HeaderLine) -> Result<RegisterId, SlotError> {
    let host =
        || header.host.clone().ok_or_else(|| SlotError::Malformed("the header names no host".to_string()));
    Ok(match header.kind.as_str() {
        "heartbeat" => RegisterId::Heartbeat(host()?),
        "power-on" => RegisterId::PowerOn(host()?),
        "ownership" => RegisterId::Ownership(host()?),
        "protected-list" => RegisterId::ProtectedList(
            header.epoch.ok_or_else(|| SlotError::Malformed("the header names no epoch".to_string()))?,
        ),
        other => return Err(SlotError::Malformed(format!("unknown kind {other:?}"))),
    })
}

/// The register in words.
pub fn register_name(id: &RegisterId) -> String {
    match id {
        RegisterId::Heartbeat(host) | RegisterId::PowerOn(host) | RegisterId::Ownership(host) => {
            format!("{} of {host}", body::kind_of_id(id))
        }
        RegisterId::ProtectedList(epoch) => format!("protected-list of epoch {epoch}"),
    }
}

fn epoch_matches(id: &RegisterId, value: &RegisterValue) -> bool {
    match (id, value) {
        (RegisterId::ProtectedList(epoch), RegisterValue::ProtectedList(list)) => list.epoch == *epoch,
        (
            RegisterId::Heartbeat(_)
            | RegisterId::PowerOn(_)
            | RegisterId::Ownership(_)
            | RegisterId::ProtectedList(_),
            _,
        ) => true,
    }
}
