//! Live migrations away from this host, as an owner has ordered them (R74).
//!
//! What it does not do: wait for the VM to be there. libvirt's answer only ends the operation; where the VM is, both hosts see.

use super::{Errand, Pending, Vms, uuid};
use mainstay_core::ids::{HostId, OpId, VmId};
use mainstay_core::{Input, VmOutcome};
use mainstay_hypervisor as hv;
use std::collections::BTreeMap;
use std::time::Duration;

/// How VMs are moved to other hosts.
#[derive(Clone, Debug, Default)]
pub struct Migrations {
    /// How each other host is reached.
    pub destinations: BTreeMap<HostId, Destination>,
    /// How long one may take.
    pub timeout: Duration,
}

/// How another host is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Its libvirt, as this host's libvirtd reaches it.
    pub uri: String,
    /// Where the memory is sent; `None`: to the name that it gives itself.
    pub data_uri: Option<String>,
}

impl Vms {
    pub(super) fn migrate(
        &mut self,
        op: OpId,
        vm: VmId,
        to: &HostId,
        inputs: &mut Vec<Input>,
        errands: &mut Vec<Errand>,
    ) {
        let Some(destination) = self.migrations.destinations.get(to) else {
            let reason = format!("{to} is no peer in this host's configuration: add it to agent.toml");
            inputs.push(Input::VmDone { op, outcome: VmOutcome::Failed(reason.into()) });
            return;
        };
        let migrate = hv::Op::Migrate {
            uuid: uuid(vm),
            destination_uri: destination.uri.clone(),
            data_uri: destination.data_uri.clone(),
            timeout: self.migrations.timeout,
        };
        self.submit(Pending::Migrate(op, vm), migrate, errands);
    }
}
