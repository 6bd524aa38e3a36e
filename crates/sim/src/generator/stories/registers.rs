//! Stories about registers that other hands than their writers' touch.

use super::{Plan, SECOND};
use crate::action::{Action, HostRegister};
use crate::dice::Dice;
use mainstay_core::DatastoreName;

const ALL: [HostRegister; 3] = [HostRegister::Heartbeat, HostRegister::PowerOn, HostRegister::Ownership];

fn one(dice: &mut Dice) -> HostRegister {
    dice.pick(&ALL).copied().unwrap_or(HostRegister::Heartbeat)
}

/// Registers of any kind are destroyed shortly before or after a host fails, an agent restarts, or a VM stops.
pub(super) fn destroyed(plan: &mut Plan, dice: &mut Dice, calm: u64) {
    plan.stage(dice, 3);
    let at = calm + 3 * SECOND + dice.below(10 * SECOND);
    let lasts = dice.between(SECOND, 40 * SECOND);
    let host = if dice.permille(600) { plan.primary() } else { plan.host(dice) };
    match dice.below(4) {
        0 | 1 => plan.at(at, Action::PowerOff { host: host.clone() }),
        2 => plan.both(
            (at, at + lasts),
            Action::AgentKill { host: host.clone() },
            Action::agent_start(host.clone()),
        ),
        _ => {
            let vm = plan.vm(dice);
            plan.at(at, Action::QemuKill { vm });
        }
    }
    for _ in 0..dice.between(1, 3) {
        let of = if dice.permille(700) { host.clone() } else { plan.host(dice) };
        let (datastore, register) = (plan.datastore(dice), one(dice));
        let at = at.saturating_sub(2 * SECOND) + dice.below(6 * SECOND);
        plan.at(at, Action::RegisterDestroy { datastore, host: of, register });
    }
    plan.faults_end = at + 60 * SECOND;
}

/// Registers are removed by hand while all is well: one, some, or the whole folder.
pub(super) fn removed(plan: &mut Plan, dice: &mut Dice, calm: u64) {
    plan.stage(dice, 3);
    let at = calm + 10 * SECOND + dice.below(10 * SECOND);
    let datastore = plan.datastore(dice);
    match dice.below(3) {
        0 => folder(plan, at, &datastore),
        1 => plan.at(at, Action::ListForget { datastore }),
        _ => {
            for _ in 0..dice.between(1, 3) {
                let (host, register, datastore) = (plan.host(dice), one(dice), datastore.clone());
                plan.at(at + dice.below(SECOND), Action::RegisterForget { datastore, host, register });
            }
        }
    }
    something_after(plan, dice, at);
    plan.faults_end = at + 90 * SECOND;
}

fn folder(plan: &mut Plan, at: u64, datastore: &DatastoreName) {
    plan.at(at, Action::ListForget { datastore: datastore.clone() });
    for host in plan.setup.hosts.iter().map(|host| host.id.clone()).collect::<Vec<_>>() {
        for register in ALL {
            plan.at(
                at,
                Action::RegisterForget { datastore: datastore.clone(), host: host.clone(), register },
            );
        }
    }
}

/// In half of the runs, the owner's agent or its host goes just after it.
fn something_after(plan: &mut Plan, dice: &mut Dice, at: u64) {
    let (host, soon) = (plan.primary(), at + dice.below(3 * SECOND));
    let lasts = dice.between(SECOND, 20 * SECOND);
    match dice.below(4) {
        0 => plan.at(soon, Action::PowerOff { host }),
        1 => plan.both(
            (soon, soon + lasts),
            Action::AgentKill { host: host.clone() },
            Action::agent_start(host),
        ),
        _ => {}
    }
}

/// A share is restored to what it was some time ago, and VMs have moved, stopped or failed over since.
pub(super) fn rolled_back(plan: &mut Plan, dice: &mut Dice, calm: u64) {
    plan.stage(dice, 3);
    let at = calm + 5 * SECOND;
    let (host, vm) = plan.secondary_with_vm(dice);
    let datastore = plan.home_of(&vm);
    plan.at(at, Action::DatastoreSnapshot { datastore: datastore.clone() });
    let since = at + dice.between(2 * SECOND, 10 * SECOND);
    match dice.below(4) {
        0 | 1 => {
            let others = plan.setup.hosts.iter().map(|host| host.id.clone()).filter(|id| *id != host);
            let others: Vec<_> = others.collect();
            let Some(to) = dice.pick(&others).cloned() else { return };
            plan.at(since, super::super::migrate(vm, to, Some(500)));
        }
        2 => plan.at(since, Action::UserShutdown { vm }),
        _ => plan.both(
            (since, since + 40 * SECOND),
            Action::PowerOff { host: host.clone() },
            Action::PowerOn { host },
        ),
    }
    let restored = since + dice.between(15 * SECOND, 60 * SECOND);
    plan.at(restored, Action::DatastoreRestore { datastore });
    something_after(plan, dice, restored);
    plan.faults_end = restored + 90 * SECOND;
}

/// A VM is shut down in a later epoch than the first; the newest list is destroyed; then its owner fails.
pub(super) fn list_destroyed(plan: &mut Plan, dice: &mut Dice, calm: u64) {
    plan.stage(dice, 3);
    let owner = plan.primary();
    let (second, vm) = plan.secondary_with_vm(dice);
    let datastore = plan.home_of(&vm);
    let agent = (calm, calm + 15 * SECOND);
    plan.both(agent, Action::AgentKill { host: owner.clone() }, Action::agent_start(owner.clone()));
    let stopped = calm + 40 * SECOND + dice.below(10 * SECOND);
    plan.at(stopped, Action::UserShutdown { vm });
    let destroyed = stopped + dice.between(5 * SECOND, 40 * SECOND);
    plan.at(destroyed, Action::ListDestroy { datastore });
    let third = plan.setup.hosts.iter().map(|host| host.id.clone()).find(|id| *id != owner && *id != second);
    let soon = destroyed + dice.below(SECOND);
    // The owner in the later epoch may be any of those two.
    for host in [Some(owner), third].into_iter().flatten() {
        plan.at(soon, Action::PowerOff { host });
    }
    plan.faults_end = destroyed + 90 * SECOND;
}
