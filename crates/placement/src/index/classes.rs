//! VMs that need the same of a host and are under the same host rules form a class: one set of hosts for all of them.

use super::HostRule;
use crate::bits::HostSet;
use crate::picture::{Name, Needs, Offers};
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

/// What kind of thing a host offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Datastore,
    Network,
    CpuModel,
    MachineType,
    /// So many of this device.
    Device(usize),
}

#[derive(Clone, Debug)]
pub(crate) struct Class {
    needs: Needs,
    rules: Vec<u32>,
    /// The hosts that have all of it and that the rules allow. Room and state are another matter.
    pub hosts: HostSet,
    /// How many wishes each host would disappoint; empty: none.
    pub soft: Vec<u16>,
}

/// All classes, and who offers what.
#[derive(Clone, Debug, Default)]
pub(crate) struct Classes {
    hosts: usize,
    offered: BTreeMap<(Kind, Name), HostSet>,
    classes: Vec<Class>,
    by_sum: BTreeMap<u64, Vec<u32>>,
}

/// A name with how often it is in the list.
pub(super) fn counted(names: &[Name]) -> BTreeMap<&Name, usize> {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_insert(0) += 1;
    }
    counts
}

fn offered(offers: &Offers) -> impl Iterator<Item = (Kind, Name)> + '_ {
    let of =
        |kind: Kind, names: &'_ [Name]| names.iter().map(|name| (kind, name.clone())).collect::<Vec<_>>();
    let devices = counted(&offers.devices)
        .into_iter()
        .flat_map(|(name, count)| (1..=count).map(|count| (Kind::Device(count), name.clone())))
        .collect::<Vec<_>>();
    of(Kind::Datastore, &offers.datastores)
        .into_iter()
        .chain(of(Kind::Network, &offers.networks))
        .chain(of(Kind::CpuModel, &offers.cpu_models))
        .chain(of(Kind::MachineType, &offers.machine_types))
        .chain(devices)
}

/// FNV-1a, to find a class fast. Two classes with the same sum are told apart by their content.
struct Sum(u64);

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.0 = (self.0 ^ 0xff).wrapping_mul(0x0100_0000_01b3);
    }

    fn of(needs: &Needs, rules: &[u32]) -> u64 {
        let mut sum = Self(0xcbf2_9ce4_8422_2325);
        for list in [&needs.datastores, &needs.networks, &needs.devices] {
            list.iter().for_each(|name| sum.add(name.as_bytes()));
            sum.add(&[]);
        }
        for one in [&needs.cpu_model, &needs.machine_type] {
            sum.add(one.as_deref().unwrap_or_default().as_bytes());
        }
        rules.iter().for_each(|rule| sum.add(&rule.to_le_bytes()));
        sum.0
    }
}

impl Classes {
    pub fn new<'a>(hosts: impl ExactSizeIterator<Item = &'a Offers>) -> Self {
        let mut classes = Self { hosts: hosts.len(), ..Self::default() };
        for (position, offers) in hosts.enumerate() {
            for key in offered(offers) {
                let set = classes.offered.entry(key).or_insert_with(|| HostSet::none(classes.hosts));
                set.put(position as u32);
            }
        }
        classes
    }

    pub fn len(&self) -> usize {
        self.classes.len()
    }

    pub fn get(&self, class: u32) -> &Class {
        &self.classes[class as usize]
    }

    /// The class of a VM; `rules` ascending.
    pub fn find(&mut self, needs: &Needs, rules: &[u32], all: &[HostRule]) -> u32 {
        let sum = Sum::of(needs, rules);
        let known = self.by_sum.get(&sum).map_or(&[][..], Vec::as_slice);
        let same = |class: &&u32| {
            let class = &self.classes[**class as usize];
            class.needs == *needs && class.rules == rules
        };
        if let Some(class) = known.iter().find(same) {
            return *class;
        }
        let class = self.make(needs, rules, all);
        let position = self.classes.len() as u32;
        self.classes.push(class);
        self.by_sum.entry(sum).or_default().push(position);
        position
    }

    fn make(&self, needs: &Needs, rules: &[u32], all: &[HostRule]) -> Class {
        let mut hosts = HostSet::all(self.hosts);
        for key in self.needed(needs) {
            match self.offered.get(&key) {
                Some(set) => hosts.keep(set),
                None => hosts = HostSet::none(self.hosts),
            }
        }
        let mut soft = Vec::new();
        for rule in rules.iter().filter_map(|rule| all.get(*rule as usize)) {
            if rule.must {
                hosts.keep(&rule.hosts);
            } else {
                soft.resize(self.hosts, 0u16);
                for (host, count) in soft.iter_mut().enumerate() {
                    *count = count.saturating_add(u16::from(!rule.hosts.has(host as u32)));
                }
            }
        }
        Class { needs: needs.clone(), rules: rules.to_vec(), hosts, soft }
    }

    fn needed(&self, needs: &Needs) -> Vec<(Kind, Name)> {
        let mut keys = vec![];
        keys.extend(needs.datastores.iter().map(|name| (Kind::Datastore, name.clone())));
        keys.extend(needs.networks.iter().map(|name| (Kind::Network, name.clone())));
        keys.extend(needs.cpu_model.iter().map(|name| (Kind::CpuModel, name.clone())));
        keys.extend(needs.machine_type.iter().map(|name| (Kind::MachineType, name.clone())));
        let devices = counted(&needs.devices);
        keys.extend(devices.into_iter().map(|(name, count)| (Kind::Device(count), name.clone())));
        keys.sort_unstable();
        keys
    }

    /// The first thing that a host lacks for a VM of this class.
    pub fn lacking(&self, class: &Class, host: u32) -> Option<crate::Refusal> {
        use crate::Refusal;
        let lacks = |key: &(Kind, Name)| !self.offered.get(key).is_some_and(|set| set.has(host));
        self.needed(&class.needs).into_iter().find(lacks).map(|(kind, name)| match kind {
            Kind::Datastore => Refusal::Datastore(name),
            Kind::Network => Refusal::Network(name),
            Kind::CpuModel => Refusal::CpuModel(name),
            Kind::MachineType => Refusal::MachineType(name),
            Kind::Device(_) => Refusal::Device(name),
        })
    }
}

impl Class {
    /// The must rule that forbids a host to this class.
    pub fn forbidding<'a>(&self, host: u32, all: &'a [HostRule]) -> Option<&'a HostRule> {
        let rules = self.rules.iter().filter_map(|rule| all.get(*rule as usize));
        rules.into_iter().find(|rule| rule.must && !rule.hosts.has(host))
    }
}
