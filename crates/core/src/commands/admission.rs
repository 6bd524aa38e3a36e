//! Commands about admission control (R78), and what it says to a change.

use super::asked::Asked;
use super::settings::change;
use crate::cluster::Cluster;
use crate::desk::Desk;
use crate::ids::{HostId, VmId};
use crate::out::Out;
use crate::placing::{Scene, admission_control, shortened};
use crate::settings::{Admission, Policy, Settings};
use crate::time::Time;
use alloc::string::String;
use mainstay_placement as placement;
use placement::{Change, PROOF_WORK, Proposal};

pub(super) fn set(desk: &mut Desk<'_>, admission: &Admission, out: &mut Out<'_>) -> Result<Asked, String> {
    match &admission.policy {
        Policy::Proved { failures } | Policy::HostFailures { tolerated: failures, .. } => {
            let most = desk.hosts.count() as u32;
            if *failures == 0 || *failures > most {
                let hosts = most + 1;
                return Err(alloc::format!(
                    "{failures} failed hosts: of {hosts} hosts, 1 to {most} can be made up for"
                ));
            }
        }
        Policy::Percentage { cpu, memory } if *cpu > 100 || *memory > 100 => {
            return Err(String::from("a percentage is 0 to 100"));
        }
        Policy::FailoverHosts if desk.settings.get().failover_hosts.is_empty() => {
            return Err(String::from("no host is kept for failovers: name one first"));
        }
        Policy::Percentage { .. } | Policy::FailoverHosts => {}
    }
    let answer = alloc::format!("admission control: {admission}");
    let admission = admission.clone();
    change(desk, answer, out, |settings| settings.admission = admission)
}

pub(super) fn set_failover_host(
    desk: &mut Desk<'_>,
    host: &HostId,
    keep: bool,
    out: &mut Out<'_>,
) -> Result<Asked, String> {
    desk.cluster().check_host(host)?;
    if !keep
        && desk.settings.get().admission.policy == Policy::FailoverHosts
        && desk.settings.get().failover_hosts.len() == 1
    {
        return Err(String::from(
            "admission control relies on failover hosts, and this is the last one: change the policy first",
        ));
    }
    let answer = if keep {
        alloc::format!("{host} is kept for failovers; VMs that run on it are left there")
    } else {
        alloc::format!("{host} is a host like the others")
    };
    change(desk, answer, out, |settings| {
        if keep {
            settings.failover_hosts.insert(host.clone());
        } else {
            settings.failover_hosts.remove(host);
        }
    })
}

/// What admission control says to a change. `Ok`: a warning, if there is one.
pub(super) fn admit(
    scene: &Scene,
    settings: &Settings,
    proposal: &Proposal,
) -> Result<Option<String>, String> {
    let control = admission_control(settings, PROOF_WORK);
    let before = placement::admit(&scene.picture, &control);
    let mut after = placement::admit_after(&scene.picture, proposal, &control);
    // What was wrong before is not this change's fault.
    after.objections.retain(|objection| !before.objections.contains(objection));
    if after.objections.is_empty() {
        return Ok(None);
    }
    let text = alloc::format!("admission control: {}", shortened(&after.objections, after.more));
    if after.is_refused() { Err(text) } else { Ok(Some(text)) }
}

/// Protecting a VM. `Ok`: a warning, if there is one.
pub(super) fn admit_protection(cluster: &Cluster<'_>, vm: VmId, now: Time) -> Result<Option<String>, String> {
    let scene = cluster.scene(now);
    let Some(name) = scene.name(vm) else { return Ok(None) };
    let Some(slot) = scene.picture.vms.get(name) else { return Ok(None) };
    let after = placement::Vm { wanted: true, ..slot.clone() };
    admit(&scene, cluster.settings(), &Proposal::Change(Change::Vm(name.clone(), Some(after))))
}
