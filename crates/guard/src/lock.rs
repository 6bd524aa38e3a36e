//! One guard per runtime directory, one agent per state directory: a lock that dies with its process.
//!
//! A killed process of which a thread hangs in a datastore lives on as a zombie that still holds its files open, its lock too. It does
//! nothing any more, and the host needs another one: so its lock counts for nothing, and the file is replaced.

use crate::error::GuardError;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The file, in the runtime directory. Holds the guard's process id.
pub const LOCK_FILE: &str = "guard.lock";

/// A locked file that holds the id of the process which has locked it. The lock lasts as long as this value.
#[derive(Debug)]
pub struct ProcessLock(File);

/// Why it can't be had.
#[derive(Debug)]
pub enum LockFailure {
    /// Another process has it.
    Held {
        /// Its id, as far as it has written it; else "unknown".
        pid: String,
    },
    /// The file can't be used.
    Unusable {
        /// What was tried.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

impl ProcessLock {
    /// Makes the file and its directory if need be, and locks it.
    pub fn take(path: &Path) -> Result<ProcessLock, LockFailure> {
        let failed = |what| move |source| LockFailure::Unusable { what, source };
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(failed("creating the directory of"))?;
        }
        loop {
            let mut options = OpenOptions::new();
            // Not truncated before it is locked: the text is the other process's.
            options.read(true).write(true).create(true).truncate(false);
            let mut file = options.open(path).map_err(failed("opening"))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let mut pid = String::new();
                    // A file that can't be read still says that somebody holds it.
                    let _ = file.read_to_string(&mut pid);
                    let pid = pid.trim().to_owned();
                    if pid.parse().is_ok_and(is_left_behind) {
                        remove_if_same(path, &file).map_err(failed("removing"))?;
                        continue;
                    }
                    let pid = if pid.is_empty() { "unknown".into() } else { pid };
                    return Err(LockFailure::Held { pid });
                }
                Err(TryLockError::Error(source)) => return Err(failed("locking")(source)),
            }
            // Somebody may have replaced it between opening and locking.
            if !is_same(path, &file) {
                continue;
            }
            file.set_len(0)
                .and_then(|()| file.rewind())
                .and_then(|()| writeln!(file, "{}", std::process::id()))
                .map_err(failed("writing"))?;
            return Ok(ProcessLock(file));
        }
    }
}

impl Drop for ProcessLock {
    fn drop(&mut self) {
        // Closing is not enough: a thread that hangs keeps the file open after the process's end.
        let _ = self.0.unlock();
    }
}

/// The lock that the guard holds while it runs.
#[derive(Debug)]
pub struct GuardLock(#[expect(dead_code, reason = "held for its lock")] ProcessLock);

impl GuardLock {
    /// Makes the runtime directory if need be, and locks it.
    pub fn take(runtime_dir: &Path) -> Result<GuardLock, GuardError> {
        let path = runtime_dir.join(LOCK_FILE);
        ProcessLock::take(&path).map(GuardLock).map_err(|failure| match failure {
            LockFailure::Held { pid } => {
                GuardError::AlreadyRuns { runtime_dir: runtime_dir.to_path_buf(), pid }
            }
            LockFailure::Unusable { what, source } => GuardError::RuntimeDir { what, path, source },
        })
    }
}

/// Whether the leader of that process has ended, while the process is still there.
fn is_left_behind(pid: mainstay_processes::Pid) -> bool {
    mainstay_processes::thread_state(pid, pid).is_some_and(|state| matches!(state, 'Z' | 'X'))
}

fn is_same(path: &Path, file: &File) -> bool {
    let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    match (std::fs::metadata(path), file.metadata()) {
        (Ok(there), Ok(here)) => identity(there) == identity(here),
        (Err(_), _) | (_, Err(_)) => false,
    }
}

fn remove_if_same(path: &Path, file: &File) -> std::io::Result<()> {
    if !is_same(path, file) {
        return Ok(());
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_testkit::wait_until;

    #[test]
    fn a_second_guard_is_refused_and_told_the_first_ones_pid() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = GuardLock::take(directory.path()).expect("free");
        let refusal = GuardLock::take(directory.path()).expect_err("held").to_string();
        assert!(refusal.contains(&format!("process {}", std::process::id())), "{refusal}");
        drop(first);
        GuardLock::take(directory.path()).expect("free again");
    }

    #[test]
    fn the_lock_of_a_guard_that_is_only_a_zombie_counts_for_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let held = GuardLock::take(directory.path()).expect("free");
        let mut child = std::process::Command::new("true").spawn().expect("a child");
        // Not waited for yet, so it stays a zombie.
        wait_until("the zombie", || is_left_behind(child.id()));
        std::fs::write(directory.path().join(LOCK_FILE), child.id().to_string()).expect("written");
        let second = GuardLock::take(directory.path()).expect("taken over");
        child.wait().expect("ended");
        drop(held);
        GuardLock::take(directory.path()).expect_err("the second one's");
        drop(second);
    }
}
