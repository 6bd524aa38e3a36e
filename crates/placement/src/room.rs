//! What is left on each host while a plan is being made, and whether a host can take a unit now.

use crate::bits::HostSet;
use crate::index::{Bond, HostSlot, Index, NOWHERE};
use crate::picture::Resources;
use crate::unit::{Pin, Unit};
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;

/// Why placement looks for hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// Hosts failed, or a VM waits: hosts kept for failovers come first.
    #[default]
    Failover,
    /// A host is to be emptied, or a VM is to be started: hosts kept for failovers are left alone.
    Planned,
}

/// A unit that a host is sought for, and the hosts that could take it but for room and devices.
#[derive(Clone, Copy)]
struct Aim<'i> {
    unit: &'i Unit,
    /// For a plain unit the hosts of its class, of which the open ones could. For others [`Room::reach`] says which could.
    class: Option<&'i HostSet>,
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
    /// Hosts that take VMs at all, for this purpose.
    open: HostSet,
    /// Hosts that could take the unit at hand but for room and devices: see [`Room::aim`].
    reach: HostSet,
    /// The measure of work while packing: how many hosts would have been looked at, were each looked at that could take the unit at hand.
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
            open: open(index, Purpose::Failover),
            reach: HostSet::none(index.hosts.len()),
            looks: 0,
        }
    }

    /// Begins a plan: these hosts fail (ascending). What a former plan placed must have been taken back.
    pub fn begin(&mut self, index: &Index, purpose: Purpose, failed: &[u32], outside: &[u32]) {
        if purpose != self.purpose {
            self.open = open(index, purpose);
        }
        failed.iter().for_each(|host| self.open.remove(*host));
        self.purpose = purpose;
        self.failed.extend_from_slice(failed);
        self.looks = 0;
        let lost = failed.iter().filter_map(|host| index.host(*host)).flat_map(|host| &host.residents);
        for vm in lost.chain(outside) {
            self.at[*vm as usize] = NOWHERE;
        }
    }

    /// Ends a plan: everything is again as in the index.
    pub fn end(&mut self, index: &Index, outside: &[u32]) {
        self.empty_used(index);
        let lost = self.failed.iter().filter_map(|host| index.host(*host)).flat_map(|host| &host.residents);
        for vm in lost.chain(outside).chain(&index.waiting) {
            self.at[*vm as usize] = index.vms[*vm as usize].host;
        }
        if self.purpose == Purpose::Failover {
            self.failed
                .iter()
                .for_each(|host| self.open.set(*host, is_open(index, Purpose::Failover, *host)));
        } else {
            self.purpose = Purpose::Failover;
            self.open = open(index, Purpose::Failover);
        }
        self.failed.clear();
    }

    /// Takes over what the index now says of a host. Between plans only.
    pub fn reset_host(&mut self, index: &Index, host: u32) {
        self.open.set(host, is_open(index, self.purpose, host));
        self.reset_room(index, host);
    }

    fn reset_room(&mut self, index: &Index, host: u32) {
        let (position, slot) = (host as usize, &index.hosts[host as usize]);
        (self.free[position], self.score[position]) = (slot.free, slot.score);
        (self.starts[position], self.placed_on[position]) = (slot.starting, 0);
    }

    fn empty_used(&mut self, index: &Index) {
        while let Some(host) = self.used.pop() {
            self.reset_room(index, host);
        }
        self.devices_taken.clear();
    }

    /// Takes over what the index now says of a VM.
    pub fn reset_vm(&mut self, index: &Index, vm: u32) {
        self.at.resize(index.vms.len(), NOWHERE);
        self.at[vm as usize] = index.vms[vm as usize].host;
    }

    /// Takes back all that this plan placed.
    pub fn clear(&mut self, index: &Index, units: &[Unit]) {
        self.empty_used(index);
        for vm in units.iter().flat_map(|unit| &unit.vms) {
            self.at[*vm as usize] = NOWHERE;
        }
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
    pub fn is_open(&self, host: u32) -> bool {
        self.open.has(host)
    }

    /// The host could take the unit if it were alone: all but room, devices in use and other VMs.
    fn is_candidate(&self, index: &Index, unit: &Unit, host: u32) -> bool {
        let pinned = match unit.pin {
            Pin::Free => true,
            Pin::At(only) => only == host,
            Pin::Nowhere => false,
        };
        pinned && self.is_open(host) && unit.vms.iter().all(|vm| index.class(*vm).hosts.has(host))
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
                extra.apart.iter().map(move |rule| (vm, &index.rules.apart[*rule as usize]))
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

    #[inline]
    fn wishes(&self, index: &Index, unit: &Unit, host: u32) -> u32 {
        let failover = u32::from(!index.hosts[host as usize].failover);
        if unit.easy { 1 << 18 | failover } else { self.wishes_of_rules(index, unit, host) | failover }
    }

    fn wishes_of_rules(&self, index: &Index, unit: &Unit, host: u32) -> u32 {
        let mut soft = 0u32;
        let (mut first_try, mut failed) = (false, false);
        for vm in &unit.vms {
            soft += u32::from(index.class(*vm).soft.get(host as usize).copied().unwrap_or(0));
            let Some(extra) = &index.vms[*vm as usize].extra else { continue };
            first_try |= extra.first_try == Some(host);
            failed |= extra.failed_on.contains(&host);
            for bond in extra.near.iter().map(|rule| &index.rules.near[*rule as usize]) {
                let mut others =
                    bond.vms.iter().filter(|other| **other != *vm).map(|other| self.at[*other as usize]);
                soft += u32::from(others.any(|at| at != host && at != NOWHERE));
            }
        }
        for (vm, bond) in Self::apart(index, unit, false) {
            soft += u32::from(bond.vms.iter().any(|other| *other != vm && self.at[*other as usize] == host));
        }
        u32::from(!first_try) << 18 | u32::from(failed) << 17 | soft.min(0xffff) << 1
    }

    /// How many wishes are disappointed when the unit is on this host.
    pub fn disappointed(&self, index: &Index, unit: &Unit, host: u32) -> u64 {
        u64::from(self.wishes(index, unit, host) >> 1 & 0xffff)
    }

    /// How much the unit wishes to be on this host: first that no wish of it is disappointed there, then that one is granted which
    /// others would disappoint.
    pub fn welcome(&self, index: &Index, unit: &Unit, host: u32) -> (Reverse<u64>, u64) {
        let here = self.disappointed(index, unit, host);
        let worst = |vm: &u32| index.class(*vm).soft.iter().copied().max().map_or(0, u64::from);
        let elsewhere: u64 = unit.vms.iter().map(worst).sum();
        (Reverse(here), elsewhere.saturating_sub(here))
    }

    /// How good the host is for the unit.
    #[inline]
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

    /// Finds the hosts that could take the unit but for room and devices. `None`: none could.
    fn aim<'i>(&mut self, index: &'i Index, unit: &'i Unit) -> Option<Aim<'i>> {
        if unit.plain
            && let [vm] = *unit.vms
        {
            return Some(Aim { unit, class: Some(&index.class(vm).hosts) });
        }
        self.reach.become_like(&self.open);
        unit.vms.iter().for_each(|vm| self.reach.keep(&index.class(*vm).hosts));
        match unit.pin {
            Pin::Free => {}
            Pin::At(only) => self.reach.keep_only(only),
            Pin::Nowhere => return None,
        }
        for (vm, bond) in Self::apart(index, unit, true) {
            for other in bond.vms.iter().filter(|other| **other != vm) {
                self.reach.remove(self.at[*other as usize]);
            }
        }
        Self::contradicts(index, unit).is_none().then_some(Aim { unit, class: None })
    }

    /// The host can take the unit now.
    fn is_free_for(&self, index: &Index, aim: Aim<'_>, host: u32) -> bool {
        self.free[host as usize].holds(aim.unit.demand)
            && match aim.class {
                Some(class) => class.has(host) && self.open.has(host),
                None => self.reach.has(host) && self.has_devices(index, aim.unit, host),
            }
    }

    /// All hosts that can take the unit while nothing is placed.
    pub fn all_for(&mut self, index: &Index, unit: &Unit) -> HostSet {
        let Some(aim) = self.aim(index, unit) else { return HostSet::none(index.hosts.len()) };
        let mut all = aim.class.unwrap_or(&self.reach).clone();
        all.keep(&self.open);
        index.by_cpu.keep_enough(unit.demand.cpu_mhz, &mut all);
        index.by_memory.keep_enough(unit.demand.memory_mib, &mut all);
        if !unit.plain {
            let without: Vec<u32> = all.iter().filter(|host| !self.has_devices(index, unit, *host)).collect();
            without.into_iter().for_each(|host| all.remove(host));
        }
        all
    }

    /// The host that fits tightest, of those that disappoint the fewest wishes; without looking at every host where there is one that
    /// disappoints none.
    ///
    /// Safety argument: what is left on a host, as a share of the cluster, is the smaller of what is left of CPU and of memory. Hosts are
    /// gone through by free CPU and by free memory at once, each ascending; a host not met yet has at least as much left of both
    /// as those met last. As soon as the lesser of these two is more than the best has left, no other host can be better.
    pub fn choose_tightest(&mut self, index: &Index, unit: &Unit) -> Option<Key> {
        let aim = self.aim(index, unit)?;
        let nothing_better = nothing_better(index, unit);
        let kept = self.tightest_of(index, aim, index.failover_hosts.iter().copied());
        // Of hosts that are equally welcome these come first.
        if kept.is_some_and(|kept| kept.wishes >> 1 <= nothing_better) {
            return kept;
        }
        let used = self.tightest_of(index, aim, self.used.iter().copied());
        let mut best = kept.into_iter().chain(used).min();
        let mut by_cpu = index.by_cpu.from(unit.demand.cpu_mhz).iter();
        let mut by_memory = index.by_memory.from(unit.demand.memory_mib).iter();
        let mut least = index.least_left(unit.demand, by_cpu.as_slice(), by_memory.as_slice());
        while let Some((cpu, memory)) = least {
            let tightest = |best: Key| best.wishes >> 1 <= nothing_better && best.room < cpu.min(memory);
            if best.is_some_and(tightest) {
                break;
            }
            let next = if cpu < memory { by_cpu.next() } else { by_memory.next() };
            let Some((_, host)) = next else { break };
            if self.placed_on[*host as usize] == 0 && self.is_free_for(index, aim, *host) {
                let key = self.key(index, unit, *host, Prefer::BestFit);
                best = Some(best.map_or(key, |best| best.min(key)));
            }
            least = index.least_left(unit.demand, by_cpu.as_slice(), by_memory.as_slice());
        }
        best
    }

    fn tightest_of(&self, index: &Index, aim: Aim<'_>, hosts: impl Iterator<Item = u32>) -> Option<Key> {
        let free = hosts.filter(|host| self.is_free_for(index, aim, *host));
        free.map(|host| self.key(index, aim.unit, host, Prefer::BestFit)).min()
    }

    /// The best host for the unit now, without looking at every host: of the unused ones, the first in the index' order that can take the
    /// unit and disappoints the fewest wishes; and those that the plan uses.
    pub fn choose(&mut self, index: &Index, unit: &Unit) -> Option<Key> {
        let aim = self.aim(index, unit)?;
        // Failover hosts come first in the order.
        let nothing_better = nothing_better(index, unit);
        let mut best: Option<Key> = None;
        // An unused host has as much free as the index says.
        let ahead = index.order.iter().zip(&index.most_ahead);
        for (host, _) in ahead.take_while(|(_, most)| most.holds(unit.demand)) {
            if self.placed_on[*host as usize] > 0 || !self.is_free_for(index, aim, *host) {
                continue;
            }
            let key = self.key(index, unit, *host, Prefer::Spread);
            if best.is_none_or(|best| key < best) {
                best = Some(key);
            }
            if key.wishes >> 1 <= nothing_better {
                break;
            }
        }
        for host in self.used.iter().copied().filter(|host| self.placed_on[*host as usize] > 0) {
            let key = self.key(index, unit, host, Prefer::Spread);
            if best.is_none_or(|best| key < best) && self.is_free_for(index, aim, host) {
                best = Some(key);
            }
        }
        best
    }
}

/// The fewest wishes that a host can disappoint, as in the key but without the bit of the failover hosts.
fn nothing_better(index: &Index, unit: &Unit) -> u32 {
    let first_try =
        |vm: &u32| index.vms[*vm as usize].extra.as_ref().is_some_and(|extra| extra.first_try.is_some());
    if !unit.easy && unit.vms.iter().any(first_try) { 0 } else { 1 << 17 }
}

/// The host takes VMs at all, for this purpose.
fn is_open(index: &Index, purpose: Purpose, host: u32) -> bool {
    let open = |slot: &HostSlot| slot.takes && !(slot.failover && purpose == Purpose::Planned);
    index.host(host).is_some_and(open)
}

fn open(index: &Index, purpose: Purpose) -> HostSet {
    let count = index.hosts.len();
    let mut set = HostSet::none(count);
    (0..count as u32).filter(|host| is_open(index, purpose, *host)).for_each(|host| set.put(host));
    set
}
