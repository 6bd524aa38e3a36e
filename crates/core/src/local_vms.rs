//! The domains of this host, as libvirt last showed them, and whose XML is where.
//!
//! Invariant: libvirt not answering changes nothing about a VM. While it is lost the domains are unknown, not absent.

mod domains;

use crate::effect::Effect;
use crate::event::{Event, VmName};
use crate::ids::{DatastoreName, VmId, XmlId};
use crate::input::{Domain, DomainState};
use crate::message::Capacity;
use crate::out::Out;
use crate::register::VmSpec;
use crate::settings::HostOffers;
use crate::time::Time;
use crate::timing::{LIBVIRT_PATIENCE, Timing};
use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;
use alloc::sync::Arc;
use alloc::vec::Vec;
pub(crate) use domains::Domains;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum Storing {
    InFlight(XmlId),
    RetryAt(Time),
}

/// The XML of a VM on its home datastore.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct XmlFile {
    datastore: DatastoreName,
    vm: VmId,
}

/// Libvirt does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Silence {
    since: Time,
    /// It has lasted, and people know.
    told: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct LocalVms {
    domains: Domains,
    well: bool,
    /// Since when it has not answered, if it does not.
    silent: Option<Silence>,
    seen: bool,
    capacity: Capacity,
    /// What the host can give to VMs; `None`: not known yet.
    offers: Option<Arc<HostOffers>>,
    stored: BTreeMap<DatastoreName, BTreeMap<VmId, VmSpec>>,
    storing: BTreeMap<XmlFile, Storing>,
    problems: BTreeMap<VmId, Arc<str>>,
    nothing: BTreeMap<VmId, VmSpec>,
}

impl LocalVms {
    pub(crate) fn new() -> LocalVms {
        LocalVms {
            domains: Domains::default(),
            well: false,
            silent: None,
            seen: false,
            capacity: Capacity::default(),
            offers: None,
            stored: BTreeMap::new(),
            storing: BTreeMap::new(),
            problems: BTreeMap::new(),
            nothing: BTreeMap::new(),
        }
    }

    /// All domains, while libvirt answers.
    pub(crate) fn domains(&self) -> Option<&Domains> {
        self.well.then_some(&self.domains)
    }

    /// How much room this host has.
    pub(crate) fn capacity(&self) -> Capacity {
        self.capacity
    }

    pub(crate) fn on_capacity(&mut self, capacity: Capacity) {
        self.capacity = capacity;
    }

    /// What the host can give to VMs; `None`: not known yet.
    pub(crate) fn offers(&self) -> Option<&Arc<HostOffers>> {
        self.offers.as_ref()
    }

    pub(crate) fn on_offers(&mut self, offers: Arc<HostOffers>) {
        self.offers = Some(offers);
    }

    /// Whether libvirt answers on this host.
    pub(crate) fn is_well(&self) -> bool {
        self.well
    }

    /// Since when libvirt has not answered, if it does not.
    pub(crate) fn silent_since(&self) -> Option<Time> {
        self.silent.map(|silence| silence.since)
    }

    /// Libvirt has shown all domains once in this run of the agent.
    pub(crate) fn has_seen(&self) -> bool {
        self.seen
    }

    /// What the VMs need whose XML is on that datastore.
    pub(crate) fn stored(&self, datastore: &DatastoreName) -> &BTreeMap<VmId, VmSpec> {
        self.stored.get(datastore).unwrap_or(&self.nothing)
    }

    /// Why a VM of that name can't be protected, if it is here and can't.
    pub(crate) fn why_not(&self, wanted: &str) -> Option<Arc<str>> {
        let domain = self.domains.iter().find(|domain| &*domain.name == wanted)?;
        self.problems.get(&domain.vm).cloned()
    }

    /// VMs that run here and can't be protected, with the reason.
    pub(crate) fn problems(&self) -> impl Iterator<Item = (&Domain, &Arc<str>)> {
        self.problems.iter().filter_map(|(vm, reason)| Some((self.domains.get(*vm).0?, reason)))
    }

    pub(crate) fn on_domains(&mut self, as_of: Time, domains: Vec<Domain>, out: &mut Out<'_>) {
        self.seen = true;
        if !self.well {
            self.well = true;
            self.silent = None;
            out.event(Event::HypervisorBack);
        }
        self.domains.take_all(as_of, domains);
        self.problems.retain(|vm, _| self.domains.get(*vm).0.is_some());
    }

    pub(crate) fn on_domain(&mut self, as_of: Time, domain: Domain) {
        if self.well {
            self.domains.take_one(as_of, domain);
        }
    }

    pub(crate) fn on_lost(&mut self, out: &mut Out<'_>) {
        if self.well {
            self.well = false;
            out.event(Event::HypervisorLost);
        }
    }

    /// Sees to it that the XML of every running domain is on its home datastore.
    pub(crate) fn on_tick(&mut self, datastores: &[DatastoreName], out: &mut Out<'_>) {
        self.storing.retain(|_, storing| !matches!(storing, Storing::RetryAt(at) if *at <= out.now));
        if !self.well {
            return self.tell_of_silence(out);
        }
        // The next run of a VM is another one, of which people know nothing yet.
        let runs = |vm: &VmId| self.domains.get(*vm).0.is_some_and(|it| it.state == DomainState::Running);
        self.problems.retain(|vm, _| runs(vm));
        let mut homeless: Vec<(VmId, Arc<str>, Arc<str>)> = Vec::new();
        for domain in self.domains.iter() {
            if domain.state != DomainState::Running {
                continue;
            }
            let home = domain.home.as_ref().filter(|home| datastores.contains(home));
            let (Some(home), Some(spec)) = (home, &domain.spec) else {
                let reason = if domain.spec.is_none() {
                    "its domain XML can't be read"
                } else {
                    "its first disk is on none of the cluster's datastores"
                };
                homeless.push((domain.vm, domain.name.clone(), reason.into()));
                continue;
            };
            let stored = self.stored.entry(home.clone()).or_default();
            if let Some(known) = stored.get_mut(&domain.vm)
                && known.xml == spec.xml
            {
                if known != spec {
                    known.clone_from(spec);
                }
                self.problems.remove(&domain.vm);
                continue;
            }
            let key = XmlFile { datastore: home.clone(), vm: domain.vm };
            // Under way, or to be tried again later.
            if let Entry::Vacant(vacant) = self.storing.entry(key) {
                vacant.insert(Storing::InFlight(spec.xml));
                out.effects.push(Effect::StoreXml { datastore: home.clone(), vm: domain.vm, xml: spec.xml });
            }
        }
        for (vm, name, reason) in homeless {
            self.tell_problem(vm, name, reason, out);
        }
    }

    /// A restart of it takes its time: people are told when its silence has lasted.
    fn tell_of_silence(&mut self, out: &mut Out<'_>) {
        let silence = self.silent.get_or_insert(Silence { since: out.now, told: false });
        let lasting = out.now.since(silence.since);
        if !silence.told && lasting >= LIBVIRT_PATIENCE {
            silence.told = true;
            out.event(Event::HypervisorSilent { lasting });
        }
    }

    fn tell_problem(&mut self, vm: VmId, name: Arc<str>, reason: Arc<str>, out: &mut Out<'_>) {
        if self.problems.insert(vm, reason.clone()).as_ref() != Some(&reason) {
            out.event(Event::VmNotProtectable { vm: VmName { id: vm, name }, reason });
        }
    }

    pub(crate) fn on_xml_stored(
        &mut self,
        datastore: &DatastoreName,
        vm: VmId,
        xml: XmlId,
        error: Option<Arc<str>>,
        timing: &Timing,
        out: &mut Out<'_>,
    ) {
        let key = XmlFile { datastore: datastore.clone(), vm };
        if self.storing.get(&key) != Some(&Storing::InFlight(xml)) {
            return;
        }
        let Some(reason) = error else {
            self.storing.remove(&key);
            self.problems.remove(&vm);
            let spec = self.domains.get(vm).0.and_then(|domain| domain.spec.clone());
            if let Some(spec) = spec.filter(|spec| spec.xml == xml) {
                self.stored.entry(datastore.clone()).or_default().insert(vm, spec);
            }
            return;
        };
        self.storing.insert(key, Storing::RetryAt(out.now + timing.resync()));
        let name = self.domains.get(vm).0.map(|domain| domain.name.clone());
        if let Some(name) = name {
            let reason = alloc::format!("its domain XML could not be stored on {datastore}: {reason}");
            self.tell_problem(vm, name, reason.into(), out);
        }
    }

    pub(crate) fn deadline(&self) -> Time {
        let due = |storing: &Storing| match storing {
            Storing::InFlight(_) => None,
            Storing::RetryAt(at) => Some(*at),
        };
        let silence = self.silent.filter(|silence| !silence.told);
        let told = silence.map(|silence| silence.since + LIBVIRT_PATIENCE);
        self.storing.values().filter_map(due).chain(told).min().unwrap_or(Time(u64::MAX))
    }
}
