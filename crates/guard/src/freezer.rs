//! Stopping a VM's process at once, reversibly.
//!
//! The freezer of cgroup version 2, else that of version 1, else SIGSTOP. A group that holds nothing but the VM is frozen as it
//! is (libvirt's machine scope, with all helpers in it); a process in a group with others is moved into a child group
//! `mainstay-<uuid>` of that group, where all limits of the old one still hold.
//!
//! # When a process counts as frozen
//!
//! "Frozen" must mean that no guest instruction is executed from then on. The kernel says so by `frozen 1` (or `FROZEN`); but it
//! says so only when *all* threads stand still, and one that is in uninterruptible sleep (a hung datastore) stands still only when it
//! leaves that sleep.
//!
//! Safety argument: once freezing has been requested, every thread has a mark that it must pass on its way from the kernel to user
//! mode, and to the guest. So a thread that is seen off the processor (any state but `R`) *after* the request is inside the kernel, and
//! executes nothing of QEMU or the guest before it has been thawed. A thread seen as `R` may be in user mode still. Therefore: frozen
//! when the kernel says so, or when the request stands and no thread is `R`. A thread that is created meanwhile inherits the mark.
//!
//! With SIGSTOP the same holds for threads in uninterruptible sleep; the mark is a signal to each thread. But anybody's SIGCONT
//! takes all of them away, so a thread that merely sleeps does not count as stopped.
//!
//! What this does not stop: a write that QEMU gave to the kernel before. No freezer can; releases are decided by claims.

use crate::qemu::Process;
use mainstay_words::{ProcessState, VmId};
use rustix::process::Signal;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The hierarchies of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Freezer {
    /// Where version 2 is mounted.
    unified: Option<PathBuf>,
    /// Where version 1 with its freezer is mounted.
    legacy: Option<PathBuf>,
}

/// The two versions of control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Unified,
    Legacy,
}

/// A group to freeze.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    version: Version,
    mount: PathBuf,
    dir: PathBuf,
}

/// A process, and how it is stopped.
#[derive(Clone, Debug)]
pub struct Hold {
    /// The process that was looked at.
    pub process: Process,
    vm: VmId,
    group: Option<Group>,
    /// The guard has sent SIGSTOP.
    stopped: bool,
}

impl Freezer {
    /// What this host has.
    pub fn find() -> Freezer {
        Freezer::of(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
    }

    /// A freezer that uses SIGSTOP only, without cgroups.
    pub fn by_signal() -> Freezer {
        Freezer::default()
    }

    /// Without version 2.
    pub fn without_unified(self) -> Freezer {
        Freezer { unified: None, ..self }
    }

    /// Whether it has a control group freezer.
    pub fn has_groups(&self) -> bool {
        self.unified.is_some() || self.legacy.is_some()
    }

    fn of(mountinfo: &str) -> Freezer {
        let mut freezer = Freezer::default();
        for line in mountinfo.lines() {
            // "36 35 98:0 /root /mount/point rw,noatime master:1 - type source options"
            let Some((before, after)) = line.split_once(" - ") else { continue };
            let Some(place) = before.split(' ').nth(4) else { continue };
            let mut after = after.split(' ');
            let (kind, options) = (after.next(), after.nth(1).unwrap_or_default());
            let place = PathBuf::from(place.replace("\\040", " "));
            // The last mount at a place is the one that is seen; of several places any will do.
            match kind {
                Some("cgroup2") => freezer.unified = Some(place),
                Some("cgroup") if options.split(',').any(|option| option == "freezer") => {
                    freezer.legacy = Some(place);
                }
                Some(_) | None => {}
            }
        }
        freezer
    }

    /// Finds the group for that process, or makes one and moves the process there.
    pub fn prepare(&self, vm: VmId, process: Process) -> Hold {
        let group = [(Version::Unified, &self.unified), (Version::Legacy, &self.legacy)]
            .into_iter()
            .filter_map(|(version, mount)| Some((version, mount.clone()?)))
            .find_map(|(version, mount)| match Group::prepare(version, mount, vm, &process) {
                Ok(group) => Some(group),
                Err(error) => {
                    if process.exists() {
                        tracing::warn!(%vm, pid = process.pid, ?version, %error, "no control group to freeze this VM with");
                    }
                    None
                }
            });
        Hold { process, vm, group, stopped: false }
    }

    /// Removes groups of ours that hold nothing any more, of whichever VM.
    pub fn remove_leftovers(&self) {
        for mount in [&self.unified, &self.legacy].into_iter().flatten() {
            remove_empty_below(mount);
        }
    }
}

/// A group with a process in it can't be removed, so trying does no harm.
fn remove_empty_below(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let is_ours =
            entry.file_name().to_str().and_then(|name| name.strip_prefix(PREFIX)).and_then(VmId::parse);
        if is_ours.is_some() {
            let _ = fs::remove_dir(entry.path());
        } else {
            remove_empty_below(&entry.path());
        }
    }
}

const PREFIX: &str = "mainstay-";

impl Hold {
    /// A process that has not been looked at: SIGSTOP has to do until then.
    pub fn unprepared(vm: VmId, process: Process) -> Hold {
        Hold { process, vm, group: None, stopped: false }
    }

    /// Whether there is a group for it.
    pub fn is_prepared(&self) -> bool {
        self.group.is_some()
    }

    /// Takes over what another look at the same process has found.
    pub fn take_group(&mut self, other: &Hold) {
        if self.process.identity() == other.process.identity() && other.group.is_some() {
            self.group = other.group.clone();
        }
    }

    /// Requests that it stop. `thoroughly`: what was done before has not worked; everything is tried.
    pub fn freeze(&mut self, freezer: &Freezer, thoroughly: bool) {
        let is_lost = |group: &Group| thoroughly && !group.contains(&self.process);
        if self.group.as_ref().is_none_or(is_lost) && freezer.has_groups() {
            self.group = freezer.prepare(self.vm, self.process.clone()).group;
        }
        let frozen = self.group.as_ref().map(|group| group.request(true));
        match frozen {
            Some(Ok(())) if !thoroughly => return,
            Some(Ok(())) | None => {}
            Some(Err(error)) => {
                tracing::warn!(vm = %self.vm, pid = self.process.pid, %error, "the control group can't be frozen: stopping the process by a signal");
                self.group = None;
            }
        }
        self.stopped = true;
        self.process.stop_each_thread();
    }

    /// Lets it go on.
    pub fn thaw(&mut self) {
        // Always: an earlier run of the guard may have stopped it, and while a group is frozen that does not show.
        self.stopped = false;
        self.process.signal(Signal::CONT);
        if let Some(Err(error)) = self.group.as_ref().map(|group| group.request(false))
            && self.process.exists()
        {
            tracing::error!(vm = %self.vm, pid = self.process.pid, %error, "a VM can't be thawed");
        }
    }

    /// Ends the process by SIGKILL.
    pub fn kill(&self) {
        self.process.signal(Signal::KILL);
        // A process that version 1 has frozen dies only once it is thawed; it executes nothing before that.
        if let Some(group) = self.group.as_ref().filter(|group| group.version == Version::Legacy)
            && let Err(error) = group.request(false)
            && self.process.exists()
        {
            tracing::error!(vm = %self.vm, pid = self.process.pid, %error, "a killed VM can't be thawed, so it can't end");
        }
    }

    /// What the process does.
    pub fn state(&self) -> ProcessState {
        if !self.process.exists() {
            return ProcessState::Absent;
        }
        let is_frozen = self.group.as_ref().is_some_and(|group| group.is_frozen(&self.process));
        if is_frozen || self.is_stopped() { ProcessState::Frozen } else { ProcessState::Runs }
    }

    /// By a signal.
    fn is_stopped(&self) -> bool {
        let states = self.process.thread_states();
        let sleeps = |state: &char| *state == 'D' && self.stopped;
        states.iter().all(|state| matches!(state, 'T' | 't' | 'Z' | 'X') || sleeps(state))
            && states.iter().any(|state| matches!(state, 'T' | 't' | 'D'))
    }

    /// Removes the group if it is one of ours and holds nothing any more.
    pub fn remove_group(&self) -> bool {
        let Some(group) = self.group.as_ref().filter(|group| group.is_ours(self.vm)) else { return true };
        match fs::remove_dir(&group.dir) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }
}

impl Group {
    fn prepare(version: Version, mount: PathBuf, vm: VmId, process: &Process) -> io::Result<Group> {
        let dir = place_of(version, &mount, process)?;
        if let Some(scope) = dir.ancestors().take_while(|dir| *dir != mount).find(|dir| is_machine(dir)) {
            return Ok(Group { version, dir: scope.to_path_buf(), mount });
        }
        // Single threads may be in groups of their own; the process as a whole is in the one above those.
        let mut dir = dir;
        while version == Version::Unified && read(&dir, "cgroup.type").trim() == "threaded" {
            let Some(parent) = dir.parent().filter(|parent| parent.starts_with(&mount)) else { break };
            dir = parent.to_path_buf();
        }
        let group = Group { version, mount, dir };
        if group.dir != group.mount && (group.is_ours(vm) || group.pids() == [process.pid]) {
            return Ok(group);
        }
        let group = Group { dir: group.dir.join(format!("{PREFIX}{vm}")), ..group };
        match fs::create_dir(&group.dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        // One that was left frozen, by a process that was killed, would freeze this one.
        if group.pids().is_empty() {
            group.request(false)?;
        }
        fs::write(group.dir.join("cgroup.procs"), process.pid.to_string())?;
        if group.contains(process) { Ok(group) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn is_ours(&self, vm: VmId) -> bool {
        let name = self.dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.strip_prefix(PREFIX).and_then(VmId::parse) == Some(vm)
    }

    /// All processes in it and below.
    fn pids(&self) -> Vec<u32> {
        fn add(dir: &Path, pids: &mut Vec<u32>) {
            pids.extend(read(dir, "cgroup.procs").lines().filter_map(|line| line.parse::<u32>().ok()));
            let Ok(entries) = fs::read_dir(dir) else { return };
            for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
                add(&entry.path(), pids);
            }
        }
        let mut pids = Vec::new();
        add(&self.dir, &mut pids);
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    fn request(&self, frozen: bool) -> io::Result<()> {
        let (file, text) = match (self.version, frozen) {
            (Version::Unified, true) => ("cgroup.freeze", "1"),
            (Version::Unified, false) => ("cgroup.freeze", "0"),
            (Version::Legacy, true) => ("freezer.state", "FROZEN"),
            (Version::Legacy, false) => ("freezer.state", "THAWED"),
        };
        // Not created where there is none: that would be a plain file on something else.
        io::Write::write_all(
            &mut fs::OpenOptions::new().write(true).open(self.dir.join(file))?,
            text.as_bytes(),
        )
    }

    fn contains(&self, process: &Process) -> bool {
        place_of(self.version, &self.mount, process).is_ok_and(|dir| dir.starts_with(&self.dir))
    }

    /// See the module's header.
    fn is_frozen(&self, process: &Process) -> bool {
        if !self.contains(process) {
            return false;
        }
        let (is_frozen, is_requested) = match self.version {
            Version::Unified => (
                read(&self.dir, "cgroup.events").lines().any(|line| line == "frozen 1"),
                read(&self.dir, "cgroup.freeze").trim() == "1",
            ),
            Version::Legacy => {
                let state = read(&self.dir, "freezer.state");
                (state.trim() == "FROZEN", state.trim() == "FREEZING")
            }
        };
        is_frozen || (is_requested && !process.thread_states().contains(&'R'))
    }
}

fn read(dir: &Path, file: &str) -> String {
    fs::read_to_string(dir.join(file)).unwrap_or_default()
}

/// The directory of the group that the process is in.
fn place_of(version: Version, mount: &Path, process: &Process) -> io::Result<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{}/cgroup", process.pid))?;
    let path = text.lines().find_map(|line| {
        // "4:memory,freezer:/path", and "0::/path" for version 2.
        let mut fields = line.splitn(3, ':');
        let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let fits = match version {
            Version::Unified => number == "0" && controllers.is_empty(),
            Version::Legacy => controllers.split(',').any(|controller| controller == "freezer"),
        };
        fits.then_some(path)
    });
    let path = path.ok_or(io::ErrorKind::NotFound)?;
    let dir = mount.join(path.trim_start_matches('/'));
    // In a container the paths may be about another root than the mount shows.
    if dir.join("cgroup.procs").exists() { Ok(dir) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// A group that libvirt made for one machine: `machine-qemu\x2d1\x2dname.scope` with systemd, `qemu-1-name.libvirt-qemu` without.
fn is_machine(dir: &Path) -> bool {
    let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    (name.starts_with("machine-qemu") && name.ends_with(".scope")) || name.ends_with(".libvirt-qemu")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_found_in_the_mount_table() {
        let hybrid = "30 20 0:5 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
            31 30 0:6 / /sys/fs/cgroup/freezer rw,relatime shared:3 - cgroup cgroup rw,freezer\n\
            32 30 0:7 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
            33 30 0:8 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        let found = Freezer::of(hybrid);
        assert_eq!(found.unified.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(found.legacy.as_deref(), Some(Path::new("/sys/fs/cgroup/freezer")));
        assert_eq!(Freezer::of("garbage\n"), Freezer::by_signal());
    }

    #[test]
    fn libvirts_groups_are_known_by_name() {
        for (name, expected) in [
            ("/sys/fs/cgroup/machine.slice/machine-qemu\\x2d3\\x2dweb.scope", true),
            ("/sys/fs/cgroup/machine/qemu-3-web.libvirt-qemu", true),
            ("/sys/fs/cgroup/system.slice/libvirtd.service", false),
            ("/sys/fs/cgroup/machine.slice", false),
        ] {
            assert_eq!(is_machine(Path::new(name)), expected, "{name}");
        }
    }
}
