//! What is placed as one: a VM, or a pack of VMs that must be together.

use crate::index::{Extra, Index, NOWHERE};
use crate::picture::Resources;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Ordering;

/// What binds a unit to a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pin {
    /// It may go to any host that can take it.
    Free,
    /// A member of its pack runs there, and the others must join it.
    At(u32),
    /// Members of its pack run on different hosts, or outside of the picture: no host will do.
    Nowhere,
}

#[derive(Clone, Debug)]
pub(crate) struct Unit {
    /// The members, as indices of the picture's VMs, in the order of their names.
    pub vms: Vec<u32>,
    pub demand: Resources,
    pub rank: u8,
    /// How big it is, as a share of the cluster.
    pub size: u64,
    pub pin: Pin,
    /// No rule among VMs, no wish and no device of its own: only its class and its demand decide.
    pub plain: bool,
    /// No wish, no host tried last or first: all hosts that can take it are equally welcome.
    pub easy: bool,
}

impl Unit {
    /// The order in which units are served: rank, then the bigger, then the name.
    pub fn served_before(&self, other: &Self, index: &Index) -> Ordering {
        let name = |unit: &Self| unit.vms.first().map(|vm| &*index.vms[*vm as usize].name);
        let by_size = other.size.cmp(&self.size);
        self.rank.cmp(&other.rank).then(by_size).then_with(|| name(self).cmp(&name(other)))
    }
}

/// The VMs that come back when these hosts fail (ascending), as units in the order in which they are served; those that wait anyway
/// are among them. `outside`: names of failed hosts that the picture does not have.
pub(crate) fn units(index: &Index, failed: &[u32], outside: &[u32]) -> Vec<Unit> {
    let lost = failed.iter().filter_map(|host| index.host(*host)).flat_map(|host| &host.residents);
    let all = lost.chain(outside).chain(&index.waiting).copied();
    let mut packs: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let mut units = Vec::new();
    for vm in all.filter(|vm| index.vms[*vm as usize].restarts) {
        match index.vms[vm as usize].extra.as_ref().and_then(|extra| extra.pack) {
            Some(pack) => packs.entry(pack).or_default().push(vm),
            None => units.push(unit_of_one(index, vm)),
        }
    }
    for (pack, mut vms) in packs {
        vms.sort_unstable_by(|a, b| index.vms[*a as usize].name.cmp(&index.vms[*b as usize].name));
        let pin = pin(index, pack, failed, outside);
        units.push(unit(index, vms, pin));
    }
    units.sort_unstable_by(|a, b| a.served_before(b, index));
    units
}

/// A VM that belongs to no pack.
pub(crate) fn unit_of_one(index: &Index, vm: u32) -> Unit {
    unit(index, vec![vm], Pin::Free)
}

/// A host is lost to its VMs when it is among those that fail.
fn stays(index: &Index, vm: u32, failed: &[u32], outside: &[u32]) -> Option<u32> {
    let host = index.vms[vm as usize].host;
    (host != NOWHERE && failed.binary_search(&host).is_err() && !outside.contains(&vm)).then_some(host)
}

fn pin(index: &Index, pack: u32, failed: &[u32], outside: &[u32]) -> Pin {
    let members = index.rules.packs[pack as usize].vms.iter();
    members.filter_map(|vm| stays(index, *vm, failed, outside)).fold(Pin::Free, |pin, host| match pin {
        Pin::Free if (host as usize) < index.hosts.len() => Pin::At(host),
        Pin::At(other) if other == host => pin,
        Pin::Free | Pin::At(_) | Pin::Nowhere => Pin::Nowhere,
    })
}

fn unit(index: &Index, vms: Vec<u32>, pin: Pin) -> Unit {
    let slots = || vms.iter().map(|vm| &index.vms[*vm as usize]);
    let demand = slots().fold(Resources::default(), |sum, vm| sum.plus(vm.demand));
    let rank = slots().map(|vm| vm.rank).min().unwrap_or(u8::MAX);
    let plain =
        vms.len() == 1 && slots().all(|vm| vm.extra.is_none() && index.classes.get(vm.class).soft.is_empty());
    let easy = slots().all(|vm| {
        let wish = |extra: &Extra| {
            let apart = extra.apart.iter().any(|rule| !index.rules.apart[*rule as usize].must);
            apart || !extra.near.is_empty() || !extra.failed_on.is_empty() || extra.first_try.is_some()
        };
        index.classes.get(vm.class).soft.is_empty() && !vm.extra.as_deref().is_some_and(wish)
    });
    Unit { demand, rank, size: index.size(demand), pin, plain, easy, vms }
}
