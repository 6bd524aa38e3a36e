//! How much an event matters, and which VM it is about.

use super::*;

impl Event {
    /// How much it matters.
    pub fn severity(&self) -> Severity {
        match self {
            Event::HostStateChanged { to, .. } => match to {
                HostState::Connected => Severity::Info,
                HostState::Unknown => Severity::Info,
                HostState::Partitioned => Severity::Warning,
                HostState::Isolated | HostState::AgentUnreachable | HostState::Failed => Severity::Alarm,
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
            | Event::GuardFound { .. }
            | Event::VmThawed { .. }
            | Event::VmContinued { .. }
            | Event::HostNotIsolated
            | Event::ResponsibilityDropped { .. }
            | Event::IsolationResponseStopped { .. }
            | Event::StormOver
            | Event::HeartbeatDatastoresChosen { .. }
            | Event::TimingAgrees { .. }
            | Event::SettingsChanged { .. }
            | Event::VmWaitsForOthers { .. }
            | Event::VmVerified { .. }
            | Event::MaintenanceBegun { .. }
            | Event::MaintenanceReached { .. }
            | Event::MaintenanceLeft { .. }
            | Event::VmOrdered { .. }
            | Event::ProtectionResumed { .. }
            | Event::AdmissionMet
            | Event::HypervisorBack => Severity::Info,
            Event::VmNotVerified { again, .. } => {
                if *again {
                    Severity::Warning
                } else {
                    Severity::Alarm
                }
            }
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
            | Event::ResponsibilityTaken { .. }
            | Event::IsolationResponseApplied { .. }
            | Event::ShutdownTimedOut { .. }
            | Event::MessageUnreadable { .. }
            | Event::OrderGivenUp { .. }
            | Event::VmOrderFailed { .. }
            | Event::HostConfirmedDown { .. }
            | Event::HypervisorLost => Severity::Warning,
            Event::DatastoreLost { .. }
            | Event::RegisterUnreadable { .. }
            | Event::RegisterUnwritable { .. }
            | Event::VmNotProtectable { .. }
            | Event::VmWaitsForHost { .. }
            | Event::GuardLost
            | Event::VmFrozen { .. }
            | Event::HostIsolated
            | Event::StormSuspected { .. }
            | Event::TimingDiffers { .. }
            | Event::ProtectionSuspended { .. }
            | Event::AdmissionNotMet { .. }
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
            | Event::VmFrozen { vm }
            | Event::VmThawed { vm }
            | Event::VmContinued { vm }
            | Event::ResponsibilityTaken { vm, .. }
            | Event::ResponsibilityDropped { vm, .. }
            | Event::IsolationResponseApplied { vm, .. }
            | Event::ShutdownTimedOut { vm, .. }
            | Event::IsolationResponseStopped { vm }
            | Event::VmWaitsForOthers { vm, .. }
            | Event::OrderGivenUp { vm }
            | Event::VmNotVerified { vm, .. }
            | Event::VmVerified { vm, .. }
            | Event::VmOrdered { vm, .. }
            | Event::VmOrderFailed { vm, .. }
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
            | Event::GuardFound { .. }
            | Event::GuardLost
            | Event::MessageUnreadable { .. }
            | Event::HostIsolated
            | Event::HostConfirmedDown { .. }
            | Event::HostNotIsolated
            | Event::StormSuspected { .. }
            | Event::StormOver
            | Event::HeartbeatDatastoresChosen { .. }
            | Event::TimingDiffers { .. }
            | Event::TimingAgrees { .. }
            | Event::SettingsChanged { .. }
            | Event::MaintenanceBegun { .. }
            | Event::MaintenanceReached { .. }
            | Event::MaintenanceLeft { .. }
            | Event::ProtectionSuspended { .. }
            | Event::ProtectionResumed { .. }
            | Event::AdmissionNotMet { .. }
            | Event::AdmissionMet
            | Event::HypervisorLost
            | Event::HypervisorBack => None,
        }
    }
}
