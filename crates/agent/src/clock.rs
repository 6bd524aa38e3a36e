//! The two clocks: CLOCK_BOOTTIME for the protocol (it goes on in suspend, and nobody sets it), the calendar for people.

use mainstay_core::Time;
use rustix::time::{ClockId, clock_gettime};

/// The protocol's time.
pub fn now() -> Time {
    let at = clock_gettime(ClockId::Boottime);
    // Neither is negative for this clock.
    Time(at.tv_sec.unsigned_abs() * 1_000_000 + at.tv_nsec.unsigned_abs() / 1_000)
}

/// Microseconds since 1970. Only for people and for ordering events of several hosts; nothing decides by it.
pub fn unix_micros() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
