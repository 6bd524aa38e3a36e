//! What must hold, and what must be seen to happen. Looks at the world (who executes, what is on disk, what is written and
//! sent), never at what a core believes; shares no code with the core.
//!
//! - I1: two hosts never execute the VM at the same time. A frozen VM does not execute.
//! - I3: an epoch has one owner; who has once been owner acts (writes a list, grants a lease by network) in no epoch earlier
//!   than the last one in which anybody has acted; a grant names one host; a VM begins to execute only under the grant
//!   that stands in the list of the highest epoch on disk.
//! - I4: once it is on disk that the VM's user has shut it down, no core starts it.

use mainstay_core::message::Body;
use mainstay_core::register::{ClaimState, Desired, Entry};
use mainstay_core::{Epoch, Event, HostId, Message, RegisterValue, Token};
use std::collections::BTreeMap;

/// What must be reachable. A check that never gets there shows nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Happened {
    /// The VM runs on another host than before, and the owner has seen it.
    pub restarted: bool,
    /// A VM was thawed.
    pub thawed: bool,
    /// The intent to take the VM from a silent host was written.
    pub intended: bool,
    /// The silent host showed itself, and kept it.
    pub cancelled: bool,
    /// A host removed its copy of a VM that another one holds now.
    pub copy_removed: bool,
    /// Another host became owner.
    pub owner_changed: bool,
    /// The owner has noted that the VM's user shut it down.
    pub stopped: bool,
}

/// What the checks know of a run so far, and the first promise that it broke.
#[derive(Clone, Debug, Default, Hash)]
pub struct Checks {
    /// A broken promise, in words.
    pub violation: Option<String>,
    /// Since the last choice.
    pub happened: Happened,
    owners: BTreeMap<Epoch, usize>,
    acted: Epoch,
    grants: BTreeMap<Token, HostId>,
    stop: Option<Stop>,
}

/// The VM's user has shut it down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Stop {
    host: usize,
    /// That is on disk.
    noted: bool,
}

impl Checks {
    pub(crate) fn fail(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    /// I1, after each step.
    pub(crate) fn on_instant(&mut self, executing: usize) {
        if executing > 1 {
            self.fail(format!("I1: {executing} hosts execute the VM"));
        }
    }

    pub(crate) fn on_user_shutdown(&mut self, host: usize) {
        self.stop = Some(Stop { host, noted: false });
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.is_some()
    }

    /// A host acts as owner of that epoch.
    fn acts(&mut self, host: usize, epoch: Epoch, how: &str) {
        self.owns(host, epoch);
        if epoch < self.acted {
            let later = self.acted;
            self.fail(format!("I3: host {} {how} in epoch {epoch}, after epoch {later}", host + 1));
        }
        self.acted = self.acted.max(epoch);
    }

    fn owns(&mut self, host: usize, epoch: Epoch) {
        let first = *self.owners.entry(epoch).or_insert(host);
        if first != host {
            self.fail(format!("I3: epoch {epoch} is owned by hosts {} and {}", first + 1, host + 1));
        }
    }

    /// A write is started.
    pub(crate) fn on_write(&mut self, host: usize, value: &RegisterValue) {
        if let RegisterValue::ProtectedList(list) = value {
            self.acts(host, list.epoch, "writes a protected list");
        }
    }

    /// A message is sent.
    pub(crate) fn on_send(&mut self, host: usize, message: &Message) {
        if let Body::HeartbeatAck(ack) = &message.body {
            for owned in &ack.owned {
                self.acts(host, owned.epoch, "grants a lease by network");
            }
        }
    }

    /// A write lands; `highest` is the highest epoch of which a list is on disk then.
    pub(crate) fn on_land(
        &mut self,
        host: usize,
        value: &RegisterValue,
        after_stop: bool,
        highest: Option<Epoch>,
    ) {
        match value {
            RegisterValue::Heartbeat(_) => {}
            RegisterValue::Ownership(block) => {
                if let Some(beat) = &block.beat {
                    self.owns(host, beat.epoch);
                }
            }
            RegisterValue::PowerOn(list) => {
                let noted = list
                    .claims
                    .iter()
                    .any(|claim| matches!(claim.state, ClaimState::Stopped { cause } if cause.is_intended()));
                if let Some(stop) = &mut self.stop
                    && stop.host == host
                {
                    stop.noted |= noted && after_stop;
                }
            }
            RegisterValue::ProtectedList(list) => {
                self.owns(host, list.epoch);
                for entry in &list.entries {
                    let Some(holder) = &entry.holder else { continue };
                    let first = self.grants.entry(entry.token).or_insert_with(|| holder.clone()).clone();
                    if first != *holder {
                        self.fail(format!("I3: grant {} names {first} and {holder}", entry.token));
                    }
                }
                let off = list.entries.iter().any(|entry| entry.desired == Desired::Off);
                if let Some(stop) = &mut self.stop {
                    stop.noted |= off && after_stop && highest == Some(list.epoch);
                }
            }
        }
    }

    /// The VM begins to execute on a host, or goes on there.
    pub(crate) fn on_execute(&mut self, who: &HostId, token: Option<Token>, entry: Option<&Entry>) {
        // What its user started and nobody has granted yet is his.
        let Some(token) = token else { return };
        if self.stop.take().is_some_and(|stop| stop.noted) {
            self.fail(format!("I4: {who} starts the VM, which its user has shut down, and that is on disk"));
        }
        let holds = entry.is_some_and(|entry| entry.token == token && entry.holder.as_ref() == Some(who));
        if !holds {
            let says = entry.map(|entry| (entry.holder.clone(), entry.token));
            self.fail(format!(
                "I3: the VM executes on {who} under grant {token}; the list on disk says {says:?}"
            ));
        }
    }

    pub(crate) fn on_event(&mut self, host: &HostId, event: &Event) {
        let seen = &mut self.happened;
        // Only a few of many events are waited for.
        seen.restarted |= matches!(event, Event::VmRestarted { from: Some(_), .. });
        seen.thawed |= matches!(event, Event::VmThawed { .. });
        seen.intended |= matches!(event, Event::TakeoverIntended { .. });
        seen.cancelled |= matches!(event, Event::TakeoverCancelled { .. });
        seen.copy_removed |= matches!(event, Event::VmCopyRemoved { .. });
        seen.owner_changed |=
            matches!(event, Event::OwnershipAcquired { former: Some(former), .. } if former != host);
        seen.stopped |= matches!(event, Event::VmStopped { restart: false, .. });
    }
}
