//! The order of calls when this host writes to a datastore: its power-on list, and the protected list if it owns it.

use super::{Around, Datastore};
use crate::ids::{HostId, OpId};
use crate::input::DiskOutcome;
use crate::out::Out;
use crate::register::PowerOnList;
use crate::store::{Done, Outcome};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

impl Datastore {
    pub(super) fn write_power_on(&mut self, around: &Around<'_>, out: &mut Out<'_>) {
        let isolated = around.host.isolation.isolated;
        let complete = around.host.domains.is_some_and(|domains| self.claims.show_all(domains));
        let (offers, guard) = (around.host.offers, around.host.guard_word);
        if self.own.power_on_differs(isolated, complete, guard, offers) {
            self.claims.want_write();
        }
        if !self.own.may_write_power_on(complete, out.now) || !self.claims.is_write_wanted() {
            return;
        }
        self.claims.write_begins();
        let list = PowerOnList {
            boot: self.config.boot,
            incarnation: self.config.incarnation,
            version: 0,
            isolated,
            list_seen: self.look.as_ref().map(|look| look.list.stamp()),
            complete,
            guard,
            claims: self.claims.snapshot(),
            offers: offers.cloned(),
        };
        self.own.write_power_on(list, out);
    }

    pub(crate) fn write_list(&mut self, out: &mut Out<'_>) {
        // Only within the ownership.
        let Some(epoch) = self.ownership.epoch(out.now).filter(|_| self.own.may_write_list(out.now)) else {
            return;
        };
        let Some(list) = &mut self.list else { return };
        if let Some(list) = list.take_write(&self.config.me, out.now) {
            assert_eq!(list.epoch, epoch, "an owner writes the list of an epoch that it does not own");
            self.own.write_list(list, out);
        }
    }

    /// A disk operation of this datastore is done. Returns the hosts that should hear of a new protected list.
    pub(crate) fn on_disk_done(
        &mut self,
        op: OpId,
        outcome: DiskOutcome,
        around: &Around<'_>,
        out: &mut Out<'_>,
    ) -> BTreeSet<HostId> {
        if let Some(read) = self.reads.take(op) {
            self.on_read(read, outcome, around, out);
            return BTreeSet::new();
        }
        let failure = match outcome {
            DiskOutcome::Failed(reason) => Some(reason),
            DiskOutcome::Written | DiskOutcome::Read(_) => None,
        };
        let written = failure.is_none();
        let retry_at = out.now + self.config.timing.close_look();
        let outcome = Outcome { failure, retry_at, connected: self.is_connected() };
        match self.own.on_done(op, &outcome, out) {
            Done::Block { started } => {
                let timing = self.config.timing;
                let next = if written {
                    self.ownership.on_written(started, &timing, out.now)
                } else {
                    if self.ownership.is_idle() {
                        self.own.want_block();
                    }
                    self.ownership.on_write_failed(&timing, out.now)
                };
                self.carry_out(next, out);
            }
            Done::PowerOn(list) if written => {
                if list.isolated {
                    self.claims.want_look();
                }
                self.claims.on_durable(&list.claims, out.now);
                self.own.on_power_on_written(list, out.now);
                self.review_wanted = true;
            }
            Done::PowerOn(_) => self.claims.want_write(),
            Done::List => return self.on_list_done(written, out),
            Done::Foreign => {}
        }
        BTreeSet::new()
    }

    /// The protected list was written, or could not be. Returns the hosts that should hear of it.
    fn on_list_done(&mut self, written: bool, out: &mut Out<'_>) -> BTreeSet<HostId> {
        let Some(list) = &mut self.list else { return BTreeSet::new() };
        self.review_wanted = true;
        if !written {
            list.on_write_failed();
            return BTreeSet::new();
        }
        let concerned = list.on_written(out);
        self.claims.want_look();
        // Whoever is to lose a VM is read once more, by a read that starts now.
        let losing: Vec<HostId> = list
            .entries()
            .filter(|(entry, _)| entry.intent.is_some())
            .filter_map(|(entry, _)| entry.holder.clone())
            .collect();
        for host in losing.iter().filter(|host| **host != self.config.me) {
            self.reads.want_power_on(host);
        }
        concerned
    }
}
