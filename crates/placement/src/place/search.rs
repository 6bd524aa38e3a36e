//! Packing, when the spread left somebody out.
//!
//! Several simple packings are made, each is mended (moved, exchanged, put out in favour of a higher priority) until nothing more
//! helps, and the best one counts. Best means: more VMs of the highest rank, then of the next, and so on; among equals the bigger
//! VMs; among those the fewer disappointed wishes. Where the case is small enough all choices are then gone through ([`exact`]). Of
//! two that are alike, the one that wishes for a host gets the last room there.
//!
//! Two things follow for big VMs. One gives way to smaller ones of its priority only where more VMs come back that way; and a VM is
//! never left out while a smaller one of its priority holds a place in which it would have fitted.
//!
//! The work is bounded by a count of looks at hosts, not by time, so that the result is the same on every machine.

use super::exact::{exact, repack_pairs};
use super::{Candidates, Counts, counts};
use crate::index::{Index, NOWHERE};
use crate::room::{Prefer, Room};
use crate::unit::Unit;
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;

/// Looks at hosts that mending one packing may take, on top of those that making it takes.
const MENDING_LOOKS: u64 = 40_000;

/// How good a packing is; the greater is better.
type Worth = (Counts, u128, Reverse<u64>);

/// One packing in the making.
pub(super) struct Packing<'a> {
    pub index: &'a Index,
    pub room: &'a mut Room,
    pub units: &'a [Unit],
    pub candidates: &'a [Candidates],
    /// For each unit its host, or [`NOWHERE`].
    pub hosts: Vec<u32>,
    stop_at: u64,
}

/// Packs the units; the second value says that no packing has better counts. `spread` is what the spread came to.
pub(super) fn pack(
    index: &Index,
    room: &mut Room,
    units: &[Unit],
    candidates: &[Candidates],
    spread: Vec<u32>,
) -> (Vec<u32>, bool) {
    let mut packing =
        Packing { index, room, units, candidates, hosts: vec![NOWHERE; units.len()], stop_at: 0 };
    let live: Vec<usize> = (0..units.len()).filter(|unit| candidates[*unit].count > 0).collect();
    let mut best: Option<(Worth, Vec<u32>)> = None;
    let mut keep = |packing: &mut Packing<'_>| {
        packing.finish(&live);
        let worth = packing.worth();
        if best.as_ref().is_none_or(|(best, _)| worth > *best) {
            best = Some((worth, packing.hosts.clone()));
        }
        live.iter().all(|unit| packing.hosts[*unit] != NOWHERE)
    };
    packing.set(&spread);
    let mut full = keep(&mut packing);
    for order in orders(units, candidates, &live) {
        for prefer in [Prefer::BestFit, Prefer::Spread] {
            // Nothing brings back more than all.
            if full {
                break;
            }
            packing.set(&[]);
            order.iter().for_each(|unit| {
                packing.place(*unit, prefer);
            });
            full = keep(&mut packing);
        }
    }
    let hosts = best.map_or(spread, |(_, hosts)| hosts);
    packing.set(&hosts);
    let complete = full || exact(&mut packing, &live);
    if !complete {
        repack_pairs(&mut packing, &live);
    }
    packing.finish(&live);
    (packing.hosts, complete)
}

/// Orders to pack in. All keep to the ranks.
fn orders(units: &[Unit], candidates: &[Candidates], live: &[usize]) -> [Vec<usize>; 3] {
    let (mut small, mut choosy) = (live.to_vec(), live.to_vec());
    small.sort_by_key(|unit| (units[*unit].rank, units[*unit].size));
    choosy.sort_by_key(|unit| (units[*unit].rank, candidates[*unit].count));
    [live.to_vec(), small, choosy]
}

impl Packing<'_> {
    pub fn set(&mut self, hosts: &[u32]) {
        self.room.clear(self.index, self.units);
        self.hosts = vec![NOWHERE; self.units.len()];
        for (unit, host) in hosts.iter().enumerate().filter(|(_, host)| **host != NOWHERE) {
            self.put(unit, *host);
        }
    }

    pub fn put(&mut self, unit: usize, host: u32) {
        self.room.put(self.index, &self.units[unit], host);
        self.hosts[unit] = host;
    }

    /// Takes a unit from its host and says which that was.
    pub fn take(&mut self, unit: usize) -> u32 {
        let host = core::mem::replace(&mut self.hosts[unit], NOWHERE);
        if host != NOWHERE {
            self.room.take(self.index, &self.units[unit], host);
        }
        host
    }

    pub fn fits(&mut self, unit: usize, host: u32) -> bool {
        self.room.fits(self.index, &self.units[unit], host)
    }

    /// Places a unit where it fits best now. False: nowhere.
    fn place(&mut self, unit: usize, prefer: Prefer) -> bool {
        // The bound of work counts as if each were looked at.
        self.room.looks += self.candidates[unit].count;
        let best = match prefer {
            Prefer::BestFit => self.room.choose_tightest(self.index, &self.units[unit]),
            Prefer::Spread => self.room.choose(self.index, &self.units[unit]),
        };
        if let Some(key) = best {
            self.put(unit, key.host);
        }
        best.is_some()
    }

    fn worth(&self) -> Worth {
        let size = self.placed().map(|(unit, _)| u128::from(self.units[unit].size)).sum();
        let wishes = self
            .placed()
            .map(|(unit, host)| self.room.disappointed(self.index, &self.units[unit], host))
            .sum();
        (counts(self.units, &self.hosts), size, Reverse(wishes))
    }

    fn placed(&self) -> impl Iterator<Item = (usize, u32)> + '_ {
        self.hosts.iter().copied().enumerate().filter(|(_, host)| *host != NOWHERE)
    }

    /// The units of this plan on a host.
    pub fn on(&self, host: u32) -> Vec<usize> {
        if self.room.is_untouched(host) {
            return Vec::new();
        }
        self.placed().filter(|(_, at)| *at == host).map(|(unit, _)| unit).collect()
    }

    /// The hosts that could take a unit and on which this plan has placed something, ascending.
    fn used_for(&self, unit: usize) -> Vec<u32> {
        let used = self.room.used.iter().copied();
        let could = |host: &u32| !self.room.is_untouched(*host) && self.candidates[unit].hosts.has(*host);
        let mut hosts: Vec<u32> = used.filter(could).collect();
        hosts.sort_unstable();
        hosts
    }

    fn spent(&self) -> bool {
        self.room.looks >= self.stop_at
    }

    /// Mends, then gives places to bigger ones, until neither changes anything; nobody stays out who simply fits.
    fn finish(&mut self, live: &[usize]) {
        let units = self.units;
        self.stop_at = self.room.looks + MENDING_LOOKS;
        loop {
            self.mend(live);
            if self.spent() || !self.upgrade(live) {
                break;
            }
        }
        for unit in live.iter().copied() {
            if self.hosts[unit] == NOWHERE {
                self.place(unit, Prefer::BestFit);
            }
        }
        for unit in live.iter().copied() {
            if self.hosts[unit] == NOWHERE && !units[unit].easy && !self.spent() {
                self.please(unit);
            }
        }
    }

    /// Gives the place of a unit to one that is like it, was left out, and wishes for that host: wishes decide among equals.
    fn please(&mut self, unit: usize) {
        let units = self.units;
        let alike = |other: &usize| {
            let (a, b) = (&units[*other], &units[unit]);
            a.rank == b.rank && a.size == b.size && a.vms.len() == b.vms.len()
        };
        for host in self.used_for(unit) {
            for other in self.on(host).into_iter().filter(alike) {
                let there = self.room.welcome(self.index, &units[other], host);
                self.take(other);
                if self.fits(unit, host) && self.room.welcome(self.index, &units[unit], host) > there {
                    self.put(unit, host);
                    self.place(other, Prefer::BestFit);
                    return;
                }
                self.put(other, host);
            }
        }
    }

    /// Brings in who was left out, as long as that makes it better.
    fn mend(&mut self, live: &[usize]) {
        let mut again = true;
        while again && !self.spent() {
            again = false;
            for unit in live.iter().copied() {
                if self.hosts[unit] == NOWHERE && !self.spent() {
                    again |= self.place(unit, Prefer::BestFit)
                        || self.move_one_for(unit)
                        || self.put_out_lower_for(unit)
                        || self.exchange_for(unit, live);
                }
            }
        }
    }

    /// Moves one unit to another host, so that this one gets its place.
    fn move_one_for(&mut self, unit: usize) -> bool {
        for host in self.used_for(unit) {
            for other in self.on(host) {
                if self.spent() {
                    return false;
                }
                self.take(other);
                if self.fits(unit, host) {
                    self.put(unit, host);
                    if self.place(other, Prefer::BestFit) {
                        return true;
                    }
                    self.take(unit);
                }
                self.put(other, host);
            }
        }
        false
    }

    /// Puts out units of lower ranks: on the host where the least is lost.
    fn put_out_lower_for(&mut self, unit: usize) -> bool {
        let units = self.units;
        let mut best: Option<(Counts, Vec<usize>, u32)> = None;
        for host in self.used_for(unit) {
            let mut lower = self.on(host);
            lower.retain(|other| units[*other].rank > units[unit].rank);
            if lower.is_empty() {
                continue;
            }
            lower.sort_by_key(|other| (Reverse(units[*other].rank), Reverse(units[*other].size), *other));
            let mut out = Vec::new();
            let mut lost = [0; crate::index::RANKS];
            while !self.fits(unit, host) && !lower.is_empty() {
                let other = lower.remove(0);
                self.take(other);
                lost[units[other].rank as usize] += units[other].vms.len() as u32;
                out.push(other);
            }
            let fits = self.fits(unit, host);
            out.iter().for_each(|other| self.put(*other, host));
            if fits && !out.is_empty() && best.as_ref().is_none_or(|(best, ..)| lost < *best) {
                best = Some((lost, out, host));
            }
        }
        let Some((_, out, host)) = best else { return false };
        for other in out {
            self.take(other);
        }
        self.put(unit, host);
        true
    }

    /// Puts out one bigger unit of the same rank, where more than one can come in for it.
    fn exchange_for(&mut self, unit: usize, live: &[usize]) -> bool {
        let units = self.units;
        let of = |unit: usize| (units[unit].rank, units[unit].vms.len());
        for host in self.used_for(unit) {
            for other in self.on(host) {
                if self.spent() {
                    return false;
                }
                if of(other).0 != of(unit).0 {
                    continue;
                }
                let before = self.hosts.clone();
                self.take(other);
                if self.fits(unit, host) {
                    self.put(unit, host);
                    let mut came = of(unit).1;
                    for third in live.iter().copied() {
                        let waits =
                            self.hosts[third] == NOWHERE && third != other && of(third).0 == of(unit).0;
                        if waits && self.place(third, Prefer::BestFit) {
                            came += of(third).1;
                        }
                    }
                    if came > of(other).1 {
                        return true;
                    }
                }
                self.back_to(&before);
            }
        }
        false
    }

    fn back_to(&mut self, hosts: &[u32]) {
        for (unit, host) in hosts.iter().enumerate() {
            if self.hosts[unit] != *host {
                self.take(unit);
            }
        }
        for (unit, host) in hosts.iter().enumerate() {
            if self.hosts[unit] != *host {
                self.put(unit, *host);
            }
        }
    }

    /// Gives the place of a smaller unit to a bigger one of the same rank that was left out. False: there is none such.
    fn upgrade(&mut self, live: &[usize]) -> bool {
        let mut changed = false;
        for unit in live.iter().copied() {
            changed |= self.hosts[unit] == NOWHERE && self.upgrade_one(unit);
        }
        changed
    }

    fn upgrade_one(&mut self, unit: usize) -> bool {
        let units = self.units;
        let smaller = |other: &usize| {
            let (a, b) = (&units[*other], &units[unit]);
            a.rank == b.rank && a.size < b.size && a.vms.len() <= b.vms.len()
        };
        for host in self.used_for(unit) {
            for other in self.on(host).into_iter().filter(smaller) {
                self.take(other);
                if self.fits(unit, host) {
                    self.put(unit, host);
                    self.place(other, Prefer::BestFit);
                    return true;
                }
                self.put(other, host);
            }
        }
        false
    }
}
