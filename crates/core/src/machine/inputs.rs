//! Inputs on their way to the rooms that they concern, and what a turn of the election means to the others.

use super::Core;
use crate::election::{Bid, Turn};
use crate::event::Event;
use crate::guard::GuardReport;
use crate::heartbeats::Request;
use crate::hosts::Peer;
use crate::ids::{DatastoreName, HostId, Incarnation, OpId};
use crate::input::{DiskOutcome, Input};
use crate::message::{Body, Heartbeat, Message};
use crate::out::Out;
use alloc::collections::BTreeSet;

/// The rehearsal is made anew when the free memory of a host has changed by so many MiB.
const REHEARSAL_STEP: u64 = 256;

impl Core {
    pub(super) fn take_in(&mut self, input: Input, out: &mut Out<'_>) {
        match input {
            Input::Tick => {}
            Input::Message { from, message } => self.on_message(&from, message, out),
            Input::DiskDone { op, outcome } => self.on_disk_done(op, outcome, out),
            Input::PingDone { host, answered } => {
                self.hosts.on_ping_done(&host, answered, out.now);
                if answered {
                    self.isolation.on_pinged(out.now);
                }
            }
            Input::IsolationPingDone { index, answered } => {
                self.isolation.on_ping_done(index, answered, &self.config.timing, out.now);
            }
            Input::Guard(report) => self.on_guard(report, out),
            Input::GuardLost => {
                let known = self.guard.is_connected();
                self.guard.on_lost();
                self.datastores.all_mut().for_each(|datastore| datastore.own_hold_mut().on_guard_lost());
                // Of one that did not answer people know already.
                if known {
                    out.event(Event::GuardLost);
                }
            }
            Input::GuardFailed { reason } => {
                self.guard.on_failed(reason.clone());
                out.event(Event::GuardFailed { reason });
            }
            Input::Domains { as_of, domains } => self.vms.on_domains(as_of, domains, out),
            Input::Domain { as_of, domain } => self.vms.on_domain(as_of, domain),
            Input::HypervisorLost => self.vms.on_lost(out),
            Input::Capacity(capacity) => self.vms.on_capacity(capacity),
            Input::Offers(offers) => self.vms.on_offers(offers),
            Input::VmDone { op, outcome } => {
                for datastore in self.datastores.all_mut() {
                    datastore.claims_mut().on_vm_done(op, &outcome, out);
                }
            }
            Input::VmWaits { op, why } => {
                let name =
                    self.datastores.all_mut().find_map(|datastore| datastore.claims_mut().on_waits(op));
                if let Some(vm) = name {
                    out.event(Event::VmWaitsForStorage { vm, reason: why });
                }
            }
            Input::XmlStored { datastore, vm, xml, error } => {
                self.vms.on_xml_stored(&datastore, vm, xml, error, &self.config.timing, out);
            }
            Input::Operator { request, command } => {
                let is_primary = self.election.is_primary();
                let (commands, mut desk) = self.desk();
                commands.on_operator(request, command, is_primary, &mut desk, out);
            }
            Input::Stop => self.on_stop(out),
        }
    }

    fn on_message(&mut self, from: &HostId, message: Message, out: &mut Out<'_>) {
        if !self.hosts.admits(from, &message, out.now) {
            return;
        }
        self.isolation.on_heard(out.now);
        self.agreement.on_message(from, message.files, out.now);
        if self.life.is_stopping() {
            return;
        }
        let (rank, owned) = (self.cluster().rank(), self.datastores.owned(out.now).count() as u32);
        let timing = self.config.timing;
        let turn = match message.body {
            Body::Elect { rank: bid, window } => {
                self.election.on_elect(from, Bid { rank: bid, window }, &rank, owned, &timing, out)
            }
            Body::Announce { rank: theirs, owned: they_own } => {
                self.election.on_announce(from, (they_own, theirs), (owned, rank), out)
            }
            Body::Heartbeat(heartbeat) => {
                self.on_heartbeat(from, message.incarnation, *heartbeat, out);
                Turn::None
            }
            Body::HeartbeatAck(ack) => {
                if self.election.on_ack(from, out.now) {
                    self.heartbeats.on_ack(ack, &self.config, &mut self.datastores, &mut self.guard, out);
                    if !self.agreement.holds() {
                        self.heartbeats.promise_nothing();
                    }
                }
                Turn::None
            }
            Body::ListChanged { datastore, stamp } => {
                if let Some(datastore) = self.datastores.get_mut(&datastore) {
                    datastore.on_list_hint(stamp);
                }
                Turn::None
            }
            Body::Released { datastores } => {
                for given_up in datastores {
                    if let Some(datastore) = self.datastores.get_mut(&given_up.datastore) {
                        datastore.on_released(from, given_up.epoch);
                    }
                }
                Turn::None
            }
            Body::SteppingDown => self.election.on_stepping_down(from, &timing, out),
            Body::Files(files) => {
                self.agreement.on_files(from, *files);
                Turn::None
            }
        };
        self.on_turn(turn, out);
    }

    fn on_heartbeat(&mut self, from: &HostId, run: Incarnation, heartbeat: Heartbeat, out: &mut Out<'_>) {
        if !self.election.is_primary() {
            // The sender follows a primary that is none: let it look for another.
            out.send(from, Body::SteppingDown);
            return;
        }
        for list in &heartbeat.power_on {
            if let Some(datastore) = self.datastores.get_mut(&list.datastore) {
                datastore.on_power_on_hint(from, list.version);
            }
        }
        for datastore in self.datastores.all_mut() {
            datastore.forget_confirmation(from);
        }
        for promise in &heartbeat.promises {
            if let Some(datastore) = self.datastores.get_mut(&promise.datastore) {
                let ours = self.config.timing.failure_timeout;
                datastore.on_promise(from, promise, heartbeat.failure_timeout.unwrap_or(ours), out.now);
            }
        }
        let before = self.hosts.get(from).and_then(Peer::heartbeat);
        // What it could not write it can now: others see again what it runs.
        let unwritten = before.into_iter().flat_map(|before| &before.unwritten);
        for name in unwritten.filter(|name| !heartbeat.unwritten.contains(name)) {
            if let Some(datastore) = self.datastores.get_mut(name) {
                datastore.want_review();
            }
        }
        if before.map_or(&[][..], |before| before.arriving.as_slice()) != heartbeat.arriving.as_slice() {
            self.datastores.want_reviews();
        }
        let free = |heartbeat: &Heartbeat| heartbeat.capacity.memory_free_mib / REHEARSAL_STEP;
        if before.map(free) != Some(free(&heartbeat)) {
            self.placing.rehearsing_mut().mark_stale();
        }
        let request = Request { from, run, sent: heartbeat.sent };
        self.hosts.on_heartbeat(from, run, heartbeat, &self.config.timing, out);
        self.heartbeats.answer(&request, &self.datastores, self.config.timing.lease, out);
    }

    /// What a turn of the election means to the other rooms.
    pub(super) fn on_turn(&mut self, turn: Turn, out: &mut Out<'_>) {
        match turn {
            Turn::None => {}
            Turn::Elected => self.datastores.want_reviews(),
            Turn::Stands => self.hosts.watch_anew(&self.election, &self.config.timing, out.now),
            Turn::Follows => {
                self.heartbeats.hurry(out.now);
                self.hosts.forget_judgements(out.now);
            }
            Turn::SteppedDown => {
                self.heartbeats.hurry(out.now);
                self.datastores.release("this host is not primary any more", out);
                self.hosts.forget_judgements(out.now);
            }
        }
    }

    fn on_guard(&mut self, report: GuardReport, out: &mut Out<'_>) {
        let foreign = |name: &DatastoreName| self.datastores.get(name).is_none();
        let of = match &report {
            GuardReport::Lease { datastore, .. } | GuardReport::Hold { datastore, .. } => Some(datastore),
            GuardReport::Hello { .. }
            | GuardReport::Alive
            | GuardReport::Beat { .. }
            | GuardReport::Vm { .. } => None,
        };
        if of.is_some_and(foreign) {
            return;
        }
        self.guard.on_report(&report, &self.config.timing, out.now);
        match report {
            GuardReport::Hello { incarnation } => {
                for datastore in self.datastores.all_mut() {
                    datastore.own_hold_mut().on_guard_found(out.now);
                }
                out.event(Event::GuardFound { incarnation });
            }
            GuardReport::Beat { datastore, started, error } => {
                if let Some(datastore) = self.datastores.get_mut(&datastore) {
                    datastore.on_beat(started, error, out);
                }
            }
            GuardReport::Vm { vm, state } => {
                for datastore in self.datastores.all_mut() {
                    datastore.claims_mut().on_process(vm, state, out.now);
                }
            }
            GuardReport::Hold { datastore, until } => {
                if let Some(datastore) = self.datastores.get_mut(&datastore) {
                    datastore.own_hold_mut().on_report(until);
                }
            }
            GuardReport::Alive | GuardReport::Lease { .. } => {}
        }
    }

    fn on_disk_done(&mut self, op: OpId, outcome: DiskOutcome, out: &mut Out<'_>) {
        let waiting = self.datastores.all().find(|datastore| datastore.expects(op));
        let Some(name) = waiting.map(|datastore| datastore.name().clone()) else { return };
        let (surroundings, datastores) = self.surroundings();
        let in_step = surroundings.in_step(out.now);
        let concerned = surroundings.act(datastores, &name, &in_step, |datastore, around| {
            datastore.on_disk_done(op, outcome, around, out)
        });
        self.tell_of_list(&name, concerned.unwrap_or_default(), out);
    }

    /// The protected list on disk has changed for those hosts.
    fn tell_of_list(&mut self, name: &DatastoreName, concerned: BTreeSet<HostId>, out: &mut Out<'_>) {
        let list = self.datastores.get(name).and_then(|datastore| datastore.list());
        let Some(stamp) = list.and_then(|list| list.on_disk()) else { return };
        for host in concerned.into_iter().filter(|host| *host != self.config.me) {
            out.send(&host, Body::ListChanged { datastore: name.clone(), stamp });
        }
    }

    fn on_stop(&mut self, out: &mut Out<'_>) {
        self.life.stop();
        if self.election.is_primary() {
            for host in self.hosts.names() {
                out.send(host, Body::SteppingDown);
            }
        }
        self.datastores.release("the agent stops", out);
    }
}
