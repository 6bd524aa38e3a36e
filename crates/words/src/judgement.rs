//! What hosts conclude about each other: what a host is taken for, and why one of them is primary.

use crate::ids::HostId;
use crate::message::Rank;
use crate::pair::written_as_pair;
use alloc::sync::Arc;
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
    /// No sign of life on any path, and nothing can have frozen its VMs: they may still run there.
    Unguarded,
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
            HostState::Unguarded => "unguarded",
            HostState::Failed => "failed",
        })
    }
}

/// Why one host can't take a VM.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Refusal {
    /// The host.
    pub host: HostId,
    /// Why not, in words.
    pub reason: Arc<str>,
}

written_as_pair!(Refusal { host: HostId, reason: Arc<str> });

/// Why a host was elected.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum PrimaryReason {
    /// Nobody else stood.
    OnlyCandidate {
        /// The rank of the one that was elected.
        rank: Rank,
    },
    /// It reaches more datastores than the next best.
    MoreDatastores {
        /// The rank of the one that was elected.
        rank: Rank,
        /// The next best.
        runner_up: Rank,
    },
    /// As many datastores as the next best; the larger host id, as text, decides.
    LargerId {
        /// The rank of the one that was elected.
        rank: Rank,
        /// The next best.
        runner_up: Rank,
    },
    /// A host that ranks higher stood too, but did not take the role in time.
    BetterOneSilent {
        /// The rank of the one that was elected.
        rank: Rank,
        /// The one that ranks higher.
        better: Rank,
    },
}

impl fmt::Display for PrimaryReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PrimaryReason::OnlyCandidate { rank } => {
                write!(f, "the only candidate, reaches {} datastore(s)", rank.datastores)
            }
            PrimaryReason::MoreDatastores { rank, runner_up } => {
                write!(
                    f,
                    "reaches {} datastore(s), {} reaches {}",
                    rank.datastores, runner_up.host, runner_up.datastores
                )
            }
            PrimaryReason::LargerId { rank, runner_up } => {
                write!(
                    f,
                    "reaches {} datastore(s) like {}, and has the larger id as text",
                    rank.datastores, runner_up.host
                )
            }
            PrimaryReason::BetterOneSilent { rank, better } => {
                write!(
                    f,
                    "reaches {} datastore(s); {} ranks higher but did not take the role",
                    rank.datastores, better.host
                )
            }
        }
    }
}

/// How much an event matters to a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The protocol at work.
    Info,
    /// Something is degraded, or was decided that a person would want to know.
    Warning,
    /// A person must act.
    Alarm,
}
