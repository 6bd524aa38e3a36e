//! The core: one host's part in the protocol. It dispatches inputs to the sub-machines, each in a file of its own, and
//! carries what one learns to the others.

mod judging;
mod operators;

use crate::claims::{HostSide, IsolationNow};
use crate::config::Config;
use crate::datastore::{Around, Datastore};
use crate::effect::Effect;
use crate::election::{Election, Standing, Turn};
use crate::event::Event;
use crate::guard::GuardReport;
use crate::heartbeat_datastores::HeartbeatDatastores;
use crate::host_liveness::HostState;
use crate::ids::{DatastoreName, Epoch, HostId, Incarnation, OpId};
use crate::input::{Command, DiskOutcome, Input};
use crate::isolation::Isolation;
use crate::leases::GuardSide;
use crate::local_vms::LocalVms;
use crate::message::{Body, Heartbeat, HeartbeatAck, Message, OwnedDatastore, Promise, Rank};
use crate::out::{Counters, Out};
use crate::peers::{DiskEvidence, Peer};
use crate::protected_list::{Candidate, OwnerSide, PowerOnSeen};
use crate::time::Time;
use crate::view::View;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// An operator's request whose effect is still to reach the disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Pending {
    request: u64,
    command: Command,
    datastore: DatastoreName,
    vm: crate::ids::VmId,
    answer: String,
}

/// One host's part in the protocol.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Core {
    pub(crate) config: Config,
    counters: Counters,
    pub(crate) election: Election,
    pub(crate) peers: BTreeMap<HostId, Peer>,
    pub(crate) datastores: BTreeMap<DatastoreName, Datastore>,
    pub(crate) vms: LocalVms,
    pub(crate) guard: GuardSide,
    pub(crate) isolation: Isolation,
    pub(crate) heartbeat_datastores: HeartbeatDatastores,
    /// R25: what the next heartbeat to the primary promises.
    promises: BTreeMap<DatastoreName, Promise>,
    /// R12: most other hosts have gone silent at once.
    storm: bool,
    /// Judgements of this host as primary; itself included.
    states: BTreeMap<HostId, HostState>,
    heartbeat_due: Time,
    pending: Vec<Pending>,
    announced: bool,
    stopping: bool,
    /// The time of the last step.
    now: Time,
    /// When this run of the agent began.
    pub(crate) begun: Time,
    #[cfg(feature = "broken-rules")]
    pub(crate) broken: Option<crate::BrokenRule>,
}

impl Core {
    /// A core at rest. Fails with a text for the user when the configuration can't work ([`Config::check`]). It begins
    /// with its first [`Core::step`], which should be a [`Input::Tick`].
    pub fn new(config: Config, now: Time) -> Result<Core, String> {
        config.check()?;
        let peers = config.peers.iter().map(|host| (host.clone(), Peer::new(host.clone(), now))).collect();
        let datastores = config
            .datastores
            .iter()
            .map(|name| (name.clone(), Datastore::new(name.clone(), &config, now)))
            .collect();
        Ok(Core {
            counters: Counters { incarnation: config.incarnation, operations: 0, messages: 0 },
            election: Election::new(config.me.clone(), config.peers.clone(), now, &config.timing),
            peers,
            datastores,
            vms: LocalVms::new(),
            guard: GuardSide::default(),
            isolation: Isolation::new(config.isolation_addresses.len(), now),
            heartbeat_datastores: HeartbeatDatastores::default(),
            promises: BTreeMap::new(),
            storm: false,
            states: BTreeMap::new(),
            heartbeat_due: now,
            pending: Vec::new(),
            announced: false,
            stopping: false,
            now,
            begun: now,
            #[cfg(feature = "broken-rules")]
            broken: None,
            config,
        })
    }

    /// Takes one input and appends what is to be done to `effects`. `now` never goes back.
    pub fn step(&mut self, now: Time, input: Input, effects: &mut Vec<Effect>) {
        let mut counters = self.counters.clone();
        self.now = now;
        let mut out = Out { now, counters: &mut counters, effects };
        match input {
            Input::Tick => {}
            Input::Message { from, message } => self.on_message(&from, message, &mut out),
            Input::DiskDone { op, outcome } => self.on_disk_done(op, outcome, &mut out),
            Input::PingDone { host, answered } => {
                if let Some(peer) = self.peers.get_mut(&host) {
                    peer.on_ping_done(answered, now);
                }
            }
            Input::IsolationPingDone { index, answered } => {
                self.isolation.on_ping_done(index, answered, now);
            }
            Input::Guard(report) => self.on_guard(report, &mut out),
            Input::GuardLost => {
                self.guard.on_lost();
                out.event(Event::GuardLost);
            }
            Input::Domains { as_of, domains } => {
                self.vms.on_domains(as_of, domains, &mut out);
            }
            Input::Domain { as_of, domain } => self.vms.on_domain(as_of, domain),
            Input::HypervisorLost => self.vms.on_lost(&mut out),
            Input::Capacity(capacity) => self.vms.capacity = capacity,
            Input::VmDone { op, outcome } => {
                for datastore in self.datastores.values_mut() {
                    datastore.claims.on_vm_done(op, &outcome, &mut out);
                }
            }
            Input::VmWaits { op, why } => {
                let name = self.datastores.values_mut().find_map(|datastore| datastore.claims.on_waits(op));
                if let Some(vm) = name {
                    out.event(Event::VmWaitsForStorage { vm, reason: why });
                }
            }
            Input::XmlStored { datastore, vm, xml, error } => {
                self.vms.on_xml_stored(&datastore, vm, xml, error, &self.config.timing, &mut out);
            }
            Input::Operator { request, command } => self.on_operator(request, command, &mut out),
            Input::Stop => self.on_stop(&mut out),
        }
        self.settle(&mut out);
        self.counters = counters;
    }

    /// What follows from time and from whatever the input changed.
    fn settle(&mut self, out: &mut Out<'_>) {
        if !self.stopping {
            self.tick_election(out);
        }
        self.ping_the_quiet(out);
        self.look_for_contact(out);
        self.judge(out);
        self.choose_heartbeat_datastores(out);
        self.announce(out);
        self.vms.on_tick(&self.config.datastores, out);
        self.tick_datastores(out);
        self.review(out);
        self.answer_operators(out);
        self.tell_of_releases(out);
        self.send_heartbeat(out);
        self.instruct_guard(out);
    }

    /// Where this host has given up an ownership, others need not wait for it to stand still.
    fn tell_of_releases(&mut self, out: &mut Out<'_>) {
        let mut told: Vec<(DatastoreName, Epoch)> = Vec::new();
        for (name, datastore) in &mut self.datastores {
            let Some((epoch, left, _)) = datastore.released.filter(|(_, _, due)| out.now >= *due) else {
                continue;
            };
            let due = out.now + self.config.timing.close_look();
            datastore.released = (left > 1).then(|| (epoch, left - 1, due));
            told.push((name.clone(), epoch));
        }
        if !told.is_empty() {
            for peer in self.peers.keys() {
                out.send(peer, Body::Released { datastores: told.clone() });
            }
        }
    }

    fn on_guard(&mut self, report: GuardReport, out: &mut Out<'_>) {
        let foreign = |name: &DatastoreName| !self.datastores.contains_key(name);
        if matches!(&report, GuardReport::Lease { datastore, .. } if foreign(datastore)) {
            return;
        }
        self.guard.on_report(&report, out.now);
        match report {
            GuardReport::Hello { incarnation } => out.event(Event::GuardFound { incarnation }),
            GuardReport::Beat { datastore, started, error } => {
                if let Some(datastore) = self.datastores.get_mut(&datastore) {
                    datastore.on_beat(started, error, out);
                }
            }
            GuardReport::Vm { vm, state } => {
                for datastore in self.datastores.values_mut() {
                    datastore.claims.on_process(vm, state, out.now);
                }
            }
            GuardReport::Lease { .. } => {}
        }
    }

    /// Leases of datastores that this host owns, the VMs to watch, and that the agent is well.
    fn instruct_guard(&mut self, out: &mut Out<'_>) {
        self.set_paces(out);
        for (name, datastore) in &self.datastores {
            if let Some(until) = datastore.ownership.lease_end() {
                self.guard.pass(name, until, out);
            }
            let leased = self.guard.lease(name, out.now).is_some();
            if let Some(vms) = datastore.watched(leased, out.now) {
                self.guard.watch(name, vms, self.vms.has_seen(), out);
            }
        }
        self.guard.show_life(self.config.incarnation, &self.config.timing, out);
    }

    /// When [`Input::Tick`] is wanted next, unless another input comes before. May lie in the past: tick at once.
    pub fn next_deadline(&self) -> Time {
        let timing = &self.config.timing;
        let mut due = if self.stopping { Time(u64::MAX) } else { self.election.deadline(timing) };
        if self.election.primary().is_some() && !self.election.is_primary() && !self.stopping {
            due = due.min(self.heartbeat_due);
        }
        for peer in self.watched() {
            if let (true, Some(at)) = (self.is_quiet(peer, self.now), peer.ping_deadline()) {
                due = due.min(at);
            }
            let silent_since = peer.last_network.unwrap_or(self.election.watching_since);
            let limits = [
                timing.suspicion(),
                timing.network_timeout(),
                timing.failure_timeout,
                timing.storm_timeout(),
            ];
            for limit in limits {
                let at = silent_since + limit;
                if at > self.now {
                    due = due.min(at);
                }
            }
        }
        for datastore in self.datastores.values() {
            due = due.min(datastore.deadline(self.now));
        }
        let due = due.min(self.isolation.deadline(timing));
        due.min(self.vms.deadline()).min(self.guard.deadline())
    }

    /// What this core believes.
    pub fn view(&self, now: Time) -> View {
        crate::view_of::view_of(self, now)
    }

    fn rank(&self) -> Rank {
        let connected = self.datastores.values().filter(|datastore| datastore.connected).count();
        Rank { datastores: connected as u32, host: self.config.me.clone() }
    }

    fn owned(&self, now: Time) -> u32 {
        self.datastores.values().filter(|datastore| datastore.ownership.epoch(now).is_some()).count() as u32
    }

    fn on_message(&mut self, from: &HostId, message: Message, out: &mut Out<'_>) {
        let rank = self.rank();
        let owned = self.owned(out.now);
        let timing = self.config.timing;
        let Some(peer) = self.peers.get_mut(from) else { return };
        if !peer.admits(&message) {
            return;
        }
        peer.on_message(out.now);
        self.isolation.on_heard(out.now);
        let run = message.incarnation;
        if self.stopping {
            return;
        }
        let turn = match message.body {
            Body::Elect { rank: bid } => self.election.on_elect(from, bid, &rank, owned, &timing, out),
            Body::Announce { rank: theirs, owned: they_own } => {
                self.election.on_announce(from, (they_own, theirs), (owned, rank), out)
            }
            Body::Heartbeat(heartbeat) => {
                self.on_heartbeat(from, run, heartbeat, out);
                Turn::None
            }
            Body::HeartbeatAck(ack) => {
                if self.election.on_ack(from, out.now) {
                    self.on_ack(ack, out);
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
                for (name, epoch) in datastores {
                    if let Some(datastore) = self.datastores.get_mut(&name) {
                        datastore.on_released(from, epoch);
                    }
                }
                Turn::None
            }
            Body::SteppingDown => self.election.on_stepping_down(from, &timing, out),
        };
        self.on_turn(turn, out);
    }

    /// The primary's answer: leases on what it owns, and what this host may promise in return.
    fn on_ack(&mut self, ack: HeartbeatAck, out: &mut Out<'_>) {
        // R50: a lease counts from the start of the request, and only for the run of the agent that made it.
        let ours = ack.run == self.config.incarnation && ack.echo <= out.now;
        self.promises.clear();
        if !ack.heartbeat_datastores.is_empty() {
            self.heartbeat_datastores.chosen = ack.heartbeat_datastores;
        }
        for owned in ack.owned {
            let Some(datastore) = self.datastores.get_mut(&owned.datastore) else { continue };
            if let Some(stamp) = owned.list {
                datastore.on_list_hint(stamp);
            }
            if !ours {
                continue;
            }
            self.guard.pass(&owned.datastore, ack.echo + owned.lease.min(self.config.timing.lease), out);
            if datastore.promise(owned.epoch, out.now) {
                let promise =
                    Promise { datastore: owned.datastore.clone(), epoch: owned.epoch, echo: ack.sent };
                self.promises.insert(owned.datastore, promise);
            }
        }
    }

    fn on_heartbeat(&mut self, from: &HostId, run: Incarnation, heartbeat: Heartbeat, out: &mut Out<'_>) {
        if !self.election.is_primary() {
            // The sender follows a primary that is none: let it look for another.
            out.send(from, Body::SteppingDown);
            return;
        }
        for (datastore, version) in &heartbeat.power_on {
            if let Some(datastore) = self.datastores.get_mut(datastore) {
                datastore.on_power_on_hint(from, *version);
            }
        }
        for promise in &heartbeat.promises {
            if let Some(datastore) = self.datastores.get_mut(&promise.datastore) {
                let ours = self.config.timing.failure_timeout;
                datastore.on_promise(from, promise, heartbeat.failure_timeout.unwrap_or(ours), out.now);
            }
        }
        self.compare_times(from, heartbeat.failure_timeout, out);
        let echo = heartbeat.sent;
        if let Some(peer) = self.peers.get_mut(from) {
            // What it could not write it can now: R45.
            let before = peer.heartbeat.iter().flat_map(|heartbeat| &heartbeat.unwritten);
            for name in before.filter(|name| !heartbeat.unwritten.contains(name)) {
                if let Some(datastore) = self.datastores.get_mut(name) {
                    datastore.review_wanted = true;
                }
            }
            peer.on_heartbeat(heartbeat);
        }
        let lease = self.config.timing.lease;
        let owned = self.datastores.values().filter_map(|datastore| {
            let list = datastore.list.as_ref()?;
            let left = datastore.ownership.left(out.now)?;
            #[cfg(feature = "broken-rules")]
            let left = if self.broken == Some(crate::BrokenRule::AckBeyondOwnership) { lease } else { left };
            Some(OwnedDatastore {
                datastore: datastore.name.clone(),
                epoch: list.epoch(),
                list: list.on_disk(),
                lease: lease.min(left),
            })
        });
        let owned = owned.collect();
        let heartbeat_datastores = self.heartbeat_datastores.chosen.clone();
        let ack = HeartbeatAck { echo, run, sent: out.now, owned, heartbeat_datastores };
        out.send(from, Body::HeartbeatAck(ack));
    }

    fn on_turn(&mut self, turn: Turn, out: &mut Out<'_>) {
        match turn {
            Turn::None => {}
            Turn::Elected => {
                for datastore in self.datastores.values_mut() {
                    datastore.review_wanted = true;
                }
            }
            Turn::Follows => self.heartbeat_due = out.now,
            Turn::SteppedDown => {
                self.heartbeat_due = out.now;
                for datastore in self.datastores.values_mut() {
                    datastore.release("this host is not primary any more", out);
                }
            }
            Turn::Stands => {
                // Only the silent primary was heard directly until now; everybody else is watched from here on.
                let watching_since = self.election.watching_since;
                for peer in self.peers.values_mut() {
                    if peer.network_silence(watching_since, out.now) > self.config.timing.failure_timeout {
                        peer.forget_network();
                    }
                }
            }
        }
        if matches!(turn, Turn::Follows | Turn::SteppedDown) {
            for peer in self.peers.values_mut() {
                peer.state = HostState::Unknown;
                peer.since = out.now;
                peer.heartbeat = None;
            }
        }
    }

    fn tick_election(&mut self, out: &mut Out<'_>) {
        let rank = self.rank();
        let owned = self.owned(out.now);
        let members = self.peers.values().filter(|peer| peer.state == HostState::Connected);
        let reached = members.filter_map(|peer| Some(peer.heartbeat.as_ref()?.datastores.len() as u32));
        let best_member = reached.max().unwrap_or(0);
        let outsiders: Vec<HostId> = self
            .peers
            .values()
            .filter(|peer| peer.state != HostState::Connected)
            .map(|peer| peer.host.clone())
            .collect();
        let timing = self.config.timing;
        let slow = self.config.datastores.len() > self.config.heartbeat_datastores.count as usize;
        let turn = self.election.on_tick(&rank, (best_member, slow), owned, &outsiders, &timing, out);
        self.on_turn(turn, out);
    }

    /// Says once that the agent has begun, when the first datastore has told whether the host rebooted.
    fn announce(&mut self, out: &mut Out<'_>) {
        let known = self.datastores.values().filter_map(|datastore| datastore.rebooted);
        if let (false, Some(rebooted)) = (self.announced, known.max()) {
            self.announced = true;
            out.event(Event::AgentStarted { rebooted });
        }
    }

    /// Runs `act` on a datastore with all that it needs to see of the host.
    fn with_datastore<R>(
        &mut self,
        name: &DatastoreName,
        now: Time,
        act: impl FnOnce(&mut Datastore, &Around<'_>) -> R,
    ) -> Option<R> {
        let suspicious = self.is_suspicious(now);
        let primary = self.election.is_primary() && !self.stopping;
        let secondary = !primary && self.election.primary().is_some();
        let cut_off: Vec<HostId> = self
            .peers
            .values()
            .filter(|peer| matches!(peer.state, HostState::Partitioned | HostState::Isolated))
            .map(|peer| peer.host.clone())
            .collect();
        let failed: Vec<HostId> = self
            .peers
            .values()
            .filter(|peer| peer.state == HostState::Failed)
            .map(|peer| peer.host.clone())
            .collect();
        let datastore = self.datastores.get_mut(name)?;
        let around = Around {
            primary,
            secondary,
            suspicious,
            cut_off: &cut_off,
            failed: &failed,
            host: HostSide {
                domains: self.vms.domains(),
                concurrent_starts: if self.stopping { 0 } else { self.config.concurrent_starts },
                stored: self.vms.stored(name),
                lease: self.guard.lease(name, now),
                beaten: datastore.beaten,
                guarded: self.guard.is_connected(),
                processes: self.guard.vms(),
                isolation: IsolationNow {
                    isolated: self.isolation.is_isolated(),
                    flagged: datastore.flagged.filter(|_| self.isolation.is_isolated()),
                    response: self.config.isolation_response,
                    shutdown_timeout: self.config.shutdown_timeout,
                },
            },
        };
        Some(act(datastore, &around))
    }

    fn tick_datastores(&mut self, out: &mut Out<'_>) {
        for name in self.config.datastores.clone() {
            self.with_datastore(&name, out.now, |datastore, around| datastore.on_tick(around, out));
        }
    }

    fn on_disk_done(&mut self, op: OpId, outcome: DiskOutcome, out: &mut Out<'_>) {
        let waiting = self.datastores.values().find(|datastore| datastore.expects(op));
        let Some(name) = waiting.map(|datastore| datastore.name.clone()) else { return };
        let concerned = self
            .with_datastore(&name, out.now, |datastore, around| {
                datastore.on_disk_done(op, outcome, around, out)
            })
            .unwrap_or_default();
        self.tell_of_list(&name, concerned, out);
    }

    fn tell_of_list(&mut self, name: &DatastoreName, concerned: BTreeSet<HostId>, out: &mut Out<'_>) {
        let Some(list) = self.datastores.get(name).and_then(|datastore| datastore.list.as_ref()) else {
            return;
        };
        let Some(stamp) = list.on_disk() else { return };
        for host in concerned.into_iter().filter(|host| *host != self.config.me) {
            out.send(&host, Body::ListChanged { datastore: name.clone(), stamp });
        }
    }

    fn candidates(&self, name: &DatastoreName) -> Vec<Candidate> {
        let mine = self.datastores.get(name).is_some_and(|datastore| datastore.connected);
        let me = Candidate {
            host: self.config.me.clone(),
            unusable: unusable(true, self.vms.is_well(), mine),
            memory_free_mib: self.vms.capacity.memory_free_mib,
            domains: self.vms.capacity.domains,
        };
        let peers = self.peers.values().map(|peer| {
            let heartbeat = peer.heartbeat.as_ref();
            let reaches = heartbeat.is_some_and(|heartbeat| heartbeat.datastores.contains(name));
            let well = heartbeat.is_some_and(|heartbeat| heartbeat.hypervisor_well);
            let capacity = heartbeat.map(|heartbeat| heartbeat.capacity).unwrap_or_default();
            Candidate {
                host: peer.host.clone(),
                unusable: unusable(peer.state == HostState::Connected, well, reaches),
                memory_free_mib: capacity.memory_free_mib,
                domains: capacity.domains,
            }
        });
        [me].into_iter().chain(peers).collect()
    }

    /// The owner's decisions, where something may have changed.
    fn review(&mut self, out: &mut Out<'_>) {
        for name in self.config.datastores.clone() {
            let Some(datastore) = self.datastores.get(&name) else { continue };
            let last = self.last_review(&name);
            let held = out.now < datastore.hold_until;
            let overdue =
                datastore.list.as_ref().is_some_and(|list| {
                    list.deadline(&self.config.timing, last).is_some_and(|at| at <= out.now)
                }) || (!held && last < datastore.hold_until);
            let owned = datastore.ownership.epoch(out.now).is_some();
            if !owned || datastore.list.is_none() || !(datastore.review_wanted || overdue) {
                continue;
            }
            let candidates = self.candidates(&name);
            let mut states = self.states.clone();
            if held {
                // R24: it may still hold a lease that the former owner granted by network.
                states.values_mut().filter(|state| **state == HostState::Failed).for_each(|state| {
                    *state = HostState::Unknown;
                });
            }
            let Some(datastore) = self.datastores.get_mut(&name) else { continue };
            datastore.review_wanted = false;
            datastore.reviewed = out.now;
            let power_on = datastore.power_on_lists(out.now);
            let heartbeat_read = datastore.heartbeat_reads();
            let mut complete: BTreeSet<&HostId> = BTreeSet::new();
            let mut current: BTreeSet<HostId> = BTreeSet::from([self.config.me.clone()]);
            for (host, seen) in &power_on {
                let Some(peer) = self.peers.get(host) else { continue };
                let alive = match peer.state {
                    HostState::Connected => peer.incarnation(),
                    HostState::Partitioned | HostState::Isolated => datastore.heartbeat_incarnation(host),
                    HostState::Unknown | HostState::AgentUnreachable | HostState::Failed => None,
                };
                if alive == Some(seen.list.incarnation) && !seen.damaged {
                    current.insert(host.clone());
                    if seen.list.complete {
                        complete.insert(host);
                    }
                }
            }
            // R24 applies to R45 as well: who may still hold a lease may still run what it does not show.
            let failed = |host: &HostId| states.get(host) == Some(&HostState::Failed);
            let dark = |peer: &&Peer| {
                let heartbeat = peer.heartbeat.as_ref();
                let reaches = peer.state != HostState::Connected
                    || heartbeat.is_none_or(|heartbeat| heartbeat.datastores.contains(&name));
                let unwritten = heartbeat.is_some_and(|heartbeat| heartbeat.unwritten.contains(&name));
                let shows = complete.contains(&peer.host)
                    && heartbeat.is_none_or(|heartbeat| heartbeat.hypervisor_well);
                !failed(&peer.host) && (unwritten || (reaches && !shows))
            };
            let dark: Vec<HostId> = self.peers.values().filter(dark).map(|peer| peer.host.clone()).collect();
            let kept = |(host, seen): &(&HostId, &PowerOnSeen)| {
                **host == self.config.me || datastore.was_well(host, seen.list.incarnation)
            };
            let watched = power_on.iter().filter(kept).map(|(host, _)| host.clone()).collect();
            let side = OwnerSide {
                me: &self.config.me,
                timing: &self.config.timing,
                power_on: &power_on,
                states: &states,
                heartbeat_read: &heartbeat_read,
                candidates: &candidates,
                current: &current,
                dark: &dark,
                watched: &watched,
                anchored: self.isolation.is_anchored(&self.config.timing, out.now),
                isolation_response: self.config.isolation_response,
            };
            if let Some(list) = &mut datastore.list {
                list.review(&side, out);
            }
            datastore.write_list(out);
        }
    }

    fn last_review(&self, name: &DatastoreName) -> Time {
        self.datastores.get(name).map(|datastore| datastore.reviewed).unwrap_or_default()
    }

    fn send_heartbeat(&mut self, out: &mut Out<'_>) {
        let mut news = false;
        for datastore in self.datastores.values_mut() {
            news |= core::mem::take(&mut datastore.power_on_changed);
        }
        let Some(primary) = self.election.primary().cloned() else { return };
        if self.stopping || primary == self.config.me || !(news || out.now >= self.heartbeat_due) {
            return;
        }
        if out.now >= self.heartbeat_due {
            self.heartbeat_due = out.now + self.config.timing.heartbeat;
        }
        let connected = self.datastores.values().filter(|datastore| datastore.connected);
        let heartbeat = Heartbeat {
            sent: out.now,
            datastores: connected.map(|datastore| datastore.name.clone()).collect(),
            power_on: self
                .datastores
                .values()
                .filter_map(|datastore| Some((datastore.name.clone(), datastore.power_on_version()?)))
                .collect(),
            capacity: self.vms.capacity,
            hypervisor_well: self.vms.is_well(),
            promises: self.promises.values().cloned().collect(),
            failure_timeout: Some(self.config.timing.failure_timeout),
            unwritten: self
                .datastores
                .values()
                .filter(|datastore| datastore.is_unwritten(self.vms.domains()))
                .map(|datastore| datastore.name.clone())
                .collect(),
        };
        out.send(&primary, Body::Heartbeat(heartbeat));
    }

    fn on_stop(&mut self, out: &mut Out<'_>) {
        self.stopping = true;
        if self.election.is_primary() {
            for peer in self.peers.keys() {
                out.send(peer, Body::SteppingDown);
            }
        }
        for datastore in self.datastores.values_mut() {
            datastore.release("the agent stops", out);
        }
    }
}

fn unusable(connected: bool, hypervisor_well: bool, reaches: bool) -> Option<&'static str> {
    match (connected, hypervisor_well, reaches) {
        (false, _, _) => Some("not connected"),
        (true, false, _) => Some("its libvirt does not answer"),
        (true, true, false) => Some("it does not reach the datastore"),
        (true, true, true) => None,
    }
}
