//! The bytes of a segment.
//!
//! ```text
//! "mainstay-flight 1 0.1.0\n"     format version, software version: legible with `head -1`
//! frames: length      u32 LE      of the payload
//!         kind        u16 LE      see [`Kind`]
//!         head check  u16 LE      low half of the CRC32C of the six bytes before: tells a cut-off frame from a damaged length
//!         check       u32 LE      CRC32C of the payload
//!         payload                 CBOR, maps with names
//! ```
//!
//! Names rather than numbers as keys: fields can be added without a new format version. Why not JSON: maps of a core have
//! keys that are pairs.

use mainstay_core::{Config, Core, Input, Time};
use serde::{Deserialize, Serialize};

/// The version of the format that this crate writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// What a segment begins with.
pub(crate) const MAGIC: &str = "mainstay-flight ";

/// The longest first line that is looked at.
pub(crate) const FIRST_LINE_MAX: usize = 128;

/// Bytes of a frame before its payload.
pub(crate) const FRAME_HEAD: usize = 12;

/// A payload longer than this is never written: a core of 10,000 VMs takes a tenth of it.
pub(crate) const PAYLOAD_MAX: usize = 64 << 20;

/// What a segment says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Its number, as in its file name.
    pub segment: u64,
    /// The segment whose replay ends in this one's checkpoint; `None` after a start of the agent, or when steps are missing
    /// in between.
    pub continues: Option<u64>,
    /// Steps that could not be recorded since the segment before.
    pub lost_before: u64,
    /// The cluster's id.
    pub cluster: String,
    /// The software that recorded it.
    pub software: String,
    /// When it begins, on the host's own clock.
    pub at: Time,
    /// The same instant in microseconds since 1970: only for people.
    pub at_unix_us: u64,
    /// The configuration of the core: which host, which boot, which run of the agent.
    pub config: Config,
}

/// A whole core, between two steps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// When the step after it was taken.
    pub at: Time,
    /// The core before that step.
    pub core: Core,
}

/// One step of the core.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// `now` of the step.
    pub at: Time,
    /// What the core was given in this step.
    pub input: Input,
}

/// [`Checkpoint`] before it is written.
#[derive(Serialize)]
pub(crate) struct CheckpointRef<'a> {
    pub(crate) at: Time,
    pub(crate) core: &'a Core,
}

/// [`Step`] before it is written.
#[derive(Serialize)]
pub(crate) struct StepRef<'a> {
    pub(crate) at: Time,
    pub(crate) input: &'a Input,
}

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The first frame of a segment: a [`Header`].
    Header,
    /// The whole core at one moment, a [`Checkpoint`], from which a replay begins.
    Checkpoint,
    /// One input and its time: a [`Step`].
    Step,
    /// Steps are missing from here on; the payload says why, as a text.
    Broken,
}

impl Kind {
    fn number(self) -> u16 {
        match self {
            Kind::Header => 1,
            Kind::Checkpoint => 2,
            Kind::Step => 3,
            Kind::Broken => 4,
        }
    }

    fn of(number: u16) -> Option<Kind> {
        [Kind::Header, Kind::Checkpoint, Kind::Step, Kind::Broken]
            .into_iter()
            .find(|kind| kind.number() == number)
    }
}

/// The first line of a segment.
pub(crate) fn first_line(software: &str) -> String {
    format!("{MAGIC}{FORMAT_VERSION} {software}\n")
}

/// Appends a frame. Leaves `bytes` as they were when it fails.
pub(crate) fn append<T: Serialize>(bytes: &mut Vec<u8>, kind: Kind, payload: &T) -> Result<(), String> {
    let payload = minicbor_serde::to_vec(payload).map_err(|error| error.to_string())?;
    if payload.len() > PAYLOAD_MAX {
        return Err(format!("{} bytes are too many for a frame", payload.len()));
    }
    let mut head = [0u8; 6];
    head[..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    head[4..].copy_from_slice(&kind.number().to_le_bytes());
    bytes.extend_from_slice(&head);
    bytes.extend_from_slice(&(crc32c::crc32c(&head) as u16).to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&payload).to_le_bytes());
    bytes.extend_from_slice(&payload);
    Ok(())
}

/// What is found where a frame should begin.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<'a> {
    /// A frame, and how many bytes it takes.
    Frame(Kind, &'a [u8], usize),
    /// The bytes end here.
    Nothing,
    /// A frame that was not written to its end.
    Torn,
    /// Not what was written.
    Damaged(&'static str),
}

/// Looks at the frame at the beginning of `bytes`.
pub(crate) fn frame(bytes: &[u8]) -> Found<'_> {
    if bytes.is_empty() {
        return Found::Nothing;
    }
    let Some((head, rest)) = bytes.split_first_chunk::<FRAME_HEAD>() else { return Found::Torn };
    let [l0, l1, l2, l3, k0, k1, h0, h1, c0, c1, c2, c3] = *head;
    if crc32c::crc32c(&head[..6]) as u16 != u16::from_le_bytes([h0, h1]) {
        // A file whose length reached the disk before its contents reads as zeroes there.
        let never_written = bytes.iter().all(|byte| *byte == 0);
        return if never_written { Found::Torn } else { Found::Damaged("the checksum of its head is wrong") };
    }
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    let Some(payload) = rest.get(..length) else { return Found::Torn };
    if crc32c::crc32c(payload) != u32::from_le_bytes([c0, c1, c2, c3]) {
        let never_written = rest.iter().rev().take_while(|byte| **byte == 0).count() >= rest.len().min(512);
        return if never_written { Found::Torn } else { Found::Damaged("its checksum is wrong") };
    }
    match Kind::of(u16::from_le_bytes([k0, k1])) {
        Some(kind) => Found::Frame(kind, payload, FRAME_HEAD + length),
        None => Found::Damaged("it is of a kind that this version does not know"),
    }
}

/// Reads a payload.
pub(crate) fn decode<T: for<'de> Deserialize<'de>>(payload: &[u8]) -> Result<T, String> {
    minicbor_serde::from_slice(payload).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_found_again_and_each_flipped_bit_is_noticed() {
        let mut bytes = Vec::new();
        append(&mut bytes, Kind::Broken, &"a reason").expect("it serializes");
        let Found::Frame(Kind::Broken, payload, taken) = frame(&bytes) else { panic!("a frame") };
        assert_eq!((decode::<String>(payload).as_deref(), taken), (Ok("a reason"), bytes.len()));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(frame(&damaged), Found::Damaged(_)), "bit {bit}: {:?}", frame(&damaged));
        }
    }

    #[test]
    fn a_frame_that_was_cut_off_anywhere_is_torn() {
        let mut bytes = Vec::new();
        append(&mut bytes, Kind::Broken, &"a reason").expect("it serializes");
        for length in 1..bytes.len() {
            assert_eq!(frame(&bytes[..length]), Found::Torn, "{length} bytes");
        }
        assert_eq!(frame(&[]), Found::Nothing);
        assert_eq!(frame(&[0; 4096]), Found::Torn);
    }
}
