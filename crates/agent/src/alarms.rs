//! Which alarms stand: raised by some events (the table of events says which, [`mainstay_core::about::About`]), ended by others.
//! One alarm per kind and object: a repeated one replaces the earlier one. Only this run of the agent counts: a core that starts
//! anew says again what is still wrong.

use mainstay_api::EventRecord;
use mainstay_core::Event;
use mainstay_core::about::Alarm;
use mainstay_core::ids::{DatastoreName, VmId};
use mainstay_core::view::{View, VmState};
use std::collections::BTreeMap;

/// The alarms that stand on this host.
#[derive(Clone, Debug, Default)]
pub struct StandingAlarms {
    standing: BTreeMap<Alarm, EventRecord>,
}

impl StandingAlarms {
    /// Takes note of an event: ends what it ends, then raises what it raises.
    pub fn note(&mut self, record: &EventRecord) {
        let Some(event) = &record.event else { return };
        let is_back = |name: &DatastoreName| {
            matches!(event, Event::DatastoreBack { datastore } if datastore == name)
                && self.standing.contains_key(&Alarm::Datastore(name.clone()))
        };
        // After a loss the core says again what is wrong with registers; at the start it has said it already.
        let over = |alarm: &Alarm| match alarm {
            Alarm::Register(name, _) => is_back(name) || ends(event, alarm),
            alarm => ends(event, alarm),
        };
        let over: Vec<Alarm> = self.standing.keys().filter(|alarm| over(alarm)).cloned().collect();
        self.standing.retain(|alarm, _| !over.contains(alarm));
        if let Some(alarm) = event.about().alarm {
            self.standing.insert(alarm, record.clone());
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
            .filter(|(alarm, _)| match alarm {
                Alarm::WaitsForHost(vm) => !settled(vm),
                Alarm::Suspended(name) => view.suspensions.iter().any(|it| it.datastore == *name),
                // A primary that lost its ownership meanwhile tells no end of it.
                Alarm::Admission => view.objection.is_some(),
                Alarm::Host(_)
                | Alarm::Datastore(_)
                | Alarm::Register(..)
                | Alarm::NotProtectable(_)
                | Alarm::ActiveTwice(_)
                | Alarm::Timing(_)
                | Alarm::Files(_)
                | Alarm::OwnedTwice(_)
                | Alarm::Guard
                | Alarm::Unguarded(_)
                | Alarm::Libvirt
                | Alarm::Frozen(_)
                | Alarm::Isolated
                | Alarm::Storm
                | Alarm::NotVerified(_) => true,
            })
            .map(|(_, record)| record.clone())
            .collect();
        list.sort_by_key(|record| record.sequence);
        list
    }
}

/// Whether that event ends that alarm.
fn ends(event: &Event, alarm: &Alarm) -> bool {
    if matches!(event, Event::AgentStarted { .. }) {
        return true;
    }
    match alarm {
        Alarm::Host(host) => match event {
            Event::HostStateChanged { host: changed, .. } => host == changed,
            // Whoever is primary now judges hosts, and raises its own alarms.
            other => matches!(other, Event::SteppedDown { .. }),
        },
        Alarm::Datastore(name) => matches!(event, Event::DatastoreBack { datastore } if name == datastore),
        Alarm::Register(name, file) => {
            matches!(event, Event::RegisterReadable { datastore, register } if name == datastore && file == register)
        }
        Alarm::NotProtectable(id) => is_about(event, *id) && is_settling(event),
        Alarm::WaitsForHost(id) => {
            is_about(event, *id)
                && (is_settling(event)
                    || matches!(
                        event,
                        Event::VmGranted { .. } | Event::VmRestarted { .. } | Event::VmWaitsForOthers { .. }
                    ))
        }
        Alarm::Guard => matches!(event, Event::GuardFound { .. }),
        Alarm::Unguarded(host) => match event {
            Event::HostGuarded { host: guarded } | Event::HostConfirmedDown { host: guarded } => {
                host == guarded
            }
            // Whoever is primary now hears it from the host itself, or reads it.
            other => matches!(other, Event::SteppedDown { .. }),
        },
        Alarm::Libvirt => matches!(event, Event::HypervisorBack),
        Alarm::Frozen(id) => {
            is_about(event, *id)
                && matches!(
                    event,
                    Event::VmThawed { .. } | Event::VmCopyRemoved { .. } | Event::VmStopped { .. }
                )
        }
        Alarm::Isolated => matches!(event, Event::HostNotIsolated),
        Alarm::Storm => matches!(event, Event::StormOver | Event::SteppedDown { .. }),
        // Whoever owns the datastore now says it again.
        Alarm::Suspended(name) => match event {
            Event::ProtectionResumed { datastore, .. } | Event::OwnershipLost { datastore, .. } => {
                name == datastore
            }
            other => matches!(other, Event::SteppedDown { .. }),
        },
        Alarm::Admission => matches!(event, Event::AdmissionMet | Event::SteppedDown { .. }),
        Alarm::Files(host) => matches!(event, Event::FilesAgree { host: agreeing } if host == agreeing),
        // A later epoch is contended by a host that has seen both.
        Alarm::OwnedTwice(name) => {
            matches!(event, Event::OwnershipAcquired { datastore, .. } if name == datastore)
        }
        Alarm::Timing(host) => match event {
            Event::TimingAgrees { host: agreeing } => host == agreeing,
            other => matches!(other, Event::SteppedDown { .. }),
        },
        Alarm::NotVerified(id) => ends_not_verified(event, *id),
        Alarm::ActiveTwice(id) => match event {
            // Whoever owns its datastore now says it again.
            Event::SteppedDown { .. } => true,
            event => {
                is_about(event, *id) && (is_settling(event) || matches!(event, Event::VmActiveOnce { .. }))
            }
        },
    }
}

/// The VM is left running then, and told to be restarted and protected at once: neither says that its guest answers.
fn ends_not_verified(event: &Event, id: VmId) -> bool {
    match event {
        Event::VmStopped { .. }
        | Event::VmUnprotected { .. }
        | Event::VmGranted { .. }
        | Event::VmVerified { .. }
        | Event::VmNotVerified { .. } => is_about(event, id),
        // From here on this host hears no more of the VM.
        other => matches!(other, Event::SteppedDown { .. }),
    }
}

fn is_about(event: &Event, id: VmId) -> bool {
    event.vm().is_some_and(|vm| vm.id == id)
}

/// Events after which what was wrong with a VM before no longer holds as it was said.
fn is_settling(event: &Event) -> bool {
    matches!(event, Event::VmProtected { .. } | Event::VmUnprotected { .. } | Event::VmStopped { .. })
}
