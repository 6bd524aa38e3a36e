//! `events.jsonl`: one event a line. Reading it back tolerates torn lines and lines of newer versions.

use super::{JournalError, RING_MAX};
use mainstay_api::EventRecord;
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;

/// The file that is being appended to. Lives on the thread that writes.
pub(super) struct EventFile {
    path: PathBuf,
    former: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
    /// The file may end in the middle of a line (a crash, a full disk): the next line begins with a line break.
    torn: bool,
    /// A failure has been reported, and nothing could be written since.
    failing: bool,
}

impl EventFile {
    /// Opens the file, and reads the newest events of it and of the one before.
    pub(super) fn open(
        state_dir: &Path,
        bytes_max: u64,
    ) -> Result<(VecDeque<EventRecord>, EventFile), JournalError> {
        let path = state_dir.join("events.jsonl");
        let former = state_dir.join("events.1.jsonl");
        let failed = |source| JournalError::Open { path: path.clone(), source };
        let file = OpenOptions::new().append(true).create(true).open(&path).map_err(failed)?;
        let mut history = VecDeque::new();
        read_events(&former, &mut history);
        let torn = read_events(&path, &mut history);
        let bytes = file.metadata().map_err(failed)?.len();
        Ok((history, EventFile { path, former, file, bytes, bytes_max, torn, failing: false }))
    }

    /// Writes each line that comes, until the journal is dropped.
    pub(super) fn write_all(mut self, lines: &Receiver<String>) {
        for line in lines {
            match self.write(&line) {
                Ok(()) if self.failing => {
                    self.failing = false;
                    tracing::info!(path = %self.path.display(), "events are written to the file again");
                }
                Ok(()) => {}
                Err(_) if self.failing => {}
                Err(error) => {
                    self.failing = true;
                    tracing::warn!(path = %self.path.display(), %error, "events can't be written to the file, only to this log; make room there");
                }
            }
        }
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        if self.bytes + line.len() as u64 > self.bytes_max {
            self.rotate()?;
        }
        let begin = if self.torn { "\n" } else { "" };
        // Until all of it is there.
        self.torn = true;
        let text = format!("{begin}{line}\n");
        self.file.write_all(text.as_bytes())?;
        self.torn = false;
        self.bytes += text.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        std::fs::rename(&self.path, &self.former)?;
        self.file = OpenOptions::new().append(true).create(true).open(&self.path)?;
        self.bytes = 0;
        self.torn = false;
        Ok(())
    }
}

/// Appends the file's events to `history`, which keeps the newest. Tells whether the file's last line is torn. A file
/// that can't be read has no events: the journal is no reason not to start.
fn read_events(path: &Path, history: &mut VecDeque<EventRecord>) -> bool {
    let Ok(bytes) = std::fs::read(path) else { return false };
    for line in bytes.split(|byte| *byte == b'\n') {
        let Ok(record) = serde_json::from_slice(line) else { continue };
        if history.len() == RING_MAX {
            history.pop_front();
        }
        history.push_back(record);
    }
    !bytes.is_empty() && !bytes.ends_with(b"\n")
}
