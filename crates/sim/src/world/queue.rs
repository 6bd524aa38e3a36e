//! What is to happen, in the order of virtual time; what is to happen at the same instant happens in the order it was asked for.

use super::guard::Deed;
use crate::action::Action;
use mainstay_core::register::StopCause;
use mainstay_core::{Input, Message, Time, Token, VmId, XmlId};
use mainstay_guard_core::GuardInput;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Something that is to happen.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    /// A core's deadline.
    Tick { host: usize, process: u64, generation: u64 },
    /// An input for that run of the agent (and no other).
    Deliver { host: usize, process: u64, input: Input },
    /// A datagram arrives.
    Datagram { from: usize, to: usize, message: Message },
    /// A ping is at the pinged host.
    Ping { from: usize, process: u64, to: usize },
    /// The next stage of a disk operation.
    Disk { key: u64 },
    /// A write that was reported as failed lands after all.
    LateLanding { key: u64 },
    /// The next stage of a start.
    Prepare { host: usize, key: u64 },
    /// Another operation on a domain reaches libvirt.
    Domain { host: usize, key: u64 },
    /// The agent learns that a domain changed.
    DomainNews { host: usize, vm: usize, gone: Option<StopCause> },
    /// Libvirt's answer to a question asked at `as_of` (the host's clock) is made up: about one domain, or all.
    DomainLook { host: usize, process: u64, as_of: Time, vm: Option<usize>, gone: Option<StopCause> },
    /// That run of the agent looks at a VM after it has done something to it.
    LookAfresh { host: usize, process: u64, vm: usize },
    /// The agent's connection to libvirt notices what libvirt does.
    HypervisorNews { host: usize },
    /// The agent lists all domains and says what the host offers.
    Resync { host: usize, process: u64 },
    /// The agent starts, if the host still runs in that boot.
    AgentStart { host: usize, boot: u64 },
    /// That run of the agent, which was told to stop, ends.
    AgentEnds { host: usize, process: u64 },
    /// QEMU gives up waiting for the storage.
    IoError { host: usize, vm: usize, qemu: u64 },
    /// A guest that was asked to shut down is done.
    GuestDown { host: usize, vm: usize, qemu: u64 },
    /// A guard starts, if the host still runs in that boot.
    GuardStart { host: usize, boot: u64 },
    /// A guard's deadline.
    GuardTick { host: usize, process: u64, generation: u64 },
    /// Something for that run of the guard.
    ToGuard { host: usize, process: u64, input: GuardInput },
    /// A guard has done something to a process.
    GuardDeed { host: usize, boot: u64, process: u64, vm: VmId, what: Deed },
    /// The storage lets go of an image lock of a host that crashed.
    LockExpires { vm: usize, qemu: u64 },
    /// A second is over: the checkers look around.
    Second,
    /// Whether a copy that libvirtd has started beside another still executes.
    StrayLook { vm: usize, host: usize },
    /// The next stage of a live migration.
    Migration { key: u64 },
    /// Somebody does something.
    Act(Action),
}

/// A start on its way through a host.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    pub process: u64,
    pub boot: u64,
    pub op: mainstay_core::OpId,
    pub vm: usize,
    pub store: usize,
    pub xml: XmlId,
    pub token: Token,
    /// Probed and found free: the next stage creates.
    pub creating: bool,
    /// The core has been told that it waits.
    pub said: bool,
}

/// Another operation on its way to libvirt.
#[derive(Clone, Debug)]
pub(crate) struct DomainOp {
    pub process: u64,
    pub boot: u64,
    pub op: mainstay_core::OpId,
    pub vm: usize,
    pub kind: DomainOpKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DomainOpKind {
    Resume,
    Destroy,
    Shutdown,
    Undefine,
    /// Live-migrate it to that host.
    Migrate(usize),
    AskGuest,
}

impl DomainOpKind {
    /// Whether it waits for those before it: operations that change a domain do.
    pub fn waits_its_turn(self) -> bool {
        match self {
            DomainOpKind::Resume
            | DomainOpKind::Destroy
            | DomainOpKind::Shutdown
            | DomainOpKind::Undefine => true,
            DomainOpKind::Migrate(_) | DomainOpKind::AskGuest => false,
        }
    }

    /// Whether the agent looks at the VM when it is answered.
    pub fn is_looked_after(self) -> bool {
        match self {
            DomainOpKind::Resume | DomainOpKind::Destroy | DomainOpKind::Migrate(_) => true,
            DomainOpKind::Shutdown | DomainOpKind::Undefine | DomainOpKind::AskGuest => false,
        }
    }
}

#[derive(Debug)]
struct Due {
    at: u64,
    order: u64,
    what: Happening,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.order == other.order
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    /// Reversed: the heap's greatest is the earliest.
    fn cmp(&self, other: &Due) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// The event heap.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Due>,
    order: u64,
}

impl Queue {
    pub fn push(&mut self, at: u64, what: Happening) {
        self.order += 1;
        self.heap.push(Due { at, order: self.order, what });
    }

    /// When the next thing happens.
    pub fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|due| due.at)
    }

    pub fn pop(&mut self) -> Option<(u64, Happening)> {
        self.heap.pop().map(|due| (due.at, due.what))
    }
}
