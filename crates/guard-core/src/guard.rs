//! The guard of a host: renews run leases by writing datastore heartbeats, and freezes VMs when a lease ends. It is a
//! machine of its own, driven by a process of its own, so that an agent that crashed, hangs or is being upgraded
//! neither stops renewals nor delays a freeze.
//!
//! Rules (docs/internals/protocol.md):
//! - R50: a lease on a datastore lasts L from the *start* of a heartbeat write that landed, or as long as the agent passes
//!   on from an owner's acknowledgement. At its end every VM watched there is frozen.
//! - R51: a lease that ended and came back is another *term*. A VM is thawed only in the term in which the agent has looked
//!   at the protected list.
//! - R72: during a suspension of protection the agent has the guard *hold*: nothing is frozen at the end of a lease. A hold
//!   counts from when two heartbeats in a row that say so are on disk: an owner that finds none there may rely on leases.
//!
//! It does not: know libvirt, owners or claims; decide that a VM may run. It holds VMs back until the agent has looked.

#[cfg(test)]
mod tests;

use crate::messages::{GuardConfig, GuardEffect, GuardInput};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use mainstay_words::files::FilesDigest;
use mainstay_words::guard::{GuardOrder, GuardReport, ProcessState};
use mainstay_words::ids::{DatastoreName, Incarnation, OpId, VmId};
use mainstay_words::register::HeartbeatRegister;
use mainstay_words::time::{Span, Time};
use serde::{Deserialize, Serialize};

/// How soon a freeze that did not work is tried again.
const FREEZE_RETRY: Span = Span::from_millis(20);

/// One datastore, to the guard.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Guarded {
    counter: u64,
    in_flight: Option<Writing>,
    due: Time,
    /// No freezing until then, as the agent wants it.
    hold_wanted: Option<Time>,
    /// The hold that the last heartbeat on disk tells of.
    hold_told: Option<Time>,
    /// And as both slots of the register tell it: this is what counts.
    hold: Time,
    /// Nothing depends on this datastore: it is written to now and then.
    slow: bool,
    /// The lease ends then; in the past: it is over.
    until: Time,
    /// Counts leases that began after another had ended.
    term: u64,
    /// The end has been acted on.
    lapsed: bool,
    vms: BTreeMap<VmId, ProcessState>,
}

/// A heartbeat on its way to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Writing {
    op: OpId,
    started: Time,
    /// The hold that it tells of.
    hold: Option<Time>,
}

/// The agent that is connected, and when it last said that it is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct AgentSeen {
    incarnation: Incarnation,
    at: Time,
}

/// The guard of one host.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Guard {
    config: GuardConfig,
    datastores: BTreeMap<DatastoreName, Guarded>,
    agent: Option<AgentSeen>,
    /// What the last agent's file said of the cluster.
    files: Option<FilesDigest>,
    operations: u64,
    /// Freezes that did not work: to be tried again at that time.
    retry: BTreeMap<VmId, Time>,
    /// R50 is broken on purpose: a lease counts from the answer of a heartbeat write, not from its start.
    #[cfg(feature = "broken-rules")]
    lease_from_answer: bool,
}

impl Guard {
    /// A guard that has taken no step. R54: leases that the guard before it left behind go on.
    pub fn new(config: GuardConfig, now: Time) -> Guard {
        let guarded = |name: &DatastoreName| {
            // Never longer than by the times of now: others wait no longer than by those.
            let until =
                config.leases.get(name).map_or(Time(0), |until| (*until).min(now + config.timing.lease));
            let hold = config.holds.get(name).copied().unwrap_or(Time(0));
            let lapsed = until <= now && hold <= now;
            Guarded {
                counter: 0,
                in_flight: None,
                due: now,
                hold_wanted: Some(hold).filter(|until| *until > now),
                hold_told: None,
                hold,
                slow: false,
                until,
                term: u64::from(!lapsed),
                lapsed,
                vms: BTreeMap::new(),
            }
        };
        let datastores = config.datastores.iter().map(|name| (name.clone(), guarded(name))).collect();
        Guard {
            config,
            datastores,
            agent: None,
            files: None,
            operations: 0,
            retry: BTreeMap::new(),
            #[cfg(feature = "broken-rules")]
            lease_from_answer: false,
        }
    }

    /// Breaks R50, for a check that must find it: a lease counts from the answer of a heartbeat write, not from its start.
    #[cfg(feature = "broken-rules")]
    #[must_use]
    pub fn with_lease_from_answer(mut self) -> Guard {
        self.lease_from_answer = true;
        self
    }

    /// Takes one input and appends what is to be done to `effects`. `now` never goes back.
    pub fn step(&mut self, now: Time, input: GuardInput, effects: &mut Vec<GuardEffect>) {
        // First of all: nothing that the input may bring counts for a lease that is over by now.
        self.end_leases(now, effects);
        match input {
            GuardInput::Tick => {}
            GuardInput::Written { op, error } => self.on_written(op, error, now, effects),
            GuardInput::Process { vm, state } => self.on_process(vm, state, now, effects),
            GuardInput::AgentBack => self.on_agent_back(effects),
            GuardInput::AgentGone => self.agent = None,
            GuardInput::Order(order) => self.on_order(order, now, effects),
        }
        self.retry_freezes(now, effects);
        self.beat(now, effects);
    }

    /// When [`GuardInput::Tick`] is wanted next.
    pub fn next_deadline(&self) -> Time {
        let of = |guarded: &Guarded| {
            let end = if guarded.lapsed { Time(u64::MAX) } else { guarded.until.max(guarded.hold) };
            let beat = if guarded.in_flight.is_some() { Time(u64::MAX) } else { guarded.due };
            end.min(beat).min(guarded.hold_wanted.unwrap_or(Time(u64::MAX)))
        };
        let retry = self.retry.values().copied();
        self.datastores.values().map(of).chain(retry).min().unwrap_or(Time(u64::MAX))
    }

    /// Until when VMs homed on that datastore may execute here.
    pub fn lease(&self, datastore: &DatastoreName) -> Option<Time> {
        self.datastores.get(datastore).map(|guarded| guarded.until)
    }

    /// Whether the agent has shown itself within the network time-out.
    pub fn agent_well(&self, now: Time) -> bool {
        self.agent.is_some_and(|agent| now.since(agent.at) < self.config.timing.network_timeout())
    }

    fn end_leases(&mut self, now: Time, effects: &mut Vec<GuardEffect>) {
        for (name, guarded) in &mut self.datastores {
            if guarded.hold_wanted.is_some_and(|until| until <= now) {
                guarded.end_hold(name, now, effects);
            }
            if guarded.lapsed || now < guarded.until || now < guarded.hold {
                continue;
            }
            guarded.lapsed = true;
            // Freezing first: everything else can wait.
            for vm in guarded.vms.keys() {
                effects.push(GuardEffect::Freeze { vm: *vm });
            }
            effects.push(GuardEffect::Report(guarded.report(name)));
        }
    }

    fn renew(&mut self, datastore: &DatastoreName, until: Time, now: Time, effects: &mut Vec<GuardEffect>) {
        let Some(guarded) = self.datastores.get_mut(datastore) else { return };
        if until <= now || until <= guarded.until {
            return;
        }
        if core::mem::replace(&mut guarded.lapsed, false) {
            guarded.term += 1;
        }
        guarded.until = until;
        effects.push(GuardEffect::Keep { datastore: datastore.clone(), until });
        effects.push(GuardEffect::Report(guarded.report(datastore)));
    }

    fn beat(&mut self, now: Time, effects: &mut Vec<GuardEffect>) {
        let agent_well = self.agent_well(now);
        for (name, guarded) in &mut self.datastores {
            if guarded.in_flight.is_some() || now < guarded.due {
                continue;
            }
            guarded.counter += 1;
            let timing = &self.config.timing;
            guarded.due = now + if guarded.slow { timing.resync() } else { timing.heartbeat };
            self.operations += 1;
            let op = OpId(self.operations);
            guarded.in_flight = Some(Writing { op, started: now, hold: guarded.hold_wanted });
            let register = HeartbeatRegister {
                boot: self.config.boot,
                incarnation: self.config.incarnation,
                counter: guarded.counter,
                agent: self.agent.map(|agent| agent.incarnation),
                agent_well,
                failure_timeout: Some(timing.failure_timeout),
                slow: guarded.slow,
                hold: guarded.hold_wanted.map(|until| until.since(now)),
                files: self.files,
            };
            effects.push(GuardEffect::Write { op, datastore: name.clone(), register });
        }
    }

    fn on_written(&mut self, op: OpId, error: Option<Arc<str>>, now: Time, effects: &mut Vec<GuardEffect>) {
        let written = self.datastores.iter_mut().find_map(|(name, guarded)| {
            let writing = guarded.in_flight.take_if(|writing| writing.op == op)?;
            // One that failed may have landed all the same, and tell of none.
            let told = if error.is_none() { writing.hold } else { None };
            guarded.take_hold(name, told, effects);
            Some((name.clone(), writing.started))
        });
        let Some((datastore, started)) = written else { return };
        #[cfg(feature = "broken-rules")]
        let started = if self.lease_from_answer { now } else { started };
        if error.is_none() {
            self.renew(&datastore, started + self.config.timing.lease, now, effects);
        }
        effects.push(GuardEffect::Report(GuardReport::Beat { datastore, started, error }));
    }

    fn on_process(&mut self, vm: VmId, state: ProcessState, now: Time, effects: &mut Vec<GuardEffect>) {
        let mut bound: Vec<&mut Guarded> =
            self.datastores.values_mut().filter(|guarded| guarded.vms.contains_key(&vm)).collect();
        if bound.is_empty() {
            return;
        }
        for guarded in &mut bound {
            guarded.vms.insert(vm, state);
        }
        if bound.iter().any(|guarded| guarded.lapsed) && state == ProcessState::Runs {
            self.retry.insert(vm, now + FREEZE_RETRY);
        } else {
            self.retry.remove(&vm);
        }
        effects.push(GuardEffect::Report(GuardReport::Vm { vm, state }));
    }

    fn retry_freezes(&mut self, now: Time, effects: &mut Vec<GuardEffect>) {
        let due: Vec<VmId> = self.retry.iter().filter(|(_, at)| **at <= now).map(|(vm, _)| *vm).collect();
        for vm in due {
            self.retry.remove(&vm);
            let held = |guarded: &Guarded| guarded.lapsed && guarded.vms.contains_key(&vm);
            if self.datastores.values().any(held) {
                effects.push(GuardEffect::Freeze { vm });
            }
        }
    }

    /// An agent has connected: it is told everything that it may have missed.
    fn on_agent_back(&mut self, effects: &mut Vec<GuardEffect>) {
        let incarnation = self.config.incarnation;
        effects.push(GuardEffect::Report(GuardReport::Hello { incarnation }));
        for (name, guarded) in &self.datastores {
            effects.push(GuardEffect::Report(guarded.report(name)));
            if guarded.hold > Time(0) {
                effects.push(GuardEffect::Report(guarded.report_hold(name)));
            }
            for (vm, state) in &guarded.vms {
                effects.push(GuardEffect::Report(GuardReport::Vm { vm: *vm, state: *state }));
            }
        }
    }

    fn on_order(&mut self, order: GuardOrder, now: Time, effects: &mut Vec<GuardEffect>) {
        match order {
            GuardOrder::Alive { incarnation, files } => {
                self.files = files.or(self.files);
                self.agent = Some(AgentSeen { incarnation, at: now });
                effects.push(GuardEffect::Report(GuardReport::Alive));
            }
            GuardOrder::Lease { datastore, until } => self.renew(&datastore, until, now, effects),
            GuardOrder::Watch { datastore, vms } => {
                self.forget_others(&datastore, &vms, effects);
                self.watch(&datastore, &vms, effects);
            }
            GuardOrder::WatchAlso { datastore, vms } => self.watch(&datastore, &vms, effects),
            GuardOrder::Pace { datastore, slow } => {
                if let Some(guarded) = self.datastores.get_mut(&datastore)
                    && core::mem::replace(&mut guarded.slow, slow) != slow
                {
                    // At once: whoever watches must know what to expect.
                    guarded.due = now;
                }
            }
            GuardOrder::Hold { datastore, until } => {
                if let Some(guarded) = self.datastores.get_mut(&datastore)
                    && until > now
                    && guarded.hold_wanted != Some(until)
                {
                    // At once: a longer one counts when it is on disk. A shorter one counts now: what is on disk says more.
                    if guarded.hold_wanted.is_none_or(|wanted| until < wanted) {
                        guarded.due = now;
                    }
                    guarded.hold_wanted = Some(until);
                    if until < guarded.hold {
                        guarded.set_hold(&datastore, until, effects);
                    }
                }
                self.end_leases(now, effects);
            }
            GuardOrder::EndHold { datastore } => {
                if let Some(guarded) = self.datastores.get_mut(&datastore) {
                    guarded.end_hold(&datastore, now, effects);
                }
                self.end_leases(now, effects);
            }
            GuardOrder::Adopt { vm } => effects.push(GuardEffect::Inspect { vm }),
            GuardOrder::Thaw { vm, term } => {
                let bound = || self.datastores.iter().filter(|(_, guarded)| guarded.vms.contains_key(&vm));
                // R51. Otherwise the agent learns which term it is. (While a disk moves, a VM may be bound to two datastores.)
                let held = bound().any(|(_, guarded)| guarded.lapsed);
                if !held && bound().any(|(_, guarded)| guarded.term == term) {
                    effects.push(GuardEffect::Thaw { vm });
                } else {
                    effects.extend(bound().map(|(name, guarded)| GuardEffect::Report(guarded.report(name))));
                }
            }
            GuardOrder::Kill { vm } => effects.push(GuardEffect::Kill { vm }),
        }
    }

    fn forget_others(&mut self, datastore: &DatastoreName, vms: &[VmId], effects: &mut Vec<GuardEffect>) {
        let Some(guarded) = self.datastores.get_mut(datastore) else { return };
        let gone: Vec<VmId> = guarded.vms.keys().filter(|vm| !vms.contains(vm)).copied().collect();
        for vm in &gone {
            guarded.vms.remove(vm);
        }
        for vm in gone {
            if !self.datastores.values().any(|guarded| guarded.vms.contains_key(&vm)) {
                self.retry.remove(&vm);
                effects.push(GuardEffect::Forget { vm });
            }
        }
    }

    fn watch(&mut self, datastore: &DatastoreName, vms: &[VmId], effects: &mut Vec<GuardEffect>) {
        let Some(guarded) = self.datastores.get_mut(datastore) else { return };
        for vm in vms {
            if let Some(state) = guarded.vms.get(vm) {
                // The agent may be another one, or may have missed it.
                effects.push(GuardEffect::Report(GuardReport::Vm { vm: *vm, state: *state }));
                continue;
            }
            guarded.vms.insert(*vm, ProcessState::Absent);
            let first = if guarded.lapsed {
                GuardEffect::Freeze { vm: *vm }
            } else {
                GuardEffect::Inspect { vm: *vm }
            };
            effects.push(first);
        }
    }
}

impl Guarded {
    /// R72: a heartbeat that tells of it, or of none, is on disk. It counts when the one before tells of it too: then either slot
    /// of the register may be damaged.
    fn take_hold(&mut self, name: &DatastoreName, told: Option<Time>, effects: &mut Vec<GuardEffect>) {
        let before = core::mem::replace(&mut self.hold_told, told);
        let (Some(told), Some(before), Some(wanted)) = (told, before, self.hold_wanted) else {
            if told.is_some() && before.is_none() {
                // The second one at once.
                self.due = Time(0);
            }
            return;
        };
        let until = told.min(before).min(wanted);
        if until > self.hold {
            self.set_hold(name, until, effects);
        }
    }

    /// Kept for the next run of the guard, which must not hold for longer either; and the agent is told what counts.
    fn set_hold(&mut self, name: &DatastoreName, until: Time, effects: &mut Vec<GuardEffect>) {
        self.hold = until;
        effects.push(GuardEffect::KeepHold { datastore: name.clone(), until });
        effects.push(GuardEffect::Report(self.report_hold(name)));
    }

    /// Leases count again, from this moment on; and the next heartbeat says so.
    fn end_hold(&mut self, name: &DatastoreName, now: Time, effects: &mut Vec<GuardEffect>) {
        if self.hold_wanted.take().is_some() {
            self.due = now;
            self.set_hold(name, Time(0), effects);
        }
    }

    fn report(&self, name: &DatastoreName) -> GuardReport {
        GuardReport::Lease { datastore: name.clone(), term: self.term, until: self.until }
    }

    fn report_hold(&self, name: &DatastoreName) -> GuardReport {
        GuardReport::Hold { datastore: name.clone(), until: self.hold }
    }
}
