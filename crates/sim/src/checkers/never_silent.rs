//! I8: a VM that is to run and does not, for longer than a bound, is named by an alarm that stands.
//!
//! What names it: an alarm about the VM itself or its datastore, by any agent that lives, from its event on until that agent tells
//! something better of the same object. An alarm about its last host names it for a longer time only: such an alarm says why the VM stopped,
//! and not that nobody starts it again.
//!
//! The same for a VM that a core has started and whose guest agent, which answered before, has not been heard since.

use super::Violation;
use crate::setup::Setup;
use mainstay_core::{DatastoreName, Event, HostId, VmId};

/// A VM is down and nothing names it, for so many virtual seconds at most.
const SILENT_MAX: u64 = 180;
/// The same when only an alarm about its last host stands.
const HOST_ALARM_MAX: u64 = 900;
/// A guest that does not answer is given so long to boot, twice.
const MUTE_MAX: u64 = 2 * 600 + 300;

/// How a VM is, as the world knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// It is as it should be, or something else explains it.
    None,
    /// It is to run and protected, and executes nowhere; it ran there last.
    Down {
        /// The host, by its place in the set-up.
        last: usize,
    },
    /// It runs, and its guest agent does not answer any more.
    Mute,
}

#[derive(Clone, Debug)]
struct Standing {
    teller: usize,
    vm: Option<VmId>,
    datastore: Option<DatastoreName>,
    hosts: Vec<HostId>,
    /// Told by a host of a VM of its own: it holds whoever is primary.
    own: bool,
    /// That its guest agent is silent: no word about its protection ends that.
    mute: bool,
}

/// Knows which alarms stand, and counts the seconds of silence.
#[derive(Clone, Debug)]
pub struct NeverSilent {
    standing: Vec<Standing>,
    unnamed: Vec<u64>,
    named_by_host: Vec<u64>,
    mute: Vec<u64>,
    /// How each VM was a second ago.
    lacks: Vec<Lack>,
}

impl NeverSilent {
    /// Nothing is down.
    pub fn new(vms: usize) -> NeverSilent {
        NeverSilent {
            standing: Vec::new(),
            unnamed: vec![0; vms],
            named_by_host: vec![0; vms],
            mute: vec![0; vms],
            lacks: vec![Lack::None; vms],
        }
    }

    /// An agent tells something.
    pub fn on_event(&mut self, teller: usize, event: &Event) {
        let about = event.about();
        if matches!(event, Event::AgentStarted { .. }) {
            return self.on_agent_gone(teller);
        }
        if matches!(event, Event::SteppedDown { .. }) {
            self.standing.retain(|alarm| alarm.teller != teller || alarm.own);
        }
        let vm = about.vm.map(|vm| vm.id);
        let (datastore, hosts) = (about.datastore.cloned(), about.hosts.iter().map(|host| (*host).clone()));
        let hosts: Vec<HostId> = hosts.collect();
        if about.alarm.is_some() {
            let own = matches!(event, Event::VmFrozen { .. } | Event::DatastoreLost { .. });
            let mute = matches!(event, Event::VmNotVerified { .. });
            self.standing.push(Standing { teller, vm, datastore, hosts, own, mute });
        } else if about.severity == mainstay_core::Severity::Info {
            self.standing.retain(|alarm| {
                let same = match (alarm.vm, &alarm.datastore) {
                    (Some(id), _) => vm == Some(id),
                    (None, Some(name)) => vm.is_none() && datastore.as_ref() == Some(name),
                    (None, None) => vm.is_none() && !hosts.is_empty() && alarm.hosts == hosts,
                };
                let apart = alarm.mute && matches!(event, Event::VmProtected { .. });
                alarm.teller != teller || !same || apart
            });
        }
    }

    /// An agent has ended: nobody hears its alarms any more.
    pub fn on_agent_gone(&mut self, teller: usize) {
        self.standing.retain(|alarm| alarm.teller != teller);
    }

    /// A second has passed, at the end of which a VM is like that.
    pub fn on_second(&mut self, vm: usize, lack: Lack, setup: &Setup) -> Option<Violation> {
        let id = setup.vm_id(vm);
        let home = &setup.datastores[setup.vms[vm].datastore].name;
        let named = self.standing.iter().any(|alarm| match alarm.vm {
            Some(named) => named == id,
            None => alarm.datastore.as_ref() == Some(home),
        });
        // What is amiss now is another thing than before: it has its own time.
        let before = std::mem::replace(&mut self.lacks[vm], lack);
        if std::mem::discriminant(&before) != std::mem::discriminant(&lack) {
            (self.unnamed[vm], self.named_by_host[vm], self.mute[vm]) = (0, 0, 0);
        }
        let [unnamed, by_host, mute] =
            [&mut self.unnamed[vm], &mut self.named_by_host[vm], &mut self.mute[vm]];
        let (what, seconds) = match lack {
            Lack::Down { last } if !named => {
                let last = &setup.hosts[last].id;
                let host = |alarm: &&Standing| alarm.vm.is_none() && alarm.hosts.contains(last);
                let host = self.standing.iter().any(|alarm| host(&alarm));
                *by_host += 1;
                *unnamed = if host { 0 } else { *unnamed + 1 };
                let over = *unnamed > SILENT_MAX || *by_host > HOST_ALARM_MAX;
                (over.then_some("is to run and executes nowhere"), *by_host)
            }
            Lack::Mute => {
                // Whoever becomes primary hours later has no two boots to wait for.
                *mute += 1;
                *unnamed = if named { 0 } else { *unnamed + 1 };
                let over = *mute > MUTE_MAX && *unnamed > SILENT_MAX;
                (over.then_some("runs and its guest agent is silent"), *unnamed)
            }
            Lack::None | Lack::Down { .. } => {
                (*unnamed, *by_host, *mute) = (0, 0, 0);
                (None, 0)
            }
        };
        what.map(|what| Violation {
            checker: "never_silent",
            what: format!("{} {what}, for {seconds} s, and no alarm names it", setup.vms[vm].name),
        })
    }
}
