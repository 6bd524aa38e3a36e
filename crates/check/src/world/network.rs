//! The management network: datagrams and pings.

use super::{Item, World};
use mainstay_core::{Input, Message};

impl World {
    /// Whether a datagram passes.
    fn passes(&self, from: usize, to: usize) -> bool {
        !self.faults.cut[from] && !self.faults.cut[to]
    }

    /// A datagram arrives, if it passes.
    pub(super) fn arrive(&mut self, from: usize, to: usize, message: Message) {
        if self.passes(from, to) {
            let from = self.setup.id(from);
            self.feed(to, Input::Message { from, message });
        }
    }

    /// A kernel answers when it runs and is reached, whatever its agent does. Who pings gives up after a heartbeat.
    pub(super) fn ping(&mut self, from: usize, run: u64, to: usize) {
        let answered = self.hosts[to].powered && self.passes(from, to);
        let done = Item::PingDone { host: from, run, of: self.setup.id(to), answered };
        if answered {
            self.ready.push_back(done);
        } else {
            self.timed.push((self.now + self.setup.timing.heartbeat.0, done));
        }
    }
}
