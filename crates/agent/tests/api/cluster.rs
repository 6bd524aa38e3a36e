//! Two hosts with the real API and transport, and scripted cores behind them.

use mainstay_agent::api::{self, Arrivals, Service};
use mainstay_agent::config::Member;
use mainstay_agent::driver::{Looked, Question};
use mainstay_agent::first_minutes::FirstMinutes;
use mainstay_agent::journal::Journal;
use mainstay_agent::vms::Mounts;
use mainstay_client::Client;
use mainstay_core::host_liveness::HostState;
use mainstay_core::ids::{DatastoreName, Epoch, HostId, Incarnation, Token, VmId};
use mainstay_core::register::{IsolationResponse, OrderKind, Priority};
use mainstay_core::settings::{Admission, Policy, Settings};
use mainstay_core::view::{HostView, Role, View, VmState, VmView};
use mainstay_core::{Command, Config, Core, Span, Time, Timing};
use mainstay_testkit::{PATIENCE, made, wait_for};
use mainstay_transport::{Net, NetConfig, NetEvent, Peer};
use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// A VM that host-1 is starting itself.
pub const STARTING: VmId = VmId([8; 16]);
/// A VM that the primary has ordered to migrate to host-1.
pub const ORDERED: VmId = VmId([5; 16]);

/// Two hosts, h1 and h2, in a runtime on a thread of their own: the client blocks.
pub struct Cluster {
    pub dir: tempfile::TempDir,
    pub journals: Vec<Journal>,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Cluster {
    /// `primary`: who that is, as both hosts see it.
    pub fn start(primary: Option<u32>) -> Cluster {
        Cluster::of(2, primary)
    }

    /// h1 alone is there, and takes h2 for connected.
    pub fn without_h2() -> Cluster {
        Cluster::of(1, Some(1))
    }

    fn of(hosts: u32, primary: Option<u32>) -> Cluster {
        let dir = tempfile::tempdir().expect("a directory");
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let root = dir.path().to_path_buf();
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let addresses = [free_address(), free_address()];
                let (mut journals, mut services) = (Vec::new(), Vec::new());
                for n in 1..=hosts {
                    let (journal, service) = start_host(&root, n, addresses, primary).await;
                    journals.push(journal);
                    services.push(service);
                }
                // The API waits for other hosts a second or so, which a first dial on a busy machine may take.
                for (service, peer) in services.iter().zip(["host-2", "host-1"]).filter(|_| hosts == 2) {
                    service.net.request(peer, Vec::new(), PATIENCE).await.expect("they reach each other");
                }
                ready.send(journals).expect("the test waits");
                // Ends with the test, which drops the other side.
                let _ = stopped.await;
            });
        });
        let journals = is_ready.recv_timeout(PATIENCE * 2).expect("hosts");
        Cluster { dir, journals, _stop: stop }
    }

    pub fn client(&self, n: u32) -> Client {
        Client::new(self.dir.path().join(format!("h{n}.sock")))
    }

    /// Asks host `n` until the answer is whole: the others are waited for a second at most, and what they say is then left out.
    pub fn whole<T: serde::de::DeserializeOwned>(
        &self,
        n: u32,
        path: &str,
        is_whole: impl Fn(&T) -> bool,
    ) -> T {
        wait_for(path, || {
            Some(self.client(n).get(path).expect("an answer")).filter(|answer| is_whole(answer))
        })
    }

    pub fn journal(&self, n: usize) -> &Journal {
        &self.journals[n - 1]
    }
}

/// A port that was free a moment ago.
fn free_address() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.local_addr().expect("its address")
}

fn member(n: u32, addresses: [SocketAddr; 2]) -> Member {
    Member {
        id: HostId::new(&format!("host-{n}")),
        name: format!("h{n}"),
        addresses: vec![addresses[n as usize - 1]],
    }
}

async fn start_host(
    root: &Path,
    n: u32,
    addresses: [SocketAddr; 2],
    primary: Option<u32>,
) -> (Journal, Arc<Service>) {
    let (me, peer) = (member(n, addresses), member(3 - n, addresses));
    let state_dir = root.join(format!("state{n}"));
    std::fs::create_dir(&state_dir).expect("a state directory");
    let journal = Journal::open(&state_dir, me.id.clone(), Incarnation(n.into())).expect("a journal");
    let net = NetConfig {
        me: me.id.as_str().into(),
        cluster_id: "1ab0001a".into(),
        listen: me.addresses.clone(),
        peers: vec![Peer { id: peer.id.as_str().into(), addresses: peer.addresses.clone() }],
        key: [7; 32],
        // A machine that stands still for seconds is no outage.
        heartbeat: Duration::from_secs(20),
    };
    let (net, mut events) = Net::start(net).await.expect("a transport");
    let (questions, asked) = mpsc::channel(8);
    tokio::spawn(scripted_core(n, primary, asked));
    let service = Arc::new(Service {
        me,
        peers: vec![peer],
        cluster_id: "1ab0001a".into(),
        cluster_name: "lab".into(),
        mounts: Mounts::new(vec![(PathBuf::from("/srv/ds1"), DatastoreName::new("ds1"))]),
        questions,
        journal: journal.clone(),
        net,
        arrivals: Arrivals::default(),
        first_minutes: FirstMinutes {
            state_dir: root.to_owned(),
            runtime_dir: root.to_owned(),
            uptime: root.join("uptime"),
        },
        started: Instant::now(),
    });
    let listener = api::bind(&root.join(format!("h{n}.sock"))).expect("a socket");
    tokio::spawn(api::serve(Arc::clone(&service), listener));
    let serving = Arc::clone(&service);
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            if let NetEvent::Request { from: _, body, reply } = event {
                let service = Arc::clone(&serving);
                tokio::spawn(async move { reply.send(service.serve_peer(&body).await) });
            }
        }
    });
    (journal, service)
}

async fn scripted_core(n: u32, primary: Option<u32>, mut asked: mpsc::Receiver<Question>) {
    let me = HostId::new(&format!("host-{n}"));
    while let Some(question) = asked.recv().await {
        // A client that went away is not this script's business.
        match question {
            Question::Look(answer) => {
                let counters = BTreeMap::from([("core.steps".to_owned(), 17)]);
                let _ = answer.send(Looked { view: view(&me, n, primary), counters });
            }
            Question::Operate(command, answer) => {
                // One that keeps quiet: the answer's sender is not to be dropped.
                if matches!(&command, Command::AdmitStart { name, .. } if &**name == "silent") {
                    std::mem::forget(answer);
                } else {
                    let _ = answer.send(operate(&me, command));
                }
            }
            Question::Rehearse(answer) => {
                let peers = vec![HostId::new(&format!("host-{}", 3 - n))];
                let config = Config { me: me.clone(), peers, ..made::config() };
                let core = Core::new(config, Time(1)).expect("a core");
                let _ = answer.send(core.rehearsal_scene(Time(1)));
            }
            Question::IsStarting(vm, answer) => {
                let _ = answer.send(vm == STARTING);
            }
        }
    }
}

fn operate(me: &HostId, command: Command) -> Result<String, String> {
    match command {
        Command::Protect { vm } => Ok(format!("{vm} is protected, says {me}")),
        Command::Unprotect { vm } if vm == "web 1" => Err(format!("{vm} stays protected")),
        Command::Unprotect { vm } | Command::SetPriority { vm, .. } | Command::SetReadiness { vm, .. } => {
            Err(unknown_to_core(&vm))
        }
        Command::SetRule { vms, .. } | Command::SetGroup { vms, .. }
            if vms.iter().any(|vm| vm == "nobody") =>
        {
            Err(unknown_to_core("nobody"))
        }
        Command::SetIsolation { vm, response, shutdown_timeout } => {
            let response = response.map(|response| response.to_string());
            let timeout = shutdown_timeout.map(|timeout| timeout.to_string());
            Ok(format!("{vm}: {response:?}, {timeout:?}, says {me}"))
        }
        Command::AdmitStart { host, name, datastore, arrives, .. } => match &*name {
            "roomy" => Ok(String::new()),
            "moving" if arrives => Ok(String::new()),
            "tight" => Ok(format!("{host} is nearly full, says {me}")),
            name => Err(format!("no room for {name} of {datastore} on {host}, says {me}")),
        },
        // Not as ids, which would become names: a command must not come in with a name.
        other => Ok(format!("{other:?}, says {me}").replace("host-", "id=")),
    }
}

fn unknown_to_core(vm: &str) -> String {
    format!("no VM called {vm} is known on a datastore that host-2 owns")
}

fn view(me: &HostId, n: u32, primary: Option<u32>) -> View {
    let peer = HostView {
        host: HostId::new(&format!("host-{}", 3 - n)),
        state: HostState::Connected,
        since: Span::ZERO,
        network_heartbeat: None,
        datastore_heartbeats: vec![],
        ping: None,
        datastores: vec![],
        capacity: None,
        hypervisor_well: None,
        maintenance: None,
        failover_host: false,
    };
    let admission = Admission { policy: Policy::Percentage { cpu: 25, memory: 30 }, refuse: true };
    let ordered = VmView {
        order: Some(OrderKind::Migrate(HostId::new("host-1"))),
        ..vm(ORDERED.0[0], "ordered", None, None)
    };
    View {
        host: me.clone(),
        now: Time(1),
        role: if primary == Some(n) { Role::Primary } else { Role::Secondary },
        primary: primary.map(|primary| HostId::new(&format!("host-{primary}"))),
        primary_reason: None,
        timing: Timing::STANDARD,
        hosts: vec![peer],
        datastores: vec![],
        vms: vec![
            vm(1, "web 1", None, None),
            vm(2, "db", Some(IsolationResponse::PowerOff), Some(Span::from_secs(60))),
            vm(3, "twin", None, None),
            vm(4, "twin", None, None),
            ordered,
        ],
        hypervisor_well: true,
        isolated: false,
        guard: true,
        settings: Arc::new(Settings { admission, ..Settings::default() }),
        suspensions: vec![],
        objection: None,
    }
}

fn vm(number: u8, name: &str, response: Option<IsolationResponse>, timeout: Option<Span>) -> VmView {
    VmView {
        vm: VmId([number; 16]),
        name: name.into(),
        datastore: DatastoreName::new("ds1"),
        host: None,
        state: VmState::Running,
        protected: true,
        unprotected: false,
        note: None,
        priority: Priority::Medium,
        token: Some(Token { epoch: Epoch(1), number: 1 }),
        memory_mib: 1,
        vcpus: 1,
        isolation_response: response.unwrap_or_default(),
        isolation_response_own: response.is_some(),
        shutdown_timeout: timeout.unwrap_or(Span::from_secs(300)),
        shutdown_timeout_own: timeout.is_some(),
        order: None,
    }
}
