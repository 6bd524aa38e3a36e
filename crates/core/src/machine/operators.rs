//! What people ask of an owner, and when they are answered: when it is on disk.

use super::*;

/// When a request is answered.
pub(super) enum Asked {
    /// At once.
    Now(String),
    /// When that is on disk.
    Later(Until, String),
}

impl Core {
    /// Tries it now; the answer comes when it is on disk.
    pub(super) fn on_operator(&mut self, request: u64, command: Command, out: &mut Out<'_>) {
        let asked = if self.election.is_primary() {
            self.try_command(&command, out)
        } else {
            Err(alloc::format!("{} is not the primary: ask the primary", self.config.me))
        };
        match asked {
            Ok(Asked::Later(until, answer)) => {
                self.pending.push(Pending { request, command, until, answer });
                for datastore in self.datastores.values_mut() {
                    datastore.want_review();
                }
            }
            Ok(Asked::Now(answer)) => {
                out.effects.push(Effect::Reply { request, command, result: Ok(answer) });
            }
            Err(error) => out.effects.push(Effect::Reply { request, command, result: Err(error) }),
        }
    }

    fn try_command(&mut self, command: &Command, out: &mut Out<'_>) -> Result<Asked, String> {
        match command {
            Command::Protect { vm } | Command::Unprotect { vm } | Command::SetIsolation { vm, .. } => {
                self.try_vm_command(command, vm, out)
            }
            Command::SetPriority { vm, priority } => {
                let said = |vm: &str| match priority {
                    Some(priority) => alloc::format!("{vm}: restart priority {priority}"),
                    None => alloc::format!("{vm}: restart priority as its domain XML says"),
                };
                self.set_vm(vm, said, out, |settings| settings.priority = *priority)
            }
            Command::SetReadiness { vm, readiness } => {
                let wanted = readiness.clone();
                let unheard = self.agent_unheard(vm, readiness.as_ref());
                let said = |vm: &str| {
                    alloc::format!("{vm}: ready when {}{unheard}", readiness.clone().unwrap_or_default())
                };
                self.set_vm(vm, said, out, |settings| settings.readiness = wanted)
            }
            Command::SetRule { name, strength, kind, vms, hosts } => {
                self.set_rule(name, *strength, *kind, vms, hosts, out)
            }
            Command::RemoveRule { name } => {
                if !self.settings.rules.contains_key(name) {
                    return Err(alloc::format!("there is no rule {name}"));
                }
                let answer = alloc::format!("rule {name} is removed");
                self.change_settings(answer, out, |settings| drop(settings.rules.remove(name)))
            }
            Command::SetGroup { name, vms, waits_for } => self.set_group(name, vms, waits_for, out),
            Command::RemoveGroup { name } => self.remove_group(name, out),
            Command::SetAdmission { admission } => self.set_admission(admission, out),
            Command::SetFailoverHost { host, keep } => self.set_failover_host(host, *keep, out),
            Command::EnterMaintenance { host, how, force } => self.enter_maintenance(host, *how, *force, out),
            Command::LeaveMaintenance { host, bring_back } => self.leave_maintenance(host, *bring_back, out),
            Command::Suspend { length } => self.suspend(*length, out),
            Command::Resume => self.resume(out),
            Command::ConfirmDown { host } => self.confirm_down(host, out),
            Command::AdmitStart { host, vm, name, spec, datastore, arrives } => {
                let warning = self.admit_start(host, *arrives, (*vm, name), spec, datastore, out.now)?;
                Ok(Asked::Now(warning.unwrap_or_default()))
            }
        }
    }

    fn try_vm_command(
        &mut self,
        command: &Command,
        wanted: &str,
        out: &mut Out<'_>,
    ) -> Result<Asked, String> {
        let owned =
            self.datastores.iter().filter(|(_, datastore)| datastore.ownership().epoch(out.now).is_some());
        let mut found =
            owned.filter_map(|(name, datastore)| Some((name.clone(), datastore.list()?.find(wanted)?)));
        let Some((name, vm)) = found.next() else {
            if let Some(reason) = self.vms.why_not(wanted) {
                return Err(alloc::format!("{wanted} can't be protected: {reason}"));
            }
            return Err(alloc::format!(
                "no VM called {wanted} is known on a datastore that {} owns",
                self.config.me
            ));
        };
        let warning = match command {
            Command::Protect { .. } => self.admit_protection(vm, out.now)?,
            _ => None,
        };
        let Some(list) = self.datastores.get_mut(&name).and_then(|datastore| datastore.list_mut()) else {
            return Err(String::from("the ownership was lost: ask again"));
        };
        let mut answer = match command {
            Command::Protect { .. } => list.set_unprotected(vm, false, out)?,
            Command::Unprotect { .. } => list.set_unprotected(vm, true, out)?,
            Command::SetIsolation { response, shutdown_timeout, .. } => {
                list.set_isolation(vm, *response, *shutdown_timeout)?
            }
            _ => return Err(String::from("not about a VM")),
        };
        if let Some(warning) = warning {
            answer.push_str(&alloc::format!("; warning: {warning}"));
        }
        Ok(Asked::Later(Until::Vm(name, vm), answer))
    }

    pub(super) fn answer_operators(&mut self, out: &mut Out<'_>) {
        let pending = core::mem::take(&mut self.pending);
        for pending in pending {
            match self.is_done(&pending.until, out.now) {
                Some(true) => {
                    let (request, command) = (pending.request, pending.command);
                    out.effects.push(Effect::Reply { request, command, result: Ok(pending.answer) });
                }
                Some(false) => self.pending.push(pending),
                None => {
                    if matches!(pending.until, Until::Settings(_)) {
                        // R70: what was not acknowledged must not come back later.
                        self.forget_own_settings();
                    }
                    let (request, command) = (pending.request, pending.command);
                    let result = Err(String::from("the ownership was lost before it was on disk: ask again"));
                    out.effects.push(Effect::Reply { request, command, result });
                }
            }
        }
    }

    /// Whether it is on disk. `None`: this host can't bring it there any more.
    fn is_done(&self, until: &Until, now: Time) -> Option<bool> {
        let owned = |datastore: &&Datastore| datastore.ownership().epoch(now).is_some();
        let lists = || self.datastores.values().filter(owned).filter_map(|datastore| datastore.list());
        match until {
            Until::Vm(name, vm) => {
                let datastore = self.datastores.get(name).filter(owned)?;
                Some(datastore.list()?.is_settled(*vm))
            }
            Until::Settings(revision) => {
                lists().next()?;
                Some(lists().all(|list| list.has_written(*revision)))
            }
            Until::Suspension => {
                lists().next()?;
                Some(lists().all(|list| list.suspension().is_written()))
            }
        }
    }
}
