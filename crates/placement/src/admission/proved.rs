//! The proved policy: a plan for each choice of failed hosts.
//!
//! All single failures are always gone through. For n at once there are many choices; they are gone through as long as the placements
//! that this takes, about `choices × n × VMs per host`, stay within the bound of work. Beyond it a sufficient condition is used:
//!
//! Safety argument: let a slot be as large as the largest VM (or pack), in CPU and in memory, and let only those hosts have slots that
//! every protected VM could use by what it needs and by its must rules. Then any lost VM fits in any slot. When n hosts fail, at most
//! the sum of the n largest `slots + VMs` disappears or has to be placed. If what is left is more than the VMs that wait anyway,
//! by at least the slots of the d largest hosts, where d is the largest number of VMs that any one must be apart from, then at each
//! step a slot is free on a host that no rule forbids, so VMs placed one after the other all find one. The reverse does not hold: a cluster may be
//! sound and not be proved so. It is then not admitted.

use super::{OBJECTIONS_SHOWN, Objection};
use crate::bits::HostSet;
use crate::index::Index;
use crate::picture::{HostState, Picture, Resources};
use crate::place::{Outcome, decide};
use crate::plan::{Failing, describe};
use crate::refusal::grouped;
use crate::room::{Purpose, Room};
use crate::unit::{Pin, units};
use alloc::string::String;
use alloc::vec::Vec;

/// A proof in the making.
pub(super) struct Proof<'a> {
    picture: &'a Picture,
    index: &'a Index,
    room: &'a mut Room,
    objections: Vec<Objection>,
    more: u64,
}

/// How many ways there are to choose `n` of `of`.
fn choices(of: u64, n: u64) -> u64 {
    let n = n.min(of.saturating_sub(n));
    // Exact at every step: a product of k consecutive numbers is divisible by k!.
    (0..n)
        .fold(1u128, |product, k| {
            (product.saturating_mul(u128::from(of - k)) / u128::from(k + 1)).min(1 << 100)
        })
        .min(u128::from(u64::MAX)) as u64
}

impl<'a> Proof<'a> {
    pub(super) fn new(picture: &'a Picture, index: &'a Index, room: &'a mut Room) -> Proof<'a> {
        Proof { picture, index, room, objections: Vec::new(), more: 0 }
    }

    /// All objections to this number of failures at once, and how many more there are. `singles` are the outcomes of single failures, if at hand.
    pub(super) fn prove(
        mut self,
        singles: Option<&[Outcome]>,
        failures: u32,
        work: u64,
    ) -> (Vec<Objection>, u64) {
        self.try_choice(&[]);
        let hosts = self.hosts_that_may_fail();
        // What one failure leaves out, two leave out as well: the smallest number of failures says it best.
        for n in 1..=(failures as usize).min(hosts.len()) {
            if !self.objections.is_empty() {
                break;
            }
            match singles {
                Some(outcomes) if n == 1 => {
                    for host in hosts.iter().copied() {
                        if let Some(outcome) =
                            outcomes.get(host as usize).filter(|outcome| !outcome.all_placed())
                        {
                            self.object(&[host], outcome);
                        }
                    }
                }
                Some(_) | None => self.try_all(&hosts, n, work),
            }
        }
        (self.objections, self.more)
    }

    /// Hosts in maintenance are out of the game; all others may fail, also those that take no VMs now.
    fn hosts_that_may_fail(&self) -> Vec<u32> {
        let in_game = |(_, host): &(u32, &crate::Host)| host.state != HostState::Maintenance;
        (0u32..).zip(self.picture.hosts.values()).filter(in_game).map(|(position, _)| position).collect()
    }

    fn try_choice(&mut self, failed: &[u32]) {
        let outcome = decide(self.index, self.room, Purpose::Failover, failed, &[]);
        if !outcome.all_placed() {
            self.object(failed, &outcome);
        }
    }

    fn object(&mut self, failed: &[u32], outcome: &Outcome) {
        if self.objections.len() >= OBJECTIONS_SHOWN {
            self.more = self.more.saturating_add(1);
            return;
        }
        let names = failed.iter().filter_map(|host| self.index.host(*host)).map(|host| &host.name);
        let failing = Failing::new(self.picture, self.index, Purpose::Failover, names);
        let plan = describe(self.picture, self.index, self.room, &failing, outcome);
        self.objections.push(Objection::NotAllBack { failed: plan.failed, left_out: plan.left_out });
    }

    fn try_all(&mut self, hosts: &[u32], n: usize, work: u64) {
        let all = choices(hosts.len() as u64, n as u64);
        let vms: usize =
            hosts.iter().filter_map(|host| self.index.host(*host)).map(|host| host.residents.len()).sum();
        let each = 1 + (n * vms / hosts.len().max(1)) as u64;
        if n > 1 && all.saturating_mul(each) > work {
            return self.try_bound(hosts, n, all);
        }
        let mut chosen: Vec<usize> = (0..n).collect();
        loop {
            let failed: Vec<u32> = chosen.iter().map(|position| hosts[*position]).collect();
            self.try_choice(&failed);
            // The next choice: the last position that can still move on does, and those after it follow close behind.
            let Some(moving) = (0..n).rev().find(|place| chosen[*place] < hosts.len() - n + place) else {
                return;
            };
            let next = chosen[moving] + 1;
            for (offset, position) in chosen[moving..].iter_mut().enumerate() {
                *position = next + offset;
            }
        }
    }

    fn try_bound(&mut self, hosts: &[u32], n: usize, choices: u64) {
        // The worst choices by common sense are tried, so that a real gap is named and not only the bound's doubt.
        let mut by_load = hosts.to_vec();
        by_load.sort_by_key(|host| {
            (core::cmp::Reverse(self.index.hosts[*host as usize].residents.len()), *host)
        });
        let mut failed = by_load[..n].to_vec();
        failed.sort_unstable();
        self.try_choice(&failed);
        if !self.objections.is_empty() {
            return;
        }
        if let Err(lacking) = bound(self.index, self.room, hosts, n) {
            self.objections.push(Objection::NotProved { failures: n as u32, choices, lacking });
        }
    }
}

/// The sufficient condition of the module's header.
fn bound(index: &Index, room: &Room, hosts: &[u32], n: usize) -> Result<(), String> {
    let all = units(index, hosts, &[]);
    let mut common = HostSet::all(index.hosts.len());
    let mut slot = Resources::default();
    let mut apart = 0;
    for unit in &all {
        for vm in &unit.vms {
            common.keep(&index.class(*vm).hosts);
        }
        slot.cpu_mhz = slot.cpu_mhz.max(unit.demand.cpu_mhz);
        slot.memory_mib = slot.memory_mib.max(unit.demand.memory_mib);
        let extras = unit.vms.iter().filter_map(|vm| index.vms[*vm as usize].extra.as_ref());
        let mut others = 0;
        for extra in extras {
            if !extra.devices.is_empty() {
                return Err("a VM has a device passed through, which the bound does not count".into());
            }
            let musts =
                extra.apart.iter().map(|rule| &index.rules.apart[*rule as usize]).filter(|bond| bond.must);
            others += musts.map(|bond| bond.vms.len().saturating_sub(1)).sum::<usize>();
        }
        apart = apart.max(others);
        if unit.pin != Pin::Free || Room::contradicts(index, unit).is_some() || is_split(index, &unit.vms) {
            return Err("VMs that must be together are on different hosts".into());
        }
    }
    let slots = |host: u32| {
        if !room.is_open(host) || !common.has(host) {
            return 0;
        }
        let free = index.hosts[host as usize].free;
        let of = |free: u64, slot: u64| free.checked_div(slot).unwrap_or(u64::MAX);
        of(free.cpu_mhz, slot.cpu_mhz).min(of(free.memory_mib, slot.memory_mib)).min(u64::from(u32::MAX))
    };
    let every = 0..index.hosts.len() as u32;
    let total: u64 = every.clone().map(slots).sum();
    let mut lost: Vec<u64> =
        hosts.iter().map(|host| slots(*host) + index.hosts[*host as usize].residents.len() as u64).collect();
    let mut forbidden: Vec<u64> = every.map(slots).collect();
    let largest = |list: &mut Vec<u64>, count: usize| {
        list.sort_unstable_by(|a, b| b.cmp(a));
        list.iter().take(count).sum::<u64>()
    };
    let needed = largest(&mut lost, n) + largest(&mut forbidden, apart) + index.waiting.len() as u64;
    if total >= needed {
        return Ok(());
    }
    Err(alloc::format!(
        "{} slots of {} MHz and {} MiB on the hosts that all VMs can use, {} needed",
        grouped(total),
        grouped(slot.cpu_mhz),
        grouped(slot.memory_mib),
        grouped(needed)
    ))
}

/// Members of one pack run on different hosts, so that the failure of one host may pin them to another.
fn is_split(index: &Index, vms: &[u32]) -> bool {
    let packs = vms.iter().filter_map(|vm| index.vms[*vm as usize].extra.as_ref()?.pack);
    packs.into_iter().any(|pack| {
        let mut at = index.rules.packs[pack as usize].vms.iter().map(|vm| index.vms[*vm as usize].host);
        let first = at.next();
        at.any(|host| Some(host) != first)
    })
}

#[cfg(test)]
mod tests {
    use super::choices;

    #[test]
    fn choices_are_binomials_and_stay_in_range() {
        assert_eq!(choices(5, 2), 10);
        assert_eq!(choices(1000, 3), 166_167_000);
        assert_eq!(choices(1000, 500), u64::MAX);
        assert_eq!(choices(3, 3), 1);
        assert_eq!(choices(1000, 999), 1000);
    }
}
