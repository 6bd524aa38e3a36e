//! The agents: each host's own, a process that starts with a new core, hangs, and carries out what its core asks for.

use super::queue::Happening;
use super::shown::Shown;
use super::{World, effects};
use crate::checkers::Violation;
use crate::node::Node;
use mainstay_core::{Config, DatastoreName, HeartbeatChoice, HostId, Incarnation, Input};
use std::collections::VecDeque;

/// More steps of one agent within one virtual second than this: it spins.
const STEPS_PER_SECOND_MAX: u64 = 20_000;

/// How long an agent that was told to stop waits for its last writes.
const LAST_WORDS: u64 = 500_000;

/// A run of an agent.
pub(super) struct Agent {
    pub(super) process: u64,
    pub(super) node: Box<dyn Node>,
    pub(super) started: u64,
    pub(super) hung: bool,
    backlog: VecDeque<Input>,
    /// Its adapter has a connection to libvirt.
    pub(super) connected: bool,
    pub(super) told_lost: bool,
    /// What its adapter remembers of VMs.
    pub(super) shown: Shown,
    tick_at: u64,
    pub(super) generation: u64,
    second: u64,
    steps: u64,
}

impl World {
    pub(super) fn agent_start(&mut self, host: usize, boot: u64) {
        if !self.hosts[host].powered || self.hosts[host].boot != boot || self.hosts[host].agent.is_some() {
            return;
        }
        self.under_way.last_key += 1;
        let process = self.under_way.last_key;
        let me = self.setup.hosts[host].id.clone();
        let config = Config {
            peers: self.setup.known_to(host),
            me,
            datastores: self.setup.served_by(host),
            timing: self.setup.timing_of(host),
            boot: self.boot_id(host),
            incarnation: Incarnation(self.dice.below(u64::MAX)),
            concurrent_starts: 2,
            isolation_addresses: self.setup.gateway.then(|| "gateway".into()).into_iter().collect(),
            isolation_timeout: self.setup.isolation_timeout,
            isolation_response: self.setup.isolation_response,
            shutdown_timeout: self.setup.shutdown_timeout,
            heartbeat_datastores: HeartbeatChoice::default(),
            rehearse: true,
        };
        let now = self.hosts[host].clock.local(self.now);
        let node = match (self.nodes.core)(config, now) {
            Ok(node) => node,
            Err(why) => {
                self.report(Some(Violation { checker: "setup", what: why }));
                return;
            }
        };
        self.record.trace.facts(&[self.now, 6, host as u64]);
        self.say(host, |_| String::from("# agent starts"));
        self.hosts[host].agent = Some(Agent {
            process,
            node,
            started: self.now,
            hung: false,
            backlog: VecDeque::new(),
            connected: false,
            told_lost: false,
            shown: Shown::default(),
            tick_at: 0,
            generation: 0,
            second: 0,
            steps: 0,
        });
        self.feed(host, Input::Tick);
        self.guard_meet(host);
        let wait = self.dice.between(20_000, 500_000);
        self.queue.push(self.now + wait, Happening::HypervisorNews { host });
        self.queue.push(self.now + 1_000, Happening::Resync { host, process });
    }

    /// SIGTERM to the agent: its core hears of it and says its last words. One that hangs hears of it when it goes on.
    pub(super) fn agent_stop(&mut self, host: usize) {
        let Some(agent) = &self.hosts[host].agent else { return };
        let process = agent.process;
        self.feed(host, Input::Stop);
        self.queue.push(self.now + LAST_WORDS, Happening::AgentEnds { host, process });
    }

    /// That run of the agent has said its last words.
    pub(super) fn on_agent_ends(&mut self, host: usize, process: u64) {
        let Some(agent) = self.hosts[host].agent.as_ref().filter(|agent| agent.process == process) else {
            return;
        };
        if agent.hung {
            self.queue.push(self.now + LAST_WORDS, Happening::AgentEnds { host, process });
            return;
        }
        self.record.seen.saw("agent stopped in order");
        self.hosts[host].agent = None;
        self.agent_gone(host);
    }

    /// The next agent finds another file. An agent that finds a guard with other datastores replaces it.
    pub(super) fn new_file(
        &mut self,
        host: usize,
        knows: &Option<Vec<HostId>>,
        serves: &Option<Vec<DatastoreName>>,
    ) {
        let file = &mut self.setup.hosts[host].file;
        if knows.is_some() {
            file.knows.clone_from(knows);
        }
        if serves.is_some() && file.serves != *serves {
            file.serves.clone_from(serves);
            self.guard_kill(host);
        }
    }

    pub(super) fn agent_resume(&mut self, host: usize) {
        let Some(agent) = &mut self.hosts[host].agent else { return };
        agent.hung = false;
        for input in std::mem::take(&mut agent.backlog) {
            self.feed(host, input);
        }
        self.feed(host, Input::Tick);
    }

    /// Gives the host's core an input, if its agent lives, and carries out what it asks for.
    pub(super) fn feed(&mut self, host: usize, input: Input) {
        let clock = self.hosts[host].clock;
        let Some(agent) = &mut self.hosts[host].agent else { return };
        if agent.hung {
            agent.backlog.push_back(input);
            return;
        }
        let now = clock.local(self.now);
        let second = self.now / 1_000_000;
        if agent.second != second {
            agent.second = second;
            agent.steps = 0;
        }
        agent.steps += 1;
        let (process, steps) = (agent.process, agent.steps);
        self.record.trace.facts(&[self.now, 7, host as u64, effects::fact_of_input(&input)]);
        self.record.trace.line(self.now, self.setup.hosts[host].id.as_str(), || format!("<- {input:?}"));
        let mut effects = std::mem::take(&mut self.scratch);
        if let Some(agent) = &mut self.hosts[host].agent {
            agent.node.step(now, input, &mut effects);
        }
        for effect in effects.drain(..) {
            self.carry_out(host, process, effect);
        }
        self.scratch = effects;
        self.schedule_tick(host);
        if steps > STEPS_PER_SECOND_MAX {
            let what = format!("{} takes {steps} steps within a second", self.setup.hosts[host].id);
            self.report(Some(Violation { checker: "calm", what }));
        }
    }

    fn schedule_tick(&mut self, host: usize) {
        let clock = self.hosts[host].clock;
        let Some(agent) = &mut self.hosts[host].agent else { return };
        let wanted = clock.when(agent.node.next_deadline()).max(self.now + 10);
        if agent.tick_at == wanted && wanted > self.now {
            return;
        }
        agent.tick_at = wanted;
        agent.generation += 1;
        let (process, generation) = (agent.process, agent.generation);
        // Timers are a little late, as they are.
        let at = wanted + self.dice.below(1_000);
        self.queue.push(at, Happening::Tick { host, process, generation });
    }
}
