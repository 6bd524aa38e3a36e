//! All that can happen to the core. Inputs are levels where they can be (a VM's present state, not "it changed"), so that a
//! lost one is repaired by the next.

use crate::command::Command;
use crate::guard::GuardReport;
use crate::ids::{DatastoreName, HostId, OpId, VmId, XmlId};
use crate::message::{Capacity, Message};
use crate::pair::written_as_pair;
use crate::register::{RegisterId, RegisterValue, StopCause};
use crate::settings::HostOffers;
use crate::time::Time;
use crate::vm::VmSpec;
use alloc::sync::Arc;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// An input to `Core::step`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Input {
    /// Time has passed (see `Core::next_deadline`).
    Tick,
    /// A message came from that (authenticated) host.
    Message {
        /// The host that sent it.
        from: HostId,
        /// What it sent.
        message: Message,
    },
    /// A [`crate::Effect::Disk`] is done.
    DiskDone {
        /// The operation that is done.
        op: OpId,
        /// How it went.
        outcome: DiskOutcome,
    },
    /// A [`crate::Effect::Ping`] is done.
    PingDone {
        /// The host that was pinged.
        host: HostId,
        /// Whether it answered in time.
        answered: bool,
    },
    /// A [`crate::Effect::PingIsolation`] is done.
    IsolationPingDone {
        /// Which of [`crate::Config::isolation_addresses`].
        index: u32,
        /// Whether it answered in time.
        answered: bool,
    },
    /// The guard reports.
    Guard(GuardReport),
    /// The connection to the guard is gone: a `Hello` comes first when there is one again.
    GuardLost,
    /// No guard can be started, for that reason.
    GuardFailed {
        /// What the system says, in words.
        reason: Arc<str>,
    },
    /// All domains that libvirt knows on this host: a domain that is not among them does not exist here.
    Domains {
        /// When libvirt was asked. What was asked before an operation was done says nothing about what it did.
        as_of: Time,
        /// Every domain of this host, as libvirt showed it.
        domains: Vec<Domain>,
    },
    /// One domain: the others are as before.
    Domain {
        /// When libvirt was asked.
        as_of: Time,
        /// As it was then.
        domain: Domain,
    },
    /// Libvirt does not answer: nothing is known about domains until the next `Domains`. Never means that one is off.
    HypervisorLost,
    /// How much room the host has.
    Capacity(Capacity),
    /// What the host can give to VMs besides room.
    Offers(Arc<HostOffers>),
    /// A [`crate::Effect::Vm`] is done.
    VmDone {
        /// The operation that is done.
        op: OpId,
        /// How it went.
        outcome: VmOutcome,
    },
    /// A start waits for the storage to let go of the image (its lock is held, by a dead client as a rule).
    VmWaits {
        /// The operation that starts the VM.
        op: OpId,
        /// What is waited for, in words.
        why: Arc<str>,
    },
    /// A [`crate::Effect::StoreXml`] is done.
    XmlStored {
        /// The datastore that has the file now.
        datastore: DatastoreName,
        /// The VM that the XML defines.
        vm: VmId,
        /// The version that was stored.
        xml: XmlId,
        /// The reason when it failed (a full datastore, say).
        error: Option<Arc<str>>,
    },
    /// A person asks for something. Answered by [`crate::Effect::Reply`].
    Operator {
        /// Comes back in the reply.
        request: u64,
        /// What is asked.
        command: Command,
    },
    /// The agent is asked to stop: hand over ownership, say goodbye. VMs go on.
    Stop,
}

/// A domain as libvirt shows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Domain {
    /// The domain's UUID.
    pub vm: VmId,
    /// The domain's libvirt name.
    pub name: Arc<str>,
    /// What it does.
    pub state: DomainState,
    /// The datastore on which its first disk lies; `None` when that is on none of the cluster's datastores.
    pub home: Option<DatastoreName>,
    /// What it needs; `None` when its XML could not be read.
    pub spec: Option<VmSpec>,
    /// Whether a definition outlives the run.
    pub persistent: bool,
    /// QEMU paused it because its storage failed: it waits for somebody to resume it.
    #[serde(default)]
    pub io_error: bool,
}

/// What a domain does, as far as the protocol is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DomainState {
    /// It executes, or would if nobody had frozen it. Paused by its user or by an I/O error counts as well: QEMU lives
    /// and holds the image.
    Running,
    /// It was created paused by a start of ours that is under way.
    Prepared,
    /// It is the target of a live migration that has not switched over.
    Incoming,
    /// It does not run.
    Stopped(StopCause),
}

/// How a disk operation went.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DiskOutcome {
    /// What each register that was asked for holds.
    Read(Vec<FoundRegister>),
    /// The write is on disk.
    Written,
    /// Nothing is known of a write; nothing was learned by a read. In words for the user.
    Failed(Arc<str>),
}

/// A register, and what was found in it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct FoundRegister {
    /// The register.
    pub id: RegisterId,
    /// What it holds.
    pub found: ReadRegister,
}

written_as_pair!(FoundRegister { id: RegisterId, found: ReadRegister });

/// One register, as read.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReadRegister {
    /// What the register holds.
    Value(RegisterValue),
    /// The register has never been written.
    Missing,
    /// Neither copy can be made sense of: damaged, or of another cluster or version. In words for the user; and a number that
    /// changes when the bytes do: what changes is written by somebody who is alive.
    Unreadable(Arc<str>, u64),
}

/// How an operation on a VM went.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum VmOutcome {
    /// Done. A start: QEMU is there, paused.
    Done,
    /// It certainly did not happen. In words for the user.
    Failed(Arc<str>),
    /// Nobody can say whether it happened: the next `Domains` will tell.
    Unknown(Arc<str>),
}
