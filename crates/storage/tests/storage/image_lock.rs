//! The lock probe against a real QEMU. Skipped, with a message, where there is none; in CI that is a failure.

use crate::harness::{as_seen_by_others, directory};
use mainstay_storage::image_lock::probe_image;
use mainstay_storage::{ImageLock, Prober};
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::channel;

const QEMU: &str = "qemu-system-x86_64";

/// A QEMU that was started paused; killed with the value.
struct Qemu {
    child: Child,
    /// Kept open for as long as it runs.
    _monitor: (ChildStdin, Lines<BufReader<ChildStdout>>),
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("reaped");
    }
}

impl Qemu {
    fn start(image: &Path, format: &str) -> Qemu {
        let drive = format!("file={},format={format},if=none,id=d0", image.display());
        let mut child = Command::new(QEMU)
            .args(["-S", "-display", "none", "-nodefaults", "-accel", "tcg", "-m", "16", "-qmp", "stdio"])
            .args(["-drive", &drive, "-device", "virtio-blk-pci,drive=d0"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("QEMU starts");
        // It greets early, but answers only when all devices, and so the locks, are in place.
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(b"{\"execute\":\"qmp_capabilities\"}\n").expect("asked");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let answer =
            lines.by_ref().map(|line| line.expect("a line")).find(|line| line.contains("\"return\""));
        assert!(answer.is_some(), "QEMU ended instead of answering");
        Qemu { child, _monitor: (stdin, lines) }
    }
}

fn has_qemu() -> bool {
    let found = [QEMU, "qemu-img"].iter().all(|program| {
        Command::new(program)
            .arg("--version")
            .stdout(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    });
    if !found {
        assert!(std::env::var_os("CI").is_none(), "CI needs {QEMU} and qemu-img");
        eprintln!("skipped: {QEMU} or qemu-img is missing (apt-get install qemu-system-x86 qemu-utils)");
    }
    found
}

#[test]
fn a_running_qemu_holds_its_image_and_a_killed_one_does_not() {
    if !has_qemu() {
        return;
    }
    let directory = directory();
    for format in ["raw", "qcow2"] {
        let image = directory.path().join(format!("disk.{format}"));
        let created = Command::new("qemu-img")
            .args(["create", "-q", "-f", format])
            .arg(&image)
            .arg("8M")
            .status()
            .expect("qemu-img runs");
        assert!(created.success());
        assert_eq!(probe_image(&image), ImageLock::Free, "{format}");
        let qemu = Qemu::start(&image, format);
        let held = probe_image(&as_seen_by_others(directory.path()).join(format!("disk.{format}")));
        assert_eq!(
            held,
            ImageLock::Held { by: "the storage still shows a QEMU that writes to it".into() },
            "{format}"
        );
        drop(qemu);
        assert_eq!(probe_image(&image), ImageLock::Free, "{format}, QEMU killed");
        // The probe left nothing behind that would keep a QEMU from starting.
        drop(Qemu::start(&image, format));
    }
}

#[test]
fn what_decides_is_the_held_image() {
    if !has_qemu() {
        return;
    }
    let directory = directory();
    let [free, held] = ["free.raw", "held.raw"].map(|name| directory.path().join(name));
    for path in [&free, &held] {
        std::fs::write(path, vec![0; 1 << 20]).expect("an image");
    }
    let _qemu = Qemu::start(&held, "raw");
    let missing = directory.path().join("missing.raw");
    let probe = |paths: Vec<PathBuf>| {
        let (sender, receiver) = channel();
        Prober::new(4).probe(paths, Box::new(move |probe| drop(sender.send(probe))));
        receiver.recv().expect("an answer")
    };
    assert_eq!(probe(vec![free.clone()]).obstacle(), None);
    let all = probe(vec![free.clone(), missing.clone(), held.clone()]);
    assert_eq!(all.obstacle().map(|(path, _)| path), Some(&held));
    let two = probe(vec![free, missing.clone()]);
    let (path, lock) = two.obstacle().expect("one is missing");
    assert_eq!(path, &missing);
    assert!(lock.to_string().contains("does not exist: check that its datastore is mounted"), "{lock}");
}

#[test]
fn too_many_probes_are_refused_at_once() {
    let (sender, receiver) = channel();
    Prober::new(0).probe(vec!["/x".into()], Box::new(move |probe| drop(sender.send(probe))));
    let probe = receiver.recv().expect("an answer");
    assert!(matches!(&probe.images[0].1, ImageLock::Failed { why } if why.contains("too many lock probes")));
}
