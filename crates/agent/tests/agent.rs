//! Whole agents: the real core, transport, API and datastore (a directory), over a hypervisor in memory.

use mainstay_agent::agent::Agent;
use mainstay_agent::config::AgentConfig;
use mainstay_api::{Done, EventRecord, Local, Status};
use mainstay_client::Client;
use mainstay_core::view::{Role, VmState};
use mainstay_core::{Event, VmId};
use mainstay_guard::freezer::Freezer;
use mainstay_guard::{Service, Stopper};
use mainstay_hypervisor as hv;
use mainstay_hypervisor::fake::{FakeHypervisor, FakeStorage};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Far more than anything here takes; a test that fails takes this long.
const PATIENCE: Duration = Duration::from_secs(120);

/// What several hosts share.
struct World {
    dir: tempfile::TempDir,
    addresses: Vec<SocketAddr>,
    vm: VmId,
    qemu: Child,
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
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
        // The hypervisor is in memory; the guards look for real processes. This one stands for QEMU, wherever the VM runs.
        static WORLDS: AtomicU8 = AtomicU8::new(0);
        let mut id = *b"agenttest.......";
        id[9] = WORLDS.fetch_add(1, Ordering::Relaxed);
        id[10..14].copy_from_slice(&std::process::id().to_le_bytes());
        let vm = VmId(id);
        let qemu = Command::new("sh")
            .args(["-c", "read wait", "-uuid", &vm.to_string()])
            .stdin(Stdio::piped())
            .spawn()
            .expect("sh");
        World { dir, addresses, vm, qemu }
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
        text +=
            &format!("[timing]\npreset = \"standard\"\n[api]\nsocket = \"{root}/{state}-run/agent.sock\"\n");
        AgentConfig::parse(Path::new("agent.toml"), &text).expect("a good configuration")
    }

    fn xml(&self) -> String {
        format!(
            "<domain type='kvm'><name>web</name><uuid>{}</uuid><memory unit='MiB'>512</memory><vcpu>1</vcpu>\
             <os><type arch='x86_64'>hvm</type></os><devices><disk type='file' device='disk'>\
             <source file='{}/ds1/web.img'/><target dev='vda'/></disk></devices></domain>",
            self.vm,
            self.root().display()
        )
    }
}

/// A guard on a thread of its own: the agent finds it running.
struct Guarding {
    stopper: Stopper,
    thread: Option<JoinHandle<()>>,
}

impl Guarding {
    fn start(config: &AgentConfig) -> Guarding {
        let settings = mainstay_agent::guard_link::settings(config);
        let service = Service::start(settings, Freezer::by_signal()).expect("a guard");
        let stopper = service.stopper();
        Guarding { stopper, thread: Some(std::thread::spawn(move || service.run())) }
    }
}

impl Drop for Guarding {
    fn drop(&mut self) {
        self.stopper.stop("the test is over");
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(std::thread::panicking() || ended.is_ok(), "the guard panicked");
        }
    }
}

/// An agent on a thread of its own.
struct Host {
    client: Client,
    fake: FakeHypervisor,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    /// Outlives the agent when it is stopped.
    guard: Option<Guarding>,
}

impl Host {
    fn start(config: AgentConfig) -> Result<Host, String> {
        let guard = Guarding::start(&config);
        let mut host = Host::start_agent(config)?;
        host.guard = Some(guard);
        Ok(host)
    }

    /// Where a guard runs, or none should be needed.
    fn start_agent(config: AgentConfig) -> Result<Host, String> {
        let client = Client::new(config.api_socket.clone());
        let (stop, stopped): (Sender<()>, Receiver<()>) = channel();
        let (report, reported) = channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(run(config, report, stopped));
        });
        let fake = reported.recv_timeout(PATIENCE).expect("the agent starts or says why not")?;
        Ok(Host { client, fake, stop: Some(stop), thread: Some(thread), guard: None })
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
    assert!(!world.root().join("s1-run/agent.sock").exists());
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
fn a_host_in_maintenance_is_emptied_by_migration_and_takes_no_start() {
    let world = World::new(2);
    let hosts: Vec<Host> =
        (1..=2).map(|n| Host::start(world.config(n, &format!("s{n}"))).expect("it starts")).collect();
    hosts[0].fake.reaches("qemu+ssh://h2/system", &hosts[1].fake);
    hosts[1].fake.reaches("qemu+ssh://h1/system", &hosts[0].fake);
    let uuid = hosts[0].fake.user_defines(&world.xml()).expect("defined");
    hosts[0].fake.user_starts(uuid).expect("started");
    hosts[0].wait_for_vm("protected", VmState::Running, true);
    // libvirt asks on the host on which the VM is to be started.
    let hook = |host: &Host, operation: &str| {
        let xml = world.xml().into_bytes();
        host.client.post_body::<Done>(&format!("/v1/hook?operation={operation}"), xml)
    };
    let both =
        |status: &Status| status.complete && status.view.hosts.iter().all(|host| host.capacity.is_some());
    hosts[1].wait("both are known", both);
    let second = hook(&hosts[1], "prepare").expect_err("it runs").to_string();
    assert!(second.starts_with("web runs on h1"), "{second}");
    hook(&hosts[1], "migrate").expect("nothing speaks against it");
    hook(&hosts[1], "prepare").expect("it was announced");

    let done: Done = hosts[0].client.post("/v1/hosts/h1/maintenance/enter").expect("done");
    assert!(done.message.starts_with("h1 is being emptied"), "{}", done.message);
    hosts[0].wait("empty", |status| {
        status.complete
            && status.view.hosts.iter().any(|host| matches!(host.maintenance, Some((_, 0))))
            && status.view.vms.iter().any(|vm| vm.host.as_ref().is_some_and(|on| on.as_str() == "host-2"))
    });
    assert_eq!(hosts[0].fake.state_of(uuid), None);
    assert_eq!(hosts[1].fake.state_of(uuid), Some(hv::DomainState::Running));
    hook(&hosts[0], "migrate").expect("prepare follows");
    let refusal = hook(&hosts[0], "prepare").expect_err("in maintenance").to_string();
    assert_eq!(refusal, "h1 is in maintenance mode: it takes no VMs");

    hosts[0].client.post::<Done>("/v1/hosts/h1/maintenance/leave?bring_back=true").expect("done");
    hosts[0].wait("back", |status| {
        status.complete
            && status.view.vms.iter().any(|vm| vm.host.as_ref().is_some_and(|on| on.as_str() == "host-1"))
    });
    assert_eq!(hosts[0].fake.state_of(uuid), Some(hv::DomainState::Running));
    let rehearsal: mainstay_api::Rehearsal = hosts[0].client.get_patiently("/v1/rehearsal").expect("plans");
    let plan = rehearsal.rehearsed.hosts.iter().find(|plan| plan.host.as_str() == "host-1").expect("a plan");
    let placed: Vec<(&str, &str)> = plan.placed.iter().map(|vm| (&*vm.name, vm.to.as_str())).collect();
    assert_eq!(placed, [("web", "host-2")]);
    assert_eq!(rehearsal.revision, 2, "the maintenance, and its end");
}

#[test]
fn a_second_agent_on_this_host_or_with_this_hosts_id_elsewhere_is_refused() {
    let world = World::new(1);
    let _host = Host::start(world.config(1, "s1")).expect("it starts");
    let here = Host::start_agent(world.config(1, "s1")).err().expect("refused");
    assert!(
        here.starts_with(&format!("another agent (process {}) already runs", std::process::id())),
        "{here}"
    );
    let elsewhere = Host::start_agent(world.config(1, "s2")).err().expect("refused");
    assert!(elsewhere.contains("host-1"), "{elsewhere}");
}

#[test]
fn a_restarted_agent_keeps_its_vm_and_its_events() {
    let world = World::new(1);
    let mut host = Host::start(world.config(1, "s1")).expect("it starts");
    host.wait("primary", |status| status.complete);
    host.stop();
    let before = events(world.root().join("s1")).len();
    host.guard.as_ref().expect("its guard goes on");
    let mut again = Host::start_agent(world.config(1, "s1")).expect("it starts again");
    again.guard = host.guard.take();
    let host = again;
    host.wait("primary and owner again", |status| {
        status.complete && status.view.datastores[0].ownership_left.is_some()
    });
    let after = events(world.root().join("s1"));
    assert!(after.len() > before);
    assert!(after.is_sorted_by_key(|record| record.sequence));
    assert_eq!(after.last().map(|record| record.sequence), Some(after.len() as u64));
}

#[test]
fn an_agent_without_a_guard_does_not_begin_and_says_what_to_do() {
    let world = World::new(1);
    let refusal = Host::start_agent(world.config(1, "s1")).err().expect("refused");
    assert!(refusal.contains("mainstay-guard") && refusal.contains("[guard]"), "{refusal}");
    assert!(!world.root().join("ds1/.mainstay/1ab0001a-lab/host-1-poweron").exists());
}

#[test]
fn another_clusters_guard_is_refused_and_goes_on() {
    let world = World::new(1);
    let mut others = world.config(1, "s1");
    others.cluster_id = "0000000b".into();
    let theirs = Guarding::start(&others);
    let refusal = Host::start_agent(world.config(1, "s1")).err().expect("refused");
    let expected = [
        " is that of host-1 in cluster 0000000b-lab",
        "give this agent a directory of its own, by [api] socket",
    ];
    assert!(expected.iter().all(|words| refusal.contains(words)), "{refusal}");

    // With another host's id it is as foreign.
    let mut moved = others.clone();
    moved.me.id = mainstay_core::HostId::new("host-9");
    moved.state_dir = world.root().join("s9");
    let refusal = Host::start_agent(moved).err().expect("refused");
    assert!(refusal.contains(" is that of host-1 in cluster 0000000b-lab"), "{refusal}");

    // It was not told to end: an agent of its own finds it.
    assert!(theirs.thread.as_ref().is_some_and(|thread| !thread.is_finished()));
    let mut host = Host::start_agent(others).expect("it starts");
    host.guard = Some(theirs);
    host.wait("owner", |status| status.complete && status.view.datastores[0].ownership_left.is_some());
}

#[test]
fn a_guard_with_other_settings_is_replaced_and_a_lost_one_is_found_again() {
    let world = World::new(1);
    let mut other = world.config(1, "s1");
    other.cluster_name = "another-name".into();
    let old = Guarding::start(&other);
    let mut config = world.config(1, "s1");
    // Started by the agent, and of no consequence.
    let program = world.root().join("no-guard");
    std::fs::write(&program, "#!/bin/sh\nexec sleep 5\n").expect("a program");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).expect("its mode");
    config.guard.program = Some(program);
    let settings = mainstay_agent::guard_link::settings(&config);
    // Stands for the agent's starting of the program: a guard comes as soon as the old one has gone.
    let next = std::thread::spawn(move || {
        loop {
            match Service::start(settings.clone(), Freezer::by_signal()) {
                Ok(service) => break service,
                Err(mainstay_guard::GuardError::AlreadyRuns { .. }) => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
    });
    let mut host = Host::start_agent(config.clone()).expect("it starts");
    drop(old);
    let service = next.join().expect("a guard");
    let stopper = service.stopper();
    host.guard = Some(Guarding { stopper, thread: Some(std::thread::spawn(move || service.run())) });
    host.wait("owner", |status| status.complete && status.view.datastores[0].ownership_left.is_some());
    let found = || {
        let is_found = |record: &&EventRecord| matches!(record.event, Some(Event::GuardFound { .. }));
        events(world.root().join("s1")).iter().filter(is_found).count()
    };
    let before = found();
    drop(host.guard.take());
    host.guard = Some(Guarding::start(&config));
    let deadline = Instant::now() + PATIENCE;
    while found() == before {
        assert!(Instant::now() < deadline, "the new guard is not found");
        std::thread::yield_now();
    }
}
