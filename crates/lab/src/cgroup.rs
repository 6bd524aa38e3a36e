//! Control groups, version 2: how the lab knows which processes belong to a host, stops them all, and kills them all.
//!
//! Nothing is ever killed by its name or by a number from a file: only what is in a cgroup that this lab made.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{At, LabError, Result};
use crate::process;

/// Where the version 2 hierarchy is mounted: alone, or beside version 1.
pub(crate) fn hierarchy() -> Option<PathBuf> {
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .into_iter()
        .map(PathBuf::from)
        .find(|p| p.join("cgroup.controllers").exists())
}

/// One control group.
#[derive(Debug, Clone)]
pub(crate) struct Cgroup(PathBuf);

impl Cgroup {
    /// The group of that name below the root, whether it exists or not.
    pub(crate) fn named(name: &str) -> Result<Cgroup> {
        let root = hierarchy().ok_or_else(|| {
            LabError::Config(
                "no cgroup version 2 hierarchy at /sys/fs/cgroup or /sys/fs/cgroup/unified".into(),
            )
        })?;
        Ok(Cgroup(root.join(name)))
    }

    /// A group below this one.
    pub(crate) fn child(&self, name: &str) -> Cgroup {
        Cgroup(self.0.join(name))
    }

    /// Where the kernel shows it, below `/sys/fs/cgroup`.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Whether it exists.
    pub(crate) fn exists(&self) -> bool {
        self.0.is_dir()
    }

    /// Makes it, and those above it.
    pub(crate) fn create(&self) -> Result<()> {
        fs::create_dir_all(&self.0).at("create cgroup", &self.0)
    }

    /// Its processes and those of the groups below it.
    pub(crate) fn pids(&self) -> Vec<i32> {
        let mut pids: Vec<i32> = fs::read_to_string(self.0.join("cgroup.procs"))
            .unwrap_or_default()
            .lines()
            .filter_map(|l| l.parse().ok())
            .collect();
        for below in self.children() {
            pids.extend(below.pids());
        }
        // One that is moved to a group below while we look (as a guard does with a VM) is in both answers.
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    fn children(&self) -> Vec<Cgroup> {
        let Ok(entries) = fs::read_dir(&self.0) else { return Vec::new() };
        entries.flatten().filter(|e| e.path().is_dir()).map(|e| Cgroup(e.path())).collect()
    }

    fn event(&self, key: &str) -> bool {
        let text = fs::read_to_string(self.0.join("cgroup.events")).unwrap_or_default();
        text.lines().any(|l| l.split_once(' ') == Some((key, "1")))
    }

    /// Whether any process is in it or below it.
    pub(crate) fn populated(&self) -> bool {
        self.event("populated")
    }

    /// Whether every process in it stands still.
    pub(crate) fn frozen(&self) -> bool {
        self.event("frozen")
    }

    /// Whether it, or one above it, was told to stand still. From then on a thread of a process in it executes nothing: at the
    /// latest when it is about to go back from the kernel to its program, it stops.
    pub(crate) fn freezing(&self) -> bool {
        let told =
            |dir: &Path| fs::read_to_string(dir.join("cgroup.freeze")).is_ok_and(|text| text.trim() == "1");
        self.0.ancestors().any(told)
    }

    /// Stops all its processes, or lets them go on, and waits until that is so. Not until the kernel calls all of them frozen: a
    /// thread that waits for a datastore whose client was stopped first keeps it from that for as long as the group stands still.
    pub(crate) fn set_frozen(&self, frozen: bool) -> Result<()> {
        let file = self.0.join("cgroup.freeze");
        fs::write(&file, if frozen { "1" } else { "0" }).at("write", &file)?;
        let is_done = |g: &Cgroup| {
            g.frozen() == frozen || (frozen && g.pids().into_iter().all(|pid| !process::executes(pid)))
        };
        self.wait(Duration::from_secs(10), if frozen { "freeze" } else { "thaw" }, is_done)
    }

    /// Kills all its processes at once and waits until they are gone.
    pub(crate) fn kill(&self) -> Result<()> {
        if !self.exists() {
            return Ok(());
        }
        let file = self.0.join("cgroup.kill");
        fs::write(&file, "1").at("write", &file)?;
        self.wait(Duration::from_secs(20), "kill", |g| !g.populated())
    }

    fn wait(&self, limit: Duration, what: &str, done: impl Fn(&Cgroup) -> bool) -> Result<()> {
        let start = Instant::now();
        while !done(self) {
            if start.elapsed() > limit {
                return Err(LabError::Timeout {
                    what: format!("{what} of all processes in {}", self.0.display()),
                    limit,
                    dump: format!("still there: {:?}", self.pids()),
                });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Removes it and all below it. They must be empty.
    pub(crate) fn remove(&self) -> Result<()> {
        for below in self.children() {
            below.remove()?;
        }
        let start = Instant::now();
        loop {
            match fs::remove_dir(&self.0) {
                Ok(()) => return Ok(()),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
                // A process that has just died still counts for a moment.
                Err(e)
                    if e.raw_os_error() == Some(nix::errno::Errno::EBUSY as i32)
                        && start.elapsed() < Duration::from_secs(2) =>
                {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(e) => return Err(e).at("remove cgroup", &self.0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_moved_meanwhile_counts_once() {
        if !rustix::process::geteuid().is_root() || hierarchy().is_none() {
            eprintln!("SKIPPED: needs root and cgroup version 2");
            return;
        }
        let group = Cgroup::named(&format!("mainstay-test-moves-{}", std::process::id())).unwrap();
        let below = group.child("below");
        below.create().unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id();
        std::thread::scope(|scope| {
            let mover = scope.spawn(|| {
                for _ in 0..2_000 {
                    for place in [&group, &below] {
                        fs::write(place.path().join("cgroup.procs"), pid.to_string()).unwrap();
                    }
                }
            });
            while !mover.is_finished() {
                assert!(group.pids().len() <= 1, "counted twice");
            }
        });
        child.kill().unwrap();
        child.wait().unwrap();
        group.remove().unwrap();
    }
}
