//! A wall clock of its own for a host's agent and guard, to be stepped.
//!
//! There is no namespace for the wall clock. libfaketime stands between those two processes and the C library's clock instead; the
//! monotonic clocks, by which everything is decided, are left as they are. So this shows what the processes do when the calendar
//! jumps under them; other programs of the host (libvirtd, QEMU) don't notice.

use std::fs;
use std::path::PathBuf;

use crate::error::{At, LabError, Result};
use crate::host::Host;
use crate::preflight::Missing;

/// The variant for programs with threads; libraries lie below the machine's architecture.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

fn library() -> Result<PathBuf> {
    let below = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let missing = || {
        let remedy = "run scripts/install-packages.sh".into();
        LabError::Prerequisites(vec![Missing { what: "libfaketime".into(), remedy }])
    };
    below.map(|entry| entry.path().join(LIBRARY)).find(|path| path.is_file()).ok_or_else(missing)
}

impl Host<'_> {
    fn clock_file(&self) -> PathBuf {
        self.dir().join("clock")
    }

    /// Ends agent and guard, and starts both with a wall clock that [`Host::step_clock`] steps.
    pub fn restart_agent_with_own_clock(&self) -> Result<()> {
        let library = library()?.display().to_string();
        self.step_clock(0)?;
        let variables = [
            format!("LD_PRELOAD={library}"),
            format!("FAKETIME_TIMESTAMP_FILE={}", self.clock_file().display()),
            "FAKETIME_NO_CACHE=1".into(),
            "DONT_FAKE_MONOTONIC=1".into(),
        ];
        self.stop_agent()?;
        self.kill_guard()?;
        // The guard is the agent's child, and inherits them.
        self.start_agent_with(&variables)
    }

    /// Steps the wall clock of agent and guard to so many seconds beside the machine's.
    pub fn step_clock(&self, seconds: i64) -> Result<()> {
        let (file, new) = (self.clock_file(), self.dir().join("clock.new"));
        fs::write(&new, format!("{seconds:+}\n")).at("write", &new)?;
        fs::rename(&new, &file).at("rename", &new)
    }
}
