//! Stories about hosts that are cut off and come back, and about the copies of VMs on them.

use super::{Plan, SECOND};
use crate::action::Action;
use crate::dice::Dice;
use mainstay_core::HostId;

/// The owner stands still for some heartbeats, and the storage of a failed host comes back meanwhile: its heartbeat moves again in the
/// very reading after which the owner decides.
pub(super) fn owner_stalls(plan: &mut Plan, dice: &mut Dice, calm: u64) {
    plan.stage(dice, 3);
    let timing = plan.setup.timing;
    let beat = timing.heartbeat.0;
    let (host, vm) = plan.secondary_with_vm(dice);
    little_room(plan, dice, &vm);
    let from = calm + dice.below(5 * SECOND);
    let back = from + 2 * timing.failure_timeout.0 + dice.below(30 * SECOND);
    plan.at(from, Action::NetworkCut { host: host.clone() });
    plan.at(back + dice.below(30 * SECOND), Action::NetworkHeal { host: host.clone() });
    plan.cut_storage(&host, (from, back));
    let owner = plan.primary();
    let lasts = dice.between(2 * beat + 1, timing.failure_timeout.0.max(2 * beat + 2));
    let begins = back.saturating_sub(dice.below(lasts));
    let span = (begins, begins + lasts);
    if dice.permille(500) {
        plan.both(span, Action::AgentHang { host: owner.clone() }, Action::AgentResume { host: owner });
    } else {
        plan.both(span, Action::HostPause { host: owner.clone() }, Action::HostResume { host: owner });
    }
    // Room is free just after, or something else is to decide.
    for _ in 0..dice.between(1, 3) {
        let other = plan.vm(dice);
        let at = begins + lasts + dice.below(3 * beat);
        let action = if dice.permille(700) {
            Action::UserShutdown { vm: other }
        } else {
            Action::QemuKill { vm: other }
        };
        plan.at(at, action);
    }
}

/// No other host has room for that VM until another one goes.
fn little_room(plan: &mut Plan, dice: &mut Dice, vm: &str) {
    let Some(big) = plan.setup.vm(vm) else { return };
    plan.setup.vms[big].memory_mib = 2_048;
    let home = plan.setup.vms[big].host;
    for host in (0..plan.setup.hosts.len()).filter(|host| *host != home) {
        let used = plan.setup.vms.iter().filter(|vm| vm.host == host).map(|vm| vm.memory_mib);
        plan.setup.hosts[host].memory_mib = used.sum::<u64>() + dice.below(4) * 512;
    }
}

/// A VM that no list knew runs on a host that is cut off just before it is granted there, and that loses its storage before it reads of
/// that. It is restarted elsewhere; the copy is still there when the host is back.
pub(super) fn unlisted_copy(plan: &mut Plan, dice: &mut Dice, calm: u64) {
    plan.stage(dice, 3);
    let beat = plan.setup.timing.heartbeat.0;
    let timeout = plan.setup.timing.failure_timeout.0;
    plan.setup.isolation_response = Default::default();
    let (host, vm) = plan.secondary_with_vm(dice);
    let datastore = plan.home_of(&vm);
    // Nothing can be stored of it, so it is not protected, until its host is partitioned.
    let (full, free) = (SECOND / 5, calm + 5 * timeout);
    let begin = Action::DatastoreFull { datastore: datastore.clone() };
    plan.both((full, free), begin, Action::DatastoreFree { datastore });
    let partitioned = free - timeout - dice.below(timeout);
    let away = free + dice.below(7 * beat.max(SECOND));
    let back = away + dice.between(4 * timeout, 30 * SECOND + 4 * timeout);
    plan.cut_storage(&host, (away, back));
    let stopped = back + dice.between(SECOND, 40 * SECOND);
    let heals = if dice.permille(500) { stopped + 30 * SECOND } else { back + dice.below(20 * SECOND) };
    plan.cut_network(&host, (partitioned, heals));
    let action = if dice.permille(600) { Action::UserShutdown { vm } } else { Action::QemuKill { vm } };
    plan.at(stopped, action);
    plan.faults_end = stopped + 40 * SECOND;
}

/// Its host has just lost all paths when a user destroys a VM there. It is granted elsewhere, where the first starts fail. The host is back,
/// and tells what its user did.
pub(super) fn destroyed_in_outage(plan: &mut Plan, dice: &mut Dice, calm: u64) {
    plan.stage(dice, 3);
    let timeout = plan.setup.timing.failure_timeout.0;
    let (host, vm) = plan.secondary_with_vm(dice);
    let from = calm + dice.below(10 * SECOND);
    let others: Vec<HostId> =
        plan.setup.hosts.iter().map(|host| host.id.clone()).filter(|id| *id != host).collect();
    let count = dice.between(1, 2) as u32;
    for other in others {
        plan.at(from - SECOND, Action::StartFailures { host: other, count });
    }
    let back = from + timeout + dice.between(SECOND, 40 * SECOND);
    plan.cut_storage(&host, (from, back));
    plan.cut_network(&host, (from, back + dice.below(200 * SECOND)));
    plan.at(from + dice.below(timeout), Action::UserDestroy { vm });
    plan.faults_end = from + 200 * SECOND;
}

/// A live migration to a host whose storage is so slow that its claim is not on disk at the switch-over; then the source fails. (Without
/// libvirt's hook, which would hold the migration until then.)
pub(super) fn late_claim(plan: &mut Plan, dice: &mut Dice, calm: u64) {
    plan.stage(dice, 3);
    plan.setup.hook = false;
    plan.setup.image_lock = false;
    let (from, vm) = plan.secondary_with_vm(dice);
    let primary = plan.primary();
    let others = plan.setup.hosts.iter().map(|host| host.id.clone());
    let others: Vec<HostId> = others.filter(|id| *id != from && *id != primary).collect();
    let Some(to) = dice.pick(&others).cloned() else { return };
    let datastore = plan.home_of(&vm);
    let (at, lasts) = (calm + dice.below(5 * SECOND), 60 * SECOND);
    let of = Some(to.clone());
    // Slow as 6,000 times: about as long as the longest operation that is simulated.
    let factor = dice.between(2_000, 8_000);
    let begin = Action::DatastoreSlow { datastore: datastore.clone(), host: of.clone(), factor };
    plan.both((at, at + lasts), begin, Action::DatastoreHeal { datastore, host: of });
    let (begins, takes, handover) = (at + 3 * SECOND, dice.between(300, 1_500), dice.between(10, 100));
    let migrate = Action::UserMigrate {
        vm,
        to,
        takes_ms: Some(takes),
        handover_ms: Some(handover),
        undefine_source: None,
    };
    plan.at(begins, migrate);
    let switch = begins + takes * 1_000;
    plan.at(switch.saturating_sub(SECOND / 10) + dice.below(SECOND), Action::PowerOff { host: from });
    plan.faults_end = at + lasts;
}

/// A host fails and boots again, and its libvirtd starts the definitions that it finds before the agent is there.
pub(super) fn autostarted(plan: &mut Plan, dice: &mut Dice, calm: u64) {
    plan.stage(dice, 3);
    let timeout = plan.setup.timing.failure_timeout.0;
    let (host, vm) = plan.secondary_with_vm(dice);
    if let Some(vm) = plan.setup.vm(&vm) {
        plan.setup.vms[vm].transient = false;
    }
    let off = calm + dice.below(5 * SECOND);
    let on = off + dice.between(timeout, timeout + 40 * SECOND);
    plan.both((off, on), Action::PowerOff { host: host.clone() }, Action::PowerOn { host: host.clone() });
    plan.at(on + dice.between(SECOND / 2, 3 * SECOND), Action::Autostart { vm, host });
    plan.faults_end = on + 90 * SECOND;
}
