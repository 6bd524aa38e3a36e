//! What can go wrong in the lab, each with the thing it went wrong with and what to do about it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::preflight::Missing;

/// Result with [`LabError`].
pub type Result<T, E = LabError> = std::result::Result<T, E>;

/// Everything that the lab reports as an error.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// This machine can't run a lab.
    #[error("this machine can't run a lab:{}", list(.0))]
    Prerequisites(Vec<Missing>),

    /// Another process runs a lab and the wait for it is over.
    #[error(
        "another lab is running ({holder}); only one at a time is possible. Stop it, or wait until it is done"
    )]
    Locked {
        /// What the lock file says about the holder.
        holder: String,
    },

    /// A lab that was brought up to stay is standing.
    #[error("lab '{name}' is standing (brought up with --keep). Remove it with `mainstay-lab down` first")]
    Standing {
        /// The standing lab's name.
        name: String,
    },

    /// There is no lab to attach to.
    #[error("no lab is standing. Bring one up with `mainstay-lab up`")]
    NoLab,

    /// The configuration asks for something impossible.
    #[error("lab configuration: {0}")]
    Config(String),

    /// There is no such host in this lab.
    #[error("there is no host h{host} in this lab: it has h1 to h{hosts}")]
    NoSuchHost {
        /// The host that was asked for.
        host: usize,
        /// How many there are.
        hosts: usize,
    },

    /// There is no such datastore in this lab.
    #[error("there is no datastore '{datastore}' in this lab: it has {known}")]
    NoSuchDatastore {
        /// The datastore that was asked for.
        datastore: String,
        /// Those that exist.
        known: String,
    },

    /// There is no such VM in this lab.
    #[error("there is no VM '{vm}' in this lab. Define it with `mainstay-lab vm add {vm} --host H`")]
    NoSuchVm {
        /// The VM that was asked for.
        vm: String,
    },

    /// The host is off.
    #[error("host h{host} is powered off. Power it on with `mainstay-lab host on h{host}`")]
    HostOff {
        /// The host's number, from 1.
        host: usize,
    },

    /// The host hangs, so nothing can be run in it.
    #[error("host h{host} hangs. Let it go on with `mainstay-lab host unhang h{host}`")]
    HostHung {
        /// The host's number, from 1.
        host: usize,
    },

    /// An agent is to be started where one runs.
    #[error("the agent of {host} runs already: stop or kill it first (mainstay-lab agent stop {host})")]
    AgentRuns {
        /// The host, such as `h2`.
        host: String,
    },
    /// This datastore can't do that.
    #[error("datastore '{datastore}' can't {what}: {reason}")]
    Unsupported {
        /// The datastore's name.
        datastore: String,
        /// What was asked for.
        what: &'static str,
        /// Why it can't, and which configuration could.
        reason: &'static str,
    },

    /// No such daemon is running in the host.
    #[error("{daemon} is not running in host h{host}; see {log}")]
    NotRunning {
        /// The daemon that does not run.
        daemon: String,
        /// In which host.
        host: usize,
        /// Its log file.
        log: PathBuf,
    },

    /// The `mainstay` binary is missing.
    #[error(
        "the agent's binary, with mainstay-guard beside it, was not found (looked at {looked_at}). Build it and its guard with `cargo build -p mainstay-ctl -p mainstay-guard` or set LabConfig::agent_bin"
    )]
    NoAgentBinary {
        /// Where it was looked for.
        looked_at: String,
    },

    /// A tool failed.
    #[error("{what}: `{command}` failed ({status}): {stderr}")]
    Tool {
        /// What the lab was doing.
        what: String,
        /// The command line.
        command: String,
        /// How it ended.
        status: String,
        /// What it said.
        stderr: String,
    },

    /// A tool did not end in time; it was killed.
    #[error("{what}: `{command}` did not end within {limit:?} and was killed")]
    ToolTimeout {
        /// What the lab was doing.
        what: String,
        /// The command line.
        command: String,
        /// How long it was given.
        limit: Duration,
    },

    /// Something that was waited for did not happen.
    #[error("waited {limit:?} in vain for: {what}\n{dump}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// For how long.
        limit: Duration,
        /// The lab as it stood then, with the tails of the logs.
        dump: String,
    },

    /// A guest's disk holds no record.
    #[error(
        "VM '{vm}': {path} holds no guest record (the guest has not booted yet, or this is another kind of guest)"
    )]
    NoRecord {
        /// The VM whose guest has written nothing.
        vm: String,
        /// The file that is the VM's disk.
        path: PathBuf,
    },

    /// A file could not be read or written.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The file that was read or written.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },

    /// The state file is damaged or of another version.
    #[error("state file {path}: {reason}. Remove it by hand if no lab is standing")]
    State {
        /// The file that says which lab stands.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// Cleaning up left something behind.
    #[error("cleaning up left something behind: {}. Run `mainstay-lab down` again", .0.join("; "))]
    Leftovers(Vec<String>),
}

fn list(missing: &[Missing]) -> String {
    missing.iter().map(|m| format!("\n  - {m}")).collect()
}

/// Adds the path and the deed to an I/O error.
pub(crate) trait At<T> {
    /// Turns the error into [`LabError::Io`].
    fn at(self, what: &'static str, path: &Path) -> Result<T>;
}

impl<T> At<T> for std::io::Result<T> {
    fn at(self, what: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| LabError::Io { what, path: path.to_path_buf(), source })
    }
}

impl<T> At<T> for rustix::io::Result<T> {
    fn at(self, what: &'static str, path: &Path) -> Result<T> {
        self.map_err(|e| LabError::Io { what, path: path.to_path_buf(), source: e.into() })
    }
}
