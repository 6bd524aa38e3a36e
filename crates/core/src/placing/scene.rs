//! The picture, and which name in it stands for which VM.

use super::{TRIED, Want};
use crate::ids::{DatastoreName, HostId, VmId};
use crate::register::{Priority, VmSpec};
use crate::settings::{HostOffers, Policy, Readiness, ReadyWhen, RuleKind, Settings, Strength};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use mainstay_placement as placement;
use placement::{Name, Picture, Resources};

/// Memory that is in use and that no VM of the picture accounts for is counted in steps of so many MiB, so that the picture
/// does not change with each heartbeat.
const KEPT_BACK_STEP: u64 = 64;

/// A host, as it goes into the picture.
#[derive(Clone, Debug)]
pub(crate) struct HostScene {
    pub(crate) host: HostId,
    /// Why it can take no VM.
    pub(crate) unusable: Option<&'static str>,
    /// Datastores that it reaches.
    pub(crate) datastores: Vec<DatastoreName>,
    pub(crate) memory_mib: u64,
    pub(crate) memory_free_mib: u64,
    /// `None`: not known, so that nothing speaks against it.
    pub(crate) offers: Option<Arc<HostOffers>>,
}

/// A VM, as it goes into the picture.
#[derive(Clone, Debug)]
pub(crate) struct VmScene<'a> {
    pub(crate) vm: VmId,
    pub(crate) name: &'a Arc<str>,
    pub(crate) spec: &'a VmSpec,
    pub(crate) datastore: &'a DatastoreName,
    /// Where it takes room.
    pub(crate) host: Option<&'a HostId>,
    /// It takes memory there already.
    pub(crate) running: bool,
    /// A host is starting it.
    pub(crate) starting: bool,
    /// It is to come back after a failure.
    pub(crate) wanted: bool,
    pub(crate) failed_on: Vec<HostId>,
    /// It is to run. Where two datastores have an entry of a VM whose disk was moved, that one counts.
    pub(crate) on: bool,
}

/// A picture with what its names stand for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scene {
    pub(crate) picture: Picture,
    names: BTreeMap<VmId, Name>,
    vms: BTreeMap<Name, VmId>,
}

impl Scene {
    /// The VM's name in the picture.
    pub(crate) fn name(&self, vm: VmId) -> Option<&Name> {
        self.names.get(&vm)
    }

    /// The VM of that name.
    pub(crate) fn vm(&self, name: &str) -> Option<VmId> {
        self.vms.get(name).copied()
    }

    /// The picture with these VMs waiting for a host.
    pub(crate) fn with_wants<'a>(&self, wants: impl Iterator<Item = &'a Want>) -> Picture {
        let mut picture = self.picture.clone();
        for want in wants {
            let Some(vm) = self.names.get(&want.vm).and_then(|name| picture.vms.get_mut(name)) else {
                continue;
            };
            vm.host = None;
            vm.wanted = true;
            vm.first_try = want.first_try.as_ref().map(HostId::text);
            vm.passed_over = want.passed_over;
            let hosts: Vec<Name> = want.tried.iter().map(HostId::text).collect();
            if let Some(name) = self.names.get(&want.vm).filter(|_| !hosts.is_empty()) {
                let kind = placement::RuleKind::NotOnHosts { vms: alloc::vec![name.clone()], hosts };
                let rule = placement::Rule { strength: placement::Strength::Must, kind };
                picture.rules.insert(alloc::format!("{TRIED}{name}").into(), rule);
            }
        }
        picture
    }
}

/// Libvirt's names where they are unique, else with the UUID.
fn name_all(vms: &[VmScene<'_>]) -> BTreeMap<VmId, Name> {
    let mut count: BTreeMap<&str, u32> = BTreeMap::new();
    for vm in vms {
        *count.entry(vm.name).or_default() += 1;
    }
    let name = |vm: &VmScene<'_>| match count.get(&**vm.name) {
        Some(1) => vm.name.clone(),
        Some(_) | None => alloc::format!("{} ({})", vm.name, vm.vm).into(),
    };
    vms.iter().map(|vm| (vm.vm, name(vm))).collect()
}

/// Makes the picture.
pub(crate) fn make_scene(hosts: &[HostScene], vms: &[VmScene<'_>], settings: &Settings) -> Scene {
    let names = name_all(vms);
    let mut picture = Picture::default();
    let mut in_use: BTreeMap<&HostId, u64> = BTreeMap::new();
    let mut starting: BTreeMap<&HostId, u32> = BTreeMap::new();
    for vm in vms {
        let made = make_vm(vm, settings);
        if let Some(host) = vm.host {
            if vm.running {
                let takes = vm.spec.memory_mib.saturating_add(vm.spec.overhead_mib);
                let sum = in_use.entry(host).or_default();
                *sum = sum.saturating_add(takes);
            }
            *starting.entry(host).or_default() += u32::from(vm.starting);
        }
        if let Some(name) = names.get(&vm.vm) {
            picture.vms.insert(name.clone(), made);
        }
    }
    let mut everything: Option<placement::Offers> = None;
    for host in hosts {
        let accounted = in_use.get(&host.host).copied().unwrap_or_default();
        let used = host.memory_mib.saturating_sub(host.memory_free_mib);
        let kept_back =
            used.saturating_sub(accounted).div_ceil(KEPT_BACK_STEP).saturating_mul(KEPT_BACK_STEP);
        let mut offers = match &host.offers {
            Some(offers) => placement::Offers {
                datastores: Vec::new(),
                networks: offers.networks.clone(),
                cpu_models: offers.cpu_models.clone(),
                machine_types: offers.machines.clone(),
                devices: offers.devices.clone(),
            },
            None => everything.get_or_insert_with(|| all_needs(vms)).clone(),
        };
        offers.datastores = host.datastores.iter().map(DatastoreName::text).collect();
        let state = match host.unusable {
            Some(reason) => placement::HostState::Unusable(reason.into()),
            None if settings.maintenance.contains_key(&host.host) => placement::HostState::Maintenance,
            None => placement::HostState::Usable,
        };
        let cpu_mhz = host.offers.as_ref().map_or(0, |offers| offers.cpu_mhz);
        let made = placement::Host {
            state,
            // Zero is "not known": then no VM is kept off for its CPU.
            capacity: Resources::new(if cpu_mhz == 0 { u64::MAX } else { cpu_mhz }, host.memory_mib),
            kept_back: Resources::new(0, kept_back),
            measured_free: None,
            offers,
            starting: starting.get(&host.host).copied().unwrap_or_default(),
            concurrent_starts: None,
            failover_host: settings.failover_hosts.contains(&host.host),
        };
        picture.hosts.insert(host.host.text(), made);
    }
    add_rules(&mut picture, settings, &names);
    let by_name = names.iter().map(|(vm, name)| (name.clone(), *vm)).collect();
    Scene { picture, names, vms: by_name }
}

fn make_vm(vm: &VmScene<'_>, settings: &Settings) -> placement::Vm {
    let spec = vm.spec;
    let needs = &spec.needs;
    let others = needs.datastores.iter().filter(|name| *name != vm.datastore);
    placement::Vm {
        reservation: Resources::new(spec.cpu_mhz, spec.memory_reserved_mib.unwrap_or(spec.memory_mib)),
        overhead: Resources::new(0, spec.overhead_mib),
        priority: priority(spec.priority),
        needs: placement::Needs {
            datastores: [vm.datastore].into_iter().chain(others).map(DatastoreName::text).collect(),
            networks: needs.networks.clone(),
            cpu_model: needs.cpu_model.clone(),
            machine_type: needs.machine.clone(),
            devices: needs.devices.clone(),
        },
        host: vm.host.map(HostId::text),
        wanted: vm.wanted,
        failed_on: vm.failed_on.iter().map(HostId::text).collect(),
        first_try: None,
        passed_over: false,
        readiness: readiness(&settings.readiness(vm.vm)),
    }
}

/// A VM that is to be started on that host.
pub(crate) fn started(
    vm: VmId,
    spec: &VmSpec,
    datastore: &DatastoreName,
    host: &HostId,
    settings: &Settings,
) -> placement::Vm {
    let name: Arc<str> = "".into();
    let mut spec = spec.clone();
    spec.priority = settings.priority(vm, spec.priority);
    let scene = VmScene {
        vm,
        name: &name,
        spec: &spec,
        datastore,
        host: Some(host),
        running: false,
        starting: false,
        wanted: true,
        failed_on: Vec::new(),
        on: true,
    };
    make_vm(&scene, settings)
}

/// Whatever the VMs need: for a host of which nobody knows what it has.
fn all_needs(vms: &[VmScene<'_>]) -> placement::Offers {
    let mut networks = BTreeSet::new();
    let mut cpu_models = BTreeSet::new();
    let mut machine_types = BTreeSet::new();
    for needs in vms.iter().map(|vm| &vm.spec.needs) {
        networks.extend(needs.networks.iter().cloned());
        cpu_models.extend(needs.cpu_model.iter().cloned());
        machine_types.extend(needs.machine.iter().cloned());
    }
    placement::Offers {
        datastores: Vec::new(),
        networks: networks.into_iter().collect(),
        cpu_models: cpu_models.into_iter().collect(),
        machine_types: machine_types.into_iter().collect(),
        // A device is one host's, until another shows that it has one like it.
        devices: Vec::new(),
    }
}

fn add_rules(picture: &mut Picture, settings: &Settings, names: &BTreeMap<VmId, Name>) {
    let named = |vms: &BTreeSet<VmId>| vms.iter().filter_map(|vm| names.get(vm).cloned()).collect();
    for (name, rule) in &settings.rules {
        let vms: Vec<Name> = named(&rule.vms);
        let hosts = rule.hosts.iter().map(HostId::text).collect();
        let kind = match rule.kind {
            RuleKind::OnHosts => placement::RuleKind::OnHosts { vms, hosts },
            RuleKind::NotOnHosts => placement::RuleKind::NotOnHosts { vms, hosts },
            RuleKind::Apart => placement::RuleKind::Apart { vms },
            RuleKind::Together => placement::RuleKind::Together { vms },
        };
        let strength = match rule.strength {
            Strength::Must => placement::Strength::Must,
            Strength::Should => placement::Strength::Should,
        };
        picture.rules.insert(name.clone(), placement::Rule { strength, kind });
    }
    for (name, group) in &settings.groups {
        let waits_for = group.waits_for.iter().cloned().collect();
        picture.groups.insert(name.clone(), placement::Group { vms: named(&group.vms), waits_for });
    }
}

pub(crate) fn priority(priority: Priority) -> placement::Priority {
    match priority {
        Priority::Disabled => placement::Priority::Disabled,
        Priority::Lowest => placement::Priority::Lowest,
        Priority::Low => placement::Priority::Low,
        Priority::Medium => placement::Priority::Medium,
        Priority::High => placement::Priority::High,
        Priority::Highest => placement::Priority::Highest,
    }
}

fn readiness(readiness: &Readiness) -> placement::Readiness {
    placement::Readiness {
        when: match readiness.when {
            ReadyWhen::Started => placement::ReadyWhen::Started,
            ReadyWhen::Running => placement::ReadyWhen::Running,
            ReadyWhen::AgentAnswers => placement::ReadyWhen::AgentAnswers,
            ReadyWhen::CommandSucceeds => placement::ReadyWhen::CommandSucceeds,
        },
        delay_ms: readiness.delay.as_millis(),
        timeout_ms: readiness.timeout.as_millis(),
    }
}

/// The setting, in placement's words.
pub(crate) fn admission_control(settings: &Settings, work: u64) -> placement::AdmissionControl {
    let policy = match &settings.admission.policy {
        Policy::Proved { failures } => placement::Policy::Proved { failures: *failures, work },
        Policy::HostFailures { tolerated, slot_cpu_mhz, slot_memory_mib } => {
            placement::Policy::HostFailures {
                tolerated: *tolerated,
                slot_cpu_max: *slot_cpu_mhz,
                slot_memory_max: *slot_memory_mib,
            }
        }
        Policy::Percentage { cpu, memory } => placement::Policy::Percentage { cpu: *cpu, memory: *memory },
        Policy::FailoverHosts => placement::Policy::FailoverHosts,
    };
    let enforcement =
        if settings.admission.refuse { placement::Enforcement::Refuse } else { placement::Enforcement::Warn };
    placement::AdmissionControl { policy, enforcement }
}
