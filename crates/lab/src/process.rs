//! What `/proc` says about a process.

use std::fs;

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

/// Whether its cgroup (version 2), or one above it, stands still. A thread that hangs in a datastore keeps its group from
/// being called frozen until the storage answers; it executes nothing either, as long as the group was told to stand still.
pub(crate) fn frozen(pid: i32) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let Some(path) = text.lines().find_map(|l| l.strip_prefix("0::/")) else { return false };
    Cgroup::named(path).is_ok_and(|g| g.frozen() || (g.freezing() && !executes(pid)))
}

/// Whether any of its threads is on a processor or waits for one.
fn executes(pid: i32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let stat = |path: std::path::PathBuf| fs::read_to_string(path.join("stat")).unwrap_or_default();
    let runs = |text: &str| text.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('R'));
    threads.map(|thread| stat(thread.path())).any(|text| runs(&text))
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

    #[test]
    fn uuids_are_fresh() {
        let (a, b) = (random_uuid(), random_uuid());
        assert_eq!(a.len(), 36);
        assert_ne!(a, b);
    }
}
