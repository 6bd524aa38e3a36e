//! Fuzz target `guard_link`: what arrives on the socket between an agent and its guard, in either direction.

use mainstay_guard::link::{FrameError, Frames, frame};
use mainstay_guard::{FromGuard, ToGuard};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// Whether the bytes are whole frames in one of the directions, all of them understood.
pub fn check(bytes: &[u8]) -> bool {
    let hello =
        FromGuard::Report(mainstay_words::GuardReport::Hello { incarnation: mainstay_words::Incarnation(1) });
    let to_guard = check_direction(bytes, &ToGuard::End { reason: "enough".into() });
    let from_guard = check_direction(bytes, &hello);
    to_guard || from_guard
}

fn check_direction<T: DeserializeOwned + Serialize + PartialEq + Debug>(bytes: &[u8], good: &T) -> bool {
    let at_once: Vec<Result<T, FrameError>> = taken(bytes, bytes.len().max(1));

    // It does not matter in which pieces they arrive.
    let piece = bytes.first().map_or(1, |byte| usize::from(byte % 7) + 1);
    assert_eq!(taken::<T>(bytes, piece), at_once);

    let mut is_open = true;
    for message in &at_once {
        match message {
            // What was read is written and read again as the same.
            Ok(message) => {
                let written = frame(message).expect("what was read can be written");
                let again = taken::<T>(&written, written.len());
                assert_eq!(again.len(), 1);
                assert_eq!(again[0].as_ref(), Ok(message));
                assert_eq!(
                    taken::<T>(&written[..written.len() - 1], written.len()),
                    [],
                    "a frame that is cut off"
                );
            }
            Err(FrameError::Strange(_)) => {}
            Err(FrameError::TooLong { .. }) => is_open = false,
        }
    }
    // A frame that is not understood costs nothing but itself.
    let whole = whole_frames(bytes);
    if is_open {
        let more = [&bytes[..whole], &frame(good).expect("it can be written")].concat();
        let last = taken::<T>(&more, more.len()).pop().expect("the last frame");
        assert_eq!(last.as_ref(), Ok(good));
    }
    is_open && whole == bytes.len() && !at_once.is_empty() && at_once.iter().all(Result::is_ok)
}

/// The messages that come of the bytes when they arrive in pieces of that length.
fn taken<T: DeserializeOwned>(bytes: &[u8], piece: usize) -> Vec<Result<T, FrameError>> {
    let mut frames = Frames::default();
    let mut messages = Vec::new();
    for part in bytes.chunks(piece.max(1)) {
        frames.push(part);
        while let Some(message) = frames.take() {
            let is_end = matches!(message, Err(FrameError::TooLong { .. }));
            messages.push(message);
            if is_end {
                return messages;
            }
        }
    }
    messages
}

/// How many of the bytes belong to frames that are whole.
fn whole_frames(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some((length, rest)) = bytes[at..].split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        if rest.len() < length {
            break;
        }
        at += 4 + length;
    }
    at
}
