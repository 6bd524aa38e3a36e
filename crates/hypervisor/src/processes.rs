//! QEMU processes of this host, found without libvirt.
//!
//! libvirt puts `-uuid <uuid>` on every QEMU command line. So whether a VM still has a process can be told when libvirtd is
//! dead, hangs, or says "shut off" too early.
//!
//! A killed QEMU with a thread in a hung write shows as a zombie with an empty command line, although that thread lives on
//! and its write may still reach the disk. So the threads' own command lines are read as well.
//!
//! Reading a command line takes the process's memory-map lock, which can block while the process is stuck in a page fault
//! on hung storage. Call this from a thread that may be delayed, never from one that keeps deadlines.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use crate::domain::DomainUuid;
use crate::error::Error;

/// A process, by number. Numbers are used again: check again, or hold a pidfd, before sending a signal.
pub type Pid = u32;

/// The QEMU process of a domain, or `None` if there is none. An error means that it isn't known.
pub fn find_qemu(uuid: DomainUuid) -> Result<Option<Pid>, Error> {
    Ok(find_all_qemu()?.get(&uuid).copied())
}

/// All QEMU processes that have a UUID. If two have the same (an incoming migration to the same host), the older one, by
/// number.
pub fn find_all_qemu() -> Result<BTreeMap<DomainUuid, Pid>, Error> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc").map_err(Error::Proc)? {
        let entry = entry.map_err(Error::Proc)?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<Pid>().ok()) else {
            continue;
        };
        if let Some(uuid) = uuid_of_process(&entry.path()) {
            found.entry(uuid).and_modify(|earlier: &mut Pid| *earlier = (*earlier).min(pid)).or_insert(pid);
        }
    }
    Ok(found)
}

/// Whether `pid` is (still) the QEMU of this domain.
pub fn is_qemu_of(pid: Pid, uuid: DomainUuid) -> bool {
    uuid_of_process(Path::new(&format!("/proc/{pid}"))) == Some(uuid)
}

fn uuid_of_process(process: &Path) -> Option<DomainUuid> {
    match fs::read(process.join("cmdline")) {
        Ok(cmdline) if !cmdline.is_empty() => uuid_of_cmdline(&cmdline),
        Ok(_) if is_zombie(process) => uuid_of_a_thread(process),
        // A kernel thread has none; a process that ended in between has nothing any more.
        Ok(_) | Err(_) => None,
    }
}

fn is_zombie(process: &Path) -> bool {
    // "pid (name) S ...": the name may contain anything, so count from the last bracket.
    let Ok(stat) = fs::read(process.join("stat")) else { return false };
    let after_name = stat.iter().rposition(|byte| *byte == b')').map(|position| position + 2);
    after_name.and_then(|position| stat.get(position)) == Some(&b'Z')
}

fn uuid_of_a_thread(process: &Path) -> Option<DomainUuid> {
    let threads = fs::read_dir(process.join("task")).ok()?;
    threads
        .filter_map(|thread: io::Result<fs::DirEntry>| thread.ok())
        .filter_map(|thread| fs::read(thread.path().join("cmdline")).ok())
        .find_map(|cmdline| uuid_of_cmdline(&cmdline))
}

fn uuid_of_cmdline(cmdline: &[u8]) -> Option<DomainUuid> {
    let mut arguments = cmdline.split(|byte| *byte == 0);
    arguments.find(|argument| *argument == b"-uuid")?;
    std::str::from_utf8(arguments.next()?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    /// Ends the child with the test.
    struct Reaped(Child);

    impl Drop for Reaped {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
        let give_up = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !condition() {
            assert!(std::time::Instant::now() < give_up, "never came: {what}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    #[test]
    fn uuid_is_the_argument_after_the_option() {
        let uuid: DomainUuid = "44c9b1b5-592e-4d43-b810-5d0eb8d81c64".parse().expect("valid");
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
        let uuid = DomainUuid(*b"mainstay-test-p1");
        let child = Command::new("sh")
            .args(["-c", "read wait", "-uuid", &uuid.to_string()])
            .stdin(Stdio::piped())
            .spawn()
            .expect("sh");
        let pid = child.id();
        let child = Reaped(child);
        wait_until("the process", || find_qemu(uuid).expect("/proc") == Some(pid));
        assert!(is_qemu_of(pid, uuid));
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
        let uuid = DomainUuid(*b"mainstay-test-p2");
        let name = "processes::tests::a_zombie_with_a_living_thread_is_still_found";
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
