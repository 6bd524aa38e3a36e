//! libvirt in a host, with its faults.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::error::{LabError, Result};
use crate::exec::Output;
use crate::host::Host;
use crate::process;

/// Longer than any call takes on a busy machine; a call to a hung libvirtd or a hung datastore ends here.
const VIRSH_LIMIT: Duration = Duration::from_secs(30);

fn is_libvirtd(pid: i32) -> bool {
    process::name(pid) == "libvirtd"
}

impl Host<'_> {
    /// Starts libvirtd; it answers when this returns.
    pub fn start_libvirtd(&self) -> Result<()> {
        self.exec(&["libvirtd", "--listen", "-d"]).map(drop)
    }

    /// Whether a libvirtd process is there (it may hang).
    pub fn libvirtd_runs(&self) -> Result<bool> {
        Ok(self.pids()?.into_iter().any(|p| process::alive(p) && is_libvirtd(p)))
    }

    fn signal_libvirtd(&self, signal: Signal) -> Result<()> {
        if self.signal_matching(signal, is_libvirtd)? > 0 {
            return Ok(());
        }
        let log = self.dir().join("log/libvirtd.log");
        Err(LabError::NotRunning { daemon: "libvirtd".into(), host: self.number(), log })
    }

    /// Kills libvirtd and waits until it is gone. Its VMs go on.
    pub fn kill_libvirtd(&self) -> Result<()> {
        self.signal_libvirtd(Signal::SIGKILL)?;
        let gone = || matches!(self.libvirtd_runs(), Ok(false));
        self.lab.wait_until("libvirtd to be gone", Duration::from_secs(10), gone).map(drop)
    }

    /// Kills and starts libvirtd.
    pub fn restart_libvirtd(&self) -> Result<()> {
        if self.libvirtd_runs()? {
            self.kill_libvirtd()?;
        }
        self.start_libvirtd()
    }

    /// libvirtd stops answering; its VMs go on.
    pub fn hang_libvirtd(&self) -> Result<()> {
        self.signal_libvirtd(Signal::SIGSTOP)
    }

    /// It answers again.
    pub fn resume_libvirtd(&self) -> Result<()> {
        self.signal_libvirtd(Signal::SIGCONT)
    }

    /// Runs `virsh` in the host; an error if virsh reports one.
    pub fn virsh(&self, args: &[&str]) -> Result<String> {
        let mut argv = vec!["virsh", "-q", "-c", "qemu:///system"];
        argv.extend(args);
        self.exec_within(&argv, VIRSH_LIMIT)
    }

    /// Runs `virsh` in the host and gives back whatever came out.
    pub fn virsh_output(&self, args: &[&str]) -> Result<Output> {
        let mut argv = vec!["virsh", "-q", "-c", "qemu:///system"];
        argv.extend(args);
        self.output(&argv, VIRSH_LIMIT)
    }

    /// What libvirt says of a VM: `running`, `shut off`, `paused` …
    pub fn domstate(&self, vm: &str) -> Result<String> {
        self.virsh(&["domstate", vm])
    }
}
