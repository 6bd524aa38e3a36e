//! R70: of all settings that were read or made here, the newest count, and every list of this owner is to have them.
//!
//! Invariant: settings that were never acknowledged don't come back. When a change can't reach the disk any more, this host
//! goes back to what it has read.

use crate::datastores::Datastores;
use crate::ids::HostId;
use crate::settings::Settings;
use alloc::string::String;
use alloc::sync::Arc;
use serde::{Deserialize, Serialize};

/// Settings may take so many bytes of a protected list; the rest is for some 2,000 VMs.
const SIZE_MAX: usize = 128 * 1_024;

/// The settings that count on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct SettingsHere {
    newest: Arc<Settings>,
}

impl SettingsHere {
    pub(crate) fn get(&self) -> &Arc<Settings> {
        &self.newest
    }

    /// Makes a change, as the primary. Fails with a text for the user.
    pub(crate) fn change(&mut self, me: &HostId, change: impl FnOnce(&mut Settings)) -> Result<(), String> {
        let mut settings = Settings::clone(&self.newest);
        change(&mut settings);
        settings.revision = settings.revision.saturating_add(1);
        settings.by = Some(me.clone());
        if settings.size() > SIZE_MAX && settings.size() > self.newest.size() {
            return Err(String::from(
                "the settings of the cluster would be too large for the protected lists: remove rules, groups or settings of VMs \
                 that are not needed any more",
            ));
        }
        self.newest = Arc::new(settings);
        Ok(())
    }

    /// Takes up newer ones that were read, and hands the newest to all lists of this owner.
    pub(crate) fn share(&mut self, datastores: &mut Datastores) {
        for datastore in datastores.all() {
            let own = datastore.list().map(|list| list.settings());
            let read = datastore.look().map(|look| &look.list.settings);
            for settings in own.into_iter().chain(read) {
                if settings.is_newer_than(&self.newest) {
                    self.newest = Arc::clone(settings);
                }
            }
        }
        for datastore in datastores.all_mut() {
            if let Some(list) = datastore.list_mut()
                && list.take_settings(&self.newest)
            {
                datastore.want_review();
            }
        }
    }

    /// Goes back to the newest settings that are on a datastore, as far as this host has read them.
    pub(crate) fn forget_own(&mut self, datastores: &Datastores) {
        let read = datastores.all().filter_map(|datastore| Some(&datastore.look()?.list.settings));
        let newest = read.fold(None, |newest: Option<&Arc<Settings>>, settings| match newest {
            Some(newest) if !settings.is_newer_than(newest) => Some(newest),
            Some(_) | None => Some(settings),
        });
        self.newest = newest.cloned().unwrap_or_default();
    }
}
