//! What keeps the guard on time: memory that is never paged out, a real-time priority, and no out-of-memory killer. Each is
//! worth having alone, so one that can't be had is a warning and no more.

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, getrlimit};

/// CAP_IPC_LOCK's bit in `CapEff`.
const CAP_IPC_LOCK: u64 = 1 << 14;

/// Above all ordinary processes, below all that asked for more.
const PRIORITY: libc::c_int = 1;

/// Takes all of it for this process and the threads that it starts from now on.
pub fn take() {
    if let Err(why) = lock_memory() {
        tracing::warn!(why, "memory is not locked: a host that swaps may delay a freeze");
    }
    if let Err(error) = set_priority() {
        tracing::warn!(%error, "no real-time priority: a busy host may delay a freeze");
    }
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", "-1000") {
        tracing::warn!(%error, "the out-of-memory killer may choose the guard");
    }
}

/// Under a limit, later allocations would fail and end the guard: then better none.
fn lock_memory() -> Result<(), String> {
    if getrlimit(Resource::Memlock).current.is_some() && !may_lock_memory() {
        return Err(
            "the limit on locked memory is finite; run the guard as root or with LimitMEMLOCK=infinity"
                .into(),
        );
    }
    // First what is there, program text included. What comes later is locked as it is touched: thread stacks and arenas are
    // mostly never used.
    mlockall(MlockAllFlags::CURRENT)
        .and_then(|()| mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT))
        .map_err(|error| error.to_string())
}

fn may_lock_memory() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    bits.is_some_and(|bits| bits & CAP_IPC_LOCK != 0)
}

fn set_priority() -> std::io::Result<()> {
    schedule(libc::SCHED_FIFO, PRIORITY)
}

/// For threads that keep no deadline and may work for long.
pub fn give_up_priority() {
    if let Err(error) = schedule(libc::SCHED_OTHER, 0) {
        tracing::debug!(%error, "a thread keeps its real-time priority");
    }
}

fn schedule(policy: libc::c_int, priority: libc::c_int) -> std::io::Result<()> {
    // Safety: all zeros is a valid value of this plain structure.
    let mut parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    parameters.sched_priority = priority;
    // Safety: the calling thread, and a structure that lives through the call.
    if unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) } == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}
