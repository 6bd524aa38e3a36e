//! What people want of a cluster while faults happen to it: priorities, rules, groups, maintenance, suspensions; and what makes
//! placement hard: hosts with little memory, guests with agents. Drawn from a stream of its own, in a part of the seeds: the others are
//! the worlds that they would be without.

use super::{Plan, SECOND};
use crate::action::Action;
use crate::dice::Dice;
use mainstay_core::register::Priority;
use mainstay_core::settings::{Evacuation, Readiness, ReadyWhen, RuleKind, Strength};
use mainstay_core::{Command, HostId, Span};
use std::sync::Arc;

/// The kinds of wishes that a run may have on.
const KINDS: u64 = 6;

/// A suspension is over, and whatever it leaves behind, well within the time in which everything has to be well.
const SUSPENDED_MAX: u64 = 120;

impl Plan {
    /// Adds what people want.
    pub(super) fn draw_wishes(&mut self, seed: u64, calm: u64) {
        let mut dice = Dice::seeded(seed, 3);
        if !dice.permille(450) {
            return;
        }
        self.draw_guests(&mut dice);
        if dice.permille(300) {
            self.draw_little_memory(&mut dice);
        }
        let kinds: Vec<u64> = (0..KINDS).filter(|_| dice.permille(450)).collect();
        for kind in kinds {
            for _ in 0..dice.between(1, 2) {
                let at = dice.between(calm, self.faults_end.max(calm + 1));
                self.draw_wish(&mut dice, kind, at);
            }
        }
    }

    fn draw_guests(&mut self, dice: &mut Dice) {
        for vm in &mut self.setup.vms {
            if dice.permille(400) {
                vm.agent_after = Some(dice.between(SECOND, 40 * SECOND));
            }
        }
    }

    /// Just enough for what runs there at first, and perhaps a little more.
    fn draw_little_memory(&mut self, dice: &mut Dice) {
        for host in 0..self.setup.hosts.len() {
            let used: u64 = self.setup.vms.iter().filter(|vm| vm.host == host).map(|vm| vm.memory_mib).sum();
            self.setup.hosts[host].memory_mib = used.max(256) + dice.below(12) * 512;
        }
    }

    fn ask(&mut self, at: u64, command: Command) {
        self.schedule.push((at, Action::Command { command }));
    }

    fn some_vms(&self, dice: &mut Dice, permille: u64) -> Vec<String> {
        let all = self.setup.vms.iter().map(|vm| vm.name.to_string());
        all.filter(|_| dice.permille(permille)).collect()
    }

    fn some_hosts(&self, dice: &mut Dice) -> Vec<HostId> {
        let all = self.setup.hosts.iter().map(|host| host.id.clone());
        all.filter(|_| dice.permille(500)).collect()
    }

    fn draw_wish(&mut self, dice: &mut Dice, kind: u64, at: u64) {
        match kind {
            0 => {
                let all =
                    [Priority::Lowest, Priority::Low, Priority::Medium, Priority::High, Priority::Highest];
                let (vm, priority) = (self.vm(dice), dice.pick(&all).copied());
                self.ask(at, Command::SetPriority { vm, priority });
            }
            1 => self.draw_rule(dice, at),
            2 => self.draw_order(dice, at),
            3 => self.draw_maintenance(dice, at),
            4 => {
                let length = Span::from_secs(dice.between(3, SUSPENDED_MAX));
                self.ask(at, Command::Suspend { length });
                if dice.permille(500) {
                    self.ask(at + dice.below(40 * SECOND), Command::Resume);
                }
            }
            _ => {
                let vm = self.vm(dice);
                self.schedule.push((at, Action::GuestAgentRemove { vm }));
                let host = self.host(dice);
                self.ask(at, Command::SetFailoverHost { host, keep: true });
            }
        }
    }

    fn draw_rule(&mut self, dice: &mut Dice, at: u64) {
        let kinds = [RuleKind::OnHosts, RuleKind::NotOnHosts, RuleKind::Apart, RuleKind::Together];
        let kind = dice.pick(&kinds).copied().unwrap_or(RuleKind::Apart);
        let strength = if dice.permille(600) { Strength::Must } else { Strength::Should };
        let (vms, hosts) = (self.some_vms(dice, 500), self.some_hosts(dice));
        let name: Arc<str> = format!("rule{}", dice.below(3)).into();
        self.ask(at, Command::SetRule { name: name.clone(), strength, kind, vms, hosts });
        if dice.permille(300) {
            self.ask(at + dice.below(30 * SECOND), Command::RemoveRule { name });
        }
    }

    fn draw_order(&mut self, dice: &mut Dice, at: u64) {
        let all = [ReadyWhen::Started, ReadyWhen::Running, ReadyWhen::AgentAnswers];
        for vm in self.some_vms(dice, 400) {
            let when = dice.pick(&all).copied().unwrap_or_default();
            let delay = Span::from_secs(dice.below(6));
            let timeout = Span::from_secs(dice.between(3, 30));
            let readiness = Some(Readiness { when, command: None, delay, timeout });
            self.ask(at, Command::SetReadiness { vm, readiness });
        }
        let (first, then) = (self.some_vms(dice, 400), self.some_vms(dice, 400));
        let then = then.into_iter().filter(|vm| !first.contains(vm)).collect();
        let (one, two): (Arc<str>, Arc<str>) = ("one".into(), "two".into());
        self.ask(at, Command::SetGroup { name: one.clone(), vms: first, waits_for: Vec::new() });
        self.ask(at + SECOND, Command::SetGroup { name: two, vms: then, waits_for: vec![one] });
    }

    fn draw_maintenance(&mut self, dice: &mut Dice, at: u64) {
        let host = self.host(dice);
        let how = if dice.permille(700) { Evacuation::Migrate } else { Evacuation::ShutDown };
        let force = dice.permille(700);
        self.ask(at, Command::EnterMaintenance { host: host.clone(), how, force });
        if dice.permille(500) {
            let bring_back = dice.permille(500);
            let at = at + dice.below(40 * SECOND);
            self.ask(at, Command::LeaveMaintenance { host, bring_back });
        }
    }
}
