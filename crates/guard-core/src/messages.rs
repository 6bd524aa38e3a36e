//! What the guard is told by its shell, and what it asks of it.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use mainstay_words::guard::{GuardOrder, GuardReport, ProcessState};
use mainstay_words::ids::{BootId, DatastoreName, HostId, Incarnation, OpId, VmId};
use mainstay_words::register::HeartbeatRegister;
use mainstay_words::time::Time;
use mainstay_words::timing::Timing;
use serde::{Deserialize, Serialize};

/// The configuration of a guard.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GuardConfig {
    /// The host that this guard runs on.
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
    pub leases: BTreeMap<DatastoreName, Time>,
    /// Holds that the guard's former run in this boot kept.
    #[serde(default)]
    pub holds: BTreeMap<DatastoreName, Time>,
}

/// An input to [`crate::Guard::step`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GuardInput {
    /// Time has passed.
    Tick,
    /// A [`GuardEffect::Write`] is done.
    Written {
        /// The write that is done.
        op: OpId,
        /// The reason when it failed (it may still land).
        error: Option<Arc<str>>,
    },
    /// What a VM's process does: the answer to `Inspect`, `Freeze`, `Thaw` and `Kill`.
    Process {
        /// The VM that was looked at.
        vm: VmId,
        /// What its process does.
        state: ProcessState,
    },
    /// An agent has connected.
    AgentBack,
    /// The agent's connection has gone.
    AgentGone,
    /// From the agent.
    Order(GuardOrder),
}

/// What the guard asks of its shell. Effects that concern one VM are carried out in their order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GuardEffect {
    /// Write this host's heartbeat there. Answered by `Written` once, however late; at most one at a time for a datastore.
    Write {
        /// Comes back in `Written`.
        op: OpId,
        /// The datastore that gets the heartbeat.
        datastore: DatastoreName,
        /// The heartbeat that is written.
        register: HeartbeatRegister,
    },
    /// Find the VM's process and say what it does.
    Inspect {
        /// The VM whose process is wanted.
        vm: VmId,
    },
    /// Stop all threads of the VM's process at once. Answered by `Process`.
    Freeze {
        /// The VM that stops executing.
        vm: VmId,
    },
    /// Let them go on. Answered by `Process`.
    Thaw {
        /// The VM that executes again.
        vm: VmId,
    },
    /// SIGKILL, also to a frozen process. Answered by `Process` when it has gone.
    Kill {
        /// The VM whose process is ended.
        vm: VmId,
    },
    /// The VM is not on this host any more: drop what was made to freeze it.
    Forget {
        /// The VM that has left.
        vm: VmId,
    },
    /// Keep the end of a lease where the next run of the guard finds it, as long as the host does not reboot.
    Keep {
        /// The datastore that the lease is on.
        datastore: DatastoreName,
        /// The end of the lease, on this host's clock.
        until: Time,
    },
    /// Remember that hold, for the next run of the guard; `Time(0)`: there is none any more.
    KeepHold {
        /// The datastore that the hold is on.
        datastore: DatastoreName,
        /// The end of the hold, on this host's clock.
        until: Time,
    },
    /// Tell the agent, if one is connected.
    Report(GuardReport),
}
