//! The core: one host's part in the protocol. It dispatches inputs to the sub-machines, each in a file of its own, and
//! carries what one learns to the others.

mod messages;
mod operators;
mod rehearsing;
mod relevant;
mod reviewing;
mod rules;
mod setting;
mod starting;

use crate::claims::{HostSide, IsolationNow};
use crate::command::Command;
use crate::config::Config;
use crate::datastore::{Around, Datastore};
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
use crate::placing::PlansAtHand;
use crate::protected_list::{Candidate, OwnerSide};
use crate::settings::Settings;
use crate::store::PowerOnSeen;
use crate::time::Time;
use crate::view::View;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use relevant::Relevant;
use serde::{Deserialize, Serialize};

/// A request that is answered when it is on disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Pending {
    request: u64,
    command: Command,
    until: Until,
    answer: String,
}

/// What has to be on disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum Until {
    /// The entry of a VM.
    Vm(DatastoreName, crate::ids::VmId),
    /// Settings, on all datastores that this host owns.
    Settings(u64),
    /// What was asked about suspension, on all datastores that this host owns.
    Suspension,
}

/// One host's part in the protocol.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Core {
    pub(crate) config: Config,
    counters: Counters,
    pub(crate) election: Election,
    pub(crate) hosts: Hosts,
    pub(crate) datastores: BTreeMap<DatastoreName, Datastore>,
    pub(crate) vms: LocalVms,
    pub(crate) guard: GuardSide,
    pub(crate) isolation: Isolation,
    pub(crate) heartbeat_datastores: HeartbeatDatastores,
    /// R25: what the next heartbeat to the primary promises.
    promises: BTreeMap<DatastoreName, Promise>,
    heartbeat_due: Time,
    pending: Vec<Pending>,
    /// R70: the newest that were seen on any datastore.
    pub(crate) settings: Arc<Settings>,
    /// Plans at hand, while this host is primary.
    pub(crate) standing: PlansAtHand,
    rehearsal_stale: bool,
    /// Admission control objects since then; and whether that was told.
    objecting: Option<(Time, bool)>,
    /// Since when VMs have been waiting for hosts, or for one another.
    round: Option<Time>,
    /// When the order of starts may let somebody go.
    place_again: Option<Time>,
    relevant: Relevant,
    /// Hosts in maintenance of which it was told that they are empty.
    emptied: BTreeSet<HostId>,
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
        let datastores = config
            .datastores
            .iter()
            .map(|name| (name.clone(), Datastore::new(name.clone(), &config, now)))
            .collect();
        Ok(Core {
            counters: Counters { incarnation: config.incarnation, operations: 0, messages: 0 },
            election: Election::new(config.me.clone(), config.peers.clone(), now, &config.timing),
            hosts: Hosts::new(config.me.clone(), &config.peers, now),
            datastores,
            vms: LocalVms::new(),
            guard: GuardSide::default(),
            isolation: Isolation::new(config.isolation_addresses.len(), now),
            heartbeat_datastores: HeartbeatDatastores::default(),
            promises: BTreeMap::new(),
            heartbeat_due: now,
            pending: Vec::new(),
            settings: Arc::new(Settings::default()),
            standing: PlansAtHand::default(),
            rehearsal_stale: false,
            objecting: None,
            round: None,
            place_again: None,
            relevant: Relevant::default(),
            emptied: BTreeSet::new(),
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
                self.datastores.values_mut().for_each(|datastore| datastore.own_hold_mut().on_guard_lost());
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
                for datastore in self.datastores.values_mut() {
                    datastore.claims_mut().on_vm_done(op, &outcome, &mut out);
                }
            }
            Input::VmWaits { op, why } => {
                let name =
                    self.datastores.values_mut().find_map(|datastore| datastore.claims_mut().on_waits(op));
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
        self.hosts.ping_the_quiet(&self.election, &self.config.timing, out);
        let contact = self.hosts.contact(&self.election, &self.config.timing, out.now);
        self.isolation.tick(contact.alone, contact.quiet, &self.config.timing, out);
        self.judge(out);
        self.choose_heartbeat_datastores(out);
        self.announce(out);
        self.vms.on_tick(&self.config.datastores, out);
        self.tick_datastores(out);
        self.review(out);
        self.rehearse(out);
        self.answer_operators(out);
        self.tell_of_releases(out);
        self.send_heartbeat(out);
        self.instruct_guard(out);
    }

    fn on_guard(&mut self, report: GuardReport, out: &mut Out<'_>) {
        let foreign = |name: &DatastoreName| !self.datastores.contains_key(name);
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
                for datastore in self.datastores.values_mut() {
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
                for datastore in self.datastores.values_mut() {
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
        for (name, datastore) in &mut self.datastores {
            if let Some(until) = datastore.ownership().lease_end() {
                self.guard.pass(name, until, out);
            }
            datastore.decide_own_hold(out);
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
        for datastore in self.datastores.values() {
            due = due.min(datastore.deadline(self.vms.domains().is_none(), self.now));
        }
        let placing = self.place_again.into_iter().chain(self.rehearsal_deadline());
        let due = placing.fold(due, Time::min);
        let due = due.min(self.isolation.deadline(timing));
        due.min(self.vms.deadline()).min(self.guard.deadline())
    }

    /// R16: the election and the datastores give others the time to be heard again.
    fn notice_standstill(&mut self, now: Time) {
        if self.hosts.notice_standstill(self.now, now, &self.config.timing) {
            self.election.go_on(&self.config.timing, now);
            for datastore in self.datastores.values_mut() {
                datastore.on_awake(now);
            }
        }
    }

    /// What the datastores show of the other hosts goes into the judgements, and these into the reviews.
    fn judge(&mut self, out: &mut Out<'_>) {
        let (datastores, timing, now) = (&self.datastores, &self.config.timing, out.now);
        let evidence = |host: &HostId| {
            let mirrors = datastores.values().map(Datastore::mirror);
            DiskEvidence::of_all(mirrors.filter_map(|mirror| mirror.evidence(host, timing, now)))
        };
        if self.hosts.judge(&self.election, evidence, &self.config.timing, out) {
            for datastore in self.datastores.values_mut() {
                datastore.want_review();
            }
        }
    }

    /// Somebody is silent who was not judged for it yet, or a datastore is still to be owned.
    fn is_suspicious(&self, now: Time) -> bool {
        let unowned = || self.datastores.values().any(|store| store.is_connected() && store.list().is_none());
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
        let serves = !self.settings.maintenance.contains_key(&self.config.me);
        let connected =
            self.datastores.values().filter(|datastore| datastore.is_connected() && serves).count();
        Rank { datastores: connected as u32, host: self.config.me.clone() }
    }

    fn owned(&self, now: Time) -> u32 {
        self.datastores.values().filter(|datastore| datastore.ownership().epoch(now).is_some()).count() as u32
    }

    fn tick_election(&mut self, out: &mut Out<'_>) {
        let rank = self.rank();
        let owned = self.owned(out.now);
        let maintenance = &self.settings.maintenance;
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
        let owned = |datastore: &&Datastore| datastore.ownership().epoch(now).is_some();
        let mut lists = self.datastores.values().filter(owned).filter_map(|datastore| datastore.list());
        self.election.is_primary()
            && self.settings.maintenance.contains_key(&self.config.me)
            && best_member > 0
            && self.pending.is_empty()
            && lists.all(|list| list.has_written(self.settings.revision))
    }

    /// Says once that the agent has begun, when the first datastore has told whether the host rebooted.
    fn announce(&mut self, out: &mut Out<'_>) {
        let known = self.datastores.values().filter_map(Datastore::rebooted);
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
        let waiting = self.datastores.values().find(|datastore| datastore.expects(op));
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
        for datastore in self.datastores.values_mut() {
            datastore.release("the agent stops", out);
        }
    }
}
