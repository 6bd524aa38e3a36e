//! Stories about VMs that wait, and about who says so.

use super::{Plan, SECOND};
use crate::action::Action;
use crate::dice::Dice;
use mainstay_core::register::Priority;
use mainstay_core::settings::{Evacuation, Readiness, ReadyWhen};
use mainstay_core::{Command, Span, Timing};

/// So long until somebody who looks would wonder that nobody says anything.
const LONG: u64 = 1_100 * SECOND;

/// A VM waits until one of higher priority is ready; meanwhile the last host that has room for it fails.
pub(super) fn wait_changes(plan: &mut Plan, dice: &mut Dice, calm: u64) {
    plan.stage(dice, 4);
    plan.setup.start_failure_permille = 0;
    plan.setup.hosts.truncate(4);
    plan.setup.hosts.sort_by(|a, b| a.id.as_str().cmp(b.id.as_str()));
    let mut vm = plan.setup.vms[0].clone();
    (vm.host, vm.memory_mib, vm.transient) = (0, 2_048, false);
    let answers = dice.between(20, 90) * SECOND;
    let mut high = vm.clone();
    (high.name, high.priority, high.agent_after) = ("high".into(), Priority::High, Some(answers));
    let mut low = vm;
    (low.name, low.priority, low.agent_after) = ("low".into(), Priority::Low, None);
    plan.setup.vms = vec![high, low];
    // Room for one of them on each of two hosts.
    for (host, memory) in [(1, 3_072), (2, 3_072), (3, 1_024)] {
        plan.setup.hosts[host].memory_mib = memory;
    }
    plan.schedule.clear();
    // By then the guest agent has answered.
    let ready = calm + answers + 10 * SECOND;
    let readiness = Some(Readiness {
        when: ReadyWhen::AgentAnswers,
        command: None,
        delay: Span::from_secs(0),
        timeout: Span::from_secs(600),
    });
    plan.command(ready, Command::SetReadiness { vm: "high".into(), readiness });
    let fails = ready + 5 * SECOND;
    plan.at(fails, Action::PowerOff { host: plan.setup.hosts[0].id.clone() });
    let second = dice.between(1, 2) as usize;
    let at = fails + dice.between(5 * SECOND, answers);
    plan.at(at, Action::PowerOff { host: plan.setup.hosts[second].id.clone() });
    plan.faults_end = at + LONG;
}

/// A host is in maintenance; a VM that no other host can take stays on it, and crashes there.
pub(super) fn crash_in_maintenance(plan: &mut Plan, dice: &mut Dice, calm: u64) {
    plan.stage(dice, 3);
    let (host, vm) = plan.secondary_with_vm(dice);
    if let Some(vm) = plan.setup.vm(&vm) {
        plan.setup.vms[vm].memory_mib = 8_192;
        let home = plan.setup.vms[vm].host;
        for other in (0..plan.setup.hosts.len()).filter(|other| *other != home) {
            plan.setup.hosts[other].memory_mib = 6_144;
        }
    }
    let enter = Command::EnterMaintenance { host, how: Evacuation::Migrate, force: true };
    plan.command(calm, enter);
    let at = calm + dice.between(20 * SECOND, 100 * SECOND);
    plan.at(at, Action::QemuKill { vm });
    plan.faults_end = at + 300 * SECOND;
}

/// A guest's agent answers no more after a failover, and that is an alarm. Then the primary changes.
pub(super) fn mute_guest(plan: &mut Plan, dice: &mut Dice, calm: u64) {
    plan.stage(dice, 3);
    plan.setup.start_failure_permille = 0;
    let (host, vm) = plan.secondary_with_vm(dice);
    if let Some(vm) = plan.setup.vm(&vm) {
        plan.setup.vms[vm].agent_after = Some(5 * SECOND);
    }
    plan.schedule.clear();
    plan.at(calm + 20 * SECOND, Action::GuestAgentRemove { vm });
    plan.at(calm + 25 * SECOND, Action::PowerOff { host });
    let at = calm + dice.between(1_300, 1_500) * SECOND;
    let owner = plan.primary();
    let lasts = dice.between(SECOND, 60 * SECOND);
    plan.both((at, at + lasts), Action::AgentKill { host: owner.clone() }, Action::agent_start(owner));
    plan.faults_end = at + 500 * SECOND;
}

/// Hosts have different times while these are being changed; one of them is in maintenance; the primary fails.
pub(super) fn mixed_times(plan: &mut Plan, dice: &mut Dice, calm: u64) {
    plan.stage(dice, 3);
    let presets = [Timing::STANDARD, Timing::PATIENT, Timing::SWIFT];
    for host in 0..plan.setup.hosts.len() {
        plan.setup.hosts[host].timing = dice.pick(&presets).copied();
    }
    let owner = plan.primary();
    let others = plan.setup.hosts.iter().map(|host| host.id.clone()).filter(|id| *id != owner);
    let others: Vec<_> = others.collect();
    let Some(host) = dice.pick(&others).cloned() else { return };
    if dice.permille(600) {
        let index = plan.setup.host(&host).unwrap_or(0);
        plan.setup.hosts[index].timing = Some(Timing::SWIFT);
    }
    let calm = calm.max(40 * SECOND);
    let enter = Command::EnterMaintenance { host, how: Evacuation::Migrate, force: true };
    plan.command(calm, enter);
    plan.at(calm + dice.between(20 * SECOND, 60 * SECOND), Action::PowerOff { host: owner });
    plan.faults_end = calm + 90 * SECOND;
}

/// Libvirtd hangs for long, and a QEMU of its host is killed meanwhile.
pub(super) fn killed_unseen(plan: &mut Plan, dice: &mut Dice, calm: u64) {
    plan.stage(dice, 3);
    let (host, vm) = plan.secondary_with_vm(dice);
    let from = calm + dice.below(5 * SECOND);
    let killed = from + dice.between(10 * SECOND, 100 * SECOND);
    let ends = killed + 300 * SECOND;
    plan.both((from, ends), Action::LibvirtHang { host: host.clone() }, Action::LibvirtUp { host });
    plan.at(killed, Action::QemuKill { vm });
}
