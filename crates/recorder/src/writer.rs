//! The thread that writes. It asks for a checkpoint whenever it wants to begin a segment: at first, when a segment has grown
//! to its size, and after anything was lost. The driver's side answers with one, in the order of the steps.

use crate::format::{self, CheckpointRef, Header, Kind, StepRef};
use crate::recorder::{Identity, Options};
use crate::ring::Ring;
use mainstay_core::{Core, Input, Time};
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// What was recorded is in the file after this: what a crash of the agent can take.
const FLUSH_AFTER: Duration = Duration::from_millis(500);

/// And on the disk after this: what a power failure can take.
const SYNC_AFTER: Duration = Duration::from_secs(1);

/// So much is not kept back.
const BUFFER_MAX: usize = 64 << 10;

/// The longest time between two attempts to write again.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// What the two sides tell each other beside the queue.
pub(crate) struct Shared {
    /// The writer wants a checkpoint.
    pub(crate) wanted: AtomicBool,
    /// The queue was full: no step comes any more until a checkpoint was wanted and given.
    pub(crate) gap: AtomicBool,
    /// Steps that were in the queue and could not be written.
    pub(crate) unwritten: AtomicU64,
    /// Bytes that were written to disk since the recorder began.
    pub(crate) bytes: AtomicU64,
    /// Segments that were begun: one file each.
    pub(crate) segments: AtomicU64,
}

impl Default for Shared {
    fn default() -> Shared {
        Shared {
            wanted: AtomicBool::new(true),
            gap: AtomicBool::new(false),
            unwritten: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            segments: AtomicU64::new(0),
        }
    }
}

/// What goes through the queue.
pub(crate) enum Job {
    /// The core before the step that comes next.
    Checkpoint {
        /// When the core was copied, on the core's clock.
        at: Time,
        /// The same for people.
        at_unix_us: u64,
        /// A copy of the core, to be written as it was then.
        core: Box<Core>,
        /// Steps that never came into the queue, all in all.
        lost: u64,
    },
    /// One step of the core, to be written behind the one before.
    Step {
        /// The time of the step, on the core's clock.
        at: Time,
        /// What the core was given in this step.
        input: Input,
    },
}

/// The segment that is being written.
struct Open {
    number: u64,
    file: File,
    /// In the file. What is behind, if anything, is the rest of a failed write.
    written: u64,
    /// Size of all that precedes the steps.
    begin: u64,
    buffer: Vec<u8>,
    /// Steps in the buffer.
    buffered: u64,
    /// When the buffer was empty last.
    flushed: Instant,
    synced: Instant,
    dirty: bool,
    begun: Instant,
    /// A successor has been asked for.
    full: bool,
}

/// The thread's state.
pub(crate) struct Writer {
    options: Options,
    identity: Identity,
    shared: Arc<Shared>,
    ring: Option<Ring>,
    open: Option<Open>,
    /// Steps that came and could not be written, since the last segment was begun.
    unwritten: u64,
    /// What [`Job::Checkpoint`] said was lost, at the beginning of the last segment.
    lost_told: u64,
    /// A warning has been given, and all is not well for long enough since.
    failing: bool,
    retry_after: Duration,
    retry_at: Option<Instant>,
}

impl Writer {
    pub(crate) fn new(options: Options, identity: Identity, shared: Arc<Shared>) -> Writer {
        let retry_after = options.retry_after;
        Writer {
            options,
            identity,
            shared,
            ring: None,
            open: None,
            unwritten: 0,
            lost_told: 0,
            failing: false,
            retry_after,
            retry_at: None,
        }
    }

    /// Writes what comes, until the other side is gone.
    pub(crate) fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            // Looked at before the queue: whatever was sent before the gap is in the queue by now.
            let gap = self.shared.gap.load(Ordering::Acquire);
            let wait = if gap { Duration::ZERO } else { FLUSH_AFTER.min(self.options.retry_after) };
            match jobs.recv_timeout(wait) {
                Ok(job) => self.take(job),
                Err(RecvTimeoutError::Timeout) if gap => self.on_gap(),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.tend(Instant::now());
        }
        if self.shared.gap.load(Ordering::Acquire) {
            self.on_gap();
        }
        self.attempt(Writer::close);
    }

    fn take(&mut self, job: Job) {
        match job {
            Job::Step { at, input } => {
                if self.open.is_none() {
                    self.unwritten += 1;
                    self.shared.unwritten.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                self.attempt(|writer| writer.step(at, &input));
            }
            Job::Checkpoint { at, at_unix_us, core, lost } => {
                self.attempt(|writer| writer.begin(at, at_unix_us, &core, lost));
            }
        }
    }

    /// The queue was full, and has been worked off.
    fn on_gap(&mut self) {
        self.attempt(|writer| {
            if let Some(open) = &mut writer.open {
                open.append(Kind::Broken, &"the disk was too slow for the agent's steps")?;
            }
            writer.close()
        });
        self.shared.wanted.store(self.retry_at.is_none(), Ordering::Release);
        // Last: it lets the other side see the wish.
        self.shared.gap.store(false, Ordering::Release);
    }

    /// What is due by time.
    fn tend(&mut self, now: Instant) {
        self.attempt(|writer| writer.flush_when_due(now));
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.shared.wanted.store(true, Ordering::Release);
        }
        let well_for = self.open.as_ref().map(|open| now.duration_since(open.begun));
        if self.failing && well_for.is_some_and(|time| time >= self.retry_after) {
            self.failing = false;
            self.retry_after = self.options.retry_after;
            tracing::info!(dir = %self.options.dir.display(), "the flight recorder records again");
        }
    }

    /// Does something; when it fails, the segment ends there and the next one is begun later.
    fn attempt(&mut self, act: impl FnOnce(&mut Writer) -> io::Result<()>) {
        let Err(error) = act(self) else { return };
        if let Some(open) = self.open.take() {
            self.unwritten += open.buffered;
            self.shared.unwritten.fetch_add(open.buffered, Ordering::Relaxed);
            let (number, bytes) = open.give_up(&error);
            if let Some(ring) = &mut self.ring {
                ring.close(number, bytes);
            }
        }
        if !self.failing {
            let dir = self.options.dir.display();
            tracing::warn!(%dir, %error, "the flight recorder can't write; the agent goes on without it and tries again; make room there");
        }
        self.failing = true;
        self.retry_at = Some(Instant::now() + self.retry_after);
        self.retry_after = (self.retry_after * 2).min(RETRY_AFTER_MAX);
    }

    fn step(&mut self, at: Time, input: &Input) -> io::Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        open.append(Kind::Step, &StepRef { at, input })?;
        open.buffered += 1;
        let steps = open.written + open.buffer.len() as u64 - open.begin;
        // Not more checkpoints than steps, however large the core is.
        if !open.full && steps >= self.options.segment_bytes_max.max(open.begin) {
            open.full = true;
            self.shared.wanted.store(true, Ordering::Release);
        }
        if open.buffer.len() >= BUFFER_MAX { self.flush() } else { Ok(()) }
    }

    fn flush_when_due(&mut self, now: Instant) -> io::Result<()> {
        let Some(open) = &self.open else { return Ok(()) };
        if !open.buffer.is_empty() && now.duration_since(open.flushed) >= FLUSH_AFTER {
            self.flush()?;
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        if open.dirty && now.duration_since(open.synced) >= SYNC_AFTER {
            open.sync()?;
        }
        // An idle recorder must not find itself overdue at its next step.
        if open.buffer.is_empty() {
            open.flushed = now;
        }
        if !open.dirty {
            open.synced = now;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let (Some(open), Some(ring)) = (&mut self.open, &mut self.ring) else { return Ok(()) };
        ring.make_room(open.written + open.buffer.len() as u64)?;
        self.shared.bytes.fetch_add(open.flush()?, Ordering::Relaxed);
        Ok(())
    }

    /// Ends the present segment in good order.
    fn close(&mut self) -> io::Result<()> {
        self.flush()?;
        if let Some(open) = &mut self.open {
            open.sync()?;
        }
        if let (Some(open), Some(ring)) = (self.open.take(), &mut self.ring) {
            ring.close(open.number, open.written);
        }
        Ok(())
    }

    fn begin(&mut self, at: Time, at_unix_us: u64, core: &Core, lost: u64) -> io::Result<()> {
        let complete = lost == self.lost_told && self.unwritten == 0;
        let continues = self.open.as_ref().filter(|_| complete).map(|open| open.number);
        self.close()?;
        let ring = match &mut self.ring {
            Some(ring) => ring,
            None => self.ring.insert(Ring::open(&self.options.dir, self.options.bytes_max)?),
        };
        let (number, file) = ring.create()?;
        let header = Header {
            segment: number,
            continues,
            lost_before: lost.saturating_sub(self.lost_told) + self.unwritten,
            cluster: self.identity.cluster.clone(),
            software: self.identity.software.clone(),
            at,
            at_unix_us,
            config: self.identity.config.clone(),
        };
        let begun = Open::begin(number, file, &header, core).and_then(|mut open| {
            ring.make_room(open.buffer.len() as u64)?;
            open.flush()?;
            Ok(open)
        });
        match begun {
            Ok(mut open) => {
                open.begin = open.written;
                self.shared.bytes.fetch_add(open.written, Ordering::Relaxed);
                self.shared.segments.fetch_add(1, Ordering::Relaxed);
                self.open = Some(open);
                self.unwritten = 0;
                self.lost_told = lost;
                Ok(())
            }
            Err(error) => {
                ring.discard(number);
                Err(error)
            }
        }
    }
}

impl Open {
    fn begin(number: u64, file: File, header: &Header, core: &Core) -> io::Result<Open> {
        let now = Instant::now();
        let mut open = Open {
            number,
            file,
            written: 0,
            begin: 0,
            buffer: format::first_line(&header.software).into_bytes(),
            buffered: 0,
            flushed: now,
            synced: now,
            dirty: false,
            begun: now,
            full: false,
        };
        open.append(Kind::Header, header)?;
        open.append(Kind::Checkpoint, &CheckpointRef { at: header.at, core })?;
        Ok(open)
    }

    fn append<T: serde::Serialize>(&mut self, kind: Kind, payload: &T) -> io::Result<()> {
        format::append(&mut self.buffer, kind, payload).map_err(io::Error::other)
    }

    /// Writes the buffer, and tells how much that was.
    fn flush(&mut self) -> io::Result<u64> {
        self.file.write_all(&self.buffer)?;
        let bytes = self.buffer.len() as u64;
        self.written += bytes;
        self.dirty |= bytes > 0;
        self.buffer.clear();
        self.buffered = 0;
        self.flushed = Instant::now();
        Ok(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        rustix::fs::fdatasync(&self.file)?;
        self.dirty = false;
        self.synced = Instant::now();
        Ok(())
    }

    /// Takes back what was half written, and marks the end as broken if that much fits. Tells number and size.
    fn give_up(mut self, error: &io::Error) -> (u64, u64) {
        self.buffer.clear();
        let marked = self
            .file
            .set_len(self.written)
            .and_then(|()| self.file.seek(SeekFrom::Start(self.written)))
            .and_then(|_| self.append(Kind::Broken, &format!("the agent could not write on: {error}")))
            .and_then(|()| self.flush());
        if marked.is_err() {
            // The next segment tells what is missing; without this the file would end in a torn frame.
            let _ = self.file.set_len(self.written);
        }
        (self.number, self.written)
    }
}
