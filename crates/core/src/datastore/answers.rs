//! The order of calls when a read is answered.
//!
//! Every answer refreshes what is known of each register in it, whatever the read was for. Then its purpose has its turn.

use super::{Around, Datastore};
use crate::claims::{Claims, Look};
use crate::ids::HostId;
use crate::input::{DiskOutcome, FoundRegister, ReadRegister};
use crate::out::Out;
use crate::register::{OwnershipBlock, ProtectedList, RegisterId, RegisterValue};
use crate::store::{HeartbeatShown, Purpose, Read};
use crate::time::Time;
use alloc::vec::Vec;

/// What a read has shown besides what the mirror keeps.
struct Shown {
    lists: Vec<ProtectedList>,
    /// Nothing was damaged that may not be.
    complete: bool,
}

impl Datastore {
    pub(super) fn on_read(
        &mut self,
        read: Read,
        outcome: DiskOutcome,
        around: &Around<'_>,
        out: &mut Out<'_>,
    ) {
        match outcome {
            DiskOutcome::Read(registers) if read.purpose == Purpose::Open => self.on_open(registers, out),
            DiskOutcome::Read(registers) => {
                let shown = self.take_in_all(&read, registers, around, out);
                self.on_shown(&read, shown, around, out);
            }
            DiskOutcome::Failed(reason) => {
                self.reach.on_read_failed(reason);
                self.on_read_failed(&read, out);
            }
            DiskOutcome::Written => {}
        }
    }

    /// Refreshes what is known of each register that was read.
    fn take_in_all(
        &mut self,
        read: &Read,
        registers: Vec<FoundRegister>,
        around: &Around<'_>,
        out: &mut Out<'_>,
    ) -> Shown {
        let mut shown = Shown { lists: Vec::new(), complete: true };
        for FoundRegister { id, found } in registers {
            let value = match found {
                ReadRegister::Value(value) => Some(value),
                ReadRegister::Missing => None,
                ReadRegister::Unreadable(reason, mark) => {
                    self.mirror.on_unreadable(&id, reason, out);
                    // A damaged list counts as none: the power-on lists stand in for it. A damaged block must not, and a damaged
                    // power-on list only of a host that is dead.
                    shown.complete &= match &id {
                        RegisterId::ProtectedList(_) => true,
                        RegisterId::PowerOn(host) => around.failed.contains(host),
                        RegisterId::Heartbeat(_) => read.purpose == Purpose::Consensus,
                        RegisterId::Ownership(_) => false,
                    };
                    self.take_in_damage(&id, mark, read, out.now);
                    continue;
                }
            };
            self.mirror.on_readable(&id, out);
            self.take_in(&id, value, read, &mut shown.lists, out.now);
        }
        shown
    }

    /// What the read was made for has its turn.
    fn on_shown(&mut self, read: &Read, shown: Shown, around: &Around<'_>, out: &mut Out<'_>) {
        let Shown { lists, complete } = shown;
        let newest = lists.iter().max_by_key(|list| list.stamp()).cloned();
        match read.purpose {
            Purpose::Open => {}
            Purpose::Recover(epoch) => self.on_recovered(epoch, &lists, out),
            Purpose::Scan | Purpose::PowerOn => self.review_wanted = true,
            // Who has lost its own block does not know the present epoch.
            Purpose::Look => {
                self.on_look(read, newest, complete && !self.ownership.is_recovering(), around, out)
            }
            Purpose::Consensus => {
                let timing = self.config.timing;
                let agreed = !self.mirror.shows_live_other_files(&timing, out.now);
                #[cfg(feature = "broken-rules")]
                let agreed = agreed || self.breaks(crate::BrokenRule::FilesIgnored);
                let next = if complete && agreed {
                    self.ownership.on_all_read(&self.mirror, &timing, out.now)
                } else {
                    self.ownership.on_read_failed(&timing, out.now)
                };
                self.carry_out(next, out);
            }
            Purpose::TakeOver(epoch) => {
                // What was read for an earlier epoch of this host's says nothing about this one.
                if self.ownership.epoch(out.now) != Some(epoch) || self.list.is_some() {
                    return;
                }
                if !complete {
                    self.ownership.retry_take_over(out.now + self.config.timing.heartbeat);
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
                let shown = self.mirror.take_in_heartbeat(host, value, read.started, now);
                self.take_in_shown(host, shown, now);
            }
            (RegisterId::Ownership(host), value) => {
                self.mirror.take_in_block(host, value, read.started, now);
            }
            (RegisterId::PowerOn(host), value) => self.mirror.take_in_power_on(host, value, read.started),
            (RegisterId::ProtectedList(_), Some(RegisterValue::ProtectedList(list))) => lists.push(list),
            (RegisterId::ProtectedList(_), _) => {}
        }
    }

    fn take_in_damage(&mut self, id: &RegisterId, mark: u64, read: &Read, now: Time) {
        match id {
            RegisterId::Heartbeat(host) => {
                let shown = self.mirror.take_in_damaged_heartbeat(host, mark, read.started, now);
                self.take_in_shown(host, shown, now);
            }
            RegisterId::PowerOn(host) => self.mirror.take_in_damaged_power_on(host, read.started),
            RegisterId::Ownership(_) | RegisterId::ProtectedList(_) => {}
        }
    }

    fn take_in_shown(&mut self, host: &HostId, shown: HeartbeatShown, now: Time) {
        match shown {
            HeartbeatShown::Nothing => {}
            HeartbeatShown::Change => self.holds.on_sign_of_life(host),
            HeartbeatShown::Heartbeat { hold } => {
                self.holds.on_heartbeat(host, hold, &self.config.timing, now);
            }
        }
    }

    pub(super) fn on_read_failed(&mut self, read: &Read, out: &mut Out<'_>) {
        let timing = self.config.timing;
        match read.purpose {
            Purpose::Consensus => {
                let next = self.ownership.on_read_failed(&timing, out.now);
                self.carry_out(next, out);
            }
            Purpose::TakeOver(_) => self.ownership.retry_take_over(out.now + timing.close_look()),
            Purpose::Look => {
                self.claims.look_failed();
                self.reads.look_by(out.now + timing.heartbeat);
            }
            Purpose::PowerOn => self.reads.resync_by(out.now + timing.heartbeat),
            Purpose::Open | Purpose::Scan => {}
            Purpose::Recover(_) => self.ownership.retry_recovery(out.now + timing.heartbeat),
        }
    }

    pub(super) fn on_open(&mut self, registers: Vec<FoundRegister>, out: &mut Out<'_>) {
        let mut claims = Vec::new();
        let mut rebooted = false;
        for FoundRegister { id, found } in registers {
            match found {
                ReadRegister::Value(RegisterValue::PowerOn(list)) => {
                    rebooted = list.boot != self.config.boot;
                    self.own.find_power_on(list.version);
                    claims = list.claims;
                }
                ReadRegister::Value(RegisterValue::Ownership(block)) => {
                    self.on_own_block(block, out.now);
                }
                ReadRegister::Value(RegisterValue::ProtectedList(_) | RegisterValue::Heartbeat(_))
                | ReadRegister::Missing => {}
                ReadRegister::Unreadable(reason, _) => {
                    self.mirror.on_unreadable(&id, reason, out);
                    match id {
                        RegisterId::Ownership(_) => self.ownership.lose_block(),
                        RegisterId::PowerOn(_) => self.own.lose_power_on(),
                        RegisterId::Heartbeat(_) | RegisterId::ProtectedList(_) => {}
                    }
                }
            }
        }
        self.rebooted = Some(rebooted);
        self.claims = Claims::new(self.name.clone(), self.config.me.clone(), claims, rebooted, out.now);
    }

    /// An earlier run of this host had another file. Hosts that it did not know may have owned epochs since, and those that
    /// know this one have to see what its file says now.
    fn on_own_block(&mut self, block: OwnershipBlock, now: Time) {
        let ours = self.ownership.block_files();
        let other = block.files.is_some() && block.files != ours;
        #[cfg(feature = "broken-rules")]
        let other = other && !self.breaks(crate::BrokenRule::FilesIgnored);
        self.ownership.find(block);
        if other {
            let timing = &self.config.timing;
            self.ownership.find_new_file(now + timing.failure_timeout + timing.heartbeat);
        }
    }

    pub(super) fn on_look(
        &mut self,
        read: &Read,
        newest: Option<ProtectedList>,
        complete: bool,
        around: &Around<'_>,
        out: &mut Out<'_>,
    ) {
        let Some((epoch, _)) = self.present_owner() else { return };
        let contended = self.ownership.is_contended(epoch, self.mirror.blocks());
        match newest {
            Some(list) if list.epoch == epoch && complete => {
                let before = self.look.as_ref().map(|look| look.list.stamp());
                if before != Some(list.stamp()) {
                    // Worth telling the owner: a grant that was seen and is not claimed has been declined.
                    if list.entries.iter().any(|entry| entry.holder.as_ref() == Some(&self.config.me)) {
                        self.claims.want_write();
                    }
                }
                self.holds.own_mut().on_look(&list, read.started);
                self.look = Some(Look::new(&self.config.me, read.started, list, contended));
                self.claims.reconcile(self.look.as_ref(), &around.host, out);
            }
            Some(_) | None => {
                // What was hinted at may not exist at all.
                self.reads.forget_hint();
                // The list of the present epoch is still to be written, or was looked for under a former epoch.
                if let Some(look) = &mut self.look {
                    look.changing = true;
                    look.started = read.started;
                }
                self.reads.look_at(out.now + self.config.timing.close_look());
            }
        }
        if self.look.as_ref().is_some_and(|look| look.changing) && self.claims.waits_for_look() {
            self.reads.look_by(out.now + self.config.timing.close_look());
        }
    }
}
