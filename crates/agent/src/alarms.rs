//! Which alarms stand: raised by some events, ended by others. One alarm per kind and object: a repeated one replaces the
//! earlier one. Only this run of the agent counts: a core that starts anew says again what is still wrong.

use mainstay_api::EventRecord;
use mainstay_core::ids::{DatastoreName, HostId, VmId};
use mainstay_core::view::{View, VmState};
use mainstay_core::{Event, Severity};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What an alarm is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// A host is failed or its agent does not answer.
    Host(HostId),
    /// A datastore is out of reach.
    Datastore(DatastoreName),
    /// A register is damaged.
    Register(DatastoreName, Arc<str>),
    /// A VM can't be protected.
    NotProtectable(VmId),
    /// No host can take a VM.
    WaitsForHost(VmId),
    /// A VM is active on two hosts.
    ActiveTwice(VmId),
    /// A host has other times than this one.
    Timing(HostId),
    /// There is no guard.
    Guard,
    /// A VM is frozen.
    Frozen(VmId),
    /// This host is isolated.
    Isolated,
    /// Most hosts went silent at once.
    Storm,
    /// Protection is suspended.
    Suspended(DatastoreName),
    /// Too little is kept for failures.
    Admission,
    /// A VM runs, but its guest agent does not answer.
    NotVerified(VmId),
}

/// The alarms that stand on this host.
#[derive(Clone, Debug, Default)]
pub struct StandingAlarms {
    standing: BTreeMap<Key, EventRecord>,
}

impl StandingAlarms {
    /// Takes note of an event: ends what it ends, then raises what it raises.
    pub fn note(&mut self, record: &EventRecord) {
        let Some(event) = &record.event else { return };
        self.standing.retain(|key, _| !ends(event, key));
        if record.severity == Severity::Alarm
            && let Some(key) = raises(event)
        {
            self.standing.insert(key, record.clone());
        }
    }

    /// The alarms that stand, newest last. `view` ends those that the core sees settled without an event of its own (a
    /// VM that a later owner placed, say).
    pub fn list(&self, view: &View) -> Vec<EventRecord> {
        let settled = |vm: &VmId| {
            let state = view.vms.iter().find(|known| known.vm == *vm).map(|known| known.state);
            match state {
                Some(VmState::Running | VmState::Starting | VmState::Frozen | VmState::Off) => true,
                // Unknown: it is its failed host's yet, for want of another.
                Some(VmState::Waiting | VmState::Unknown) | None => false,
            }
        };
        let mut list: Vec<EventRecord> = self
            .standing
            .iter()
            .filter(|(key, _)| match key {
                Key::WaitsForHost(vm) => !settled(vm),
                Key::Suspended(name) => view.suspensions.iter().any(|it| it.datastore == *name),
                // A primary that lost its ownership meanwhile tells no end of it.
                Key::Admission => view.objection.is_some(),
                Key::Host(_)
                | Key::Datastore(_)
                | Key::Register(..)
                | Key::NotProtectable(_)
                | Key::ActiveTwice(_)
                | Key::Timing(_)
                | Key::Guard
                | Key::Frozen(_)
                | Key::Isolated
                | Key::Storm
                | Key::NotVerified(_) => true,
            })
            .map(|(_, record)| record.clone())
            .collect();
        list.sort_by_key(|record| record.sequence);
        list
    }
}

fn raises(event: &Event) -> Option<Key> {
    match event {
        Event::HostStateChanged { host, .. } => Some(Key::Host(host.clone())),
        Event::DatastoreLost { datastore, .. } => Some(Key::Datastore(datastore.clone())),
        Event::RegisterUnreadable { datastore, register, .. }
        | Event::RegisterUnwritable { datastore, register, .. } => {
            Some(Key::Register(datastore.clone(), register.clone()))
        }
        Event::VmNotProtectable { vm, .. } => Some(Key::NotProtectable(vm.id)),
        Event::VmWaitsForHost { vm, .. } => Some(Key::WaitsForHost(vm.id)),
        Event::VmActiveTwice { vm, .. } => Some(Key::ActiveTwice(vm.id)),
        Event::GuardLost => Some(Key::Guard),
        Event::VmFrozen { vm } => Some(Key::Frozen(vm.id)),
        Event::HostIsolated => Some(Key::Isolated),
        Event::StormSuspected { .. } => Some(Key::Storm),
        Event::TimingDiffers { host, .. } => Some(Key::Timing(host.clone())),
        Event::ProtectionSuspended { datastore, .. } => Some(Key::Suspended(datastore.clone())),
        Event::AdmissionNotMet { .. } => Some(Key::Admission),
        Event::VmNotVerified { vm, .. } => Some(Key::NotVerified(vm.id)),
        Event::AgentStarted { .. }
        | Event::VmVerified { .. }
        | Event::ElectionStarted { .. }
        | Event::BecamePrimary { .. }
        | Event::FollowsPrimary { .. }
        | Event::SteppedDown { .. }
        | Event::DatastoreBack { .. }
        | Event::RegisterReadable { .. }
        | Event::OwnershipAcquired { .. }
        | Event::OwnershipLost { .. }
        | Event::VmProtected { .. }
        | Event::VmUnprotected { .. }
        | Event::VmStopped { .. }
        | Event::TakeoverIntended { .. }
        | Event::TakeoverCancelled { .. }
        | Event::VmGranted { .. }
        | Event::VmClaimed { .. }
        | Event::VmWaitsForStorage { .. }
        | Event::VmStarted { .. }
        | Event::VmStartFailed { .. }
        | Event::VmRestarted { .. }
        | Event::DefinitionDropped { .. }
        | Event::VmActiveOnce { .. }
        | Event::VmCopyRemoved { .. }
        | Event::GuardFound { .. }
        | Event::MessageUnreadable { .. }
        | Event::VmThawed { .. }
        | Event::VmContinued { .. }
        | Event::HostConfirmedDown { .. }
        | Event::HostNotIsolated
        | Event::ResponsibilityTaken { .. }
        | Event::ResponsibilityDropped { .. }
        | Event::IsolationResponseApplied { .. }
        | Event::IsolationResponseStopped { .. }
        | Event::ShutdownTimedOut { .. }
        | Event::StormOver
        | Event::HeartbeatDatastoresChosen { .. }
        | Event::TimingAgrees { .. }
        | Event::SettingsChanged { .. }
        | Event::VmWaitsForOthers { .. }
        | Event::OrderGivenUp { .. }
        | Event::MaintenanceBegun { .. }
        | Event::MaintenanceReached { .. }
        | Event::MaintenanceLeft { .. }
        | Event::VmOrdered { .. }
        | Event::VmOrderFailed { .. }
        | Event::ProtectionResumed { .. }
        | Event::AdmissionMet
        | Event::HypervisorLost
        | Event::HypervisorBack => None,
    }
}

fn ends(event: &Event, key: &Key) -> bool {
    if matches!(event, Event::AgentStarted { .. }) {
        return true;
    }
    match key {
        Key::Host(host) => match event {
            Event::HostStateChanged { host: changed, .. } => host == changed,
            // Whoever is primary now judges hosts, and raises its own alarms.
            other => matches!(other, Event::SteppedDown { .. }),
        },
        Key::Datastore(name) => matches!(event, Event::DatastoreBack { datastore } if name == datastore),
        Key::Register(name, file) => match event {
            Event::RegisterReadable { datastore, register } => name == datastore && file == register,
            other => matches!(other, Event::DatastoreBack { datastore } if name == datastore),
        },
        Key::NotProtectable(id) => is_about(event, *id) && is_settling(event),
        Key::WaitsForHost(id) => {
            is_about(event, *id)
                && (is_settling(event)
                    || matches!(event, Event::VmGranted { .. } | Event::VmRestarted { .. }))
        }
        Key::Guard => matches!(event, Event::GuardFound { .. }),
        Key::Frozen(id) => {
            is_about(event, *id)
                && matches!(
                    event,
                    Event::VmThawed { .. } | Event::VmCopyRemoved { .. } | Event::VmStopped { .. }
                )
        }
        Key::Isolated => matches!(event, Event::HostNotIsolated),
        Key::Storm => matches!(event, Event::StormOver | Event::SteppedDown { .. }),
        // Whoever owns the datastore now says it again.
        Key::Suspended(name) => match event {
            Event::ProtectionResumed { datastore, .. } | Event::OwnershipLost { datastore, .. } => {
                name == datastore
            }
            other => matches!(other, Event::SteppedDown { .. }),
        },
        Key::Admission => matches!(event, Event::AdmissionMet | Event::SteppedDown { .. }),
        // The VM is left running then, and told to be restarted and protected at once: neither says that its guest answers.
        Key::NotVerified(id) => match event {
            Event::VmStopped { .. }
            | Event::VmUnprotected { .. }
            | Event::VmGranted { .. }
            | Event::VmVerified { .. }
            | Event::VmNotVerified { .. } => is_about(event, *id),
            // From here on this host hears no more of the VM.
            other => matches!(other, Event::SteppedDown { .. }),
        },
        Key::Timing(host) => match event {
            Event::TimingAgrees { host: agreeing } => host == agreeing,
            other => matches!(other, Event::SteppedDown { .. }),
        },
        Key::ActiveTwice(id) => {
            is_about(event, *id) && (is_settling(event) || matches!(event, Event::VmActiveOnce { .. }))
        }
    }
}

fn is_about(event: &Event, id: VmId) -> bool {
    event.vm().is_some_and(|vm| vm.id == id)
}

/// Events after which what was wrong with a VM before no longer holds as it was said.
fn is_settling(event: &Event) -> bool {
    matches!(event, Event::VmProtected { .. } | Event::VmUnprotected { .. } | Event::VmStopped { .. })
}
