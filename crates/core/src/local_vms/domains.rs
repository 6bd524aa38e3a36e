//! The domains of this host, each as of the last time that libvirt was asked about it.
//!
//! Invariant: time never goes back for a domain, in whatever order libvirt's answers come.
//! Invariant: the index of homes is what a look at all domains would find.
//!
//! It does not know whether libvirt answers now.

use crate::ids::{DatastoreName, VmId};
use crate::input::Domain;
use crate::time::Time;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Which domains are homed where: an index of them, since each datastore asks for its own in every step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Homed {
    /// No set is empty.
    on: BTreeMap<DatastoreName, BTreeSet<VmId>>,
}

impl Homed {
    fn on(&self, datastore: &DatastoreName) -> impl Iterator<Item = VmId> {
        self.on.get(datastore).into_iter().flatten().copied()
    }

    fn move_to(&mut self, vm: VmId, from: Option<&DatastoreName>, to: Option<&DatastoreName>) {
        if from == to {
            return;
        }
        if let Some((from, vms)) = from.and_then(|from| Some((from, self.on.get_mut(from)?))) {
            vms.remove(&vm);
            if vms.is_empty() {
                self.on.remove(from);
            }
        }
        if let Some(to) = to {
            self.on.entry(to.clone()).or_default().insert(vm);
        }
    }
}

/// A domain, as it was at that time.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct KnownDomain {
    domain: Domain,
    as_of: Time,
}

/// The domains, each as of the last time that libvirt was asked about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Domains {
    known: BTreeMap<VmId, KnownDomain>,
    homed: Homed,
    /// When libvirt was last asked for all of them: what is not known did not exist then.
    complete_as_of: Time,
}

impl Domains {
    /// The domain, and as of when that is so. `None` in the first place: it did not exist then.
    pub(crate) fn get(&self, vm: VmId) -> (Option<&Domain>, Time) {
        match self.known.get(&vm) {
            Some(known) => (Some(&known.domain), known.as_of.max(self.complete_as_of)),
            None => (None, self.complete_as_of),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Domain> {
        self.known.values().map(|known| &known.domain)
    }

    /// Those that are homed on that datastore.
    pub(crate) fn homed_on(&self, datastore: &DatastoreName) -> impl Iterator<Item = &Domain> {
        self.homed.on(datastore).filter_map(|vm| self.known.get(&vm)).map(|known| &known.domain)
    }

    /// One domain, as it was then.
    pub(super) fn take_one(&mut self, as_of: Time, domain: Domain) {
        // Libvirt's answers may come in another order than they were asked for: time never goes back.
        let before = self.known.get(&domain.vm);
        if before.is_some_and(|known| known.as_of > as_of) {
            return;
        }
        let before = before.and_then(|known| known.domain.home.as_ref());
        self.homed.move_to(domain.vm, before, domain.home.as_ref());
        self.known.insert(domain.vm, KnownDomain { domain, as_of });
    }

    /// All domains, as they were then.
    pub(super) fn take_all(&mut self, as_of: Time, domains: Vec<Domain>) {
        let listed: BTreeSet<VmId> = domains.iter().map(|domain| domain.vm).collect();
        self.known.retain(|vm, known| {
            let stays = listed.contains(vm) || known.as_of > as_of;
            if !stays {
                self.homed.move_to(*vm, known.domain.home.as_ref(), None);
            }
            stays
        });
        for domain in domains {
            self.take_one(as_of, domain);
        }
        self.complete_as_of = self.complete_as_of.max(as_of);
    }
}

#[cfg(test)]
mod tests {
    use super::{DatastoreName, Domain, Domains, Time, Vec, VmId};
    use crate::input::DomainState;

    fn domain(vm: u8, home: Option<&str>) -> Domain {
        Domain {
            vm: VmId([vm; 16]),
            name: "a-vm".into(),
            state: DomainState::Running,
            home: home.map(DatastoreName::new),
            spec: None,
            persistent: true,
            io_error: false,
        }
    }

    fn homed_on(domains: &Domains, datastore: &str) -> Vec<u8> {
        domains.homed_on(&DatastoreName::new(datastore)).map(|domain| domain.vm.0[0]).collect()
    }

    #[test]
    fn a_domain_is_found_where_it_is_homed_now() {
        let mut domains = Domains::default();
        domains.take_all(
            Time(10),
            [domain(3, Some("ds1")), domain(1, Some("ds1")), domain(2, Some("ds2")), domain(4, None)].into(),
        );
        assert_eq!((homed_on(&domains, "ds1"), homed_on(&domains, "ds2")), ([1, 3].into(), [2].into()));
        // Its disk was moved. What was asked for before that says no more.
        domains.take_one(Time(20), domain(1, Some("ds2")));
        domains.take_one(Time(15), domain(1, Some("ds1")));
        assert_eq!((homed_on(&domains, "ds1"), homed_on(&domains, "ds2")), ([3].into(), [1, 2].into()));
        domains.take_one(Time(25), domain(4, Some("ds1")));
        domains.take_one(Time(25), domain(3, None));
        assert_eq!(homed_on(&domains, "ds1"), [4]);
        // All others are gone, but for the one that was seen later.
        domains.take_all(Time(20), [domain(2, Some("ds2"))].into());
        assert_eq!((homed_on(&domains, "ds1"), homed_on(&domains, "ds2")), ([4].into(), [2].into()));
        domains.take_all(Time(30), Vec::new());
        assert_eq!(domains, Domains { complete_as_of: Time(30), ..Domains::default() });
    }
}
