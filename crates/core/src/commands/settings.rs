//! Commands that change the settings of the cluster: what is asked is checked, and refused with the reason.

use super::asked::{Asked, Until};
use crate::cluster::Cluster;
use crate::desk::Desk;
use crate::event::Event;
use crate::out::Out;
use crate::protected_list::OwnerList;
use crate::register::Priority;
use crate::settings::{Group, Readiness, ReadyWhen, Settings, VmSettings};
use crate::time::Time;
use alloc::string::String;
use alloc::sync::Arc;
use mainstay_placement as placement;

/// Changes the settings, for all datastores that this host owns.
pub(super) fn change(
    desk: &mut Desk<'_>,
    answer: String,
    out: &mut Out<'_>,
    change: impl FnOnce(&mut Settings),
) -> Result<Asked, String> {
    desk.settings.change(&desk.config.me, change)?;
    desk.placing.rehearsing_mut().mark_stale();
    out.event(Event::SettingsChanged { text: answer.as_str().into() });
    Ok(Asked::Later(Until::Settings(desk.settings.get().revision), answer))
}

pub(super) fn set_priority(
    desk: &mut Desk<'_>,
    vm: &str,
    priority: Option<Priority>,
    out: &mut Out<'_>,
) -> Result<Asked, String> {
    let answer = match priority {
        Some(priority) => alloc::format!("{vm}: restart priority {priority}"),
        None => alloc::format!("{vm}: restart priority as its domain XML says"),
    };
    set_vm(desk, vm, answer, out, |settings| settings.priority = priority)
}

/// When those that wait for that VM may start.
pub(super) fn set_readiness(
    desk: &mut Desk<'_>,
    vm: &str,
    readiness: Option<&Readiness>,
    out: &mut Out<'_>,
) -> Result<Asked, String> {
    let unheard = agent_unheard(desk.cluster().lists(), vm, readiness);
    let answer = alloc::format!("{vm}: ready when {}{unheard}", readiness.cloned().unwrap_or_default());
    set_vm(desk, vm, answer, out, |settings| settings.readiness = readiness.cloned())
}

fn set_vm(
    desk: &mut Desk<'_>,
    wanted: &str,
    answer: String,
    out: &mut Out<'_>,
    set: impl FnOnce(&mut VmSettings),
) -> Result<Asked, String> {
    let vm = desk.cluster().find_vm(wanted, out.now)?;
    let mut after = Settings::clone(desk.settings.get());
    let settings = after.vms.entry(vm).or_default();
    set(settings);
    if *settings == VmSettings::default() {
        after.vms.remove(&vm);
    }
    check_order(&desk.cluster(), &after, out.now)?;
    change(desk, answer, out, |settings| *settings = after)
}

/// The groups have to have an order after the change.
fn check_order(cluster: &Cluster<'_>, after: &Settings, now: Time) -> Result<(), String> {
    let mut scene = cluster.scene_under(after, now);
    // What the change makes of priorities.
    for (vm, wanted) in &after.vms {
        let name = scene.name(*vm).cloned();
        let priority = wanted.priority.map(crate::placing::priority);
        if let (Some(name), Some(priority)) = (name, priority)
            && let Some(vm) = scene.picture.vms.get_mut(&name)
        {
            vm.priority = priority;
        }
    }
    placement::check_groups(&scene.picture).map_err(|error| alloc::format!("{error}"))
}

/// A warning, where a condition asks a guest agent that was never heard.
fn agent_unheard<'a>(
    mut lists: impl Iterator<Item = &'a OwnerList>,
    wanted: &str,
    readiness: Option<&Readiness>,
) -> String {
    let asks = |it: &&Readiness| matches!(it.when, ReadyWhen::AgentAnswers | ReadyWhen::CommandSucceeds);
    let unheard = |list: &OwnerList| {
        let vm = list.find(wanted);
        vm.is_some_and(|vm| list.entries().any(|(entry, _)| entry.vm == vm && !entry.has_agent))
    };
    match readiness.filter(asks) {
        Some(it) if lists.any(unheard) => alloc::format!(
            "; warning: no guest agent of it has ever answered, and without one those that wait for it wait for {}",
            it.timeout
        ),
        Some(_) | None => String::new(),
    }
}

pub(super) fn set_group(
    desk: &mut Desk<'_>,
    name: &Arc<str>,
    vms: &[String],
    waits_for: &[Arc<str>],
    out: &mut Out<'_>,
) -> Result<Asked, String> {
    let vms = desk.cluster().find_vms(vms, out.now)?;
    if vms.is_empty() {
        return Err(String::from("a group needs at least one VM"));
    }
    if let Some(unknown) = waits_for.iter().find(|group| !desk.settings.get().groups.contains_key(*group)) {
        return Err(alloc::format!("there is no group {unknown} to wait for: make it first"));
    }
    let mut after = Settings::clone(desk.settings.get());
    let group = Group { vms, waits_for: waits_for.iter().cloned().collect() };
    after.groups.insert(name.clone(), group);
    check_order(&desk.cluster(), &after, out.now)?;
    let answer = alloc::format!("group {name} is set");
    change(desk, answer, out, |settings| *settings = after)
}

pub(super) fn remove_group(desk: &mut Desk<'_>, name: &Arc<str>, out: &mut Out<'_>) -> Result<Asked, String> {
    if !desk.settings.get().groups.contains_key(name) {
        return Err(alloc::format!("there is no group {name}"));
    }
    let waiting = desk.settings.get().groups.iter().find(|(_, group)| group.waits_for.contains(name));
    if let Some((other, _)) = waiting {
        return Err(alloc::format!("group {other} waits for {name}: change or remove that first"));
    }
    let answer = alloc::format!("group {name} is removed");
    change(desk, answer, out, |settings| drop(settings.groups.remove(name)))
}
