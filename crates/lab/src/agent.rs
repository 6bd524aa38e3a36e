//! The agent in a host: starting, stopping, killing and hanging it.

use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::config::LabConfig;
use crate::error::{LabError, Result};
use crate::host::Host;
use crate::lab::Lab;

const NAME: &str = "agent";

/// Longer than the agent may take to stop in an orderly way.
const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// Where the `mainstay` binary is.
pub(crate) fn find_binary(config: &LabConfig) -> Result<PathBuf> {
    let candidates: Vec<PathBuf> = if let Some(given) = &config.agent_bin {
        vec![given.clone()]
    } else {
        let target = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target");
        // Beside the running program, or one up, where cargo puts binaries with tests in `deps` below.
        let exe = std::env::current_exe().unwrap_or_default();
        exe.ancestors()
            .skip(1)
            .take(2)
            .map(|dir| dir.join("mainstay"))
            .chain(["release", "debug"].map(|profile| target.join(profile).join("mainstay")))
            .collect()
    };
    // The agent starts the guard that lies beside it.
    let is_whole = |path: &&PathBuf| path.is_file() && path.with_file_name("mainstay-guard").is_file();
    candidates.iter().find(is_whole).and_then(|p| p.canonicalize().ok()).ok_or_else(|| {
        let looked_at = candidates.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ");
        LabError::NoAgentBinary { looked_at }
    })
}

impl Lab {
    /// The `mainstay` binary that hosts run; they see it at the same path.
    pub fn agent_binary(&self) -> Result<PathBuf> {
        find_binary(&self.config)
    }
}

impl Host<'_> {
    /// Starts the agent: `mainstay agent --config /etc/mainstay/agent.toml`, its output in `agent.log`.
    pub fn start_agent(&self) -> Result<()> {
        self.start_agent_with(&[])
    }

    /// The same with environment variables, `NAME=value` each.
    pub(crate) fn start_agent_with(&self, variables: &[String]) -> Result<()> {
        if self.agent_pid()?.is_some() {
            return Err(LabError::AgentRuns { host: self.name() });
        }
        let binary = find_binary(&self.lab.config)?.display().to_string();
        let mut argv = vec!["env"];
        argv.extend(variables.iter().map(String::as_str));
        argv.extend([binary.as_str(), "agent", "--config", "/etc/mainstay/agent.toml"]);
        self.spawn_daemon(NAME, &argv)
    }

    /// Asks the agent to end (SIGTERM) and waits until it has. `false`: it did not within 15 seconds and was killed.
    pub fn stop_agent(&self) -> Result<bool> {
        self.signal_daemon(NAME, Signal::SIGTERM)?;
        self.await_daemon_end(NAME, STOP_PATIENCE)
    }

    /// Kills the agent, as a crash does. Processes that it started go on.
    pub fn kill_agent(&self) -> Result<()> {
        self.signal_daemon(NAME, Signal::SIGKILL)?;
        self.await_daemon_end(NAME, STOP_PATIENCE).map(drop)
    }

    /// Stops the agent's process where it is, as a deadlock does.
    pub fn hang_agent(&self) -> Result<()> {
        self.signal_daemon(NAME, Signal::SIGSTOP)
    }

    /// Lets it go on.
    pub fn resume_agent(&self) -> Result<()> {
        self.signal_daemon(NAME, Signal::SIGCONT)
    }

    /// The agent's process as this machine counts; none if it isn't running.
    pub fn agent_pid(&self) -> Result<Option<i32>> {
        self.daemon_pid(NAME)
    }

    /// The agent's log.
    pub fn agent_log(&self) -> PathBuf {
        self.daemon_log(NAME)
    }

    /// The agent's configuration, to change it before a start.
    pub fn agent_config(&self) -> PathBuf {
        self.dir().join("etc-mainstay/agent.toml")
    }
}
