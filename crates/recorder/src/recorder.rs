//! The side of whoever drives the core: hands over inputs, and never waits.

use crate::RecorderError;
use crate::writer::{Job, Shared, Writer};
use mainstay_core::{Config, Core, Input, Time};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Inputs that may wait for the disk. At some hundred bytes each this is below a megabyte, and seconds of a busy primary.
const QUEUE_MAX: usize = 2_048;

/// A segment that has grown to this is followed by another: small enough to be sent to somebody.
const SEGMENT_BYTES_MAX: u64 = 4 << 20;

/// How long after a failure to write the next attempt comes; doubled each time.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// How long the end of a recorder waits for what is still to be written: longer than a slow local disk takes, short enough
/// not to hold up a stop.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// Where and how much is recorded.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder of the ring.
    pub dir: PathBuf,
    /// All segments together are never larger. (One segment is always kept, even if a core should be larger than this.)
    pub bytes_max: u64,
    /// A segment is followed by another when its steps have grown to this.
    pub segment_bytes_max: u64,
    /// Inputs that may wait for the disk.
    pub queue_max: usize,
    /// How long after a failure to write the next attempt comes, at first.
    pub retry_after: Duration,
}

impl Options {
    /// What an agent uses.
    pub fn new(dir: PathBuf, bytes_max: u64) -> Options {
        Options {
            dir,
            bytes_max,
            segment_bytes_max: SEGMENT_BYTES_MAX.min(bytes_max / 4),
            queue_max: QUEUE_MAX,
            retry_after: RETRY_AFTER,
        }
    }
}

/// What each segment says about its recorder.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The cluster's id.
    pub cluster: String,
    /// The version of the software.
    pub software: String,
    /// The configuration of the core.
    pub config: Config,
}

/// What was recorded since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Steps that were handed to the thread that writes.
    pub recorded: u64,
    /// Steps that are not in the recording.
    pub lost: u64,
    /// Bytes that were written to disk since the recorder began.
    pub bytes: u64,
    /// Segments that were begun: one file each.
    pub segments: u64,
}

/// Records the steps of one core. Dropping it waits a moment for what is still to be written, also when the driver panics:
/// the input that a core could not bear is the last one in the recording.
pub struct Recorder {
    jobs: Option<SyncSender<Job>>,
    shared: Arc<Shared>,
    /// Told when all has been written.
    done: Receiver<()>,
    recording: bool,
    recorded: u64,
    lost: u64,
}

impl Recorder {
    /// Starts the thread that writes. That a folder can't be used is no failure: it is warned of and tried again.
    pub fn start(options: Options, identity: Identity) -> Result<Recorder, RecorderError> {
        let (jobs, queue) = sync_channel(options.queue_max);
        let shared = Arc::new(Shared::default());
        let (tell_done, done) = sync_channel(1);
        let writer = Writer::new(options, identity, Arc::clone(&shared));
        std::thread::Builder::new()
            .name("recorder".into())
            .spawn(move || {
                writer.run(&queue);
                // Nobody waits any more: that is for them to decide.
                let _ = tell_done.send(());
            })
            .map_err(RecorderError::Thread)?;
        Ok(Recorder { jobs: Some(jobs), shared, done, recording: false, recorded: 0, lost: 0 })
    }

    /// Takes the input of the step that `core` is about to take. Never waits.
    pub fn record(&mut self, now: Time, input: &Input, core: &Core) {
        // The plain look first: it costs nothing, and a wish is rare.
        // A wish from before a gap waits until the gap has been dealt with: its checkpoint would seem to continue the steps.
        if self.shared.wanted.load(Ordering::Relaxed)
            && !self.shared.gap.load(Ordering::Acquire)
            && self.shared.wanted.swap(false, Ordering::AcqRel)
        {
            let at_unix_us = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
            let at_unix_us = u64::try_from(at_unix_us).unwrap_or(u64::MAX);
            let job = Job::Checkpoint { at: now, at_unix_us, core: Box::new(core.clone()), lost: self.lost };
            self.recording = true;
            self.hand_over(job);
        }
        if self.recording {
            self.hand_over(Job::Step { at: now, input: input.clone() });
        }
        if self.recording {
            self.recorded += 1;
        } else {
            self.lost += 1;
        }
    }

    /// The queue is full, or the thread is gone: from here on steps are lost, until the thread has caught up and wants a
    /// checkpoint.
    fn hand_over(&mut self, job: Job) {
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.try_send(job).is_ok());
        if !sent {
            self.recording = false;
            self.shared.gap.store(true, Ordering::Release);
        }
    }

    /// What was recorded since the start.
    pub fn counts(&self) -> Counts {
        // What the thread could not write had been handed to it.
        let unwritten = self.shared.unwritten.load(Ordering::Relaxed);
        Counts {
            recorded: self.recorded.saturating_sub(unwritten),
            lost: self.lost + unwritten,
            bytes: self.shared.bytes.load(Ordering::Relaxed),
            segments: self.shared.segments.load(Ordering::Relaxed),
        }
    }

    /// Ends the recording; tells whether all that was handed over has been dealt with in that time.
    pub fn close(mut self, patience: Duration) -> bool {
        self.finish(patience)
    }

    fn finish(&mut self, patience: Duration) -> bool {
        self.jobs.take().is_some() && self.done.recv_timeout(patience).is_ok()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.finish(CLOSE_PATIENCE);
    }
}
