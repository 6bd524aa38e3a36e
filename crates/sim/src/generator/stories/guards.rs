//! Stories about guards, leases, slow storage and short isolations.

use super::{Plan, SECOND};
use crate::action::Action;
use crate::dice::Dice;
use mainstay_core::register::IsolationResponse;
use mainstay_core::settings::Evacuation;
use mainstay_core::{Command, HostId};

/// The guard of a host hangs, or can't be started, for minutes; everybody hears the host. Then its network is cut, and its storage is well.
pub(super) fn guard_away(plan: &mut Plan, dice: &mut Dice, calm: u64) {
    plan.stage(dice, 3);
    plan.setup.isolation_response = IsolationResponse::LeavePoweredOn;
    let (host, _) = plan.secondary_with_vm(dice);
    let from = calm + dice.below(5 * SECOND);
    let cut = from + dice.between(20 * SECOND, 300 * SECOND);
    let until = cut + dice.between(10 * SECOND, 60 * SECOND);
    let back = until + dice.below(20 * SECOND);
    plan.spare(&host);
    guard_goes(plan, dice, &host, (from, back));
    plan.cut_network(&host, (cut, until));
}

fn guard_goes(plan: &mut Plan, dice: &mut Dice, host: &HostId, span: (u64, u64)) {
    let host = host.clone();
    if dice.permille(500) {
        plan.both(span, Action::GuardHang { host: host.clone() }, Action::GuardResume { host });
    } else {
        plan.both(span, Action::GuardDown { host: host.clone() }, Action::GuardUp { host });
    }
}

/// Somebody stops agent and guard of a host, and its VMs go on. Minutes later its network is away for some seconds.
pub(super) fn both_away(plan: &mut Plan, dice: &mut Dice, calm: u64) {
    plan.stage(dice, 3);
    let timeout = plan.setup.timing.failure_timeout.0;
    let (host, _) = plan.secondary_with_vm(dice);
    let from = calm + dice.below(5 * SECOND);
    let cut = from + dice.between(10 * SECOND, 300 * SECOND);
    let until = cut + dice.between(timeout / 2, 3 * timeout + 10 * SECOND);
    let ends = until + dice.between(SECOND, 30 * SECOND);
    let first = dice.below(2 * SECOND);
    let (agent, guard) = if dice.permille(500) { (from, from + first) } else { (from + first, from) };
    let stop = if dice.permille(500) {
        Action::AgentStop { host: host.clone() }
    } else {
        Action::AgentKill { host: host.clone() }
    };
    plan.spare(&host);
    plan.both((agent, ends), stop, Action::agent_start(host.clone()));
    guard_goes(plan, dice, &host, (guard, ends));
    plan.cut_network(&host, (cut, until));
}

/// Each operation of the storage takes a second or more, for everybody; then the agent of the primary is restarted.
pub(super) fn slow_restart(plan: &mut Plan, dice: &mut Dice, calm: u64) {
    plan.stage(dice, 2);
    plan.setup.io_errors_permille = 0;
    plan.setup.loss_permille = 0;
    let lease = plan.setup.timing.lease.0;
    let disk = &mut plan.setup.latencies.disk;
    (disk.base, disk.spread, disk.tail_permille) = (1_000, 20, 0);
    let from = calm + dice.below(5 * SECOND);
    let until = from + dice.between(100 * SECOND, 200 * SECOND);
    let factor = dice.between(lease / 6_000, lease / 1_000);
    for datastore in plan.stores() {
        let begin = Action::DatastoreSlow { datastore: datastore.clone(), host: None, factor };
        plan.both((from, until), begin, Action::DatastoreHeal { datastore, host: None });
    }
    let host = plan.primary();
    let at = from + dice.between(40 * SECOND, 70 * SECOND);
    let lasts = dice.between(SECOND / 2, 2 * SECOND);
    plan.both((at, at + lasts), Action::AgentKill { host: host.clone() }, Action::agent_start(host));
}

/// The network of a host is away for some seconds, or comes and goes, and isolated hosts stop their VMs.
pub(super) fn short_cuts(plan: &mut Plan, dice: &mut Dice, calm: u64) {
    plan.stage(dice, 3);
    let responses = [IsolationResponse::ShutDown, IsolationResponse::PowerOff];
    plan.setup.isolation_response = dice.pick(&responses).copied().unwrap_or_default();
    let timeout = plan.setup.timing.failure_timeout.0;
    let (host, _) = plan.secondary_with_vm(dice);
    let from = calm + dice.below(5 * SECOND);
    if dice.permille(500) {
        let lasts = dice.between(timeout, 28 * SECOND);
        plan.cut_network(&host, (from, from + lasts));
        return;
    }
    // Away for a little longer than it is back: a port that flaps.
    let (away, back) = (dice.between(timeout / 8, timeout), dice.between(timeout / 10, timeout / 2));
    for time in 0..dice.between(5, 30) {
        let at = from + time * (away + back);
        plan.cut_network(&host, (at, at + away));
    }
}

/// A host is away for maintenance, and the storage answers nobody for some seconds.
pub(super) fn stall_while_away(plan: &mut Plan, dice: &mut Dice, calm: u64) {
    plan.stage(dice, 3);
    plan.setup.io_errors_permille = 0;
    plan.setup.start_failure_permille = 0;
    let timeout = plan.setup.timing.failure_timeout.0;
    let host = plan.host(dice);
    for vm in &mut plan.setup.vms {
        vm.memory_mib = 256;
    }
    let enter = Command::EnterMaintenance { host: host.clone(), how: Evacuation::Migrate, force: true };
    plan.command(calm, enter);
    let off = calm + 60 * SECOND;
    let stalls = off + 100 * SECOND + dice.below(20 * SECOND);
    let until = stalls + dice.between(timeout, 60 * SECOND);
    if dice.permille(700) {
        plan.both(
            (off, until + 20 * SECOND),
            Action::PowerOff { host: host.clone() },
            Action::PowerOn { host },
        );
    }
    for datastore in plan.stores() {
        let begin = Action::DatastoreHang { datastore: datastore.clone(), host: None };
        plan.both((stalls, until), begin, Action::DatastoreHeal { datastore, host: None });
    }
}
