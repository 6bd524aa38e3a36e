//! Tests wait for events, never for a time that should be enough.
//!
//! The patience ends a test that hangs, and decides nothing else: no test may pass because it is over.
//! So there is one for all tests, far longer than anything takes on the busiest machine.

use std::fmt::Debug;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a test waits for an event before it fails. Also the limit for calls that take one, such as `recv_timeout`.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Between two looks: short beside anything that is waited for, long enough to leave the processor to others.
const PAUSE: Duration = Duration::from_millis(1);

/// Waits until the condition holds.
///
/// # Panics
///
/// When the [`PATIENCE`] is over; the message says `what` never came.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}

/// Tries until there is something, and returns that.
///
/// # Panics
///
/// When the [`PATIENCE`] is over; the message says `what` never came.
#[track_caller]
pub fn wait_for<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    match wait_within(PATIENCE, || attempt().ok_or(())) {
        Ok(found) => found,
        Err(()) => panic!("never came: {what}"),
    }
}

/// As [`wait_for`]; what was seen instead is in the message.
///
/// # Panics
///
/// When the [`PATIENCE`] is over; the message says `what` never came, and shows the last error.
#[track_caller]
pub fn wait_for_ok<T, E: Debug>(what: &str, attempt: impl FnMut() -> Result<T, E>) -> T {
    match wait_within(PATIENCE, attempt) {
        Ok(found) => found,
        Err(last) => panic!("never came: {what}. Seen last: {last:#?}"),
    }
}

/// Tries at least once.
fn wait_within<T, E>(patience: Duration, mut attempt: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let begun = Instant::now();
    loop {
        let result = attempt();
        if result.is_ok() || begun.elapsed() >= patience {
            return result;
        }
        sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Succeeds at the third attempt, and says before which one it is.
    fn third() -> impl FnMut() -> Result<&'static str, u32> {
        let mut attempts = 0;
        move || {
            attempts += 1;
            if attempts == 3 { Ok("there") } else { Err(attempts) }
        }
    }

    #[test]
    fn waiting_ends_with_the_event() {
        assert_eq!(wait_for_ok("the third", third()), "there");
        let mut attempt = third();
        assert_eq!(wait_for("the third", || attempt().ok()), "there");
        let mut attempt = third();
        wait_until("the third", || attempt().is_ok());
        assert_eq!(attempt(), Err(4), "it was not tried again");
    }

    #[test]
    fn without_patience_the_first_attempt_counts_and_its_error_comes_back() {
        assert_eq!(wait_within(Duration::ZERO, third()), Err(1));
        assert_eq!(wait_within(Duration::ZERO, || Ok::<_, ()>("at once")), Ok("at once"));
    }
}
