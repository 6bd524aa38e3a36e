//! What stands in `host-X-owner`: a host's part in the consensus on an epoch's owner, and its beat as an owner.

use crate::files::FilesDigest;
use crate::ids::{BootId, Epoch, HostId, Incarnation};
use crate::pair::written_as_pair;
use serde::{Deserialize, Serialize};

/// A ballot of the consensus on an epoch's owner: never used by two hosts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ballot {
    /// The number of the round: a host that begins anew takes a higher one.
    pub round: u64,
    /// The host that put the ballot forward.
    pub host: HostId,
}

/// What a host put forward for an epoch.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Accepted {
    /// The ballot of it.
    pub ballot: Ballot,
    /// The host that is to own the epoch.
    pub owner: HostId,
}

written_as_pair!(Accepted { ballot: Ballot, owner: HostId });

/// `host-X-owner`: the host's block of Disk Paxos for one epoch (the *instance*), and its beat as an owner.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OwnershipBlock {
    /// The boot in which this was written.
    pub boot: BootId,
    /// The agent that wrote it.
    pub incarnation: Incarnation,
    /// The epoch that the next three fields are about; `Epoch(0)` when the host never contended.
    pub instance: Epoch,
    /// The highest ballot that this host has begun (`mbal` of Disk Paxos).
    pub promised: Option<Ballot>,
    /// The ballot and value that this host last put forward in phase two (`bal` and `inp`).
    pub accepted: Option<Accepted>,
    /// The host's latest ownership.
    pub beat: Option<OwnerBeat>,
    /// What that agent's file says of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<FilesDigest>,
}

/// An owner's sign of life.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OwnerBeat {
    /// The epoch that it owns.
    pub epoch: Epoch,
    /// Grows by one with each write.
    pub counter: u64,
    /// It has given the ownership up: the next one need not wait.
    pub released: bool,
}
