//! QEMU processes of this host, found without libvirt.
//!
//! libvirt puts `-uuid <uuid>` on every QEMU command line. So whether a VM still has a process can be told when libvirtd is
//! dead, hangs, or says "shut off" too early.
//!
//! A killed QEMU with a thread in a hung write shows as a zombie with an empty command line, although that thread lives on
//! and its write may still reach the disk. So the threads' own command lines are read as well.
//!
//! Reading a command line takes the process's memory-map lock, which can block while the process is stuck in a page fault
//! on hung storage. Call what says so from a thread that may be delayed, never from one that keeps deadlines. `stat` files
//! take no such lock.
//!
//! It does not signal, freeze or judge anything.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use mainstay_words::VmId;

/// A process, by number. Numbers are used again: check again, or hold a pidfd, before sending a signal.
pub type Pid = u32;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum ProcessesError {
    /// `/proc` can't be listed.
    #[error("cannot list the processes in /proc: {0}; mount it (`mount -t proc proc /proc`)")]
    Unlisted(#[source] io::Error),
}

/// The QEMU process of a VM, or `None` if there is none. An error means that it isn't known. May be delayed.
pub fn find_qemu(vm: VmId) -> Result<Option<Pid>, ProcessesError> {
    Ok(find_all_qemu()?.get(&vm).copied())
}

/// All QEMU processes that have a UUID. If two have the same (an incoming migration to the same host), the older one, by
/// number. May be delayed.
pub fn find_all_qemu() -> Result<BTreeMap<VmId, Pid>, ProcessesError> {
    let mut found = BTreeMap::new();
    for pid in all_pids()? {
        if let Some(vm) = vm_of(pid) {
            found.entry(vm).and_modify(|earlier: &mut Pid| *earlier = (*earlier).min(pid)).or_insert(pid);
        }
    }
    Ok(found)
}

/// The numbers of all processes.
pub fn all_pids() -> Result<Vec<Pid>, ProcessesError> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc").map_err(ProcessesError::Unlisted)? {
        let entry = entry.map_err(ProcessesError::Unlisted)?;
        pids.extend(entry.file_name().to_str().and_then(|name| name.parse::<Pid>().ok()));
    }
    Ok(pids)
}

/// Whether `pid` is (still) the QEMU of this VM. May be delayed.
pub fn is_qemu_of(pid: Pid, vm: VmId) -> bool {
    vm_of(pid) == Some(vm)
}

/// The VM whose QEMU that process is, by its command line. May be delayed.
pub fn vm_of(pid: Pid) -> Option<VmId> {
    uuid_of_process(Path::new(&format!("/proc/{pid}")))
}

/// When the process was started, in clock ticks since boot: together with the number it names a process for the whole
/// boot. `None` when there is none. Never delayed.
pub fn start_time(pid: Pid) -> Option<u64> {
    // The 22nd field; the first of these is the third.
    Stat::read(&format!("/proc/{pid}/stat"))?.field(19)?.parse().ok()
}

/// The state letter of each thread of the process (`R`, `S`, `D`, `T`, `Z` …); none when there is no such process. Never
/// delayed.
pub fn thread_states(pid: Pid) -> Vec<char> {
    threads(pid).into_iter().filter_map(|thread| thread_state(pid, thread)).collect()
}

/// The state letter of one thread of the process (its leader has the process's number). Never delayed.
pub fn thread_state(pid: Pid, thread: Pid) -> Option<char> {
    Stat::read(&format!("/proc/{pid}/task/{thread}/stat"))?.state()
}

/// The numbers of the threads of the process.
pub fn threads(pid: Pid) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let number = |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
    entries.filter_map(number).collect()
}

/// What follows the name in a `stat` file: "pid (name) S 1 ...". The name may contain anything, so it begins after the last
/// bracket.
struct Stat(String);

impl Stat {
    fn read(path: &str) -> Option<Stat> {
        let bytes = fs::read(path).ok()?;
        let end_of_name = bytes.iter().rposition(|byte| *byte == b')')?;
        Some(Stat(String::from_utf8_lossy(bytes.get(end_of_name + 2..)?).into_owned()))
    }

    fn field(&self, index: usize) -> Option<&str> {
        self.0.split_ascii_whitespace().nth(index)
    }

    fn state(&self) -> Option<char> {
        self.field(0)?.chars().next()
    }
}

fn uuid_of_process(process: &Path) -> Option<VmId> {
    match fs::read(process.join("cmdline")) {
        Ok(cmdline) if !cmdline.is_empty() => uuid_of_cmdline(&cmdline),
        Ok(_) if is_zombie(process) => uuid_of_a_thread(process),
        // A kernel thread has none; a process that ended in between has nothing any more.
        Ok(_) | Err(_) => None,
    }
}

fn is_zombie(process: &Path) -> bool {
    Stat::read(&process.join("stat").to_string_lossy()).and_then(|stat| stat.state()) == Some('Z')
}

fn uuid_of_a_thread(process: &Path) -> Option<VmId> {
    let threads = fs::read_dir(process.join("task")).ok()?;
    threads
        .filter_map(|thread: io::Result<fs::DirEntry>| thread.ok())
        .filter_map(|thread| fs::read(thread.path().join("cmdline")).ok())
        .find_map(|cmdline| uuid_of_cmdline(&cmdline))
}

fn uuid_of_cmdline(cmdline: &[u8]) -> Option<VmId> {
    let mut arguments = cmdline.split(|byte| *byte == 0);
    arguments.find(|argument| *argument == b"-uuid")?;
    VmId::parse(std::str::from_utf8(arguments.next()?).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_testkit::wait_until;
    use std::process::{Child, Command, Stdio};

    /// Ends the child with the test.
    struct Reaped(Child);

    impl Drop for Reaped {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// A VM that no other test has, in no other process either.
    fn own_vm(number: u8) -> VmId {
        let mut id = *b"processtest.....";
        id[11] = number;
        id[12..].copy_from_slice(&std::process::id().to_le_bytes());
        VmId(id)
    }

    #[test]
    fn uuid_is_the_argument_after_the_option() {
        let uuid = VmId::parse("44c9b1b5-592e-4d43-b810-5d0eb8d81c64").expect("valid");
        let line = b"qemu-system-x86_64\0-name\0guest=n\0-uuid\x0044c9b1b5-592e-4d43-b810-5d0eb8d81c64\0-S\0";
        assert_eq!(uuid_of_cmdline(line), Some(uuid));
        for line in [
            &b"qemu\0-uuid\0"[..],
            b"qemu\0-uuid",
            b"qemu\0-uuid\0nonsense\0",
            b"",
            b"a -uuid 44c9b1b5-592e-4d43-b810-5d0eb8d81c64",
        ] {
            assert_eq!(uuid_of_cmdline(line), None);
        }
    }

    #[test]
    fn a_process_is_found_while_it_lives_and_not_after() {
        let uuid = own_vm(1);
        let child = Command::new("sh")
            .args(["-c", "read wait", "-uuid", &uuid.to_string()])
            .stdin(Stdio::piped())
            .spawn()
            .expect("sh");
        let pid = child.id();
        let child = Reaped(child);
        wait_until("the process", || find_qemu(uuid).expect("/proc") == Some(pid));
        assert!(is_qemu_of(pid, uuid));
        assert!(start_time(pid).is_some());
        assert_eq!(threads(pid), [pid]);
        wait_until("its read", || thread_states(pid) == ['S']);
        drop(child);
        assert_eq!(find_qemu(uuid).expect("/proc"), None);
    }

    /// The leader is a zombie, another thread lives: what a killed QEMU with a thread in a hung write looks like.
    #[test]
    fn a_zombie_with_a_living_thread_is_still_found() {
        const ROLE: &str = "MAINSTAY_TEST_ZOMBIE_LEADER";
        if std::env::var_os(ROLE).is_some() {
            leave_a_zombie_with_a_thread();
        }
        let uuid = own_vm(2);
        let name = "tests::a_zombie_with_a_living_thread_is_still_found";
        let mut child = Command::new(std::env::current_exe().expect("own path"))
            .args(["--exact", name, "--", "-uuid", &uuid.to_string()])
            .env(ROLE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("the test binary");
        let held = child.stdin.take();
        child.wait().expect("it forks and ends");
        let zombie =
            || find_qemu(uuid).expect("/proc").filter(|pid| is_zombie(Path::new(&format!("/proc/{pid}"))));
        wait_until("a zombie leader that is found", || zombie().is_some());
        // Its thread reads the end of the input, and ends.
        drop(held);
        wait_until("its end", || find_qemu(uuid).expect("/proc").is_none());
    }

    /// Goes on as a copy of this process, with the same command line, of which only a second thread lives.
    fn leave_a_zombie_with_a_thread() -> ! {
        // Safety: the copy has one thread, and uses nothing of the test harness.
        unsafe {
            if libc::fork() != 0 {
                libc::_exit(0);
            }
            std::thread::spawn(|| {
                let mut byte = 0u8;
                libc::read(0, (&raw mut byte).cast(), 1);
                libc::_exit(0);
            });
            loop {
                libc::syscall(libc::SYS_exit, 0);
            }
        }
    }
}
