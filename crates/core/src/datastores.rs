//! The datastores of this host, all together.
//!
//! It does not: know what happens on one of them. That is each [`Datastore`]'s own matter.

use crate::config::Config;
use crate::datastore::Datastore;
use crate::ids::{DatastoreName, HostId};
use crate::message::OwnedEpoch;
use crate::out::Out;
use crate::protected_list::OwnerList;
use crate::time::Time;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// All datastores, by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Datastores {
    by_name: BTreeMap<DatastoreName, Datastore>,
}

impl Datastores {
    pub(crate) fn new(config: &Config, now: Time) -> Datastores {
        let make = |name: &DatastoreName| (name.clone(), Datastore::new(name.clone(), config, now));
        Datastores { by_name: config.datastores.iter().map(make).collect() }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Datastore> + Clone {
        self.by_name.values()
    }

    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = &mut Datastore> {
        self.by_name.values_mut()
    }

    pub(crate) fn count(&self) -> usize {
        self.by_name.len()
    }

    pub(crate) fn get(&self, name: &DatastoreName) -> Option<&Datastore> {
        self.by_name.get(name)
    }

    pub(crate) fn get_mut(&mut self, name: &DatastoreName) -> Option<&mut Datastore> {
        self.by_name.get_mut(name)
    }

    /// Those that this host reaches.
    pub(crate) fn connected(&self) -> impl Iterator<Item = &Datastore> {
        self.all().filter(|datastore| datastore.is_connected())
    }

    /// Those that this host owns now.
    pub(crate) fn owned(&self, now: Time) -> impl Iterator<Item = &Datastore> {
        self.all().filter(move |datastore| datastore.ownership().epoch(now).is_some())
    }

    /// The lists that this host decides about, or did until a moment ago.
    pub(crate) fn lists(&self) -> impl Iterator<Item = &OwnerList> {
        self.all().filter_map(|datastore| datastore.list())
    }

    pub(crate) fn lists_mut(&mut self) -> impl Iterator<Item = &mut OwnerList> {
        self.all_mut().filter_map(|datastore| datastore.list_mut())
    }

    /// The lists of datastores that this host owns now.
    pub(crate) fn owned_lists(&self, now: Time) -> impl Iterator<Item = &OwnerList> {
        self.owned(now).filter_map(|datastore| datastore.list())
    }

    /// Whether some VM waits for a host.
    pub(crate) fn is_waiting(&self) -> bool {
        self.lists().any(OwnerList::is_waiting)
    }

    /// Something has changed that the owner's decisions depend on.
    pub(crate) fn want_reviews(&mut self) {
        self.all_mut().for_each(|datastore| datastore.want_review());
    }

    /// Gives up all ownerships.
    pub(crate) fn release(&mut self, reason: &str, out: &mut Out<'_>) {
        self.all_mut().for_each(|datastore| datastore.release(reason, out));
    }

    /// The ownerships that this host has given up lately and that others are to hear of now.
    pub(crate) fn take_released(&mut self, now: Time) -> Vec<OwnedEpoch> {
        let released = |datastore: &mut Datastore| {
            let epoch = datastore.take_release(now)?;
            Some(OwnedEpoch { datastore: datastore.name().clone(), epoch })
        };
        self.all_mut().filter_map(released).collect()
    }

    /// Whether this host's power-on list has changed on some disk: worth a heartbeat at once. Says so once.
    pub(crate) fn take_power_on_news(&mut self) -> bool {
        let mut news = false;
        for datastore in self.all_mut() {
            news |= datastore.take_power_on_news();
        }
        news
    }

    /// A person says that the host is down.
    pub(crate) fn confirm_down(&mut self, host: &HostId) {
        self.all_mut().for_each(|datastore| datastore.confirm_down(host));
    }
}
