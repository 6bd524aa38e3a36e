//! Small random pictures, the same for the same seed.

use mainstay_placement::*;

/// SplitMix64: enough randomness for pictures, and nothing to depend on.
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// From 0 up to and without `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// With this chance in a hundred.
    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        list.get(self.below(list.len() as u64) as usize)
    }

    pub fn some<T: Clone>(&mut self, list: &[T], chance: u64) -> Vec<T> {
        list.iter().filter(|_| self.percent(chance)).cloned().collect()
    }

    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for end in (1..list.len()).rev() {
            list.swap(end, self.below(end as u64 + 1) as usize);
        }
    }
}

pub fn names(prefix: &str, count: usize) -> Vec<Name> {
    (0..count).map(|index| format!("{prefix}{index}").into()).collect()
}

/// What kind of picture.
#[derive(Clone, Copy)]
pub struct Kind {
    pub hosts: usize,
    pub vms: usize,
    /// Rules, needs, devices and hosts out of service.
    pub rules: bool,
    /// Demand of all VMs as a share of what the hosts that stay have, in percent.
    pub tightness: u64,
}

const PRIORITIES: [Priority; 6] =
    [Priority::Medium, Priority::Medium, Priority::High, Priority::Low, Priority::Highest, Priority::Lowest];

/// A picture in which all VMs wait or are on `h0`, with the other hosts as tight as asked for.
pub fn tight(random: &mut Random, kind: Kind) -> Picture {
    let mut picture = Picture::default();
    let hosts = names("h", kind.hosts);
    let vms = names("v", kind.vms);
    let mut total = Resources::default();
    for vm in &vms {
        let size = 1 << random.below(4);
        let reservation = Resources::new(size * (50 + random.below(100)), size * (500 + random.below(1000)));
        total = total.plus(reservation);
        let host = random.percent(80).then(|| hosts[0].clone());
        let priority = if random.percent(60) { Priority::Medium } else { *random.pick(&PRIORITIES).unwrap() };
        picture.vms.insert(vm.clone(), Vm { reservation, priority, host, ..Vm::default() });
    }
    let others = kind.hosts.saturating_sub(1).max(1) as u64;
    let share = |total: u64, random: &mut Random| {
        total * 100 / kind.tightness.max(1) / others * (60 + random.below(81)) / 100
    };
    for host in &hosts {
        let capacity = Resources::new(share(total.cpu_mhz, random), share(total.memory_mib, random));
        picture.hosts.insert(host.clone(), Host { capacity, ..Host::default() });
    }
    if kind.rules {
        add_rules(random, &mut picture, &hosts, &vms);
    }
    picture
}

fn add_rules(random: &mut Random, picture: &mut Picture, hosts: &[Name], vms: &[Name]) {
    let datastores = names("ds", 3);
    for host in picture.hosts.values_mut() {
        host.offers.datastores = random.some(&datastores, 80);
        host.offers.devices = random.some(&names("dev", 2), 30);
        if random.percent(6) {
            host.state = HostState::Maintenance;
        }
        if random.percent(6) {
            host.state = HostState::Unusable("no libvirt".into());
        }
        host.failover_host = random.percent(8);
        host.starting = random.below(3) as u32;
    }
    for vm in picture.vms.values_mut() {
        vm.needs.datastores = random.some(&datastores, 25);
        vm.needs.devices = random.some(&names("dev", 2), 6);
        vm.failed_on = random.some(hosts, 5);
        vm.first_try = if random.percent(5) { random.pick(hosts).cloned() } else { None };
        vm.passed_over = random.percent(10);
        if random.percent(30) {
            vm.host = random.pick(hosts).cloned();
        }
    }
    for rule in names("rule", 1 + vms.len() / 4) {
        picture.rules.insert(rule, random_rule(random, hosts, vms));
    }
}

pub fn random_rule(random: &mut Random, hosts: &[Name], vms: &[Name]) -> Rule {
    let members = 2 + random.below(2) as usize;
    let mut members: Vec<Name> = (0..members).filter_map(|_| random.pick(vms).cloned()).collect();
    if random.percent(10) {
        members.push("nobody".into());
    }
    let kind = match random.below(4) {
        0 => RuleKind::Apart { vms: members },
        1 => RuleKind::Together { vms: members },
        2 => RuleKind::OnHosts { vms: members, hosts: random.some(hosts, 60) },
        _ => RuleKind::NotOnHosts { vms: members, hosts: random.some(hosts, 30) },
    };
    Rule { strength: if random.percent(70) { Strength::Must } else { Strength::Should }, kind }
}

/// How many VMs of each priority come back, the highest first: what plans are compared by.
pub fn by_priority(picture: &Picture, plan: &Plan) -> Vec<usize> {
    let order = [Priority::Highest, Priority::High, Priority::Medium, Priority::Low, Priority::Lowest];
    let of = |priority: &Priority| {
        let same = |one: &&Placement| picture.vms.get(&one.vm).is_some_and(|vm| vm.priority == *priority);
        plan.placed.iter().filter(same).count()
    };
    order.iter().map(of).collect()
}
