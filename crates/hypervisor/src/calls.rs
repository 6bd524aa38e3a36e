//! Threads for calls that may never return.
//!
//! A thread that hangs in libvirt can't be ended, only abandoned. Their number is bounded: beyond [`HUNG_CALLS_MAX`] no
//! call is made until one returns. They do return, at the latest when libvirtd is killed or thawed, or when the QEMU that
//! one waits for gets its disk back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// At most so many calls may be under way or hang, per [`crate::Hypervisor`]. At most 18 are in flight in normal operation;
/// the rest is for VMs whose QEMU hangs, each of which can hold one reading and one operation.
pub const HUNG_CALLS_MAX: usize = 64;

/// Why a call was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoThread {
    TooManyHang,
    SpawnFailed,
}

impl NoThread {
    pub(crate) fn text(self) -> String {
        match self {
            NoThread::TooManyHang => format!(
                "{HUNG_CALLS_MAX} earlier calls to libvirt hang; restart libvirtd, or repair the storage that they wait for"
            ),
            NoThread::SpawnFailed => "no thread could be started; check the limits on threads".into(),
        }
    }
}

#[derive(Clone)]
pub(crate) struct CallPool {
    running: Arc<AtomicUsize>,
    max: usize,
}

/// Counts a call out, also when it panics.
struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl CallPool {
    pub(crate) fn new(max: usize) -> CallPool {
        CallPool { running: Arc::new(AtomicUsize::new(0)), max }
    }

    /// Runs `call` on a thread of its own. When it is refused, `call` is dropped, here.
    pub(crate) fn spawn(&self, call: impl FnOnce() + Send + 'static) -> Result<(), NoThread> {
        let before = self.running.fetch_add(1, Ordering::AcqRel);
        let slot = Slot(Arc::clone(&self.running));
        if before >= self.max {
            return Err(NoThread::TooManyHang);
        }
        let body = move || {
            let _slot = slot;
            call();
        };
        thread::Builder::new().name("hv-call".into()).spawn(body).map(drop).map_err(|_| NoThread::SpawnFailed)
    }

    #[cfg(test)]
    fn running(&self) -> usize {
        self.running.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_testkit::wait_until;
    use std::sync::mpsc;

    #[test]
    fn hung_calls_are_capped_and_freed_when_they_return() {
        let pool = CallPool::new(2);
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(std::sync::Mutex::new(held));
        let (ended, ends) = mpsc::channel();
        for _ in 0..2 {
            let (held, ended) = (Arc::clone(&held), ended.clone());
            let call = move || {
                let _ = held.lock().expect("no panic while locked").recv();
                ended.send(()).expect("the test waits");
            };
            pool.spawn(call).expect("below the cap");
        }
        assert_eq!(pool.spawn(|| ()), Err(NoThread::TooManyHang));
        drop(release);
        ends.recv().expect("first call ends");
        ends.recv().expect("second call ends");
        wait_until("the end of both threads", || pool.running() == 0);
        let (ran, runs) = mpsc::channel();
        pool.spawn(move || ran.send(()).expect("the test waits")).expect("room again");
        runs.recv().expect("it runs");
    }
}
