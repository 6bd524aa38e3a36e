//! What agents say to each other, as datagrams: may be lost, doubled, late or out of order, and nothing here relies on
//! more. All of it is liveness and hints; what counts is on disk.

use crate::files::{Files, FilesDigest};
use crate::guard::GuardWord;
use crate::ids::{DatastoreName, Epoch, HostId, Incarnation, VmId};
use crate::pair::written_as_pair;
use crate::register::ListStamp;
use crate::time::{Span, Time};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// A message with what every message carries.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Message {
    /// The run of the sender's agent. Messages of a former run are dropped.
    pub incarnation: Incarnation,
    /// Grows with each message of that run to that receiver; doubled and overtaken messages are dropped.
    pub sequence: u64,
    /// What the sender's file says of the cluster. `None`: it is of an older release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<FilesDigest>,
    /// What it says.
    pub body: Body,
}

/// How good a host is as primary: most connected datastores first, then the larger host id as text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Rank {
    /// Datastores on which its own heartbeat arrives.
    pub datastores: u32,
    /// The host itself: of equally good ones, the larger id wins.
    pub host: HostId,
}

/// The kinds of messages.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Body {
    /// A candidate's bid; sent to all hosts while an election lasts.
    Elect {
        /// The candidate's rank.
        rank: Rank,
        /// How long it collects bids, by its own times: whoever has shorter ones waits for it that long.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        window: Option<Span>,
    },
    /// The primary presents itself: in answer to a bid, when elected, and each heartbeat to all hosts that are not its secondaries.
    Announce {
        /// The rank of the primary.
        rank: Rank,
        /// How many datastores it owns: of two primaries that meet, the one with more stays.
        owned: u32,
    },
    /// Secondary to primary, each heartbeat, and at once when something changed.
    Heartbeat(Box<Heartbeat>),
    /// The primary's answer to each heartbeat.
    HeartbeatAck(HeartbeatAck),
    /// From an owner, when it has written a protected list: whoever is named there should look.
    ListChanged {
        /// The datastore whose list was written.
        datastore: DatastoreName,
        /// The version that is on disk.
        stamp: ListStamp,
    },
    /// The sender has given up the ownership of these datastores, whether or not it could write so.
    Released {
        /// Which, and the epochs in which it owned them. All in one: of two datagrams that overtake each other one is dropped.
        datastores: Vec<OwnedEpoch>,
    },
    /// The primary steps down (its agent stops, or it found a better one): elect at once.
    SteppingDown,
    /// To a host whose file says something else of the cluster: what the sender's says, for people.
    Files(Box<Files>),
}

/// A secondary's network heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The sender's clock when it was sent; comes back in the answer. A lease counts from here, never from the answer.
    pub sent: Time,
    /// The datastores on which the sender's own heartbeats arrive.
    pub datastores: Vec<DatastoreName>,
    /// The version of its power-on list on each of them: a hint to read it.
    pub power_on: Vec<PowerOnVersion>,
    /// What the host has to offer.
    pub capacity: Capacity,
    /// Whether its libvirt answers.
    pub hypervisor_well: bool,
    /// Datastores that the sender promises not to take from the primary for a while.
    #[serde(default)]
    pub promises: Vec<Promise>,
    /// The sender's failure time-out: its promises last no longer, and it is to be the same everywhere.
    #[serde(default)]
    pub failure_timeout: Option<Span>,
    /// Datastores where its power-on list does not say yet what it is to say: others can't see there what it runs.
    #[serde(default)]
    pub unwritten: Vec<DatastoreName>,
    /// VMs that are there, or arriving, and that its power-on list on disk does not claim yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arriving: Vec<VmId>,
    /// Where the sender's guard holds, and for how long yet: protection is suspended there as far as that host goes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<HeldFor>,
    /// Whether the sender's guard answers.
    #[serde(default, skip_serializing_if = "GuardWord::is_silent")]
    pub guard: GuardWord,
    /// Why the sender has no guard, as far as it knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard_error: Option<Arc<str>>,
    /// VMs of the sender that do not execute although they are claimed as running: for people to see. The first
    /// [`HALTED_MAX`] of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub halted: Vec<HaltedVm>,
}

/// An ownership: of a datastore, in an epoch.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct OwnedEpoch {
    /// The datastore.
    pub datastore: DatastoreName,
    /// The epoch.
    pub epoch: Epoch,
}

/// The version of a host's power-on list on a datastore.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PowerOnVersion {
    /// The datastore.
    pub datastore: DatastoreName,
    /// The version that is on disk.
    pub version: u64,
}

/// A hold that a host's guard keeps on a datastore.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HeldFor {
    /// The datastore.
    pub datastore: DatastoreName,
    /// How long it lasts yet.
    pub left: Span,
}

/// A VM that does not execute although its host has it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HaltedVm {
    /// The VM.
    pub vm: VmId,
    /// Why it does not.
    pub why: Halt,
}

written_as_pair!(OwnedEpoch { datastore: DatastoreName, epoch: Epoch });
written_as_pair!(PowerOnVersion { datastore: DatastoreName, version: u64 });
written_as_pair!(HeldFor { datastore: DatastoreName, left: Span });
written_as_pair!(HaltedVm { vm: VmId, why: Halt });

/// So many of [`Heartbeat::halted`] are told: 64 hosts that have lost their storage must not flood the primary.
pub const HALTED_MAX: usize = 100;

/// Why a VM does not execute although its host has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Halt {
    /// The guard has frozen it; the host could not write so, or has not been able to look since.
    Frozen,
    /// QEMU has paused it: its disk failed.
    IoError,
}

/// The sender's word that, for a failure time-out from when it received the answer sent at `echo`, it will not contend for the
/// ownership of that datastore.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Promise {
    /// The datastore that the promise is about.
    pub datastore: DatastoreName,
    /// The primary's epoch there.
    pub epoch: Epoch,
    /// [`HeartbeatAck::sent`] of the answer: the primary's own clock. It counts from there.
    pub echo: Time,
}

/// The primary's answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HeartbeatAck {
    /// `sent` of the heartbeat that is answered.
    pub echo: Time,
    /// The run of the agent that sent that heartbeat: an answer to a former run renews nothing.
    pub run: Incarnation,
    /// The primary's clock when this was sent: comes back in promises.
    pub sent: Time,
    /// The datastores that the primary owns, with the protected list on disk and the run lease granted by this answer:
    /// min(lease, what is left of the owner's own ownership), to be counted from `echo`.
    pub owned: Vec<OwnedDatastore>,
    /// The heartbeat datastores of the cluster.
    #[serde(default)]
    pub heartbeat_datastores: Vec<DatastoreName>,
}

/// Part of a [`HeartbeatAck`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OwnedDatastore {
    /// The datastore that the primary owns.
    pub datastore: DatastoreName,
    /// The epoch in which the primary owns it.
    pub epoch: Epoch,
    /// Its protected list on disk; none when it is still to be written in this epoch.
    pub list: Option<ListStamp>,
    /// The run lease.
    pub lease: Span,
    /// Protection is suspended for so long yet: the guard is not to freeze until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Span>,
}

/// What a host has to offer to VMs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Capacity {
    /// Memory in MiB, all of it.
    pub memory_mib: u64,
    /// Memory in MiB that VMs could still take.
    pub memory_free_mib: u64,
    /// Processors that the host has.
    pub cpus: u32,
    /// Domains running, protected or not.
    pub domains: u32,
}
