//! A message between agents as a datagram (or, where it does not fit into one, as what a stream carries).
//!
//! ```text
//! byte 0      version of the protocol (1)
//! bytes 1..9  FNV-1a hash of the cluster id, big-endian: tells a mistaken address list from a damaged datagram
//! bytes 9..   CBOR of the message, maps with names as keys
//! ```
//!
//! Names as keys cost about 150 bytes per heartbeat and buy that old and new versions read each other during an upgrade.
//! This is no protection against an attacker: who may speak is the transport's matter (mutual TLS).

use crate::error::WireError;
use crate::layout::ClusterId;
use mainstay_words::message::{Body, Message};
use minicbor::data::Type;
use minicbor::decode::Decoder;
use serde::Deserialize;

/// The version of the protocol. A receiver drops messages of a higher one.
pub const WIRE_VERSION: u8 = 1;

/// Bytes before the CBOR.
const FRAME: usize = 9;

/// The kinds of messages that this version knows.
const KINDS: [&str; 8] =
    ["Elect", "Announce", "Heartbeat", "HeartbeatAck", "ListChanged", "SteppingDown", "Released", "Files"];

/// The name of a message's kind, as it is on the wire.
pub fn kind(body: &Body) -> &'static str {
    match body {
        Body::Elect { .. } => KINDS[0],
        Body::Announce { .. } => KINDS[1],
        Body::Heartbeat(_) => KINDS[2],
        Body::HeartbeatAck(_) => KINDS[3],
        Body::ListChanged { .. } => KINDS[4],
        Body::SteppingDown => KINDS[5],
        Body::Released { .. } => KINDS[6],
        Body::Files(_) => KINDS[7],
    }
}

/// Writes a message as a datagram.
pub fn encode_message(cluster: &ClusterId, message: &Message) -> Result<Vec<u8>, WireError> {
    let mut bytes = Vec::with_capacity(512);
    bytes.push(WIRE_VERSION);
    bytes.extend_from_slice(&cluster_hash(cluster).to_be_bytes());
    let cbor = minicbor_serde::to_vec(message).map_err(|error| WireError::Malformed(error.to_string()))?;
    bytes.extend_from_slice(&cbor);
    Ok(bytes)
}

/// Reads a datagram.
pub fn decode_message(cluster: &ClusterId, bytes: &[u8]) -> Result<Message, WireError> {
    let (frame, cbor) = bytes.split_first_chunk::<FRAME>().ok_or(WireError::TooShort(bytes.len()))?;
    let [version, hash @ ..] = *frame;
    if version > WIRE_VERSION {
        return Err(WireError::NewerVersion { found: version });
    }
    if version == 0 {
        return Err(WireError::Malformed("version 0".into()));
    }
    let (found, ours) = (u64::from_be_bytes(hash), cluster_hash(cluster));
    if found != ours {
        return Err(WireError::OtherCluster { found, ours });
    }
    let mut deserializer = minicbor_serde::Deserializer::new(cbor);
    let message = Message::deserialize(&mut deserializer).map_err(|error| match kind_on_wire(cbor) {
        Some(kind) if !KINDS.contains(&kind) => WireError::UnknownKind { kind: kind.to_string() },
        Some(_) | None => WireError::Malformed(error.to_string()),
    })?;
    if deserializer.decoder().position() != cbor.len() {
        return Err(WireError::Malformed("bytes behind its end".into()));
    }
    Ok(message)
}

/// The kind that a message names, for one that could not be read.
fn kind_on_wire(cbor: &[u8]) -> Option<&str> {
    let mut decoder = Decoder::new(cbor);
    let fields = decoder.map().ok()??;
    for _ in 0..fields {
        if decoder.str().ok()? != "body" {
            decoder.skip().ok()?;
            continue;
        }
        if decoder.datatype().ok()? == Type::Map {
            decoder.map().ok()?;
        }
        return decoder.str().ok();
    }
    None
}

/// FNV-1a, 64 bits: stable across versions and machines, which is all that is asked of it.
fn cluster_hash(cluster: &ClusterId) -> u64 {
    cluster.as_str().bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
