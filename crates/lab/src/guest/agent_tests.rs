//! The guest's own agent, on a QEMU without libvirt and without a lab.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use mainstay_testkit::{wait_for, wait_for_ok};

use super::*;

/// Between two questions to a guest that may not listen yet.
const ASK_AGAIN: Duration = Duration::from_millis(200);

const PING: &[u8] = br#"{"execute":"guest-ping"}"#;
const PONG: &str = r#"{"return": {}}"#;

struct Machine {
    qemu: Child,
    began: Instant,
    disk: PathBuf,
    answers: BufReader<UnixStream>,
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

impl Machine {
    fn start(dir: &Path, agent: GuestAgent) -> Machine {
        let program = assemble(dir).expect("needs nasm: run scripts/install-packages.sh");
        let (disk, socket, log) = (dir.join("disk.raw"), dir.join("agent"), dir.join("serial"));
        write_disk(&disk, &program, "vm1", GuestKind::default(), Some(agent)).expect("a disk");
        let began = Instant::now();
        let qemu = Command::new("qemu-system-x86_64")
            .args([
                "-machine",
                "pc,accel=tcg",
                "-m",
                "16",
                "-display",
                "none",
                "-nodefaults",
                "-monitor",
                "none",
            ])
            .args(["-serial", &format!("file:{}", log.display())])
            .args(["-serial", &format!("unix:{},server=on,wait=off", socket.display())])
            // The test writes commands into the disk.
            .args(["-drive", &format!("file={},format=raw,if=none,id=d0,file.locking=off", disk.display())])
            .args(["-device", "virtio-blk-pci,drive=d0"])
            .stdin(Stdio::null())
            .spawn()
            .expect("needs QEMU: run scripts/install-packages.sh");
        let stream = wait_for_ok("QEMU's socket", || UnixStream::connect(&socket));
        stream.set_read_timeout(Some(ASK_AGAIN)).expect("a socket");
        Machine { qemu, began, disk, answers: BufReader::new(stream), line: Vec::new() }
    }

    fn send(&mut self, question: &[u8]) {
        let line = [question, b"\n"].concat();
        self.answers.get_mut().write_all(&line).expect("QEMU reads");
    }

    /// A line that it says; nothing if it says none for a while.
    fn heard(&mut self) -> Option<String> {
        match self.answers.read_until(b'\n', &mut self.line) {
            Ok(0) => panic!("QEMU has gone"),
            Ok(_) => {
                let line = std::mem::take(&mut self.line);
                Some(String::from_utf8_lossy(&line).trim_end().to_string())
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => None,
            Err(e) => panic!("{e}"),
        }
    }

    fn next_line(&mut self) -> String {
        self.until("an answer", Self::heard)
    }

    fn ask(&mut self, question: &[u8]) -> String {
        self.send(question);
        self.next_line()
    }

    fn until<T>(&mut self, what: &str, mut attempt: impl FnMut(&mut Self) -> Option<T>) -> T {
        wait_for(what, || attempt(self))
    }

    /// Asks again and again until it answers: after how long it did.
    fn wait_for_the_agent(&mut self) -> Duration {
        self.until("the agent", |machine| {
            machine.send(PING);
            machine.heard()
        });
        let answered = self.began.elapsed();
        // There may be more than one answer under way.
        self.send(br#"{"execute":"guest-sync","arguments":{"id":1}}"#);
        self.until("the last of its answers", |machine| {
            (machine.next_line() == r#"{"return": 1}"#).then_some(())
        });
        answered
    }

    /// Its record, so many beats later.
    fn record_after(&mut self, beats: u32) -> GuestRecord {
        let mut first = None;
        self.until("beats", |machine| {
            std::thread::sleep(Duration::from_millis(10));
            let now = read_record(&machine.disk, "vm1").ok()?;
            (now.beats >= *first.get_or_insert(now.beats) + beats).then_some(now)
        })
    }
}

#[test]
fn guest_agent_is_silent_first_then_answers_as_qemu_ga_does() {
    let dir = tempfile::tempdir().expect("a directory");
    let (second, later) = (Duration::from_secs(1), Duration::from_millis(2500));
    let agent = GuestAgent { answers_after: second, commands_succeed_after: later };
    let mut machine = Machine::start(dir.path(), agent);
    let answered = machine.wait_for_the_agent();
    assert!(answered >= second, "{answered:?}");

    let question =
        b"\xff{\"execute\":\"guest-sync-delimited\", \"arguments\":{\"id\": 18446744073709551615}}";
    let delimited = machine.ask(question);
    let expected = format!("{}{{\"return\": 18446744073709551615}}", char::REPLACEMENT_CHARACTER);
    assert_eq!(delimited, expected, "a byte that is no UTF-8 goes before");
    // Half a question goes before, and is forgotten.
    let sync = machine
        .ask(b"{\"execute\":\"guest-pi\xff{\"execute\":\"guest-sync\",\"arguments\":{\"id\":1795348612847}}");
    assert_eq!(sync, r#"{"return": 1795348612847}"#);
    assert_eq!(machine.ask(PING), PONG);

    let exec = br#"{"arguments":{"arg":["guest-ping"],"path":"/bin/true"},"execute":"guest-exec"}"#;
    assert_eq!(machine.ask(exec), r#"{"return": {"pid": 1}}"#);
    machine.until("the command to succeed", |machine| {
        let status = machine.ask(br#"{"execute":"guest-exec-status","arguments":{"pid":1}}"#);
        let succeeded = status == r#"{"return": {"exited": true, "exitcode": 0}}"#;
        assert!(succeeded || status == r#"{"return": {"exited": true, "exitcode": 1}}"#, "{status}");
        succeeded.then_some(())
    });
    assert!(machine.began.elapsed() >= later, "{:?}", machine.began.elapsed());

    for unknown in [br#"{"execute":"guest-shutdown"}"#.to_vec(), b"x".repeat(1500)] {
        let refused = machine.ask(&unknown);
        assert!(refused.contains(r#""class": "CommandNotFound""#), "{refused}");
    }
    assert_eq!(machine.ask(PING), PONG, "it goes on after that");
    let record = machine.record_after(2);
    assert_eq!((record.boots, record.splits), (1, 0));
    assert!(record.agent_answers >= 9, "{record:?}");
    let serial = fs::read_to_string(dir.path().join("serial")).expect("its serial line");
    assert_eq!(serial.lines().filter(|l| l.starts_with("EXEC vm1 1 ")).count(), 1, "{serial}");
}

#[test]
fn guest_agent_falls_silent_on_command() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut machine = Machine::start(dir.path(), GuestAgent::answering_after(Duration::ZERO));
    machine.wait_for_the_agent();
    write_command(&machine.disk, GuestCommand::SilenceAgent).expect("told");
    // It looks there once per beat.
    let silenced = machine.record_after(3);
    machine.send(PING);
    let later = machine.record_after(3);
    assert_eq!(later.agent_answers, silenced.agent_answers);
    assert_eq!(machine.heard(), None);
    write_command(&machine.disk, GuestCommand::None).expect("told");
    machine.wait_for_the_agent();
}
