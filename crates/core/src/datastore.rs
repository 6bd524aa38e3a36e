//! One datastore, as one host deals with it: the order of calls between the rooms that know about it.
//!
//! | room | what it knows |
//! | --- | --- |
//! | `store` | what was read of the registers of others, which reads are due, own writes, whether the datastore is reached |
//! | `ownership` | who owns the datastore |
//! | `claims` | what this host runs of it |
//! | `protected_list` | what the owner decides, if this host is the owner |
//! | `suspension` | who freezes nothing |
//!
//! What one of them learns is carried to the others here, and nowhere else.
//!
//! Invariant: a hung datastore holds a bounded number of operations, and blocks no other datastore.
//!
//! It does not: decide anything that one of the rooms could decide.

mod answers;
mod epochs;
mod writes;

use crate::claims::{Claims, HostSide, Look};
use crate::config::Config;
use crate::files::Files;
use crate::ids::{DatastoreName, Epoch, HostId, OpId, VmId};
use crate::local_vms::Domains;
use crate::out::Out;
use crate::ownership::Epochs;
use crate::protected_list::OwnerList;
use crate::register::{ListStamp, Suspension};
use crate::store::{Mirror, Own, PowerOnSeen, Reach, Reads, Watch};
use crate::suspension::{Answer, Holds, OwnHold};
use crate::time::Time;
use crate::timers::{Deadline, Timer};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// One datastore as this host deals with it. The rooms decide; here is the order in which they are called.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Datastore {
    name: DatastoreName,
    config: Config,
    /// Whether the host has booted since its power-on list was last written. `None`: its own registers were not read yet.
    rebooted: Option<bool>,
    mirror: Mirror,
    reads: Reads,
    own: Own,
    reach: Reach,
    ownership: Epochs,
    claims: Claims,
    look: Option<Look>,
    /// The protected list, while this host owns the datastore.
    list: Option<OwnerList>,
    holds: Holds,
    /// Something has happened about which the owner decides.
    review_wanted: bool,
    /// When the owner's decisions were last made.
    reviewed: Time,
    #[cfg(feature = "broken-rules")]
    broken: Option<crate::BrokenRule>,
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
    /// All files name the same, as far as this host sees.
    pub(crate) agreed: bool,
    /// The last word of some host says otherwise.
    pub(crate) disturbed: bool,
    pub(crate) host: HostSide<'a>,
}

impl Datastore {
    pub(crate) fn new(name: DatastoreName, config: &Config, now: Time) -> Datastore {
        Datastore {
            config: config.clone(),
            rebooted: None,
            mirror: Mirror::new(name.clone(), &config.peers, Files::of(config).digest()),
            reads: Reads::new(name.clone(), now),
            own: Own::new(name.clone(), config.me.clone(), now),
            reach: Reach::new(name.clone(), now),
            ownership: Epochs::new(name.clone(), config, now),
            claims: Claims::new(name.clone(), config.me.clone(), Vec::new(), false, now),
            look: None,
            list: None,
            holds: Holds::new(name.clone()),
            review_wanted: false,
            reviewed: now,
            #[cfg(feature = "broken-rules")]
            broken: None,
            name,
        }
    }

    pub(crate) fn name(&self) -> &DatastoreName {
        &self.name
    }

    /// Whether the host has booted since its power-on list was last written. `None`: its own registers were not read yet.
    pub(crate) fn rebooted(&self) -> Option<bool> {
        self.rebooted
    }

    /// Who owns the datastore.
    pub(crate) fn ownership(&self) -> &Epochs {
        &self.ownership
    }

    /// What this host runs of it.
    pub(crate) fn claims(&self) -> &Claims {
        &self.claims
    }

    /// What this host runs of it, for word of how an operation went.
    pub(crate) fn claims_mut(&mut self) -> &mut Claims {
        &mut self.claims
    }

    /// The protected list as this host last read it.
    pub(crate) fn look(&self) -> Option<&Look> {
        self.look.as_ref()
    }

    /// The protected list, while this host owns the datastore.
    pub(crate) fn list(&self) -> Option<&OwnerList> {
        self.list.as_ref()
    }

    /// The protected list, for the owner's decisions.
    pub(crate) fn list_mut(&mut self) -> Option<&mut OwnerList> {
        self.list.as_mut()
    }

    /// Until when this host's guard was told to hold.
    pub(crate) fn own_hold(&self) -> &OwnHold {
        self.holds.own()
    }

    /// The same, for word of the guard.
    pub(crate) fn own_hold_mut(&mut self) -> &mut OwnHold {
        self.holds.own_mut()
    }

    /// Something has happened about which the owner decides.
    pub(crate) fn want_review(&mut self) {
        self.review_wanted = true;
    }

    /// Something has happened since the last review.
    pub(crate) fn is_review_wanted(&self) -> bool {
        self.review_wanted
    }

    /// The owner decides now.
    pub(crate) fn begin_review(&mut self, now: Time) {
        self.review_wanted = false;
        self.reviewed = now;
    }

    /// While nothing happens, when to decide next is asked for in each step: the answer is to be quick.
    pub(crate) fn remember_deadline(&mut self) {
        let reviewed = self.reviewed;
        if let Some(list) = self.list.as_mut().filter(|_| !self.review_wanted) {
            list.remember_deadline(&self.config.timing, reviewed);
        }
    }

    /// When the owner last decided.
    pub(crate) fn reviewed(&self) -> Time {
        self.reviewed
    }

    /// What was read of the registers of others.
    pub(crate) fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// This host's own registers.
    pub(crate) fn own(&self) -> &Own {
        &self.own
    }

    /// Whether this host reaches the datastore.
    pub(crate) fn reach(&self) -> &Reach {
        &self.reach
    }

    /// This host's heartbeats arrive.
    pub(crate) fn is_connected(&self) -> bool {
        self.reach.is_connected()
    }

    /// This host has read its own registers, as an earlier run left them.
    fn is_open(&self) -> bool {
        self.rebooted.is_some()
    }

    /// The epoch and owner that this host believes in.
    pub(crate) fn present_owner(&self) -> Option<(Epoch, &HostId)> {
        self.ownership.present_owner(self.mirror.blocks())
    }

    /// All power-on lists, this host's own included.
    pub(crate) fn power_on_lists(&self, now: Time) -> BTreeMap<HostId, PowerOnSeen> {
        let mut lists = self.mirror.power_on_lists().clone();
        if let Some(list) = self.own.power_on() {
            let own = PowerOnSeen { list: Arc::clone(list), started: now, damaged: false };
            lists.insert(self.config.me.clone(), own);
        }
        lists
    }

    /// This core goes on after standing still.
    pub(crate) fn on_awake(&mut self, now: Time) {
        self.reach.on_awake(now);
    }

    /// The guard has written a heartbeat here, or could not.
    pub(crate) fn on_beat(&mut self, started: Time, failure: Option<Arc<str>>, out: &mut Out<'_>) {
        let (open, lost) = (self.is_open(), self.reach.is_told_lost());
        self.reach.on_beat(started, failure, open, &self.config.timing, out);
        if lost && self.is_connected() {
            // That it is back ends the alarms about its registers (I8): what is still wrong with them is said again.
            self.mirror.forget_told();
            self.own.forget_told();
        }
    }

    /// How often this host beats here.
    pub(crate) fn set_pace(&mut self, slow: bool, now: Time) {
        self.reach.set_pace(slow, now);
    }

    /// A hint by network: that host's power-on list has this version.
    pub(crate) fn on_power_on_hint(&mut self, host: &HostId, version: u64) {
        if self.mirror.power_on(host).is_none_or(|seen| seen.list.version != version) {
            self.reads.want_power_on(host);
        }
    }

    /// A hint by network: the owner has written this version of the list.
    pub(crate) fn on_list_hint(&mut self, stamp: ListStamp) {
        let seen = self.look.as_ref().map(|look| look.list.stamp());
        if seen.is_none_or(|seen| seen < stamp) {
            self.reads.hint_list(stamp);
            self.claims.want_look();
        }
    }

    /// That host says that it has given the ownership up.
    pub(crate) fn on_released(&mut self, from: &HostId, epoch: Epoch) {
        self.ownership.on_released(from, epoch, self.mirror.blocks());
    }

    /// The epoch that this host has given up, if others are to hear of it now.
    pub(crate) fn take_release(&mut self, now: Time) -> Option<Epoch> {
        self.ownership.take_release(&self.config.timing, now)
    }

    /// An owner has answered a heartbeat: it says whether to hold.
    pub(crate) fn on_answer(&mut self, answer: Answer, out: &mut Out<'_>) {
        let read = self.look.as_ref().map(|look| &look.list);
        self.holds.own_mut().by_answer(answer, read, self.config.timing.lease, out);
    }

    /// Decides whether this host's guard holds: by this host's own list if it is the owner, else by what it read.
    pub(crate) fn decide_own_hold(&mut self, out: &mut Out<'_>) {
        let owns = self.ownership.epoch(out.now).is_some();
        if let Some(list) = self.list.as_ref().filter(|_| owns) {
            let (left, written) = (list.suspension().hold(out.now), list.on_disk().is_some());
            self.holds.own_mut().by_own_list(left, written, out);
        } else if let Some(look) = &self.look {
            self.holds.own_mut().by_disk(&look.list, look.started, self.config.timing.lease, out);
        }
    }

    /// A person has made sure that the host is down.
    pub(crate) fn confirm_down(&mut self, host: &HostId) {
        self.holds.confirm_down(host);
        self.mirror.confirm_down(host);
        self.want_review();
    }

    /// That host is heard: that it was confirmed to be down counts no more.
    pub(crate) fn forget_confirmation(&mut self, host: &HostId) {
        self.mirror.forget_confirmation(host);
    }

    /// A person has made sure that the host is down, and nothing has come from it since.
    pub(crate) fn is_presumed_down(&self, host: &HostId) -> bool {
        self.holds.is_presumed_down(host)
    }

    /// Whether this host's power-on list has changed on disk since this was last asked.
    pub(crate) fn take_power_on_news(&mut self) -> bool {
        self.own.take_power_on_news()
    }

    /// Time has passed, or something happened elsewhere.
    pub(crate) fn on_tick(&mut self, around: &Around<'_>, out: &mut Out<'_>) {
        self.reach.on_tick(&self.config.timing, out);
        if !self.is_open() {
            return self.reads.open(&self.config.me, &self.config.timing, out);
        }
        #[cfg(feature = "broken-rules")]
        self.break_rules(out.now);
        self.own.note_isolation(around.host.isolation.isolated, out.now);
        self.scan(around, out);
        // Who has lost its own block takes no part.
        if self.ownership.is_recovering() {
            self.recover_block(out);
        } else {
            self.contend_and_beat(around, out);
        }
        self.claims.reconcile(self.look.as_ref(), &around.host, out);
        self.look_if_wanted(around, out);
        self.write_power_on(around, out);
        self.write_list(out);
    }

    #[cfg(feature = "broken-rules")]
    pub(crate) fn break_rule(&mut self, rule: crate::BrokenRule) {
        self.broken = Some(rule);
    }

    #[cfg(feature = "broken-rules")]
    pub(crate) fn breaks(&self, rule: crate::BrokenRule) -> bool {
        self.broken == Some(rule)
    }

    #[cfg(feature = "broken-rules")]
    fn break_rules(&mut self, now: Time) {
        if let Some(list) = &mut self.list {
            list.broken = self.broken;
        }
        if self.breaks(crate::BrokenRule::OldCopyKept) {
            self.claims.keep_old_copies();
        }
        if let (Some(crate::BrokenRule::NoReadAfterClaim), Some(look)) = (self.broken, &mut self.look) {
            // The last look passes for a new one, whatever it says.
            look.started = now;
            look.changing = false;
            self.claims.set_blind();
        }
    }

    fn scan(&mut self, around: &Around<'_>, out: &mut Out<'_>) {
        let due = self.reads.is_scan_due(out.now);
        let owner = due.then(|| self.present_owner()).flatten().map(|(_, host)| host);
        let watch = Watch {
            owner: owner.filter(|host| **host != self.config.me).cloned(),
            peers: &self.config.peers,
            owns: self.list.is_some(),
            secondary: around.secondary,
            suspicious: around.suspicious,
            everybody: around.disturbed,
            slow: self.reach.is_slow(),
            cut_off: around.cut_off,
        };
        self.reads.scan(watch, &self.config.timing, out);
    }

    fn look_if_wanted(&mut self, around: &Around<'_>, out: &mut Out<'_>) {
        let timing = &self.config.timing;
        let young = |look: &Look| look.changing && out.now.since(look.started) < timing.close_look();
        let hasty = self.look.as_ref().is_some_and(young);
        if self.reads.is_look_due(self.claims.is_look_wanted(), hasty, out.now) {
            self.claims.look_begins();
            let relaxed = (around.secondary || around.primary)
                && !self.claims.has_frozen()
                && !around.host.isolation.isolated;
            let interval = if relaxed { timing.resync() } else { timing.heartbeat };
            let epoch = self.present_owner().map(|(epoch, _)| epoch);
            self.reads.look(epoch, &self.config.peers, interval, out);
        }
    }

    /// Whether that operation is one of this datastore's.
    pub(crate) fn expects(&self, op: OpId) -> bool {
        self.reads.expects(op) || self.own.expects(op)
    }

    /// The VMs that are bound to the lease here; `None` while this host's own registers have not been read. `leased`: there is
    /// a lease now.
    pub(crate) fn watched(&self, leased: bool, now: Time) -> Option<Vec<VmId>> {
        // What was just started where this host beat slowly is not frozen before the next heartbeat could land.
        let waits = !leased && self.reach.was_slow(&self.config.timing, now);
        self.is_open().then(|| self.claims.watched(!waits))
    }

    /// Whether this host's power-on list on disk is not what it is to be.
    pub(crate) fn is_unwritten(&self, domains: Option<&Domains>) -> bool {
        // Where nothing of it runs there is nothing to say, whether or not the datastore is reached.
        let nothing = domains.is_some_and(|domains| !self.claims.concern(domains));
        !(nothing || (self.own.is_power_on_settled() && !self.claims.is_write_wanted()))
    }

    /// VMs that are here, or arriving, and that others can't see here yet.
    pub(crate) fn arriving<'a>(&'a self, domains: Option<&'a Domains>) -> impl Iterator<Item = VmId> + 'a {
        let on_disk = self.own.power_on().map(|list| &**list);
        domains.into_iter().flat_map(move |domains| self.claims.arriving(domains, on_disk))
    }

    /// Whether this host has VMs here, or decides about some.
    pub(crate) fn is_used(&self) -> bool {
        !self.is_open() || self.list.is_some() || !self.ownership.is_idle() || !self.claims.is_empty()
    }

    /// When to tick next, for this datastore. `blind`: it is not known what runs on this host.
    pub(crate) fn deadline(&self, blind: bool, now: Time) -> Deadline<'_> {
        let (timing, name) = (&self.config.timing, &self.name);
        let reach = Deadline::maybe(self.reach.deadline(timing, now), Timer::Reach(name));
        if !self.is_open() {
            return reach.or(Deadline::maybe(self.reads.open_deadline(), Timer::Reads(name)));
        }
        let owns = self.list.is_some();
        let (writing, recovering) = (self.own.is_writing_block(), self.reads.is_recovering());
        let ownership = self.ownership.deadline(writing, recovering, now);
        let own = self.own.deadline(self.claims.is_write_wanted(), owns, now);
        let list = self.list.as_ref().and_then(|list| list.deadline(timing, now));
        reach
            .or(Deadline::maybe(self.reads.deadline(owns), Timer::Reads(name)))
            .or(Deadline::maybe(ownership, Timer::Ownership(name)))
            .or(Deadline::maybe(own, Timer::OwnWrites(name)))
            .or(Deadline::maybe(self.claims.deadline(blind), Timer::Claims(name)))
            .or(Deadline::maybe(list, Timer::List(name)))
    }

    /// Whether that host's guard may be holding, so that VMs of this datastore may run on there.
    pub(crate) fn may_hold(&self, host: &HostId, now: Time) -> bool {
        let wish = self.list.as_ref().map(OwnerList::suspension);
        self.holds.may_hold(host, self.mirror.is_illegible(host), wish, now)
    }

    /// The suspension that the list shows which this host read last.
    pub(crate) fn suspension_read(&self, now: Time) -> Option<Suspension> {
        self.holds.own().suspension_read(&self.look.as_ref()?.list, now)
    }
}
