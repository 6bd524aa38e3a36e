//! What one look at the cluster tells about a suspension of protection: what is left to be done on each datastore, and which hosts
//! can't do their part.

use crate::words::{HostNames, clean};
use mainstay_core::host_liveness::HostState;
use mainstay_core::ids::{DatastoreName, HostId};
use mainstay_core::view::{DatastoreView, SuspensionView, View};
use std::collections::{BTreeMap, BTreeSet};

/// What is left to be done on a datastore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Left {
    /// It is not suspended there.
    Suspension,
    /// Failovers in progress are to be completed.
    Failovers,
    /// It is suspended there by an owner that is not the one who answers: what hosts make of it only that owner knows.
    Word,
    /// These hosts can take it up, and have not said yet that they have.
    Hosts(BTreeSet<HostId>),
}

/// Why a host can't take it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Unable {
    /// It is heard, and does not reach the datastore.
    NoDatastore,
    /// It is not heard, being in that state.
    Silent(HostState),
}

/// What one answer of the agent says of the suspension.
#[derive(Debug)]
pub struct Seen {
    /// Datastores on which something is left to be done.
    pub left: BTreeMap<DatastoreName, Left>,
    /// All of them.
    all: BTreeSet<DatastoreName>,
    unable: BTreeMap<(HostId, Unable), BTreeSet<DatastoreName>>,
}

impl Seen {
    /// What a primary says.
    pub fn of(view: &View) -> Seen {
        let all = view.datastores.iter().map(|it| it.datastore.clone());
        let all = all.chain(view.suspensions.iter().map(|it| it.datastore.clone())).collect();
        let mut seen = Seen { left: BTreeMap::new(), all, unable: BTreeMap::new() };
        for datastore in &seen.all {
            let mut suspensions = view.suspensions.iter();
            let left = match suspensions.find(|it| it.datastore == *datastore) {
                None => Some(Left::Suspension),
                Some(it) => left(it, view, &mut seen.unable),
            };
            seen.left.extend(left.map(|left| (datastore.clone(), left)));
        }
        seen
    }

    /// How far each datastore is from its end: less is nearer.
    pub fn distances(&self) -> impl Iterator<Item = (&DatastoreName, (u8, usize))> {
        self.all.iter().map(|datastore| {
            let distance = match self.left.get(datastore) {
                None => (0, 0),
                Some(Left::Hosts(hosts)) => (1, hosts.len()),
                Some(Left::Word) => (2, 0),
                Some(Left::Failovers) => (3, 0),
                Some(Left::Suspension) => (4, 0),
            };
            (datastore, distance)
        })
    }

    /// Hosts that do not honour the suspension.
    pub fn hosts(&self) -> BTreeSet<HostId> {
        let late = self.left.values().filter_map(|left| match left {
            Left::Hosts(hosts) => Some(hosts),
            Left::Suspension | Left::Failovers | Left::Word => None,
        });
        late.flatten().chain(self.unable.keys().map(|(host, _)| host)).cloned().collect()
    }

    /// Datastores that are not suspended, or of which that is not known.
    pub fn datastores(&self) -> BTreeSet<DatastoreName> {
        let of_all = self.left.iter().filter(|(_, left)| match left {
            Left::Suspension | Left::Failovers | Left::Word => true,
            Left::Hosts(_) => false,
        });
        of_all.map(|(datastore, _)| datastore.clone()).collect()
    }

    /// What does not honour the suspension, why, and what that means. Hosts of the same kind share a line.
    pub fn warnings(&self, view: &View, names: &HostNames) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut late: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for (name, left) in &self.left {
            match left {
                Left::Suspension => warnings.push(stays_protected(name, view, names)),
                Left::Failovers => warnings
                    .push(format!("failovers of VMs on {} are not completed yet", clean(name.as_str()))),
                Left::Word => warnings.push(format!(
                    "it is not known which hosts honour it for VMs of {}: {}",
                    clean(name.as_str()),
                    owner(name, view, names)
                )),
                Left::Hosts(hosts) => {
                    for host in hosts {
                        late.entry(host.clone()).or_default().insert(name.clone());
                    }
                }
            }
        }
        for (datastores, hosts) in alike(late) {
            warnings.push(format!(
                "{} did not take it up for VMs of {} (an agent or guard of an older release never does): they are frozen if \
                 network and storage are cut off there",
                listed(&hosts, names),
                named(&datastores)
            ));
        }
        for ((why, datastores), hosts) in
            alike(self.unable.iter().map(|((host, why), stores)| (host.clone(), (*why, stores.clone()))))
        {
            let (hosts, datastores) = (listed(&hosts, names), named(&datastores));
            warnings.push(match why {
                Unable::NoDatastore => format!(
                    "{hosts} can't take it up for VMs of {datastores}, out of reach from there: they are frozen if the network \
                     is cut off there too"
                ),
                Unable::Silent(state) => format!(
                    "{hosts} can't be told ({state}): VMs of {datastores} there are frozen if the storage is cut off from them"
                ),
            });
        }
        warnings
    }
}

fn left(
    it: &SuspensionView,
    view: &View,
    unable: &mut BTreeMap<(HostId, Unable), BTreeSet<DatastoreName>>,
) -> Option<Left> {
    // Without the owner's word what is on disk may be old: its failovers need not be in progress any more.
    let Some(waits_for) = &it.waits_for else { return Some(Left::Word) };
    if !it.suspension.stands {
        return Some(Left::Failovers);
    }
    let mut able = BTreeSet::new();
    for host in waits_for {
        match why_unable(host, &it.datastore, view) {
            None => {
                able.insert(host.clone());
            }
            Some(why) => {
                unable.entry((host.clone(), why)).or_default().insert(it.datastore.clone());
            }
        }
    }
    (!able.is_empty()).then_some(Left::Hosts(able))
}

fn why_unable(host: &HostId, datastore: &DatastoreName, view: &View) -> Option<Unable> {
    let seen = view.hosts.iter().find(|it| it.host == *host)?;
    // One that calls itself isolated hears itself all the same.
    let state = if *host == view.host { HostState::Connected } else { seen.state };
    match state {
        // Nobody has heard it yet, just after an election.
        HostState::Unknown => None,
        HostState::Connected => (!seen.datastores.contains(datastore)).then_some(Unable::NoDatastore),
        HostState::Partitioned
        | HostState::Isolated
        | HostState::AgentUnreachable
        | HostState::Unguarded
        | HostState::Failed => Some(Unable::Silent(state)),
    }
}

/// What is waited for, in words.
pub fn waiting(waits: &BTreeMap<DatastoreName, Left>, names: &HostNames) -> String {
    let on = |what: &Left| {
        let of_all = waits.iter().filter(|(_, left)| *left == what);
        let datastores: BTreeSet<_> = of_all.map(|(datastore, _)| datastore.clone()).collect();
        (!datastores.is_empty()).then(|| named(&datastores))
    };
    let mut hosts = BTreeSet::new();
    for left in waits.values() {
        match left {
            Left::Hosts(some) => hosts.extend(some.iter().cloned()),
            Left::Suspension | Left::Failovers | Left::Word => {}
        }
    }
    let parts = [
        on(&Left::Failovers).map(|on| format!("failovers in progress are completed (VMs of {on})")),
        on(&Left::Suspension).map(|on| format!("it is suspended on {on} too")),
        on(&Left::Word).map(|on| format!("the owner of {on} says so")),
        (!hosts.is_empty()).then(|| format!("{} will have taken it up", listed(&hosts, names))),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", and ")
}

fn stays_protected(name: &DatastoreName, view: &View, names: &HostNames) -> String {
    let why = match owned_by(name, view) {
        Some(owner) if view.primary.as_ref() == Some(owner) => {
            format!("{}, the primary, owns it only now; order it again", names.short(owner))
        }
        Some(_) | None => owner(name, view, names),
    };
    format!("VMs on {} stay protected: {why}", clean(name.as_str()))
}

/// Why its owner does not say so.
fn owner(name: &DatastoreName, view: &View, names: &HostNames) -> String {
    match (&view.primary, owned_by(name, view)) {
        (Some(primary), Some(owner)) if owner != primary => {
            format!("{}, the primary, does not own it, {} does", names.short(primary), names.short(owner))
        }
        (_, Some(owner)) => format!("{}, which owns it, does not say so yet", names.short(owner)),
        (Some(primary), None) => {
            format!("{}, the primary, does not own it, and nobody is known to", names.short(primary))
        }
        (None, None) => "nobody is known to own it".to_owned(),
    }
}

fn owned_by<'a>(name: &DatastoreName, view: &'a View) -> Option<&'a HostId> {
    let datastore: Option<&DatastoreView> = view.datastores.iter().find(|it| it.datastore == *name);
    datastore?.owner.as_ref()
}

/// Hosts by what they have in common.
fn alike<K: Ord>(of_hosts: impl IntoIterator<Item = (HostId, K)>) -> BTreeMap<K, BTreeSet<HostId>> {
    let mut alike: BTreeMap<K, BTreeSet<HostId>> = BTreeMap::new();
    for (host, what) in of_hosts {
        alike.entry(what).or_default().insert(host);
    }
    alike
}

fn listed(hosts: &BTreeSet<HostId>, names: &HostNames) -> String {
    hosts.iter().map(|host| names.short(host)).collect::<Vec<_>>().join(", ")
}

fn named(datastores: &BTreeSet<DatastoreName>) -> String {
    datastores.iter().map(|name| clean(name.as_str())).collect::<Vec<_>>().join(", ")
}
