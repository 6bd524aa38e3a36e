//! What an agent remembers of the VMs that libvirt has shown it, as the real agent's `vms` does: of two answers the one that was asked
//! for later counts, a cause that was told stays told, and a destroy of the agent's own is not the user's word.

use mainstay_core::register::StopCause;
use mainstay_core::{Domain, DomainState, Input, Time, VmId};
use std::collections::{BTreeMap, BTreeSet};

/// A domain as it was last told to the core.
#[derive(Clone, Debug)]
struct Known {
    domain: Domain,
    as_of: Time,
}

/// A stop that libvirt has told by an event.
#[derive(Clone, Copy, Debug)]
struct Event {
    cause: StopCause,
    at: Time,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    known: BTreeMap<VmId, Known>,
    events: BTreeMap<VmId, Event>,
    /// Those that this agent has ordered to be destroyed.
    destroyed: BTreeSet<VmId>,
}

impl Shown {
    /// The agent orders it to be destroyed.
    pub(super) fn destroys(&mut self, vm: VmId) {
        self.destroyed.insert(vm);
    }

    /// The agent has it started, or its destroy has certainly not happened.
    pub(super) fn destroys_no_more(&mut self, vm: VmId) {
        self.destroyed.remove(&vm);
    }

    /// Libvirt tells that it has stopped.
    pub(super) fn on_stop(&mut self, at: Time, vm: VmId, cause: StopCause) {
        self.events.insert(vm, Event { cause, at });
    }

    /// What the core is told when libvirt has shown that.
    pub(super) fn tell(&mut self, input: Input) -> Input {
        match input {
            Input::Domain { as_of, domain } => {
                let vm = domain.vm;
                self.learn(as_of, domain.clone());
                match self.known.get(&vm) {
                    Some(known) => Input::Domain { as_of: known.as_of, domain: known.domain.clone() },
                    None => Input::Domain { as_of, domain },
                }
            }
            Input::Domains { as_of, domains } => {
                let listed: BTreeSet<VmId> = domains.iter().map(|domain| domain.vm).collect();
                domains.into_iter().for_each(|domain| self.learn(as_of, domain));
                self.known.retain(|vm, known| listed.contains(vm) || known.as_of > as_of);
                let domains = self.known.values().map(|known| known.domain.clone()).collect();
                Input::Domains { as_of, domains }
            }
            other => other,
        }
    }

    fn learn(&mut self, as_of: Time, mut domain: Domain) {
        let vm = domain.vm;
        if self.known.get(&vm).is_some_and(|known| known.as_of > as_of) {
            return;
        }
        let was = self.known.get(&vm).map(|known| known.domain.state);
        match domain.state {
            DomainState::Stopped(cause) => domain.state = DomainState::Stopped(self.cause(vm, was, cause)),
            DomainState::Running | DomainState::Prepared | DomainState::Incoming => {
                // Told before it was seen active: it is about an earlier run.
                if self.events.get(&vm).is_some_and(|event| event.at < as_of) {
                    self.events.remove(&vm);
                }
            }
        }
        self.known.insert(vm, Known { domain, as_of });
    }

    fn cause(&mut self, vm: VmId, was: Option<DomainState>, shown: StopCause) -> StopCause {
        let told = self.events.remove(&vm).map(|event| event.cause);
        let own = self.destroyed.remove(&vm);
        match (was, told) {
            (Some(DomainState::Stopped(cause)), None) => cause,
            (Some(DomainState::Stopped(StopCause::Withdrawn)), Some(StopCause::UserDestroyed)) => {
                StopCause::Withdrawn
            }
            (_, told) => match told.unwrap_or(shown) {
                StopCause::UserDestroyed if own => StopCause::Withdrawn,
                // Libvirt does not tell a guest that was asked from one that powers itself off.
                StopCause::UserShutdown => StopCause::GuestShutdown,
                cause => cause,
            },
        }
    }
}
