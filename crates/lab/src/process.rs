//! What `/proc` says about a process.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::cgroup::Cgroup;

/// A process's command line, its words separated by blanks.
pub(crate) fn command_line(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ").trim_end().to_string()
}

/// A process's short name.
pub(crate) fn name(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_string()
}

/// What follows the short name in `/proc/PID/stat`, which may itself contain blanks and parentheses.
fn stat(pid: i32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_string).collect())
}

/// Its state letter: `R`, `S`, `D`, `T` (stopped), `Z` (dead, not yet collected) …
pub(crate) fn state(pid: i32) -> Option<char> {
    stat(pid)?.first()?.chars().next()
}

/// Whether it exists and is not merely waiting to be collected.
pub(crate) fn alive(pid: i32) -> bool {
    !matches!(state(pid), None | Some('Z' | 'X'))
}

/// When it started, in ticks since boot: tells it from a later process of the same number.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    stat(pid)?.get(19)?.parse().ok()
}

/// The processor time that it has used, in ticks.
pub(crate) fn cpu_ticks(pid: i32) -> Option<u64> {
    let stat = stat(pid)?;
    let ticks = |field: usize| stat.get(field)?.parse::<u64>().ok();
    ticks(11)?.checked_add(ticks(12)?)
}

/// Its number in the innermost process namespace.
pub(crate) fn inner_pid(pid: i32) -> Option<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    text.lines().find_map(|l| l.strip_prefix("NSpid:"))?.split_whitespace().last()?.parse().ok()
}

/// Whether it can't execute: stopped by a signal, or its cgroup (version 2), or one above it, stands still. A thread that hangs in
/// a datastore keeps its group from being called frozen until the storage answers; it executes nothing either, as long as the group
/// was told to stand still. `None` when it has ended, also when it did so while it was being looked at.
pub(crate) fn stands_still(pid: i32) -> Option<bool> {
    let stopped = matches!(state(pid)?, 'T' | 't') || frozen(pid);
    // What is read of a process that has ended is empty, which must not count as "in no group that stands still".
    alive(pid).then_some(stopped)
}

fn frozen(pid: i32) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let Some(path) = text.lines().find_map(|l| l.strip_prefix("0::/")) else { return false };
    Cgroup::named(path).is_ok_and(|g| g.frozen() || (g.freezing() && !uses_a_processor(pid)))
}

/// Whether it gets on although its group was told to stand still. A thread that has just come back from the storage, or is about to
/// die, is on a processor for a moment, in the kernel only; on a busy machine it may wait for one much longer.
fn uses_a_processor(pid: i32) -> bool {
    /// What the way to standing still may take; a program that executes uses all that it gets.
    const MOMENT: Duration = Duration::from_micros(500);
    let before = processor_time(pid);
    let busy = |pause: u64| {
        std::thread::sleep(Duration::from_millis(pause));
        executes(pid)
    };
    let is_busy = [0, 1, 2, 4].into_iter().all(busy);
    // Where the kernel does not count, what is runnable executes.
    let used = before.zip(processor_time(pid)).map(|(before, after)| after.saturating_sub(before));
    is_busy && used.is_none_or(|used| used > MOMENT)
}

/// The time that its threads have been on a processor, exactly.
fn processor_time(pid: i32) -> Option<Duration> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        // A thread that has ended meanwhile uses no more.
        let Ok(text) = fs::read_to_string(thread.path().join("schedstat")) else { continue };
        sum += text.split(' ').next()?.parse::<u64>().ok()?;
    }
    (sum > 0).then(|| Duration::from_nanos(sum))
}

/// Whether any of its threads is on a processor or waits for one, other than to die: a killed one comes back from the kernel
/// to its program no more.
pub(crate) fn executes(pid: i32) -> bool {
    const EXITING: u64 = 0x4;
    const KILL: u64 = 1 << 8;
    let runs = |thread: &Path| {
        let stat = fs::read_to_string(thread.join("stat")).unwrap_or_default();
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let mut fields = rest.split_whitespace();
        let runs = fields.next() == Some("R");
        let flags: u64 = fields.nth(5).and_then(|f| f.parse().ok()).unwrap_or(0);
        runs && flags & EXITING == 0
    };
    let killed = |thread: &Path| {
        let status = fs::read_to_string(thread.join("status")).unwrap_or_default();
        let pending = status.lines().find_map(|l| l.strip_prefix("SigPnd:"));
        pending.and_then(|p| u64::from_str_radix(p.trim(), 16).ok()).is_none_or(|p| p & KILL != 0)
    };
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    // Asked twice: it may be killed, and take note of it, between one look and the next.
    threads
        .map(|t| t.path())
        .any(|thread| !killed(&thread) && runs(&thread) && !killed(&thread) && runs(&thread))
}

/// A fresh random UUID.
pub(crate) fn random_uuid() -> String {
    // The kernel's own generator; if it can't be read, there is no /proc and nothing else works either.
    fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default().trim_end().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_process_is_alive_and_has_a_start() {
        let me = std::process::id().cast_signed();
        assert!(alive(me));
        assert!(start_time(me).is_some_and(|t| t > 0));
        assert_eq!(inner_pid(me), Some(me));
        assert!(!command_line(me).is_empty() && !name(me).is_empty());
    }

    /// A process in a group of its own that stands still.
    fn frozen_child(group: &Cgroup) -> std::process::Child {
        let child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        fs::write(group.path().join("cgroup.procs"), child.id().to_string()).unwrap();
        group.set_frozen(true).unwrap();
        child
    }

    #[test]
    fn a_frozen_process_that_is_killed_never_counts_as_one_that_executes() {
        if !rustix::process::geteuid().is_root() || crate::cgroup::hierarchy().is_none() {
            eprintln!("SKIPPED: needs root and cgroup version 2");
            return;
        }
        let group = Cgroup::named(&format!("mainstay-test-{}", std::process::id())).unwrap();
        group.create().unwrap();
        let mut looks = 0;
        for _ in 0..100 {
            let mut child = frozen_child(&group);
            let pid = child.id().cast_signed();
            assert_eq!(stands_still(pid), Some(true));
            let killer = std::thread::spawn(move || {
                child.kill().unwrap();
                child.wait().unwrap();
            });
            while let Some(stands) = stands_still(pid) {
                assert!(stands, "a killed process seemed to execute");
                looks += 1;
            }
            killer.join().unwrap();
            group.set_frozen(false).unwrap();
        }
        group.remove().unwrap();
        assert!(looks > 0);
    }

    #[test]
    fn a_busy_process_uses_a_processor_and_one_that_sleeps_does_not() {
        for (script, expected) in [("while :; do :; done", true), ("sleep 60 & wait", false)] {
            let mut child = std::process::Command::new("sh").args(["-c", script]).spawn().unwrap();
            let pid = child.id().cast_signed();
            // On a busy machine it may have to wait for a processor; the other one must never seem to have one once it sleeps.
            let seen = (0..500).any(|_| uses_a_processor(pid) || !expected && state(pid) == Some('S'));
            assert!(seen, "{script}");
            assert!(expected || !uses_a_processor(pid), "{script}");
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    #[test]
    fn uuids_are_fresh() {
        let (a, b) = (random_uuid(), random_uuid());
        assert_eq!(a.len(), 36);
        assert_ne!(a, b);
    }
}
