//! Log lines to stderr, without ever waiting for whoever reads it: a full pipe or a hung disk must not stop the guard.

use crate::settings::LogSettings;
use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait for the reader; later ones are lost.
const LINES_WAITING_MAX: usize = 1024;

/// How long [`flush`] waits for whoever reads.
const FLUSH_MAX: Duration = Duration::from_millis(500);

/// Lines that are not written yet.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// Hands lines to the thread that writes them.
#[derive(Clone)]
struct Lines(SyncSender<Vec<u8>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        WAITING.fetch_add(1, Ordering::Relaxed);
        match self.0.try_send(bytes.to_vec()) {
            Ok(()) => {}
            // A lost line is better than a late freeze.
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                WAITING.fetch_sub(1, Ordering::Relaxed);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Lines;

    fn make_writer(&'a self) -> Lines {
        self.clone()
    }
}

/// Starts it, for the whole process.
pub fn start(settings: &LogSettings) -> io::Result<()> {
    let (lines, receiver) = sync_channel(LINES_WAITING_MAX);
    std::thread::Builder::new()
        .name("log".into())
        .stack_size(crate::service::STACK)
        .spawn(move || write_lines(&receiver))?;
    let level = settings.level.parse().unwrap_or(LevelFilter::INFO);
    let builder = tracing_subscriber::fmt().with_max_level(level).with_writer(Lines(lines));
    // Fails only where a program that embeds the guard has a log already: that one is used.
    let _ = if settings.json { builder.json().try_init() } else { builder.with_ansi(false).try_init() };
    Ok(())
}

fn write_lines(lines: &Receiver<Vec<u8>>) {
    while let Ok(line) = lines.recv() {
        // Nobody is left to be told when stderr is closed.
        let _ = io::stderr().write_all(&line);
        WAITING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Gives the last lines a moment to be written, before the process ends.
pub fn flush() {
    let give_up = Instant::now() + FLUSH_MAX;
    while WAITING.load(Ordering::Relaxed) > 0 && Instant::now() < give_up {
        std::thread::sleep(Duration::from_millis(1));
    }
}
