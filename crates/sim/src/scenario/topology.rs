//! The part of a scenario that does not change while it runs: hosts, datastores, VMs, times and latencies, as a [`Setup`].

use super::ScenarioError;
use crate::dice::Latency;
use crate::setup::{BOOT, DISK, DatastoreSetup, HostFile, HostSetup, NETWORK, START_DELAY, Setup, VmSetup};
use mainstay_core::register::{Priority, VmNeeds};
use mainstay_core::settings::HostOffers;
use mainstay_core::{DatastoreName, HostId, Span, Timing};
use serde::Deserialize;
use std::sync::Arc;

const SECOND: f64 = 1_000_000.0;

/// Seconds as microseconds.
pub(super) fn micros(seconds: f64) -> u64 {
    (seconds * SECOND) as u64
}

/// A host: its id alone, or more about it.
#[derive(Clone, Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "a host is its id, such as \"host-1\", or { id, drift_ppm, agent_starts, timing, newer, memory_mib, networks, machines, knows, serves }"
)]
pub enum ScenarioHost {
    /// All as usual.
    Id(HostId),
    /// More about it.
    More(MoreOfHost),
}

/// What else can be said of a host.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoreOfHost {
    /// The host's id, by which steps and expectations name it.
    pub id: HostId,
    /// How much too fast its clock runs.
    pub drift_ppm: Option<i64>,
    /// When its agent starts for the first time, in seconds.
    pub agent_starts: Option<f64>,
    /// The protocol's times there, where they are not the file's.
    pub timing: Option<ScenarioTiming>,
    /// It runs a newer release: the others can't read what it writes and says.
    #[serde(default)]
    pub newer: bool,
    /// Its memory in MiB; plenty when left out.
    pub memory_mib: Option<u64>,
    /// Its networks; with neither these nor `machines` nobody knows what it offers, and it is taken to have everything.
    pub networks: Option<Vec<Arc<str>>>,
    /// The machine types that its QEMU knows.
    pub machines: Option<Vec<Arc<str>>>,
    /// The other hosts in its `agent.toml`; all when left out.
    pub knows: Option<Vec<HostId>>,
    /// The datastores in its `agent.toml`; all when left out.
    pub serves: Option<Vec<DatastoreName>>,
}

/// A datastore: its name alone, or more about it.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "a datastore is its name, such as \"ds1\", or { name, hosts, lock_release }")]
pub enum ScenarioDatastore {
    /// Every host reaches it.
    Name(DatastoreName),
    /// More about it.
    More(MoreOfDatastore),
}

/// What else can be said of a datastore.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoreOfDatastore {
    /// The datastore's name, by which steps and expectations name it.
    pub name: DatastoreName,
    /// Which hosts have a path to it; all when left out.
    pub hosts: Option<Vec<HostId>>,
    /// How long it keeps the image locks of a crashed host, in seconds.
    pub lock_release: Option<f64>,
}

/// A VM of a scenario.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScenarioVm {
    /// The VM's name, by which steps and expectations name it.
    pub name: String,
    /// Where it runs at first.
    pub host: HostId,
    /// Its home; the first datastore when left out.
    pub datastore: Option<DatastoreName>,
    /// It has no definition that outlives its run.
    #[serde(default)]
    pub transient: bool,
    /// Its restart priority.
    pub priority: Option<String>,
    /// Its memory in MiB; 512 when left out.
    #[serde(default = "half_a_gibibyte")]
    pub memory_mib: u64,
    /// How long its guest takes to shut down when asked to, in seconds.
    #[serde(default = "a_second")]
    pub shutdown_takes: f64,
    /// Its guest ignores that.
    #[serde(default)]
    pub ignores_shutdown: bool,
    /// Its guest agent answers so many seconds after its start; it has none when left out.
    pub agent_after: Option<f64>,
    /// Networks that it needs.
    #[serde(default)]
    pub networks: Vec<Arc<str>>,
    /// The machine type that it needs.
    pub machine: Option<Arc<str>>,
}

fn half_a_gibibyte() -> u64 {
    512
}

/// The protocol's times: a preset, or one's own.
#[derive(Clone, Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "timing is \"standard\", \"swift\", \"patient\" or { heartbeat, lease, failure_timeout } in seconds"
)]
pub enum ScenarioTiming {
    /// One of the presets.
    Preset(String),
    /// Times of the scenario's own.
    Own(OwnTiming),
}

/// Times of one's own, in seconds.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnTiming {
    /// From one heartbeat to the next, in seconds ([`Timing::heartbeat`]).
    pub heartbeat: f64,
    /// How long a lease lasts, in seconds ([`Timing::lease`]).
    pub lease: f64,
    /// How long a host must have been silent to be failed, in seconds ([`Timing::failure_timeout`]).
    pub failure_timeout: f64,
}

impl Default for ScenarioTiming {
    fn default() -> ScenarioTiming {
        ScenarioTiming::Preset(String::from("standard"))
    }
}

impl ScenarioTiming {
    /// The times, if they keep the inequalities that the agent insists on; else what is wrong with them.
    pub fn times(&self) -> Result<Timing, String> {
        let span = |seconds: f64| Span(micros(seconds));
        let timing = match self {
            ScenarioTiming::Preset(name) => {
                return Timing::preset(name)
                    .ok_or_else(|| format!("there is no timing '{name}': take standard, swift or patient"));
            }
            ScenarioTiming::Own(own) => Timing {
                heartbeat: span(own.heartbeat),
                lease: span(own.lease),
                failure_timeout: span(own.failure_timeout),
            },
        };
        timing.check().map(|()| timing)
    }
}

/// How long things take; what is left out is as usual.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latencies {
    /// A register operation.
    pub disk: Option<ScenarioLatency>,
    /// One datagram between two hosts.
    pub network: Option<ScenarioLatency>,
    /// Libvirt creating a domain.
    pub start: Option<ScenarioLatency>,
    /// From power-on to the agent's start.
    pub boot: Option<ScenarioLatency>,
}

/// A latency in seconds.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScenarioLatency {
    /// The shortest it can be, in seconds.
    pub base: f64,
    /// Uniformly up to that much more.
    #[serde(default)]
    pub spread: f64,
    /// How many of a thousand are late.
    #[serde(default)]
    pub tail_permille: u64,
    /// Late ones take uniformly up to that much more.
    #[serde(default)]
    pub tail: f64,
}

fn latency(own: Option<ScenarioLatency>, usual: Latency) -> Latency {
    own.map_or(usual, |own| Latency {
        base: micros(own.base),
        spread: micros(own.spread),
        tail_permille: own.tail_permille,
        tail: micros(own.tail),
    })
}

/// Everything about a scenario's world that does not change.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// The hosts, each by its id alone or with more about it.
    pub hosts: Vec<ScenarioHost>,
    /// So many hosts more, which have no VMs and are never primary while a named host can be.
    #[serde(default)]
    pub bystanders: usize,
    /// The datastores, each by its name alone or with more about it; one that all hosts reach when left out.
    #[serde(default = "one_datastore")]
    pub datastores: Vec<ScenarioDatastore>,
    /// The protocol's times.
    #[serde(default)]
    pub timing: ScenarioTiming,
    /// How long the storage keeps the image locks of a crashed host, in seconds, where a datastore does not say otherwise.
    #[serde(default)]
    pub lock_release: f64,
    /// Whether QEMU locks images. Without it, only the protocol keeps a second copy away.
    #[serde(default = "yes")]
    pub image_lock: bool,
    /// Whether QEMU pauses guests for an I/O error when their storage is cut (within 8 seconds). Without it they just wait.
    #[serde(default)]
    pub io_errors: bool,
    /// Whether the hosts have an isolation address: the gateway of the management network.
    #[serde(default = "yes")]
    pub gateway: bool,
    /// The cluster's default isolation response: `leave_powered_on`, `shut_down` or `power_off`.
    #[serde(default)]
    pub isolation_response: mainstay_core::register::IsolationResponse,
    /// How long a guest may take to shut down before it is powered off, in seconds.
    #[serde(default = "five_minutes")]
    pub shutdown_timeout: f64,
    /// How long a host must have had no answer before it believes that it is isolated.
    #[serde(default)]
    pub isolation_timeout: Option<f64>,
    /// How many of a thousand datagrams are lost, always.
    #[serde(default)]
    pub loss_permille: u64,
    /// How many of a thousand datagrams arrive twice.
    #[serde(default)]
    pub duplicate_permille: u64,
    /// How long things take.
    #[serde(default)]
    pub latency: Latencies,
    /// The VMs, each with the host where it runs at first.
    #[serde(default)]
    pub vm: Vec<ScenarioVm>,
}

fn yes() -> bool {
    true
}

fn five_minutes() -> f64 {
    300.0
}

fn a_second() -> f64 {
    1.0
}

fn one_datastore() -> Vec<ScenarioDatastore> {
    vec![ScenarioDatastore::Name(DatastoreName::new("ds1"))]
}

impl Topology {
    /// The ids of the named hosts, and of the bystanders.
    pub fn host_ids(&self) -> Vec<HostId> {
        let named = self.hosts.iter().map(|host| match host {
            ScenarioHost::Id(id) => id.clone(),
            ScenarioHost::More(more) => more.id.clone(),
        });
        // As text, "host-00…" is less than any id that the agent gives out.
        let others = (0..self.bystanders).map(|index| HostId::new(&format!("host-00{index:02}")));
        named.chain(others).collect()
    }

    fn host(&self, index: usize, id: HostId) -> Result<HostSetup, String> {
        let more = match self.hosts.get(index) {
            Some(ScenarioHost::More(more)) => Some(more),
            Some(ScenarioHost::Id(_)) | None => None,
        };
        let usual_drift = 100 * (index as i64).min(9);
        let timing = more.and_then(|more| more.timing.as_ref()).map(ScenarioTiming::times).transpose()?;
        Ok(HostSetup {
            id,
            clock_base: 1_000_000_000 * (index as u64 + 1),
            drift_ppm: more.and_then(|more| more.drift_ppm).unwrap_or(usual_drift),
            agent_starts: more.and_then(|more| more.agent_starts).map_or(10_000 * index as u64, micros),
            timing,
            newer: more.is_some_and(|more| more.newer),
            memory_mib: more.and_then(|more| more.memory_mib).unwrap_or(crate::setup::HOST_MEMORY),
            file: HostFile {
                knows: more.and_then(|more| more.knows.clone()),
                serves: more.and_then(|more| more.serves.clone()),
            },
        })
    }

    fn datastore(&self, datastore: &ScenarioDatastore) -> DatastoreSetup {
        match datastore {
            ScenarioDatastore::Name(name) => {
                DatastoreSetup { name: name.clone(), lock_release: micros(self.lock_release) }
            }
            ScenarioDatastore::More(more) => DatastoreSetup {
                name: more.name.clone(),
                lock_release: micros(more.lock_release.unwrap_or(self.lock_release)),
            },
        }
    }

    /// The setup of that world.
    pub fn setup(&self, scenario: &str) -> Result<Setup, ScenarioError> {
        let unknown = |what: String| ScenarioError::Unknown { name: scenario.into(), what };
        let timing = self.timing.times();
        let impossible =
            |what: String| ScenarioError::Impossible { name: scenario.into(), what: Arc::from(what) };
        let timing = timing.map_err(impossible)?;
        let hosts = self.host_ids().into_iter().enumerate().map(|(index, id)| self.host(index, id));
        let hosts: Result<Vec<HostSetup>, String> = hosts.collect();
        let mut setup = Setup {
            hosts: hosts.map_err(impossible)?,
            datastores: self.datastores.iter().map(|datastore| self.datastore(datastore)).collect(),
            vms: Vec::new(),
            timing,
            latencies: crate::setup::Latencies {
                disk: latency(self.latency.disk, DISK),
                network: latency(self.latency.network, NETWORK),
                start: latency(self.latency.start, START_DELAY),
                boot: latency(self.latency.boot, BOOT),
            },
            loss_permille: self.loss_permille,
            duplicate_permille: self.duplicate_permille,
            start_failure_permille: 0,
            image_lock: self.image_lock,
            hook: false,
            io_errors_permille: if self.io_errors { 1_000 } else { 0 },
            gateway: self.gateway,
            isolation_response: self.isolation_response,
            shutdown_timeout: mainstay_core::Span((self.shutdown_timeout * 1e6) as u64),
            isolation_timeout: self
                .isolation_timeout
                .map(|seconds| mainstay_core::Span((seconds * 1e6) as u64)),
        };
        for index in 0..setup.hosts.len() {
            setup.check_file(&setup.hosts[index].file).map_err(unknown)?;
        }
        for vm in &self.vm {
            let host = setup.host(&vm.host);
            let datastore = vm.datastore.as_ref().map_or(Some(0), |wanted| setup.datastore(wanted));
            let priority = vm.priority.as_deref().map_or(Some(Priority::Medium), Priority::parse);
            setup.vms.push(VmSetup {
                name: Arc::from(vm.name.as_str()),
                host: host.ok_or_else(|| unknown(format!("host {} of VM {}", vm.host, vm.name)))?,
                datastore: datastore.ok_or_else(|| unknown(format!("the datastore of VM {}", vm.name)))?,
                transient: vm.transient,
                priority: priority.ok_or_else(|| unknown(format!("the priority of VM {}", vm.name)))?,
                memory_mib: vm.memory_mib,
                shutdown: (!vm.ignores_shutdown).then_some((vm.shutdown_takes * 1e6) as u64),
                agent_after: vm.agent_after.map(micros),
            });
        }
        Ok(setup)
    }

    /// What the hosts offer besides room, where that is said.
    pub fn offers(&self) -> Vec<Option<HostOffers>> {
        let offers = |host: &ScenarioHost| match host {
            ScenarioHost::Id(_) | ScenarioHost::More(MoreOfHost { networks: None, machines: None, .. }) => {
                None
            }
            ScenarioHost::More(more) => Some(HostOffers {
                networks: more.networks.clone().unwrap_or_default(),
                machines: more.machines.clone().unwrap_or_default(),
                ..HostOffers::default()
            }),
        };
        self.hosts.iter().map(offers).collect()
    }

    /// What the VMs need besides room.
    pub fn needs(&self) -> Vec<VmNeeds> {
        let needs = |vm: &ScenarioVm| VmNeeds {
            networks: vm.networks.clone(),
            machine: vm.machine.clone(),
            ..VmNeeds::default()
        };
        self.vm.iter().map(needs).collect()
    }

    /// Which hosts have no path to which datastores, as indices into the setup.
    pub fn no_paths(&self, scenario: &str, setup: &Setup) -> Result<Vec<(usize, usize)>, ScenarioError> {
        let mut found = Vec::new();
        for (store, datastore) in self.datastores.iter().enumerate() {
            let ScenarioDatastore::More(MoreOfDatastore { name, hosts: Some(with), .. }) = datastore else {
                continue;
            };
            if let Some(id) = with.iter().find(|id| setup.host(id).is_none()) {
                let what = format!("host {id} of datastore {name}");
                return Err(ScenarioError::Unknown { name: scenario.into(), what });
            }
            let without = (0..setup.hosts.len()).filter(|host| !with.contains(&setup.hosts[*host].id));
            found.extend(without.map(|host| (store, host)));
        }
        Ok(found)
    }
}
