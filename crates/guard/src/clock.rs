//! CLOCK_BOOTTIME, the clock of the protocol: it goes on in suspend, and nobody sets it.

use mainstay_words::Time;
use rustix::time::{ClockId, clock_gettime};

/// The protocol's time.
pub fn now() -> Time {
    let at = clock_gettime(ClockId::Boottime);
    // Neither is negative for this clock.
    Time(at.tv_sec.unsigned_abs() * 1_000_000 + at.tv_nsec.unsigned_abs() / 1_000)
}
