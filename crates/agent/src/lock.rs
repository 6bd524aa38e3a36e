//! One agent per state directory: a lock that dies with its process.

use mainstay_guard::lock::{LockFailure, ProcessLock};
use std::path::{Path, PathBuf};

/// The lock could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another agent has it.
    #[error("another agent (process {pid}) already runs with the state directory {state_dir}: stop it first", state_dir = state_dir.display())]
    Held {
        /// The state directory that another agent holds.
        state_dir: PathBuf,
        /// Its process id, as far as it has written it.
        pid: String,
    },
    /// The directory can't be used.
    #[error("the state directory {state_dir} can't be used: {source}; run the agent as root, or name another state_dir", state_dir = state_dir.display())]
    Unusable {
        /// The state directory that was to be locked.
        state_dir: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

/// The lock, held for as long as this lives.
#[derive(Debug)]
pub struct AgentLock(#[expect(dead_code, reason = "held for its lock")] ProcessLock);

impl AgentLock {
    /// Makes the state directory if need be, and locks `agent.lock` in it.
    pub fn take(state_dir: &Path) -> Result<AgentLock, LockError> {
        let state_dir = state_dir.to_path_buf();
        ProcessLock::take(&state_dir.join("agent.lock")).map(AgentLock).map_err(|failure| match failure {
            LockFailure::Held { pid } => LockError::Held { state_dir, pid },
            LockFailure::Unusable { what: _, source } => LockError::Unusable { state_dir, source },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_testkit::wait_for_ok;

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
    fn the_lock_of_a_killed_agent_of_which_a_thread_hangs_counts_for_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let held = AgentLock::take(dir.path()).expect("free");
        let mut zombie = std::process::Command::new("true").spawn().expect("a child");
        std::fs::write(dir.path().join("agent.lock"), zombie.id().to_string()).expect("written");
        // Not waited for yet, so it becomes and stays a zombie.
        let second = wait_for_ok("the lock", || AgentLock::take(dir.path()));
        zombie.wait().expect("ended");
        drop(held);
        AgentLock::take(dir.path()).expect_err("the second one's");
        drop(second);
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
