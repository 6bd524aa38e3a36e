//! What the owner's decisions and the operators' commands look at and change: a narrow part of the core.

use crate::agreement::Agreement;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::datastores::Datastores;
use crate::hosts::Hosts;
use crate::local_vms::LocalVms;
use crate::placing::Placing;
use crate::settings_here::SettingsHere;

/// That part, for one step.
pub(crate) struct Desk<'a> {
    pub(crate) config: &'a Config,
    pub(crate) hosts: &'a Hosts,
    pub(crate) agreement: &'a Agreement,
    pub(crate) vms: &'a LocalVms,
    pub(crate) datastores: &'a mut Datastores,
    pub(crate) settings: &'a mut SettingsHere,
    pub(crate) placing: &'a mut Placing,
}

impl Desk<'_> {
    /// All that can be looked at.
    pub(crate) fn cluster(&self) -> Cluster<'_> {
        Cluster::new(&self.config.me, self.hosts, self.datastores, self.vms, self.settings.get())
    }
}
