//! Generated clusters of any size, for the benchmark: skewed VM sizes, rules on a tenth of the VMs.

use super::random::Random;
use mainstay_placement::*;

/// A cluster with every VM running; `load` is what the VMs take of all memory, in percent.
pub fn cluster(hosts: usize, vms: usize, load: u64, seed: u64) -> Picture {
    let random = &mut Random(seed);
    let mut picture = Picture::default();
    let host_names: Vec<Name> = (0..hosts).map(|host| format!("host-{host:04}").into()).collect();
    let mut sizes = Vec::with_capacity(vms);
    let mut total = 0;
    for _ in 0..vms {
        // Many small ones, few big ones: each doubling half as often.
        let gib = 1u64 << (random.next().trailing_ones().min(6));
        sizes.push(gib * 1024);
        total += gib * 1024;
    }
    let memory = (total * 100 / load / hosts as u64).max(160 * 1024);
    for host in &host_names {
        let rack = random.below(8);
        let capacity = Resources::new(64 * 2500, memory * (90 + random.below(21)) / 100);
        let offers = Offers {
            datastores: (0..6).filter(|ds| rack % 4 != *ds).map(|ds| format!("ds-{ds}").into()).collect(),
            networks: (0..8).filter(|_| random.percent(95)).map(|net| format!("br{net}").into()).collect(),
            cpu_models: ["Haswell", "Skylake-Server"]
                .iter()
                .take(if random.percent(85) { 2 } else { 1 })
                .map(|m| (*m).into())
                .collect(),
            machine_types: vec!["pc-q35-7.2".into()],
            devices: Vec::new(),
        };
        picture.hosts.insert(host.clone(), Host { capacity, offers, ..Host::default() });
    }
    let mut left: Vec<u64> = picture.hosts.values().map(|host| host.capacity.memory_mib).collect();
    for (index, memory_mib) in sizes.into_iter().enumerate() {
        let needs = Needs {
            datastores: vec![format!("ds-{}", random.below(6)).into()],
            networks: vec![format!("br{}", random.below(8)).into()],
            cpu_model: random.percent(20).then(|| "Haswell".into()),
            machine_type: Some("pc-q35-7.2".into()),
            devices: Vec::new(),
        };
        // The emptiest of three: loads differ, as they do in life.
        let tries: Vec<usize> = (0..3).map(|_| random.below(hosts as u64) as usize).collect();
        let Some(host) = tries.into_iter().max_by_key(|host| left[*host]) else { continue };
        left[host] = left[host].saturating_sub(memory_mib + 100);
        let priority = match random.below(10) {
            0 => Priority::Highest,
            1 | 2 => Priority::High,
            3 => Priority::Low,
            _ => Priority::Medium,
        };
        let vm = Vm {
            reservation: Resources::new(random.below(8) * 250, memory_mib),
            overhead: Resources::new(0, 100),
            priority,
            needs,
            host: Some(host_names[host].clone()),
            ..Vm::default()
        };
        picture.vms.insert(format!("vm-{index:05}").into(), vm);
    }
    add_rules(random, &mut picture, &host_names);
    picture
}

/// Rules that name a tenth of the VMs: half of them apart, the rest tied to hosts or kept together, as must and as wish.
fn add_rules(random: &mut Random, picture: &mut Picture, hosts: &[Name]) {
    let vms: Vec<Name> = picture.vms.keys().cloned().collect();
    let mut named = 0;
    while named < vms.len() / 10 {
        let first = random.below(vms.len() as u64) as usize;
        let strength = if random.percent(60) { Strength::Must } else { Strength::Should };
        let members: Vec<Name> =
            (0..2 + random.below(3)).filter_map(|_| random.pick(&vms).cloned()).collect();
        let kind = match random.below(10) {
            0..5 => RuleKind::Apart { vms: members },
            5..7 => RuleKind::OnHosts { vms: members, hosts: random.some(hosts, 50) },
            7..9 => RuleKind::NotOnHosts { vms: members, hosts: random.some(hosts, 10) },
            _ => {
                // Together are VMs that are together.
                let host = picture.vms[&vms[first]].host.clone();
                let same = picture.vms.iter().filter(|(_, vm)| vm.host == host);
                RuleKind::Together { vms: same.take(2).map(|(name, _)| name.clone()).collect() }
            }
        };
        let (RuleKind::OnHosts { vms: of, .. }
        | RuleKind::NotOnHosts { vms: of, .. }
        | RuleKind::Apart { vms: of }
        | RuleKind::Together { vms: of }) = &kind;
        named += of.len();
        picture.rules.insert(format!("rule-{:04}", picture.rules.len()).into(), Rule { strength, kind });
    }
}
