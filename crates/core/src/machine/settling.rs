//! What follows from time and from an input, room by room: each function asks one room, and carries its answer to others.

use super::Core;
use crate::cluster::Cluster;
use crate::datastore::Datastore;
use crate::election::Reach;
use crate::event::Event;
use crate::heartbeats::heartbeat;
use crate::host_liveness::HostState;
use crate::hosts::{DiskEvidence, Peer};
use crate::message::Body;
use crate::out::Out;
use crate::time::{Span, Time};

impl Core {
    /// After a standstill, the election and the datastores give others the time to be heard again.
    pub(super) fn notice_standstill(&mut self, now: Time) {
        if self.hosts.notice_standstill(self.life.now(), now, &self.config.timing) {
            self.election.go_on(&self.config.timing, now);
            for datastore in self.datastores.all_mut() {
                datastore.on_awake(now);
            }
            self.guard.on_awake(&self.config.timing, now);
        }
    }

    pub(super) fn tick_election(&mut self, out: &mut Out<'_>) {
        let cluster = self.cluster();
        let (rank, best_member) = (cluster.rank(), cluster.best_member());
        let timing = self.config.timing;
        let turn = if self.retires(best_member, out.now) {
            self.election.stand("this host enters maintenance mode", &timing, out)
        } else {
            let slow = self.config.datastores.len() > self.config.heartbeat_datastores.count as usize;
            let owned = self.datastores.owned(out.now).count() as u32;
            let reach = Reach { rank, owned, best_member, slow, reluctant: self.reluctant() };
            self.election.on_tick(
                &reach,
                || self.hosts.in_state(|it| it != HostState::Connected),
                &timing,
                out,
            )
        };
        self.on_turn(turn, out);
    }

    /// In maintenance this host would hand over as soon as somebody follows it. The others may have longer times, and find the
    /// primary silent later: 3 H and a window of theirs, which is less than two failure time-outs.
    fn reluctant(&self) -> Option<Span> {
        if !self.settings.get().maintenance.contains_key(&self.config.me) {
            return None;
        }
        let own = self.config.timing.failure_timeout;
        let longest = self.datastores.all().map(|datastore| datastore.mirror().longest_timeout(own)).max();
        Some(longest.unwrap_or(own).scaled(2, 1))
    }

    /// R79: a primary that enters maintenance hands over when that is on disk and somebody else is there.
    fn retires(&self, best_member: u32, now: Time) -> bool {
        let settings = self.settings.get();
        self.election.is_primary()
            && settings.maintenance.contains_key(&self.config.me)
            && best_member > 0
            && self.commands.is_idle()
            && self.datastores.owned_lists(now).all(|list| list.has_written(settings.revision))
    }

    /// A guard that does not answer is replaced. Until there is one again, holds count no more than leases do.
    pub(super) fn look_after_guard(&mut self, out: &mut Out<'_>) {
        if self.guard.is_given_up(&self.config.timing, out) {
            self.datastores.all_mut().for_each(|datastore| datastore.own_hold_mut().on_guard_lost());
        }
    }

    /// Whether this host reaches anybody: from that follows whether it is isolated.
    pub(super) fn look_for_contact(&mut self, out: &mut Out<'_>) {
        let contact = self.hosts.contact(&self.election, &self.config.timing, out.now);
        let (patience, timing) = (self.isolation_timeout(), &self.config.timing);
        self.isolation.tick(contact.alone, contact.quiet, patience, timing, out);
    }

    /// For how long there must have been no answer of any kind before this host believes that it is isolated.
    pub(super) fn isolation_timeout(&self) -> Span {
        self.config.isolation_timeout.unwrap_or_else(|| self.config.timing.isolation_timeout())
    }

    /// What the datastores show of the other hosts goes into the judgements, and these into the reviews.
    pub(super) fn judge(&mut self, out: &mut Out<'_>) {
        let (datastores, timing, now) = (&self.datastores, &self.config.timing, out.now);
        let writable = datastores.connected().next().is_some();
        let evidence = |peer: &Peer| {
            let (host, mirrors) = (peer.host(), datastores.all().map(Datastore::mirror));
            let seen = mirrors.clone().filter_map(|mirror| mirror.evidence(host, timing, now));
            // Here it is decided whether silence says anything of that host.
            let confirmed = mirrors.clone().any(|mirror| mirror.is_confirmed_down(host));
            let can_freeze =
                confirmed || peer.can_freeze(mirrors.filter_map(|mirror| mirror.word_on_guard(host)));
            DiskEvidence { can_freeze, writable, confirmed_down: confirmed, ..DiskEvidence::of_all(seen) }
        };
        let cut_off = self.isolation.is_adrift(&self.config.timing, out.now);
        if self.hosts.judge(&self.election, evidence, cut_off, &self.config.timing, out) {
            self.datastores.want_reviews();
        }
    }

    /// As the primary: chooses the datastores by whose heartbeats hosts are judged.
    pub(super) fn choose_heartbeat_datastores(&mut self, out: &mut Out<'_>) {
        if self.election.is_primary() {
            let (choice, interval) = (&self.config.heartbeat_datastores, self.config.timing.heartbeat);
            let chosen = self.heartbeats.datastores_mut();
            chosen.choose(&self.hosts, &self.datastores, choice, interval, out);
        }
    }

    /// Says once that the agent has begun, when the first datastore has told whether the host rebooted.
    pub(super) fn announce(&mut self, out: &mut Out<'_>) {
        let known = self.datastores.all().filter_map(Datastore::rebooted).max();
        if let Some(rebooted) = known
            && self.life.take_announcement()
        {
            out.event(Event::AgentStarted { rebooted });
        }
    }

    pub(super) fn tick_datastores(&mut self, out: &mut Out<'_>) {
        let (surroundings, datastores) = self.surroundings();
        let in_step = surroundings.in_step(out.now);
        for name in &surroundings.config.datastores {
            surroundings.act(datastores, name, &in_step, |datastore, around| datastore.on_tick(around, out));
        }
    }

    /// Whether this host decides for the cluster, or a part of it.
    fn decides(&self, now: Time) -> bool {
        let owns = || self.datastores.owned_lists(now).next().is_some();
        self.election.is_primary() && !self.life.is_stopping() && owns()
    }

    /// The primary keeps a plan for the failure of each host at hand.
    pub(super) fn rehearse(&mut self, out: &mut Out<'_>) {
        let decides = self.decides(out.now);
        let cluster =
            Cluster::new(&self.config.me, &self.hosts, &self.datastores, &self.vms, self.settings.get());
        let rehearsing = self.placing.rehearsing_mut();
        if !decides {
            return rehearsing.stop();
        }
        if self.config.rehearse {
            let failing = || self.hosts.in_state(|state| state == HostState::Failed).into_iter().collect();
            rehearsing.rehearse(|| cluster.scene(out.now), cluster.settings(), failing, out.now);
        }
        rehearsing.tell_of_admission(out);
        rehearsing.tell_of_maintenance(cluster.settings(), |host| cluster.left_on(host), out);
    }

    pub(super) fn rehearsal_deadline(&self) -> Option<Time> {
        let decides = self.config.rehearse && self.decides(self.life.now());
        self.placing.rehearsing().deadline().filter(|_| decides)
    }

    /// Where this host has given up an ownership, others need not wait for it to stand still.
    pub(super) fn tell_of_releases(&mut self, out: &mut Out<'_>) {
        let told = self.datastores.take_released(out.now);
        if !told.is_empty() {
            for host in self.hosts.names() {
                out.send(host, Body::Released { datastores: told.clone() });
            }
        }
    }

    /// As a secondary.
    pub(super) fn send_heartbeat(&mut self, out: &mut Out<'_>) {
        let news = self.datastores.take_power_on_news();
        let primary = self.election.primary().filter(|_| !self.election.is_primary());
        let Some(primary) = primary.filter(|_| !self.life.is_stopping()) else { return };
        let (timing, now) = (&self.config.timing, out.now);
        let own = || heartbeat(&self.datastores, &self.vms, &self.guard, timing.failure_timeout, now);
        self.heartbeats.send(primary, news, own, timing.heartbeat, out);
    }

    /// Leases of datastores that this host owns, holds, the VMs to watch, and that the agent is well.
    pub(super) fn instruct_guard(&mut self, out: &mut Out<'_>) {
        let choice = &self.config.heartbeat_datastores;
        self.heartbeats.datastores().set_paces(&mut self.datastores, &mut self.guard, choice, out);
        for datastore in self.datastores.all_mut() {
            if let Some(until) = datastore.ownership().lease_end() {
                self.guard.pass(datastore.name(), until, out);
            }
            datastore.decide_own_hold(out);
            let name = datastore.name();
            let leased = self.guard.lease(name, out.now).is_some();
            if let Some(vms) = datastore.watched(leased, out.now) {
                self.guard.watch(name, vms, self.vms.has_seen(), out);
            }
        }
        let files = self.agreement.digest();
        self.guard.show_life(self.config.incarnation, files, &self.config.timing, out);
    }
}
