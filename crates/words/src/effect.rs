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
        /// The host that is to get it.
        to: HostId,
        /// What is sent.
        message: Message,
    },
    /// Read or write registers. Operations on one datastore may be carried out at the same time, except that heartbeat
    /// writes must not wait behind others.
    Disk {
        /// Comes back in `DiskDone`.
        op: OpId,
        /// The datastore that has the registers.
        datastore: DatastoreName,
        /// Which registers are read, or which one is written with what.
        action: DiskAction,
    },
    /// Ping that host once.
    Ping {
        /// The host that is pinged.
        host: HostId,
    },
    /// Ping one of the isolation addresses once.
    PingIsolation {
        /// Which of [`crate::Config::isolation_addresses`].
        index: u32,
    },
    /// Pass an order on to the guard; lost when no guard is connected.
    Guard(GuardOrder),
    /// The guard does not answer: end its process and start another, which goes on with what it kept (R54).
    ReplaceGuard,
    /// Do something with a VM.
    Vm {
        /// Comes back in `VmDone`.
        op: OpId,
        /// What is done, and with which VM.
        action: VmAction,
    },
    /// Put that version of the VM's domain XML on the datastore, so that any host can define it.
    StoreXml {
        /// The datastore that gets the file.
        datastore: DatastoreName,
        /// The VM that the XML defines.
        vm: VmId,
        /// The version, as named in its `Domain` input.
        xml: XmlId,
    },
    /// Something worth telling people.
    Event(Event),
    /// The answer to an `Operator` input.
    Reply {
        /// The number of the `Operator` input that is answered.
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
        /// The VM that is started.
        vm: VmId,
        /// Its name, for messages.
        name: Arc<str>,
        /// Where its XML is.
        datastore: DatastoreName,
        /// The version of its XML that is defined.
        xml: XmlId,
        /// The grant, for the log.
        token: Token,
    },
    /// Let it execute.
    Resume {
        /// The VM that executes from now on.
        vm: VmId,
    },
    /// End it at once: it may not run here, or is to be powered off. A definition is kept.
    Destroy {
        /// The VM that is ended.
        vm: VmId,
    },
    /// Ask the guest to shut down.
    Shutdown {
        /// The VM whose guest is asked.
        vm: VmId,
    },
    /// Live-migrate it to that host.
    Migrate {
        /// The VM that is moved.
        vm: VmId,
        /// The host that it goes to.
        to: HostId,
    },
    /// Ask its guest agent whether it is there, and let it run that command. [`crate::VmOutcome::Done`]: it answered, and the
    /// command succeeded.
    AskGuest {
        /// The VM whose guest is asked.
        vm: VmId,
        /// Words separated by blanks; `None`: only whether it answers.
        command: Option<Arc<str>>,
    },
    /// Remove the stale definition of a VM that belongs to another host now.
    Undefine {
        /// The VM whose definition goes.
        vm: VmId,
    },
}
