//! What this host reads of a datastore, when, and what it learns from it.
//!
//! Every answer refreshes what was seen of each register, whatever the read was for; then the purpose has its turn.

use super::*;

impl Datastore {
    pub(super) fn read(&mut self, purpose: Purpose, registers: Vec<RegisterId>, out: &mut Out<'_>) {
        let op = out.disk(&self.name, DiskAction::Read(registers));
        self.reads.insert(op, Read { purpose, started: out.now });
    }

    pub(super) fn reading(&self, purpose: &Purpose) -> bool {
        self.reads.values().any(|read| read.purpose == *purpose)
    }

    /// Reads what has to be watched: everybody for a primary or a candidate, else only the owner.
    pub(super) fn scan(&mut self, around: &Around<'_>, out: &mut Out<'_>) {
        let timing = self.config.timing;
        if out.now >= self.scan_due && !self.reading(&Purpose::Scan) {
            let interval = match (around.suspicious, self.slow) {
                (true, _) => timing.close_look(),
                (false, true) => timing.resync(),
                (false, false) => timing.heartbeat,
            };
            self.scan_due = out.now + interval;
            let owner = self.present_owner().map(|(_, host)| host.clone()).filter(|host| *host != self.me);
            let whom: Vec<HostId> = match owner {
                Some(owner) if around.secondary && !around.suspicious => [owner].to_vec(),
                Some(_) | None => self.peers.clone(),
            };
            // An owner need not watch for contenders: its own lease silences it in time, whoever comes after it.
            let owns = self.list.is_some();
            let of = |host: HostId| {
                let block = (!owns).then(|| RegisterId::Ownership(host.clone()));
                [RegisterId::Heartbeat(host)].into_iter().chain(block)
            };
            if owns {
                self.wanted_power_on.extend(around.cut_off.iter().cloned());
            }
            let registers: Vec<RegisterId> = whom.into_iter().flat_map(of).collect();
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

    pub(super) fn look_if_wanted(&mut self, around: &Around<'_>, out: &mut Out<'_>) {
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
        let relaxed = (around.secondary || around.primary)
            && !self.claims.has_frozen()
            && !around.host.isolation.isolated;
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

    pub(super) fn on_read(
        &mut self,
        read: Read,
        outcome: DiskOutcome,
        around: &Around<'_>,
        out: &mut Out<'_>,
    ) {
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
                ReadRegister::Unreadable(reason, mark) => {
                    self.mirror.on_unreadable(&id, reason, out);
                    // A damaged list counts as none: the power-on lists stand in for it. A damaged block must not, and a damaged
                    // power-on list only of a host that is dead.
                    complete &= match &id {
                        RegisterId::ProtectedList(_) => true,
                        RegisterId::PowerOn(host) => around.failed.contains(host),
                        RegisterId::Heartbeat(_) | RegisterId::Ownership(_) => false,
                    };
                    self.take_in_damage(&id, mark, &read, out.now);
                    continue;
                }
            };
            self.mirror.on_readable(&id, out);
            self.take_in(&id, value, &read, &mut lists, out.now);
        }
        let newest = lists.iter().max_by_key(|list| list.stamp()).cloned();
        match read.purpose {
            Purpose::Open => {}
            Purpose::Recover(epoch) => self.on_recovered(epoch, &lists, out),
            Purpose::Scan | Purpose::PowerOn => self.review_wanted = true,
            // R26: who has lost its own block does not know the present epoch.
            Purpose::Look => {
                self.on_look(&read, newest, complete && !self.ownership.is_recovering(), around, out)
            }
            Purpose::Consensus => {
                let timing = self.config.timing;
                let next = if complete {
                    self.ownership.on_all_read(&self.mirror, &timing, out.now)
                } else {
                    self.ownership.on_read_failed(&timing, out.now)
                };
                self.carry_out(next, out);
            }
            Purpose::TakeOver(epoch) => {
                // R23: what was read for an earlier epoch of this host's says nothing about this one.
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
            HeartbeatShown::Change => self.other_holds.on_sign_of_life(host),
            HeartbeatShown::Heartbeat { hold } => {
                self.other_holds.on_sign_of_life(host);
                self.other_holds.on_heartbeat(host, hold, &self.config.timing, now);
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
                self.claims.look_wanted = self.claims.waits_for_look();
                self.look_due = self.look_due.min(out.now + timing.heartbeat);
            }
            Purpose::PowerOn => self.resync_due = self.resync_due.min(out.now + timing.heartbeat),
            Purpose::Open | Purpose::Scan => {}
            Purpose::Recover(_) => self.ownership.retry_recovery(out.now + timing.heartbeat),
        }
    }

    pub(super) fn on_open(&mut self, registers: Vec<(RegisterId, ReadRegister)>, out: &mut Out<'_>) {
        let mut found = Vec::new();
        let mut rebooted = false;
        for (id, register) in registers {
            match register {
                ReadRegister::Value(RegisterValue::PowerOn(list)) => {
                    rebooted = list.boot != self.config.boot;
                    self.power_on.version = list.version;
                    found = list.claims;
                }
                ReadRegister::Value(RegisterValue::Ownership(block)) => {
                    self.ownership.find(block);
                }
                ReadRegister::Value(RegisterValue::ProtectedList(_) | RegisterValue::Heartbeat(_))
                | ReadRegister::Missing => {}
                ReadRegister::Unreadable(reason, _) => {
                    self.mirror.on_unreadable(&id, reason, out);
                    if matches!(id, RegisterId::Ownership(_)) {
                        self.ownership.lose_block();
                    }
                    self.claims_lost |= matches!(id, RegisterId::PowerOn(_));
                }
            }
        }
        self.open = true;
        self.rebooted = Some(rebooted);
        self.claims = Claims::new(self.name.clone(), self.me.clone(), found, rebooted, out.now);
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
                    self.claims.dirty |=
                        list.entries.iter().any(|entry| entry.holder.as_ref() == Some(&self.me));
                }
                self.own_hold.on_look(&list, read.started);
                self.look = Some(Look { started: read.started, list, changing: contended });
                self.claims.reconcile(self.look.as_ref(), &around.host, out);
            }
            Some(_) | None => {
                // What was hinted at may not exist at all.
                self.lists_hint = None;
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
}
