//! The short run of the fuzz target `flight_segment`. Segments of real runs, with faults, are the matter of the other tests.

mod flight_segment;
#[path = "../../../../fuzz/short_run.rs"]
mod short_run;

use mainstay_core::{Config, Core, Incarnation, Input, Time};
use mainstay_recorder::{Identity, Options, Recorder, segments_of};
use mainstay_testkit::{PATIENCE, made};

#[test]
fn segments() {
    short_run::run("flight_segment", &[example()], 3_000, flight_segment::check);
}

/// A recording of another version of the core is refused in words; so the good example is of this version, made here.
#[test]
fn a_segment_of_this_version_is_accepted_and_each_cut_of_it_is_survived() {
    let bytes = example();
    assert!(flight_segment::check(&bytes));
    for length in (0..bytes.len()).step_by(7) {
        flight_segment::check(&bytes[..length]);
    }
}

fn example() -> Vec<u8> {
    let config = config();
    let directory = tempfile::tempdir().expect("a directory");
    let identity = Identity { cluster: "1ab0001a".into(), software: "0.1.0".into(), config: config.clone() };
    let mut recorder =
        Recorder::start(Options::new(directory.path().to_path_buf(), 1 << 20), identity).expect("it starts");
    let mut core = Core::new(config, Time(1)).expect("a good configuration");
    for number in 0..20 {
        let (now, input) = (Time(1 + number * 100_000), Input::Tick);
        recorder.record(now, &input, &core);
        core.step(now, input, &mut Vec::new());
    }
    assert!(recorder.close(PATIENCE));
    let segments = segments_of(directory.path()).expect("recorded");
    std::fs::read(&segments[0]).expect("legible")
}

fn config() -> Config {
    Config {
        incarnation: Incarnation(7),
        concurrent_starts: 2,
        isolation_addresses: vec!["10.0.0.1".into()],
        isolation_timeout: None,
        ..made::config()
    }
}

/// A start for a fuzzer: later versions of the core need not understand it, so it is neither `valid-` nor `damaged-`.
#[test]
#[ignore = "writes fuzz/corpus; run it when the core has changed much"]
fn write_the_corpus() {
    std::fs::write(short_run::corpus_of("flight_segment").join("recording"), example()).expect("written");
}
