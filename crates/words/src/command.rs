//! What a person may ask of the cluster. The API and the command line turn their requests into these.

use crate::ids::{DatastoreName, HostId, VmId};
use crate::settings::{Admission, Evacuation, Readiness, RuleKind, Strength};
use crate::time::Span;
use crate::vm::{IsolationResponse, Priority, VmSpec};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// What an operator may ask of an owner.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Command {
    /// Protect that VM (again).
    Protect {
        /// Name or UUID.
        vm: String,
    },
    /// What is done with that VM when its host is isolated; `None`: as the cluster's default.
    SetIsolation {
        /// Name or UUID.
        vm: String,
        /// What is done from now on; `None`: as the cluster's default says.
        response: Option<IsolationResponse>,
        /// How long it may take to shut down.
        shutdown_timeout: Option<Span>,
    },
    /// Take that VM out of protection.
    Unprotect {
        /// Name or UUID.
        vm: String,
    },
    /// The restart priority of that VM; `None`: as its domain XML says.
    SetPriority {
        /// Name or UUID.
        vm: String,
        /// The priority that counts from now on; `None`: that of the domain XML.
        priority: Option<Priority>,
    },
    /// When those that wait for that VM may start; `None`: the default.
    SetReadiness {
        /// Name or UUID.
        vm: String,
        /// The condition that counts from now on; `None`: the default one.
        readiness: Option<Readiness>,
    },
    /// A rule of that name is so from now on.
    SetRule {
        /// The name that tells this rule from others.
        name: Arc<str>,
        /// Whether it binds.
        strength: Strength,
        /// What it says.
        kind: RuleKind,
        /// Names or UUIDs.
        vms: Vec<String>,
        /// The hosts, for the kinds that have some.
        hosts: Vec<HostId>,
    },
    /// There is no such rule any more.
    RemoveRule {
        /// The name of the rule.
        name: Arc<str>,
    },
    /// A start group of that name is so from now on.
    SetGroup {
        /// The name that tells this group from others.
        name: Arc<str>,
        /// Names or UUIDs.
        vms: Vec<String>,
        /// Groups that it waits for.
        waits_for: Vec<Arc<str>>,
    },
    /// There is no such group any more.
    RemoveGroup {
        /// The name of the group.
        name: Arc<str>,
    },
    /// Admission control is so from now on.
    SetAdmission {
        /// Policy, and whether it refuses or warns.
        admission: Admission,
    },
    /// Keep that host empty for failovers, or not any more.
    SetFailoverHost {
        /// The host that is kept empty.
        host: HostId,
        /// `false`: it takes VMs like others again.
        keep: bool,
    },
    /// Empty that host and put nothing on it.
    EnterMaintenance {
        /// The host that is to be emptied.
        host: HostId,
        /// How it is emptied.
        how: Evacuation,
        /// Also when admission control, or the room on the others, speaks against it.
        force: bool,
    },
    /// That host takes VMs again.
    LeaveMaintenance {
        /// The host that takes VMs again.
        host: HostId,
        /// Live-migrate back what was moved away for it.
        bring_back: bool,
    },
    /// No restart, no isolation response, no freeze for so long.
    Suspend {
        /// How long it lasts from when it stands.
        length: Span,
    },
    /// End a suspension: protection counts again.
    Resume,
    /// That host is down: a person has seen to it. What its guard was told during a suspension no longer counts.
    ConfirmDown {
        /// The host that a person has found to be down.
        host: HostId,
    },
    /// Whether a VM may be started there: nobody else runs it (R38), and admission control agrees. Nothing is changed.
    AdmitStart {
        /// The host that is to start the VM.
        host: HostId,
        /// The UUID of the VM.
        vm: VmId,
        /// The VM's libvirt name.
        name: Arc<str>,
        /// What it needs.
        spec: VmSpec,
        /// The datastore that the VM is homed on.
        datastore: DatastoreName,
        /// A live migration brings it: the host where it runs is its source.
        #[serde(default)]
        arrives: bool,
    },
}
