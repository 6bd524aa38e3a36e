//! The one world of these tests: a directory for all hosts, and on it guards and agents, each on a thread of its own.

use mainstay_agent::agent::Agent;
use mainstay_agent::config::AgentConfig;
use mainstay_api::{EventRecord, Status};
use mainstay_client::Client;
use mainstay_core::view::VmState;
use mainstay_core::{Event, VmId};
use mainstay_guard::freezer::Freezer;
use mainstay_guard::{Service, Stopper};
use mainstay_hypervisor as hv;
use mainstay_hypervisor::fake::{FakeHypervisor, FakeStorage};
use mainstay_testkit::{PATIENCE, wait_for_ok};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// What several hosts share.
pub struct World {
    dir: tempfile::TempDir,
    addresses: Vec<SocketAddr>,
    pub vm: VmId,
    qemu: Child,
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

impl World {
    pub fn new(hosts: usize) -> World {
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

    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    /// The configuration of host `me` (from 1). `state` names its state directory and socket.
    pub fn config(&self, me: usize, state: &str) -> AgentConfig {
        parse(&self.config_text(me, state)).expect("a good configuration")
    }

    /// The same as text, to which sections can be added.
    pub fn config_text(&self, me: usize, state: &str) -> String {
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
        text
    }

    /// Waits until that host has told of such an event.
    pub fn wait_for_event(&self, state: &str, what: &str, wanted: impl Fn(&Event) -> bool) {
        wait_for_ok(what, || {
            let told = self.events(state);
            let is_wanted = |record: &EventRecord| record.event.as_ref().is_some_and(&wanted);
            if told.iter().any(is_wanted) { Ok(()) } else { Err(told) }
        })
    }

    /// What that host has told so far.
    pub fn events(&self, state: &str) -> Vec<EventRecord> {
        let text = std::fs::read_to_string(self.root().join(state).join("events.jsonl")).expect("events");
        text.lines().map(|line| serde_json::from_str(line).expect("an event")).collect()
    }

    /// Not by closing its stdin: a guard may have stopped it, if this machine stood still for longer than a lease.
    pub fn end_qemu(&mut self) {
        self.qemu.kill().expect("killed");
        self.qemu.wait().expect("it ends");
    }

    pub fn xml(&self) -> String {
        format!(
            "<domain type='kvm'><name>web</name><uuid>{}</uuid><memory unit='MiB'>512</memory><vcpu>1</vcpu>\
             <os><type arch='x86_64'>hvm</type></os><devices><disk type='file' device='disk'>\
             <source file='{}/ds1/web.img'/><target dev='vda'/></disk></devices></domain>",
            self.vm,
            self.root().display()
        )
    }
}

pub fn parse(text: &str) -> Result<AgentConfig, String> {
    AgentConfig::parse(Path::new("agent.toml"), text).map_err(|error| error.to_string())
}

/// A guard on a thread of its own: the agent finds it running.
pub struct Guarding {
    stopper: Stopper,
    pub thread: Option<JoinHandle<()>>,
}

impl Guarding {
    pub fn start(config: &AgentConfig) -> Guarding {
        let settings = mainstay_agent::guard_link::settings(config);
        Guarding::run(Service::start(settings, Freezer::by_signal()).expect("a guard"))
    }

    pub fn run(service: Service) -> Guarding {
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
pub struct Host {
    pub client: Client,
    pub fake: FakeHypervisor,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    /// Outlives the agent when it is stopped.
    pub guard: Option<Guarding>,
}

impl Host {
    pub fn start(config: AgentConfig) -> Result<Host, String> {
        let guard = Guarding::start(&config);
        let mut host = Host::start_agent(config)?;
        host.guard = Some(guard);
        Ok(host)
    }

    /// Where a guard runs, or none should be needed.
    pub fn start_agent(config: AgentConfig) -> Result<Host, String> {
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
    pub fn wait(&self, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
        self.wait_at("/v1/status", what, wanted)
    }

    /// Waits until what the host answers at that path is as wanted.
    pub fn wait_at<T: DeserializeOwned + Debug>(
        &self,
        path: &str,
        what: &str,
        wanted: impl Fn(&T) -> bool,
    ) -> T {
        wait_for_ok(what, || {
            let answer = self.client.get(path).expect("an answer");
            if wanted(&answer) { Ok(answer) } else { Err(answer) }
        })
    }

    pub fn wait_for_vm(&self, what: &str, state: VmState, protected: bool) -> Status {
        self.wait(what, |status| {
            status.complete && status.view.vms.iter().any(|vm| vm.state == state && vm.protected == protected)
        })
    }

    pub fn stop(&mut self) {
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
