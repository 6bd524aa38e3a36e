//! The suite on real QEMU (TCG) under a libvirtd of our own, in namespaces of our own.
//!
//! The test runs its own binary again inside `unshare`, so that no libvirt of this machine is seen or touched, and all
//! processes end with the namespace.

use std::fs;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use mainstay_hypervisor::{Config, DomainUuid, Event, Handle, Hypervisor};
use mainstay_testkit::wait_until;
use mainstay_words::VmId;

use crate::recorder::Recorder;
use crate::suite::World;

const INSIDE: &str = "MAINSTAY_TEST_INSIDE";

/// The file that says that the test ran to its end.
const ENDED: &str = "ended";

/// Boots, switches the power button on (PM1 of SeaBIOS's ACPI at 0x600), says R on the serial line, halts until the button
/// is pressed, and powers off. A button that is pressed before it is switched on has no effect.
const GUEST: [u8; 38] = [
    0xfa, 0x31, 0xc0, 0x8e, 0xd8, // cli; xor ax,ax; mov ds,ax
    0xba, 0x02, 0x06, 0xb8, 0x00, 0x01, 0xef, // mov dx,0x602; mov ax,0x100; out dx,ax
    0xba, 0xf8, 0x03, 0xb0, b'R', 0xee, // mov dx,0x3f8; mov al,'R'; out dx,al
    0xfb, 0xf4, // sti; hlt
    0xba, 0x00, 0x06, 0xed, // mov dx,0x600; in ax,dx
    0xf6, 0xc4, 0x01, 0x74, 0xf6, // test ah,1; jz hlt
    0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef, // mov dx,0x604; mov ax,0x2000; out dx,ax
    0xfa, 0xf4, // cli; hlt
];

pub const QEMU_CONF: &str = r#"user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = [ ]
cgroup_controllers = [ ]
stdio_handler = "file"
"#;

pub const LIBVIRTD_CONF: &str = r#"auth_unix_rw = "none"
auth_unix_ro = "none"
host_uuid = "00000001-7777-4777-8777-777777777771"
log_filters = "4:util.netdev"
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
"#;

/// A user that the QEMU driver looks up even when it does not use it, and everything that libvirt writes to, made private. A /sys that
/// shows the network of the namespace. Arguments: directory, and a host name for a second host in the same namespaces.
pub const MOUNTS: &str = r#"set -e
dir=$1
mount --make-rprivate /
# A second host has it already.
[ -n "$2" ] || mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/libvirt /run/lock
for pair in etc:/etc lib:/var/lib log:/var/log cache:/var/cache; do
  mkdir -p "$dir/${pair%%:*}" "${pair#*:}/libvirt"
  mount --bind "$dir/${pair%%:*}" "${pair#*:}/libvirt"
done
{ grep -v '^libvirt-qemu:' /etc/passwd; echo 'libvirt-qemu:x:64055:64055::/nonexistent:/bin/false'; } > "$dir/passwd"
{ grep -v '^libvirt-qemu:' /etc/group; echo 'libvirt-qemu:x:64055:'; } > "$dir/group"
mount --bind "$dir/passwd" /etc/passwd
mount --bind "$dir/group" /etc/group
echo '127.0.0.1 localhost hypervisor-test other-host' > "$dir/hosts"
mount --bind "$dir/hosts" /etc/hosts
hostname "${2:-hypervisor-test}"
ip link set lo up
"#;

/// Runs `body` inside, by running the test `name` (with its module) again there.
pub fn inside(name: &str, body: impl FnOnce(&RealWorld)) {
    if let Some(dir) = std::env::var_os(INSIDE) {
        body(&RealWorld::start(Path::new(&dir)));
        fs::write(Path::new(&dir).join(ENDED), "").expect("a file");
        return;
    }
    if let Some(missing) = what_is_missing() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "in CI this test must run, but {missing}");
        eprintln!("SKIPPED {name}: {missing}");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let status = Command::new("unshare")
        .args(["--mount", "--pid", "--net", "--uts", "--fork", "--kill-child", "--mount-proc"])
        // A shell as process 1, because it reaps orphans. libvirt's trial QEMUs daemonise, and it waits for their end.
        .args(["sh", "-c", "\"$@\"; exit $?", "sh"])
        .arg(std::env::current_exe().expect("own path"))
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, dir.path())
        .stdin(Stdio::null())
        .status()
        .expect("unshare");
    if !status.success() {
        let log = fs::read_to_string(dir.path().join("log/libvirtd.log")).unwrap_or_default();
        panic!("{name} failed inside its namespaces, see above ({status}). libvirtd's log:\n{log}");
    }
    // A name that no test has would run none, and succeed.
    assert!(dir.path().join(ENDED).exists(), "no test {name} ran inside");
}

fn what_is_missing() -> Option<String> {
    // Safety: no arguments, no failure.
    if unsafe { libc::geteuid() } != 0 {
        return Some("it needs root (for namespaces and mounts)".into());
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let programs = ["libvirtd", "virsh", "qemu-system-x86_64", "unshare", "mount", "ip"];
    let missing = programs.iter().find(|program| {
        !path.split(':').chain(["/usr/sbin", "/sbin"]).any(|dir| Path::new(dir).join(program).exists())
    })?;
    Some(format!("{missing} is not installed"))
}

pub struct RealWorld {
    dir: PathBuf,
    libvirtd: Mutex<Option<Child>>,
    pub hypervisor: Hypervisor,
    pub news: Recorder,
    locks: Mutex<Vec<(String, File)>>,
}

impl RealWorld {
    fn start(dir: &Path) -> RealWorld {
        for (path, text) in [("etc/qemu.conf", QEMU_CONF), ("etc/libvirtd.conf", LIBVIRTD_CONF)] {
            fs::create_dir_all(dir.join("etc")).expect("a directory");
            fs::write(dir.join(path), text).expect("a file");
        }
        let mounted = Command::new("sh").args(["-c", MOUNTS, "sh"]).arg(dir).status().expect("sh");
        assert!(mounted.success(), "mounts");
        let news = Recorder::default();
        // libvirt does not know the storage of the tests to be shared.
        let config =
            Config { resync_interval: Duration::from_secs(2), migrate_unsafe: true, ..Config::default() };
        let hypervisor = Hypervisor::start(config, news.sink()).expect("threads");
        let world = RealWorld {
            dir: dir.to_owned(),
            libvirtd: Mutex::new(None),
            hypervisor,
            news,
            locks: Mutex::new(Vec::new()),
        };
        world.start_libvirtd();
        world.news.wait("connected", 0, |event| matches!(event, Event::Connected).then_some(()));
        world
    }

    pub fn start_libvirtd(&self) {
        let child = Command::new("libvirtd")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("libvirtd");
        *self.libvirtd.lock().expect("not poisoned") = Some(child);
    }

    pub fn signal_libvirtd(&self, signal: i32) {
        let daemon = self.libvirtd.lock().expect("not poisoned");
        kill(daemon.as_ref().expect("libvirtd was started").id(), signal);
    }

    pub fn kill_libvirtd(&self) {
        let mut daemon = self.libvirtd.lock().expect("not poisoned").take().expect("libvirtd was started");
        daemon.kill().expect("it is ours");
        daemon.wait().expect("it is ours");
        let _ = fs::remove_file("/run/libvirtd.pid");
    }

    pub fn sh(&self, line: &str) {
        let status = Command::new("sh").args(["-c", line]).status().expect("sh");
        assert!(status.success(), "{line}");
    }

    /// What it printed.
    pub fn virsh(&self, arguments: &[&str]) -> String {
        let output = Command::new("virsh")
            .args(["-q", "-c", "qemu:///system"])
            .args(arguments)
            .output()
            .expect("virsh");
        assert!(output.status.success(), "virsh {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub fn qemu(&self, uuid: DomainUuid) -> u32 {
        mainstay_processes::find_qemu(VmId(uuid.0)).expect("/proc").expect("it runs")
    }

    pub fn signal_qemu(&self, uuid: DomainUuid, signal: i32) {
        kill(self.qemu(uuid), signal);
    }

    pub fn wait_no_qemu(&self, uuid: DomainUuid) {
        let ended = || mainstay_processes::find_qemu(VmId(uuid.0)).expect("/proc").is_none();
        wait_until(&format!("the end of QEMU of {uuid}"), ended);
    }

    /// Where this world keeps its files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn disk(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.raw"))
    }

    /// A definition with a disk that boots `program`.
    pub fn xml_of(&self, name: &str, program: &[u8]) -> (DomainUuid, String) {
        let path = self.disk(name);
        if !path.exists() {
            // SeaBIOS boots no disk of less than 1 MiB.
            let mut image = vec![0u8; 1 << 20];
            image[..program.len()].copy_from_slice(program);
            image[510..512].copy_from_slice(&[0x55, 0xaa]);
            fs::write(&path, image).expect("an image");
        }
        crate::small::domain_xml(name, path.to_str().expect("UTF-8"))
    }
}

impl Drop for RealWorld {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.libvirtd.lock().expect("not poisoned").take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

pub fn kill(pid: u32, signal: i32) {
    let pid = i32::try_from(pid).expect("a pid");
    // Safety: a plain system call on a process of this namespace.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "kill {pid}");
}

/// QEMU marks "nobody else may write" by a lock on byte 201 of the image; a lock of ours there keeps it out.
fn take_write_lock(file: &File) {
    // Safety: all-zero is a valid flock.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_RDLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = 201;
    lock.l_len = 1;
    // Safety: the file is open, the pointer valid.
    assert_eq!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &lock) }, 0, "lock");
}

impl World for RealWorld {
    fn handle(&self) -> &dyn Handle {
        &self.hypervisor
    }

    fn news(&self) -> &Recorder {
        &self.news
    }

    fn xml(&self, name: &str) -> (DomainUuid, String) {
        self.xml_of(name, &GUEST)
    }

    fn wait_booted(&self, name: &str) {
        let serial = format!("{}.serial", self.disk(name).display());
        let booted = || fs::read(&serial).is_ok_and(|text| text.ends_with(b"R"));
        wait_until(&format!("the boot of {name}"), booted);
    }

    fn resync(&self) {
        self.hypervisor.resync();
    }

    fn user_destroys(&self, uuid: DomainUuid) {
        self.virsh(&["destroy", &uuid.to_string()]);
    }

    fn kill_qemu(&self, uuid: DomainUuid) {
        self.signal_qemu(uuid, libc::SIGKILL);
    }

    fn terminate_qemu(&self, uuid: DomainUuid) {
        self.signal_qemu(uuid, libc::SIGTERM);
    }

    fn lock_image(&self, name: &str, locked: bool) {
        let mut locks = self.locks.lock().expect("not poisoned");
        locks.retain(|(held, _)| held != name);
        if locked {
            self.xml(name);
            let file = File::open(self.disk(name)).expect("the image");
            take_write_lock(&file);
            locks.push((name.to_owned(), file));
        }
    }
}
