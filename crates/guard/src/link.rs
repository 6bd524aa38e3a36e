//! The words between an agent and its guard, and how they travel: frames of CBOR behind their length, on a Unix socket.
//!
//! Structures are maps by field name, so that an older side skips what it does not know and fills in what is missing. A frame that
//! can't be understood is skipped as a whole.

use crate::settings::Settings;
use mainstay_words::{GuardOrder, GuardReport};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// No frame is longer: a watch list of 20,000 VMs fits.
pub const FRAME_MAX: usize = 1 << 20;

const LENGTH: usize = 4;

/// From the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToGuard {
    /// The settings suit: from now on this connection is the agent's, and earlier ones are closed.
    Hello {
        /// The agent's version, for the log.
        version: String,
    },
    /// For the guard's state machine.
    Order(GuardOrder),
    /// End, and leave VMs as they are: another guard is to take over.
    End {
        /// What is wrong with it, in words.
        reason: String,
    },
}

/// From the guard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromGuard {
    /// First on each connection.
    Hello {
        /// The guard's version.
        version: String,
        /// The process number of the guard.
        pid: u32,
        /// With what it runs.
        settings: Settings,
    },
    /// Of the guard's state machine.
    Report(GuardReport),
}

/// What goes wrong with a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The other side does not speak this.
    #[error("a frame of {length} bytes: whoever sent it is no agent and no guard")]
    TooLong {
        /// What it says.
        length: usize,
    },
    /// This frame can't be understood; the next one may be.
    #[error("a frame that can't be understood (another version?): {0}")]
    Strange(String),
}

/// The bytes of a frame.
pub fn frame(message: &impl Serialize) -> Result<Vec<u8>, FrameError> {
    let body = minicbor_serde::to_vec(message).map_err(|error| FrameError::Strange(error.to_string()))?;
    let length = u32::try_from(body.len()).ok().filter(|length| *length as usize <= FRAME_MAX);
    let length = length.ok_or(FrameError::TooLong { length: body.len() })?;
    let mut bytes = Vec::with_capacity(LENGTH + body.len());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

/// Puts frames together from what arrives.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
}

impl Frames {
    /// Takes what has arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame. After [`FrameError::TooLong`] nothing more comes of this connection.
    pub fn take<T: DeserializeOwned>(&mut self) -> Option<Result<T, FrameError>> {
        let (length, rest) = self.bytes.split_first_chunk::<LENGTH>()?;
        let length = u32::from_le_bytes(*length) as usize;
        if length > FRAME_MAX {
            return Some(Err(FrameError::TooLong { length }));
        }
        let body = rest.get(..length)?;
        let message =
            minicbor_serde::from_slice(body).map_err(|error| FrameError::Strange(error.to_string()));
        self.bytes.drain(..LENGTH + length);
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_words::ids::{DatastoreName, VmId};
    use mainstay_words::{ProcessState, Time};

    #[test]
    fn frames_come_out_whole_however_they_arrive() {
        let orders = [
            ToGuard::Hello { version: "1".into() },
            ToGuard::Order(GuardOrder::Watch {
                datastore: DatastoreName::new("ds1"),
                vms: vec![VmId([7; 16]), VmId([8; 16])],
            }),
            ToGuard::Order(GuardOrder::Lease { datastore: DatastoreName::new("ds1"), until: Time(u64::MAX) }),
        ];
        let bytes: Vec<u8> = orders.iter().flat_map(|order| frame(order).expect("short")).collect();
        for piece in [1, 3, 1000] {
            let mut frames = Frames::default();
            let mut out = Vec::new();
            for part in bytes.chunks(piece) {
                frames.push(part);
                while let Some(order) = frames.take::<ToGuard>() {
                    out.push(order.expect("understood"));
                }
            }
            assert_eq!(out, orders);
        }
    }

    #[test]
    fn a_strange_frame_is_skipped_and_an_endless_one_is_the_end() {
        #[derive(Serialize)]
        enum Later {
            Unheard { of: u8 },
        }
        let report = FromGuard::Report(GuardReport::Vm { vm: VmId([1; 16]), state: ProcessState::Frozen });
        let mut frames = Frames::default();
        frames.push(&frame(&Later::Unheard { of: 1 }).expect("short"));
        frames.push(&frame(&report).expect("short"));
        assert!(matches!(frames.take::<FromGuard>(), Some(Err(FrameError::Strange(_)))));
        assert_eq!(frames.take::<FromGuard>(), Some(Ok(report)));
        assert_eq!(frames.take::<FromGuard>(), None);
        frames.push(b"GET / HTTP/1.1");
        assert!(matches!(frames.take::<FromGuard>(), Some(Err(FrameError::TooLong { .. }))));
    }
}
