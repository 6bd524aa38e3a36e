//! The guard in a host. The agent starts it; it outlives the agent.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::{LabError, Result};
use crate::host::Host;

/// Longer than the end of a killed process takes.
const END_PATIENCE: Duration = Duration::from_secs(10);

impl Host<'_> {
    /// The guard's process as this machine counts; none if it isn't running.
    pub fn guard_pid(&self) -> Result<Option<i32>> {
        // It keeps its number in the file that it locks.
        self.pid_in(&self.dir().join("run/guard.lock"))
    }

    /// Kills the guard, as a crash does, and waits until it is gone. The agent starts another one.
    pub fn kill_guard(&self) -> Result<()> {
        let pid = self.signal_guard(Signal::SIGKILL)?;
        let start = Instant::now();
        while self.guard_pid()? == Some(pid) {
            if start.elapsed() > END_PATIENCE {
                let (what, dump) = (format!("{}'s guard to be gone", self.name()), self.lab.dump());
                return Err(LabError::Timeout { what, limit: END_PATIENCE, dump });
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Stops the guard's process where it is, as a deadlock does.
    pub fn hang_guard(&self) -> Result<()> {
        self.signal_guard(Signal::SIGSTOP).map(drop)
    }

    /// Lets it go on.
    pub fn resume_guard(&self) -> Result<()> {
        self.signal_guard(Signal::SIGCONT).map(drop)
    }

    fn signal_guard(&self, signal: Signal) -> Result<i32> {
        let missing =
            || LabError::NotRunning { daemon: "guard".into(), host: self.number(), log: self.guard_log() };
        let pid = self.guard_pid()?.ok_or_else(missing)?;
        kill(Pid::from_raw(pid), signal).map_err(|_| missing())?;
        Ok(pid)
    }

    /// The guard's log.
    pub fn guard_log(&self) -> PathBuf {
        self.daemon_log("guard")
    }
}
