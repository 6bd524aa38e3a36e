//! The clock by which answers are dated: CLOCK_BOOTTIME, the protocol's.
//!
//! Why not `std::time::Instant`: it stands still in suspend. An answer that was asked for before a suspend and came after it
//! would be dated later than it was asked for.

use mainstay_words::Time;
use rustix::time::{ClockId, clock_gettime};

pub(crate) fn now() -> Time {
    let at = clock_gettime(ClockId::Boottime);
    // Neither is negative for this clock.
    Time(at.tv_sec.unsigned_abs() * 1_000_000 + at.tv_nsec.unsigned_abs() / 1_000)
}
