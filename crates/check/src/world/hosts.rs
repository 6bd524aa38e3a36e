//! Hosts: power, agent, guard; and what cores and guards ask for.

use super::disk::Writer;
use super::hypervisor::Qemu;
use super::{Deed, Item, World};
use crate::setup::{boot_id, store};
use mainstay_core::register::{IsolationResponse, StopCause};
use mainstay_core::{
    Capacity, Config, Core, Effect, GuardOrder, HeartbeatChoice, Incarnation, Input, RegisterId,
    RegisterValue,
};
use mainstay_guard_core::{Guard, GuardConfig, GuardEffect, GuardInput};
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Clone, Debug, Hash)]
pub(crate) struct Host {
    pub(crate) powered: bool,
    pub(crate) boot: u64,
    /// Counts agents: the incarnation of the present one.
    pub(crate) run: u64,
    pub(crate) core: Option<Core>,
    pub(crate) guard: Option<Guard>,
    pub(crate) qemu: Option<Qemu>,
    /// The VM is defined here, and stopped last for that reason.
    pub(crate) defined: Option<StopCause>,
    /// It was ended by that run of the agent.
    pub(crate) destroyed_by: Option<u64>,
}

impl Host {
    pub(crate) fn off() -> Host {
        Host {
            powered: false,
            boot: 0,
            run: 0,
            core: None,
            guard: None,
            qemu: None,
            defined: None,
            destroyed_by: None,
        }
    }

    /// Libvirt knows of no VM.
    pub(crate) fn is_empty(&self) -> bool {
        self.qemu.is_none() && self.defined.is_none()
    }

    pub(crate) fn executes(&self) -> bool {
        self.qemu.as_ref().is_some_and(|qemu| qemu.running && !qemu.frozen)
    }
}

impl World {
    pub(super) fn host_mut(&mut self, host: usize) -> &mut Host {
        Arc::make_mut(&mut self.hosts[host])
    }

    /// Power comes on: guard and agent start.
    pub(super) fn boot(&mut self, host: usize) -> Result<(), String> {
        let me = self.setup.id(host);
        let now = self.clock(host);
        let timing = self.setup.timing;
        let alter = self.setup.alter_guard;
        let state = self.host_mut(host);
        state.powered = true;
        state.boot += 1;
        let config = GuardConfig {
            me,
            datastores: vec![store()],
            timing,
            boot: boot_id(host, state.boot),
            incarnation: Incarnation(state.boot),
            leases: BTreeMap::new(),
            holds: BTreeMap::new(),
        };
        state.guard = Some(alter(Guard::new(config, now)));
        self.tell(host, || "boots".into());
        self.feed_guard(host, GuardInput::Tick);
        self.start_agent(host)
    }

    pub(super) fn start_agent(&mut self, host: usize) -> Result<(), String> {
        let now = self.clock(host);
        let (run, knows) = (self.hosts[host].run + 1, self.setup.knows);
        let others = (0..self.hosts.len()).filter(|other| *other != host && knows(host, run, *other));
        let peers = others.map(|other| self.setup.id(other)).collect();
        let (me, timing, alter) = (self.setup.id(host), self.setup.timing, self.setup.alter_core);
        let state = self.host_mut(host);
        state.run = run;
        let config = Config {
            me,
            peers,
            datastores: vec![store()],
            timing,
            boot: boot_id(host, state.boot),
            incarnation: Incarnation(state.run),
            concurrent_starts: 1,
            isolation_addresses: Vec::new(),
            isolation_timeout: None,
            isolation_response: IsolationResponse::default(),
            shutdown_timeout: timing.failure_timeout,
            heartbeat_datastores: HeartbeatChoice::default(),
            // Plans at hand are no part of the protocol, and would only add states.
            rehearse: false,
        };
        state.core = Some(alter(Core::new(config, now)?));
        let run = state.run;
        self.tell(host, || "agent starts".into());
        self.feed(host, Input::Tick);
        let capacity = Capacity { memory_mib: 65_536, memory_free_mib: 32_768, cpus: 8, domains: 0 };
        self.feed(host, Input::Capacity(capacity));
        self.ready.push_back(Item::Domains { host, run });
        self.feed_guard(host, GuardInput::AgentBack);
        Ok(())
    }

    /// The agent dies; what it has asked of disk and libvirt goes on.
    pub(super) fn kill_agent(&mut self, host: usize) {
        self.host_mut(host).core = None;
        self.held.retain(|held| !matches!(&held.item, Item::Read(read) if read.host == host));
        for held in &mut self.held {
            if let Item::Write(write) = &held.item
                && write.host == host
                && matches!(write.writer, Writer::Agent(_))
            {
                held.orphan = true;
            }
        }
        self.drop_orphans();
        self.feed_guard(host, GuardInput::AgentGone);
    }

    /// Power goes.
    pub(super) fn lose_power(&mut self, host: usize) {
        let state = self.host_mut(host);
        state.powered = false;
        state.core = None;
        state.guard = None;
        state.qemu = None;
        state.defined = state.defined.map(|_| StopCause::Unknown);
        state.destroyed_by = None;
        self.held.retain(|held| match &held.item {
            Item::Read(read) => read.host != host,
            Item::Libvirt { host: at, .. } | Item::Xml { host: at, .. } => *at != host,
            Item::Write(_)
            | Item::Message { .. }
            | Item::Tick { .. }
            | Item::GuardTick { .. }
            | Item::Ping { .. }
            | Item::PingDone { .. }
            | Item::Order { .. }
            | Item::Report { .. }
            | Item::Deed { .. }
            | Item::Domains { .. } => true,
        });
        for held in &mut self.held {
            held.orphan |= matches!(&held.item, Item::Write(write) if write.host == host);
        }
        self.drop_orphans();
    }

    /// Nobody waits for the answer of a write that has landed.
    fn drop_orphans(&mut self) {
        self.held.retain(|held| !(held.orphan && held.landed));
    }

    /// For that run of the host's agent.
    pub(super) fn feed_run(&mut self, host: usize, run: u64, input: Input) {
        if self.hosts[host].run == run {
            self.feed(host, input);
        }
    }

    /// Gives the host's core an input, if there is one, and carries out what it asks for.
    pub(super) fn feed(&mut self, host: usize, input: Input) {
        if self.hosts[host].core.is_none() {
            self.take_down(host, input);
            return;
        }
        self.now += 1;
        let now = self.clock(host);
        let mut effects = Vec::new();
        if let Some(core) = &mut self.host_mut(host).core {
            core.step(now, input, &mut effects);
            core.check();
        }
        for effect in effects {
            self.carry_out(host, effect);
        }
    }

    pub(super) fn carry_out(&mut self, host: usize, effect: Effect) {
        let (run, boot) = (self.hosts[host].run, self.hosts[host].boot);
        match effect {
            Effect::Send { to, message } => {
                if let Some(to) = self.setup.index(&to) {
                    self.checks.on_send(host, &message);
                    self.ready.push_back(Item::Message { from: host, to, message });
                }
            }
            Effect::Disk { op, datastore: _, action } => self.start_disk(host, op, action),
            Effect::Ping { host: to } => {
                if let Some(to) = self.setup.index(&to) {
                    self.ready.push_back(Item::Ping { from: host, run, to });
                }
            }
            // A guard of this world answers, or is gone.
            Effect::PingIsolation { .. } | Effect::Reply { .. } | Effect::ReplaceGuard => {}
            Effect::Guard(order) => self.ready.push_back(Item::Order { host, run, order }),
            Effect::Vm { op, action } => {
                self.ready.push_back(Item::Libvirt { host, boot, run, op, action });
            }
            Effect::StoreXml { datastore, vm, xml } => {
                let input = Input::XmlStored { datastore, vm, xml, error: None };
                self.ready.push_back(Item::Xml { host, run, input });
            }
            Effect::Event(event) => {
                let who = self.setup.id(host);
                self.checks.on_event(&who, &event);
                self.tell(host, || format!("{event}"));
            }
        }
    }

    /// Gives the host's guard an input, if there is one, and carries out what it asks for.
    pub(super) fn feed_guard(&mut self, host: usize, input: GuardInput) {
        if self.hosts[host].guard.is_none() {
            return;
        }
        self.now += 1;
        let now = self.clock(host);
        let mut effects = Vec::new();
        if let Some(guard) = &mut self.host_mut(host).guard {
            guard.step(now, input, &mut effects);
        }
        let boot = self.hosts[host].boot;
        for effect in effects {
            match effect {
                GuardEffect::Write { op, datastore: _, register } => {
                    let id = RegisterId::Heartbeat(self.setup.id(host));
                    self.start_write(host, Writer::Guard(boot), op, id, RegisterValue::Heartbeat(register));
                }
                GuardEffect::Inspect { .. } => self.start_deed(host, Deed::Inspect),
                GuardEffect::Freeze { .. } => self.start_deed(host, Deed::Freeze),
                GuardEffect::Thaw { .. } => self.start_deed(host, Deed::Thaw),
                GuardEffect::Kill { .. } => self.start_deed(host, Deed::Kill),
                // The guard does not die without its host here.
                GuardEffect::Forget { .. } | GuardEffect::Keep { .. } | GuardEffect::KeepHold { .. } => {}
                GuardEffect::Report(report) => self.ready.push_back(Item::Report { host, report }),
            }
        }
    }

    /// An order of that run of the agent reaches the guard.
    pub(super) fn order(&mut self, host: usize, run: u64, order: GuardOrder) {
        if self.hosts[host].run == run && self.hosts[host].core.is_some() {
            self.feed_guard(host, GuardInput::Order(order));
        }
    }

    pub(super) fn tell(&mut self, host: usize, line: impl FnOnce() -> String) {
        if self.kept.log.is_some() {
            let who = self.setup.id(host);
            self.say(who.as_str(), line);
        }
    }
}
