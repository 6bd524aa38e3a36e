//! Whether this machine can run a lab, and what to do if not.

use std::fmt;
use std::path::Path;

use crate::cgroup;
use crate::exec;
use std::sync::atomic::{AtomicU64, Ordering};

static PROBES: AtomicU64 = AtomicU64::new(0);

/// Something that is missing, and the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// What is missing.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.remedy)
    }
}

const INSTALL: &str = "run scripts/install-packages.sh";

const TOOLS: [&str; 17] = [
    "ip",
    "nft",
    "unshare",
    "nsenter",
    "setsid",
    "mount",
    "umount",
    "hostname",
    "ping",
    "nasm",
    "virsh",
    "libvirtd",
    "qemu-system-x86_64",
    "glusterfs",
    "glusterfsd",
    "mkfs.ext4",
    "losetup",
];

fn on_path(tool: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').any(|dir| Path::new(dir).join(tool).is_file())
}

/// Everything that is missing; empty when a lab can be brought up.
pub(crate) fn check() -> Vec<Missing> {
    let mut missing = Vec::new();
    let mut miss = |what: &str, remedy: &str| {
        missing.push(Missing { what: what.to_string(), remedy: remedy.to_string() });
    };
    if !rustix::process::geteuid().is_root() {
        miss("root rights", "run it as root: the lab makes namespaces, mounts and cgroups (try sudo)");
        // The rest can't be told apart from this.
        return missing;
    }
    for tool in TOOLS {
        if !on_path(tool) {
            miss(&format!("the program {tool}"), INSTALL);
        }
    }
    if !Path::new("/dev/fuse").exists() {
        miss("/dev/fuse", "load it with `modprobe fuse`; in a container, pass --device /dev/fuse");
    }
    match cgroup::hierarchy() {
        None => miss(
            "cgroup version 2",
            "mount it: `mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified`",
        ),
        Some(root) => {
            // Tests of one process check at the same time: each needs a name of its own.
            let number = PROBES.fetch_add(1, Ordering::Relaxed);
            let probe = root.join(format!("mainstay-lab-probe-{}-{number}", std::process::id()));
            if std::fs::create_dir(&probe).is_err() {
                miss(
                    "a writable cgroup version 2",
                    "in a container, run it privileged with its own cgroup namespace",
                );
            } else {
                if !probe.join("cgroup.kill").exists() {
                    miss("cgroup.kill", "needs Linux 5.14 or later");
                }
                // Made a moment ago and empty; were it to stay, it is an empty directory.
                let _ = std::fs::remove_dir(&probe);
            }
        }
    }
    if on_path("unshare") {
        let argv = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--net", "--cgroup", "--fork", "true"];
        if exec::run("try namespaces", &argv).is_err() {
            miss("namespaces (unshare is refused)", "in a container, run it privileged");
        }
    }
    let user = exec::run("look up a user", &["getent", "passwd", "libvirt-qemu"]);
    if user.is_err() {
        miss("the system user libvirt-qemu", INSTALL);
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As live tests of one process do: none may see what another one makes for a moment.
    #[test]
    fn checks_at_the_same_time_find_the_same() {
        let alone = check();
        std::thread::scope(|scope| {
            let checks: Vec<_> = (0..16).map(|_| scope.spawn(check)).collect();
            for other in checks {
                assert_eq!(other.join().expect("no panic"), alone);
            }
        });
    }

    #[test]
    fn every_remedy_says_what_to_do() {
        // Which of them apply depends on the machine; that none is empty doesn't.
        assert!(check().iter().all(|m| !m.what.is_empty() && m.remedy.len() > 10));
    }
}
