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
    /// A host has been silent for one of the times that count: it may be judged, or the storm be over.
    Silence(&'a HostId),
    /// The grace after a standstill ends.
    Awake,
    /// This host looks for signs that it is not isolated (R60).
    Isolation,
    /// On that datastore: whether this host still reaches it.
    Reach(&'a DatastoreName),
    /// On that datastore: a read.
    Reads(&'a DatastoreName),
    /// On that datastore: the owner's beat, the end of its ownership, or a step of the consensus.
    Ownership(&'a DatastoreName),
    /// On that datastore: a write of this host's own registers is tried again.
    OwnWrites(&'a DatastoreName),
    /// On that datastore: a claim of this host.
    Claims(&'a DatastoreName),
    /// On that datastore: a decision of its owner.
    List(&'a DatastoreName),
    /// Places are given again: the order of starts or room that was left may let somebody go.
    Placing,
    /// The standing rehearsal, or what admission control says of it.
    Rehearsal,
    /// A VM's domain XML is to be stored again.
    DomainXml,
    /// The guard is shown that the agent is well.
    Guard,
}

/// A deadline with its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline<'a> {
    /// When it is due, on this host's clock.
    pub at: Time,
    /// What is to be done then.
    pub timer: Timer<'a>,
}

impl<'a> Deadline<'a> {
    /// No deadline at all.
    pub(crate) const NEVER: Deadline<'static> = Deadline { at: Time(u64::MAX), timer: Timer::None };

    pub(crate) fn new(at: Time, timer: Timer<'a>) -> Deadline<'a> {
        Deadline { at, timer }
    }

    /// If there is such a time.
    pub(crate) fn maybe(at: Option<Time>, timer: Timer<'a>) -> Deadline<'a> {
        at.map_or(Deadline::NEVER, |at| Deadline::new(at, timer))
    }

    /// The earlier of the two; this one if they are equal.
    #[must_use]
    pub(crate) fn or(self, other: Deadline<'a>) -> Deadline<'a> {
        if other.at < self.at { other } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::{Deadline, Timer};
    use crate::time::Time;

    #[test]
    fn the_earlier_one_counts_and_the_first_of_equals() {
        let at = |at, timer| Deadline::new(Time(at), timer);
        let due = Deadline::NEVER.or(at(5, Timer::Heartbeat)).or(at(5, Timer::Guard)).or(at(7, Timer::Awake));
        assert_eq!(due, at(5, Timer::Heartbeat));
        assert_eq!(due.or(at(3, Timer::Placing)), at(3, Timer::Placing));
        assert_eq!(due.or(Deadline::maybe(None, Timer::Placing)), due);
    }
}
