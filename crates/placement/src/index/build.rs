//! Building the index from a picture.

use super::classes::counted;
use super::ranked::Ranked;
use super::{Bond, Bound, Classes, Extra, HostRule, HostSlot, Index, NOWHERE, OUTSIDE, Pack, Rules, VmSlot};
use crate::bits::HostSet;
use crate::picture::{Host, HostState, Name, Picture, Priority, RuleKind, Strength, Vm};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// A whole cluster, as the unit in which shares are counted. Leaves room to add the shares of a million VMs.
const WHOLE: u64 = 1 << 40;

impl Index {
    pub fn new(picture: &Picture) -> Self {
        let classes = Classes::new(picture.hosts.values().map(|host| &host.offers));
        let total = picture
            .hosts
            .values()
            .fold(Default::default(), |sum: crate::Resources, host| sum.plus(host.capacity));
        let mut index = Self {
            hosts: Vec::with_capacity(picture.hosts.len()),
            vms: Vec::with_capacity(picture.vms.len()),
            vm_at: BTreeMap::new(),
            unused: Vec::new(),
            waiting: BTreeSet::new(),
            classes,
            rules: Rules::default(),
            device_kinds: BTreeMap::new(),
            order: Vec::new(),
            most_ahead: Vec::new(),
            by_cpu: Ranked::default(),
            by_memory: Ranked::default(),
            failover_hosts: Vec::new(),
            weight: ((WHOLE / total.cpu_mhz.max(1)).max(1), (WHOLE / total.memory_mib.max(1)).max(1)),
        };
        for (name, host) in &picture.hosts {
            let slot = index.host_slot(name, host);
            index.hosts.push(slot);
        }
        index.vm_at =
            picture.vms.keys().zip(0u32..).map(|(name, position)| (name.clone(), position)).collect();
        index.read_rules(picture);
        for (name, vm) in &picture.vms {
            let position = index.vms.len() as u32;
            let slot = index.vm_slot(name, vm);
            index.vms.push(slot);
            index.settle(position);
        }
        for position in 0..index.hosts.len() as u32 {
            index.count_free(position);
        }
        index.put_in_order();
        index
    }

    pub(super) fn host_slot(&mut self, name: &Name, host: &Host) -> HostSlot {
        let devices = counted(&host.offers.devices);
        let devices =
            devices.into_iter().map(|(name, count)| (self.device_kind(name), count as u32)).collect();
        HostSlot {
            name: name.clone(),
            takes: host.state == HostState::Usable,
            failover: host.failover_host,
            starting: host.starting,
            capacity: host.capacity,
            kept_back: host.kept_back,
            measured: host.measured_free,
            free: Default::default(),
            score: 0,
            residents: Vec::new(),
            devices,
        }
    }

    fn device_kind(&mut self, name: &Name) -> u32 {
        let next = self.device_kinds.len() as u32;
        *self.device_kinds.entry(name.clone()).or_insert(next)
    }

    pub fn device_name(&self, kind: u32) -> Option<&Name> {
        self.device_kinds.iter().find(|(_, known)| **known == kind).map(|(name, _)| name)
    }

    pub(super) fn vm_slot(&mut self, name: &Name, vm: &Vm) -> VmSlot {
        let bound = self.rules.bound.get(name).cloned().unwrap_or_default();
        let extra = Extra {
            failed_on: vm.failed_on.iter().filter_map(|host| self.host_position(host)).collect(),
            first_try: vm.first_try.as_ref().and_then(|host| self.host_position(host)),
            devices: vm.needs.devices.iter().map(|device| self.device_kind(device)).collect(),
            apart: bound.apart,
            near: bound.near,
            pack: bound.pack,
        };
        let host = vm.host.as_ref().map_or(NOWHERE, |host| self.host_position(host).unwrap_or(OUTSIDE));
        VmSlot {
            name: name.clone(),
            demand: vm.demand(),
            class: self.classes.find(&vm.needs, &bound.host_rules, &self.rules.of_hosts),
            rank: rank(vm),
            restarts: vm.restarts(),
            host,
            extra: (extra != Extra::default()).then(|| Box::new(extra)),
        }
    }

    /// Enters a VM where it is: among the residents of its host, or with those that wait.
    pub(super) fn settle(&mut self, position: u32) {
        let vm = &self.vms[position as usize];
        if vm.host == NOWHERE && vm.restarts {
            self.waiting.insert(position);
        }
        if let Some(host) = self.hosts.get_mut(vm.host as usize) {
            host.residents.push(position);
        }
    }

    fn read_rules(&mut self, picture: &Picture) {
        let mut together: Vec<(Name, Vec<u32>)> = Vec::new();
        for (name, rule) in &picture.rules {
            let must = rule.strength == Strength::Must;
            match &rule.kind {
                RuleKind::OnHosts { vms, hosts } => {
                    self.read_host_rule(name, must, vms, self.host_set(hosts))
                }
                RuleKind::NotOnHosts { vms, hosts } => {
                    let mut others = HostSet::all(self.hosts.len());
                    others.drop_all(&self.host_set(hosts));
                    self.read_host_rule(name, must, vms, others);
                }
                RuleKind::Apart { vms } => {
                    let position = self.rules.apart.len() as u32;
                    let vms = self.members(vms, |bound| bound.apart.push(position));
                    self.rules.apart.push(Bond { name: name.clone(), must, vms });
                }
                RuleKind::Together { vms } if must => {
                    let vms = self.members(vms, |_| {});
                    together.push((name.clone(), vms));
                }
                RuleKind::Together { vms } => {
                    let position = self.rules.near.len() as u32;
                    let vms = self.members(vms, |bound| bound.near.push(position));
                    self.rules.near.push(Bond { name: name.clone(), must, vms });
                }
            }
        }
        self.pack_up(picture, together);
    }

    fn host_set(&self, names: &[Name]) -> HostSet {
        let mut set = HostSet::none(self.hosts.len());
        names.iter().filter_map(|name| self.host_position(name)).for_each(|position| set.put(position));
        set
    }

    fn read_host_rule(&mut self, name: &Name, must: bool, vms: &[Name], hosts: HostSet) {
        let position = self.rules.of_hosts.len() as u32;
        self.rules.of_hosts.push(HostRule { name: name.clone(), must, hosts });
        self.members(vms, |bound| bound.host_rules.push(position));
    }

    /// Notes the rule with each VM that it names, and gives the positions of those that exist, by name and once each.
    fn members(&mut self, names: &[Name], mut note: impl FnMut(&mut Bound)) -> Vec<u32> {
        let names: BTreeSet<&Name> = names.iter().collect();
        for name in &names {
            note(self.rules.bound.entry((*name).clone()).or_default());
        }
        names.into_iter().filter_map(|name| self.vm_at.get(name).copied()).collect()
    }

    /// Rules that keep together and share a VM make one pack.
    fn pack_up(&mut self, picture: &Picture, rules: Vec<(Name, Vec<u32>)>) {
        let mut pack_of: BTreeMap<u32, usize> = BTreeMap::new();
        let mut packs: Vec<(Name, BTreeSet<u32>)> = Vec::new();
        for (rule, vms) in rules {
            let joined: BTreeSet<usize> = vms.iter().filter_map(|vm| pack_of.get(vm).copied()).collect();
            let into = joined.first().copied().unwrap_or(packs.len());
            if into == packs.len() {
                packs.push((rule, BTreeSet::new()));
            }
            let mut all: BTreeSet<u32> = vms.into_iter().collect();
            for other in joined {
                all.append(&mut packs[other].1);
            }
            all.iter().for_each(|vm| {
                pack_of.insert(*vm, into);
            });
            packs[into].1 = all;
        }
        let names: Vec<&Name> = picture.vms.keys().collect();
        for (rule, vms) in packs.into_iter().filter(|(_, vms)| vms.len() > 1) {
            let position = self.rules.packs.len() as u32;
            for name in vms.iter().filter_map(|vm| names.get(*vm as usize)) {
                self.rules.bound.entry((*name).clone()).or_default().pack = Some(position);
            }
            self.rules.packs.push(Pack { rule, vms: vms.into_iter().collect() });
        }
    }
}

/// Highest first; within a priority those that were passed over before.
fn rank(vm: &Vm) -> u8 {
    let step = match vm.priority {
        Priority::Highest => 0,
        Priority::High => 2,
        Priority::Medium => 4,
        Priority::Low => 6,
        Priority::Lowest | Priority::Disabled => 8,
    };
    step + u8::from(!vm.passed_over)
}
