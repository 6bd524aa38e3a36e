//! Why a guard can't start. What fails later is logged and tried again: a guard never gives up by itself.

use mainstay_storage::StorageError;
use std::io;
use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The file with the settings can't be used.
    #[error("{} can't be read as the guard's settings: {reason}; the agent writes this file: start the agent", file.display())]
    Settings {
        /// The path of the file.
        file: PathBuf,
        /// What is wrong with it, in words.
        reason: String,
    },
    /// Another guard runs.
    #[error("another guard (process {pid}) already guards this host, with the directory {}: stop it first", runtime_dir.display())]
    AlreadyRuns {
        /// The directory that is in use.
        runtime_dir: PathBuf,
        /// The process number of the other guard.
        pid: String,
    },
    /// The runtime directory, or something in it, can't be used.
    #[error("{what} {} failed: {source}; run the guard as root, with a directory in memory such as /run/mainstay", path.display())]
    RuntimeDir {
        /// What was tried.
        what: &'static str,
        /// The path that was tried.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The times can't be safe.
    #[error("the times in the settings can't work: {0}")]
    Timing(String),
    /// A name in the settings can't be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The system does not give what every guard needs.
    #[error("{what}: {source}")]
    System {
        /// What was tried, in words.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
}
