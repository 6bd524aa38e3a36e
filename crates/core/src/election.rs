//! PLACEHOLDER
use crate::message::Rank;
use core::fmt;
use serde::{Deserialize, Serialize};

/// Why a host was elected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum PrimaryReason {
    /// Nobody else stood.
    OnlyCandidate {
        /// Its rank.
        rank: Rank,
    },
    /// It reaches more datastores than the next best.
    MoreDatastores {
        /// Its rank.
        rank: Rank,
        /// The next best.
        runner_up: Rank,
    },
    /// As many datastores as the next best; the larger host id, as text, decides.
    LargerId {
        /// Its rank.
        rank: Rank,
        /// The next best.
        runner_up: Rank,
    },
}

impl fmt::Display for PrimaryReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PrimaryReason::OnlyCandidate { rank } => {
                write!(f, "the only candidate ({} datastores)", rank.datastores)
            }
            PrimaryReason::MoreDatastores { rank, runner_up } => {
                write!(
                    f,
                    "reaches {} datastores, {} reaches {}",
                    rank.datastores, runner_up.host, runner_up.datastores
                )
            }
            PrimaryReason::LargerId { rank, runner_up } => {
                write!(
                    f,
                    "reaches {} datastores like {}, and has the larger id as text",
                    rank.datastores, runner_up.host
                )
            }
        }
    }
}
