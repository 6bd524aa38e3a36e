//! What can go wrong with a datastore. Each text says what to do.

use mainstay_formats::EncodeError;
use mainstay_words::HostId;
use rustix::io::Errno;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// An error of this crate.
#[derive(Debug, Error)]
pub enum StorageError {
    /// The path does not exist.
    #[error("{} does not exist: create it and mount the datastore there, or correct the path in the configuration", path.display())]
    NotThere {
        /// The path that was tried.
        path: PathBuf,
    },
    /// The path is no directory.
    #[error("{} is not a directory: a datastore is the directory where shared storage is mounted", path.display())]
    NotADirectory {
        /// The path that was tried.
        path: PathBuf,
    },
    /// The path lies on the root file system.
    #[error(
        "{0} lies on the root file system: the datastore is not mounted; mount it (`mount {0}`), \
         or set allow_unmounted for a test",
        path.display()
    )]
    NotMounted {
        /// The path that was tried.
        path: PathBuf,
    },
    /// The path lies in a file system in memory, which no other host can see.
    #[error(
        "{path} lies in memory, on the {file_system} that is mounted at {mount}: the datastore is not mounted; \
         mount it (`mount {path}`), or set allow_unmounted for a test",
        path = path.display(),
        mount = mount.display()
    )]
    InMemory {
        /// The path that was tried.
        path: PathBuf,
        /// Where that file system is mounted.
        mount: PathBuf,
        /// The type of its file system.
        file_system: String,
    },
    /// There are several folders of one cluster: hosts could be writing to different ones.
    #[error(
        "{} has several folders of this cluster ({names}): stop all agents, keep the one with the newest files, \
         move the others away",
        top.display()
    )]
    SeveralFolders {
        /// The folder in which they are.
        top: PathBuf,
        /// The names that were found.
        names: String,
    },
    /// A value or name that can't be put on disk.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// A register of another host.
    #[error(
        "{me} may not write the {register}: each register has one writer; this is a fault of the program"
    )]
    NotTheWriter {
        /// The host that was to write.
        me: HostId,
        /// The file name of the register.
        register: String,
    },
    /// What is in the register's slots must not be overwritten.
    #[error("the {register} was not written: {reason}")]
    Occupied {
        /// The file name of the register.
        register: String,
        /// What is there.
        reason: String,
    },
    /// The file at the path is not the one that was written.
    #[error(
        "{} was removed or replaced while it was in use: what was written can't be seen by others; \
         it is laid out anew at the next write",
        path.display()
    )]
    Replaced {
        /// The path that was tried.
        path: PathBuf,
    },
    /// An operation of the file system failed.
    #[error("{doing} {}: {source}{}", path.display(), remedy(source))]
    Io {
        /// What was being done, such as "writing".
        doing: &'static str,
        /// The path of the file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Too many operations wait.
    #[error(
        "the datastore {datastore} does not answer: {waiting} operations wait already; check its storage connection"
    )]
    NoAnswer {
        /// The name of the datastore.
        datastore: String,
        /// How many wait.
        waiting: usize,
    },
    /// A domain XML file is too large to be one.
    #[error("{} has more than {max} bytes: it is no domain XML of Mainstay's; remove it", path.display())]
    XmlTooLarge {
        /// The path of the file.
        path: PathBuf,
        /// The most bytes that it may have.
        max: u64,
    },
    /// Another agent runs under this host's id.
    #[error(
        "another agent runs as {host} (it holds {} and its heartbeat goes on): stop it, or give this host its own id \
         with `mainstay join`",
        path.display()
    )]
    AlreadyHeld {
        /// The id that is in use.
        host: HostId,
        /// The lock file.
        path: PathBuf,
    },
    /// A thread could not be started.
    #[error(
        "no thread for the datastore {datastore} ({source}): raise the limit of processes (TasksMax, ulimit -u)"
    )]
    NoThread {
        /// The name of the datastore.
        datastore: String,
        /// The system's error.
        source: io::Error,
    },
}

impl StorageError {
    pub(crate) fn io(doing: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        StorageError::Io { doing, path: path.to_path_buf(), source: source.into() }
    }

    /// Whether a file handle has gone bad, so that opening the path anew may help.
    pub(crate) fn is_stale_handle(&self) -> bool {
        match self {
            StorageError::Replaced { .. } => true,
            StorageError::Io { source, .. } => {
                matches!(errno(source), Some(Errno::STALE | Errno::NOTCONN | Errno::NOENT | Errno::BADF))
            }
            StorageError::NotThere { .. }
            | StorageError::NotADirectory { .. }
            | StorageError::NotMounted { .. }
            | StorageError::InMemory { .. }
            | StorageError::SeveralFolders { .. }
            | StorageError::Encode(_)
            | StorageError::NotTheWriter { .. }
            | StorageError::Occupied { .. }
            | StorageError::NoAnswer { .. }
            | StorageError::XmlTooLarge { .. }
            | StorageError::AlreadyHeld { .. }
            | StorageError::NoThread { .. } => false,
        }
    }
}

fn errno(error: &io::Error) -> Option<Errno> {
    Errno::from_io_error(error)
}

/// What a person can do about an error of the system.
fn remedy(error: &io::Error) -> &'static str {
    match errno(error) {
        Some(Errno::NOSPC | Errno::DQUOT) => ": the datastore is full; free some space on it",
        Some(Errno::ROFS) => {
            ": the datastore is mounted read-only; check the storage for errors and mount it anew"
        }
        Some(Errno::ACCESS | Errno::PERM) => {
            ": the agent may not do this; check the directory's owner and mode, and root squashing of an NFS export"
        }
        Some(
            Errno::NOTCONN | Errno::STALE | Errno::IO | Errno::TIMEDOUT | Errno::HOSTDOWN | Errno::NODEV,
        ) => ": the storage connection is lost; check the storage network, the server and `dmesg`",
        Some(Errno::MFILE | Errno::NFILE) => ": raise the limit of open files (LimitNOFILE)",
        _ => "",
    }
}
