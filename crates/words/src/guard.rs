//! What an agent and its guard say to each other. The guard's own machine is `mainstay-guard-core`.

use crate::files::FilesDigest;
use crate::ids::{DatastoreName, Incarnation, VmId};
use crate::time::Time;
use alloc::sync::Arc;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// What a VM's process does on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ProcessState {
    /// There is none.
    Absent,
    /// It is scheduled (QEMU may have paused the guest: that is not the guard's matter).
    Runs,
    /// It is frozen: none of its threads executes.
    Frozen,
    /// There is none any more: this guard knew it, and the kernel says that this very process has ended, with all its threads.
    Ended,
}

/// From the agent to its guard. Each may be repeated without harm.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GuardOrder {
    /// The agent is well; sent each heartbeat.
    Alive {
        /// The run of the agent that sends it.
        incarnation: Incarnation,
        /// What its file says of the cluster.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        files: Option<FilesDigest>,
    },
    /// VMs homed there may execute until then: an owner's acknowledgement, or the host's own ownership.
    Lease {
        /// The datastore that the VMs are homed on.
        datastore: DatastoreName,
        /// Until when, on this host's clock.
        until: Time,
    },
    /// These VMs, and no others, are bound to the lease on that datastore.
    Watch {
        /// The datastore that the VMs are homed on.
        datastore: DatastoreName,
        /// All of them.
        vms: Vec<VmId>,
    },
    /// These VMs are bound to the lease on that datastore too, beside those that are: an agent that has not seen yet what
    /// runs here must not let go of what the run before it had seen.
    WatchAlso {
        /// The datastore that the VMs are homed on.
        datastore: DatastoreName,
        /// Some of them.
        vms: Vec<VmId>,
    },
    /// How often to beat on that datastore.
    Pace {
        /// The datastore that is written to.
        datastore: DatastoreName,
        /// Each [`crate::Timing::resync`] instead of each heartbeat.
        slow: bool,
    },
    /// Freeze nothing of that datastore until then, whatever becomes of its lease; takes effect when a heartbeat that says so is
    /// on disk.
    Hold {
        /// The datastore whose VMs are not frozen.
        datastore: DatastoreName,
        /// The end of the hold, on this host's clock.
        until: Time,
    },
    /// Leases count again.
    EndHold {
        /// The datastore whose hold ends.
        datastore: DatastoreName,
    },
    /// QEMU was created for that VM: find its process. Answered by [`GuardReport::Vm`].
    Adopt {
        /// The VM whose process is to be found.
        vm: VmId,
    },
    /// The protected list, read in that term of the lease, says that the VM may go on.
    Thaw {
        /// The VM that may go on.
        vm: VmId,
        /// The term of the lease in which the list was read.
        term: u64,
    },
    /// End its process, frozen or not: it belongs to another host now.
    Kill {
        /// The VM whose process is ended.
        vm: VmId,
    },
}

/// What an agent says of its guard: how often, in this run of the agent, the guard has ceased to answer and come back. Odd: it does
/// not answer, and nothing can freeze the VMs of this host. Of two words of one run the larger is the later one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GuardWord(pub u32);

impl GuardWord {
    /// Of a run that has not met its guard yet.
    pub const NOT_MET: GuardWord = GuardWord(1);

    /// The guard answers.
    pub fn is_guarded(self) -> bool {
        self.0.is_multiple_of(2)
    }

    /// It has turned.
    #[must_use]
    pub fn turned(self) -> GuardWord {
        GuardWord(self.0.wrapping_add(1))
    }

    /// Whether it says nothing: also what an older release does not say.
    pub fn is_silent(&self) -> bool {
        self.0 == 0
    }
}

/// From the guard to its agent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GuardReport {
    /// First of all on each connection: what was ordered before must be ordered again when the guard is another.
    Hello {
        /// The run of the guard.
        incarnation: Incarnation,
    },
    /// It is well: the answer to each [`GuardOrder::Alive`].
    Alive,
    /// A heartbeat was written, or could not be.
    Beat {
        /// The datastore that the heartbeat is for.
        datastore: DatastoreName,
        /// When the write was started.
        started: Time,
        /// The reason when it failed.
        error: Option<Arc<str>>,
    },
    /// The lease, as it is now.
    Lease {
        /// The datastore that the lease is on.
        datastore: DatastoreName,
        /// Counts leases that began after another had ended.
        term: u64,
        /// Until when; in the past: it is over, and the VMs watched there are being frozen.
        until: Time,
    },
    /// The hold that counts, as it is now: the end of the lease freezes nothing until then.
    Hold {
        /// The datastore that the hold is on.
        datastore: DatastoreName,
        /// Until when; in the past: leases count.
        until: Time,
    },
    /// What a watched VM's process does.
    Vm {
        /// The VM that is watched.
        vm: VmId,
        /// What its process does.
        state: ProcessState,
    },
}
