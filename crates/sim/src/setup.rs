//! What a world is made of: hosts, datastores, VMs, times and latencies. Drawn from a seed by the generator or given by a scenario.

use crate::dice::Latency;
use mainstay_core::register::{IsolationResponse, Priority};
use mainstay_core::{DatastoreName, HostId, Span, Timing, VmId};
use std::sync::Arc;

/// Everything about a world that does not change while it runs.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The hosts, in the order of their indices.
    pub hosts: Vec<HostSetup>,
    /// The datastores, shared by all hosts.
    pub datastores: Vec<DatastoreSetup>,
    /// The VMs, in the order of their indices.
    pub vms: Vec<VmSetup>,
    /// The protocol's times.
    pub timing: Timing,
    /// How long things take.
    pub latencies: Latencies,
    /// How many of a thousand datagrams are lost, always.
    pub loss_permille: u64,
    /// How many of a thousand datagrams arrive twice.
    pub duplicate_permille: u64,
    /// How many of a thousand starts fail.
    pub start_failure_permille: u64,
    /// Whether QEMU locks images. Without, only the protocol stands between a VM and its second copy: that is what is to
    /// be tested. (Users of such a world start nothing: they have only the lock to protect them. They do migrate.)
    pub image_lock: bool,
    /// A migration switches over only when its target's claim is on disk: what libvirt's hook is to see to. Without, and without
    /// image locks, a VM that migrates to a host whose agent does not run is held by nothing.
    pub hook: bool,
    /// Of a thousand guests whose storage is cut, so many are paused by QEMU for an I/O error within seconds.
    pub io_errors_permille: u64,
    /// Hosts have an isolation address: the gateway of the management network.
    pub gateway: bool,
    /// The cluster's default isolation response.
    pub isolation_response: IsolationResponse,
    /// How long a guest may take to shut down.
    pub shutdown_timeout: Span,
    /// How long an isolated host must have heard nothing; `None`: as its times say.
    pub isolation_timeout: Option<Span>,
}

/// How long things take, when nothing is wrong.
#[derive(Clone, Copy, Debug)]
pub struct Latencies {
    /// A register operation.
    pub disk: Latency,
    /// A datagram.
    pub network: Latency,
    /// The creation of a domain by libvirt.
    pub start: Latency,
    /// From power-on to an agent.
    pub boot: Latency,
}

/// A host of the world, as it is before anything happens.
#[derive(Clone, Debug)]
pub struct HostSetup {
    /// Its id, by which the protocol knows it.
    pub id: HostId,
    /// What its clock shows at its boot.
    pub clock_base: u64,
    /// How much too fast its clock runs.
    pub drift_ppm: i64,
    /// When its agent starts for the first time.
    pub agent_starts: u64,
    /// The protocol's times on this host, where they are not those of the others.
    pub timing: Option<Timing>,
    /// It runs a newer release, whose registers and messages the others can't read; it reads theirs.
    pub newer: bool,
    /// Its memory in MiB.
    pub memory_mib: u64,
    /// What its `agent.toml` says of the cluster.
    pub file: HostFile,
}

/// What a host's `agent.toml` says of the cluster, where that is not all there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFile {
    /// The other hosts in it; all when `None`.
    pub knows: Option<Vec<HostId>>,
    /// The datastores in it; all when `None`.
    pub serves: Option<Vec<DatastoreName>>,
}

/// A host's memory where nothing else is said, in MiB.
pub const HOST_MEMORY: u64 = 65_536;

/// A datastore of the world, shared by all hosts.
#[derive(Clone, Debug)]
pub struct DatastoreSetup {
    /// Its name, by which the protocol knows it.
    pub name: DatastoreName,
    /// How long it keeps the image locks of a host that crashed.
    pub lock_release: u64,
}

/// A VM of the world, as it is before anything happens.
#[derive(Clone, Debug)]
pub struct VmSetup {
    /// Its name, as libvirt has it.
    pub name: Arc<str>,
    /// Where it runs at first (index into `hosts`).
    pub host: usize,
    /// Its home (index into `datastores`).
    pub datastore: usize,
    /// It has no definition that outlives its run.
    pub transient: bool,
    /// Its restart priority.
    pub priority: Priority,
    /// Its memory in MiB.
    pub memory_mib: u64,
    /// Its guest agent answers so long after its start, in microseconds; `None`: it has none.
    pub agent_after: Option<u64>,
    /// How long its guest takes to shut down when asked to, in microseconds; `None`: it ignores that.
    pub shutdown: Option<u64>,
}

/// Disk latencies as measured on a quiet machine, with a tail that stays below all time-outs.
pub const DISK: Latency = Latency { base: 300, spread: 1_500, tail_permille: 10, tail: 80_000 };
/// A quiet local network.
pub const NETWORK: Latency = Latency { base: 80, spread: 400, tail_permille: 5, tail: 30_000 };
/// Creating a domain.
pub const START_DELAY: Latency =
    Latency { base: 150_000, spread: 400_000, tail_permille: 50, tail: 2_000_000 };
/// From power to agent.
pub const BOOT: Latency =
    Latency { base: 3_000_000, spread: 4_000_000, tail_permille: 100, tail: 15_000_000 };

impl Setup {
    /// The protocol's times on that host.
    pub fn timing_of(&self, host: usize) -> Timing {
        self.hosts[host].timing.unwrap_or(self.timing)
    }

    /// The other hosts in that host's file.
    pub fn known_to(&self, host: usize) -> Vec<HostId> {
        let file = &self.hosts[host].file;
        let known = |id: &HostId| file.knows.as_ref().is_none_or(|knows| knows.contains(id));
        let me = &self.hosts[host].id;
        let others = self.hosts.iter().map(|other| &other.id).filter(|id| *id != me && known(id));
        others.cloned().collect()
    }

    /// The datastores in that host's file.
    pub fn served_by(&self, host: usize) -> Vec<DatastoreName> {
        let names = self.datastores.iter().map(|store| &store.name);
        names.filter(|name| self.serves(host, name)).cloned().collect()
    }

    /// That all which such a file names is there.
    pub fn check_file(&self, file: &HostFile) -> Result<(), String> {
        let hosts = file.knows.iter().flatten().find(|id| self.host(id).is_none());
        let stores = file.serves.iter().flatten().find(|name| self.datastore(name).is_none());
        match (hosts, stores) {
            (Some(id), _) => Err(format!("host {id} of `knows`")),
            (None, Some(name)) => Err(format!("datastore {name} of `serves`")),
            (None, None) => Ok(()),
        }
    }

    /// Whether that datastore is in that host's file.
    pub fn serves(&self, host: usize, name: &DatastoreName) -> bool {
        self.hosts[host].file.serves.as_ref().is_none_or(|serves| serves.contains(name))
    }

    /// Whether what one host writes or says can be read by the other.
    pub fn understands(&self, reader: usize, writer: usize) -> bool {
        reader == writer || self.hosts[reader].newer || !self.hosts[writer].newer
    }

    /// The index of that host.
    pub fn host(&self, id: &HostId) -> Option<usize> {
        self.hosts.iter().position(|host| host.id == *id)
    }

    /// The index of that datastore.
    pub fn datastore(&self, name: &DatastoreName) -> Option<usize> {
        self.datastores.iter().position(|store| store.name == *name)
    }

    /// The UUID of a VM.
    pub fn vm_id(&self, vm: usize) -> VmId {
        let mut bytes = [0; 16];
        bytes[0] = 0xaa;
        bytes[14..].copy_from_slice(&(vm as u16 + 1).to_be_bytes());
        VmId(bytes)
    }

    /// The index of the VM of that UUID.
    pub fn vm_of(&self, id: VmId) -> Option<usize> {
        (0..self.vms.len()).find(|vm| self.vm_id(*vm) == id)
    }

    /// The index of the VM of that name.
    pub fn vm(&self, name: &str) -> Option<usize> {
        self.vms.iter().position(|vm| &*vm.name == name)
    }
}
