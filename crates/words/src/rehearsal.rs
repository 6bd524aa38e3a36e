//! What the failure of each host would come to: the answer to a rehearsal, as the API and the command line show it.

use crate::ids::{HostId, VmId};
use crate::judgement::Refusal;
use crate::pair::written_as_pair;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// What each host's failure would come to, and what admission control says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rehearsed {
    /// One for each host.
    pub hosts: Vec<HostPlan>,
    /// The setting, in words.
    pub policy: String,
    /// What admission control has against the cluster as it is; `None`: nothing.
    pub objection: Option<Arc<str>>,
}

/// The plan for one host's failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPlan {
    /// The host that fails.
    pub host: HostId,
    /// Who goes where, in the order of priorities.
    pub placed: Vec<PlacedVm>,
    /// Who would not come back, and why, host by host.
    pub left_out: Vec<LeftOutVm>,
    /// VMs that nobody wants back, and why.
    pub not_restarted: Vec<UnwantedVm>,
}

/// A VM that nobody wants back.
#[derive(Clone, PartialEq, Eq)]
pub struct UnwantedVm {
    /// Its name.
    pub name: Arc<str>,
    /// Why it is to stay down, in words.
    pub reason: Arc<str>,
}

written_as_pair!(UnwantedVm { name: Arc<str>, reason: Arc<str> });

/// A VM that comes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedVm {
    /// The VM's libvirt UUID.
    pub vm: VmId,
    /// The VM's libvirt name.
    pub name: Arc<str>,
    /// Its new host.
    pub to: HostId,
    /// 1 starts at once, 2 waits for some of 1, and so on.
    pub wave: u32,
}

/// A VM that does not come back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOutVm {
    /// The VM's libvirt UUID.
    pub vm: VmId,
    /// The VM's libvirt name.
    pub name: Arc<str>,
    /// What it lacked, host by host.
    pub why: Vec<Refusal>,
}
