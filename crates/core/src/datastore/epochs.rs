//! The ownership of a datastore: contending, beating, the beginning and the end of an epoch.

use super::*;
use crate::message::Promise;
use crate::timing::Timing;

/// How often a release is told, a quarter of a heartbeat apart: datagrams get lost.
const RELEASES_TOLD: u32 = 4;

impl Datastore {
    pub(super) fn own(&mut self, around: &Around<'_>, out: &mut Out<'_>) {
        let timing = self.config.timing;
        // R63: an isolated host leaves the ownership to those who are not, if anybody else shows life here at all. What it
        // has taken responsibility for it sees through.
        let retires = around.host.isolation.isolated
            && self.mirror.shows_anybody_alive(&timing, out.now)
            && !self.list.as_ref().is_some_and(OwnerList::is_responsible);
        if retires {
            self.release("this host is isolated", out);
        } else if around.primary && self.connected {
            if self.own_write.is_none() && !self.reading(&Purpose::Consensus) {
                let next = self.ownership.contend(
                    self.mirror.blocks(),
                    self.mirror.timeouts(),
                    self.promised,
                    self.told_released,
                    &timing,
                    out.now,
                );
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
        if self.take_over_due.is_some_and(|due| out.now >= due)
            && !self.reading(&Purpose::TakeOver(self.ownership.block.instance))
        {
            self.read_for_take_over(out);
        }
    }

    /// R26: others can't contend past a block that nobody can read, and this host must not forget which epochs were its own:
    /// reads all that tells of epochs before it writes a good block.
    pub(super) fn recover_block(&mut self, out: &mut Out<'_>) {
        if out.now < self.recover_due || self.is_recovering() {
            return;
        }
        // The lists that may have been written after the last one that is known of: each of them in a region of its own.
        let known = self.recovered;
        let later =
            (1..=LIST_REGIONS).map(|next| RegisterId::ProtectedList(Epoch(known.0.saturating_add(next))));
        let mut registers: Vec<RegisterId> = later.collect();
        registers.push(RegisterId::PowerOn(self.me.clone()));
        for host in &self.peers {
            registers.extend([RegisterId::Ownership(host.clone()), RegisterId::PowerOn(host.clone())]);
        }
        self.read(Purpose::Recover(known), registers, out);
    }

    pub(super) fn is_recovering(&self) -> bool {
        self.reads.values().any(|read| matches!(read.purpose, Purpose::Recover(_)))
    }

    pub(super) fn on_recovered(&mut self, known: Epoch, lists: &[ProtectedList], out: &mut Out<'_>) {
        if !self.mirror.has_all_blocks() {
            self.recover_due = out.now + self.config.timing.heartbeat;
            return;
        }
        let claimed = self.mirror.latest_claimed_epoch();
        let written = lists.iter().map(|list| list.epoch).max();
        let beaten = self.present_owner().map(|(epoch, _)| epoch);
        self.recovered = claimed.max(written).max(beaten).max(Some(known)).unwrap_or(known);
        if self.recovered > known {
            return self.recover_block(out);
        }
        self.block_lost = false;
        self.ownership.recover(known, self.mirror.blocks());
        self.mirror.forget_power_on(&self.me);
        self.own_dirty = true;
        self.write_block(out);
    }

    pub(super) fn write_block(&mut self, out: &mut Out<'_>) {
        if self.own_dirty && self.own_write.is_none() && out.now >= self.own_retry {
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
            self.released = Some((epoch, RELEASES_TOLD, out.now));
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

    pub(super) fn carry_out(&mut self, next: Next, out: &mut Out<'_>) {
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

    pub(super) fn begin_epoch(&mut self, former: Option<HostId>, out: &mut Out<'_>) {
        let epoch = self.ownership.block.instance;
        self.lapse_told = false;
        out.event(Event::OwnershipAcquired { datastore: self.name.clone(), epoch, former });
        if self.list.as_ref().is_some_and(|list| list.epoch() == epoch) {
            // It had lapsed and goes on in the same epoch: nobody else was owner in between.
            self.wanted_power_on.extend(self.peers.iter().cloned());
            self.review_wanted = true;
            return;
        }
        if self.ownership.is_early() {
            // R24: what the former owner granted by network lasts no longer than that.
            self.hold_until = out.now + self.mirror.longest_timeout(self.config.timing.failure_timeout);
        }
        self.list = None;
        self.read_for_take_over(out);
    }

    /// R25: a secondary's promise.
    pub(crate) fn on_promise(&mut self, host: &HostId, promise: &Promise, kept_for: Span, now: Time) {
        let others = self.peers.len();
        // R14: it lasts as long as the one who gave it says.
        let failure_timeout = self.config.timing.failure_timeout.min(kept_for);
        let timing = Timing { failure_timeout, ..self.config.timing };
        self.ownership.on_promise(host, promise.epoch, promise.echo, others, &timing, now);
    }

    /// R25: the primary shows that it owns this datastore in that epoch. Whether this host promises not to contend for a
    /// failure time-out from now.
    pub(crate) fn promise(&mut self, epoch: Epoch, now: Time) -> bool {
        let knows_later = self.present_owner().is_some_and(|(known, _)| known > epoch);
        if knows_later || !self.open || !self.ownership.may_promise(epoch) {
            return false;
        }
        self.promised = now + self.config.timing.failure_timeout;
        true
    }

    pub(super) fn read_for_take_over(&mut self, out: &mut Out<'_>) {
        let epoch = self.ownership.block.instance;
        self.take_over_due = None;
        let first = epoch.0.saturating_sub(LIST_REGIONS).max(1);
        let mut registers: Vec<RegisterId> =
            (first..epoch.0.max(first)).map(|epoch| RegisterId::ProtectedList(Epoch(epoch))).collect();
        registers.extend(self.peers.iter().cloned().map(RegisterId::PowerOn));
        if registers.is_empty() {
            return self.take_over(None, out);
        }
        self.read(Purpose::TakeOver(epoch), registers, out);
    }

    pub(super) fn take_over(&mut self, former: Option<ProtectedList>, out: &mut Out<'_>) {
        let epoch = self.ownership.block.instance;
        if self.ownership.epoch(out.now) != Some(epoch) {
            self.take_over_due = Some(out.now + self.config.timing.close_look());
            return;
        }
        let lists = self.power_on_lists(out.now);
        self.list = Some(OwnerList::take_over(
            self.name.clone(),
            epoch,
            former,
            &lists,
            &self.config.timing,
            out.now,
        ));
        self.review_wanted = true;
        self.write_list(out);
    }
}
