//! Does the disk under the lab itself stall? A heartbeat write that takes seconds because something else keeps this
//! machine's disk busy is no fault that a test made; an agent that says so is right.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_millis(500);

/// From here on it is a stall: a third of the standard lease, while a write usually takes a millisecond.
const STALL: Duration = Duration::from_secs(1);

/// Writes to the disk again and again, as a datastore's server does, until dropped.
pub struct DiskWatch {
    stalls: Arc<Mutex<Vec<(Instant, Duration)>>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl DiskWatch {
    pub fn start(folder: &Path) -> DiskWatch {
        let file = File::create(folder.join("disk-watch")).expect("a file beside the datastores");
        let (stalls, ended) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (told, stop) = (Arc::clone(&stalls), Arc::clone(&ended));
        let watch = move || {
            while !stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                // New space each time: what waits for the file system's journal, not only for the disk.
                let written = file
                    .set_len(0)
                    .and_then(|()| file.write_all_at(&[0x5a; 512], 0))
                    .and_then(|()| file.sync_all());
                if begun.elapsed() > STALL || written.is_err() {
                    told.lock().expect("the list of stalls").push((begun, begun.elapsed()));
                }
                std::thread::sleep(INTERVAL);
            }
        };
        DiskWatch { stalls, ended, thread: Some(std::thread::spawn(watch)) }
    }

    /// The longest stall that lasted into the time since then.
    pub fn stalled_since(&self, since: Instant) -> Option<Duration> {
        let stalls = self.stalls.lock().expect("the list of stalls");
        stalls.iter().filter(|(begun, took)| *begun + *took >= since).map(|(_, took)| *took).max()
    }
}

impl Drop for DiskWatch {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It panics only when its list is poisoned, which has been told then.
            drop(thread.join());
        }
    }
}
