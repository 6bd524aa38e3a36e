//! The agent, put together: what is started in which order, and how it stops.

use crate::api::{self, ApiError, Arrivals, Service};
use crate::config::{AgentConfig, Member};
use crate::disk::{self, Disks, HostLocks};
use crate::driver::{Driver, Question, Queue, Request};
use crate::first_minutes::FirstMinutes;
use crate::guard_link::{GuardLink, GuardLinkError};
use crate::journal::{Journal, JournalError};
use crate::lock::{AgentLock, LockError};
use crate::outside::{Adapters, tell};
use crate::ping::PingTargets;
use crate::remembered::Remembered;
use crate::vms::{Destination, LISTS_INTERVAL, Lists, Migrations, Mounts, VmNews, Vms};
use crate::wire::{Incoming, Outgoing};
use crate::{clock, config};
use mainstay_core::ids::{BootId, Incarnation};
use mainstay_core::{Core, Timing};
use mainstay_formats::layout::ClusterId;
use mainstay_hypervisor as hv;
use mainstay_recorder::{Recorder, RecorderError};
use mainstay_storage::StorageError;
use mainstay_transport::{Net, NetConfig, NetError, NetEvent, Peer};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How long a stopping agent may take to hand over.
const HANDOVER_MAX: Duration = Duration::from_secs(2);

/// Questions of the API that wait for the driver.
const QUESTIONS_MAX: usize = 64;

/// The agent can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    /// Another agent runs, or the state directory can't be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The journal can't be opened.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The flight recorder can't be started.
    #[error(transparent)]
    Recorder(#[from] RecorderError),
    /// The API can't be offered.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The transport can't be started.
    #[error(transparent)]
    Net(#[from] NetError),
    /// libvirt's adapter can't be started.
    #[error(transparent)]
    Hypervisor(#[from] hv::Error),
    /// A datastore's adapter can't be started, or another agent uses this host's registers.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// No guard could be started.
    #[error(transparent)]
    Guard(#[from] GuardLinkError),
    /// The core refuses.
    #[error("the protocol can't run like this: {0}")]
    Core(String),
    /// The system does not give what every agent needs.
    #[error("{what}: {source}")]
    System {
        /// What could not be had, in words for people.
        what: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
}

/// Starts libvirt's adapter: the real one, or one in memory.
pub type StartHypervisor = Box<dyn FnOnce(hv::Sink) -> Result<Box<dyn hv::Handle>, hv::Error>>;

/// A running agent.
pub struct Agent {
    queue: Queue<VmNews>,
    driver: JoinHandle<()>,
    server: JoinHandle<()>,
    net: Net,
    config: AgentConfig,
    _lock: AgentLock,
    _host_locks: HostLocks,
}

impl Agent {
    /// Starts everything. Must be called inside a tokio runtime; comes back when the core has taken its first steps.
    pub async fn start(config: AgentConfig, start_hypervisor: StartHypervisor) -> Result<Agent, StartError> {
        let lock = AgentLock::take(&config.state_dir)?;
        let incarnation = draw_incarnation()?;
        let boot = boot_id()?;
        let core_config = config.core(boot, incarnation);
        let core = Core::new(core_config.clone(), clock::now()).map_err(StartError::Core)?;
        let cluster = ClusterId::parse(&config.cluster_id).map_err(StorageError::from)?;
        let journal = Journal::open(&config.state_dir, config.me.id.clone(), incarnation)?;
        let recorder = start_recorder(&config, core_config)?;
        let listener = api::bind(&config.api_socket)?;
        let (queue, requests) = mpsc::unbounded_channel();
        // Before anything is written: another agent with this host's id would write the same registers.
        let disk_configs = disk::configs(&config);
        let host_locks = HostLocks::take(&disk_configs, boot, heartbeat(&config.timing)).await?;
        // Nothing begins without it: it holds the leases under which VMs run.
        let guard = GuardLink::start(&config, queue.clone()).await?;
        let disks = Disks::start(disk_configs, &queue)?;
        let (net, heard) = Net::start(net_config(&config)).await?;
        let (questions, asked) = mpsc::channel(QUESTIONS_MAX);
        let hypervisor = start_hypervisor(sink(queue.clone()))?;
        let undecodable = Arc::new(AtomicU64::new(0));
        let mounts = mounts(&config);
        let pings = PingTargets::new(&config, heartbeat(&config.timing));
        pings.warn_of_gaps();
        let adapters = Adapters {
            disks,
            guard,
            hypervisor,
            vms: vms(&config, &mounts),
            outgoing: Outgoing::new(net.clone(), cluster.clone()),
            undecodable: Arc::clone(&undecodable),
            pings,
            journal: journal.clone(),
            state_dir: config.state_dir.clone(),
            queue: queue.clone(),
            errands: Vec::new(),
        };
        let service = Arc::new(Service {
            me: config.me.clone(),
            peers: config.peers.clone(),
            cluster_id: config.cluster_id.clone(),
            cluster_name: config.cluster_name.clone(),
            mounts,
            questions,
            journal: journal.clone(),
            net: net.clone(),
            arrivals: Arrivals::default(),
            first_minutes: FirstMinutes::of(&config.api_socket, &config.state_dir),
            started: Instant::now(),
        });
        tokio::spawn(follow_lists(service.questions.clone(), queue.clone()));
        let mut driver = Driver::new(core, adapters, journal, recorder, requests, asked);
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let driver = tokio::spawn(async move {
            // When the other side is gone, `start` was given up.
            let on_first_steps = || {
                let _ = begun.send(());
            };
            driver.run(on_first_steps).await;
        });
        // Fails when the driver has panicked: `stop` will come at once then.
        let _ = has_begun.await;
        tokio::spawn(listen(heard, Incoming::new(cluster, undecodable), Arc::clone(&service), queue.clone()));
        let server = tokio::spawn(async move {
            if let Err(error) = api::serve(service, listener).await {
                tracing::error!(%error, "the API has ended; restart the agent");
            }
        });
        Ok(Agent { queue, driver, server, net, config, _lock: lock, _host_locks: host_locks })
    }

    /// Ends when the core's driver ends, which it should not: an error in the program.
    pub async fn failed(&mut self) {
        let _ = (&mut self.driver).await;
    }

    /// Hands over what this host owns, says goodbye and stops. VMs go on.
    pub async fn stop(mut self) {
        tell(&self.queue, Request::Stop);
        if !self.driver.is_finished() && tokio::time::timeout(HANDOVER_MAX, &mut self.driver).await.is_err() {
            tracing::warn!(
                "a datastore does not answer: stopping without having handed over; others take over after the failure time-out"
            );
            self.driver.abort();
        }
        self.server.abort();
        self.net.close().await;
        // The next agent would replace it anyway; without it clients hear sooner that nobody is here.
        let _ = std::fs::remove_file(&self.config.api_socket);
    }
}

/// Where news of libvirt go.
fn sink(queue: Queue<VmNews>) -> hv::Sink {
    Box::new(move |event| tell(&queue, Request::News(VmNews::Hypervisor(event))))
}

fn mounts(config: &AgentConfig) -> Mounts {
    let mounts = config.datastores.iter().map(|datastore| (datastore.path.clone(), datastore.name.clone()));
    Mounts::new(mounts.collect())
}

/// With what former runs remember of protected VMs.
fn vms(config: &AgentConfig, mounts: &Mounts) -> Vms {
    let remembered = Remembered::load_or_begin(&config.state_dir);
    Vms::new(mounts.clone(), migrations(config)).remembering(remembered)
}

/// Looks now and then which VMs are protected.
async fn follow_lists(questions: mpsc::Sender<Question>, queue: Queue<VmNews>) {
    loop {
        let (answer, answered) = tokio::sync::oneshot::channel();
        if questions.send(Question::Look(answer)).await.is_err() {
            return;
        }
        if let Ok(looked) = answered.await {
            tell(&queue, Request::News(VmNews::Lists(Box::new(Lists::of(&looked.view)))));
        }
        tokio::time::sleep(LISTS_INTERVAL).await;
    }
}

/// Passes on what other agents send.
async fn listen(
    mut heard: mpsc::Receiver<NetEvent>,
    mut incoming: Incoming,
    service: Arc<Service>,
    queue: Queue<VmNews>,
) {
    while let Some(event) = heard.recv().await {
        match event {
            NetEvent::Datagram { from, bytes } => match incoming.read(&from, &bytes) {
                Ok(input) => tell(&queue, Request::Input(input)),
                Err(Some(event)) => service.journal.record(clock::now(), event),
                Err(None) => {}
            },
            NetEvent::Request { from: _, body, reply } => {
                let service = Arc::clone(&service);
                tokio::spawn(async move {
                    // A peer that gave up is not an error here.
                    let _ = reply.send(service.serve_peer(&body).await);
                });
            }
        }
    }
}

/// The flight recorder, unless it is switched off.
fn start_recorder(
    config: &AgentConfig,
    core: mainstay_core::Config,
) -> Result<Option<Recorder>, RecorderError> {
    let Some(bytes_max) = config.recorder.bytes_max() else { return Ok(None) };
    let options = mainstay_recorder::Options::new(config.state_dir.join("flight"), bytes_max);
    let software = env!("CARGO_PKG_VERSION").to_owned();
    let identity = mainstay_recorder::Identity { cluster: config.cluster_id.clone(), software, config: core };
    Recorder::start(options, identity).map(Some)
}

fn net_config(config: &AgentConfig) -> NetConfig {
    NetConfig {
        me: config.me.id.as_str().into(),
        cluster_id: config.cluster_id.clone(),
        listen: config.me.addresses.clone(),
        peers: config
            .peers
            .iter()
            .map(|peer| Peer { id: peer.id.as_str().into(), addresses: peer.addresses.clone() })
            .collect(),
        key: config.key.0,
        heartbeat: heartbeat(&config.timing),
    }
}

fn migrations(config: &AgentConfig) -> Migrations {
    let how = &config.migration;
    let destination = |peer: &Member| Destination { uri: how.uri(peer), data_uri: how.data_uri(peer) };
    Migrations {
        destinations: config.peers.iter().map(|peer| (peer.id.clone(), destination(peer))).collect(),
        timeout: how.timeout,
    }
}

fn heartbeat(timing: &Timing) -> Duration {
    Duration::from_micros(timing.heartbeat.0)
}

fn boot_id() -> Result<BootId, StartError> {
    let path = "/proc/sys/kernel/random/boot_id";
    let what = "the kernel's boot id (/proc/sys/kernel/random/boot_id) can't be read";
    let text = std::fs::read_to_string(path).map_err(|source| StartError::System { what, source })?;
    BootId::parse(text.trim())
        .ok_or_else(|| StartError::System { what, source: std::io::ErrorKind::InvalidData.into() })
}

fn draw_incarnation() -> Result<Incarnation, StartError> {
    let mut bytes = [0u8; 8];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| StartError::System {
        what: "no random number for this run of the agent",
        source: std::io::ErrorKind::Other.into(),
    })?;
    Ok(Incarnation(u64::from_ne_bytes(bytes)))
}
