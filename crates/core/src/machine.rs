//! The core: one host's part in the protocol. It hands each input to the room that it concerns, and carries what one room
//! learns to the others. Each rule lives in a room; here is only the order of calls.

mod inputs;
mod invariants;
mod settling;

use crate::agreement::Agreement;
use crate::cluster::Cluster;
use crate::commands::Commands;
use crate::config::Config;
use crate::datastores::Datastores;
use crate::desk::Desk;
use crate::effect::Effect;
use crate::election::Election;
use crate::guard_side::GuardSide;
use crate::heartbeats::Heartbeats;
use crate::hosts::Hosts;
use crate::input::Input;
use crate::isolation::Isolation;
use crate::life::Life;
use crate::local_vms::LocalVms;
use crate::out::Out;
use crate::placing::{Placing, RehearsalScene};
use crate::reviewing;
use crate::settings_here::SettingsHere;
use crate::surroundings::Surroundings;
use crate::time::Time;
use crate::timers::{Deadline, Timer};
use crate::view::View;
use crate::view_of::Known;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// One host's part in the protocol.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Core {
    config: Config,
    life: Life,
    election: Election,
    hosts: Hosts,
    agreement: Agreement,
    isolation: Isolation,
    heartbeats: Heartbeats,
    datastores: Datastores,
    vms: LocalVms,
    guard: GuardSide,
    settings: SettingsHere,
    /// While this host is primary.
    placing: Placing,
    commands: Commands,
}

impl Core {
    /// A core at rest. Fails with a text for the user when the configuration can't work ([`Config::check`]). It begins
    /// with its first [`Core::step`], which should be a [`Input::Tick`].
    pub fn new(config: Config, now: Time) -> Result<Core, String> {
        config.check()?;
        let agreement = Agreement::new(&config, now);
        Ok(Core {
            life: Life::new(config.incarnation, agreement.digest(), now),
            election: Election::new(config.me.clone(), config.peers.clone(), now, &config.timing),
            hosts: Hosts::new(config.me.clone(), &config.peers, now),
            agreement,
            isolation: Isolation::new(config.isolation_addresses.len(), now),
            heartbeats: Heartbeats::new(now),
            datastores: Datastores::new(&config, now),
            vms: LocalVms::new(),
            guard: GuardSide::new(),
            settings: SettingsHere::default(),
            placing: Placing::default(),
            commands: Commands::default(),
            config,
        })
    }

    /// Takes one input and appends what is to be done to `effects`. `now` never goes back.
    pub fn step(&mut self, now: Time, input: Input, effects: &mut Vec<Effect>) {
        self.notice_standstill(now);
        let mut counters = self.life.begin_step(now);
        let mut out = Out { now, counters: &mut counters, effects };
        self.take_in(input, &mut out);
        self.settle(&mut out);
        self.life.end_step(counters);
    }

    /// What follows from time and from whatever the input changed.
    fn settle(&mut self, out: &mut Out<'_>) {
        // First, since all that follows depends on whether this host is primary.
        if !self.life.is_stopping() {
            self.tick_election(out);
        }
        // Before heartbeats and lists say it.
        self.look_after_guard(out);
        // Pings and contact need to know whom this host watches; judgements need the pings.
        self.hosts.ping_the_quiet(&self.election, &self.config.timing, out);
        self.look_for_contact(out);
        // Before all that does something new.
        self.agreement.tick(&self.hosts, &self.datastores, &self.config.timing, out);
        // Before the datastores: who is silent is read more often, and what a failed host left is taken up.
        self.judge(out);
        // After the judgements: what connected hosts reach decides.
        self.choose_heartbeat_datastores(out);
        self.announce(out);
        // Before the datastores: their claims follow the domains, and want these stored.
        self.vms.on_tick(&self.config.datastores, out);
        self.tick_datastores(out);
        // After the datastores: a decision rests on all that was read, and only an owner makes it.
        let anchored = self.isolation.is_anchored(&self.config.timing, out.now);
        reviewing::review(&mut self.desk().1, anchored, out);
        // After the review: plans are made for what is left as it is.
        self.rehearse(out);
        // After all that may write, and may lose an ownership.
        let (commands, mut desk) = self.desk();
        commands.answer(&mut desk, out);
        self.tell_of_releases(out);
        // A heartbeat says what this host knows at the end of a step.
        self.send_heartbeat(out);
        // Last: the guard hears of leases, holds and VMs as they are now.
        self.instruct_guard(out);
    }

    /// What [`Input::Tick`] is wanted for next, and when, unless another input comes before. May lie in the past: tick at
    /// once.
    pub fn next_timer(&self) -> Deadline<'_> {
        let (timing, now) = (&self.config.timing, self.life.now());
        let mut due = Deadline::NEVER;
        if !self.life.is_stopping() {
            due = due.or(Deadline::new(self.election.deadline(timing), Timer::Election));
            if self.election.primary().is_some() && !self.election.is_primary() {
                due = due.or(Deadline::new(self.heartbeats.due(), Timer::Heartbeat));
            }
        }
        due = due.or(self.hosts.deadline(&self.election, timing, now));
        for datastore in self.datastores.all() {
            due = due.or(datastore.deadline(self.vms.domains().is_none(), now));
        }
        due.or(Deadline::maybe(self.placing.deadline(), Timer::Placing))
            .or(Deadline::maybe(self.rehearsal_deadline(), Timer::Rehearsal))
            .or(Deadline::new(self.isolation.deadline(self.isolation_timeout(), timing), Timer::Isolation))
            .or(Deadline::new(self.vms.deadline(), Timer::DomainXml))
            .or(Deadline::new(self.guard.deadline(), Timer::Guard))
    }

    /// When [`Input::Tick`] is wanted next: [`Core::next_timer`] without its name.
    pub fn next_deadline(&self) -> Time {
        self.next_timer().at
    }

    /// What this core believes.
    pub fn view(&self, now: Time) -> View {
        crate::view_of::view_of(
            &Known {
                config: &self.config,
                begun: self.life.begun(),
                election: &self.election,
                isolation: &self.isolation,
                guard: &self.guard,
                heartbeat_datastores: self.heartbeats.datastores(),
                objection: self.placing.rehearsing().at_hand().objection(),
                hosts: &self.hosts,
                datastores: &self.datastores,
                vms: &self.vms,
                cluster: self.cluster(),
            },
            now,
        )
    }

    /// All that a rehearsal in full needs: it may take a while, and is made elsewhere.
    pub fn rehearsal_scene(&self, now: Time) -> RehearsalScene {
        let settings = self.settings.get();
        let at_hand = self.placing.rehearsing().at_hand().under(settings);
        RehearsalScene { scene: self.cluster().scene(now), settings: settings.clone(), at_hand }
    }

    /// Breaks a rule.
    #[cfg(feature = "broken-rules")]
    #[must_use]
    pub fn with_broken(mut self, rule: crate::BrokenRule) -> Core {
        self.datastores.all_mut().for_each(|datastore| datastore.break_rule(rule));
        self.agreement.break_rule(rule);
        if rule == crate::BrokenRule::FailedStands {
            self.hosts.let_failed_stand();
        }
        self
    }

    /// What is known of the cluster.
    fn cluster(&self) -> Cluster<'_> {
        Cluster::new(&self.config.me, &self.hosts, &self.datastores, &self.vms, self.settings.get())
    }

    fn desk(&mut self) -> (&mut Commands, Desk<'_>) {
        let desk = Desk {
            config: &self.config,
            hosts: &self.hosts,
            agreement: &self.agreement,
            vms: &self.vms,
            datastores: &mut self.datastores,
            settings: &mut self.settings,
            placing: &mut self.placing,
        };
        (&mut self.commands, desk)
    }

    /// What the datastores look at, and they themselves.
    fn surroundings(&mut self) -> (Surroundings<'_>, &mut Datastores) {
        let surroundings = Surroundings {
            config: &self.config,
            election: &self.election,
            hosts: &self.hosts,
            agreement: &self.agreement,
            vms: &self.vms,
            guard: &self.guard,
            isolation: &self.isolation,
            stopping: self.life.is_stopping(),
        };
        (surroundings, &mut self.datastores)
    }
}
