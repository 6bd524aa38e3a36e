//! Ctrl-C and its like: noted, so that what was made is removed before the program ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Set by SIGINT, SIGTERM and SIGHUP.
static ENDING: AtomicBool = AtomicBool::new(false);

/// Somebody asked the program to end.
#[derive(Debug, thiserror::Error)]
#[error("ended by a signal before it was done")]
pub struct Ended;

extern "C" fn on_signal(_: i32) {
    ENDING.store(true, Ordering::Relaxed);
}

/// Notes the signals instead of dying of them. A handler, and not a blocked mask, because hosts would inherit the mask.
pub fn note_signals() -> anyhow::Result<()> {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    let action = SigAction::new(SigHandler::Handler(on_signal), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only stores to an atomic, which is allowed in a signal handler.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}

/// Whether one came.
pub fn is_ending() -> bool {
    ENDING.load(Ordering::Relaxed)
}

/// An error if one came.
pub fn check() -> Result<(), Ended> {
    if is_ending() { Err(Ended) } else { Ok(()) }
}

/// Waits that long, unless one comes.
pub fn pause(length: Duration) -> Result<(), Ended> {
    let start = Instant::now();
    loop {
        check()?;
        let left = length.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
}
