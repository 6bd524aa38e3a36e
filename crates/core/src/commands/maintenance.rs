//! Maintenance mode (R79): a host is emptied of its VMs, and takes none until it leaves the mode.

use super::admission::admit;
use super::asked::Asked;
use super::settings::change;
use crate::desk::Desk;
use crate::event::Event;
use crate::ids::HostId;
use crate::out::Out;
use crate::placing::{Scene, admission_control};
use crate::settings::{Evacuation, Settings, counted};
use alloc::string::String;
use mainstay_placement as placement;
use placement::{PROOF_WORK, Proposal};

/// "3 VMs are".
fn moved(number: u32) -> String {
    alloc::format!("{} {}", counted(number, "VM"), if number == 1 { "is" } else { "are" })
}

pub(super) fn enter(
    desk: &mut Desk<'_>,
    host: &HostId,
    how: Evacuation,
    force: bool,
    out: &mut Out<'_>,
) -> Result<Asked, String> {
    desk.cluster().check_host(host)?;
    if desk.settings.get().maintenance.get(host) == Some(&how) {
        return Err(alloc::format!("{host} is in maintenance mode already, or on its way into it"));
    }
    let serves = |other: &&HostId| *other != host && !desk.settings.get().maintenance.contains_key(*other);
    if !force && !desk.hosts.names().chain([&desk.config.me]).any(|other| serves(&other)) {
        return Err(String::from(
            "no other host is there to take over: it is the only one, or all others are in maintenance mode (--force)",
        ));
    }
    let mut warning = None;
    if how == Evacuation::Migrate {
        let scene = desk.cluster().scene(out.now);
        match admit(&scene, desk.settings.get(), &Proposal::EnterMaintenance(host.text())) {
            Ok(said) => warning = said,
            Err(reason) if !force => {
                return Err(alloc::format!("{reason} (--force enters all the same)"));
            }
            Err(reason) => warning = Some(reason),
        }
        // Whatever the policy: what no other host can take can't be moved.
        let stuck = cannot_be_emptied(&scene, desk.settings.get(), host);
        if let (Some(stuck), false) = (stuck, force) {
            return Err(stuck);
        }
    }
    let vms = desk.cluster().left_on(host);
    out.event(Event::MaintenanceBegun { host: host.clone(), vms });
    let mut answer = match how {
        Evacuation::Migrate => {
            alloc::format!("{host} is being emptied of {} by live migration", counted(vms, "VM"))
        }
        Evacuation::ShutDown => {
            alloc::format!("{host} is being emptied of {}, which are shut down", counted(vms, "VM"))
        }
    };
    if let Some(warning) = warning {
        answer.push_str(&alloc::format!("; warning: {warning}"));
    }
    if desk.datastores.lists().any(|list| list.suspension().stands()) {
        answer.push_str("; protection is suspended: it begins when that is over");
    }
    desk.placing.rehearsing_mut().on_maintenance(host);
    change(desk, answer, out, |settings| {
        settings.bring_back.remove(host);
        settings.maintenance.insert(host.clone(), how);
    })
}

/// Why the VMs of a host can't all be moved away, if they can't.
fn cannot_be_emptied(scene: &Scene, settings: &Settings, host: &HostId) -> Option<String> {
    let control = admission_control(settings, PROOF_WORK);
    let verdict = placement::admit_after(&scene.picture, &Proposal::EnterMaintenance(host.text()), &control);
    let stuck =
        |objection: &&placement::Objection| matches!(objection, placement::Objection::CannotBeEmptied { .. });
    verdict.objections.iter().find(stuck).map(|objection| {
        alloc::format!("{objection}; shut those down yourself, use --shutdown, or --force to move the others")
    })
}

pub(super) fn leave(
    desk: &mut Desk<'_>,
    host: &HostId,
    bring_back: bool,
    out: &mut Out<'_>,
) -> Result<Asked, String> {
    desk.cluster().check_host(host)?;
    if !desk.settings.get().maintenance.contains_key(host) {
        return Err(alloc::format!("{host} is not in maintenance mode"));
    }
    let mut back = 0;
    for datastore in desk.datastores.all_mut() {
        let Some(list) = datastore.list_mut() else { continue };
        back += list.evacuated_from(host);
        if !bring_back {
            list.forget_evacuation(host);
        }
    }
    out.event(Event::MaintenanceLeft { host: host.clone() });
    let answer = if bring_back {
        alloc::format!("{host} takes VMs again; {} moved back to it", moved(back))
    } else {
        alloc::format!("{host} takes VMs again; nothing is moved back to it")
    };
    change(desk, answer, out, |settings| {
        settings.maintenance.remove(host);
        if bring_back {
            settings.bring_back.insert(host.clone());
        }
    })
}
