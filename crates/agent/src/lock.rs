//! One agent per state directory: a lock that dies with its process.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

/// The lock could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another agent has it.
    #[error("another agent (process {pid}) already runs with the state directory {state_dir}: stop it first", state_dir = state_dir.display())]
    Held {
        /// The directory.
        state_dir: PathBuf,
        /// Its process id, as far as it has written it.
        pid: String,
    },
    /// The directory can't be used.
    #[error("the state directory {state_dir} can't be used: {source}; run the agent as root, or name another state_dir", state_dir = state_dir.display())]
    Unusable {
        /// The directory.
        state_dir: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

/// The lock, held for as long as this lives.
#[derive(Debug)]
pub struct AgentLock(#[expect(dead_code, reason = "open for its lock")] File);

impl AgentLock {
    /// Makes the state directory if need be, and locks `agent.lock` in it.
    pub fn take(state_dir: &Path) -> Result<AgentLock, LockError> {
        let unusable = |source| LockError::Unusable { state_dir: state_dir.to_path_buf(), source };
        std::fs::create_dir_all(state_dir).map_err(unusable)?;
        let path = state_dir.join("agent.lock");
        // Not truncated before it is locked: the text is the other agent's.
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // A lock file that can't be read still says that somebody holds it.
                let _ = file.read_to_string(&mut pid);
                let pid = if pid.trim().is_empty() { "unknown" } else { pid.trim() };
                return Err(LockError::Held { state_dir: state_dir.to_path_buf(), pid: pid.into() });
            }
            Err(TryLockError::Error(source)) => return Err(unusable(source)),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(unusable)?;
        Ok(AgentLock(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_refused_and_told_the_first_ones_pid() {
        let dir = tempfile::tempdir().expect("a directory");
        let state_dir = dir.path().join("state");
        let first = AgentLock::take(&state_dir).expect("free");
        let refusal = AgentLock::take(&state_dir).expect_err("held").to_string();
        let expected = format!(
            "another agent (process {}) already runs with the state directory {}: stop it first",
            std::process::id(),
            state_dir.display()
        );
        assert_eq!(refusal, expected);
        drop(first);
        AgentLock::take(&state_dir).expect("free again");
    }

    #[test]
    fn a_directory_that_can_not_be_made_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("file"), "").expect("a file");
        let refusal = AgentLock::take(&dir.path().join("file/state")).expect_err("no directory").to_string();
        assert!(
            refusal.ends_with("(os error 20); run the agent as root, or name another state_dir"),
            "{refusal}"
        );
    }
}
