//! Reads segments, whole or damaged: everything before the first damage is good, and what comes behind it is not guessed.

use crate::error::ReadError;
use crate::format::{self, Checkpoint, FIRST_LINE_MAX, FORMAT_VERSION, Found, Header, Kind, MAGIC, Step};
use crate::ring;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// One file of a recording, read as far as it is whole: where it begins, its steps, and how it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// What it says about itself.
    pub header: Header,
    /// The core at its beginning.
    pub checkpoint: Checkpoint,
    /// The steps from there.
    pub steps: Vec<Step>,
    /// How it ends.
    pub end: End,
}

/// How a segment ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With a whole step.
    Whole,
    /// The recorder says that steps are missing from here on.
    Broken {
        /// Why steps are missing, in the recorder's words.
        reason: String,
    },
    /// In the middle of a frame: the agent or the host died while it was written.
    Torn {
        /// Where the frame begins.
        offset: u64,
    },
    /// With something that was not written like that.
    Damaged {
        /// Where the frame begins.
        offset: u64,
        /// What is wrong with it.
        reason: String,
    },
}

/// The segments that a path names: itself when it is a file, otherwise those in the folder or in its `flight` (so that an
/// agent's state directory can be named too), oldest first.
pub fn segments_of(path: &Path) -> Result<Vec<PathBuf>, ReadError> {
    let failed = |source| ReadError::Io { path: path.to_path_buf(), source };
    if !std::fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut dir = path.to_path_buf();
    let mut numbers = ring::numbers_in(&dir).map_err(failed)?;
    if numbers.is_empty() && path.join("flight").is_dir() {
        dir = path.join("flight");
        numbers = ring::numbers_in(&dir).map_err(failed)?;
    }
    if numbers.is_empty() {
        return Err(ReadError::NotARecording { path: path.to_path_buf() });
    }
    Ok(numbers.into_iter().map(|number| ring::path_of(&dir, number)).collect())
}

/// Reads what a segment says about itself.
pub fn read_header(path: &Path) -> Result<Header, ReadError> {
    // A header holds names and times: far below this.
    let bytes = read(path, 1 << 20)?;
    let mut place = Place::open(path, &bytes)?;
    place.first("header", Kind::Header)
}

/// Reads a segment. Fails when nothing can be replayed from it; damage behind its checkpoint is told in [`Segment::end`].
pub fn read_segment(path: &Path) -> Result<Segment, ReadError> {
    let bytes = read(path, u64::MAX)?;
    let mut place = Place::open(path, &bytes)?;
    let header = place.first("header", Kind::Header)?;
    let checkpoint = place.first("checkpoint", Kind::Checkpoint)?;
    let mut steps = Vec::new();
    let end = loop {
        let damaged = |reason: String| End::Damaged { offset: place.offset as u64, reason };
        match format::frame(&bytes[place.offset..]) {
            Found::Nothing => break End::Whole,
            Found::Torn => break End::Torn { offset: place.offset as u64 },
            Found::Damaged(reason) => break damaged(reason.to_owned()),
            Found::Frame(Kind::Step, payload, taken) => match format::decode(payload) {
                Ok(step) => {
                    steps.push(step);
                    place.offset += taken;
                }
                Err(reason) => {
                    break damaged(format!("this version can't make sense of it: {reason}"));
                }
            },
            Found::Frame(Kind::Broken, payload, _) => {
                let reason = format::decode(payload).unwrap_or_else(|_| "no reason is given".to_owned());
                break End::Broken { reason };
            }
            Found::Frame(Kind::Header | Kind::Checkpoint, ..) => {
                break damaged("it is a header in the middle of a segment".to_owned());
            }
        }
    };
    Ok(Segment { header, checkpoint, steps, end })
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, ReadError> {
    let failed = |source| ReadError::Io { path: path.to_path_buf(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Where the reader is in a file.
struct Place<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    offset: usize,
    software: String,
}

impl<'a> Place<'a> {
    /// Reads the first line.
    fn open(path: &'a Path, bytes: &'a [u8]) -> Result<Place<'a>, ReadError> {
        let path_buf = || path.to_path_buf();
        let head = &bytes[..bytes.len().min(FIRST_LINE_MAX)];
        if MAGIC.as_bytes().starts_with(head) {
            let reason = "missing: the file ends before it".to_owned();
            return Err(ReadError::Unusable { path: path_buf(), what: "header", offset: 0, reason });
        }
        let line = head.split(|byte| *byte == b'\n').next().and_then(|line| std::str::from_utf8(line).ok());
        let Some(rest) = line.and_then(|line| line.strip_prefix(MAGIC)) else {
            return Err(ReadError::NotARecording { path: path_buf() });
        };
        let (version, software) = rest.split_once(' ').unwrap_or((rest, "of an unknown version"));
        if version != FORMAT_VERSION.to_string() {
            let (format, software) = (version.to_owned(), software.to_owned());
            return Err(ReadError::ForeignFormat { path: path_buf(), format, software });
        }
        let offset = (MAGIC.len() + rest.len() + 1).min(bytes.len());
        Ok(Place { path, bytes, offset, software: software.to_owned() })
    }

    /// Reads a frame that must be there.
    fn first<T: for<'de> serde::Deserialize<'de>>(
        &mut self,
        what: &'static str,
        kind: Kind,
    ) -> Result<T, ReadError> {
        let (path, offset) = (self.path.to_path_buf(), self.offset as u64);
        let reason = match format::frame(&self.bytes[self.offset..]) {
            Found::Frame(found, payload, taken) if found == kind => {
                self.offset += taken;
                let software = self.software.clone();
                return format::decode(payload).map_err(|reason| ReadError::ForeignCore {
                    path,
                    what,
                    offset,
                    reason,
                    software,
                });
            }
            Found::Frame(..) => "missing: something else is in its place".to_owned(),
            Found::Nothing => "missing: the file ends before it".to_owned(),
            Found::Torn => "cut off".to_owned(),
            Found::Damaged(reason) => format!("damaged ({reason})"),
        };
        Err(ReadError::Unusable { path, what, offset, reason })
    }
}
