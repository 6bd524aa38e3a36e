//! What can go wrong, with the object and what to do.

use std::io;
use std::path::PathBuf;

/// The recorder can't be started.
#[derive(Debug, thiserror::Error)]
pub enum RecorderError {
    /// The thread that writes the recording can't be started.
    #[error(
        "no thread for the flight recorder: {0}; raise the limit of processes of this service, or set enabled = false in [recorder]"
    )]
    Thread(io::Error),
}

/// A segment can't be read at all. (Damage behind its checkpoint is no error but [`crate::End`].)
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file or folder can't be read.
    #[error("{path} can't be read: {source}", path = path.display())]
    Io {
        /// The file or folder that can't be read.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is something else.
    #[error("{path} is no recording of Mainstay: name a flight-*.rec file, or a folder that holds some", path = path.display())]
    NotARecording {
        /// The file or folder that was named.
        path: PathBuf,
    },
    /// The file has another format.
    #[error(
        "{path} was recorded by mainstay {software} in format {format}, which this version does not know (it knows {known}): \
         replay it with that version",
        path = path.display(),
        known = crate::FORMAT_VERSION
    )]
    ForeignFormat {
        /// The segment that another release has written.
        path: PathBuf,
        /// The format that the segment says it has.
        format: String,
        /// The software that wrote it.
        software: String,
    },
    /// The frame is whole, but this version can't make sense of it.
    #[error(
        "{path}: the {what} at byte {offset} does not fit this version's core ({reason}); it was recorded by mainstay \
         {software}: replay it with that version",
        path = path.display()
    )]
    ForeignCore {
        /// The segment whose core this build can't read.
        path: PathBuf,
        /// Header or checkpoint.
        what: &'static str,
        /// Where its frame begins.
        offset: u64,
        /// What does not fit.
        reason: String,
        /// The software that wrote it.
        software: String,
    },
    /// Header or checkpoint are damaged or cut off, so nothing can be replayed from this segment.
    #[error("{path}: the {what} at byte {offset} is {reason}: nothing of this segment can be replayed", path = path.display())]
    Unusable {
        /// The segment that can't be used.
        path: PathBuf,
        /// Header or checkpoint.
        what: &'static str,
        /// Where its frame begins, or should.
        offset: u64,
        /// What is wrong with it.
        reason: String,
    },
}
