//! The management network: datagrams may be lost, doubled, late and out of order; links are cut per direction.

use super::World;
use super::queue::Happening;
use mainstay_core::{Input, Message};

/// What is cut.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    /// Hosts whose management network is cut altogether.
    host_cut: Vec<bool>,
    /// `[from][to]`: nothing passes that way.
    link_cut: Vec<Vec<bool>>,
    /// Loss by fault.
    pub loss_permille: u64,
}

impl Network {
    pub fn new(hosts: usize) -> Network {
        Network { host_cut: vec![false; hosts], link_cut: vec![vec![false; hosts]; hosts], loss_permille: 0 }
    }

    /// Whether a datagram could pass that way.
    pub fn passes(&self, from: usize, to: usize) -> bool {
        !self.host_cut[from] && !self.host_cut[to] && !self.link_cut[from][to]
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
        if self.dice.permille(self.setup.duplicate_permille) {
            let at = self.now + self.dice.latency(self.setup.network) + self.dice.below(20_000);
            self.queue.push(at, Happening::Datagram { from, to, message: message.clone() });
        }
        let at = self.now + self.dice.latency(self.setup.network);
        self.queue.push(at, Happening::Datagram { from, to, message });
    }

    /// A datagram arrives.
    pub(super) fn on_datagram(&mut self, from: usize, to: usize, message: Message) {
        if self.net.passes(from, to) {
            let from = self.setup.hosts[from].id.clone();
            self.feed(to, Input::Message { from, message });
        }
    }

    /// An agent pings a host.
    pub(super) fn ping(&mut self, from: usize, process: u64, to: usize) {
        let at = self.now + self.dice.latency(self.setup.network);
        self.queue.push(at, Happening::Ping { from, process, to });
    }

    /// A kernel answers when it runs and both ways pass, whatever its agent does.
    pub(super) fn on_ping(&mut self, from: usize, process: u64, to: usize) {
        let answered = self.hosts[to].powered && self.net.passes(from, to) && self.net.passes(to, from);
        let wait = if answered {
            self.dice.latency(self.setup.network)
        } else {
            // An adapter gives up after about a heartbeat.
            self.setup.timing.heartbeat.0
        };
        let input = Input::PingDone { host: self.setup.hosts[to].id.clone(), answered };
        self.queue.push(self.now + wait, Happening::Deliver { host: from, process, input });
    }
}
