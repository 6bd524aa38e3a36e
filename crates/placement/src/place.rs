//! Deciding who goes where.
//!
//! First the spread: in the order of service (priority, those passed over before, the bigger, the name), each unit to the host with
//! the fewest starts and the most room. In a cluster with room to spare, which is nearly always, that is the whole of it, and it is
//! easy to follow. Only where a VM is left out that some host could have taken, the same units are packed instead: see [`search`].

mod exact;
mod search;

use crate::bits::HostSet;
use crate::index::{Index, NOWHERE, RANKS};
use crate::plan::How;
use crate::room::{Key, Purpose, Room};
use crate::unit::{Unit, units};
use alloc::vec;
use alloc::vec::Vec;

/// A decision, in positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub units: Vec<Unit>,
    /// For each unit its host, or [`NOWHERE`].
    pub hosts: Vec<u32>,
    /// For each unit the key that it was placed by; only where all were spread.
    pub keys: Vec<Option<Key>>,
    pub how: How,
}

impl PartialEq for Unit {
    fn eq(&self, other: &Self) -> bool {
        self.vms == other.vms
            && self.demand == other.demand
            && self.rank == other.rank
            && self.pin == other.pin
    }
}

impl Eq for Unit {}

impl Outcome {
    pub fn placed(&self) -> impl Iterator<Item = (&Unit, u32)> {
        self.units.iter().zip(self.hosts.iter().copied()).filter(|(_, host)| *host != NOWHERE)
    }

    pub fn left_out(&self) -> impl Iterator<Item = &Unit> {
        self.units.iter().zip(&self.hosts).filter(|(_, host)| **host == NOWHERE).map(|(unit, _)| unit)
    }

    pub fn all_placed(&self) -> bool {
        !self.hosts.contains(&NOWHERE)
    }

    pub fn uses(&self, host: u32) -> bool {
        self.hosts.contains(&host)
    }
}

/// How many VMs come back, per rank: more in an earlier rank outweighs everything in later ones.
pub(crate) type Counts = [u32; RANKS];

pub(crate) fn counts(units: &[Unit], hosts: &[u32]) -> Counts {
    let mut counts = [0; RANKS];
    for (unit, _) in units.iter().zip(hosts).filter(|(_, host)| **host != NOWHERE) {
        if let Some(count) = counts.get_mut(unit.rank as usize) {
            *count += unit.vms.len() as u32;
        }
    }
    counts
}

/// The hosts that could take a unit if it were the only one.
pub(crate) struct Candidates {
    pub hosts: HostSet,
    pub count: u64,
}

impl Candidates {
    fn new(hosts: HostSet) -> Self {
        Self { count: hosts.count(), hosts }
    }
}

/// Decides for the failure of these hosts (ascending). The room is left as it was.
pub(crate) fn decide(
    index: &Index,
    room: &mut Room,
    purpose: Purpose,
    failed: &[u32],
    outside: &[u32],
) -> Outcome {
    decide_for(index, room, purpose, failed, outside, units(index, failed, outside))
}

/// The same where it is known who comes back: what [`units`] says.
pub(crate) fn decide_for(
    index: &Index,
    room: &mut Room,
    purpose: Purpose,
    failed: &[u32],
    outside: &[u32],
    units: Vec<Unit>,
) -> Outcome {
    room.begin(index, purpose, failed, outside);
    let mut hosts = vec![NOWHERE; units.len()];
    let mut keys = vec![None; units.len()];
    for (position, unit) in units.iter().enumerate() {
        if let Some(key) = room.choose(index, unit) {
            room.put(index, unit, key.host);
            (hosts[position], keys[position]) = (key.host, Some(key));
        }
    }
    let mut how = How::Spread;
    if hosts.contains(&NOWHERE) {
        room.clear(index, &units);
        // In an over-full cluster most of those left out are so for want of any host, and then packing changes nothing.
        let mut left_out = units.iter().zip(&hosts).filter(|(_, host)| **host == NOWHERE);
        if left_out.any(|(unit, _)| room.choose(index, unit).is_some()) {
            let candidates: Vec<Candidates> =
                units.iter().map(|unit| Candidates::new(room.all_for(index, unit))).collect();
            let (packed, exact) = search::pack(index, room, &units, &candidates, hosts);
            hosts = packed;
            how = if exact { How::PackedExactly } else { How::Packed };
            keys = Vec::new();
            room.clear(index, &units);
        }
    }
    room.end(index, outside);
    Outcome { units, hosts, keys, how }
}
