//! Does another agent run under this host's id? Two of them would write the same registers.
//!
//! The agent holds an OFD lock on `host-X-agent.lock` for as long as it lives, including the time that a thread of it hangs
//! in a write after it was killed: so a new agent that gets the lock knows that no write of a former process of this host is under way.
//!
//! Best effort: a lock alone proves nothing, since network storage keeps those of a dead client for a while. Only a held lock
//! *and* a heartbeat that goes on prove another agent.

use crate::counters::SharedCounters;
use crate::datastore::DatastoreConfig;
use crate::error::StorageError;
use crate::folder::Folder;
use crate::register_file::{Access, RegisterFile};
use mainstay_core::register::RegisterId;
use mainstay_formats::layout::{agent_lock_file, locate};
use mainstay_formats::{Chosen, ClusterId};
use nix::fcntl::{FcntlArg, fcntl};
use rustix::fs::{Mode, OFlags};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

/// How often the heartbeat is looked at.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// What came of it. The lock lasts as long as this value.
#[derive(Debug)]
pub enum HostLock {
    /// This process holds the lock.
    Held(OwnedFd),
    /// Somebody else seems to hold it, but shows no life: a dead client's lock, as a rule. Or the file system has no locks.
    Unsure {
        /// In words.
        why: String,
    },
}

/// Takes the lock of `config.me` on that datastore. When it is held, watches that host's heartbeat for so long (take at least
/// two heartbeat intervals), while this process must not write it yet. Waits for the storage: call it on a thread that may hang.
pub fn lock_host(config: &DatastoreConfig, watch: Duration) -> Result<HostLock, StorageError> {
    let cluster = ClusterId::parse(&config.cluster_id)?;
    let folder = Folder::open(&config.path, &cluster, &config.cluster_name, config.allow_unmounted)?;
    let path = folder.path.join(agent_lock_file(&config.me)?);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    let file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o640))
        .map_err(|error| StorageError::io("opening", &path, error))?;
    let lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 1,
        l_pid: 0,
    };
    match fcntl(&file, FcntlArg::F_OFD_SETLK(&lock)) {
        Ok(_) => return Ok(HostLock::Held(file)),
        Err(nix::Error::EAGAIN | nix::Error::EACCES) => {}
        Err(error) => {
            return Ok(HostLock::Unsure { why: format!("{} can't be locked ({error})", path.display()) });
        }
    }
    let id = RegisterId::Heartbeat(config.me.clone());
    let at = locate(&id)?;
    let counters = SharedCounters::default();
    let beat = || -> Result<Option<u64>, StorageError> {
        let file = RegisterFile::open(&folder.path.join(&at.file), Access::Read, &counters)?;
        let chosen = file.map(|file| file.read_register(&cluster, &id, &at, &counters)).transpose()?;
        Ok(match chosen {
            Some(Chosen::Value { sequence, .. }) => Some(sequence),
            Some(Chosen::Missing | Chosen::Unreadable { .. }) | None => None,
        })
    };
    let first = beat()?;
    let start = Instant::now();
    while start.elapsed() < watch {
        thread::sleep(WATCH_INTERVAL);
        if beat()? != first {
            return Err(StorageError::AlreadyHeld { host: config.me.clone(), path });
        }
    }
    let why = format!(
        "{} is locked, but the heartbeat of {} stands still: a lock that the storage keeps for a dead client, as a rule",
        path.display(),
        config.me
    );
    Ok(HostLock::Unsure { why })
}
