//! Does the disk under the lab itself stall? A heartbeat write that takes seconds because something else keeps this
//! machine's disk busy is no fault that a test made; an agent that says so is right.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What was seen of the disk.
#[derive(Default)]
struct Seen {
    stalls: Vec<(Instant, Duration)>,
    /// The write that has not come back yet: others may, which were begun with it.
    under_way: Option<Instant>,
}

/// Writes to the disk again and again, as a datastore's server does, until dropped.
pub struct DiskWatch {
    seen: Arc<Mutex<Seen>>,
    /// From here on it is a stall: a third of a lease, while a write usually takes a millisecond.
    stall: Duration,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl DiskWatch {
    /// In a cluster with such leases: a datastore is lost when no heartbeat has arrived for one.
    pub fn start(folder: &Path, lease: Duration) -> DiskWatch {
        let (stall, interval) = (lease / 3, lease / 6);
        let file = File::create(folder.join("disk-watch")).expect("a file beside the datastores");
        let (seen, ended) = (Arc::new(Mutex::new(Seen::default())), Arc::new(AtomicBool::new(false)));
        let (told, stop) = (Arc::clone(&seen), Arc::clone(&ended));
        let watch = move || {
            while !stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                told.lock().expect("what was seen").under_way = Some(begun);
                // New space each time: what waits for the file system's journal, not only for the disk.
                let written = file
                    .set_len(0)
                    .and_then(|()| file.write_all_at(&[0x5a; 512], 0))
                    .and_then(|()| file.sync_all());
                let took = begun.elapsed();
                let mut seen = told.lock().expect("what was seen");
                seen.under_way = None;
                if took > stall || written.is_err() {
                    seen.stalls.push((begun, took));
                }
                drop(seen);
                std::thread::sleep(interval);
            }
        };
        DiskWatch { seen, stall, ended, thread: Some(std::thread::spawn(watch)) }
    }

    /// The longest stall that lasted into the time since then.
    pub fn stalled_since(&self, since: Instant) -> Option<Duration> {
        let seen = self.seen.lock().expect("what was seen");
        let lasts = seen.under_way.map(|begun| begun.elapsed()).filter(|took| *took > self.stall);
        let ended = seen.stalls.iter().filter(|(begun, took)| *begun + *took >= since);
        ended.map(|(_, took)| *took).chain(lasts).max()
    }
}

impl Drop for DiskWatch {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It panics only when what it has seen is poisoned, which has been told then.
            drop(thread.join());
        }
    }
}
