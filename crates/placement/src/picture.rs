//! The picture of a cluster that every decision of this crate is made on: hosts, VMs, rules, groups.
//!
//! Everything is kept by name, and rules and groups refer to names. A name that nobody has is no error: a rule about a VM that
//! was deleted since binds the others.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

/// The name of a host, a VM, a rule, a datastore and so on. Compared as text; this crate reads nothing else into it.
pub type Name = Arc<str>;

/// Starts at once on one host unless the host says otherwise (vSphere's `das.perHostConcurrentFailoversLimit`).
pub const CONCURRENT_STARTS: u32 = 32;

/// An amount of CPU and memory: what a host has, or what a VM must have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resources {
    /// CPU in MHz. Zero in a demand means that the VM has no CPU reserved.
    pub cpu_mhz: u64,
    /// Memory in MiB.
    pub memory_mib: u64,
}

impl Resources {
    /// That much CPU and memory.
    pub const fn new(cpu_mhz: u64, memory_mib: u64) -> Self {
        Self { cpu_mhz, memory_mib }
    }

    /// The sum; at the end of the range it stays there.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            cpu_mhz: self.cpu_mhz.saturating_add(other.cpu_mhz),
            memory_mib: self.memory_mib.saturating_add(other.memory_mib),
        }
    }

    /// What is left when `other` is taken away; never below zero.
    #[must_use]
    pub const fn less(self, other: Self) -> Self {
        Self {
            cpu_mhz: self.cpu_mhz.saturating_sub(other.cpu_mhz),
            memory_mib: self.memory_mib.saturating_sub(other.memory_mib),
        }
    }

    /// There is room for `demand`: enough of both.
    #[must_use]
    pub const fn holds(self, demand: Self) -> bool {
        self.cpu_mhz >= demand.cpu_mhz && self.memory_mib >= demand.memory_mib
    }

    /// The larger of each.
    #[must_use]
    pub(crate) fn most_of(self, other: Self) -> Self {
        Self { cpu_mhz: self.cpu_mhz.max(other.cpu_mhz), memory_mib: self.memory_mib.max(other.memory_mib) }
    }

    /// The smaller of each.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Self { cpu_mhz: self.cpu_mhz.min(other.cpu_mhz), memory_mib: self.memory_mib.min(other.memory_mib) }
    }
}

/// Whether a host can take VMs now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HostState {
    /// It can take VMs, as far as its offers and room go.
    #[default]
    Usable,
    /// It can't, for this reason, in words: not connected, no libvirt, no contact with the datastore.
    Unusable(Name),
    /// It is in maintenance mode: it takes no VM, and it counts in no sum.
    Maintenance,
}

/// What a host has that a VM may need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    /// Datastores that it has mounted and can read and write.
    pub datastores: Vec<Name>,
    /// libvirt networks and bridges.
    pub networks: Vec<Name>,
    /// CPU models that its processors can show to a guest.
    pub cpu_models: Vec<Name>,
    /// Machine types that its QEMU knows.
    pub machine_types: Vec<Name>,
    /// Devices to be passed through, each to one VM at a time. A name given twice is two of a kind.
    pub devices: Vec<Name>,
}

/// A host, as placement sees it: what it offers, and whether it can take VMs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Whether it takes VMs.
    pub state: HostState,
    /// All that it has.
    pub capacity: Resources,
    /// What the host itself needs, and VMs that are not in the picture.
    pub kept_back: Resources,
    /// What it measured to be free, if it did. The lower of this and of what the picture adds up to counts.
    pub measured_free: Option<Resources>,
    /// What it can give to VMs besides room.
    pub offers: Offers,
    /// VMs that are starting there at this moment.
    pub starting: u32,
    /// How many may start there at once; `None`: [`CONCURRENT_STARTS`].
    pub concurrent_starts: Option<u32>,
    /// Kept empty for failovers: the first choice after a failure, no choice for anything else.
    pub failover_host: bool,
}

impl Host {
    /// How many VMs may start there at once.
    pub fn start_limit(&self) -> u32 {
        self.concurrent_starts.unwrap_or(CONCURRENT_STARTS).max(1)
    }
}

/// Restart priority. Higher ones get the room first, and start first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Priority {
    /// Not restarted at all.
    Disabled,
    /// After all others.
    Lowest,
    /// After those of medium and before those of lowest priority.
    Low,
    /// The default: for VMs of which nothing is set.
    #[default]
    Medium,
    /// Before those of medium and after those of highest priority.
    High,
    /// Before all others.
    Highest,
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disabled => "disabled",
            Self::Lowest => "lowest",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Highest => "highest",
        })
    }
}

/// What a VM needs of its host besides room.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Needs {
    /// All datastores that its disks are on.
    pub datastores: Vec<Name>,
    /// All networks that its interfaces are on.
    pub networks: Vec<Name>,
    /// The CPU model that it shows its guest, unless any will do.
    pub cpu_model: Option<Name>,
    /// Its machine type, unless any will do.
    pub machine_type: Option<Name>,
    /// Devices that are passed through to it. One that a single host has ties the VM to that host.
    pub devices: Vec<Name>,
}

/// When those that wait for a VM may start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ReadyWhen {
    /// Its start was ordered and the host has taken it up.
    #[default]
    Started,
    /// Its hypervisor says that it runs.
    Running,
    /// Its guest agent answers.
    AgentAnswers,
    /// The command given for it succeeds in the guest.
    CommandSucceeds,
}

impl fmt::Display for ReadyWhen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Started => "it is started",
            Self::Running => "it runs",
            Self::AgentAnswers => "its guest agent answers",
            Self::CommandSucceeds => "the command in its guest succeeds",
        })
    }
}

/// What others wait for before they start after this VM. Times are in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// What has to be so before others stop waiting for the VM.
    pub when: ReadyWhen,
    /// So long after the condition was met.
    pub delay_ms: u64,
    /// They wait no longer than this, counted from its first start.
    pub timeout_ms: u64,
}

impl Default for Readiness {
    fn default() -> Self {
        Self { when: ReadyWhen::Started, delay_ms: 0, timeout_ms: 600_000 }
    }
}

/// A VM, as placement sees it: where it is, what it needs, and how it is restarted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vm {
    /// CPU and memory that it must have: what placement and admission control count.
    pub reservation: Resources,
    /// What the hypervisor needs on top of it.
    pub overhead: Resources,
    /// Its restart priority.
    pub priority: Priority,
    /// What it needs besides room.
    pub needs: Needs,
    /// The host that it runs on, or was granted to. `None`: it is off, or it waits for a host.
    pub host: Option<Name>,
    /// It shall run. A VM that is off and wanted waits for a host.
    pub wanted: bool,
    /// Hosts that lost it or failed to start it a short while ago: tried last.
    pub failed_on: Vec<Name>,
    /// The host to try before all others, if it can take the VM: its QEMU crashed there, and this is the first attempt.
    pub first_try: Option<Name>,
    /// An earlier plan left it out: it now goes before others of its priority, so that small VMs can't starve it.
    pub passed_over: bool,
    /// What those wait for that start after it.
    pub readiness: Readiness,
}

impl Default for Vm {
    fn default() -> Self {
        Self {
            reservation: Resources::default(),
            overhead: Resources::default(),
            priority: Priority::default(),
            needs: Needs::default(),
            host: None,
            wanted: true,
            failed_on: Vec::new(),
            first_try: None,
            passed_over: false,
            readiness: Readiness::default(),
        }
    }
}

impl Vm {
    /// What it takes on a host: reservation and overhead.
    pub fn demand(&self) -> Resources {
        self.reservation.plus(self.overhead)
    }

    /// It is brought back after a failure.
    pub fn restarts(&self) -> bool {
        self.wanted && self.priority != Priority::Disabled
    }
}

/// Whether a rule binds or is a wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Strength {
    /// Never broken, not even when a VM then does not come back.
    Must,
    /// Kept where that costs no VM its place.
    Should,
}

/// What a rule says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleKind {
    /// These VMs run on these hosts only.
    OnHosts {
        /// The VMs that the rule binds, by name.
        vms: Vec<Name>,
        /// The only hosts that may run them, by name.
        hosts: Vec<Name>,
    },
    /// These VMs run on none of these hosts.
    NotOnHosts {
        /// The VMs that the rule binds, by name.
        vms: Vec<Name>,
        /// The hosts that may run none of them, by name.
        hosts: Vec<Name>,
    },
    /// No two of these VMs run on the same host.
    Apart {
        /// The VMs that have to be on different hosts, by name.
        vms: Vec<Name>,
    },
    /// All of these VMs run on the same host. With [`Strength::Must`] they move as a whole or not at all.
    Together {
        /// The VMs that have to be on one host, by name.
        vms: Vec<Name>,
    },
}

/// A rule of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Whether it binds.
    pub strength: Strength,
    /// What it says.
    pub kind: RuleKind,
}

/// VMs that start as one step of an order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// The VMs of the group, by name. A VM in two groups waits for what either waits for.
    pub vms: Vec<Name>,
    /// Groups whose VMs must all be ready before one of this group starts.
    pub waits_for: Vec<Name>,
}

/// A cluster at one instant, as one host sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    /// All hosts of the cluster, with those that are down.
    pub hosts: BTreeMap<Name, Host>,
    /// All VMs that take room or shall come back.
    pub vms: BTreeMap<Name, Vm>,
    /// All rules about where VMs may run, by name.
    pub rules: BTreeMap<Name, Rule>,
    /// All start groups.
    pub groups: BTreeMap<Name, Group>,
}

/// One thing in the picture that became different.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// This VM is now so, or gone.
    Vm(Name, Option<Vm>),
    /// This host is now so, or gone.
    Host(Name, Option<Host>),
    /// This rule is now so, or gone.
    Rule(Name, Option<Rule>),
    /// This group is now so, or gone.
    Group(Name, Option<Group>),
}

impl Picture {
    /// Makes the change and gives the one that takes it back.
    pub fn apply(&mut self, change: Change) -> Change {
        fn put<T>(map: &mut BTreeMap<Name, T>, name: &Name, value: Option<T>) -> Option<T> {
            match value {
                Some(value) => map.insert(name.clone(), value),
                None => map.remove(name),
            }
        }
        match change {
            Change::Vm(name, vm) => {
                let former = put(&mut self.vms, &name, vm);
                Change::Vm(name, former)
            }
            Change::Host(name, host) => {
                let former = put(&mut self.hosts, &name, host);
                Change::Host(name, former)
            }
            Change::Rule(name, rule) => {
                let former = put(&mut self.rules, &name, rule);
                Change::Rule(name, former)
            }
            Change::Group(name, group) => {
                let former = put(&mut self.groups, &name, group);
                Change::Group(name, former)
            }
        }
    }
}
