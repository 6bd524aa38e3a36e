//! R20: an owner that gives its epoch up says so, in its block and by network. Others need not wait for it to stand still.
//!
//! It does not: send anything. It says what is to be told now.

use crate::ids::Epoch;
use crate::time::{Span, Time};
use serde::{Deserialize, Serialize};

/// How often a release is told, a quarter of a heartbeat apart: datagrams get lost.
const RELEASES_TOLD: u32 = 4;

/// A release that others are to hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Telling {
    epoch: Epoch,
    /// How often yet.
    left: u32,
    due: Time,
}

/// Releases of which this host tells, and of which it was told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Releases {
    /// The epoch whose owner has said that it gave it up.
    heard: Option<Epoch>,
    telling: Option<Telling>,
}

impl Releases {
    /// The owner of that epoch says that it has given it up.
    pub(super) fn hear(&mut self, epoch: Epoch) {
        self.heard = Some(epoch);
    }

    /// The last epoch of which the owner has said that it gave it up.
    pub(super) fn heard(&self) -> Option<Epoch> {
        self.heard
    }

    /// This host has given that epoch up.
    pub(super) fn tell(&mut self, epoch: Epoch, now: Time) {
        self.telling = Some(Telling { epoch, left: RELEASES_TOLD, due: now });
    }

    /// The epoch of which others are to hear now. They hear it again after `pause`.
    pub(super) fn take_due(&mut self, pause: Span, now: Time) -> Option<Epoch> {
        let Telling { epoch, left, .. } = self.telling.filter(|telling| now >= telling.due)?;
        self.telling = (left > 1).then(|| Telling { epoch, left: left - 1, due: now + pause });
        Some(epoch)
    }

    /// When others are to hear next.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.telling.map(|telling| telling.due)
    }
}

#[cfg(test)]
mod tests {
    use super::{Epoch, RELEASES_TOLD, Releases, Span, Time};

    #[test]
    fn a_release_is_told_several_times_with_pauses() {
        let mut releases = Releases::default();
        releases.tell(Epoch(3), Time(100));
        for round in 0..u64::from(RELEASES_TOLD) {
            let due = Time(100 + 10 * round);
            assert_eq!(releases.deadline(), Some(due));
            assert_eq!(releases.take_due(Span(10), Time(due.0 - 1)), None);
            assert_eq!(releases.take_due(Span(10), due), Some(Epoch(3)));
        }
        assert_eq!(releases.deadline(), None);
    }
}
