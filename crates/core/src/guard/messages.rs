//! The words between an agent, its guard, and the guard's shell.

use crate::ids::{BootId, DatastoreName, HostId, Incarnation, OpId, VmId};
use crate::register::HeartbeatRegister;
use crate::time::Time;
use crate::timing::Timing;
use alloc::sync::Arc;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// The configuration of a guard.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GuardConfig {
    /// This host.
    pub me: HostId,
    /// The cluster's datastores.
    pub datastores: Vec<DatastoreName>,
    /// The times: the same as the agent's.
    pub timing: Timing,
    /// This boot of the host.
    pub boot: BootId,
    /// This run of the guard.
    pub incarnation: Incarnation,
    /// Lease ends that a former run of the guard kept in this boot ([`GuardEffect::Keep`]).
    pub leases: Vec<(DatastoreName, Time)>,
    /// Holds that the guard's former run in this boot kept.
    #[serde(default)]
    pub holds: Vec<(DatastoreName, Time)>,
}

/// An input to [`crate::Guard::step`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GuardInput {
    /// Time has passed.
    Tick,
    /// A [`GuardEffect::Write`] is done.
    Written {
        /// Which.
        op: OpId,
        /// The reason when it failed (it may still land).
        error: Option<Arc<str>>,
    },
    /// What a VM's process does: the answer to `Inspect`, `Freeze`, `Thaw` and `Kill`.
    Process {
        /// The VM.
        vm: VmId,
        /// Its process.
        state: ProcessState,
    },
    /// An agent has connected.
    AgentBack,
    /// The agent's connection has gone.
    AgentGone,
    /// From the agent.
    Order(GuardOrder),
}

/// What a VM's process does on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ProcessState {
    /// There is none.
    Absent,
    /// It is scheduled (QEMU may have paused the guest: that is not the guard's matter).
    Runs,
    /// It is frozen: none of its threads executes.
    Frozen,
}

/// From the agent to its guard. Each may be repeated without harm.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GuardOrder {
    /// The agent is well; sent each heartbeat.
    Alive {
        /// Its run.
        incarnation: Incarnation,
    },
    /// VMs homed there may execute until then: an owner's acknowledgement, or the host's own ownership.
    Lease {
        /// Where.
        datastore: DatastoreName,
        /// Until when, on this host's clock.
        until: Time,
    },
    /// These VMs, and no others, are bound to the lease on that datastore.
    Watch {
        /// The datastore.
        datastore: DatastoreName,
        /// All of them.
        vms: Vec<VmId>,
    },
    /// These VMs are bound to the lease on that datastore too, beside those that are: an agent that has not seen yet what
    /// runs here must not let go of what the run before it had seen.
    WatchAlso {
        /// The datastore.
        datastore: DatastoreName,
        /// Some of them.
        vms: Vec<VmId>,
    },
    /// How often to beat on that datastore.
    Pace {
        /// Where.
        datastore: DatastoreName,
        /// Each [`Timing::resync`] instead of each heartbeat.
        slow: bool,
    },
    /// Freeze nothing of that datastore until then, whatever becomes of its lease; takes effect when a heartbeat that says so is
    /// on disk (R72).
    Hold {
        /// The datastore.
        datastore: DatastoreName,
        /// Until when.
        until: Time,
    },
    /// Leases count again.
    EndHold {
        /// The datastore.
        datastore: DatastoreName,
    },
    /// QEMU was created for that VM: find its process. Answered by [`GuardReport::Vm`].
    Adopt {
        /// The VM.
        vm: VmId,
    },
    /// The protected list, read in that term of the lease, says that the VM may go on.
    Thaw {
        /// The VM.
        vm: VmId,
        /// The term.
        term: u64,
    },
    /// End its process, frozen or not: it belongs to another host now.
    Kill {
        /// The VM.
        vm: VmId,
    },
}

/// From the guard to its agent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GuardReport {
    /// First of all on each connection: what was ordered before must be ordered again when the guard is another.
    Hello {
        /// The run of the guard.
        incarnation: Incarnation,
    },
    /// A heartbeat was written, or could not be.
    Beat {
        /// Where.
        datastore: DatastoreName,
        /// When the write was started.
        started: Time,
        /// The reason when it failed.
        error: Option<Arc<str>>,
    },
    /// The lease, as it is now.
    Lease {
        /// Where.
        datastore: DatastoreName,
        /// Counts leases that began after another had ended.
        term: u64,
        /// Until when; in the past: it is over, and the VMs watched there are being frozen.
        until: Time,
    },
    /// The hold that counts, as it is now (R72): the end of the lease freezes nothing until then.
    Hold {
        /// Where.
        datastore: DatastoreName,
        /// Until when; in the past: leases count.
        until: Time,
    },
    /// What a watched VM's process does.
    Vm {
        /// The VM.
        vm: VmId,
        /// Its process.
        state: ProcessState,
    },
}

/// What the guard asks of its shell. Effects that concern one VM are carried out in their order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GuardEffect {
    /// Write this host's heartbeat there. Answered by `Written` once, however late; at most one at a time for a datastore.
    Write {
        /// Comes back in `Written`.
        op: OpId,
        /// Where.
        datastore: DatastoreName,
        /// What.
        register: HeartbeatRegister,
    },
    /// Find the VM's process and say what it does.
    Inspect {
        /// The VM.
        vm: VmId,
    },
    /// Stop all threads of the VM's process at once. Answered by `Process`.
    Freeze {
        /// The VM.
        vm: VmId,
    },
    /// Let them go on. Answered by `Process`.
    Thaw {
        /// The VM.
        vm: VmId,
    },
    /// SIGKILL, also to a frozen process. Answered by `Process` when it has gone.
    Kill {
        /// The VM.
        vm: VmId,
    },
    /// The VM is not on this host any more: drop what was made to freeze it.
    Forget {
        /// The VM.
        vm: VmId,
    },
    /// Keep the end of a lease where the next run of the guard finds it, as long as the host does not reboot.
    Keep {
        /// The datastore.
        datastore: DatastoreName,
        /// The end.
        until: Time,
    },
    /// Remember that hold, for the next run of the guard; `Time(0)`: there is none any more.
    KeepHold {
        /// The datastore.
        datastore: DatastoreName,
        /// Until when.
        until: Time,
    },
    /// Tell the agent, if one is connected.
    Report(GuardReport),
}
