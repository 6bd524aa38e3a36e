//! Whether this host is isolated: it hears no other host, no other host answers its pings, and no isolation address does
//! (R60). And whether it is *anchored*: sure, by a sign of its own, that it is not.
//!
//! It does not: judge other hosts; stop anything.

use crate::effect::Effect;
use crate::event::Event;
use crate::out::Out;
use crate::time::Time;
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
    isolated: bool,
    /// When another host was last heard.
    heard: Option<Time>,
    begun: Time,
    /// Some host is silent, or all are: isolation addresses are worth asking.
    asking: bool,
}

impl Isolation {
    pub(crate) fn new(addresses: usize, now: Time) -> Isolation {
        Isolation {
            addresses: (0..addresses).map(|_| Address::default()).collect(),
            isolated: false,
            heard: None,
            begun: now,
            asking: false,
        }
    }

    /// It reaches nobody.
    pub(crate) fn is_isolated(&self) -> bool {
        self.isolated
    }

    /// Another host was heard.
    pub(crate) fn on_heard(&mut self, now: Time) {
        self.heard = Some(now);
    }

    pub(crate) fn on_ping_done(&mut self, index: u32, answered: bool, now: Time) {
        let Some(address) = self.addresses.get_mut(index as usize) else { return };
        address.in_flight = false;
        if answered {
            address.answered = Some(now);
            address.missed = 0;
        } else {
            address.missed = address.missed.saturating_add(1);
        }
    }

    /// Whether this host has had a sign lately that it is not isolated: another host was heard, or an isolation address
    /// answered. Only such a host takes responsibility for the VMs of an isolated one (R61).
    pub(crate) fn is_anchored(&self, timing: &Timing, now: Time) -> bool {
        let recent = |at: Time| now.since(at) < timing.network_timeout();
        self.heard.is_some_and(recent) || self.addresses.iter().any(|a| a.answered.is_some_and(recent))
    }

    /// `alone`: no peer has been heard for the network time-out, and none answers pings. `quiet`: some peer is silent.
    pub(crate) fn tick(&mut self, alone: bool, quiet: bool, timing: &Timing, out: &mut Out<'_>) {
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
        let isolated = alone && !self.addresses.is_empty() && !self.addresses.iter().any(answers);
        if isolated != self.isolated {
            self.isolated = isolated;
            out.event(if isolated { Event::HostIsolated } else { Event::HostNotIsolated });
        }
    }

    pub(crate) fn deadline(&self, timing: &Timing) -> Time {
        if !self.asking {
            let silent = self.heard.unwrap_or(self.begun) + timing.suspicion();
            return if self.addresses.is_empty() { Time(u64::MAX) } else { silent };
        }
        let due = self.addresses.iter().filter(|address| !address.in_flight).map(|address| address.due);
        due.min().unwrap_or(Time(u64::MAX))
    }
}
