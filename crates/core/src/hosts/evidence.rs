//! What the datastores show of a host: the disk's half of a judgement.
//!
//! It does not: read anything. Each datastore says what it has seen; here these words become one.

use crate::time::{Span, Time};
use crate::timing::Timing;
use serde::{Deserialize, Serialize};

/// What one datastore says of a host, or all of them together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct DiskEvidence {
    /// The shortest time for which a register of it was seen to stand still, from the answer of the first read that saw
    /// its present value to the start of the last read that still did. `None`: no datastore could be read.
    pub(crate) still: Option<Span>,
    /// When a change was last seen.
    pub(crate) changed: Option<Time>,
    pub(crate) isolation_flag: bool,
    /// Its guard says that the agent is well.
    pub(crate) agent_well: bool,
    /// The longest failure time-out that it has written anywhere.
    pub(crate) failure_timeout: Span,
    /// It beats slowly there.
    pub(crate) slow: bool,
    /// As far as is known, its guard freezes what it runs when its leases end. Of all datastores together only.
    pub(crate) can_freeze: bool,
    /// This host's own heartbeats arrive on some datastore: a guard's would, too.
    pub(crate) writable: bool,
    /// A person has seen to it that it is down.
    pub(crate) confirmed_down: bool,
}

impl DiskEvidence {
    /// One of its registers has not stood still for the failure time-out.
    pub(crate) fn has_moved(&self, timing: &Timing) -> bool {
        self.still.is_some_and(|still| still < timing.failure_timeout.max(self.failure_timeout))
    }

    /// What all datastores that can be read say together.
    pub(crate) fn of_all(all: impl Iterator<Item = DiskEvidence> + Clone) -> DiskEvidence {
        // Where it beats in full it is missed soonest. An agent that is well beats in full elsewhere when it loses one.
        let full = all.clone().any(|evidence| !evidence.slow);
        let mut disk = DiskEvidence::default();
        for evidence in all.filter(|evidence| !full || !evidence.slow) {
            disk.still = match (disk.still, evidence.still) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
            disk.changed = disk.changed.max(evidence.changed);
            disk.isolation_flag |= evidence.isolation_flag;
            disk.agent_well |= evidence.agent_well;
            disk.failure_timeout = disk.failure_timeout.max(evidence.failure_timeout);
        }
        disk
    }
}
