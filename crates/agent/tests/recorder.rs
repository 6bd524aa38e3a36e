//! What a real agent records, replayed: the same events again, out of nothing but the recording.

use mainstay_agent::agent::Agent;
use mainstay_agent::config::AgentConfig;
use mainstay_agent::guard_link;
use mainstay_api::{EventRecord, Local, Status};
use mainstay_client::Client;
use mainstay_core::view::VmState;
use mainstay_core::{Effect, Event};
use mainstay_guard::Service;
use mainstay_guard::freezer::Freezer;
use mainstay_hypervisor as hv;
use mainstay_hypervisor::fake::{FakeHypervisor, FakeStorage};
use mainstay_recorder::{End, read_segment, segments_of};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// The VM's UUID. Not one of another test: guards look for real processes by it.
const VM: &str = "f1196770-2222-3333-4444-555555555555";
/// Far more than anything here takes; a test that fails takes this long.
const PATIENCE: Duration = Duration::from_secs(120);

/// The text of the configuration of a host alone.
fn config_text(root: &Path, recorder: &str) -> String {
    std::fs::create_dir_all(root.join("ds1")).expect("a datastore");
    std::fs::write(root.join("ds1/web.img"), "").expect("an image");
    let key = root.join("key");
    std::fs::write(&key, "5a".repeat(32)).expect("a key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("its mode");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("its address");
    let root = root.display();
    format!(
        "state_dir = \"{root}/state\"\n[cluster]\nid = \"1ab0001a\"\nname = \"lab\"\nkey_file = \"{root}/key\"\n\
         [host]\nid = \"host-1\"\nname = \"h1\"\naddress = \"{address}\"\n\
         [[datastore]]\nname = \"ds1\"\npath = \"{root}/ds1\"\nallow_unmounted = true\n\
         [timing]\npreset = \"standard\"\n[api]\nsocket = \"{root}/s.sock\"\n{recorder}"
    )
}

fn parse(text: &str) -> Result<AgentConfig, String> {
    AgentConfig::parse(Path::new("agent.toml"), text).map_err(|error| error.to_string())
}

fn xml(root: &Path) -> String {
    format!(
        "<domain type='kvm'><name>web</name><uuid>{VM}</uuid><memory unit='MiB'>512</memory><vcpu>1</vcpu>\
         <os><type arch='x86_64'>hvm</type></os><devices><disk type='file' device='disk'>\
         <source file='{}/ds1/web.img'/><target dev='vda'/></disk></devices></domain>",
        root.display()
    )
}

/// Runs an agent with its guard on this thread's runtime while `act` does on another what its user would do, then stops it.
fn with_agent(config: AgentConfig, act: impl FnOnce(&FakeHypervisor, &Client) + Send + 'static) {
    let guard = Service::start(guard_link::settings(&config), Freezer::by_signal()).expect("a guard");
    let stopper = guard.stopper();
    let guard = std::thread::spawn(move || guard.run());
    let client = Client::new(config.api_socket.clone());
    let (give, given) = channel();
    let start = Box::new(move |sink| {
        let host = hv::HostInfo {
            hostname: "h".into(),
            uuid: None,
            cpus: 4,
            memory_bytes: 8 << 30,
            memory_free_bytes: 4 << 30,
            libvirt_version: 9_000_000,
        };
        let fake = FakeHypervisor::start(host, FakeStorage::default(), sink)?;
        give.send(fake.clone()).expect("the caller waits");
        Ok(Box::new(fake) as Box<dyn hv::Handle>)
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let agent = Agent::start(config, start).await.expect("it starts");
        let fake = given.recv().expect("a fake");
        tokio::task::spawn_blocking(move || act(&fake, &client)).await.expect("no panic");
        agent.stop().await;
    });
    stopper.stop("the test is over");
    guard.join().expect("the guard ends without a panic");
}

/// Waits until what the API says is as wanted.
fn wait<T: serde::de::DeserializeOwned>(client: &Client, path: &str, wanted: impl Fn(&T) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !wanted(&client.get(path).expect("an answer")) {
        assert!(Instant::now() < deadline, "{path}");
        std::thread::yield_now();
    }
}

fn events(state_dir: &Path) -> Vec<Event> {
    let text = std::fs::read_to_string(state_dir.join("events.jsonl")).expect("events");
    let records = text.lines().map(|line| serde_json::from_str::<EventRecord>(line).expect("an event"));
    records.map(|record| record.event.expect("of this version")).collect()
}

#[test]
fn a_recording_of_an_agent_replays_to_the_events_that_it_told() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = parse(&config_text(dir.path(), "")).expect("a good configuration");
    assert_eq!((config.recorder.enabled, config.recorder.max_mib), (true, 64));
    let state = dir.path().join("state");
    let (definition, log) = (xml(dir.path()), state.clone());
    // The hypervisor is in memory; the guard looks for real processes. This one stands for QEMU.
    let qemu = Command::new("sh").args(["-c", "read wait", "-uuid", VM]).stdin(Stdio::piped()).spawn();
    let mut qemu = qemu.expect("sh");
    with_agent(config.clone(), move |fake, client| {
        wait(client, "/v1/status", |status: &Status| status.complete);
        let uuid = fake.user_defines(&definition).expect("defined");
        fake.user_starts(uuid).expect("started");
        let protected =
            |status: &Status| status.view.vms.iter().any(|vm| vm.state == VmState::Running && vm.protected);
        wait(client, "/v1/status", protected);
        fake.qemu_dies(uuid);
        let deadline = Instant::now() + PATIENCE;
        while !events(&log).iter().any(|event| matches!(event, Event::VmRestarted { .. })) {
            assert!(Instant::now() < deadline, "not restarted");
            std::thread::yield_now();
        }
        wait(client, "/v1/local", |local: &Local| {
            local.counters["recorder.bytes"] > 0
                && local.counters["recorder.steps"] > 0
                && local.counters["recorder.steps_lost"] == 0
        });
    });
    // Not by closing its stdin: a guard may have stopped it, if this machine stood still for longer than a lease.
    qemu.kill().expect("killed");
    qemu.wait().expect("it ends");
    with_agent(config, |_, client| {
        wait(client, "/v1/local", |local: &Local| local.counters["recorder.bytes"] > 0);
    });

    let paths = segments_of(&state).expect("a recording");
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
    assert_eq!(told, events(&state));
}

#[test]
fn a_recorder_that_is_switched_off_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = parse(&config_text(dir.path(), "[recorder]\nenabled = false\n")).expect("good");
    with_agent(config, |_, client| {
        let local: Local = client.get("/v1/local").expect("an answer");
        assert!(local.counters.keys().all(|name| !name.starts_with("recorder.")));
    });
    assert!(dir.path().join("state").is_dir() && !dir.path().join("state/flight").exists());
}

#[test]
fn a_ring_of_no_use_is_refused_with_its_line() {
    let dir = tempfile::tempdir().expect("a folder");
    for wrong in ["15", "65537", "0"] {
        let text = config_text(dir.path(), &format!("[recorder]\nmax_mib = {wrong}\n"));
        let line = text.lines().count();
        let error = parse(&text).expect_err("refused");
        assert!(error.starts_with(&format!("agent.toml, line {line}: max_mib = {wrong}")), "{error}");
    }
}
