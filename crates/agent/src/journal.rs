//! The events of this host: logged, kept in memory for the API, and appended to `events.jsonl` for later.
//!
//! Invariants: memory is bounded ([`RING_MAX`]), the files are bounded (two of [`FILE_BYTES_MAX`]), and nobody who records an
//! event ever waits for the disk: a thread of its own writes. A full disk costs events in the file, never the agent.
//!
//! What it does not do: decide anything, or promise that an event survives a power failure.

mod file;

use crate::alarms::StandingAlarms;
use crate::clock;
use mainstay_api::EventRecord;
use mainstay_core::ids::{HostId, Incarnation};
use mainstay_core::{Event, Severity, Time, View};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::broadcast;

/// Events kept in memory: at about half a kilobyte each, a megabyte.
pub const RING_MAX: usize = 2_000;

/// When `events.jsonl` has grown to this it becomes `events.1.jsonl`, and the one before that is removed.
pub const FILE_BYTES_MAX: u64 = 4 << 20;

/// Lines that may wait for the disk. More are dropped from the file (not from memory) and counted.
const QUEUE_MAX: usize = 1_024;

/// Events that a slow follower of the API may lag behind before it misses some.
const FOLLOWERS_LAG_MAX: usize = 256;

/// The journal could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The state directory can't be used.
    #[error("the event log {path} can't be opened: {source}; make state_dir a directory that this agent may write to", path = path.display())]
    Open {
        /// The file of the event log.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The thread that writes the event log can't be started.
    #[error("no thread for the event log: {0}; raise the limit of processes of this service")]
    Thread(std::io::Error),
}

/// The events of this host. Clones share it.
#[derive(Clone)]
pub struct Journal {
    inner: Arc<Mutex<Inner>>,
    followers: broadcast::Sender<Arc<EventRecord>>,
}

struct Inner {
    host: HostId,
    incarnation: Incarnation,
    next_sequence: u64,
    ring: VecDeque<Arc<EventRecord>>,
    alarms: StandingAlarms,
    lines: SyncSender<String>,
    lines_dropped: u64,
}

impl Journal {
    /// Opens the journal in that directory, continuing where the former run of the agent stopped.
    pub fn open(state_dir: &Path, host: HostId, incarnation: Incarnation) -> Result<Journal, JournalError> {
        Journal::open_sized(state_dir, host, incarnation, FILE_BYTES_MAX)
    }

    /// [`Journal::open`] with another size at which the file is rotated.
    pub fn open_sized(
        state_dir: &Path,
        host: HostId,
        incarnation: Incarnation,
        file_bytes_max: u64,
    ) -> Result<Journal, JournalError> {
        let (history, file) = file::EventFile::open(state_dir, file_bytes_max)?;
        let (lines, queue) = sync_channel(QUEUE_MAX);
        std::thread::Builder::new()
            .name("events".into())
            .spawn(move || file.write_all(&queue))
            .map_err(JournalError::Thread)?;
        let next_sequence = history.back().map_or(1, |last| last.sequence + 1);
        let ring = history.into_iter().map(Arc::new).collect();
        let alarms = StandingAlarms::default();
        let inner = Inner { host, incarnation, next_sequence, ring, alarms, lines, lines_dropped: 0 };
        let (followers, _) = broadcast::channel(FOLLOWERS_LAG_MAX);
        Ok(Journal { inner: Arc::new(Mutex::new(inner)), followers })
    }

    /// Takes an event of this host's core.
    pub fn record(&self, at: Time, event: Event) {
        let record = self.lock().record(at, event);
        log(&record);
        // Nobody follows: that is the usual case.
        let _ = self.followers.send(record);
    }

    /// Events after that sequence number, at most `limit`: the newest of them, oldest first.
    pub fn after(&self, sequence: u64, limit: usize) -> Vec<Arc<EventRecord>> {
        let inner = self.lock();
        let later = inner.ring.iter().rev().take_while(|record| record.sequence > sequence).take(limit);
        let mut events: Vec<_> = later.cloned().collect();
        events.reverse();
        events
    }

    /// Events after that time of the calendar, at most `limit`: the newest of them, oldest first.
    pub fn since(&self, unix_us: u64, limit: usize) -> Vec<Arc<EventRecord>> {
        let inner = self.lock();
        // Not take_while: a clock that was set back must not hide events.
        let later = inner.ring.iter().rev().filter(|record| record.at_unix_us > unix_us).take(limit);
        let mut events: Vec<_> = later.cloned().collect();
        events.reverse();
        events
    }

    /// The sequence number of the newest event; 0 when there is none.
    pub fn newest(&self) -> u64 {
        self.lock().next_sequence - 1
    }

    /// The alarms that stand, newest last.
    pub fn alarms(&self, view: &View) -> Vec<EventRecord> {
        self.lock().alarms.list(view)
    }

    /// Events from now on.
    pub fn follow(&self) -> broadcast::Receiver<Arc<EventRecord>> {
        self.followers.subscribe()
    }

    /// Events that are missing in the file because the disk was too slow.
    pub fn lines_dropped(&self) -> u64 {
        self.lock().lines_dropped
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // What a panicked holder left is whole at every instant: one record more or less.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn record(&mut self, at: Time, event: Event) -> Arc<EventRecord> {
        let record = EventRecord {
            host: self.host.clone(),
            at_unix_us: clock::unix_micros(),
            at,
            incarnation: self.incarnation,
            sequence: self.next_sequence,
            severity: event.severity(),
            text: event.to_string(),
            event: Some(event),
        };
        self.next_sequence += 1;
        self.alarms.note(&record);
        match serde_json::to_string(&record) {
            Ok(line) => match self.lines.try_send(line) {
                Ok(()) => {}
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.lines_dropped += 1,
            },
            // Our own types always serialize; counted rather than believed.
            Err(_) => self.lines_dropped += 1,
        }
        let record = Arc::new(record);
        if self.ring.len() == RING_MAX {
            self.ring.pop_front();
        }
        self.ring.push_back(Arc::clone(&record));
        record
    }
}

/// One log line per event. ERROR means that a person must act.
fn log(record: &EventRecord) {
    let json = serde_json::to_value(&record.event).unwrap_or_default();
    let kind = json.get("kind").and_then(|kind| kind.as_str()).unwrap_or("unknown");
    let host = json.get("host").and_then(|host| host.as_str());
    let vm = record.event.as_ref().and_then(|event| event.vm()).map(|vm| &*vm.name);
    let (sequence, text) = (record.sequence, &record.text);
    match record.severity {
        Severity::Info => tracing::info!(kind, vm, host, sequence, "{text}"),
        Severity::Warning => tracing::warn!(kind, vm, host, sequence, "{text}"),
        Severity::Alarm => tracing::error!(kind, vm, host, sequence, "{text}"),
    }
}
