//! What comes of a command that was accepted.

use crate::ids::{DatastoreName, VmId};
use alloc::string::String;
use serde::{Deserialize, Serialize};

/// When a request is answered.
pub(super) enum Asked {
    /// At once, with this text: nothing has to be written.
    Now(String),
    /// When that is on disk.
    Later(Until, String),
}

/// What has to be on disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum Until {
    /// The entry of a VM.
    Vm(DatastoreName, VmId),
    /// Settings, on all datastores that this host owns.
    Settings(u64),
    /// What was asked about suspension, on all datastores that this host owns.
    Suspension,
}
