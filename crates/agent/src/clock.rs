//! The two clocks: CLOCK_BOOTTIME for the protocol (it goes on in suspend, and nobody sets it), the calendar for people.

/// The protocol's time: agent and guard must mean the same by it, since leases go from one to the other.
pub use mainstay_guard::clock::now;

/// Microseconds since 1970. Only for people and for ordering events of several hosts; nothing decides by it.
pub fn unix_micros() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
