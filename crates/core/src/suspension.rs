//! R71 to R73: suspended protection.
//!
//! While protection of a datastore is suspended, its owner restarts nothing, and guards *hold*: they freeze no VM at the
//! end of a lease. Three parts keep what is known about it. None of them knows of the others:
//!
//! | part | kept by | what it knows |
//! | --- | --- | --- |
//! | [`Wish`] | the owner | what people asked for, and how much of that is on disk |
//! | [`OwnHold`] | each host | until when its own guard was told to hold |
//! | [`OtherHolds`] | the owner | until when other hosts may be holding, although they are silent |
//!
//! Invariant: nobody holds longer than a suspension on disk lasts. Otherwise the next owner, which goes by the disk, would
//! restart VMs that still run (I1).
//!
//! It does not: freeze or restart anything. The guard and the protected list do.

mod other_holds;
mod own_hold;
mod wish;

pub(crate) use other_holds::OtherHolds;
pub(crate) use own_hold::{Answer, OwnHold};
pub(crate) use wish::Wish;

use crate::time::{Span, Time};
use crate::timing::{DRIFT_PPM, FREEZE_BOUND, Timing};

/// R72: until when a guard may hold, counted on this host's clock. It had `left` when it wrote that, and it did so before `now`.
/// The clocks of two hosts drift apart, and freezing takes time.
fn hold_end(now: Time, left: Span, timing: &Timing) -> Time {
    let drift = Span((left.0 / 1_000_000).saturating_add(1).saturating_mul(2 * DRIFT_PPM));
    now + left + drift + timing.lease + FREEZE_BOUND
}
