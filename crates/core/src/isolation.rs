//! Whether this host is *cut off*: it hears no other host, no other host answers its pings, and no isolation address does. Whether it
//! is *isolated*: it has been so for long (R60). And whether it is *anchored*: sure, by a sign of its own, that it is neither.
//!
//! It does not: judge other hosts; stop anything.

use crate::effect::Effect;
use crate::event::Event;
use crate::out::Out;
use crate::time::{Span, Time};
use crate::timing::Timing;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Pings in a row without an answer after which an address does not answer.
const MISSED: u32 = 2;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Address {
    in_flight: bool,
    due: Time,
    answered: Option<Time>,
    missed: u32,
}

/// This host's contact with the rest of the world.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Isolation {
    addresses: Vec<Address>,
    cut_off: bool,
    isolated: bool,
    /// When another host was last heard.
    heard: Option<Time>,
    /// When another host last answered a ping.
    pinged: Option<Time>,
    begun: Time,
    /// Some host is silent, or all are: isolation addresses are worth asking.
    asking: bool,
}

impl Isolation {
    pub(crate) fn new(addresses: usize, now: Time) -> Isolation {
        Isolation {
            addresses: (0..addresses).map(|_| Address::default()).collect(),
            cut_off: false,
            isolated: false,
            heard: None,
            pinged: None,
            begun: now,
            asking: false,
        }
    }

    /// It reaches nobody now. What it finds silent may be well.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.cut_off
    }

    /// It has reached nobody for long.
    pub(crate) fn is_isolated(&self) -> bool {
        self.isolated
    }

    /// Another host was heard.
    pub(crate) fn on_heard(&mut self, now: Time) {
        self.heard = Some(now);
    }

    /// Another host has answered a ping.
    pub(crate) fn on_pinged(&mut self, now: Time) {
        self.pinged = Some(now);
    }

    /// The last answer of any kind.
    fn last_answer(&self) -> Time {
        let addresses = self.addresses.iter().filter_map(|address| address.answered);
        addresses.chain(self.heard).chain(self.pinged).max().unwrap_or(self.begun)
    }

    pub(crate) fn on_ping_done(&mut self, index: u32, answered: bool, timing: &Timing, now: Time) {
        let Some(address) = self.addresses.get_mut(index as usize) else { return };
        address.in_flight = false;
        if answered {
            address.answered = Some(now);
            address.missed = 0;
        } else {
            address.missed = address.missed.saturating_add(1);
            address.due = address.due.max(now + timing.ping_offset(address.missed));
        }
    }

    /// Whether this host has had a sign lately that it is not isolated: another host was heard, or an isolation address
    /// answered. Only such a host takes responsibility for the VMs of an isolated one (R61).
    pub(crate) fn is_anchored(&self, timing: &Timing, now: Time) -> bool {
        let recent = |at: Time| now.since(at) < timing.network_timeout();
        self.heard.is_some_and(recent) || self.addresses.iter().any(|a| a.answered.is_some_and(recent))
    }

    /// It has had no such sign, though it has asked. That others are silent is more likely its own fault then.
    pub(crate) fn is_adrift(&self, timing: &Timing, now: Time) -> bool {
        !self.addresses.is_empty() && !self.is_anchored(timing, now)
    }

    /// `alone`: no peer has been heard for the network time-out, and none answers pings. `quiet`: some peer is silent. `patience`:
    /// for how long there must have been no answer of any kind before this host is isolated.
    pub(crate) fn tick(
        &mut self,
        alone: bool,
        quiet: bool,
        patience: Span,
        timing: &Timing,
        out: &mut Out<'_>,
    ) {
        let heard = self.heard.unwrap_or(self.begun);
        let silent = out.now.since(heard) >= timing.suspicion();
        if self.asking && !silent && !quiet {
            self.addresses.iter_mut().for_each(|address| address.missed = 0);
        }
        self.asking = silent || quiet;
        if self.asking {
            for (index, address) in self.addresses.iter_mut().enumerate() {
                if !address.in_flight && out.now >= address.due {
                    address.in_flight = true;
                    address.due = out.now + timing.heartbeat.scaled(1, 2);
                    out.effects.push(Effect::PingIsolation { index: index as u32 });
                }
            }
        }
        let answers = |address: &Address| address.missed < MISSED;
        self.cut_off = alone && !self.addresses.is_empty() && !self.addresses.iter().any(answers);
        let isolated = self.cut_off && out.now.since(self.last_answer()) >= patience;
        if isolated != self.isolated {
            self.isolated = isolated;
            out.event(if isolated { Event::HostIsolated } else { Event::HostNotIsolated });
        }
    }

    /// `patience`: as for [`Isolation::tick`].
    pub(crate) fn deadline(&self, patience: Span, timing: &Timing) -> Time {
        if !self.asking {
            let silent = self.heard.unwrap_or(self.begun) + timing.suspicion();
            return if self.addresses.is_empty() { Time(u64::MAX) } else { silent };
        }
        let due = self.addresses.iter().filter(|address| !address.in_flight).map(|address| address.due);
        let believed = (self.cut_off && !self.isolated).then(|| self.last_answer() + patience);
        due.chain(believed).min().unwrap_or(Time(u64::MAX))
    }
}
