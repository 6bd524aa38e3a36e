//! Going through all choices, for small cases; and for two hosts at a time in larger ones.
//!
//! Depth first, in the order of service, each unit on each host that fits (tightest first) or on none. A branch is given up when
//! even the best that could still come of it is no better than what is known. Two hosts that are alike and both untouched are one choice.
//! It only ever replaces a packing by one with better counts.

use super::search::Packing;
use super::{Counts, counts};
use crate::bits::HostSet;
use crate::index::NOWHERE;
use crate::picture::Resources;
use alloc::vec::Vec;

/// Cases with more units or hosts than this are not tried: the bound of work would end them without an answer.
const UNITS: usize = 28;
const HOSTS: usize = 12;
/// Looks at hosts before it is given up.
const LOOKS: u64 = 150_000;
/// For two hosts at a time: units, those left out among them, looks at hosts for each two, and for all of them.
const PAIR_UNITS: usize = 16;
const PAIR_WAITING: usize = 6;
const PAIR_LOOKS: u64 = 2_000;
const PAIRS_LOOKS: u64 = 80_000;

struct Exact<'p, 'a> {
    packing: &'p mut Packing<'a>,
    live: &'p [usize],
    hosts: Vec<u32>,
    /// `like[a]` has the hosts before `a` that are like it before anything is placed.
    like: Vec<Vec<u32>>,
    /// For each step and each rank from its unit's on: demands of what is still to come, each resource ascending, summed up.
    to_come: Vec<Vec<Ahead>>,
    done: Counts,
    best: Counts,
    best_hosts: Option<Vec<u32>>,
    stop_at: u64,
    cut_short: bool,
}

/// What is still to come of one rank.
struct Ahead {
    rank: usize,
    vms: u32,
    /// The least CPU, and the least memory, that the first unit, the first two units, … need; with how many VMs these are at the most.
    cpu: Vec<(u64, u32)>,
    memory: Vec<(u64, u32)>,
}

/// Improves the packing if it can be. True: now nothing has better counts.
pub(super) fn exact(packing: &mut Packing<'_>, live: &[usize]) -> bool {
    if live.len() > UNITS {
        return false;
    }
    let hosts = candidates(packing, live);
    if hosts.len() > HOSTS {
        return false;
    }
    let (complete, _) = go_through(packing, live, hosts, LOOKS);
    complete
}

/// The hosts that any of these units could go to, ascending.
fn candidates(packing: &Packing<'_>, units: &[usize]) -> Vec<u32> {
    let mut all = HostSet::none(packing.index.hosts.len());
    units.iter().for_each(|unit| all.add_all(&packing.candidates[*unit].hosts));
    all.iter().collect()
}

/// Goes through all choices for these units (in the order of service) on these hosts, the other units staying where they are.
/// The first value: it was not cut short; the second: the packing is now better.
fn go_through(packing: &mut Packing<'_>, live: &[usize], hosts: Vec<u32>, looks: u64) -> (bool, bool) {
    let known = packing.hosts.clone();
    let best = counts(packing.units, &known);
    live.iter().for_each(|unit| {
        packing.take(*unit);
    });
    let done = counts(packing.units, &packing.hosts);
    let like = likes(packing, live, &hosts);
    let to_come = (0..live.len()).map(|step| ahead(packing, &live[step..])).collect();
    let stop_at = packing.room.looks + looks;
    let mut exact = Exact {
        packing,
        live,
        hosts,
        like,
        to_come,
        done,
        best,
        best_hosts: None,
        stop_at,
        cut_short: false,
    };
    exact.go(0);
    let (complete, found) = (!exact.cut_short, exact.best_hosts.take());
    let better = found.is_some();
    packing.set(found.as_deref().unwrap_or(&known));
    (complete, better)
}

/// For cases too large to go through: every two hosts that one who was left out could go to are emptied of what the plan put there and
/// packed again, together with those left out, until that brings no more.
pub(super) fn repack_pairs(packing: &mut Packing<'_>, live: &[usize]) {
    let stop_at = packing.room.looks + PAIRS_LOOKS;
    let mut again = true;
    while again {
        again = false;
        let out: Vec<usize> = live.iter().copied().filter(|unit| packing.hosts[*unit] == NOWHERE).collect();
        let mut hosts = candidates(packing, &out);
        hosts.retain(|host| !packing.room.is_untouched(*host));
        'pairs: for (position, a) in hosts.iter().enumerate() {
            for b in &hosts[position + 1..] {
                if packing.room.looks >= stop_at {
                    return;
                }
                // Setting up a pair costs about as much as a look for each unit of the plan.
                packing.room.looks += packing.units.len() as u64;
                let goes = |unit: &&usize| {
                    let candidates = &packing.candidates[**unit].hosts;
                    candidates.has(*a) || candidates.has(*b)
                };
                let waiting = out.iter().filter(goes).take(PAIR_WAITING).copied();
                let mut units: Vec<usize> =
                    packing.on(*a).into_iter().chain(packing.on(*b)).chain(waiting).collect();
                // Positions are in the order of service.
                units.sort_unstable();
                if units.len() <= PAIR_UNITS && go_through(packing, &units, [*a, *b].to_vec(), PAIR_LOOKS).1 {
                    again = true;
                    break 'pairs;
                }
            }
        }
    }
}

/// Hosts are alike when they have the same room and the same units could go there.
fn likes(packing: &Packing<'_>, live: &[usize], hosts: &[u32]) -> Vec<Vec<u32>> {
    let alike = |a: u32, b: u32| {
        packing.room.free[a as usize] == packing.room.free[b as usize]
            && live.iter().all(|unit| {
                let on = |host: u32| packing.candidates[*unit].hosts.has(host);
                on(a) == on(b)
            })
            && packing.index.hosts[a as usize].devices.is_empty()
            && packing.index.hosts[b as usize].devices.is_empty()
    };
    let before = |(position, host): (usize, &u32)| {
        hosts[..position].iter().copied().filter(|other| alike(*other, *host)).collect()
    };
    hosts.iter().enumerate().map(before).collect()
}

fn ahead(packing: &Packing<'_>, live: &[usize]) -> Vec<Ahead> {
    let mut list: Vec<Ahead> = Vec::new();
    for chunk in live.chunk_by(|a, b| packing.units[*a].rank == packing.units[*b].rank) {
        let units = || chunk.iter().map(|unit| &packing.units[*unit]);
        let most = units().map(|unit| unit.vms.len() as u32).max().unwrap_or(1);
        let summed = |of: fn(Resources) -> u64| {
            let mut needs: Vec<u64> = units().map(|unit| of(unit.demand)).collect();
            needs.sort_unstable();
            let mut sum = 0u64;
            let add = |(count, need): (usize, u64)| {
                sum = sum.saturating_add(need);
                (sum, (count as u32 + 1) * most)
            };
            needs.into_iter().enumerate().map(add).collect()
        };
        list.push(Ahead {
            rank: packing.units[chunk[0]].rank as usize,
            vms: units().map(|unit| unit.vms.len() as u32).sum(),
            cpu: summed(|demand| demand.cpu_mhz),
            memory: summed(|demand| demand.memory_mib),
        });
    }
    list
}

fn at_most(sums: &[(u64, u32)], free: u64) -> u32 {
    let fit = sums.partition_point(|(sum, _)| *sum <= free);
    fit.checked_sub(1).and_then(|last| sums.get(last)).map_or(0, |(_, vms)| *vms)
}

impl Exact<'_, '_> {
    /// What could still come of this branch, were the hosts one big host.
    fn hope(&self, step: usize) -> Counts {
        let free = self
            .hosts
            .iter()
            .fold(Resources::default(), |sum, host| sum.plus(self.packing.room.free[*host as usize]));
        let mut hope = self.done;
        for ahead in self.to_come.get(step).into_iter().flatten() {
            let fit = at_most(&ahead.cpu, free.cpu_mhz).min(at_most(&ahead.memory, free.memory_mib));
            if let Some(count) = hope.get_mut(ahead.rank) {
                *count += fit.min(ahead.vms);
            }
        }
        hope
    }

    fn go(&mut self, step: usize) {
        if self.hope(step) <= self.best {
            return;
        }
        let Some(unit) = self.live.get(step).copied() else {
            self.best = self.done;
            self.best_hosts = Some(self.packing.hosts.clone());
            return;
        };
        let rank = self.packing.units[unit].rank as usize;
        let vms = self.packing.units[unit].vms.len() as u32;
        for host in self.choices(unit) {
            self.packing.put(unit, host);
            self.done[rank] += vms;
            self.go(step + 1);
            self.done[rank] -= vms;
            self.packing.take(unit);
            if self.cut_short {
                return;
            }
        }
        self.go(step + 1);
    }

    /// The hosts that fit now, tightest first, of those that are alike and untouched only the first.
    fn choices(&mut self, unit: usize) -> Vec<u32> {
        let mut choices = Vec::new();
        for position in 0..self.hosts.len() {
            let host = self.hosts[position];
            let room = &self.packing.room;
            let same =
                room.is_untouched(host) && self.like[position].iter().any(|other| room.is_untouched(*other));
            if !same && self.packing.fits(unit, host) {
                let left = self.packing.room.free[host as usize].less(self.packing.units[unit].demand);
                choices.push((self.packing.index.score(left), host));
            }
        }
        self.cut_short = self.packing.room.looks >= self.stop_at;
        choices.sort_unstable();
        choices.into_iter().map(|(_, host)| host).collect()
    }
}
