//! vSphere's three policies: they add up, and place nothing.

use super::{Objection, Policy};
use crate::picture::{Host, HostState, Picture, Resources, Vm};
use crate::refusal::grouped;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

/// CPU that counts for a VM with less reserved, as in vSphere from 5.0.
const CPU_FLOOR_MHZ: u64 = 32;

/// The slot of the slots policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// CPU in MHz.
    pub cpu_mhz: u64,
    /// Memory in MiB.
    pub memory_mib: u64,
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MHz and {} MiB", grouped(self.cpu_mhz), grouped(self.memory_mib))
    }
}

/// What the policy has against the picture. The proved policy has no place here and objects to nothing.
pub(super) fn count(picture: &Picture, policy: &Policy) -> Vec<Objection> {
    match policy {
        Policy::HostFailures { tolerated, slot_cpu_max, slot_memory_max } => {
            slots(picture, *tolerated, slot_cpu_max.unwrap_or(u64::MAX), slot_memory_max.unwrap_or(u64::MAX))
        }
        Policy::Percentage { cpu, memory } => percentage(picture, *cpu, *memory),
        Policy::FailoverHosts => failover_hosts(picture),
        Policy::Proved { .. } => Vec::new(),
    }
}

/// VMs that count: those that are on, and those that shall be.
fn powered_on(picture: &Picture) -> impl Iterator<Item = &Vm> {
    picture.vms.values().filter(|vm| vm.host.is_some() || vm.restarts())
}

fn demand(vm: &Vm) -> Resources {
    let demand = vm.demand();
    Resources::new(demand.cpu_mhz.max(CPU_FLOOR_MHZ), demand.memory_mib)
}

/// Hosts that count: those that take VMs. One in maintenance or without contact counts in no sum.
fn counted(picture: &Picture) -> impl Iterator<Item = &Host> {
    picture.hosts.values().filter(|host| host.state == HostState::Usable)
}

fn slots(picture: &Picture, tolerated: u32, cpu_max: u64, memory_max: u64) -> Vec<Objection> {
    let largest =
        powered_on(picture).map(demand).fold(Resources::new(CPU_FLOOR_MHZ, 1), |largest, demand| {
            Resources::new(largest.cpu_mhz.max(demand.cpu_mhz), largest.memory_mib.max(demand.memory_mib))
        });
    let slot = Slot {
        cpu_mhz: largest.cpu_mhz.min(cpu_max).max(1),
        memory_mib: largest.memory_mib.min(memory_max).max(1),
    };
    // A VM that is larger than a capped slot takes several.
    let takes = |vm: &Vm| {
        let demand = demand(vm);
        demand.cpu_mhz.div_ceil(slot.cpu_mhz).max(demand.memory_mib.div_ceil(slot.memory_mib)).max(1)
    };
    let needed = powered_on(picture).map(takes).fold(0, u64::saturating_add);
    let in_host = |host: &Host| {
        let room = host.capacity.less(host.kept_back);
        (room.cpu_mhz / slot.cpu_mhz).min(room.memory_mib / slot.memory_mib)
    };
    let mut each: Vec<u64> = counted(picture).map(in_host).collect();
    each.sort_unstable();
    let remaining = each.len().saturating_sub(tolerated as usize);
    let left = each[..remaining].iter().copied().fold(0, u64::saturating_add);
    if left >= needed { Vec::new() } else { vec![Objection::Slots { slot, needed, left, tolerated }] }
}

fn percentage(picture: &Picture, cpu: u8, memory: u8) -> Vec<Objection> {
    let total =
        counted(picture).fold(Resources::default(), |sum, host| sum.plus(host.capacity.less(host.kept_back)));
    let used = powered_on(picture).map(demand).fold(Resources::default(), Resources::plus);
    let free = total.less(used);
    let short =
        |free: u64, total: u64, percent: u8| u128::from(free) * 100 < u128::from(total) * u128::from(percent);
    let mut objections = Vec::new();
    if short(free.cpu_mhz, total.cpu_mhz, cpu) {
        objections.push(Objection::CpuShare { free: free.cpu_mhz, total: total.cpu_mhz, percent: cpu });
    }
    if short(free.memory_mib, total.memory_mib, memory) {
        let (free, total) = (free.memory_mib, total.memory_mib);
        objections.push(Objection::MemoryShare { free, total, percent: memory });
    }
    objections
}

fn failover_hosts(picture: &Picture) -> Vec<Objection> {
    let mut objections = Vec::new();
    if !counted(picture).any(|host| host.failover_host) {
        objections.push(Objection::NoFailoverHost);
    }
    for (vm, slot) in &picture.vms {
        let Some(host) = &slot.host else { continue };
        if picture.hosts.get(host).is_some_and(|host| host.failover_host) {
            objections.push(Objection::FailoverHostInUse { host: host.clone(), vm: vm.clone() });
        }
    }
    objections
}
