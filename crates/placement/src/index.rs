//! The picture, made ready for deciding: hosts and VMs get positions, what a VM needs becomes one set of hosts, rules become lists.
//!
//! Why: a plan asks "can this host take this VM" many thousand times, and text is too slow for that. Hosts have their position by
//! name, so that the smaller position is the smaller name. VMs have no order in their positions: a VM that came later has a later one,
//! so ties between VMs are broken by name, never by position.
//!
//! Invariant: an index that was updated decides like one that is built anew. What can't be kept so is built anew.

mod build;
mod classes;
mod ranked;
mod update;

pub(crate) use classes::Class;
pub(crate) use update::Touched;

use crate::bits::HostSet;
use crate::picture::{Name, Resources};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use classes::Classes;
use ranked::Ranked;

/// In place of a host's position: the VM is on no host.
pub(crate) const NOWHERE: u32 = u32::MAX;
/// In place of a host's position: the VM is on a host that is not in the picture.
pub(crate) const OUTSIDE: u32 = u32::MAX - 1;
/// How many ranks there are: two for each priority that restarts, since those passed over before go first.
pub(crate) const RANKS: usize = 10;

#[derive(Clone, Debug)]
pub(crate) struct HostSlot {
    pub name: Name,
    /// It is usable and not in maintenance.
    pub takes: bool,
    pub failover: bool,
    pub starting: u32,
    pub capacity: Resources,
    pub kept_back: Resources,
    pub measured: Option<Resources>,
    /// What is left beside the VMs that are there.
    pub free: Resources,
    /// `free` as a share of the cluster, the scarcer of CPU and memory.
    pub score: u64,
    /// The VMs that are there.
    pub residents: Vec<u32>,
    /// Kind of device and how many of it.
    pub devices: Vec<(u32, u32)>,
}

/// What few VMs have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extra {
    pub failed_on: Vec<u32>,
    pub first_try: Option<u32>,
    pub devices: Vec<u32>,
    /// Positions of the rules that keep it apart from others, must and should.
    pub apart: Vec<u32>,
    /// Positions of the rules that would like it together with others.
    pub near: Vec<u32>,
    /// The pack that it moves with.
    pub pack: Option<u32>,
}

#[derive(Clone, Debug)]
pub(crate) struct VmSlot {
    pub name: Name,
    pub demand: Resources,
    pub class: u32,
    /// 0 is served first.
    pub rank: u8,
    pub restarts: bool,
    pub host: u32,
    pub extra: Option<Box<Extra>>,
}

/// A rule among VMs: apart, or (as a wish) together.
#[derive(Clone, Debug)]
pub(crate) struct Bond {
    pub name: Name,
    pub must: bool,
    pub vms: Vec<u32>,
}

/// VMs that must be together, by one rule or by several that share VMs.
#[derive(Clone, Debug)]
pub(crate) struct Pack {
    /// The first of the rules.
    pub rule: Name,
    pub vms: Vec<u32>,
}

/// A must or should rule between VMs and hosts.
#[derive(Clone, Debug)]
pub(crate) struct HostRule {
    pub name: Name,
    pub must: bool,
    /// The hosts that it allows, or prefers.
    pub hosts: HostSet,
}

/// All rules of the picture.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    /// Between VMs and hosts.
    pub of_hosts: Vec<HostRule>,
    pub apart: Vec<Bond>,
    pub near: Vec<Bond>,
    pub packs: Vec<Pack>,
    /// For each VM that a rule names, what the rules say about it.
    bound: BTreeMap<Name, Bound>,
}

#[derive(Clone, Debug)]
pub(crate) struct Index {
    pub hosts: Vec<HostSlot>,
    pub vms: Vec<VmSlot>,
    pub vm_at: BTreeMap<Name, u32>,
    /// Positions of VMs that are gone, to be used again.
    unused: Vec<u32>,
    /// VMs that shall run and are on no host.
    pub waiting: BTreeSet<u32>,
    pub classes: Classes,
    pub rules: Rules,
    device_kinds: BTreeMap<Name, u32>,
    /// All hosts in the order in which a VM without wishes prefers them before anything is placed.
    pub order: Vec<u32>,
    /// For each place in the order the most CPU and the most memory that a host has free there or further on: where this does not suffice,
    /// nobody needs to be looked at any more.
    pub most_ahead: Vec<Resources>,
    /// All hosts by their free CPU in MHz, and by their free memory in MiB.
    pub by_cpu: Ranked,
    pub by_memory: Ranked,
    /// Hosts kept for failovers, ascending.
    pub failover_hosts: Vec<u32>,
    /// What one MHz and one MiB are as a share of the cluster.
    weight: (u64, u64),
}

/// What rules say about one VM.
#[derive(Clone, Debug, Default)]
struct Bound {
    host_rules: Vec<u32>,
    apart: Vec<u32>,
    near: Vec<u32>,
    pack: Option<u32>,
}

impl Index {
    pub fn host(&self, position: u32) -> Option<&HostSlot> {
        self.hosts.get(position as usize)
    }

    pub fn host_position(&self, name: &str) -> Option<u32> {
        self.hosts.binary_search_by(|host| (*host.name).cmp(name)).ok().map(|position| position as u32)
    }

    /// An amount as a share of the cluster: the scarcer of both.
    pub fn score(&self, amount: Resources) -> u64 {
        let cpu = amount.cpu_mhz.saturating_mul(self.weight.0);
        cpu.min(amount.memory_mib.saturating_mul(self.weight.1))
    }

    /// What would be left of CPU and of memory, as shares of the cluster, on the first of each list. `None`: a list is at its end.
    pub fn least_left(
        &self,
        demand: Resources,
        by_cpu: &[(u64, u32)],
        by_memory: &[(u64, u32)],
    ) -> Option<(u64, u64)> {
        let (cpu, memory) = (by_cpu.first()?.0, by_memory.first()?.0);
        let cpu = cpu.saturating_sub(demand.cpu_mhz).saturating_mul(self.weight.0);
        Some((cpu, memory.saturating_sub(demand.memory_mib).saturating_mul(self.weight.1)))
    }

    /// How big a demand is: the larger share of both.
    pub fn size(&self, demand: Resources) -> u64 {
        let cpu = demand.cpu_mhz.saturating_mul(self.weight.0);
        cpu.max(demand.memory_mib.saturating_mul(self.weight.1))
    }

    pub fn class(&self, vm: u32) -> &Class {
        self.classes.get(self.vms[vm as usize].class)
    }

    /// Counts again what is free on a host.
    fn count_free(&mut self, position: u32) {
        let Some(host) = self.hosts.get(position as usize) else { return };
        let used =
            host.residents.iter().fold(host.kept_back, |sum, vm| sum.plus(self.vms[*vm as usize].demand));
        let free = host.capacity.less(used);
        let free = host.measured.map_or(free, |measured| free.min(measured));
        let score = self.score(free);
        let host = &mut self.hosts[position as usize];
        (host.free, host.score) = (free, score);
    }

    /// Sorts all hosts in all orders.
    fn put_in_order(&mut self) {
        let hosts = || self.hosts.iter().zip(0u32..);
        let by_cpu = Ranked::new(hosts().map(|(host, _)| host.free.cpu_mhz));
        let by_memory = Ranked::new(hosts().map(|(host, _)| host.free.memory_mib));
        let mut order: Vec<u32> = (0..self.hosts.len() as u32).collect();
        order.sort_unstable_by_key(|host| self.order_key(*host));
        self.failover_hosts = hosts().filter(|(host, _)| host.failover).map(|(_, at)| at).collect();
        (self.order, self.by_cpu, self.by_memory) = (order, by_cpu, by_memory);
        self.look_ahead();
    }

    /// Counts again what is free on a host, and puts it in its place in all orders.
    fn reorder(&mut self, host: u32) {
        let before = self.hosts[host as usize].free;
        self.order.retain(|other| *other != host);
        self.count_free(host);
        let key = self.order_key(host);
        let at = self.order.partition_point(|other| self.order_key(*other) < key);
        self.order.insert(at, host);
        let after = self.hosts[host as usize].free;
        self.by_cpu.change(host, before.cpu_mhz, after.cpu_mhz);
        self.by_memory.change(host, before.memory_mib, after.memory_mib);
        self.look_ahead();
    }

    fn look_ahead(&mut self) {
        let mut most = Resources::default();
        self.most_ahead.clear();
        for host in self.order.iter().rev() {
            most = most.most_of(self.hosts[*host as usize].free);
            self.most_ahead.push(most);
        }
        self.most_ahead.reverse();
    }

    fn order_key(&self, position: u32) -> (bool, u32, u64, u32) {
        let host = &self.hosts[position as usize];
        (!host.failover, host.starting, u64::MAX - host.score, position)
    }
}
