//! What is left on each host while a plan is being made, and whether a host can take a unit now.

use crate::index::{Bond, Index, NOWHERE};
use crate::picture::Resources;
use crate::unit::{Pin, Unit};
use alloc::vec;
use alloc::vec::Vec;

/// Why placement looks for hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// Hosts failed, or a VM waits: hosts kept for failovers come first.
    #[default]
    Failover,
    /// A host is to be emptied, or a VM is to be started: hosts kept for failovers are left alone.
    Planned,
}

/// How good a host is for a unit; the smallest is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// First try, failed lately, wishes disappointed, kept for failover: 1, 1, 16, 1 bits.
    wishes: u32,
    starts: u32,
    room: u64,
    pub host: u32,
}

/// By what hosts are compared once wishes are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prefer {
    /// The fewest starts, then the most room: no boot storm, no full host beside an empty one.
    Spread,
    /// The least room that suffices: large gaps stay large.
    BestFit,
}

pub(crate) struct Room {
    purpose: Purpose,
    failed: Vec<u32>,
    pub free: Vec<Resources>,
    score: Vec<u64>,
    starts: Vec<u32>,
    /// Where each VM is now.
    pub at: Vec<u32>,
    /// Hosts with something placed on them by this plan.
    pub used: Vec<u32>,
    placed_on: Vec<u32>,
    devices_taken: Vec<(u32, u32)>,
    /// Hosts on which a VM is that the unit at hand must be apart from are marked with the present number.
    barred: Vec<u64>,
    bar: u64,
    /// How many hosts were looked at: the measure of work.
    pub looks: u64,
}

impl Room {
    pub fn new(index: &Index) -> Self {
        Self {
            purpose: Purpose::Failover,
            failed: Vec::new(),
            free: index.hosts.iter().map(|host| host.free).collect(),
            score: index.hosts.iter().map(|host| host.score).collect(),
            starts: index.hosts.iter().map(|host| host.starting).collect(),
            at: index.vms.iter().map(|vm| vm.host).collect(),
            used: Vec::new(),
            placed_on: vec![0; index.hosts.len()],
            devices_taken: Vec::new(),
            barred: vec![0; index.hosts.len()],
            bar: 0,
            looks: 0,
        }
    }

    /// Begins a plan: these hosts fail (ascending). What a former plan placed must have been taken back.
    pub fn begin(&mut self, index: &Index, purpose: Purpose, failed: &[u32], outside: &[u32]) {
        self.purpose = purpose;
        self.failed = failed.to_vec();
        self.looks = 0;
        let lost = failed.iter().filter_map(|host| index.host(*host)).flat_map(|host| &host.residents);
        for vm in lost.chain(outside) {
            self.at[*vm as usize] = NOWHERE;
        }
    }

    /// Ends a plan: everything is again as in the index.
    pub fn end(&mut self, index: &Index, outside: &[u32]) {
        for host in core::mem::take(&mut self.used) {
            self.reset_host(index, host);
        }
        let failed = core::mem::take(&mut self.failed);
        let lost = failed.iter().filter_map(|host| index.host(*host)).flat_map(|host| &host.residents);
        for vm in lost.chain(outside).chain(&index.waiting) {
            self.at[*vm as usize] = index.vms[*vm as usize].host;
        }
        self.devices_taken.clear();
    }

    /// Takes over what the index now says of a host.
    pub fn reset_host(&mut self, index: &Index, host: u32) {
        let (position, slot) = (host as usize, &index.hosts[host as usize]);
        (self.free[position], self.score[position]) = (slot.free, slot.score);
        (self.starts[position], self.placed_on[position]) = (slot.starting, 0);
    }

    /// Takes over what the index now says of a VM.
    pub fn reset_vm(&mut self, index: &Index, vm: u32) {
        self.at.resize(index.vms.len(), NOWHERE);
        self.at[vm as usize] = index.vms[vm as usize].host;
    }

    /// Takes back all that this plan placed.
    pub fn clear(&mut self, index: &Index, units: &[Unit]) {
        for host in core::mem::take(&mut self.used) {
            self.reset_host(index, host);
        }
        for vm in units.iter().flat_map(|unit| &unit.vms) {
            self.at[*vm as usize] = NOWHERE;
        }
        self.devices_taken.clear();
    }

    pub fn put(&mut self, index: &Index, unit: &Unit, host: u32) {
        let position = host as usize;
        self.free[position] = self.free[position].less(unit.demand);
        self.score[position] = index.score(self.free[position]);
        self.starts[position] = self.starts[position].saturating_add(unit.vms.len() as u32);
        if self.placed_on[position] == 0 && !self.used.contains(&host) {
            self.used.push(host);
        }
        self.placed_on[position] += 1;
        for vm in &unit.vms {
            self.at[*vm as usize] = host;
            let devices = index.vms[*vm as usize].extra.iter().flat_map(|extra| &extra.devices);
            self.devices_taken.extend(devices.map(|device| (host, *device)));
        }
    }

    pub fn take(&mut self, index: &Index, unit: &Unit, host: u32) {
        let position = host as usize;
        // Nothing was cut off when it was put there, since it fitted.
        self.free[position] = self.free[position].plus(unit.demand);
        self.score[position] = index.score(self.free[position]);
        self.starts[position] = self.starts[position].saturating_sub(unit.vms.len() as u32);
        self.placed_on[position] = self.placed_on[position].saturating_sub(1);
        for vm in &unit.vms {
            self.at[*vm as usize] = NOWHERE;
            for device in index.vms[*vm as usize].extra.iter().flat_map(|extra| &extra.devices) {
                if let Some(taken) = self.devices_taken.iter().position(|taken| *taken == (host, *device)) {
                    self.devices_taken.swap_remove(taken);
                }
            }
        }
    }

    /// Nothing of this plan is on the host.
    pub fn is_untouched(&self, host: u32) -> bool {
        self.placed_on[host as usize] == 0
    }

    /// The host takes VMs at all, for this purpose.
    pub fn is_open(&self, index: &Index, host: u32) -> bool {
        let slot = &index.hosts[host as usize];
        slot.takes
            && !(slot.failover && self.purpose == Purpose::Planned)
            && self.failed.binary_search(&host).is_err()
    }

    /// The host could take the unit if it were alone: all but room, devices in use and other VMs.
    pub fn is_candidate(&self, index: &Index, unit: &Unit, host: u32) -> bool {
        let pinned = match unit.pin {
            Pin::Free => true,
            Pin::At(only) => only == host,
            Pin::Nowhere => false,
        };
        pinned && self.is_open(index, host) && unit.vms.iter().all(|vm| index.class(*vm).hosts.has(host))
    }

    /// The host can take the unit now, apart from the rules that keep VMs apart.
    fn has_room(&self, index: &Index, unit: &Unit, host: u32) -> bool {
        self.free[host as usize].holds(unit.demand)
            && self.is_candidate(index, unit, host)
            && (unit.plain || self.has_devices(index, unit, host))
    }

    /// A device that the unit needs and that is in use.
    pub fn device_in_use(&self, index: &Index, unit: &Unit, host: u32) -> Option<u32> {
        let wanted = || {
            let extras = unit.vms.iter().filter_map(|vm| index.vms[*vm as usize].extra.as_ref());
            extras.flat_map(|extra| &extra.devices)
        };
        let slot = &index.hosts[host as usize];
        let residents = slot.residents.iter().filter(|vm| self.at[**vm as usize] == host);
        let used_by_residents = |kind: u32| {
            let extras = residents.clone().filter_map(|vm| index.vms[*vm as usize].extra.as_ref());
            extras.flat_map(|extra| &extra.devices).filter(|device| **device == kind).count()
        };
        wanted().copied().find(|kind| {
            let offered =
                slot.devices.iter().find(|(known, _)| known == kind).map_or(0, |(_, count)| *count as usize);
            let taken = self.devices_taken.iter().filter(|taken| **taken == (host, *kind)).count();
            let needed = wanted().filter(|other| *other == kind).count();
            used_by_residents(*kind) + taken + needed > offered
        })
    }

    fn has_devices(&self, index: &Index, unit: &Unit, host: u32) -> bool {
        let none = unit
            .vms
            .iter()
            .all(|vm| index.vms[*vm as usize].extra.as_ref().is_none_or(|extra| extra.devices.is_empty()));
        none || self.device_in_use(index, unit, host).is_none()
    }

    /// The rules that keep the unit apart from others.
    fn apart<'i>(index: &'i Index, unit: &'i Unit, must: bool) -> impl Iterator<Item = (u32, &'i Bond)> {
        let extras =
            unit.vms.iter().filter_map(|vm| index.vms[*vm as usize].extra.as_ref().map(|e| (*vm, e)));
        extras
            .flat_map(move |(vm, extra)| {
                extra.apart.iter().map(move |rule| (vm, &index.apart[*rule as usize]))
            })
            .filter(move |(_, bond)| bond.must == must)
    }

    /// The must rule that keeps the unit off the host, and the VM that is there.
    pub fn kept_apart<'i>(&self, index: &'i Index, unit: &'i Unit, host: u32) -> Option<(&'i Bond, u32)> {
        Self::apart(index, unit, true).find_map(|(vm, bond)| {
            let there = bond.vms.iter().find(|other| **other != vm && self.at[**other as usize] == host);
            there.map(|other| (bond, *other))
        })
    }

    /// Two members of the unit must be apart.
    pub fn contradicts<'i>(index: &'i Index, unit: &'i Unit) -> Option<&'i Bond> {
        let inside =
            |(vm, bond): &(u32, &Bond)| bond.vms.iter().any(|other| other != vm && unit.vms.contains(other));
        Self::apart(index, unit, true).find(inside).map(|(_, bond)| bond)
    }

    /// The host can take the unit now.
    pub fn fits(&mut self, index: &Index, unit: &Unit, host: u32) -> bool {
        self.looks += 1;
        self.has_room(index, unit, host)
            && (unit.plain
                || (self.kept_apart(index, unit, host).is_none() && Self::contradicts(index, unit).is_none()))
    }

    /// The host could take the unit if VMs that must be apart were no matter.
    pub fn could_fit(&self, index: &Index, unit: &Unit, host: u32) -> bool {
        self.has_room(index, unit, host)
    }

    fn wishes(&self, index: &Index, unit: &Unit, host: u32) -> u32 {
        let failover = u32::from(!index.hosts[host as usize].failover);
        if unit.easy {
            return 1 << 18 | failover;
        }
        let mut soft = 0u32;
        let (mut first_try, mut failed) = (false, false);
        for vm in &unit.vms {
            soft += u32::from(index.class(*vm).soft.get(host as usize).copied().unwrap_or(0));
            let Some(extra) = &index.vms[*vm as usize].extra else { continue };
            first_try |= extra.first_try == Some(host);
            failed |= extra.failed_on.contains(&host);
            for bond in extra.near.iter().map(|rule| &index.near[*rule as usize]) {
                let mut others =
                    bond.vms.iter().filter(|other| **other != *vm).map(|other| self.at[*other as usize]);
                soft += u32::from(others.any(|at| at != host && at != NOWHERE));
            }
        }
        for (vm, bond) in Self::apart(index, unit, false) {
            soft += u32::from(bond.vms.iter().any(|other| *other != vm && self.at[*other as usize] == host));
        }
        u32::from(!first_try) << 18 | u32::from(failed) << 17 | soft.min(0xffff) << 1 | failover
    }

    /// How many wishes are disappointed when the unit is on this host.
    pub fn disappointed(&self, index: &Index, unit: &Unit, host: u32) -> u64 {
        u64::from(self.wishes(index, unit, host) >> 1 & 0xffff)
    }

    /// How good the host is for the unit.
    pub fn key(&self, index: &Index, unit: &Unit, host: u32, prefer: Prefer) -> Key {
        let position = host as usize;
        let wishes = self.wishes(index, unit, host);
        match prefer {
            Prefer::Spread => {
                Key { wishes, starts: self.starts[position], room: u64::MAX - self.score[position], host }
            }
            Prefer::BestFit => {
                let left = index.score(self.free[position].less(unit.demand));
                Key { wishes, starts: 0, room: left, host }
            }
        }
    }

    /// What the spread's key for the host is at the very best, wherever other VMs of its rules are: never above the true one.
    pub fn key_at_best(&self, index: &Index, unit: &Unit, host: u32) -> Key {
        let key = self.key(index, unit, host, Prefer::Spread);
        if unit.easy {
            return key;
        }
        let soft = |vm: &u32| u32::from(index.class(*vm).soft.get(host as usize).copied().unwrap_or(0));
        let soft: u32 = unit.vms.iter().map(soft).sum();
        Key { wishes: key.wishes & !(0xffff << 1) | soft.min(0xffff) << 1, ..key }
    }

    /// The best host for the unit now.
    pub fn choose(&mut self, index: &Index, unit: &Unit, prefer: Prefer) -> Option<Key> {
        if !unit.plain && !self.bar_hosts(index, unit) {
            return None;
        }
        if prefer == Prefer::Spread {
            return self.choose_spread(index, unit);
        }
        let mut best: Option<Key> = None;
        for host in 0..index.hosts.len() as u32 {
            self.looks += 1;
            if !self.is_free_for(index, unit, host) {
                continue;
            }
            let key = self.key(index, unit, host, prefer);
            if best.is_none_or(|best| key < best) {
                best = Some(key);
            }
        }
        best
    }

    /// There is room, and no must rule bars the host. Only right after the hosts were barred for this unit.
    fn is_free_for(&self, index: &Index, unit: &Unit, host: u32) -> bool {
        let barred = !unit.plain && self.barred[host as usize] == self.bar;
        !barred && self.has_room(index, unit, host)
    }

    /// The same without looking at every host: of the unused ones, the first in the index' order that can take the unit and disappoints the
    /// fewest wishes; and those that the plan uses.
    fn choose_spread(&mut self, index: &Index, unit: &Unit) -> Option<Key> {
        let first_try =
            |vm: &u32| index.vms[*vm as usize].extra.as_ref().is_some_and(|extra| extra.first_try.is_some());
        // Nothing can be better than this but for the failover hosts, and they come first in the order.
        let nothing_better = if !unit.easy && unit.vms.iter().any(first_try) { 0 } else { 1 << 17 };
        let mut looks = 0;
        let mut best: Option<Key> = None;
        for host in index.order.iter().copied() {
            looks += 1;
            if self.placed_on[host as usize] > 0 || !self.is_free_for(index, unit, host) {
                continue;
            }
            let key = self.key(index, unit, host, Prefer::Spread);
            if best.is_none_or(|best| key < best) {
                best = Some(key);
            }
            if key.wishes >> 1 <= nothing_better {
                break;
            }
        }
        self.looks += looks;
        for host in self.used.iter().copied().filter(|host| self.placed_on[*host as usize] > 0) {
            let key = self.key(index, unit, host, Prefer::Spread);
            if best.is_none_or(|best| key < best) && self.is_free_for(index, unit, host) {
                best = Some(key);
            }
        }
        best
    }

    /// Marks the hosts that must rules keep the unit off. False: no host will do.
    fn bar_hosts(&mut self, index: &Index, unit: &Unit) -> bool {
        self.bar += 1;
        for (vm, bond) in Self::apart(index, unit, true) {
            for other in bond.vms.iter().filter(|other| **other != vm) {
                let at = self.at[*other as usize];
                if let Some(mark) = self.barred.get_mut(at as usize) {
                    *mark = self.bar;
                }
            }
        }
        Self::contradicts(index, unit).is_none()
    }
}
