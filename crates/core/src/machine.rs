//! The core: one host's part in the protocol. It dispatches inputs to the sub-machines, each in a file of its own, and
//! carries what one learns to the others.

mod messages;

use crate::claims::{HostSide, IsolationNow};
use crate::cluster::Cluster;
use crate::commands::Commands;
use crate::config::Config;
use crate::datastore::{Around, Datastore};
use crate::datastores::Datastores;
use crate::desk::Desk;
use crate::effect::Effect;
use crate::election::{Election, Turn};
use crate::event::Event;
use crate::guard::GuardReport;
use crate::heartbeat_datastores::HeartbeatDatastores;
use crate::host_liveness::HostState;
use crate::hosts::{DiskEvidence, Hosts, Peer};
use crate::ids::{DatastoreName, Epoch, HostId, Incarnation, OpId};
use crate::input::{DiskOutcome, Input};
use crate::isolation::Isolation;
use crate::leases::GuardSide;
use crate::local_vms::LocalVms;
use crate::message::{Body, HALTED_MAX, Heartbeat, HeartbeatAck, Message, OwnedDatastore, Promise, Rank};
use crate::out::{Counters, Out};
use crate::placing::{Placing, RehearsalScene};
use crate::reviewing;
use crate::settings_here::SettingsHere;
use crate::time::Time;
use crate::view::View;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// One host's part in the protocol.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Core {
    pub(crate) config: Config,
    counters: Counters,
    pub(crate) election: Election,
    pub(crate) hosts: Hosts,
    pub(crate) datastores: Datastores,
    pub(crate) vms: LocalVms,
    pub(crate) guard: GuardSide,
    pub(crate) isolation: Isolation,
    pub(crate) heartbeat_datastores: HeartbeatDatastores,
    /// R25: what the next heartbeat to the primary promises.
    promises: BTreeMap<DatastoreName, Promise>,
    heartbeat_due: Time,
    commands: Commands,
    pub(crate) settings: SettingsHere,
    /// While this host is primary.
    pub(crate) placing: Placing,
    announced: bool,
    stopping: bool,
    /// The time of the last step.
    now: Time,
    /// When this run of the agent began.
    pub(crate) begun: Time,
}

impl Core {
    /// A core at rest. Fails with a text for the user when the configuration can't work ([`Config::check`]). It begins
    /// with its first [`Core::step`], which should be a [`Input::Tick`].
    pub fn new(config: Config, now: Time) -> Result<Core, String> {
        config.check()?;
        Ok(Core {
            counters: Counters { incarnation: config.incarnation, operations: 0, messages: 0 },
            election: Election::new(config.me.clone(), config.peers.clone(), now, &config.timing),
            hosts: Hosts::new(config.me.clone(), &config.peers, now),
            datastores: Datastores::new(&config, now),
            vms: LocalVms::new(),
            guard: GuardSide::default(),
            isolation: Isolation::new(config.isolation_addresses.len(), now),
            heartbeat_datastores: HeartbeatDatastores::default(),
            promises: BTreeMap::new(),
            heartbeat_due: now,
            commands: Commands::default(),
            settings: SettingsHere::default(),
            placing: Placing::default(),
            announced: false,
            stopping: false,
            now,
            begun: now,
            config,
        })
    }

    /// Takes one input and appends what is to be done to `effects`. `now` never goes back.
    pub fn step(&mut self, now: Time, input: Input, effects: &mut Vec<Effect>) {
        let mut counters = self.counters.clone();
        self.notice_standstill(now);
        self.now = now;
        let mut out = Out { now, counters: &mut counters, effects };
        match input {
            Input::Tick => {}
            Input::Message { from, message } => self.on_message(&from, message, &mut out),
            Input::DiskDone { op, outcome } => self.on_disk_done(op, outcome, &mut out),
            Input::PingDone { host, answered } => self.hosts.on_ping_done(&host, answered, now),
            Input::IsolationPingDone { index, answered } => {
                self.isolation.on_ping_done(index, answered, now);
            }
            Input::Guard(report) => self.on_guard(report, &mut out),
            Input::GuardLost => {
                self.guard.on_lost();
                self.datastores.all_mut().for_each(|datastore| datastore.own_hold_mut().on_guard_lost());
                out.event(Event::GuardLost);
            }
            Input::Domains { as_of, domains } => {
                self.vms.on_domains(as_of, domains, &mut out);
            }
            Input::Domain { as_of, domain } => self.vms.on_domain(as_of, domain),
            Input::HypervisorLost => self.vms.on_lost(&mut out),
            Input::Capacity(capacity) => self.vms.capacity = capacity,
            Input::Offers(offers) => self.vms.offers = Some(offers),
            Input::VmDone { op, outcome } => {
                for datastore in self.datastores.all_mut() {
                    datastore.claims_mut().on_vm_done(op, &outcome, &mut out);
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
                self.vms.on_xml_stored(&datastore, vm, xml, error, &self.config.timing, &mut out);
            }
            Input::Operator { request, command } => {
                let is_primary = self.election.is_primary();
                let (commands, mut desk) = self.desk();
                commands.on_operator(request, command, is_primary, &mut desk, &mut out);
            }
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
        self.hosts.ping_the_quiet(&self.election, &self.config.timing, out);
        let contact = self.hosts.contact(&self.election, &self.config.timing, out.now);
        self.isolation.tick(contact.alone, contact.quiet, &self.config.timing, out);
        self.judge(out);
        self.choose_heartbeat_datastores(out);
        self.announce(out);
        self.vms.on_tick(&self.config.datastores, out);
        self.tick_datastores(out);
        let anchored = self.isolation.is_anchored(&self.config.timing, out.now);
        reviewing::review(&mut self.desk().1, anchored, out);
        self.rehearse(out);
        let (commands, mut desk) = self.desk();
        commands.answer(&mut desk, out);
        self.tell_of_releases(out);
        self.send_heartbeat(out);
        self.instruct_guard(out);
    }

    fn on_guard(&mut self, report: GuardReport, out: &mut Out<'_>) {
        let foreign = |name: &DatastoreName| self.datastores.get(name).is_none();
        let of = match &report {
            GuardReport::Lease { datastore, .. } | GuardReport::Hold { datastore, .. } => Some(datastore),
            GuardReport::Hello { .. } | GuardReport::Beat { .. } | GuardReport::Vm { .. } => None,
        };
        if of.is_some_and(foreign) {
            return;
        }
        self.guard.on_report(&report, out.now);
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
            GuardReport::Lease { .. } => {}
        }
    }

    /// Leases of datastores that this host owns, the VMs to watch, and that the agent is well.
    fn instruct_guard(&mut self, out: &mut Out<'_>) {
        let choice = &self.config.heartbeat_datastores;
        self.heartbeat_datastores.set_paces(&mut self.datastores, &mut self.guard, choice, out);
        for datastore in self.datastores.all_mut() {
            if let Some(until) = datastore.ownership().lease_end() {
                self.guard.pass(datastore.name(), until, out);
            }
            datastore.decide_own_hold(out);
            let name = datastore.name();
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
        if let Some(at) = self.hosts.deadline(&self.election, timing, self.now) {
            due = due.min(at);
        }
        for datastore in self.datastores.all() {
            due = due.min(datastore.deadline(self.vms.domains().is_none(), self.now));
        }
        let placing = self.placing.deadline().into_iter().chain(self.rehearsal_deadline());
        let due = placing.fold(due, Time::min);
        let due = due.min(self.isolation.deadline(timing));
        due.min(self.vms.deadline()).min(self.guard.deadline())
    }

    /// What is known of the cluster.
    pub(crate) fn cluster(&self) -> Cluster<'_> {
        Cluster::new(&self.config.me, &self.hosts, &self.datastores, &self.vms, self.settings.get())
    }

    fn desk(&mut self) -> (&mut Commands, Desk<'_>) {
        let desk = Desk {
            config: &self.config,
            hosts: &self.hosts,
            vms: &self.vms,
            datastores: &mut self.datastores,
            settings: &mut self.settings,
            placing: &mut self.placing,
        };
        (&mut self.commands, desk)
    }

    /// Whether this host decides for the cluster, or a part of it.
    fn decides(&self, now: Time) -> bool {
        self.election.is_primary() && !self.stopping && self.datastores.owned_lists(now).next().is_some()
    }

    fn rehearse(&mut self, out: &mut Out<'_>) {
        let decides = self.decides(out.now);
        let cluster =
            Cluster::new(&self.config.me, &self.hosts, &self.datastores, &self.vms, self.settings.get());
        let rehearsing = self.placing.rehearsing_mut();
        if !decides {
            return rehearsing.stop();
        }
        if self.config.rehearse {
            let failing = || self.hosts.in_state(|state| state == HostState::Failed).into_iter().collect();
            rehearsing.rehearse(|| cluster.scene(out.now), cluster.settings(), failing, out.now);
        }
        rehearsing.tell_of_admission(out);
        rehearsing.tell_of_maintenance(cluster.settings(), |host| cluster.left_on(host), out);
    }

    fn rehearsal_deadline(&self) -> Option<Time> {
        let decides = self.config.rehearse && self.decides(self.now);
        self.placing.rehearsing().deadline().filter(|_| decides)
    }

    /// All that a rehearsal in full needs: it may take a while, and is made elsewhere.
    pub fn rehearsal_scene(&self, now: Time) -> RehearsalScene {
        let settings = self.settings.get();
        let at_hand = self.placing.rehearsing().at_hand().under(settings);
        RehearsalScene { scene: self.cluster().scene(now), settings: settings.clone(), at_hand }
    }

    /// R16: the election and the datastores give others the time to be heard again.
    fn notice_standstill(&mut self, now: Time) {
        if self.hosts.notice_standstill(self.now, now, &self.config.timing) {
            self.election.go_on(&self.config.timing, now);
            for datastore in self.datastores.all_mut() {
                datastore.on_awake(now);
            }
        }
    }

    /// What the datastores show of the other hosts goes into the judgements, and these into the reviews.
    fn judge(&mut self, out: &mut Out<'_>) {
        let (datastores, timing, now) = (&self.datastores, &self.config.timing, out.now);
        let evidence = |host: &HostId| {
            let mirrors = datastores.all().map(Datastore::mirror);
            DiskEvidence::of_all(mirrors.filter_map(|mirror| mirror.evidence(host, timing, now)))
        };
        if self.hosts.judge(&self.election, evidence, &self.config.timing, out) {
            self.datastores.want_reviews();
        }
    }

    /// Somebody is silent who was not judged for it yet, or a datastore is still to be owned.
    fn is_suspicious(&self, now: Time) -> bool {
        let unowned = || self.datastores.all().any(|store| store.is_connected() && store.list().is_none());
        (self.election.is_primary() && unowned())
            || self.hosts.are_suspicious(&self.election, &self.config.timing, now)
    }

    fn choose_heartbeat_datastores(&mut self, out: &mut Out<'_>) {
        if self.election.is_primary() {
            let (choice, interval) = (&self.config.heartbeat_datastores, self.config.timing.heartbeat);
            self.heartbeat_datastores.choose(&self.hosts, &self.datastores, choice, interval, out);
        }
    }

    /// What this core believes.
    pub fn view(&self, now: Time) -> View {
        crate::view_of::view_of(self, now)
    }

    fn rank(&self) -> Rank {
        // R79: a host in maintenance is primary only when there is nobody else.
        let serves = !self.settings.get().maintenance.contains_key(&self.config.me);
        let connected = if serves { self.datastores.connected().count() } else { 0 };
        Rank { datastores: connected as u32, host: self.config.me.clone() }
    }

    fn owned(&self, now: Time) -> u32 {
        self.datastores.owned(now).count() as u32
    }

    fn tick_election(&mut self, out: &mut Out<'_>) {
        let rank = self.rank();
        let owned = self.owned(out.now);
        let maintenance = &self.settings.get().maintenance;
        let members = self.hosts.members().filter(|peer| !maintenance.contains_key(peer.host()));
        let reached = members.filter_map(|peer| Some(peer.heartbeat()?.datastores.len() as u32));
        let best_member = reached.max().unwrap_or(0);
        if self.retires(best_member, out.now) {
            let turn = self.election.stand("this host enters maintenance mode", &self.config.timing, out);
            return self.on_turn(turn, out);
        }
        let outsiders = self.hosts.in_state(|state| state != HostState::Connected);
        let timing = self.config.timing;
        let slow = self.config.datastores.len() > self.config.heartbeat_datastores.count as usize;
        let turn = self.election.on_tick(&rank, (best_member, slow), owned, &outsiders, &timing, out);
        self.on_turn(turn, out);
    }

    /// R79: a primary that enters maintenance hands over when that is on disk and somebody else is there.
    fn retires(&self, best_member: u32, now: Time) -> bool {
        self.election.is_primary()
            && self.settings.get().maintenance.contains_key(&self.config.me)
            && best_member > 0
            && self.commands.is_idle()
            && self.datastores.owned_lists(now).all(|list| list.has_written(self.settings.get().revision))
    }

    /// Says once that the agent has begun, when the first datastore has told whether the host rebooted.
    fn announce(&mut self, out: &mut Out<'_>) {
        let known = self.datastores.all().filter_map(Datastore::rebooted);
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
        let cut_off =
            self.hosts.in_state(|state| matches!(state, HostState::Partitioned | HostState::Isolated));
        // R72: it may run on.
        let held = |host: &HostId| {
            let until = self.datastores.get(name).and_then(|datastore| datastore.held_until(host));
            until.is_some_and(|until| now < until)
        };
        let mut failed = self.hosts.in_state(|state| state == HostState::Failed);
        failed.retain(|host| !held(host));
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
                offers: self.vms.offers.as_ref(),
                lease: self.guard.lease(name, now),
                beaten: datastore.reach().beaten(),
                guarded: self.guard.is_connected(),
                processes: self.guard.vms(),
                isolation: IsolationNow {
                    isolated: self.isolation.is_isolated(),
                    flagged: datastore.own().flagged().filter(|_| self.isolation.is_isolated()),
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
        let waiting = self.datastores.all().find(|datastore| datastore.expects(op));
        let Some(name) = waiting.map(|datastore| datastore.name().clone()) else { return };
        let concerned = self
            .with_datastore(&name, out.now, |datastore, around| {
                datastore.on_disk_done(op, outcome, around, out)
            })
            .unwrap_or_default();
        self.tell_of_list(&name, concerned, out);
    }

    fn tell_of_list(&mut self, name: &DatastoreName, concerned: BTreeSet<HostId>, out: &mut Out<'_>) {
        let Some(list) = self.datastores.get(name).and_then(|datastore| datastore.list()) else {
            return;
        };
        let Some(stamp) = list.on_disk() else { return };
        for host in concerned.into_iter().filter(|host| *host != self.config.me) {
            out.send(&host, Body::ListChanged { datastore: name.clone(), stamp });
        }
    }

    fn on_stop(&mut self, out: &mut Out<'_>) {
        self.stopping = true;
        if self.election.is_primary() {
            for host in self.hosts.names() {
                out.send(host, Body::SteppingDown);
            }
        }
        self.datastores.release("the agent stops", out);
    }
}
