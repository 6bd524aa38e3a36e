//! One datastore, as one host deals with it: its own heartbeat and power-on list, what it reads of the others, the
//! ownership, and the protected list if it owns it.
//!
//! Invariant: at most one write of each own register is under way, so that writes of a register never overtake each other.
//! A hung datastore therefore holds a bounded number of operations, and blocks no other datastore.

mod epochs;
mod reach;
pub(crate) mod reads;
mod writes;

use crate::claims::{Claims, HostSide, Look};
use crate::config::Config;
use crate::effect::DiskAction;
use crate::event::Event;
use crate::ids::{DatastoreName, Epoch, HostId, OpId, VmId};
use crate::input::{DiskOutcome, ReadRegister};
use crate::local_vms::Domains;
use crate::out::Out;
use crate::ownership::{Beginning, Epochs, Next, Recovered};
use crate::protected_list::OwnerList;
use crate::register::{ListStamp, PowerOnList, ProtectedList, RegisterId, RegisterValue};
use crate::store::{HeartbeatShown, Mirror, PowerOnSeen, file_of};
use crate::suspension::{OtherHolds, OwnHold};
use crate::time::{Span, Time};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// What a read is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
    TakeOver(Epoch),
    /// Everything that tells which epochs there were after that one, since this host's own block was lost (R26).
    Recover(Epoch),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Read {
    purpose: Purpose,
    started: Time,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct PowerOnWriter {
    version: u64,
    in_flight: Option<(OpId, PowerOnList)>,
    durable: Option<PowerOnList>,
    /// The isolation flag, as written or to be written.
    isolated: bool,
    /// [`PowerOnList::complete`], likewise.
    complete: bool,
    retry: Time,
    /// What the host offers, as the list under way or on disk says it.
    offers: Option<Arc<crate::settings::HostOffers>>,
}

/// A datastore.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Datastore {
    pub(crate) name: DatastoreName,
    me: HostId,
    peers: Vec<HostId>,
    config: Config,
    open: bool,
    open_due: Time,
    reads: BTreeMap<OpId, Read>,
    /// The start of the guard's last heartbeat write that landed.
    pub(crate) beaten: Option<Time>,
    /// R13: this host beats here now and then only.
    slow: bool,
    /// It beat here now and then before, and in full since then.
    fast_since: Option<Time>,
    pub(crate) other_holds: OtherHolds,
    pub(crate) own_hold: OwnHold,
    /// Since when the isolation flag of this host is on disk here.
    pub(crate) flagged: Option<Time>,
    power_on: PowerOnWriter,
    pub(crate) connected: bool,
    pub(crate) error: Option<Arc<str>>,
    mirror: Mirror,
    /// Peers whose power-on list should be read, for a hint or an intent.
    wanted_power_on: BTreeSet<HostId>,
    scan_due: Time,
    resync_due: Time,
    look_due: Time,
    pub(crate) look: Option<Look>,
    lists_hint: Option<ListStamp>,
    pub(crate) ownership: Epochs,
    own_write: Option<(OpId, Time)>,
    own_dirty: bool,
    /// After a write that failed: the next one not before that.
    own_retry: Time,
    list_retry: Time,
    /// Own registers whose last write failed although heartbeats arrive, and people know.
    unwritable_told: BTreeSet<RegisterId>,
    pub(crate) list: Option<OwnerList>,
    list_write: Option<OpId>,
    pub(crate) claims: Claims,
    pub(crate) review_wanted: bool,
    /// The version of this host's power-on list changed on disk: worth a heartbeat at once.
    pub(crate) power_on_changed: bool,
    /// R37: this host's own power-on list can't be read: nothing is written there before it is known what runs here.
    claims_lost: bool,
    /// When this run of the agent began.
    begun: Time,
    /// R16: when this core last went on after standing still.
    pub(crate) awake_since: Option<Time>,
    /// People know that the datastore is out of reach.
    lost_told: bool,
    /// When the owner's decisions were last made.
    pub(crate) reviewed: Time,
    /// Whether the host has booted since its power-on list was last written; `None` while that is not read.
    pub(crate) rebooted: Option<bool>,
    #[cfg(feature = "broken-rules")]
    pub(crate) broken: Option<crate::BrokenRule>,
}

/// The rest of the host, as a datastore needs to see it in one step.
pub(crate) struct Around<'a> {
    /// This host is primary.
    pub(crate) primary: bool,
    /// It follows a primary that it hears.
    pub(crate) secondary: bool,
    /// Somebody is silent: look more closely.
    pub(crate) suspicious: bool,
    /// Hosts that are alive but not heard: what they write is looked at each heartbeat.
    pub(crate) cut_off: &'a [HostId],
    /// Hosts that are judged failed.
    pub(crate) failed: &'a [HostId],
    pub(crate) host: HostSide<'a>,
}

impl Datastore {
    pub(crate) fn new(name: DatastoreName, config: &Config, now: Time) -> Datastore {
        Datastore {
            name: name.clone(),
            me: config.me.clone(),
            peers: config.peers.clone(),
            config: config.clone(),
            open: false,
            open_due: now,
            reads: BTreeMap::new(),
            beaten: None,
            slow: false,
            fast_since: None,
            other_holds: OtherHolds::default(),
            own_hold: OwnHold::new(name.clone()),
            flagged: None,
            power_on: PowerOnWriter {
                version: 0,
                in_flight: None,
                durable: None,
                isolated: false,
                complete: false,
                retry: now,
                offers: None,
            },
            connected: false,
            error: None,
            mirror: Mirror::new(name.clone(), &config.peers),
            wanted_power_on: BTreeSet::new(),
            scan_due: now,
            resync_due: now,
            look_due: now,
            look: None,
            lists_hint: None,
            ownership: Epochs::new(name.clone(), config, now),
            own_write: None,
            own_dirty: false,
            own_retry: now,
            list_retry: now,
            unwritable_told: BTreeSet::new(),
            list: None,
            list_write: None,
            claims: Claims::new(name, config.me.clone(), Vec::new(), false, now),
            review_wanted: false,
            power_on_changed: false,
            claims_lost: false,
            begun: now,
            awake_since: None,
            lost_told: false,
            reviewed: now,
            rebooted: None,
            #[cfg(feature = "broken-rules")]
            broken: None,
        }
    }

    /// The epoch and owner that this host believes in.
    pub(crate) fn present_owner(&self) -> Option<(Epoch, &HostId)> {
        self.ownership.present_owner(self.mirror.blocks())
    }

    /// What was read of the registers of others.
    pub(crate) fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// All power-on lists, this host's own included.
    pub(crate) fn power_on_lists(&self, now: Time) -> BTreeMap<HostId, PowerOnSeen> {
        let mut lists = self.mirror.power_on_lists().clone();
        if let Some(durable) = &self.power_on.durable {
            let own = PowerOnSeen { list: durable.clone(), started: now, damaged: false };
            lists.insert(self.me.clone(), own);
        }
        lists
    }

    /// A hint by network: that host's power-on list has this version.
    pub(crate) fn on_power_on_hint(&mut self, host: &HostId, version: u64) {
        if self.mirror.power_on(host).is_none_or(|seen| seen.list.version != version) {
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

    /// The version of this host's power-on list on disk.
    pub(crate) fn power_on_version(&self) -> Option<u64> {
        self.power_on.durable.as_ref().map(|list| list.version)
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
                let own = [RegisterId::PowerOn(me.clone()), RegisterId::Ownership(me)];
                self.read(Purpose::Open, own.to_vec(), out);
            }
            return;
        }
        #[cfg(feature = "broken-rules")]
        self.break_rules(out.now);
        if !around.host.isolation.isolated {
            // R62: isolated once more, it looks once more.
            self.flagged = None;
        } else if self.flagged.is_none() && self.flag_stands() {
            self.flagged = Some(out.now);
        }
        self.look_at_own_beat(out);
        self.scan(around, out);
        if self.ownership.is_recovering() {
            self.recover_block(out);
        } else {
            self.own(around, out);
        }
        self.claims.reconcile(self.look.as_ref(), &around.host, out);
        self.look_if_wanted(around, out);
        self.write_power_on(around, out);
        self.write_list(out);
    }

    #[cfg(feature = "broken-rules")]
    fn break_rules(&mut self, now: Time) {
        if let Some(list) = &mut self.list {
            list.broken = self.broken;
        }
        if let (Some(crate::BrokenRule::NoReadAfterClaim), Some(look)) = (self.broken, &mut self.look) {
            // The last look passes for a new one, whatever it says.
            look.started = now;
            look.changing = false;
            self.claims.blind = true;
        }
    }

    /// That host says that it has given the ownership up (R20).
    pub(crate) fn on_released(&mut self, from: &HostId, epoch: Epoch) {
        self.ownership.on_released(from, epoch, self.mirror.blocks());
    }

    /// Whether that operation is one of this datastore's.
    pub(crate) fn expects(&self, op: OpId) -> bool {
        self.reads.contains_key(&op)
            || self.own_write.is_some_and(|(id, _)| id == op)
            || self.power_on.in_flight.as_ref().is_some_and(|(id, _)| *id == op)
            || self.list_write == Some(op)
    }

    /// The VMs that are bound to the lease here; `None` while this host's own registers have not been read. `leased`: there is
    /// a lease now.
    pub(crate) fn watched(&self, leased: bool, now: Time) -> Option<Vec<VmId>> {
        // What was just started where this host beat slowly is not frozen before the next heartbeat could land.
        let waits = !leased && self.is_slow(now);
        self.open.then(|| self.claims.watched(!waits))
    }

    /// Whether this host's power-on list on disk is not what it is to be.
    pub(crate) fn is_unwritten(&self, domains: Option<&Domains>) -> bool {
        let durable = self.power_on.durable.as_ref();
        let written = durable.is_some_and(|list| list.complete) && self.power_on.in_flight.is_none();
        // Where nothing of it runs there is nothing to say, whether or not the datastore is reached.
        let nothing = domains.is_some_and(|domains| !self.claims.concern(domains));
        !(nothing || (written && !self.claims.dirty))
    }

    /// Whether this host has VMs here, or decides about some.
    pub(crate) fn is_used(&self) -> bool {
        !self.open || self.list.is_some() || !self.ownership.is_idle() || !self.claims.is_empty()
    }

    /// When to tick next, for this datastore.
    pub(crate) fn deadline(&self, blind: bool, now: Time) -> Time {
        if !self.open {
            let told = if self.lost_told { Time(u64::MAX) } else { self.begun + self.config.timing.lease };
            return if self.reads.is_empty() { self.open_due.min(told) } else { told };
        }
        let timing = self.config.timing;
        let mut due =
            if self.connected || self.lost_told { Time(u64::MAX) } else { self.begun + timing.lease };
        let mut at = |time: Time| due = due.min(time);
        if let (true, Some(last)) = (self.connected, self.beaten) {
            at(self.seen_at(last) + self.reach_limit(now));
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
        if let Some(time) = self.ownership.deadline(self.own_write.is_some(), self.reads_to_recover(), now) {
            at(time);
        }
        if self.own_dirty && self.own_write.is_none() {
            at(self.own_retry);
        }
        if self.list_write.is_none() && self.list_retry > now && self.list.is_some() {
            at(self.list_retry);
        }
        if self.claims.dirty && !self.claims_lost && self.power_on.in_flight.is_none() {
            at(self.power_on.retry);
        }
        if let Some(time) = self.claims.deadline(blind) {
            at(time);
        }
        if let Some(time) = self.list.as_ref().and_then(|list| list.deadline(&timing, now)) {
            at(time);
        }
        due
    }

    /// R72: until when that host's guard may not freeze VMs of this datastore.
    pub(crate) fn held_until(&self, host: &HostId) -> Option<Time> {
        // If no heartbeat of a host was ever legible, nobody knows whether it holds. It may, as long as any hold lasts.
        let illegible = self.mirror.is_illegible(host);
        let bound = self.list.as_ref().and_then(|list| list.suspension().holds_end()).filter(|_| illegible);
        self.other_holds.until(host, bound)
    }

    /// The suspension that the list shows which this host read last.
    pub(crate) fn suspension_read(&self, now: Time) -> Option<crate::register::Suspension> {
        self.own_hold.suspension_read(&self.look.as_ref()?.list, now)
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
