//! What a datastore's threads have done so far, for metrics and `mainstay status`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// A snapshot of the counters of one datastore.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Registers that were read since the start.
    pub reads: u64,
    /// Registers that were written since the start.
    pub writes: u64,
    /// Bytes read from register files.
    pub bytes_read: u64,
    /// Bytes written to register files.
    pub bytes_written: u64,
    /// Operations that failed.
    pub errors: u64,
    /// Registers of which neither slot could be read.
    pub unreadable: u64,
    /// Reads that took the older slot because the newer one was damaged, also after a second look.
    pub slot_fallbacks: u64,
    /// Reads that had to look again because a write was under way.
    pub second_looks: u64,
    /// The file system refuses O_DIRECT: reads may come from this host's cache. Not fit for a shared datastore.
    pub without_direct_io: bool,
    /// The last error, in words.
    pub last_error: Option<String>,
}

#[derive(Default)]
pub(crate) struct SharedCounters {
    pub(crate) reads: AtomicU64,
    pub(crate) writes: AtomicU64,
    pub(crate) bytes_read: AtomicU64,
    pub(crate) bytes_written: AtomicU64,
    pub(crate) unreadable: AtomicU64,
    pub(crate) slot_fallbacks: AtomicU64,
    pub(crate) second_looks: AtomicU64,
    pub(crate) without_direct_io: AtomicBool,
    errors: AtomicU64,
    last_error: Mutex<Option<String>>,
}

/// Adds to a counter. Counters are statistics: no ordering with anything else is needed.
pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

impl SharedCounters {
    pub(crate) fn error(&self, text: String) {
        add(&self.errors, 1);
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }

    pub(crate) fn snapshot(&self) -> Counters {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            reads: get(&self.reads),
            writes: get(&self.writes),
            bytes_read: get(&self.bytes_read),
            bytes_written: get(&self.bytes_written),
            errors: get(&self.errors),
            unreadable: get(&self.unreadable),
            slot_fallbacks: get(&self.slot_fallbacks),
            second_looks: get(&self.second_looks),
            without_direct_io: self.without_direct_io.load(Ordering::Relaxed),
            last_error: self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}
