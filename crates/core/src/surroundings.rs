//! This host, as its datastores need to see it in one step: put together from the other rooms.
//!
//! It does not: change any of them, or keep anything between two steps.

use crate::agreement::Agreement;
use crate::claims::{HostSide, IsolationNow};
use crate::config::Config;
use crate::datastore::{Around, Datastore};
use crate::datastores::Datastores;
use crate::election::Election;
use crate::guard_side::GuardSide;
use crate::host_liveness::HostState;
use crate::hosts::Hosts;
use crate::ids::{DatastoreName, HostId};
use crate::isolation::Isolation;
use crate::local_vms::LocalVms;
use crate::time::Time;
use alloc::vec::Vec;

/// The rooms that datastores look at.
pub(crate) struct Surroundings<'a> {
    pub(crate) config: &'a Config,
    pub(crate) election: &'a Election,
    pub(crate) hosts: &'a Hosts,
    pub(crate) agreement: &'a Agreement,
    pub(crate) vms: &'a LocalVms,
    pub(crate) guard: &'a GuardSide,
    pub(crate) isolation: &'a Isolation,
    pub(crate) stopping: bool,
}

/// What is the same for all datastores in one step.
pub(crate) struct InStep {
    /// Somebody is silent who was not judged for it yet.
    suspicious: bool,
    cut_off: Vec<HostId>,
    failed: Vec<HostId>,
    now: Time,
}

impl Surroundings<'_> {
    /// What is the same for all datastores: worked out once in a step.
    pub(crate) fn in_step(&self, now: Time) -> InStep {
        let cut_off = |state| matches!(state, HostState::Partitioned | HostState::Isolated);
        InStep {
            suspicious: self.hosts.are_suspicious(self.election, &self.config.timing, now),
            cut_off: self.hosts.in_state(cut_off),
            failed: self.hosts.in_state(|state| state == HostState::Failed),
            now,
        }
    }

    /// Runs `act` on a datastore with all that it needs to see of the host.
    pub(crate) fn act<R>(
        &self,
        datastores: &mut Datastores,
        name: &DatastoreName,
        in_step: &InStep,
        act: impl FnOnce(&mut Datastore, &Around<'_>) -> R,
    ) -> Option<R> {
        // What the others have done in this step counts: one of them may have been lost, or taken over.
        let unowned = || datastores.connected().any(|datastore| datastore.list().is_none());
        let suspicious = in_step.suspicious || (self.election.is_primary() && unowned());
        let primary = self.election.is_primary() && !self.stopping;
        let datastore = datastores.get_mut(name)?;
        // A VM of a host that holds may run on, and nobody knows what one does whose file differs.
        let held = |host: &HostId| datastore.may_hold(host, in_step.now) || self.agreement.is_apart(host);
        let failed: Vec<HostId> = in_step.failed.iter().filter(|host| !held(host)).cloned().collect();
        let around = Around {
            primary,
            secondary: !primary && self.election.primary().is_some(),
            suspicious,
            cut_off: &in_step.cut_off,
            failed: &failed,
            agreed: self.agreement.holds(),
            disturbed: self.agreement.is_disturbed(),
            host: self.host_side(datastore, in_step.now),
        };
        Some(act(datastore, &around))
    }

    fn host_side(&self, datastore: &Datastore, now: Time) -> HostSide<'_> {
        let (isolated, agreed) = (self.isolation.is_isolated(), self.agreement.holds());
        HostSide {
            domains: self.vms.domains(),
            agreed,
            concurrent_starts: if self.stopping || !agreed { 0 } else { self.config.concurrent_starts },
            stored: self.vms.stored(datastore.name()),
            offers: self.vms.offers(),
            lease: self.guard.lease(datastore.name(), now),
            beaten: datastore.reach().beaten(),
            guarded: self.guard.is_connected(),
            guard_word: self.guard.word(),
            processes: self.guard.vms(),
            ended: self.guard.ended(),
            silent: self.vms.silent_since(),
            isolation: IsolationNow {
                cut_off: self.isolation.is_cut_off(),
                isolated,
                flagged: datastore.own().flagged().filter(|_| isolated),
                response: self.config.isolation_response,
                shutdown_timeout: self.config.shutdown_timeout,
            },
        }
    }
}
