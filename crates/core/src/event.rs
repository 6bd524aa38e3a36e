//! What the core tells people: typed, with the objects in fields. Texts are made here too, in one place, so that log, command
//! line and API say the same.

use crate::election::PrimaryReason;
use crate::host_liveness::HostState;
use crate::ids::{DatastoreName, Epoch, HostId, Token, VmId};
use crate::register::StopCause;
use crate::time::Span;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

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

/// Names a VM in an event.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VmName {
    /// Its UUID.
    pub id: VmId,
    /// Its libvirt name.
    pub name: Arc<str>,
}

impl fmt::Display for VmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// The agent's core has begun.
    AgentStarted {
        /// Whether this is a new boot of the host, as far as its own registers tell.
        rebooted: bool,
    },
    /// This host stands for election.
    ElectionStarted {
        /// Why.
        reason: Arc<str>,
    },
    /// This host is primary now.
    BecamePrimary {
        /// Why it was the best.
        reason: PrimaryReason,
    },
    /// This host follows that primary now.
    FollowsPrimary {
        /// The primary.
        primary: HostId,
    },
    /// This host was primary and is no more.
    SteppedDown {
        /// Why.
        reason: Arc<str>,
    },
    /// The primary judges a host anew.
    HostStateChanged {
        /// The host.
        host: HostId,
        /// Before.
        from: HostState,
        /// Now.
        to: HostState,
        /// How old the last evidence of it is.
        last_evidence: Span,
    },
    /// A heartbeat datastore does not take this host's heartbeats.
    DatastoreLost {
        /// Which.
        datastore: DatastoreName,
        /// What the storage says.
        reason: Arc<str>,
    },
    /// It does again.
    DatastoreBack {
        /// Which.
        datastore: DatastoreName,
    },
    /// This host owns the datastore's protected list now.
    OwnershipAcquired {
        /// Which.
        datastore: DatastoreName,
        /// In which epoch.
        epoch: Epoch,
        /// Whose it was before.
        former: Option<HostId>,
    },
    /// This host does not own it any more.
    OwnershipLost {
        /// Which.
        datastore: DatastoreName,
        /// The epoch that ended.
        epoch: Epoch,
        /// Why.
        reason: Arc<str>,
    },
    /// A register is damaged or foreign.
    RegisterUnreadable {
        /// Where.
        datastore: DatastoreName,
        /// Which (file name).
        register: Arc<str>,
        /// What is wrong with it.
        reason: Arc<str>,
    },
    /// A register of this host can't be written, although its heartbeats arrive.
    RegisterUnwritable {
        /// Where.
        datastore: DatastoreName,
        /// Which (file name).
        register: Arc<str>,
        /// What the storage says.
        reason: Arc<str>,
    },
    /// A register that was unreadable or unwritable is well again.
    RegisterReadable {
        /// Where.
        datastore: DatastoreName,
        /// Which (file name).
        register: Arc<str>,
    },
    /// The VM is in the protected list on disk.
    VmProtected {
        /// The VM.
        vm: VmName,
        /// Where it runs.
        host: HostId,
        /// Where its entry is.
        datastore: DatastoreName,
    },
    /// The VM can't be protected as it is.
    VmNotProtectable {
        /// The VM.
        vm: VmName,
        /// Why.
        reason: Arc<str>,
    },
    /// A person took the VM out of protection.
    VmUnprotected {
        /// The VM.
        vm: VmName,
    },
    /// The VM stopped on a host.
    VmStopped {
        /// The VM.
        vm: VmName,
        /// Where.
        host: HostId,
        /// Why.
        cause: StopCause,
        /// Whether it will be restarted.
        restart: bool,
    },
    /// The owner means to take the VM from its silent host; its registers are read once more before that counts.
    TakeoverIntended {
        /// The VM.
        vm: VmName,
        /// From.
        from: HostId,
        /// To.
        to: HostId,
    },
    /// The silent host showed itself in between: it keeps the VM.
    TakeoverCancelled {
        /// The VM.
        vm: VmName,
        /// Who keeps it.
        host: HostId,
        /// What was seen.
        reason: Arc<str>,
    },
    /// The grant is on disk.
    VmGranted {
        /// The VM.
        vm: VmName,
        /// To whom.
        host: HostId,
        /// Its name.
        token: Token,
        /// Which attempt this is, from 1.
        attempt: u32,
        /// Why it is granted.
        reason: Arc<str>,
    },
    /// No host can take the VM now. It is tried again by itself.
    VmWaitsForHost {
        /// The VM.
        vm: VmName,
        /// Why not, host by host.
        reasons: Vec<(HostId, Arc<str>)>,
    },
    /// This host has written its claim and read the grant once more: it starts the VM.
    VmClaimed {
        /// The VM.
        vm: VmName,
        /// The grant.
        token: Token,
    },
    /// This host waits for the storage before it starts the VM.
    VmWaitsForStorage {
        /// The VM.
        vm: VmName,
        /// What for.
        reason: Arc<str>,
    },
    /// QEMU runs on this host (still paused, or already executing).
    VmStarted {
        /// The VM.
        vm: VmName,
        /// The grant.
        token: Token,
    },
    /// This host could not start it.
    VmStartFailed {
        /// The VM.
        vm: VmName,
        /// Why.
        reason: Arc<str>,
    },
    /// The owner has seen it running after a restart: verified.
    VmRestarted {
        /// The VM.
        vm: VmName,
        /// Where it ran before, if it was a failover.
        from: Option<HostId>,
        /// Where it runs.
        to: HostId,
        /// How many attempts it took.
        attempts: u32,
    },
    /// A stale definition was removed from this host.
    DefinitionDropped {
        /// The VM.
        vm: VmName,
        /// Whose it is now.
        holder: HostId,
    },
    /// The VM executes on a host although another one holds it.
    VmActiveTwice {
        /// The VM.
        vm: VmName,
        /// Who holds it.
        holder: HostId,
        /// Where else it runs.
        other: HostId,
    },
    /// A VM that was active on two hosts is active on one only.
    VmActiveOnce {
        /// The VM.
        vm: VmName,
        /// Where.
        host: HostId,
    },
    /// The VM ran here although it had been given to another host since: this copy was removed (R36).
    VmCopyRemoved {
        /// The VM.
        vm: VmName,
        /// Whose it is.
        holder: HostId,
    },
    /// Libvirt does not answer on this host (VMs are not affected).
    HypervisorLost,
    /// It does again.
    HypervisorBack,
}

impl Event {
    /// How much it matters.
    pub fn severity(&self) -> Severity {
        match self {
            Event::HostStateChanged { to, .. } => match to {
                HostState::Connected => Severity::Info,
                HostState::Unknown => Severity::Info,
                HostState::Partitioned | HostState::Isolated => Severity::Warning,
                HostState::AgentUnreachable | HostState::Failed => Severity::Alarm,
            },
            Event::AgentStarted { .. }
            | Event::ElectionStarted { .. }
            | Event::BecamePrimary { .. }
            | Event::FollowsPrimary { .. }
            | Event::SteppedDown { .. }
            | Event::DatastoreBack { .. }
            | Event::RegisterReadable { .. }
            | Event::OwnershipAcquired { .. }
            | Event::VmProtected { .. }
            | Event::VmUnprotected { .. }
            | Event::VmGranted { .. }
            | Event::VmClaimed { .. }
            | Event::VmStarted { .. }
            | Event::DefinitionDropped { .. }
            | Event::VmActiveOnce { .. }
            | Event::HypervisorBack => Severity::Info,
            Event::VmStopped { restart, .. } => {
                if *restart {
                    Severity::Warning
                } else {
                    Severity::Info
                }
            }
            Event::OwnershipLost { .. }
            | Event::TakeoverIntended { .. }
            | Event::TakeoverCancelled { .. }
            | Event::VmWaitsForStorage { .. }
            | Event::VmStartFailed { .. }
            | Event::VmRestarted { .. }
            | Event::VmCopyRemoved { .. }
            | Event::HypervisorLost => Severity::Warning,
            Event::DatastoreLost { .. }
            | Event::RegisterUnreadable { .. }
            | Event::RegisterUnwritable { .. }
            | Event::VmNotProtectable { .. }
            | Event::VmWaitsForHost { .. }
            | Event::VmActiveTwice { .. } => Severity::Alarm,
        }
    }

    /// The VM that it is about, if it is about one.
    pub fn vm(&self) -> Option<&VmName> {
        match self {
            Event::VmProtected { vm, .. }
            | Event::VmNotProtectable { vm, .. }
            | Event::VmUnprotected { vm }
            | Event::VmStopped { vm, .. }
            | Event::TakeoverIntended { vm, .. }
            | Event::TakeoverCancelled { vm, .. }
            | Event::VmGranted { vm, .. }
            | Event::VmWaitsForHost { vm, .. }
            | Event::VmClaimed { vm, .. }
            | Event::VmWaitsForStorage { vm, .. }
            | Event::VmStarted { vm, .. }
            | Event::VmStartFailed { vm, .. }
            | Event::VmRestarted { vm, .. }
            | Event::DefinitionDropped { vm, .. }
            | Event::VmActiveTwice { vm, .. }
            | Event::VmActiveOnce { vm, .. }
            | Event::VmCopyRemoved { vm, .. } => Some(vm),
            Event::AgentStarted { .. }
            | Event::ElectionStarted { .. }
            | Event::BecamePrimary { .. }
            | Event::FollowsPrimary { .. }
            | Event::SteppedDown { .. }
            | Event::HostStateChanged { .. }
            | Event::DatastoreLost { .. }
            | Event::DatastoreBack { .. }
            | Event::OwnershipAcquired { .. }
            | Event::OwnershipLost { .. }
            | Event::RegisterUnreadable { .. }
            | Event::RegisterUnwritable { .. }
            | Event::RegisterReadable { .. }
            | Event::HypervisorLost
            | Event::HypervisorBack => None,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::AgentStarted { rebooted: true } => f.write_str("agent started; the host has rebooted"),
            Event::AgentStarted { rebooted: false } => f.write_str("agent started"),
            Event::ElectionStarted { reason } => write!(f, "election started: {reason}"),
            Event::BecamePrimary { reason } => write!(f, "elected primary: {reason}"),
            Event::FollowsPrimary { primary } => write!(f, "follows primary {primary}"),
            Event::SteppedDown { reason } => write!(f, "stepped down as primary: {reason}"),
            Event::HostStateChanged { host, from, to, last_evidence } => {
                write!(f, "{host} was {from}, is {to} (last evidence {last_evidence} ago)")
            }
            Event::DatastoreLost { datastore, reason } => {
                write!(f, "datastore {datastore} is out of reach: {reason}")
            }
            Event::DatastoreBack { datastore } => write!(f, "datastore {datastore} is reached"),
            Event::OwnershipAcquired { datastore, epoch, former } => match former {
                Some(former) => write!(f, "owns datastore {datastore} in epoch {epoch}, after {former}"),
                None => write!(f, "owns datastore {datastore} in epoch {epoch}"),
            },
            Event::OwnershipLost { datastore, epoch, reason } => {
                write!(f, "no longer owns datastore {datastore} (epoch {epoch}): {reason}")
            }
            Event::RegisterUnreadable { datastore, register, reason } => {
                write!(f, "register {register} on datastore {datastore} is unreadable: {reason}")
            }
            Event::RegisterUnwritable { datastore, register, reason } => {
                write!(f, "register {register} on datastore {datastore} can't be written: {reason}")
            }
            Event::RegisterReadable { datastore, register } => {
                write!(f, "register {register} on datastore {datastore} is well again")
            }
            Event::VmProtected { vm, host, datastore } => {
                write!(f, "{vm} on {host} is protected (on {datastore})")
            }
            Event::VmNotProtectable { vm, reason } => write!(f, "{vm} can't be protected: {reason}"),
            Event::VmUnprotected { vm } => write!(f, "{vm} is no longer protected: its user asked for it"),
            Event::VmStopped { vm, host, cause, restart: true } => {
                write!(f, "{vm} stopped on {host}: {cause}; it will be restarted")
            }
            Event::VmStopped { vm, host, cause, restart: false } => {
                write!(f, "{vm} stopped on {host}: {cause}; it stays down")
            }
            Event::TakeoverIntended { vm, from, to } => write!(f, "{vm} is to go from silent {from} to {to}"),
            Event::TakeoverCancelled { vm, host, reason } => write!(f, "{vm} stays with {host}: {reason}"),
            Event::VmGranted { vm, host, token, attempt, reason } => {
                write!(f, "{vm} granted to {host} (grant {token}, attempt {attempt}): {reason}")
            }
            Event::VmWaitsForHost { vm, reasons } => {
                write!(f, "{vm} waits, no host can take it:")?;
                for (index, (host, reason)) in reasons.iter().enumerate() {
                    write!(f, "{} {host}: {reason}", if index == 0 { "" } else { ";" })?;
                }
                Ok(())
            }
            Event::VmClaimed { vm, token } => write!(f, "{vm} claimed (grant {token}), starting it"),
            Event::VmWaitsForStorage { vm, reason } => write!(f, "{vm} waits for the storage: {reason}"),
            Event::VmStarted { vm, token } => write!(f, "{vm} started (grant {token})"),
            Event::VmStartFailed { vm, reason } => write!(f, "{vm} could not be started: {reason}"),
            Event::VmRestarted { vm, from: Some(from), to, attempts } => {
                write!(f, "{vm} of {from} runs again on {to} (attempts: {attempts})")
            }
            Event::VmRestarted { vm, from: None, to, attempts } => {
                write!(f, "{vm} runs again on {to} (attempts: {attempts})")
            }
            Event::DefinitionDropped { vm, holder } => {
                write!(f, "stale definition of {vm} removed here: it belongs to {holder}")
            }
            Event::VmActiveTwice { vm, holder, other } => {
                write!(f, "{vm} is held by {holder} but also active on {other}: stop one of them")
            }
            Event::VmActiveOnce { vm, host } => write!(f, "{vm} is active on {host} only"),
            Event::VmCopyRemoved { vm, holder } => {
                write!(f, "{vm} ran here too, but was given to {holder} since: the copy here was removed")
            }
            Event::HypervisorLost => f.write_str("libvirt does not answer; VMs go on"),
            Event::HypervisorBack => f.write_str("libvirt answers"),
        }
    }
}
