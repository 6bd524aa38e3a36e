//! Does another agent, or another guard, run under this host's id? Two of them would write the same registers.
//!
//! The agent holds an OFD lock on the first byte of `host-X-agent.lock` for as long as it lives, including the time that a
//! thread of it hangs in a write after it was killed: so a new agent that gets the lock knows that no write of a former process of this
//! host is under way. The guard holds the second byte in the same way.
//!
//! Best effort: a lock alone proves nothing, since network storage keeps those of a dead client for a while. Only a held lock
//! *and* a heartbeat that goes on prove somebody else. A heartbeat of *this boot* is that of this host's own guard, which
//! outlives its agents: it proves another agent only while it says that one is connected to it.

use crate::counters::SharedCounters;
use crate::datastore::DatastoreConfig;
use crate::error::StorageError;
use crate::folder::Folder;
use crate::register_file::{Access, RegisterFile};
use mainstay_formats::layout::{Location, agent_lock_file, locate};
use mainstay_formats::{Chosen, ClusterId};
use mainstay_words::RegisterValue;
use mainstay_words::ids::BootId;
use mainstay_words::register::{HeartbeatRegister, RegisterId};
use nix::fcntl::{FcntlArg, fcntl};
use rustix::fs::{Mode, OFlags};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// How often the heartbeat is looked at.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// The process that a lock belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockedBy {
    /// The agent's process.
    Agent,
    /// The guard's process.
    Guard,
}

impl LockedBy {
    fn byte(self) -> i64 {
        match self {
            LockedBy::Agent => 0,
            LockedBy::Guard => 1,
        }
    }

    fn range(self) -> libc::flock {
        libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: self.byte(),
            l_len: 1,
            l_pid: 0,
        }
    }
}

/// What came of it. The lock lasts as long as this value.
#[derive(Debug)]
pub enum HostLock {
    /// This process holds the lock.
    Held(OwnedFd),
    /// Somebody else seems to hold it, but shows no life: a dead client's lock, as a rule. Or the file system has no locks.
    Unsure {
        /// What the system said, in words.
        why: String,
    },
}

/// Takes that lock of `config.me` on that datastore. When it is held, or (for an agent) when a guard holds its own, watches that
/// host's heartbeat for so long (take at least two heartbeat intervals): one that goes on is somebody else's, unless it is of the
/// present `boot` and no agent is connected to its guard. Waits for the storage: call it on a thread that may hang.
pub fn lock_host(
    config: &DatastoreConfig,
    by: LockedBy,
    boot: BootId,
    watch: Duration,
) -> Result<HostLock, StorageError> {
    let cluster = ClusterId::parse(&config.cluster_id)?;
    let folder = Folder::open(&config.path, &cluster, &config.cluster_name, config.allow_unmounted)?;
    let path = folder.path.join(agent_lock_file(&config.me)?);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    let file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o640))
        .map_err(|error| StorageError::io("opening", &path, error))?;
    let obstacle = match fcntl(&file, FcntlArg::F_OFD_SETLK(&by.range())) {
        Ok(_) if by == LockedBy::Guard || !guard_is_there(&file) => return Ok(HostLock::Held(file)),
        Ok(_) => None,
        Err(nix::Error::EAGAIN | nix::Error::EACCES) => Some(format!(
            "{} is locked, but the heartbeat of {} stands still or is this host's own: a lock that the storage keeps for a dead \
             client, as a rule",
            path.display(),
            config.me
        )),
        Err(error) => {
            return Ok(HostLock::Unsure { why: format!("{} can't be locked ({error})", path.display()) });
        }
    };
    let id = RegisterId::Heartbeat(config.me.clone());
    let at = locate(&id)?;
    let own_guard_suffices = by == LockedBy::Guard || obstacle.is_none();
    Watched { config, cluster, heartbeats: folder.path.join(&at.file), id, at, boot, own_guard_suffices }
        .refuse_others(watch, path)?;
    Ok(match obstacle {
        None => HostLock::Held(file),
        Some(why) => HostLock::Unsure { why },
    })
}

/// Whether some guard holds its lock. One that can't be asked for is not there: the heartbeat decides elsewhere.
fn guard_is_there(file: &OwnedFd) -> bool {
    let mut range = LockedBy::Guard.range();
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut range)).is_ok()
        && libc::c_int::from(range.l_type) != libc::c_int::from(libc::F_UNLCK as libc::c_short)
}

/// This host's heartbeat, being watched.
struct Watched<'a> {
    config: &'a DatastoreConfig,
    cluster: ClusterId,
    heartbeats: PathBuf,
    id: RegisterId,
    at: Location,
    boot: BootId,
    /// A heartbeat of this boot is nobody else's, whatever it says of an agent.
    own_guard_suffices: bool,
}

/// What the heartbeat register shows.
type Beat = Option<(u64, HeartbeatRegister)>;

impl Watched<'_> {
    fn refuse_others(&self, watch: Duration, path: PathBuf) -> Result<(), StorageError> {
        let first = self.look()?;
        let start = Instant::now();
        let mut now = first.clone();
        while !(self.own_guard_suffices && self.is_of_this_boot(&now)) && start.elapsed() < watch {
            thread::sleep(WATCH_INTERVAL);
            now = self.look()?;
            // What a guard of this boot says of its agent may be old yet: only its last word counts.
            if now != first && !self.is_of_this_boot(&now) {
                break;
            }
        }
        let has_agent = now.as_ref().is_some_and(|(_, beat)| beat.agent.is_some());
        let is_own = self.is_of_this_boot(&now) && (self.own_guard_suffices || !has_agent);
        if is_own || now == first {
            return Ok(());
        }
        Err(StorageError::AlreadyHeld { host: self.config.me.clone(), path })
    }

    fn is_of_this_boot(&self, beat: &Beat) -> bool {
        beat.as_ref().is_some_and(|(_, beat)| beat.boot == self.boot)
    }

    fn look(&self) -> Result<Beat, StorageError> {
        let counters = SharedCounters::default();
        let file = RegisterFile::open(&self.heartbeats, Access::Read, &counters)?;
        let read = |file: RegisterFile| file.read_register(&self.cluster, &self.id, &self.at, &counters);
        Ok(match file.map(read).transpose()? {
            Some((Chosen::Value { sequence, value: RegisterValue::Heartbeat(beat), .. }, _)) => {
                Some((sequence, beat))
            }
            Some((Chosen::Value { .. } | Chosen::Missing | Chosen::Unreadable { .. }, _)) | None => None,
        })
    }
}
