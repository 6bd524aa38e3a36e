//! Whole agents: the real core, transport, API and datastore (a directory), over a hypervisor in memory.

use mainstay_agent::agent::Agent;
use mainstay_agent::client::Client;
use mainstay_agent::config::AgentConfig;
use mainstay_api::{Done, EventRecord, Local, Status};
use mainstay_core::Event;
use mainstay_core::view::{Role, VmState};
use mainstay_hypervisor as hv;
use mainstay_hypervisor::fake::{FakeHypervisor, FakeStorage};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const VM: &str = "11111111-2222-3333-4444-555555555555";
/// Far more than anything here takes; a test that fails takes this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// What several hosts share.
struct World {
    dir: tempfile::TempDir,
    addresses: Vec<SocketAddr>,
}

impl World {
    fn new(hosts: usize) -> World {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("ds1")).expect("a datastore");
        std::fs::write(dir.path().join("ds1/web.img"), "").expect("an image");
        let key = dir.path().join("key");
        std::fs::write(&key, "5a".repeat(32)).expect("a key");
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("its mode");
        // Held together, so that they differ.
        let sockets: Vec<UdpSocket> =
            (0..hosts).map(|_| UdpSocket::bind("127.0.0.1:0").expect("a port")).collect();
        let addresses = sockets.iter().map(|socket| socket.local_addr().expect("its address")).collect();
        World { dir, addresses }
    }

    fn root(&self) -> &Path {
        self.dir.path()
    }

    /// The configuration of host `me` (from 1). `state` names its state directory and socket.
    fn config(&self, me: usize, state: &str) -> AgentConfig {
        let root = self.root().display();
        let mut text = format!(
            "state_dir = \"{root}/{state}\"\n[cluster]\nid = \"1ab0001a\"\nname = \"lab\"\nkey_file = \"{root}/key\"\n"
        );
        for (n, address) in (1..).zip(&self.addresses) {
            let section = if n == me { "[host]" } else { "[[peer]]" };
            text += &format!("{section}\nid = \"host-{n}\"\nname = \"h{n}\"\naddress = \"{address}\"\n");
        }
        text += &format!("[[datastore]]\nname = \"ds1\"\npath = \"{root}/ds1\"\nallow_unmounted = true\n");
        text += &format!("[timing]\npreset = \"swift\"\n[api]\nsocket = \"{root}/{state}.sock\"\n");
        AgentConfig::parse(Path::new("agent.toml"), &text).expect("a good configuration")
    }

    fn xml(&self) -> String {
        format!(
            "<domain type='kvm'><name>web</name><uuid>{VM}</uuid><memory unit='MiB'>512</memory><vcpu>1</vcpu>\
             <os><type arch='x86_64'>hvm</type></os><devices><disk type='file' device='disk'>\
             <source file='{}/ds1/web.img'/><target dev='vda'/></disk></devices></domain>",
            self.root().display()
        )
    }
}

/// An agent on a thread of its own.
struct Host {
    client: Client,
    fake: FakeHypervisor,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Host {
    fn start(config: AgentConfig) -> Result<Host, String> {
        let client = Client::new(config.api_socket.clone());
        let (stop, stopped): (Sender<()>, Receiver<()>) = channel();
        let (report, reported) = channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(run(config, report, stopped));
        });
        let fake = reported.recv_timeout(PATIENCE).expect("the agent starts or says why not")?;
        Ok(Host { client, fake, stop: Some(stop), thread: Some(thread) })
    }

    /// Waits until the host's status is as wanted.
    fn wait(&self, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status: Status = self.client.get("/v1/status").expect("a status");
            if wanted(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "{what}: {status:#?}");
            std::thread::yield_now();
        }
    }

    fn wait_for_vm(&self, what: &str, state: VmState, protected: bool) -> Status {
        self.wait(what, |status| {
            status.complete && status.view.vms.iter().any(|vm| vm.state == state && vm.protected == protected)
        })
    }

    fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the agent stops without a panic");
        }
    }
}

async fn run(config: AgentConfig, report: Sender<Result<FakeHypervisor, String>>, stopped: Receiver<()>) {
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
    match Agent::start(config, start).await {
        Ok(agent) => {
            report.send(Ok(given.recv().expect("a fake"))).expect("the test waits");
            // The other side is dropped when the test wants the agent to stop.
            let _ = tokio::task::spawn_blocking(move || stopped.recv()).await;
            agent.stop().await;
        }
        Err(error) => report.send(Err(error.to_string())).expect("the test waits"),
    }
}

fn events(state_dir: PathBuf) -> Vec<EventRecord> {
    let text = std::fs::read_to_string(state_dir.join("events.jsonl")).expect("events");
    text.lines().map(|line| serde_json::from_str(line).expect("an event")).collect()
}

#[test]
fn one_host_alone_protects_its_vm_restarts_it_and_obeys_its_user() {
    let world = World::new(1);
    let mut host = Host::start(world.config(1, "s1")).expect("it starts");
    let status = host.wait("primary and owner", |status| {
        status.complete && status.view.datastores[0].ownership_left.is_some()
    });
    assert_eq!(status.view.role, Role::Primary);

    let uuid = host.fake.user_defines(&world.xml()).expect("defined");
    host.fake.user_starts(uuid).expect("started");
    host.wait_for_vm("protected", VmState::Running, true);

    host.fake.qemu_dies(uuid);
    let deadline = Instant::now() + PATIENCE;
    let restarted = |record: &EventRecord| matches!(record.event, Some(Event::VmRestarted { .. }));
    while !events(world.root().join("s1")).iter().any(restarted) {
        assert!(Instant::now() < deadline, "not restarted: {:#?}", events(world.root().join("s1")));
        std::thread::yield_now();
    }
    assert_eq!(host.fake.state_of(uuid), Some(hv::DomainState::Running));

    let refusal = host.client.post::<Done>("/v1/vms/nobody/unprotect").expect_err("no such VM").to_string();
    assert!(refusal.contains("nobody"), "{refusal}");
    let done: Done = host.client.post("/v1/vms/web/unprotect").expect("done");
    assert!(done.message.contains("web"), "{}", done.message);
    host.client.post::<Done>("/v1/vms/web/protect").expect("done");
    host.wait_for_vm("protected again", VmState::Running, true);

    host.fake.guest_powers_off(uuid);
    host.wait_for_vm("off", VmState::Off, false);
    let local: Local = host.client.get("/v1/local").expect("counters");
    assert!(local.counters["datastore.ds1.writes"] > 0 && local.counters["core.steps"] > 0);
    assert_eq!(local.counters["vms.images_held"], 0);
    host.stop();
    assert!(!world.root().join("s1.sock").exists());
}

#[test]
fn two_hosts_elect_one_primary_that_answers_for_both_and_hands_over_when_it_stops() {
    let world = World::new(2);
    let mut hosts: Vec<Host> =
        (1..=2).map(|n| Host::start(world.config(n, &format!("s{n}"))).expect("it starts")).collect();
    for host in &hosts {
        let status = host.wait("one primary", |status| {
            status.complete
                && status
                    .view
                    .hosts
                    .iter()
                    .all(|host| host.state == mainstay_core::host_liveness::HostState::Connected)
        });
        assert_eq!(status.view.host.as_str(), "host-2", "the larger id as text");
    }
    let uuid = hosts[0].fake.user_defines(&world.xml()).expect("defined");
    hosts[0].fake.user_starts(uuid).expect("started");
    hosts[0].wait_for_vm("protected by the other host", VmState::Running, true);

    hosts[1].stop();
    let owner_is_here = |status: &Status| {
        status.complete
            && status.view.host.as_str() == "host-1"
            && status.view.datastores[0].ownership_left.is_some()
            && status.view.vms.iter().any(|vm| vm.protected)
    };
    hosts[0].wait("the other host took over", owner_is_here);
    assert_eq!(hosts[0].fake.state_of(uuid), Some(hv::DomainState::Running));
}

#[test]
fn a_second_agent_on_this_host_or_with_this_hosts_id_elsewhere_is_refused() {
    let world = World::new(1);
    let _host = Host::start(world.config(1, "s1")).expect("it starts");
    let here = Host::start(world.config(1, "s1")).err().expect("refused");
    assert!(
        here.starts_with(&format!("another agent (process {}) already runs", std::process::id())),
        "{here}"
    );
    let elsewhere = Host::start(world.config(1, "s2")).err().expect("refused");
    assert!(elsewhere.contains("host-1"), "{elsewhere}");
}

#[test]
fn a_restarted_agent_keeps_its_vm_and_its_events() {
    let world = World::new(1);
    let mut host = Host::start(world.config(1, "s1")).expect("it starts");
    host.wait("primary", |status| status.complete);
    host.stop();
    let before = events(world.root().join("s1")).len();
    let host = Host::start(world.config(1, "s1")).expect("it starts again");
    host.wait("primary and owner again", |status| {
        status.complete && status.view.datastores[0].ownership_left.is_some()
    });
    let after = events(world.root().join("s1"));
    assert!(after.len() > before);
    assert!(after.is_sorted_by_key(|record| record.sequence));
    assert_eq!(after.last().map(|record| record.sequence), Some(after.len() as u64));
}
