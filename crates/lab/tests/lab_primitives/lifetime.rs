//! The end of a lab: taken down, too old, by a signal, after a crash. Nothing of it stays on the machine.

use super::{LONG, lab};
use mainstay_lab::{DatastoreConfig, Lab, LabConfig, VmOptions};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Everything on this machine that bears a lab's name or lies in its directory.
fn traces(name: &str, dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        found.push(format!("netns {}", entry.file_name().to_string_lossy()));
    }
    for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
        for entry in fs::read_dir(root).into_iter().flatten().flatten() {
            found.push(format!("cgroup {}", entry.path().display()));
        }
    }
    found.retain(|f| f.contains(&format!("{name}-lab")));
    let dir = dir.display().to_string();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    found.extend(mounts.lines().filter(|l| l.contains(&dir)).map(|l| format!("mount {l}")));
    for entry in fs::read_dir("/sys/block").unwrap().flatten() {
        let backing = fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        if backing.contains(&dir) {
            found.push(format!("loop device of {backing}"));
        }
    }
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&dir) {
            found.push(format!("process {line}"));
        }
    }
    for host in 1..=3 {
        let link = format!("/run/mainstay/hosts/h{host}.sock");
        if fs::read_link(&link).is_ok_and(|to| to.starts_with(&dir)) {
            found.push(link);
        }
    }
    if Path::new(&dir).exists() {
        found.push(dir);
    }
    found
}

#[test]
fn taking_a_lab_down_leaves_nothing() {
    if !Lab::ready_for_live_tests() {
        return;
    }
    let (name, dir) = ("traces", Path::new("/var/tmp/mainstay-lab-traces"));
    let datastores = vec![DatastoreConfig::gluster("ds1").sized(64), DatastoreConfig::local("ds2")];
    let config = LabConfig { name: name.into(), dir: dir.into(), datastores, ..LabConfig::default() };
    for explicitly in [true, false] {
        let lab = lab(config.clone());
        lab.define_vm(1, "vm1", &VmOptions::default()).unwrap();
        lab.host(2).unwrap().hang().unwrap();
        lab.host(3).unwrap().power_off().unwrap();
        lab.hang_datastore("ds1").unwrap();
        let attached = Lab::attach().unwrap();
        assert_eq!(attached.hosts_running("vm1").unwrap(), [1]);
        drop(attached);
        let standing = traces(name, dir);
        for kind in ["netns", "cgroup", "mount", "loop", "process", "h1.sock"] {
            assert!(standing.iter().any(|t| t.contains(kind)), "no {kind} among {standing:?}");
        }
        if explicitly {
            lab.down().unwrap();
        } else {
            drop(lab);
        }
        assert_eq!(traces(name, dir), Vec::<String>::new());
    }
}

const HANGS: &str = "hangs";

/// Not a test: what [`a_lab_that_stands_too_long_is_taken_down_with_its_program`] starts.
#[test]
#[ignore = "it hangs on purpose"]
fn hangs_with_a_lab() {
    let dir = Path::new(mainstay_lab::DEFAULT_BASE).join(HANGS);
    // The lab must stand by then, on a busy machine too.
    let limit = Some(Duration::from_secs(20));
    let _lab =
        lab(LabConfig { name: HANGS.into(), dir, hosts: 2, time_limit: limit, ..LabConfig::default() });
    std::thread::sleep(LONG);
}

#[test]
fn a_lab_that_stands_too_long_is_taken_down_with_its_program() {
    if !Lab::ready_for_live_tests() {
        return;
    }
    let mut program = Command::new(std::env::current_exe().unwrap());
    // Its output is kept, as that of a test that passes: what is said all the same must be seen.
    let ended = program.args(["--exact", "lifetime::hangs_with_a_lab", "--ignored"]).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(101), "{said}");
    assert!(said.contains("hangs_with_a_lab is not done within 20 s") && said.contains("h2 "), "{said}");
    let dir = Path::new(mainstay_lab::DEFAULT_BASE).join(HANGS);
    assert!(dir.join("h1").is_dir(), "its files are kept");
    fs::remove_dir_all(&dir).unwrap();
    assert_eq!(traces(HANGS, &dir), Vec::<String>::new());
}

/// `mainstay-lab up` in the foreground, as soon as it says that its lab stands.
fn foreground_lab(name: &str) -> (Child, std::path::PathBuf) {
    let dir = Path::new(mainstay_lab::DEFAULT_BASE).join(name);
    let mut child = Command::new(env!("CARGO_BIN_EXE_mainstay-lab"))
        .args(["up", "--hosts", "2", "--vms", "2", "--wait", "900"])
        .env("MAINSTAY_LAB_NAME", name)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|l| l.unwrap().starts_with("vm2 ")), "`up` ended before its lab stood");
    (child, dir)
}

#[test]
fn a_lab_leaves_nothing_of_one_that_crashed_before_it() {
    if !Lab::ready_for_live_tests() {
        return;
    }
    let name = "crashed";
    let (mut child, dir) = foreground_lab(name);
    child.kill().unwrap();
    child.wait().unwrap();
    // Of another name, in another place: it would not come across the files by itself.
    drop(lab(LabConfig { hosts: 2, ..LabConfig::default() }));
    assert_eq!(traces(name, &dir), Vec::<String>::new());
}

#[test]
fn command_line_cleans_up_after_signals_and_crashes() {
    if !Lab::ready_for_live_tests() {
        return;
    }
    let name = "fromcli";
    let tool = |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_mainstay-lab")).args(args).output().unwrap();
    let signal = |child: &Child, signal: nix::sys::signal::Signal| {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id().cast_signed()), signal).unwrap();
    };

    let (mut child, dir) = foreground_lab(name);
    assert_eq!(tool(&["up"]).status.code(), Some(4), "a second lab is refused");
    assert!(tool(&["host", "off", "h2"]).status.success());
    let status = String::from_utf8(tool(&["status"]).stdout).unwrap();
    assert!(status.lines().any(|l| l.starts_with("h2 ") && l.contains("off")), "{status}");
    signal(&child, nix::sys::signal::Signal::SIGINT);
    assert!(child.wait().unwrap().success());
    assert_eq!(traces(name, &dir), Vec::<String>::new());

    let (mut child, dir) = foreground_lab(name);
    assert!(!traces(name, &dir).is_empty());
    signal(&child, nix::sys::signal::Signal::SIGKILL);
    child.wait().unwrap();
    // Another lab may come first and do it; `down` has to wait for that one, or has nothing left to do.
    let start = Instant::now();
    while !traces(name, &dir).is_empty() {
        assert!(start.elapsed() < LONG * 5, "{:?}", traces(name, &dir));
        tool(&["down"]);
    }

    // `down` in another shell ends a lab that is up in the foreground.
    let (mut child, dir) = foreground_lab(name);
    assert!(tool(&["down"]).status.success());
    assert!(child.wait().unwrap().success());
    assert_eq!(traces(name, &dir), Vec::<String>::new());
}
