//! All that the core can ask for. Effects of one step have no order: what must wait, waits for its `Done` input.

use crate::command::Command;
use crate::event::Event;
use crate::guard::GuardOrder;
use crate::ids::{DatastoreName, HostId, OpId, Token, VmId, XmlId};
use crate::message::Message;
use crate::register::{RegisterId, RegisterValue};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// An effect of `Core::step`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Effect {
    /// Send a datagram.
    Send {
        /// To whom.
        to: HostId,
        /// What.
        message: Message,
    },
    /// Read or write registers. Operations on one datastore may be carried out at the same time, except that heartbeat
    /// writes must not wait behind others.
    Disk {
        /// Comes back in `DiskDone`.
        op: OpId,
        /// Where.
        datastore: DatastoreName,
        /// What.
        action: DiskAction,
    },
    /// Ping that host once.
    Ping {
        /// Whom.
        host: HostId,
    },
    /// Ping one of the isolation addresses once.
    PingIsolation {
        /// Which of [`crate::Config::isolation_addresses`].
        index: u32,
    },
    /// Pass an order on to the guard; lost when no guard is connected.
    Guard(GuardOrder),
    /// Do something with a VM.
    Vm {
        /// Comes back in `VmDone`.
        op: OpId,
        /// What.
        action: VmAction,
    },
    /// Put that version of the VM's domain XML on the datastore, so that any host can define it.
    StoreXml {
        /// Where.
        datastore: DatastoreName,
        /// The VM.
        vm: VmId,
        /// The version, as named in its `Domain` input.
        xml: XmlId,
    },
    /// Something worth telling people.
    Event(Event),
    /// The answer to an `Operator` input.
    Reply {
        /// Whose.
        request: u64,
        /// What was asked.
        command: Command,
        /// What was done, or why not.
        result: Result<String, String>,
    },
}

/// What is to be done with registers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DiskAction {
    /// Read each of them.
    Read(Vec<RegisterId>),
    /// Write that one.
    Write(RegisterId, RegisterValue),
}

/// What is to be done with a VM.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum VmAction {
    /// Wait until its images are free, define it, and create it *paused*.
    Prepare {
        /// The VM.
        vm: VmId,
        /// Its name, for messages.
        name: Arc<str>,
        /// Where its XML is.
        datastore: DatastoreName,
        /// Which version.
        xml: XmlId,
        /// The grant, for the log.
        token: Token,
    },
    /// Let it execute.
    Resume {
        /// The VM.
        vm: VmId,
    },
    /// End it at once: it may not run here, or is to be powered off. A definition is kept.
    Destroy {
        /// The VM.
        vm: VmId,
    },
    /// Ask the guest to shut down.
    Shutdown {
        /// The VM.
        vm: VmId,
    },
    /// Live-migrate it to that host.
    Migrate {
        /// The VM.
        vm: VmId,
        /// Where.
        to: HostId,
    },
    /// Ask its guest agent whether it is there, and let it run that command. [`crate::VmOutcome::Done`]: it answered, and the
    /// command succeeded.
    AskGuest {
        /// The VM.
        vm: VmId,
        /// Words separated by blanks; `None`: only whether it answers.
        command: Option<Arc<str>>,
    },
    /// Remove the stale definition of a VM that belongs to another host now.
    Undefine {
        /// The VM.
        vm: VmId,
    },
}
