//! What hosts say to each other: taking it in, answering, and the heartbeat.

use super::*;
use crate::suspension::Answer;

/// The rehearsal is made anew when the free memory of a host has changed by so many MiB.
const REHEARSAL_STEP: u64 = 256;

impl Core {
    pub(super) fn on_message(&mut self, from: &HostId, message: Message, out: &mut Out<'_>) {
        let rank = self.rank();
        let owned = self.owned(out.now);
        let timing = self.config.timing;
        if !self.hosts.admits(from, &message, out.now) {
            return;
        }
        self.isolation.on_heard(out.now);
        let run = message.incarnation;
        if self.stopping {
            return;
        }
        let turn = match message.body {
            Body::Elect { rank: bid } => self.election.on_elect(from, bid, &rank, owned, &timing, out),
            Body::Announce { rank: theirs, owned: they_own } => {
                self.election.on_announce(from, (they_own, theirs), (owned, rank), out)
            }
            Body::Heartbeat(heartbeat) => {
                self.on_heartbeat(from, run, *heartbeat, out);
                Turn::None
            }
            Body::HeartbeatAck(ack) => {
                if self.election.on_ack(from, out.now) {
                    self.on_ack(ack, out);
                }
                Turn::None
            }
            Body::ListChanged { datastore, stamp } => {
                if let Some(datastore) = self.datastores.get_mut(&datastore) {
                    datastore.on_list_hint(stamp);
                }
                Turn::None
            }
            Body::Released { datastores } => {
                for (name, epoch) in datastores {
                    if let Some(datastore) = self.datastores.get_mut(&name) {
                        datastore.on_released(from, epoch);
                    }
                }
                Turn::None
            }
            Body::SteppingDown => self.election.on_stepping_down(from, &timing, out),
        };
        self.on_turn(turn, out);
    }

    /// The primary's answer: leases on what it owns, and what this host may promise in return.
    pub(super) fn on_ack(&mut self, ack: HeartbeatAck, out: &mut Out<'_>) {
        // R50: a lease counts from the start of the request, and only for the run of the agent that made it.
        let ours = ack.run == self.config.incarnation && ack.echo <= out.now;
        self.promises.clear();
        self.heartbeat_datastores.on_told(ack.heartbeat_datastores);
        for owned in ack.owned {
            let Some(datastore) = self.datastores.get_mut(&owned.datastore) else { continue };
            if let Some(stamp) = owned.list {
                datastore.on_list_hint(stamp);
            }
            if !ours {
                continue;
            }
            self.guard.pass(&owned.datastore, ack.echo + owned.lease.min(self.config.timing.lease), out);
            let answer = Answer { echo: ack.echo, hold: owned.hold, written: owned.list.is_some() };
            datastore.on_answer(answer, out);
            if datastore.promise(owned.epoch, out.now) {
                let promise =
                    Promise { datastore: owned.datastore.clone(), epoch: owned.epoch, echo: ack.sent };
                self.promises.insert(owned.datastore, promise);
            }
        }
    }

    pub(super) fn on_heartbeat(
        &mut self,
        from: &HostId,
        run: Incarnation,
        heartbeat: Heartbeat,
        out: &mut Out<'_>,
    ) {
        if !self.election.is_primary() {
            // The sender follows a primary that is none: let it look for another.
            out.send(from, Body::SteppingDown);
            return;
        }
        for (datastore, version) in &heartbeat.power_on {
            if let Some(datastore) = self.datastores.get_mut(datastore) {
                datastore.on_power_on_hint(from, *version);
            }
        }
        for promise in &heartbeat.promises {
            if let Some(datastore) = self.datastores.get_mut(&promise.datastore) {
                let ours = self.config.timing.failure_timeout;
                datastore.on_promise(from, promise, heartbeat.failure_timeout.unwrap_or(ours), out.now);
            }
        }
        let echo = heartbeat.sent;
        let before = self.hosts.get(from).and_then(Peer::heartbeat);
        // What it could not write it can now: R45.
        let unwritten = before.into_iter().flat_map(|before| &before.unwritten);
        for name in unwritten.filter(|name| !heartbeat.unwritten.contains(name)) {
            if let Some(datastore) = self.datastores.get_mut(name) {
                datastore.want_review();
            }
        }
        let free = |heartbeat: &Heartbeat| heartbeat.capacity.memory_free_mib / REHEARSAL_STEP;
        if before.map(free) != Some(free(&heartbeat)) {
            self.placing.rehearsing_mut().mark_stale();
        }
        self.hosts.on_heartbeat(from, heartbeat, &self.config.timing, out);
        let lease = self.config.timing.lease;
        let owned = self.datastores.all().filter_map(|datastore| {
            let list = datastore.list()?;
            let left = datastore.ownership().left(out.now)?;
            #[cfg(feature = "broken-rules")]
            let left = if datastore.breaks(crate::BrokenRule::AckBeyondOwnership) { lease } else { left };
            Some(OwnedDatastore {
                datastore: datastore.name().clone(),
                epoch: list.epoch(),
                list: list.on_disk(),
                lease: lease.min(left),
                hold: list.suspension().hold(out.now),
            })
        });
        let owned = owned.collect();
        let heartbeat_datastores = self.heartbeat_datastores.chosen().to_vec();
        let ack = HeartbeatAck { echo, run, sent: out.now, owned, heartbeat_datastores };
        out.send(from, Body::HeartbeatAck(ack));
    }

    pub(super) fn on_turn(&mut self, turn: Turn, out: &mut Out<'_>) {
        match turn {
            Turn::None => {}
            Turn::Elected => self.datastores.want_reviews(),
            Turn::Follows => self.heartbeat_due = out.now,
            Turn::SteppedDown => {
                self.heartbeat_due = out.now;
                self.datastores.release("this host is not primary any more", out);
            }
            Turn::Stands => self.hosts.watch_anew(&self.election, &self.config.timing, out.now),
        }
        if matches!(turn, Turn::Follows | Turn::SteppedDown) {
            self.hosts.forget_judgements(out.now);
        }
    }

    /// Where this host has given up an ownership, others need not wait for it to stand still.
    pub(super) fn tell_of_releases(&mut self, out: &mut Out<'_>) {
        let mut told: Vec<(DatastoreName, Epoch)> = Vec::new();
        for datastore in self.datastores.all_mut() {
            if let Some(epoch) = datastore.take_release(out.now) {
                told.push((datastore.name().clone(), epoch));
            }
        }
        if !told.is_empty() {
            for host in self.hosts.names() {
                out.send(host, Body::Released { datastores: told.clone() });
            }
        }
    }

    pub(super) fn send_heartbeat(&mut self, out: &mut Out<'_>) {
        let mut news = false;
        for datastore in self.datastores.all_mut() {
            news |= datastore.take_power_on_news();
        }
        let Some(primary) = self.election.primary().cloned() else { return };
        if self.stopping || primary == self.config.me || !(news || out.now >= self.heartbeat_due) {
            return;
        }
        if out.now >= self.heartbeat_due {
            self.heartbeat_due = out.now + self.config.timing.heartbeat;
        }
        let heartbeat = self.heartbeat(out.now);
        out.send(&primary, Body::Heartbeat(heartbeat.into()));
    }

    fn heartbeat(&self, now: Time) -> Heartbeat {
        let connected = self.datastores.connected();
        Heartbeat {
            sent: now,
            datastores: connected.map(|datastore| datastore.name().clone()).collect(),
            power_on: self
                .datastores
                .all()
                .filter_map(|datastore| Some((datastore.name().clone(), datastore.own().power_on()?.version)))
                .collect(),
            capacity: self.vms.capacity,
            hypervisor_well: self.vms.is_well(),
            promises: self.promises.values().cloned().collect(),
            failure_timeout: Some(self.config.timing.failure_timeout),
            unwritten: self
                .datastores
                .all()
                .filter(|datastore| datastore.is_unwritten(self.vms.domains()))
                .map(|datastore| datastore.name().clone())
                .collect(),
            held: self
                .datastores
                .all()
                .filter_map(|datastore| Some((datastore.name().clone(), datastore.own_hold().left(now)?)))
                .collect(),
            halted: self
                .datastores
                .all()
                .flat_map(|datastore| datastore.claims().halted(self.vms.domains()))
                .take(HALTED_MAX)
                .collect(),
        }
    }
}
