//! The management network: datagrams may be lost, doubled, late and out of order; links are cut per direction.

use super::World;
use super::queue::Happening;
use crate::dice::Latency;
use mainstay_core::{Input, Message};

/// What is cut.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    /// Hosts whose management network is cut altogether.
    host_cut: Vec<bool>,
    /// `[from][to]`: nothing passes that way.
    link_cut: Vec<Vec<bool>>,
    /// The gateway answers nobody.
    pub gateway_down: bool,
    /// Loss by fault.
    pub loss_permille: u64,
    /// Duplication by fault.
    pub duplicate_permille: u64,
    /// By sender: what each datagram takes longer, by fault. A spread beyond the heartbeat is reordering.
    late: Vec<Latency>,
}

/// Nothing longer than usual.
const IN_TIME: Latency = Latency { base: 0, spread: 0, tail_permille: 0, tail: 0 };

impl Network {
    pub fn new(hosts: usize) -> Network {
        Network {
            host_cut: vec![false; hosts],
            link_cut: vec![vec![false; hosts]; hosts],
            gateway_down: false,
            loss_permille: 0,
            duplicate_permille: 0,
            late: vec![IN_TIME; hosts],
        }
    }

    /// Whether a datagram could pass that way.
    pub fn passes(&self, from: usize, to: usize) -> bool {
        !self.host_cut[from] && !self.host_cut[to] && !self.link_cut[from][to]
    }

    /// Whether nothing is wrong with the network of that host.
    pub fn is_well(&self, host: usize) -> bool {
        let links =
            (0..self.host_cut.len()).all(|other| !self.link_cut[host][other] && !self.link_cut[other][host]);
        links && !self.host_cut[host] && self.late[host] == IN_TIME && self.loss_permille == 0
    }

    /// Whether a ping of that host could reach the gateway.
    pub fn reaches_gateway(&self, host: usize) -> bool {
        !self.host_cut[host] && !self.gateway_down
    }

    pub fn cut_host(&mut self, host: usize, cut: bool) {
        self.host_cut[host] = cut;
    }

    pub fn cut_link(&mut self, from: usize, to: usize, cut: bool) {
        self.link_cut[from][to] = cut;
    }

    pub fn heal(&mut self) {
        *self = Network::new(self.host_cut.len());
    }
}

impl World {
    /// A datagram leaves.
    pub(super) fn send(&mut self, from: usize, to: usize, message: Message) {
        let loss = self.setup.loss_permille.max(self.net.loss_permille);
        if !self.net.passes(from, to) || self.dice.permille(loss) {
            return;
        }
        let late = self.net.late[from];
        if self.dice.permille(self.setup.duplicate_permille.max(self.net.duplicate_permille)) {
            let at = self.now + self.dice.latency(self.setup.latencies.network) + self.dice.below(20_000);
            let at = at + self.lateness(late);
            self.queue.push(at, Happening::Datagram { from, to, message: message.clone() });
        }
        let at = self.now + self.dice.latency(self.setup.latencies.network) + self.lateness(late);
        self.queue.push(at, Happening::Datagram { from, to, message });
    }

    /// No dice are thrown where there is no fault: a run without it stays what it was.
    fn lateness(&mut self, late: Latency) -> u64 {
        if late == IN_TIME { 0 } else { self.dice.latency(late) }
    }

    /// Datagrams of that host (or of all) take so much longer, in microseconds: at least `base`, and up to `spread` more.
    pub(super) fn set_late(&mut self, host: Option<usize>, base: u64, spread: u64) {
        for index in (0..self.hosts.len()).filter(|index| host.is_none_or(|host| host == *index)) {
            self.net.late[index] = Latency { base, spread, ..IN_TIME };
        }
    }

    /// A datagram arrives.
    pub(super) fn on_datagram(&mut self, from: usize, to: usize, message: Message) {
        if self.net.passes(from, to) && !self.setup.understands(to, from) {
            self.record.seen.saw("message of a newer version dropped");
        } else if self.net.passes(from, to) {
            let from = self.setup.hosts[from].id.clone();
            self.feed(to, Input::Message { from, message });
        }
    }

    /// An agent pings a host.
    pub(super) fn ping(&mut self, from: usize, process: u64, to: usize) {
        let at = self.now + self.dice.latency(self.setup.latencies.network);
        self.queue.push(at, Happening::Ping { from, process, to });
    }

    /// An agent pings the gateway.
    pub(super) fn ping_gateway(&mut self, from: usize, process: u64, index: u32) {
        let reached = !self.net.host_cut[from] && !self.net.gateway_down;
        let answered = reached && !self.dice.permille(self.setup.loss_permille.max(self.net.loss_permille));
        let patience = self.setup.timing_of(from).heartbeat.0;
        let wait = if answered { 2 * self.dice.latency(self.setup.latencies.network) } else { patience };
        let input = Input::IsolationPingDone { index, answered };
        self.queue.push(self.now + wait, Happening::Deliver { host: from, process, input });
    }

    /// A kernel answers when it runs and both ways pass, whatever its agent does.
    pub(super) fn on_ping(&mut self, from: usize, process: u64, to: usize) {
        let answered = self.hosts[to].powered
            && !self.hosts[to].paused
            && self.net.passes(from, to)
            && self.net.passes(to, from);
        // An adapter gives up after about a heartbeat.
        let patience = self.setup.timing_of(from).heartbeat.0;
        let (there, back) = (self.net.late[from], self.net.late[to]);
        let late = self.lateness(there) + self.lateness(back);
        let answered = answered && late < patience;
        let wait = if answered { late + self.dice.latency(self.setup.latencies.network) } else { patience };
        let input = Input::PingDone { host: self.setup.hosts[to].id.clone(), answered };
        self.queue.push(self.now + wait, Happening::Deliver { host: from, process, input });
    }
}
