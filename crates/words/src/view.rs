//! What a core believes, for people: status, lists, the API. Nothing decides by it.

use crate::ids::{DatastoreName, Epoch, HostId, Token, VmId};
use crate::judgement::{HostState, PrimaryReason};
use crate::message::Capacity;
use crate::pair::written_as_pair;
use crate::register::{IsolationResponse, ListStamp, OrderKind, Priority, Suspension};
use crate::settings::{Evacuation, Settings};
use crate::time::{Span, Time};
use crate::timing::Timing;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// The cluster as one host sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct View {
    /// Whose view it is.
    pub host: HostId,
    /// That host's clock.
    pub now: Time,
    /// That host's part in its partition.
    pub role: Role,
    /// The primary of its partition.
    pub primary: Option<HostId>,
    /// Why that one, as told by the primary itself.
    pub primary_reason: Option<PrimaryReason>,
    /// The times in force.
    pub timing: Timing,
    /// All configured hosts.
    pub hosts: Vec<HostView>,
    /// All configured datastores.
    pub datastores: Vec<DatastoreView>,
    /// All VMs known from protected lists and power-on lists.
    pub vms: Vec<VmView>,
    /// Whether libvirt answers on this host.
    pub hypervisor_well: bool,
    /// Whether this host is isolated: it reaches no other host and no isolation address.
    #[serde(default)]
    pub isolated: bool,
    /// Whether this host has a guard. Without one it begins nothing.
    #[serde(default)]
    pub guard: bool,
    /// The settings of the cluster, as far as this host has seen them.
    #[serde(default)]
    pub settings: Arc<Settings>,
    /// Protection is suspended, or is to be: per datastore.
    #[serde(default)]
    pub suspensions: Vec<SuspensionView>,
    /// What admission control has against the cluster as it is, on a primary.
    #[serde(default)]
    pub objection: Option<Arc<str>>,
}

/// Protection that is suspended, or is to be, on a datastore.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SuspensionView {
    /// The datastore whose VMs are not protected for now.
    pub datastore: DatastoreName,
    /// For how long yet, and whether it stands.
    #[serde(flatten)]
    pub suspension: Suspension,
    /// Hosts that are not known to be down and would freeze VMs of this datastore yet, were they cut off now: the owner has not
    /// heard from them that they honour the suspension. `None` where this host is not the owner.
    #[serde(default)]
    pub waits_for: Option<Vec<HostId>>,
}

/// A host's part in its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It stands for election: there is no primary yet.
    Candidate,
    /// It decides for its partition.
    Primary,
    /// It follows a primary.
    Secondary,
}

/// A host, as seen by another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HostView {
    /// The host that is seen.
    pub host: HostId,
    /// Its state (a secondary knows only itself and its primary). A host says of itself that it is connected or isolated.
    pub state: HostState,
    /// How long it has been in that state; of this host itself: how long its agent has run.
    pub since: Span,
    /// Age of the last network heartbeat.
    pub network_heartbeat: Option<Span>,
    /// Age of the last change of its datastore heartbeat, for each datastore.
    pub datastore_heartbeats: Vec<HeartbeatAge>,
    /// Whether it answered the last ping; `None` when it was not pinged lately.
    pub ping: Option<bool>,
    /// Datastores that it says it reaches.
    pub datastores: Vec<DatastoreName>,
    /// What it has to offer.
    pub capacity: Option<Capacity>,
    /// Whether its libvirt answers.
    pub hypervisor_well: Option<bool>,
    /// It is in maintenance mode, or on its way into it: how it is emptied, and how many VMs it has yet.
    #[serde(default)]
    pub maintenance: Option<Emptying>,
    /// It is kept empty for failovers.
    #[serde(default)]
    pub failover_host: bool,
}

/// How long ago a host's heartbeat last changed on a datastore.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HeartbeatAge {
    /// The datastore.
    pub datastore: DatastoreName,
    /// The time since then.
    pub age: Span,
}

/// A host in maintenance mode, or on its way into it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Emptying {
    /// How it is emptied.
    pub how: Evacuation,
    /// How many VMs it has yet.
    pub left: u32,
}

written_as_pair!(HeartbeatAge { datastore: DatastoreName, age: Span });
written_as_pair!(Emptying { how: Evacuation, left: u32 });

/// A datastore, as seen by a host.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DatastoreView {
    /// The datastore that is seen.
    pub datastore: DatastoreName,
    /// Whether this host's heartbeats arrive there.
    pub connected: bool,
    /// What the storage said when not.
    pub error: Option<Arc<str>>,
    /// The owner, as far as this host has seen.
    pub owner: Option<HostId>,
    /// The owner's epoch.
    pub epoch: Epoch,
    /// The newest protected list that was read or written.
    pub list: Option<ListStamp>,
    /// What is left of this host's own ownership; `None` when it is not the owner.
    pub ownership_left: Option<Span>,
    /// Whether it is one of the cluster's heartbeat datastores.
    #[serde(default)]
    pub heartbeat: bool,
    /// What is left of this host's run lease: without one, the VMs homed there are frozen. `None` when there is none.
    #[serde(default)]
    pub lease_left: Option<Span>,
    /// Registers found unreadable since the start.
    pub unreadable_registers: u64,
}

/// A VM, as seen by a host.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VmView {
    /// The VM's libvirt UUID.
    pub vm: VmId,
    /// The VM's libvirt name.
    pub name: Arc<str>,
    /// The datastore that it is homed on.
    pub datastore: DatastoreName,
    /// Who may run it.
    pub host: Option<HostId>,
    /// What it does.
    pub state: VmState,
    /// Whether it is protected *now*: in the list on disk, granted to the host that runs it.
    pub protected: bool,
    /// Its user has taken it out of protection.
    #[serde(default)]
    pub unprotected: bool,
    /// Why not, or what is waited for.
    pub note: Option<String>,
    /// Restart priority: the one that was set, otherwise that of the domain XML.
    pub priority: Priority,
    /// The grant under which it runs, or last ran.
    pub token: Option<Token>,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// How many virtual CPUs it has.
    pub vcpus: u32,
    /// What its host does with it when isolated.
    #[serde(default)]
    pub isolation_response: IsolationResponse,
    /// Whether that is the VM's own; `false`: the cluster's default.
    #[serde(default)]
    pub isolation_response_own: bool,
    /// How long it may take to shut down then.
    #[serde(default)]
    pub shutdown_timeout: Span,
    /// Whether that is the VM's own; `false`: the cluster's default.
    #[serde(default)]
    pub shutdown_timeout_own: bool,
    /// What the host is asked to do with it.
    #[serde(default)]
    pub order: Option<OrderKind>,
}

/// What a VM does, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VmState {
    /// It executes on its host.
    Running,
    /// It is being started.
    Starting,
    /// It is frozen until contact returns.
    Frozen,
    /// It waits to be granted to a host.
    Waiting,
    /// Its host is silent: the last known state was running.
    Unknown,
    /// It is down, as its user or guest wanted.
    Off,
}
