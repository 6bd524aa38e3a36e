//! Judging a silent host (DESIGN section 4): one pure, total function of four observations.

use core::fmt;
use serde::{Deserialize, Serialize};

/// What a host is, in somebody's view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostState {
    /// Not judged: this view is a secondary's, or too young.
    #[default]
    Unknown,
    /// Its network heartbeats arrive.
    Connected,
    /// Alive by its datastore heartbeats, but cut off from this partition.
    Partitioned,
    /// Alive, and says itself that it reaches nobody.
    Isolated,
    /// Its kernel answers pings; its agent does not show itself.
    AgentUnreachable,
    /// No sign of life on any path.
    Failed,
}

impl fmt::Display for HostState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            HostState::Unknown => "unknown",
            HostState::Connected => "connected",
            HostState::Partitioned => "partitioned",
            HostState::Isolated => "isolated",
            HostState::AgentUnreachable => "agent unreachable",
            HostState::Failed => "failed",
        })
    }
}

/// The four observations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Observations {
    /// A network heartbeat arrived within the failure time-out.
    pub network_heartbeat: bool,
    /// Its datastore heartbeat changed within the failure time-out, on any datastore.
    pub datastore_heartbeat: bool,
    /// It answered a ping.
    pub ping: bool,
    /// The isolation flag in its power-on list.
    pub isolation_flag: bool,
}

/// The judgement. Total: every combination has exactly one state.
pub fn classify(seen: Observations) -> HostState {
    match (seen.network_heartbeat, seen.datastore_heartbeat, seen.ping, seen.isolation_flag) {
        (true, _, _, _) => HostState::Connected,
        (false, true, _, false) => HostState::Partitioned,
        (false, true, _, true) => HostState::Isolated,
        (false, false, true, _) => HostState::AgentUnreachable,
        (false, false, false, _) => HostState::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of DESIGN section 4, row by row, over all sixteen inputs.
    #[test]
    fn every_combination_has_the_state_of_the_table() {
        for bits in 0..16u8 {
            let seen = Observations {
                network_heartbeat: bits & 1 != 0,
                datastore_heartbeat: bits & 2 != 0,
                ping: bits & 4 != 0,
                isolation_flag: bits & 8 != 0,
            };
            let expected = if seen.network_heartbeat {
                HostState::Connected
            } else if seen.datastore_heartbeat {
                if seen.isolation_flag { HostState::Isolated } else { HostState::Partitioned }
            } else if seen.ping {
                HostState::AgentUnreachable
            } else {
                HostState::Failed
            };
            assert_eq!(classify(seen), expected, "{seen:?}");
        }
    }
}
