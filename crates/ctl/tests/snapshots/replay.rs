//! `mainstay replay` of recordings of scripted cores.

use super::canned::Canned;
use super::parse;
use expect_test::{Expect, expect};
use mainstay_core::{BootId, Config, Core, Domain, DomainState, Incarnation, Input, Span, Time, VmId};
use mainstay_ctl::{Confirmation, Output, Style, Zone};
use mainstay_recorder::{Identity, Options, Recorder, read_header, segments_of};
use mainstay_testkit::{PATIENCE, made};
use std::path::Path;

/// A core of a cluster of two whose other host is silent, and whose datastore never answers.
struct Script {
    core: Core,
    recorder: Recorder,
    now: Time,
}

impl Script {
    fn start(dir: &Path) -> Script {
        let config = Config { boot: BootId([7; 16]), incarnation: Incarnation(0xabc), ..made::config() };
        let now = Time(800_000_000);
        let options =
            Options { segment_bytes_max: 1, queue_max: 1 << 20, ..Options::new(dir.to_path_buf(), 1 << 30) };
        let software = env!("CARGO_PKG_VERSION").to_owned();
        let identity = Identity { cluster: "1ab0001a".into(), software, config: config.clone() };
        let recorder = Recorder::start(options, identity).expect("a recorder");
        Script { core: Core::new(config, now).expect("a core"), recorder, now }
    }

    fn step(&mut self, input: Input) {
        self.recorder.record(self.now, &input, &self.core);
        self.unrecorded(input);
    }

    fn unrecorded(&mut self, input: Input) {
        self.core.step(self.now, input, &mut Vec::new());
        self.now += Span::from_millis(250);
    }

    /// A few steps of each kind.
    fn play(&mut self) {
        self.step(Input::Tick);
        let domain = Domain {
            vm: VmId([0x11; 16]),
            name: "we\u{1b}b".into(),
            state: DomainState::Running,
            home: Some("ds1".into()),
            spec: None,
            persistent: true,
            io_error: false,
        };
        self.step(Input::Domains { as_of: self.now, domains: vec![domain.clone()] });
        self.step(Input::PingDone { host: "host-2".into(), answered: false });
        self.step(Input::Domains { as_of: self.now, domains: vec![domain] });
        self.step(Input::HypervisorLost);
        for _ in 0..12 {
            self.step(Input::Tick);
        }
    }

    /// Ticks until the second segment has been begun and has some steps.
    fn second_segment(&mut self) {
        while self.recorder.counts().segments < 2 {
            self.step(Input::Tick);
            std::thread::yield_now();
        }
        self.step(Input::Tick);
    }

    fn close(self) {
        assert!(self.recorder.close(PATIENCE), "all is written");
    }
}

/// What the command prints: stdout, then stderr (marked), then the exit code. The time of day is left out.
fn run(dir: &Path, line: &str) -> String {
    let cli = parse(&format!("mainstay replay {} {line}", dir.display()).trim_end().replace("  ", " "));
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let style = Style { colour: false, width: None, zone: Zone::Utc };
    let mut output = Output {
        out: &mut out,
        err: &mut err,
        style,
        json: cli.global.json,
        confirm: |_| Confirmation::Nobody,
        now_us: 0,
    };
    let exit = match mainstay_ctl::run(&cli, &mut Canned::healthy(), &mut output) {
        Ok(exit) => exit.code(),
        Err(failure) => {
            err.extend(format!("error: {failure}\n").bytes());
            failure.exit().code()
        }
    };
    let mut text = String::from_utf8(out).expect("UTF-8");
    for line in String::from_utf8(err).expect("UTF-8").lines() {
        text.push_str(&format!("stderr| {line}\n"));
    }
    for header in segments_of(dir).expect("segments").iter().filter_map(|path| read_header(path).ok()) {
        text = text.replace(&Zone::Utc.show(header.at_unix_us), "TIME");
        text = text.replace(&format!("\"at_unix_us\":{}", header.at_unix_us), "\"at_unix_us\":0");
    }
    text.push_str(&format!("exit {exit}\n"));
    text.replace(&dir.display().to_string(), "DIR")
}

fn check(line: &str, expected: Expect) {
    let dir = tempfile::tempdir().expect("a folder");
    let mut script = Script::start(dir.path());
    script.play();
    script.close();
    expected.assert_eq(&run(dir.path(), line));
}

#[test]
fn replay_shows_each_step_and_decision() {
    check(
        "",
        expect![[r#"
            flight-00000001.rec: host-1, mainstay 0.1.0, run 0000000000000abc, from TIME
                800.000000     +0.000000  tick
                800.250000     +0.250000  all domains: 1
                                            -> info: libvirt answers
                                            -> alarm: we\u{1b}b can't be protected: its domain XML can't be read
                800.500000     +0.500000  ping of host-2: no answer
                800.750000     +0.750000  all domains: 1
                801.000000     +1.000000  libvirt does not answer
                                            -> warning: libvirt does not answer; VMs go on
                801.250000     +1.250000  tick
                801.500000     +1.500000  tick
                801.750000     +1.750000  tick
                802.000000     +2.000000  tick
                                            -> info: elected primary: the only candidate, reaches 0 datastore(s)
                802.250000     +2.250000  tick
                802.500000     +2.500000  tick
                802.750000     +2.750000  tick
                803.000000     +3.000000  tick
                803.250000     +3.250000  tick
                803.500000     +3.500000  tick
                803.750000     +3.750000  tick
                804.000000     +4.000000  tick
            stderr| 17 steps of 1 segments replayed; 0 checkpoints agree, 0 findings
            exit 0
        "#]],
    );
}

#[test]
fn replay_of_a_vm_shows_what_is_news_about_it() {
    check(
        "--vm we\\u{1b}b",
        expect![[r#"
        flight-00000001.rec: host-1, mainstay 0.1.0, run 0000000000000abc, from TIME
            800.250000     +0.250000  all domains: 1
                                        -> info: libvirt answers
                                        -> alarm: we\u{1b}b can't be protected: its domain XML can't be read
        stderr| 17 steps of 1 segments replayed; 0 checkpoints agree, 0 findings
        exit 0
    "#]],
    );
}

#[test]
fn replay_of_a_host_and_a_span_of_time_with_routine() {
    check(
        "--host host-2 --from +0.5 --to 803.75 --verbose",
        expect![[r#"
        flight-00000001.rec: host-1, mainstay 0.1.0, run 0000000000000abc, from TIME
            800.500000     +0.500000  ping of host-2: no answer
                                        -> send message 2 to host-2: Elect
        stderr| 16 steps of 1 segments replayed; 0 checkpoints agree, 0 findings
        exit 0
    "#]],
    );
}

#[test]
fn replay_as_json() {
    check(
        "--to +0 --json",
        expect![[r#"
            {"note":"host-1, mainstay 0.1.0, run 0000000000000abc, from TIME","segment":"flight-00000001.rec"}
            {"at_unix_us":0,"at_us":800000000,"effect_texts":["send message 1 to host-2: Elect","read ds1: host-1-poweron, host-1-owner"],"effects":[{"Send":{"message":{"body":{"Elect":{"rank":{"datastores":0,"host":"host-1"},"window":1000000}},"files":4619880476164012129,"incarnation":2748,"sequence":1},"to":"host-2"}},{"Disk":{"action":{"Read":[{"PowerOn":"host-1"},{"Ownership":"host-1"}]},"datastore":"ds1","op":1}}],"host":"host-1","input":"Tick","since_us":0,"text":"tick"}
            stderr| 1 steps of 1 segments replayed; 0 checkpoints agree, 0 findings
            exit 0
        "#]],
    );
}

#[test]
fn replay_agrees_with_the_checkpoint_of_the_next_segment() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut script = Script::start(dir.path());
    script.second_segment();
    script.close();
    let text = run(dir.path(), "");
    assert!(text.contains("\nflight-00000002.rec: replay agrees with the checkpoint\n"), "{text}");
    assert!(text.ends_with(" checkpoints agree, 0 findings\nexit 0\n"), "{text}");
}

#[test]
fn replay_names_where_it_diverges_and_fails() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut script = Script::start(dir.path());
    script.step(Input::Tick);
    // The recording misses it, and does not know.
    script.unrecorded(Input::PingDone { host: "host-2".into(), answered: true });
    script.second_segment();
    script.close();
    let text = run(dir.path(), "");
    let told = "\nflight-00000002.rec: replay diverges from the checkpoint: Core > hosts > peers > host-2 > pings: replayed answered";
    assert!(text.contains(told), "{text}");
    assert!(text.ends_with(" checkpoints agree, 1 findings\nexit 1\n"), "{text}");
}

#[test]
fn replay_goes_on_behind_a_damaged_segment_and_refuses_what_is_none() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut script = Script::start(dir.path());
    script.second_segment();
    script.close();
    let first = dir.path().join("flight-00000001.rec");
    let mut bytes = std::fs::read(&first).expect("bytes");
    let at = bytes.len() - 10;
    bytes[at] ^= 1;
    std::fs::write(&first, bytes).expect("damaged");
    let text = run(dir.path(), "");
    assert!(text.contains("flight-00000001.rec: damaged at byte "), "{text}");
    assert!(text.contains("\nflight-00000002.rec: host-1, ") && text.ends_with("exit 1\n"), "{text}");
    std::fs::write(&first, "mainstay-flight 99 7.0.0\n").expect("foreign");
    let text = run(dir.path(), "");
    assert!(text.contains("was recorded by mainstay 7.0.0 in format 99"), "{text}");
    for later in &segments_of(dir.path()).expect("segments")[1..] {
        std::fs::remove_file(later).expect("removed");
    }
    let text = run(dir.path(), "");
    assert!(text.starts_with("stderr| error: DIR/flight-00000001.rec was recorded by"), "{text}");
}
