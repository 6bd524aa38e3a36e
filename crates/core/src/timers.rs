//! Why a core wants to be ticked: every deadline has a name.
//!
//! Each room answers its own next deadline. The earliest of all is the core's.

use crate::ids::{DatastoreName, HostId};
use crate::time::Time;

/// What is due at a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer<'a> {
    /// Nothing: the core waits for inputs.
    None,
    /// A bid, the end of a round, an announcement, or the primary's silence (R3).
    Election,
    /// The next heartbeat to the primary.
    Heartbeat,
    /// A silent host is to be pinged.
    Ping(&'a HostId),
    /// A host has been silent for one of the times that count (R10, R12).
    Silence(&'a HostId),
    /// The grace after a standstill ends (R16).
    Awake,
    /// This host looks for signs that it is not isolated (R60).
    Isolation,
    /// Something is due on that datastore.
    Datastore(&'a DatastoreName),
    /// Places are given again: the order of starts or room that was left may let somebody go (R75, R77).
    Placing,
    /// The standing rehearsal, or what admission control says of it (R78).
    Rehearsal,
    /// A VM's domain XML is to be stored again.
    DomainXml,
    /// The guard is shown that the agent is well.
    Guard,
}

/// A deadline with its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline<'a> {
    /// When.
    pub at: Time,
    /// For what.
    pub timer: Timer<'a>,
}

impl<'a> Deadline<'a> {
    /// No deadline at all.
    pub(crate) const NEVER: Deadline<'static> = Deadline { at: Time(u64::MAX), timer: Timer::None };

    pub(crate) fn new(at: Time, timer: Timer<'a>) -> Deadline<'a> {
        Deadline { at, timer }
    }

    /// The earlier of the two; this one if they are equal.
    #[must_use]
    pub(crate) fn or(self, other: Deadline<'a>) -> Deadline<'a> {
        if other.at < self.at { other } else { self }
    }
}
