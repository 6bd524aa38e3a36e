//! One datastore, as one host deals with it: its own heartbeat and power-on list, what it reads of the others, the
//! ownership, and the protected list if it owns it.
//!
//! Invariant: at most one write of each own register is under way, so that writes of a register never overtake each other.
//! A hung datastore therefore holds a bounded number of operations, and blocks no other datastore.

use crate::claims::{Claims, HostSide, Look};
use crate::config::Config;
use crate::effect::DiskAction;
use crate::event::Event;
use crate::ids::{DatastoreName, Epoch, HostId, Incarnation, OpId};
use crate::input::{DiskOutcome, ReadRegister};
use crate::out::Out;
use crate::ownership::{Blocks, Next, Ownership, Sighting, Stage};
use crate::peers::DiskEvidence;
use crate::protected_list::{OwnerList, PowerOnSeen};
use crate::register::{
    HeartbeatRegister, LIST_REGIONS, ListStamp, OwnershipBlock, PowerOnList, ProtectedList, RegisterId,
    RegisterValue,
};
use crate::time::{Span, Time};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// What a read is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Purpose {
    /// This host's own registers, at the start.
    Open,
    /// Heartbeats and ownership blocks of others.
    Scan,
    /// Power-on lists of others.
    PowerOn,
    /// All ownership blocks and the protected list, for this host's claims.
    Look,
    /// All ownership blocks, between two steps of the consensus.
    Consensus,
    /// Former protected lists and all power-on lists, for a new epoch.
    TakeOver,
}

#[derive(Clone, Debug)]
struct Read {
    purpose: Purpose,
    started: Time,
}

#[derive(Clone, Debug)]
struct HeartbeatWriter {
    register: HeartbeatRegister,
    in_flight: Option<(OpId, Time)>,
    due: Time,
    last_written: Option<Time>,
}

#[derive(Clone, Debug)]
struct PowerOnWriter {
    version: u64,
    in_flight: Option<(OpId, PowerOnList)>,
    durable: Option<PowerOnList>,
    durable_at: Time,
    retry: Time,
}

/// A datastore.
#[derive(Clone, Debug)]
pub(crate) struct Datastore {
    pub(crate) name: DatastoreName,
    me: HostId,
    peers: Vec<HostId>,
    config: Config,
    open: bool,
    open_due: Time,
    reads: BTreeMap<OpId, Read>,
    heartbeat: HeartbeatWriter,
    power_on: PowerOnWriter,
    pub(crate) connected: bool,
    pub(crate) error: Option<Arc<str>>,
    heartbeats: BTreeMap<HostId, Option<Sighting<Option<HeartbeatRegister>>>>,
    blocks: Blocks,
    pub(crate) seen_power_on: BTreeMap<HostId, PowerOnSeen>,
    /// Peers whose power-on list should be read, for a hint or an intent.
    wanted_power_on: BTreeSet<HostId>,
    scan_due: Time,
    resync_due: Time,
    look_due: Time,
    pub(crate) look: Option<Look>,
    lists_hint: Option<ListStamp>,
    pub(crate) ownership: Ownership,
    own_write: Option<(OpId, Time)>,
    own_dirty: bool,
    lapse_told: bool,
    pub(crate) list: Option<OwnerList>,
    list_write: Option<OpId>,
    take_over_due: Option<Time>,
    pub(crate) claims: Claims,
    pub(crate) review_wanted: bool,
    /// The version of this host's power-on list changed on disk: worth a heartbeat at once.
    pub(crate) power_on_changed: bool,
    pub(crate) unreadable: u64,
    unreadable_told: BTreeMap<RegisterId, Arc<str>>,
    /// When this run of the agent began.
    begun: Time,
    /// People know that the datastore is out of reach.
    lost_told: bool,
    /// When the owner's decisions were last made.
    pub(crate) reviewed: Time,
    /// Whether the host has booted since its power-on list was last written; `None` while that is not read.
    pub(crate) rebooted: Option<bool>,
}

/// The rest of the host, as a datastore needs to see it in one step.
pub(crate) struct Around<'a> {
    /// This host is primary.
    pub(crate) primary: bool,
    /// It follows a primary that it hears.
    pub(crate) secondary: bool,
    /// Somebody is silent: look more closely.
    pub(crate) suspicious: bool,
    pub(crate) host: HostSide<'a>,
}

impl Datastore {
    pub(crate) fn new(name: DatastoreName, config: &Config, now: Time) -> Datastore {
        let (boot, incarnation) = (config.boot, config.incarnation);
        Datastore {
            name: name.clone(),
            me: config.me.clone(),
            peers: config.peers.clone(),
            config: config.clone(),
            open: false,
            open_due: now,
            reads: BTreeMap::new(),
            heartbeat: HeartbeatWriter {
                register: HeartbeatRegister { boot, incarnation, counter: 0, agent_well: true },
                in_flight: None,
                due: now,
                last_written: None,
            },
            power_on: PowerOnWriter {
                version: 0,
                in_flight: None,
                durable: None,
                durable_at: now,
                retry: now,
            },
            connected: false,
            error: None,
            heartbeats: config.peers.iter().map(|host| (host.clone(), None)).collect(),
            blocks: config.peers.iter().map(|host| (host.clone(), None)).collect(),
            seen_power_on: BTreeMap::new(),
            wanted_power_on: BTreeSet::new(),
            scan_due: now,
            resync_due: now,
            look_due: now,
            look: None,
            lists_hint: None,
            ownership: Ownership::new(config.me.clone(), boot, incarnation, None),
            own_write: None,
            own_dirty: false,
            lapse_told: false,
            list: None,
            list_write: None,
            take_over_due: None,
            claims: Claims::new(name, config.me.clone(), Vec::new(), false, now),
            review_wanted: false,
            power_on_changed: false,
            unreadable: 0,
            unreadable_told: BTreeMap::new(),
            begun: now,
            lost_told: false,
            reviewed: now,
            rebooted: None,
        }
    }

    fn read(&mut self, purpose: Purpose, registers: Vec<RegisterId>, out: &mut Out<'_>) {
        let op = out.disk(&self.name, DiskAction::Read(registers));
        self.reads.insert(op, Read { purpose, started: out.now });
    }

    fn reading(&self, purpose: &Purpose) -> bool {
        self.reads.values().any(|read| read.purpose == *purpose)
    }

    fn write(&self, value: RegisterValue, out: &mut Out<'_>) -> OpId {
        let id = match &value {
            RegisterValue::Heartbeat(_) => RegisterId::Heartbeat(self.me.clone()),
            RegisterValue::PowerOn(_) => RegisterId::PowerOn(self.me.clone()),
            RegisterValue::Ownership(_) => RegisterId::Ownership(self.me.clone()),
            RegisterValue::ProtectedList(list) => RegisterId::ProtectedList(list.epoch),
        };
        out.disk(&self.name, DiskAction::Write(id, value))
    }

    /// The epoch and owner that this host believes in.
    pub(crate) fn present_owner(&self) -> Option<(Epoch, HostId)> {
        self.ownership.present_owner(&self.blocks)
    }

    /// The version of this host's power-on list on disk.
    pub(crate) fn power_on_version(&self) -> Option<u64> {
        self.power_on.durable.as_ref().map(|list| list.version)
    }

    /// What is known of a host from this datastore: `None` when it can't be read.
    pub(crate) fn evidence(&self, host: &HostId, now: Time) -> Option<DiskEvidence> {
        let sighting = self.heartbeats.get(host)?.as_ref()?;
        if now.since(sighting.last_read) > self.config.timing.failure_timeout {
            return None;
        }
        let block = self.blocks.get(host).and_then(Option::as_ref);
        // An ownership block that moves is as good a sign of life as a heartbeat.
        let block_changed = block.filter(|block| block.value.is_some()).map(|block| block.first_seen);
        let changed = sighting.value.is_some().then_some(sighting.first_seen).max(block_changed);
        let still = block.map_or(sighting.still(), |block| {
            if now.since(block.last_read) > self.config.timing.failure_timeout {
                sighting.still()
            } else {
                sighting.still().min(block.still())
            }
        });
        let isolation_flag = self.seen_power_on.get(host).is_some_and(|seen| seen.list.isolated);
        Some(DiskEvidence { still: Some(still), changed, isolation_flag })
    }

    /// The run of that host's agent that beats here.
    pub(crate) fn heartbeat_incarnation(&self, host: &HostId) -> Option<Incarnation> {
        let sighting = self.heartbeats.get(host)?.as_ref()?;
        sighting.value.as_ref().map(|register| register.incarnation)
    }

    /// For each peer: when the last answered read of its heartbeat register was started.
    pub(crate) fn heartbeat_reads(&self) -> BTreeMap<HostId, Time> {
        let read = |(host, sighting): (&HostId, &Option<Sighting<_>>)| {
            Some((host.clone(), sighting.as_ref()?.last_read))
        };
        self.heartbeats.iter().filter_map(read).collect()
    }

    /// All power-on lists, this host's own included.
    pub(crate) fn power_on_lists(&self, now: Time) -> BTreeMap<HostId, PowerOnSeen> {
        let mut lists = self.seen_power_on.clone();
        if let Some(durable) = &self.power_on.durable {
            lists.insert(self.me.clone(), PowerOnSeen { list: durable.clone(), started: now });
        }
        lists
    }

    /// A hint by network: that host's power-on list has this version.
    pub(crate) fn on_power_on_hint(&mut self, host: &HostId, version: u64) {
        if self.seen_power_on.get(host).is_none_or(|seen| seen.list.version != version) {
            self.wanted_power_on.insert(host.clone());
        }
    }

    /// A hint by network: the owner has written this version of the list.
    pub(crate) fn on_list_hint(&mut self, stamp: ListStamp) {
        let seen = self.look.as_ref().map(|look| look.list.stamp());
        if seen.is_none_or(|seen| seen < stamp) {
            self.lists_hint = self.lists_hint.max(Some(stamp));
            self.claims.look_wanted = true;
        }
    }

    /// Time has passed, or something happened elsewhere.
    pub(crate) fn on_tick(&mut self, around: &Around<'_>, out: &mut Out<'_>) {
        if !self.connected && out.now.since(self.begun) >= self.config.timing.lease {
            let reason = self
                .error
                .clone()
                .unwrap_or_else(|| "nothing has come back from it since the agent started".into());
            self.tell_lost(reason, out);
        }
        if !self.open {
            if out.now >= self.open_due && self.reads.is_empty() {
                self.open_due = out.now + self.config.timing.heartbeat;
                let me = self.me.clone();
                let own = [
                    RegisterId::Heartbeat(me.clone()),
                    RegisterId::PowerOn(me.clone()),
                    RegisterId::Ownership(me),
                ];
                self.read(Purpose::Open, own.to_vec(), out);
            }
            return;
        }
        self.beat(out);
        self.scan(around, out);
        self.own(around, out);
        self.claims.reconcile(self.look.as_ref(), &around.host, out);
        self.look_if_wanted(around, out);
        self.write_power_on(out);
        self.write_list(out);
    }

    fn beat(&mut self, out: &mut Out<'_>) {
        let timing = self.config.timing;
        if self.heartbeat.in_flight.is_none() && out.now >= self.heartbeat.due {
            self.heartbeat.register.counter += 1;
            self.heartbeat.due = out.now + timing.heartbeat;
            let op = self.write(RegisterValue::Heartbeat(self.heartbeat.register.clone()), out);
            self.heartbeat.in_flight = Some((op, out.now));
        }
        let fresh = self.heartbeat.last_written.is_some_and(|at| out.now.since(at) < timing.lease);
        if self.connected && !fresh {
            self.set_connected(false, Some("its heartbeat writes do not come back".into()), out);
        }
    }

    fn set_connected(&mut self, connected: bool, error: Option<Arc<str>>, out: &mut Out<'_>) {
        if connected {
            self.error = None;
        } else if error.is_some() {
            self.error = error.clone();
        }
        if self.connected == connected {
            return;
        }
        self.connected = connected;
        if connected {
            self.lost_told = false;
            out.event(Event::DatastoreBack { datastore: self.name.clone() });
        } else {
            self.tell_lost(error.unwrap_or_else(|| "unknown".into()), out);
        }
    }

    fn tell_lost(&mut self, reason: Arc<str>, out: &mut Out<'_>) {
        if !core::mem::replace(&mut self.lost_told, true) {
            out.event(Event::DatastoreLost { datastore: self.name.clone(), reason });
        }
    }

    /// Reads what has to be watched: everybody for a primary or a candidate, else only the owner.
    fn scan(&mut self, around: &Around<'_>, out: &mut Out<'_>) {
        let timing = self.config.timing;
        if out.now >= self.scan_due && !self.reading(&Purpose::Scan) {
            let interval = if around.suspicious { timing.close_look() } else { timing.heartbeat };
            self.scan_due = out.now + interval;
            let owner = self.present_owner().map(|(_, host)| host).filter(|host| *host != self.me);
            let whom: Vec<HostId> = match owner {
                Some(owner) if around.secondary && !around.suspicious => [owner].to_vec(),
                Some(_) | None => self.peers.clone(),
            };
            let registers: Vec<RegisterId> = whom
                .into_iter()
                .flat_map(|host| [RegisterId::Heartbeat(host.clone()), RegisterId::Ownership(host)])
                .collect();
            if !registers.is_empty() {
                self.read(Purpose::Scan, registers, out);
            }
        }
        let owns = self.list.is_some();
        if owns && out.now >= self.resync_due {
            self.resync_due = out.now + timing.resync();
            self.wanted_power_on.extend(self.peers.iter().cloned());
        }
        if owns && !self.wanted_power_on.is_empty() && !self.reading(&Purpose::PowerOn) {
            let wanted = core::mem::take(&mut self.wanted_power_on);
            // With the heartbeat: a take-over is confirmed only after both were read once more (R41).
            let registers = wanted
                .into_iter()
                .flat_map(|host| [RegisterId::Heartbeat(host.clone()), RegisterId::PowerOn(host)])
                .collect();
            self.read(Purpose::PowerOn, registers, out);
        }
    }

    /// The owner wants that host's registers read again, by a read that starts after now.
    pub(crate) fn want_power_on(&mut self, host: &HostId) {
        if *host != self.me {
            self.wanted_power_on.insert(host.clone());
        }
    }

    fn own(&mut self, around: &Around<'_>, out: &mut Out<'_>) {
        let timing = self.config.timing;
        if around.primary && self.connected {
            if self.own_write.is_none() && !self.reading(&Purpose::Consensus) {
                let next = self.ownership.contend(&self.blocks, &timing, out.now);
                self.carry_out(next, out);
            }
        } else if !around.primary {
            self.release("this host is not primary any more", out);
        }
        if self.ownership.take_beat(&timing, out.now) {
            self.own_dirty = true;
        }
        if let (Some(list), None, false) = (&self.list, self.ownership.epoch(out.now), self.lapse_told) {
            self.lapse_told = true;
            let reason = "its beats as owner do not come back in time".into();
            out.event(Event::OwnershipLost { datastore: self.name.clone(), epoch: list.epoch(), reason });
        }
        self.write_block(out);
        if self.take_over_due.is_some_and(|due| out.now >= due) && !self.reading(&Purpose::TakeOver) {
            self.read_for_take_over(out);
        }
    }

    fn write_block(&mut self, out: &mut Out<'_>) {
        if self.own_dirty && self.own_write.is_none() {
            self.own_dirty = false;
            let op = self.write(RegisterValue::Ownership(self.ownership.block.clone()), out);
            self.own_write = Some((op, out.now));
        }
    }

    /// Gives the ownership up.
    pub(crate) fn release(&mut self, reason: &str, out: &mut Out<'_>) {
        let epoch = self.ownership.block.instance;
        if self.ownership.release() {
            self.own_dirty = true;
            if !self.lapse_told {
                out.event(Event::OwnershipLost {
                    datastore: self.name.clone(),
                    epoch,
                    reason: reason.into(),
                });
            }
        }
        self.list = None;
        self.list_write = None;
        self.take_over_due = None;
        self.write_block(out);
    }

    fn carry_out(&mut self, next: Next, out: &mut Out<'_>) {
        match next {
            Next::Nothing => {}
            Next::Write => {
                self.own_dirty = true;
                self.write_block(out);
            }
            Next::ReadAll => {
                let registers = self.peers.iter().cloned().map(RegisterId::Ownership).collect();
                if self.peers.is_empty() {
                    let next = self.ownership.on_all_read(&BTreeMap::new(), &self.config.timing, out.now);
                    return self.carry_out(next, out);
                }
                self.read(Purpose::Consensus, registers, out);
            }
            Next::Begun { former } => self.begin_epoch(former, out),
            Next::Ended { reason } => {
                if let Some(list) = self.list.take() {
                    let epoch = list.epoch();
                    out.event(Event::OwnershipLost { datastore: self.name.clone(), epoch, reason });
                }
                self.list_write = None;
                self.take_over_due = None;
            }
        }
    }

    fn begin_epoch(&mut self, former: Option<HostId>, out: &mut Out<'_>) {
        let epoch = self.ownership.block.instance;
        self.lapse_told = false;
        out.event(Event::OwnershipAcquired { datastore: self.name.clone(), epoch, former });
        if self.list.as_ref().is_some_and(|list| list.epoch() == epoch) {
            // It had lapsed and goes on in the same epoch: nobody else was owner in between.
            self.wanted_power_on.extend(self.peers.iter().cloned());
            self.review_wanted = true;
            return;
        }
        self.list = None;
        self.read_for_take_over(out);
    }

    fn read_for_take_over(&mut self, out: &mut Out<'_>) {
        let epoch = self.ownership.block.instance;
        self.take_over_due = None;
        let first = epoch.0.saturating_sub(LIST_REGIONS).max(1);
        let mut registers: Vec<RegisterId> =
            (first..epoch.0.max(first)).map(|epoch| RegisterId::ProtectedList(Epoch(epoch))).collect();
        registers.extend(self.peers.iter().cloned().map(RegisterId::PowerOn));
        if registers.is_empty() {
            return self.take_over(None, out);
        }
        self.read(Purpose::TakeOver, registers, out);
    }

    fn take_over(&mut self, former: Option<ProtectedList>, out: &mut Out<'_>) {
        let epoch = self.ownership.block.instance;
        if self.ownership.epoch(out.now) != Some(epoch) {
            self.take_over_due = Some(out.now + self.config.timing.close_look());
            return;
        }
        let lists = self.power_on_lists(out.now);
        self.list = Some(OwnerList::take_over(self.name.clone(), epoch, former, &lists, out.now));
        self.review_wanted = true;
        self.write_list(out);
    }

    fn look_if_wanted(&mut self, around: &Around<'_>, out: &mut Out<'_>) {
        let timing = self.config.timing;
        if self.reading(&Purpose::Look) || !(self.claims.look_wanted || out.now >= self.look_due) {
            return;
        }
        // An inconclusive look (an epoch is about to change) is not repeated in a tight loop.
        let hasty = self.look.as_ref().is_some_and(|look| look.changing)
            && out.now.since(self.look.as_ref().map_or(Time(0), |look| look.started)) < timing.close_look();
        if hasty && out.now < self.look_due {
            return;
        }
        self.claims.look_wanted = false;
        let relaxed = around.secondary || around.primary;
        self.look_due = out.now + if relaxed { timing.resync() } else { timing.heartbeat };
        let mut registers: Vec<RegisterId> = self.peers.iter().cloned().map(RegisterId::Ownership).collect();
        let epoch =
            self.present_owner().map(|(epoch, _)| epoch).max(self.lists_hint.map(|stamp| stamp.epoch));
        registers.extend(epoch.map(RegisterId::ProtectedList));
        if registers.is_empty() {
            return;
        }
        self.read(Purpose::Look, registers, out);
    }

    fn write_power_on(&mut self, out: &mut Out<'_>) {
        if !self.claims.dirty || self.power_on.in_flight.is_some() || out.now < self.power_on.retry {
            return;
        }
        self.claims.dirty = false;
        self.power_on.version += 1;
        let list = PowerOnList {
            boot: self.config.boot,
            incarnation: self.config.incarnation,
            version: self.power_on.version,
            isolated: false,
            list_seen: self.look.as_ref().map(|look| look.list.stamp()),
            claims: self.claims.snapshot(),
        };
        let op = self.write(RegisterValue::PowerOn(list.clone()), out);
        self.power_on.in_flight = Some((op, list));
    }

    pub(crate) fn write_list(&mut self, out: &mut Out<'_>) {
        // R20: an owner writes only within its ownership.
        if self.ownership.epoch(out.now).is_none() || self.list_write.is_some() {
            return;
        }
        let Some(list) = &mut self.list else { return };
        if let Some(list) = list.take_write(&self.me) {
            self.list_write = Some(self.write(RegisterValue::ProtectedList(list), out));
        }
    }

    /// Whether that operation is one of this datastore's.
    pub(crate) fn expects(&self, op: OpId) -> bool {
        self.reads.contains_key(&op)
            || self.heartbeat.in_flight.is_some_and(|(id, _)| id == op)
            || self.own_write.is_some_and(|(id, _)| id == op)
            || self.power_on.in_flight.as_ref().is_some_and(|(id, _)| *id == op)
            || self.list_write == Some(op)
    }

    /// Age of this host's own last heartbeat here.
    pub(crate) fn heartbeat_age(&self, now: Time) -> Option<Span> {
        self.heartbeat.last_written.map(|at| now.since(at))
    }

    /// A disk operation of this datastore is done. Returns the hosts that should hear of a new protected list.
    pub(crate) fn on_disk_done(
        &mut self,
        op: OpId,
        outcome: DiskOutcome,
        around: &Around<'_>,
        out: &mut Out<'_>,
    ) -> BTreeSet<HostId> {
        if let Some(read) = self.reads.remove(&op) {
            self.on_read(read, outcome, around, out);
            return BTreeSet::new();
        }
        let failure = match &outcome {
            DiskOutcome::Failed(reason) => Some(reason.clone()),
            DiskOutcome::Written | DiskOutcome::Read(_) => None,
        };
        if let Some((_, started)) = self.heartbeat.in_flight.take_if(|(id, _)| *id == op) {
            self.on_heartbeat_written(started, failure, out);
        } else if let Some((_, started)) = self.own_write.take_if(|(id, _)| *id == op) {
            let timing = self.config.timing;
            let next = match failure {
                None => self.ownership.on_written(started, &timing, out.now),
                Some(_) => {
                    self.own_dirty |= matches!(self.ownership.stage, Stage::Idle { .. });
                    self.ownership.on_write_failed(&timing, out.now)
                }
            };
            self.carry_out(next, out);
        } else if let Some((_, list)) = self.power_on.in_flight.take_if(|(id, _)| *id == op) {
            self.on_power_on_written(list, failure.is_none(), out);
        } else if self.list_write.take_if(|id| *id == op).is_some()
            && let Some(list) = &mut self.list
        {
            self.review_wanted = true;
            if failure.is_some() {
                list.on_write_failed();
                return BTreeSet::new();
            }
            let concerned = list.on_written(out);
            self.claims.look_wanted = true;
            // Whoever is to lose a VM is read once more, by a read that starts now.
            let losing: Vec<HostId> = list
                .entries()
                .filter(|(entry, _)| entry.intent.is_some())
                .filter_map(|(entry, _)| entry.holder.clone())
                .collect();
            for host in losing {
                self.want_power_on(&host);
            }
            return concerned;
        }
        BTreeSet::new()
    }

    fn on_heartbeat_written(&mut self, started: Time, failure: Option<Arc<str>>, out: &mut Out<'_>) {
        match failure {
            None => {
                self.heartbeat.last_written = Some(started);
                if out.now.since(started) < self.config.timing.lease {
                    self.set_connected(true, None, out);
                }
            }
            Some(reason) => {
                self.error = Some(reason.clone());
                let fresh = self
                    .heartbeat
                    .last_written
                    .is_some_and(|at| out.now.since(at) < self.config.timing.lease);
                if !fresh {
                    self.set_connected(false, Some(reason), out);
                }
            }
        }
    }

    fn on_power_on_written(&mut self, list: PowerOnList, written: bool, out: &mut Out<'_>) {
        if !written {
            self.claims.dirty = true;
            self.power_on.retry = out.now + self.config.timing.close_look();
            return;
        }
        self.claims.on_durable(&list.claims, out.now);
        self.power_on.durable = Some(list);
        self.power_on.durable_at = out.now;
        self.power_on_changed = true;
        self.review_wanted = true;
    }

    fn on_read(&mut self, read: Read, outcome: DiskOutcome, around: &Around<'_>, out: &mut Out<'_>) {
        let registers = match outcome {
            DiskOutcome::Read(registers) => registers,
            DiskOutcome::Failed(reason) => {
                self.error.get_or_insert(reason);
                self.on_read_failed(&read, out);
                return;
            }
            DiskOutcome::Written => return,
        };
        if read.purpose == Purpose::Open {
            return self.on_open(registers, out);
        }
        let mut lists = Vec::new();
        let mut complete = true;
        for (id, value) in registers {
            let value = match value {
                ReadRegister::Value(value) => Some(value),
                ReadRegister::Missing => None,
                ReadRegister::Unreadable(reason) => {
                    self.on_unreadable(&id, reason, out);
                    // A damaged list counts as none: the power-on lists stand in for it. A damaged block must not.
                    complete &= matches!(id, RegisterId::ProtectedList(_));
                    continue;
                }
            };
            self.unreadable_told.remove(&id);
            self.take_in(&id, value, &read, &mut lists, out.now);
        }
        let newest = lists.into_iter().max_by_key(ProtectedList::stamp);
        match read.purpose {
            Purpose::Open => {}
            Purpose::Scan | Purpose::PowerOn => self.review_wanted = true,
            Purpose::Look => self.on_look(&read, newest, complete, around, out),
            Purpose::Consensus => {
                let timing = self.config.timing;
                let next = if complete {
                    let block = |(host, sighting): (&HostId, &Option<Sighting<Option<OwnershipBlock>>>)| {
                        (host.clone(), sighting.as_ref().and_then(|sighting| sighting.value.clone()))
                    };
                    let blocks = self.blocks.iter().map(block).collect();
                    self.ownership.on_all_read(&blocks, &timing, out.now)
                } else {
                    self.ownership.on_read_failed(&timing, out.now)
                };
                self.carry_out(next, out);
            }
            Purpose::TakeOver => {
                let epoch = self.ownership.block.instance;
                if self.ownership.epoch(out.now).is_none() || self.list.is_some() {
                    return;
                }
                if !complete {
                    self.take_over_due = Some(out.now + self.config.timing.heartbeat);
                    return;
                }
                let former = newest.filter(|list| list.epoch < epoch);
                self.take_over(former, out);
            }
        }
    }

    fn take_in(
        &mut self,
        id: &RegisterId,
        value: Option<RegisterValue>,
        read: &Read,
        lists: &mut Vec<ProtectedList>,
        now: Time,
    ) {
        match (id, value) {
            (RegisterId::Heartbeat(host), value) => {
                let value = match value {
                    Some(RegisterValue::Heartbeat(register)) => Some(register),
                    Some(_) | None => None,
                };
                if let Some(slot) = self.heartbeats.get_mut(host) {
                    Sighting::update(slot, value, read.started, now);
                }
            }
            (RegisterId::Ownership(host), value) => {
                let value = match value {
                    Some(RegisterValue::Ownership(block)) => Some(block),
                    Some(_) | None => None,
                };
                if let Some(slot) = self.blocks.get_mut(host) {
                    Sighting::update(slot, value, read.started, now);
                }
            }
            (RegisterId::PowerOn(host), Some(RegisterValue::PowerOn(list))) => {
                let newer = self.seen_power_on.get(host).is_none_or(|seen| seen.started <= read.started);
                if newer {
                    self.seen_power_on.insert(host.clone(), PowerOnSeen { list, started: read.started });
                }
            }
            (RegisterId::ProtectedList(_), Some(RegisterValue::ProtectedList(list))) => lists.push(list),
            (RegisterId::PowerOn(_) | RegisterId::ProtectedList(_), _) => {}
        }
    }

    fn on_unreadable(&mut self, id: &RegisterId, reason: Arc<str>, out: &mut Out<'_>) {
        self.unreadable += 1;
        if self.unreadable_told.insert(id.clone(), reason.clone()).as_ref() != Some(&reason) {
            let register = match id {
                RegisterId::Heartbeat(host) => alloc::format!("{host}-hb"),
                RegisterId::PowerOn(host) => alloc::format!("{host}-poweron"),
                RegisterId::Ownership(host) => alloc::format!("{host}-owner"),
                RegisterId::ProtectedList(epoch) => alloc::format!("protectedlist (epoch {epoch})"),
            };
            let datastore = self.name.clone();
            out.event(Event::RegisterUnreadable { datastore, register: register.into(), reason });
        }
    }

    fn on_read_failed(&mut self, read: &Read, out: &mut Out<'_>) {
        let timing = self.config.timing;
        match read.purpose {
            Purpose::Consensus => {
                let next = self.ownership.on_read_failed(&timing, out.now);
                self.carry_out(next, out);
            }
            Purpose::TakeOver => self.take_over_due = Some(out.now + timing.close_look()),
            Purpose::Look => {
                self.claims.look_wanted = self.claims.waits_for_look();
                self.look_due = self.look_due.min(out.now + timing.heartbeat);
            }
            Purpose::PowerOn => self.resync_due = self.resync_due.min(out.now + timing.heartbeat),
            Purpose::Open | Purpose::Scan => {}
        }
    }

    fn on_open(&mut self, registers: Vec<(RegisterId, ReadRegister)>, out: &mut Out<'_>) {
        let mut found = Vec::new();
        let mut rebooted = false;
        for (id, register) in registers {
            match register {
                ReadRegister::Value(RegisterValue::Heartbeat(register)) => {
                    self.heartbeat.register.counter = register.counter;
                }
                ReadRegister::Value(RegisterValue::PowerOn(list)) => {
                    rebooted = list.boot != self.config.boot;
                    self.power_on.version = list.version;
                    found = list.claims;
                }
                ReadRegister::Value(RegisterValue::Ownership(block)) => {
                    let (boot, incarnation) = (self.config.boot, self.config.incarnation);
                    self.ownership = Ownership::new(self.me.clone(), boot, incarnation, Some(block));
                }
                ReadRegister::Value(RegisterValue::ProtectedList(_)) | ReadRegister::Missing => {}
                ReadRegister::Unreadable(reason) => {
                    self.on_unreadable(&id, reason, out);
                    // Others can't contend past a block that nobody can read: write a good one.
                    self.own_dirty |= matches!(id, RegisterId::Ownership(_));
                }
            }
        }
        self.open = true;
        self.rebooted = Some(rebooted);
        self.claims = Claims::new(self.name.clone(), self.me.clone(), found, rebooted, out.now);
    }

    fn on_look(
        &mut self,
        read: &Read,
        newest: Option<ProtectedList>,
        complete: bool,
        around: &Around<'_>,
        out: &mut Out<'_>,
    ) {
        let Some((epoch, _)) = self.present_owner() else { return };
        let others = self.blocks.values().flatten().filter_map(|sighting| sighting.value.as_ref());
        let contended = others
            .chain([&self.ownership.block])
            .any(|block| block.instance > epoch && block.accepted.is_some());
        match newest {
            Some(list) if list.epoch == epoch && complete => {
                let before = self.look.as_ref().map(|look| look.list.stamp());
                if before != Some(list.stamp()) {
                    // Worth telling the owner: a grant that was seen and is not claimed has been declined.
                    self.claims.dirty |=
                        list.entries.iter().any(|entry| entry.holder.as_ref() == Some(&self.me));
                }
                self.look = Some(Look { started: read.started, list, changing: contended });
                self.claims.reconcile(self.look.as_ref(), &around.host, out);
            }
            Some(_) | None => {
                // The list of the present epoch is still to be written, or was looked for under a former epoch.
                if let Some(look) = &mut self.look {
                    look.changing = true;
                    look.started = read.started;
                }
                self.look_due = out.now + self.config.timing.close_look();
            }
        }
        if self.look.as_ref().is_some_and(|look| look.changing) && self.claims.waits_for_look() {
            self.look_due = self.look_due.min(out.now + self.config.timing.close_look());
        }
    }

    /// When to tick next, for this datastore.
    pub(crate) fn deadline(&self, now: Time) -> Time {
        if !self.open {
            let told = if self.lost_told { Time(u64::MAX) } else { self.begun + self.config.timing.lease };
            return if self.reads.is_empty() { self.open_due.min(told) } else { told };
        }
        let timing = self.config.timing;
        let mut due =
            if self.connected || self.lost_told { Time(u64::MAX) } else { self.begun + timing.lease };
        let mut at = |time: Time| due = due.min(time);
        if self.heartbeat.in_flight.is_none() {
            at(self.heartbeat.due);
        }
        if let (true, Some(last)) = (self.connected, self.heartbeat.last_written) {
            at(last + timing.lease);
        }
        if !self.reading(&Purpose::Scan) {
            at(self.scan_due);
        }
        if self.list.is_some() && !self.reading(&Purpose::PowerOn) {
            at(self.resync_due);
        }
        if !self.reading(&Purpose::Look) {
            at(self.look_due);
        }
        match self.ownership.stage {
            Stage::Owned { lease_end } => {
                if self.own_write.is_none() {
                    at(self.ownership.beat_due);
                }
                if now < lease_end {
                    at(lease_end);
                }
            }
            Stage::Idle { .. } | Stage::Writing(_) | Stage::Reading(_) => {}
        }
        if self.claims.dirty && self.power_on.in_flight.is_none() {
            at(self.power_on.retry);
        }
        for time in [self.take_over_due, self.claims.deadline()].into_iter().flatten() {
            at(time);
        }
        if let Some(time) = self.list.as_ref().and_then(|list| list.deadline(&timing, now)) {
            at(time);
        }
        due
    }

    /// What is wrong with the datastore, if anything is.
    pub(crate) fn problem(&self) -> Option<Arc<str>> {
        if self.connected {
            None
        } else {
            self.error.clone().or_else(|| Some("not reached yet".to_string().into()))
        }
    }
}
