//! The plan: which VM goes to which host, and what does not come back and why.

use crate::index::{Index, NOWHERE};
use crate::picture::{HostState, Name, Picture, Priority};
use crate::place::{Outcome, decide};
use crate::refusal::Refusal;
use crate::room::{Purpose, Room};
use crate::unit::{Pin, Unit};
use alloc::vec::Vec;

/// A VM and the host that it goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The VM that is placed.
    pub vm: Name,
    /// Its new host.
    pub host: Name,
}

/// A VM that does not come back, and what it lacked on each host when all others had been placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The VM for which there is no host.
    pub vm: Name,
    /// Each host of the picture, by name, with the reason.
    pub why: Vec<(Name, Refusal)>,
}

/// Why a VM of a failed host is not restarted at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotRestarted {
    /// Its restart priority is disabled.
    Disabled,
    /// Its user wants it off.
    WantedOff,
}

/// How a plan was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Spread out over the hosts; all came back that any host could take at all.
    Spread,
    /// Room was short: packed. No choice brings more VMs back, priority by priority: all were gone through.
    PackedExactly,
    /// Room was short: packed, and the best found within the bound of work was taken.
    Packed,
}

/// What would happen, or shall happen, when hosts fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The hosts that fail, by name.
    pub failed: Vec<Name>,
    /// Who goes where: higher priorities first, then the bigger, then by name.
    pub placed: Vec<Placement>,
    /// Who does not come back, in the same order.
    pub left_out: Vec<LeftOut>,
    /// VMs of the failed hosts that nobody wants back, by name.
    pub not_restarted: Vec<(Name, NotRestarted)>,
    /// How it was found.
    pub how: How,
}

impl Plan {
    /// The host that the plan has for a VM.
    pub fn host_of(&self, vm: &str) -> Option<&Name> {
        self.placed.iter().find(|placement| &*placement.vm == vm).map(|placement| &placement.host)
    }
}

/// Plans for the failure of these hosts. VMs that wait for a host are placed along; with no host failed, only they are.
pub fn plan(picture: &Picture, failed: &[Name], purpose: Purpose) -> Plan {
    let index = Index::new(picture);
    let mut room = Room::new(&index);
    let failing = Failing::new(picture, &index, purpose, failed.iter());
    let outcome = decide(&index, &mut room, purpose, &failing.hosts, &failing.outside);
    describe(picture, &index, &mut room, &failing, &outcome)
}

/// The hosts that fail or are to be emptied, as the index knows them.
pub(crate) struct Failing {
    purpose: Purpose,
    names: Vec<Name>,
    pub hosts: Vec<u32>,
    /// VMs on failed hosts that are not in the picture.
    pub outside: Vec<u32>,
}

impl Failing {
    pub fn new<'a>(
        picture: &Picture,
        index: &Index,
        purpose: Purpose,
        failed: impl Iterator<Item = &'a Name>,
    ) -> Self {
        let mut names: Vec<Name> = failed.cloned().collect();
        names.sort_unstable();
        names.dedup();
        let hosts = names.iter().filter_map(|name| index.host_position(name)).collect();
        let unknown = |host: &Name| !picture.hosts.contains_key(host) && names.binary_search(host).is_ok();
        let outside = if names.iter().all(|name| picture.hosts.contains_key(name)) {
            Vec::new()
        } else {
            let lost = picture.vms.iter().filter(|(_, vm)| vm.host.as_ref().is_some_and(unknown));
            lost.filter_map(|(name, _)| index.vm_at.get(name).copied()).collect()
        };
        Self { purpose, names, hosts, outside }
    }
}

/// Puts the outcome into names and finds out what those lacked that were left out.
pub(crate) fn describe(
    picture: &Picture,
    index: &Index,
    room: &mut Room,
    failing: &Failing,
    outcome: &Outcome,
) -> Plan {
    room.begin(index, failing.purpose, &failing.hosts, &failing.outside);
    let name = |vm: u32| index.vms[vm as usize].name.clone();
    let mut placed = Vec::new();
    for (unit, host) in outcome.placed() {
        room.put(index, unit, host);
        let to = &index.hosts[host as usize].name;
        placed.extend(unit.vms.iter().map(|vm| Placement { vm: name(*vm), host: to.clone() }));
    }
    let mut left_out = Vec::new();
    for unit in outcome.left_out() {
        let why = refusals(picture, index, room, failing, unit);
        left_out.extend(unit.vms.iter().map(|vm| LeftOut { vm: name(*vm), why: why.clone() }));
    }
    room.end(index, &failing.outside);
    let not_restarted = not_restarted(picture, index, failing);
    Plan { failed: failing.names.clone(), placed, left_out, not_restarted, how: outcome.how }
}

fn not_restarted(picture: &Picture, index: &Index, failing: &Failing) -> Vec<(Name, NotRestarted)> {
    let lost = failing.hosts.iter().filter_map(|host| index.host(*host)).flat_map(|host| &host.residents);
    let slots = lost.chain(&failing.outside).map(|vm| &index.vms[*vm as usize]);
    let mut list: Vec<_> = slots
        .filter(|slot| !slot.restarts)
        .map(|slot| {
            let disabled = picture.vms.get(&slot.name).is_some_and(|vm| vm.priority == Priority::Disabled);
            (slot.name.clone(), if disabled { NotRestarted::Disabled } else { NotRestarted::WantedOff })
        })
        .collect();
    list.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    list
}

fn refusals(
    picture: &Picture,
    index: &Index,
    room: &Room,
    failing: &Failing,
    unit: &Unit,
) -> Vec<(Name, Refusal)> {
    let hosts = 0..index.hosts.len() as u32;
    let reason = |host: u32| {
        let slot = &index.hosts[host as usize];
        let refusal = if failing.hosts.binary_search(&host).is_ok() {
            Some(match failing.purpose {
                Purpose::Failover => Refusal::Failed,
                Purpose::Planned => Refusal::ToBeEmptied,
            })
        } else {
            state(picture, &slot.name)
                .or_else(|| (!room.is_open(host)).then_some(Refusal::KeptForFailover))
                .or_else(|| bound(index, failing, unit, host))
                .or_else(|| apart(index, room, unit, host))
                .or_else(|| Refusal::of_room(room.free[host as usize], unit.demand))
                .or_else(|| {
                    let device = room.device_in_use(index, unit, host)?;
                    index.device_name(device).cloned().map(Refusal::DeviceTaken)
                })
        };
        refusal.map(|refusal| (slot.name.clone(), refusal))
    };
    hosts.filter_map(reason).collect()
}

fn state(picture: &Picture, host: &Name) -> Option<Refusal> {
    match &picture.hosts.get(host)?.state {
        HostState::Usable => None,
        HostState::Unusable(reason) => Some(Refusal::Unusable(reason.clone())),
        HostState::Maintenance => Some(Refusal::Maintenance),
    }
}

/// What no room could mend: something that the host does not have, or a rule that forbids it.
fn bound(index: &Index, failing: &Failing, unit: &Unit, host: u32) -> Option<Refusal> {
    let lacking = unit.vms.iter().find_map(|vm| {
        let class = index.class(*vm);
        let rule =
            || class.forbidding(host, &index.rules.of_hosts).map(|rule| Refusal::HostRule(rule.name.clone()));
        index.classes.lacking(class, host).or_else(rule)
    });
    lacking.or_else(|| pinned(index, failing, unit, host))
}

/// The member of its pack that runs elsewhere.
fn pinned(index: &Index, failing: &Failing, unit: &Unit, host: u32) -> Option<Refusal> {
    if unit.pin == Pin::Free || unit.pin == Pin::At(host) {
        return None;
    }
    let pack = unit.vms.iter().find_map(|vm| index.vms[*vm as usize].extra.as_ref()?.pack)?;
    let pack = &index.rules.packs[pack as usize];
    let elsewhere = pack.vms.iter().find_map(|vm| {
        let slot = &index.vms[*vm as usize];
        let lost = failing.hosts.binary_search(&slot.host).is_ok() || failing.outside.contains(vm);
        let runs = slot.host != NOWHERE && slot.host != host && !lost;
        runs.then(|| (slot.name.clone(), index.host(slot.host).map(|host| host.name.clone())))
    });
    let (vm, at) = elsewhere?;
    Some(Refusal::Together { rule: pack.rule.clone(), vm, host: at.unwrap_or_else(|| "another host".into()) })
}

fn apart(index: &Index, room: &Room, unit: &Unit, host: u32) -> Option<Refusal> {
    if let Some(bond) = Room::contradicts(index, unit) {
        let pack = unit.vms.iter().find_map(|vm| index.vms[*vm as usize].extra.as_ref()?.pack)?;
        let together = index.rules.packs[pack as usize].rule.clone();
        return Some(Refusal::Contradiction { together, apart: bond.name.clone() });
    }
    let (bond, vm) = room.kept_apart(index, unit, host)?;
    Some(Refusal::Apart { rule: bond.name.clone(), vm: index.vms[vm as usize].name.clone() })
}
