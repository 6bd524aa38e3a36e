//! What this host writes to a datastore: its power-on list, and the protected list if it owns it. At most one write of each
//! register is under way.

use super::*;

impl Datastore {
    pub(super) fn write(&self, value: RegisterValue, out: &mut Out<'_>) -> OpId {
        let id = match &value {
            RegisterValue::Heartbeat(_) => RegisterId::Heartbeat(self.me.clone()),
            RegisterValue::PowerOn(_) => RegisterId::PowerOn(self.me.clone()),
            RegisterValue::Ownership(_) => RegisterId::Ownership(self.me.clone()),
            RegisterValue::ProtectedList(list) => RegisterId::ProtectedList(list.epoch),
        };
        out.disk(&self.name, DiskAction::Write(id, value))
    }

    /// The isolation flag is on disk, and no write is under way that takes it down.
    pub(super) fn flag_stands(&self) -> bool {
        let falls = self.power_on.in_flight.as_ref().is_some_and(|(_, list)| !list.isolated);
        !falls && self.power_on.durable.as_ref().is_some_and(|list| list.isolated)
    }

    pub(super) fn write_power_on(&mut self, around: &Around<'_>, out: &mut Out<'_>) {
        let isolated = around.host.isolation.isolated;
        let complete = around.host.domains.is_some_and(|domains| self.claims.show_all(domains));
        let offers = around.host.offers.cloned();
        self.claims.dirty |= offers != self.power_on.offers;
        self.claims.dirty |= isolated != self.power_on.isolated || complete != self.power_on.complete;
        self.claims_lost &= !complete;
        if self.claims_lost
            || !self.claims.dirty
            || self.power_on.in_flight.is_some()
            || out.now < self.power_on.retry
        {
            return;
        }
        self.claims.dirty = false;
        self.power_on.isolated = isolated;
        self.power_on.complete = complete;
        self.power_on.offers.clone_from(&offers);
        self.power_on.version = self.power_on.version.wrapping_add(1);
        let list = PowerOnList {
            boot: self.config.boot,
            incarnation: self.config.incarnation,
            version: self.power_on.version,
            isolated,
            list_seen: self.look.as_ref().map(|look| look.list.stamp()),
            complete,
            claims: self.claims.snapshot(),
            offers,
        };
        let op = self.write(RegisterValue::PowerOn(list.clone()), out);
        self.power_on.in_flight = Some((op, list));
    }

    pub(crate) fn write_list(&mut self, out: &mut Out<'_>) {
        // R20: an owner writes only within its ownership.
        if self.ownership.epoch(out.now).is_none() || self.list_write.is_some() || out.now < self.list_retry {
            return;
        }
        let Some(list) = &mut self.list else { return };
        if let Some(list) = list.take_write(&self.me, out.now) {
            self.list_write = Some(self.write(RegisterValue::ProtectedList(list), out));
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
        if let Some(read) = self.reads.remove(&op) {
            self.on_read(read, outcome, around, out);
            return BTreeSet::new();
        }
        let failure = match &outcome {
            DiskOutcome::Failed(reason) => Some(reason.clone()),
            DiskOutcome::Written | DiskOutcome::Read(_) => None,
        };
        self.tell_of_write(op, failure.as_ref(), out);
        if let Some((_, started)) = self.own_write.take_if(|(id, _)| *id == op) {
            let timing = self.config.timing;
            let next = match failure {
                None => self.ownership.on_written(started, &timing, out.now),
                Some(_) => {
                    self.own_retry = out.now + timing.close_look();
                    self.own_dirty |= self.ownership.is_idle();
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
                self.list_retry = out.now + self.config.timing.close_look();
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

    /// Says once that a register of this host can't be written although its heartbeats arrive (I8), and when it can again.
    pub(super) fn tell_of_write(&mut self, op: OpId, failure: Option<&Arc<str>>, out: &mut Out<'_>) {
        let id = if self.own_write.is_some_and(|(id, _)| id == op) {
            RegisterId::Ownership(self.me.clone())
        } else if self.power_on.in_flight.as_ref().is_some_and(|(id, _)| *id == op) {
            RegisterId::PowerOn(self.me.clone())
        } else if let (true, Some(list)) = (self.list_write == Some(op), &self.list) {
            RegisterId::ProtectedList(list.epoch())
        } else {
            return;
        };
        let (datastore, register) = (self.name.clone(), file_of(&id));
        match failure {
            Some(reason) if self.connected && self.unwritable_told.insert(id.clone()) => {
                out.event(Event::RegisterUnwritable { datastore, register, reason: reason.clone() });
            }
            None if self.unwritable_told.remove(&id) => {
                out.event(Event::RegisterReadable { datastore, register });
            }
            Some(_) | None => {}
        }
    }

    pub(super) fn on_power_on_written(&mut self, list: PowerOnList, written: bool, out: &mut Out<'_>) {
        if !written {
            self.claims.dirty = true;
            self.power_on.retry = out.now + self.config.timing.close_look();
            return;
        }
        self.flagged = list.isolated.then(|| self.flagged.unwrap_or(out.now));
        self.claims.look_wanted |= list.isolated;
        self.claims.on_durable(&list.claims, out.now);
        self.power_on.durable = Some(list);
        self.power_on_changed = true;
        self.review_wanted = true;
    }
}
