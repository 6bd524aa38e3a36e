//! One QEMU process, named so that it can't be mistaken for a later one of the same number.

use mainstay_processes::{self as processes, Pid};
use mainstay_words::VmId;
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

/// What tells a process from all others of this boot: its number, and when it was started.
pub type Identity = (Pid, u64);

/// A process of a VM.
#[derive(Clone, Debug)]
pub struct Process {
    /// The number of the process.
    pub pid: Pid,
    /// When it was started.
    pub start: u64,
    handle: Option<Arc<OwnedFd>>,
}

impl Process {
    /// Takes hold of that process if it is one of that VM. May be delayed.
    pub fn open(pid: Pid, vm: VmId) -> Option<Process> {
        let start = processes::start_time(pid)?;
        // Before the look at its command line, so that all of this is about one process.
        let handle = pidfd_open(rustix::process::Pid::from_raw(pid.cast_signed())?, PidfdFlags::empty());
        let handle = match handle {
            Ok(handle) => Some(Arc::new(handle)),
            Err(error) => {
                tracing::debug!(pid, %error, "no handle of a process: its number has to do");
                None
            }
        };
        let process = Process { pid, start, handle };
        (processes::is_qemu_of(pid, vm) && process.has_its_number()).then_some(process)
    }

    /// What tells it from others.
    pub fn identity(&self) -> Identity {
        (self.pid, self.start)
    }

    fn has_its_number(&self) -> bool {
        processes::start_time(self.pid) == Some(self.start)
    }

    /// Whether any of its threads is alive: also one that hangs in the kernel after the process was killed.
    pub fn exists(&self) -> bool {
        self.has_its_number() && self.thread_states().iter().any(|state| !matches!(state, 'Z' | 'X'))
    }

    /// Whether the kernel says of this very process that it has ended, with all its threads. Without a handle nobody can say.
    pub fn has_ended(&self) -> bool {
        let Some(handle) = &self.handle else { return false };
        let mut look = libc::pollfd { fd: handle.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // Safety: one structure, which is there for the whole call; it does not wait.
        let found = unsafe { libc::poll(&raw mut look, 1, 0) };
        found == 1 && look.revents & libc::POLLIN != 0
    }

    /// The states of its threads.
    pub fn thread_states(&self) -> Vec<char> {
        processes::thread_states(self.pid)
    }

    /// Sends it a signal; does nothing when it has gone.
    pub fn signal(&self, signal: Signal) {
        let sent = match &self.handle {
            Some(handle) => pidfd_send_signal(handle, signal),
            None if self.has_its_number() => match rustix::process::Pid::from_raw(self.pid.cast_signed()) {
                Some(pid) => rustix::process::kill_process(pid, signal),
                None => Ok(()),
            },
            None => Ok(()),
        };
        match sent {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => {
                tracing::error!(pid = self.pid, ?signal, %error, "a VM's process can't be signalled")
            }
        }
    }

    /// Sends each of its threads SIGSTOP. A signal to the process alone is taken by one thread: if that one hangs in the kernel, the
    /// others go on.
    pub fn stop_each_thread(&self) {
        self.signal(Signal::STOP);
        if !self.has_its_number() {
            return;
        }
        for thread in processes::threads(self.pid) {
            // Safety: a system call on numbers. The kernel checks that the thread is one of that process.
            let _ = unsafe {
                libc::syscall(libc::SYS_tgkill, self.pid.cast_signed(), thread.cast_signed(), libc::SIGSTOP)
            };
        }
    }
}
