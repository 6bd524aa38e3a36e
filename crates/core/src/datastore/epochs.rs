//! The order of calls around the ownership of a datastore: contending, beating, the beginning and the end of an epoch.

use super::{Around, Datastore};
use crate::event::Event;
use crate::ids::{Epoch, HostId};
use crate::message::Promise;
use crate::out::Out;
use crate::ownership::{Beginning, Next, Recovered};
use crate::protected_list::OwnerList;
use crate::register::{ProtectedList, RegisterId};
use crate::store::Purpose;
use crate::time::{Span, Time};
use crate::timing::Timing;
use alloc::vec::Vec;

impl Datastore {
    pub(super) fn contend_and_beat(&mut self, around: &Around<'_>, out: &mut Out<'_>) {
        let timing = self.config.timing;
        // R63: a host that is cut off leaves the ownership to those who are not, if anybody else shows life here at all. What it
        // has taken responsibility for it sees through.
        let retires = around.host.isolation.cut_off
            && self.mirror.shows_anybody_alive(&timing, out.now)
            && !self.list.as_ref().is_some_and(OwnerList::is_responsible);
        if retires {
            self.release("this host reaches nobody", out);
        } else if !around.agreed {
            self.release("the agent.toml of a live host names other hosts or datastores", out);
        } else if let Some(other) = self.ownership.other_owner(self.mirror.blocks()) {
            self.give_up_to(&other, out);
        } else if around.primary && self.is_connected() {
            if !self.own.is_writing_block() && !self.reads.is_under_way(&Purpose::Consensus) {
                let next = self.ownership.contend(&self.mirror, &timing, out.now);
                self.carry_out(next, out);
            }
        } else if !around.primary {
            self.release("this host is not primary any more", out);
        }
        if self.ownership.take_beat(&timing, out.now) {
            self.own.want_block();
        }
        if let Some(list) = &self.list {
            self.ownership.tell_lapse(list.epoch(), out);
        }
        self.write_block(out);
        if let Some(epoch) = self.ownership.take_over_due(out.now)
            && !self.reads.is_under_way(&Purpose::TakeOver(epoch))
        {
            self.read_for_take_over(out);
        }
    }

    /// Another host beats as owner in this host's epoch.
    fn give_up_to(&mut self, other: &HostId, out: &mut Out<'_>) {
        let (datastore, epoch) = (self.name.clone(), self.ownership.own_epoch());
        out.event(Event::OwnedTwice { datastore, epoch, other: other.clone() });
        self.release("another host owns it in the same epoch", out);
    }

    /// Reads all that tells of epochs before this host writes a good block.
    pub(super) fn recover_block(&mut self, out: &mut Out<'_>) {
        if self.reads.is_recovering() {
            return;
        }
        let (me, peers) = (&self.config.me, &self.config.peers);
        if let Some((known, registers)) = self.ownership.recovery_due(me, peers, out.now) {
            self.reads.begin(Purpose::Recover(known), registers, out);
        }
    }

    pub(super) fn on_recovered(&mut self, known: Epoch, lists: &[ProtectedList], out: &mut Out<'_>) {
        let retry_at = out.now + self.config.timing.heartbeat;
        match self.ownership.on_recovered(known, lists, &self.mirror, retry_at) {
            Recovered::NotYet => {}
            Recovered::ReadOn => self.recover_block(out),
            Recovered::Done => {
                self.mirror.forget_power_on(&self.config.me);
                self.own.want_block();
                self.write_block(out);
            }
        }
    }

    fn write_block(&mut self, out: &mut Out<'_>) {
        if self.own.is_block_due(out.now) {
            self.own.write_block(self.ownership.block_to_write(), out);
        }
    }

    /// Gives the ownership up.
    pub(crate) fn release(&mut self, reason: &str, out: &mut Out<'_>) {
        if self.ownership.release(reason, out) {
            self.own.want_block();
        }
        self.list = None;
        self.own.forget_list();
        self.write_block(out);
    }

    pub(super) fn carry_out(&mut self, next: Next, out: &mut Out<'_>) {
        match next {
            Next::Nothing => {}
            Next::Write => {
                self.own.want_block();
                self.write_block(out);
            }
            Next::ReadAll => {
                // With the heartbeats: they say what stands in each host's file.
                let of = |host: &HostId| {
                    [RegisterId::Ownership(host.clone()), RegisterId::Heartbeat(host.clone())]
                };
                let registers: Vec<RegisterId> = self.config.peers.iter().flat_map(of).collect();
                if registers.is_empty() {
                    let next = self.ownership.on_all_read(&self.mirror, &self.config.timing, out.now);
                    return self.carry_out(next, out);
                }
                self.reads.begin(Purpose::Consensus, registers, out);
            }
            Next::Begun { former } => self.begin_epoch(former, out),
            Next::Ended { reason } => {
                let list = self.list.take().map(|list| list.epoch());
                self.own.forget_list();
                self.ownership.end(list, reason, out);
            }
        }
    }

    fn begin_epoch(&mut self, former: Option<HostId>, out: &mut Out<'_>) {
        let list = self.list.as_ref().map(OwnerList::epoch);
        let longest = self.mirror.longest_timeout(self.config.timing.failure_timeout);
        match self.ownership.begin(former, list, longest, out) {
            Beginning::GoesOn => {
                for host in &self.config.peers {
                    self.reads.want_power_on(host);
                }
                self.review_wanted = true;
            }
            Beginning::TakesOver => {
                self.list = None;
                self.read_for_take_over(out);
            }
        }
    }

    /// A secondary's promise.
    pub(crate) fn on_promise(&mut self, host: &HostId, promise: &Promise, kept_for: Span, now: Time) {
        let others = self.config.peers.len();
        // It lasts as long as the one who gave it says.
        let failure_timeout = self.config.timing.failure_timeout.min(kept_for);
        let timing = Timing { failure_timeout, ..self.config.timing };
        self.ownership.on_promise(host, promise, others, &timing, now);
    }

    /// The primary shows that it owns this datastore in that epoch. Whether this host promises not to contend.
    pub(crate) fn promise(&mut self, epoch: Epoch, now: Time) -> bool {
        self.is_open() && self.ownership.promise(epoch, self.mirror.blocks(), &self.config.timing, now)
    }

    fn read_for_take_over(&mut self, out: &mut Out<'_>) {
        let (epoch, registers) = self.ownership.begin_take_over(&self.config.peers);
        if registers.is_empty() {
            return self.take_over(None, out);
        }
        if self.reads.is_under_way(&Purpose::TakeOver(epoch)) {
            // It was begun before the ownership lapsed and came back. If it comes to nothing, another one follows.
            return self.ownership.retry_take_over(out.now + self.config.timing.close_look());
        }
        self.reads.begin(Purpose::TakeOver(epoch), registers, out);
    }

    pub(super) fn take_over(&mut self, former: Option<ProtectedList>, out: &mut Out<'_>) {
        let timing = self.config.timing;
        let Some(epoch) = self.ownership.epoch(out.now) else {
            return self.ownership.retry_take_over(out.now + timing.close_look());
        };
        let lists = self.power_on_lists(out.now);
        let list = OwnerList::take_over(self.name.clone(), epoch, former, &lists, &timing, out.now);
        self.list = Some(list);
        self.review_wanted = true;
        self.write_list(out);
    }
}
