//! What a real agent records, replayed: the same events again, out of nothing but the recording.

use crate::world::{Host, World, parse};
use mainstay_api::Local;
use mainstay_core::view::VmState;
use mainstay_core::{Effect, Event};
use mainstay_recorder::{End, read_segment, segments_of};

#[test]
fn a_recording_of_an_agent_replays_to_the_events_that_it_told() {
    let mut world = World::new(1);
    let config = world.config(1, "s1");
    assert_eq!((config.recorder.enabled, config.recorder.max_mib), (true, 64));
    let mut host = Host::start(config.clone()).expect("it starts");
    host.wait("primary", |status| status.complete);
    let uuid = host.fake.user_defines(&world.xml()).expect("defined");
    host.fake.user_starts(uuid).expect("started");
    host.wait_for_vm("protected", VmState::Running, true);
    host.fake.qemu_dies(uuid);
    world.wait_for_event("s1", "the restart", |event| matches!(event, Event::VmRestarted { .. }));
    host.wait_at("/v1/local", "all is recorded", |local: &Local| {
        local.counters["recorder.bytes"] > 0
            && local.counters["recorder.steps"] > 0
            && local.counters["recorder.steps_lost"] == 0
    });
    host.stop();
    drop(host);
    world.end_qemu();
    let mut again = Host::start(config).expect("it starts again");
    again.wait_at("/v1/local", "recording", |local: &Local| local.counters["recorder.bytes"] > 0);
    again.stop();

    let paths = segments_of(&world.root().join("s1")).expect("a recording");
    assert_eq!(paths.len(), 2, "one for each run of the agent");
    let mut told = Vec::new();
    for path in paths {
        let segment = read_segment(&path).expect("a segment");
        assert_eq!((&segment.end, segment.header.lost_before), (&End::Whole, 0));
        let mut core = segment.checkpoint.core;
        for step in segment.steps {
            let mut effects = Vec::new();
            core.step(step.at, step.input, &mut effects);
            told.extend(effects.into_iter().filter_map(|effect| match effect {
                Effect::Event(event) => Some(event),
                _ => None,
            }));
        }
    }
    assert!(told.iter().any(|event| matches!(event, Event::VmRestarted { .. })));
    let events = world.events("s1").into_iter().map(|record| record.event.expect("of this version"));
    assert_eq!(told, events.collect::<Vec<_>>());
}

#[test]
fn a_recorder_that_is_switched_off_leaves_nothing_behind() {
    let world = World::new(1);
    let text = world.config_text(1, "s1") + "[recorder]\nenabled = false\n";
    let mut host = Host::start(parse(&text).expect("good")).expect("it starts");
    let local: Local = host.client.get("/v1/local").expect("an answer");
    assert!(local.counters.keys().all(|name| !name.starts_with("recorder.")));
    host.stop();
    let state = world.root().join("s1");
    assert!(state.is_dir() && !state.join("flight").exists());
}

#[test]
fn a_ring_of_no_use_is_refused_with_its_line() {
    let world = World::new(1);
    for wrong in ["15", "65537", "0"] {
        let text = world.config_text(1, "s1") + &format!("[recorder]\nmax_mib = {wrong}\n");
        let line = text.lines().count();
        let error = parse(&text).expect_err("refused");
        assert!(error.starts_with(&format!("agent.toml, line {line}: max_mib = {wrong}")), "{error}");
    }
}
