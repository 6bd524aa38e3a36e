//! Fuzz target `flight_segment`: a file of the flight recorder.
//!
//! Checksums would keep a fuzzer out of everything behind them, so each input is read twice: as it is, and with the lengths and
//! checksums of its frames made right.

use mainstay_recorder::{End, ReadError, Segment, read_header, read_segment};
use std::path::PathBuf;

const FRAME_HEAD: usize = 12;

/// Whether it is a segment that ends with a whole step.
pub fn check(bytes: &[u8]) -> bool {
    check_segment(&sealed(bytes));
    check_segment(bytes)
}

fn check_segment(bytes: &[u8]) -> bool {
    let Ok(segment) = read(bytes) else { return false };
    let path = store(bytes);
    assert_eq!(read_header(&path).ok().as_ref(), Some(&segment.header));

    // Of a file that is cut off, what is left is good and it says so, unless nothing but whole steps were lost.
    let place = crc32c::crc32c(bytes) as usize;
    let cut = &bytes[..place % bytes.len().max(1)];
    if let Ok(part) = read(cut) {
        assert_eq!((&part.header, &part.checkpoint), (&segment.header, &segment.checkpoint));
        assert!(segment.steps.starts_with(&part.steps), "other steps than those that were recorded");
        match part.end {
            End::Whole | End::Torn { .. } | End::Damaged { .. } | End::Broken { .. } => {}
        }
    }
    // A flipped bit never makes another step: what is before it is good, and nothing comes behind it.
    let mut flipped = bytes.to_vec();
    let bit = place % (bytes.len() * 8).max(1);
    flipped[bit / 8] ^= 1 << (bit % 8);
    if let Ok(part) = read(&flipped) {
        assert_eq!((&part.header, &part.checkpoint), (&segment.header, &segment.checkpoint), "bit {bit}");
        assert!(
            segment.steps.starts_with(&part.steps),
            "bit {bit}: other steps than those that were recorded"
        );
    }
    segment.end == End::Whole
}

fn read(bytes: &[u8]) -> Result<Segment, ReadError> {
    read_segment(&store(bytes))
}

/// A file of this thread's, in memory where there is such a place.
fn store(bytes: &[u8]) -> PathBuf {
    thread_local! {
        static FILE: tempfile::NamedTempFile = tempfile::NamedTempFile::new_in("/dev/shm")
            .or_else(|_| tempfile::NamedTempFile::new())
            .expect("a file");
    }
    FILE.with(|file| {
        std::fs::write(file.path(), bytes).expect("written");
        file.path().to_path_buf()
    })
}

/// The same with the lengths and checksums of its frames made right.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let start = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |end| end + 1);
    let (line, mut rest) = bytes.split_at(start);
    let mut sealed = line.to_vec();
    while let Some((head, behind)) = rest.split_first_chunk::<FRAME_HEAD>() {
        let [l0, l1, l2, l3, k0, k1, ..] = *head;
        let length = (u32::from_le_bytes([l0, l1, l2, l3]) as usize).min(behind.len());
        let (payload, next) = behind.split_at(length);
        let [l0, l1, l2, l3] = (length as u32).to_le_bytes();
        let start = [l0, l1, l2, l3, k0, k1];
        sealed.extend_from_slice(&start);
        sealed.extend_from_slice(&(crc32c::crc32c(&start) as u16).to_le_bytes());
        sealed.extend_from_slice(&crc32c::crc32c(payload).to_le_bytes());
        sealed.extend_from_slice(payload);
        rest = next;
    }
    sealed
}
