//! Would the cluster still be admitted after this change?

use super::{AdmissionControl, Objection, Verdict, admit};
use crate::picture::{Change, HostState, Name, Picture, Priority, Resources, Vm};
use crate::plan::plan;
use crate::refusal::Refusal;
use crate::room::Purpose;
use alloc::vec::Vec;

/// A change that somebody wants to make.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "proposals are made one at a time and never kept")]
pub enum Proposal {
    /// Something in the picture becomes different.
    Change(Change),
    /// A host is emptied onto the others, and then takes part no more.
    EnterMaintenance(Name),
}

impl Proposal {
    /// The VM is to come back after a failure, with this priority. `None`: the picture has no such VM.
    pub fn protect(picture: &Picture, vm: &Name, priority: Priority) -> Option<Self> {
        Self::vm(picture, vm, |slot| slot.priority = priority)
    }

    /// The VM is to be started on this host.
    pub fn start(picture: &Picture, vm: &Name, host: &Name) -> Option<Self> {
        Self::vm(picture, vm, |slot| (slot.host, slot.wanted) = (Some(host.clone()), true))
    }

    /// The VM's reservation is to be raised.
    pub fn raise(picture: &Picture, vm: &Name, reservation: Resources) -> Option<Self> {
        Self::vm(picture, vm, |slot| slot.reservation = reservation)
    }

    fn vm(picture: &Picture, vm: &Name, change: impl FnOnce(&mut Vm)) -> Option<Self> {
        let mut slot = picture.vms.get(vm)?.clone();
        change(&mut slot);
        Some(Self::Change(Change::Vm(vm.clone(), Some(slot))))
    }
}

/// What admission control says to the change. A VM that is started or grows must fit where it is, whatever the policy.
pub fn admit_after(picture: &Picture, proposal: &Proposal, control: &AdmissionControl) -> Verdict {
    let mut after = picture.clone();
    let mut objections = Vec::new();
    match proposal {
        Proposal::Change(change) => {
            if let Change::Vm(name, Some(vm)) = change {
                objections.extend(runs_there(picture, name, vm));
            }
            after.apply(change.clone());
        }
        Proposal::EnterMaintenance(host) => objections.extend(empty(&mut after, host)),
    }
    let mut verdict = admit(&after, control);
    objections.append(&mut verdict.objections);
    Verdict { objections, ..verdict }
}

/// What is against the VM running where it shall run, if that or its demand is new.
fn runs_there(picture: &Picture, name: &Name, vm: &Vm) -> Option<Objection> {
    let host = vm.host.as_ref()?;
    let before = picture.vms.get(name);
    if before.is_some_and(|before| before.host == vm.host && before.demand().holds(vm.demand())) {
        return None;
    }
    // Placed anew with this host as the only one, everything else being as it is.
    let mut trial = picture.clone();
    trial.vms.retain(|_, vm| vm.host.is_some());
    let wanted = Vm { host: None, wanted: true, priority: Priority::Highest, ..vm.clone() };
    trial.vms.insert(name.clone(), wanted);
    for (other, slot) in trial.hosts.iter_mut().filter(|(other, _)| *other != host) {
        slot.state = HostState::Unusable(other.clone());
    }
    let plan = plan(&trial, &[], Purpose::Planned);
    let why = plan.left_out.into_iter().find(|one| one.vm == *name)?.why;
    let why = why.into_iter().find(|(other, _)| other == host).map(|(_, why)| why);
    // A host that the picture does not have gives no reason.
    let why = why.unwrap_or_else(|| Refusal::Unusable("it is not in the cluster".into()));
    Some(Objection::CannotRunThere { vm: name.clone(), host: host.clone(), why })
}

/// Moves everything off the host and takes it out of service.
fn empty(after: &mut Picture, host: &Name) -> Option<Objection> {
    let mut trial = after.clone();
    // Everything that runs there is moved, also what would not be restarted; what waits elsewhere is another matter.
    trial.vms.retain(|_, vm| vm.host.is_some());
    for vm in trial.vms.values_mut().filter(|vm| vm.host.as_ref() == Some(host)) {
        (vm.wanted, vm.priority) = (true, vm.priority.max(Priority::Lowest));
    }
    let plan = plan(&trial, core::slice::from_ref(host), Purpose::Planned);
    for one in plan.placed {
        if let Some(vm) = after.vms.get_mut(&one.vm) {
            vm.host = Some(one.host);
        }
    }
    if let Some(slot) = after.hosts.get_mut(host) {
        slot.state = HostState::Maintenance;
    }
    let left_out = plan.left_out;
    (!left_out.is_empty()).then(|| Objection::CannotBeEmptied { host: host.clone(), left_out })
}
