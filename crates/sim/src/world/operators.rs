//! What people ask of the cluster, what they are answered, and how it is all undone when a world is healed.

use super::World;
use super::queue::Happening;
use crate::action::Action;
use crate::checkers::user_word::Protection;
use mainstay_core::settings::Evacuation;
use mainstay_core::view::Role;
use mainstay_core::{Command, HostId, Input};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A request that was answered.
#[derive(Clone, Debug)]
pub struct Answered {
    /// When, in virtual microseconds.
    pub at: u64,
    /// What was asked.
    pub command: Command,
    /// What was said.
    pub result: Result<String, String>,
}

/// What people have asked for so far, whatever came of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    pub(super) answers: Vec<Answered>,
    maintenance: BTreeSet<HostId>,
    /// Hosts whose VMs were to be shut down, ever.
    shut_down: BTreeSet<usize>,
    rules: BTreeSet<Arc<str>>,
    suspended: bool,
}

impl Asked {
    /// Whether that host was to be emptied, ever.
    pub(super) fn in_maintenance(&self, host: &HostId) -> bool {
        self.maintenance.contains(host)
    }

    /// Whether that host was to be emptied by shutting its VMs down.
    pub(super) fn shuts_down(&self, host: usize) -> bool {
        self.shut_down.contains(&host)
    }
}

/// The word for a command in scenario files.
pub fn word_of(command: &Command) -> &'static str {
    match command {
        Command::Protect { .. } => "protect",
        Command::SetIsolation { .. } => "set_isolation",
        Command::Unprotect { .. } => "unprotect",
        Command::SetPriority { .. } => "set_priority",
        Command::SetReadiness { .. } => "set_ready",
        Command::SetRule { .. } => "set_rule",
        Command::RemoveRule { .. } => "remove_rule",
        Command::SetGroup { .. } => "set_group",
        Command::RemoveGroup { .. } => "remove_group",
        Command::SetAdmission { .. } => "set_admission",
        Command::SetFailoverHost { .. } => "set_failover_host",
        Command::EnterMaintenance { .. } => "maintenance_enter",
        Command::LeaveMaintenance { .. } => "maintenance_leave",
        Command::Suspend { .. } => "suspend",
        Command::Resume => "resume",
        Command::ConfirmDown { .. } => "confirm_down",
        Command::AdmitStart { .. } => "admit_start",
    }
}

/// Seconds after the healing at which people ask for everything to be undone: the first times there may be nobody to ask.
const UNDONE_AT: [u64; 6] = [2, 10, 20, 40, 60, 80];

impl World {
    /// The operator's request goes to the owner that has the VM, if there is one now.
    pub(super) fn operator(&mut self, name: &str, command: Command) {
        let Some(vm) = self.setup.vm(name) else { return };
        let Some((_, owner)) = self.record.checks.single_owner.owner(self.setup.vms[vm].datastore) else {
            return;
        };
        let Some(agent) = &self.hosts[owner].agent else { return };
        let (request, process) = (self.under_way.last_key + 1, agent.process);
        self.under_way.last_key = request;
        self.under_way.requests.insert(request, vm);
        let runs = self.executing(vm).next().is_some();
        self.record.checks.user_word.set_protection(vm, Protection::Unanswered, runs);
        let input = Input::Operator { request, command };
        self.queue.push(self.now, Happening::Deliver { host: owner, process, input });
    }

    /// A person's request about the cluster: the primary gets it, if there is one now.
    pub(super) fn command(&mut self, command: Command) {
        self.note_asked(&command);
        // Of several in as many partitions, the one that has most to decide.
        let owned = |host: &usize| {
            let view = self.view(*host).filter(|view| view.role == Role::Primary)?;
            Some(view.datastores.iter().filter(|store| store.ownership_left.is_some()).count())
        };
        let primary = (0..self.hosts.len()).filter(|host| owned(host).is_some()).max_by_key(owned);
        let Some(host) = primary else { return };
        let Some(agent) = &self.hosts[host].agent else { return };
        let (request, process) = (self.under_way.last_key + 1, agent.process);
        self.under_way.last_key = request;
        let input = Input::Operator { request, command };
        self.queue.push(self.now, Happening::Deliver { host, process, input });
    }

    fn note_asked(&mut self, command: &Command) {
        match command {
            Command::EnterMaintenance { host, how, .. } => {
                self.asked.maintenance.insert(host.clone());
                if *how == Evacuation::ShutDown {
                    self.asked.shut_down.extend(self.setup.host(host));
                }
            }
            Command::SetRule { name, .. } => {
                self.asked.rules.insert(name.clone());
            }
            Command::Suspend { .. } => self.asked.suspended = true,
            Command::Protect { .. }
            | Command::SetIsolation { .. }
            | Command::Unprotect { .. }
            | Command::SetPriority { .. }
            | Command::SetReadiness { .. }
            | Command::RemoveRule { .. }
            | Command::SetGroup { .. }
            | Command::RemoveGroup { .. }
            | Command::SetAdmission { .. }
            | Command::SetFailoverHost { .. }
            | Command::LeaveMaintenance { .. }
            | Command::Resume
            | Command::ConfirmDown { .. }
            | Command::AdmitStart { .. } => {}
        }
    }

    /// In a healed world nothing that people have asked for keeps a VM from coming back.
    pub(super) fn undo_commands(&mut self) {
        let leave = |host: &HostId| Command::LeaveMaintenance { host: host.clone(), bring_back: false };
        let remove = |name: &Arc<str>| Command::RemoveRule { name: name.clone() };
        let resume = self.asked.suspended.then_some(Command::Resume);
        let maintenance = self.asked.maintenance.iter().map(leave);
        let undone: Vec<Command> =
            resume.into_iter().chain(maintenance).chain(self.asked.rules.iter().map(remove)).collect();
        for seconds in UNDONE_AT {
            for command in &undone {
                let at = self.now + seconds * 1_000_000;
                self.queue.push(at, Happening::Act(Action::Command { command: command.clone() }));
            }
        }
    }

    /// The owner has answered.
    pub(super) fn on_reply(&mut self, request: u64, command: Command, result: Result<String, String>) {
        let done = result.is_ok();
        let vm = self.under_way.requests.remove(&request);
        let protection = match &command {
            Command::Protect { .. } if done && vm.is_some() => {
                self.record.seen.saw("protected again by operator");
                Some(Protection::Yes)
            }
            Command::Unprotect { .. } if done && vm.is_some() => {
                self.record.seen.saw("unprotected by operator");
                Some(Protection::No)
            }
            _ => None,
        };
        self.asked.answers.push(Answered { at: self.now, command, result });
        let (Some(vm), Some(protection)) = (vm, protection) else { return };
        let runs = self.executing(vm).next().is_some();
        self.record.checks.user_word.set_protection(vm, protection, runs);
    }
}
