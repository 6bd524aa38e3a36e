//! What people ask of the primary, and when they are answered: when it is on disk (R70).
//!
//! A command is checked and tried at once. What can't be done is refused with the reason; what could be done waits here
//! until the disk has it.
//!
//! Invariant: "done" is answered only when what was asked is on disk. When this host can't bring it there any more, the answer
//! says so, and settings that were not acknowledged are forgotten.

mod admission;
mod asked;
mod maintenance;
mod rules;
mod settings;
mod starting;
mod suspending;
mod vms;

use crate::command::Command;
use crate::datastores::Datastores;
use crate::desk::Desk;
use crate::effect::Effect;
use crate::out::Out;
use crate::time::Time;
use alloc::string::String;
use alloc::vec::Vec;
use asked::{Asked, Until};
use serde::{Deserialize, Serialize};

/// A request that is answered when it is on disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Pending {
    request: u64,
    command: Command,
    until: Until,
    answer: String,
}

/// The requests that are not answered yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Commands {
    pending: Vec<Pending>,
}

impl Commands {
    /// Nobody waits for an answer.
    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// Tries it now; the answer comes when it is on disk.
    pub(crate) fn on_operator(
        &mut self,
        request: u64,
        command: Command,
        is_primary: bool,
        desk: &mut Desk<'_>,
        out: &mut Out<'_>,
    ) {
        let asked = if is_primary {
            try_command(desk, &command, out)
        } else {
            Err(alloc::format!("{} is not the primary: ask the primary", desk.config.me))
        };
        match asked {
            Ok(Asked::Later(until, answer)) => {
                self.pending.push(Pending { request, command, until, answer });
                desk.datastores.want_reviews();
            }
            Ok(Asked::Now(answer)) => {
                out.effects.push(Effect::Reply { request, command, result: Ok(answer) });
            }
            Err(error) => out.effects.push(Effect::Reply { request, command, result: Err(error) }),
        }
    }

    /// Answers what is on disk by now, or will never be.
    pub(crate) fn answer(&mut self, desk: &mut Desk<'_>, out: &mut Out<'_>) {
        for pending in core::mem::take(&mut self.pending) {
            let result = match is_done(desk.datastores, &pending.until, out.now) {
                Some(true) => Ok(pending.answer),
                Some(false) => {
                    self.pending.push(pending);
                    continue;
                }
                None => {
                    if matches!(pending.until, Until::Settings(_)) {
                        // R70: what was not acknowledged must not come back later.
                        desk.settings.forget_own(desk.datastores);
                    }
                    Err(String::from("the ownership was lost before it was on disk: ask again"))
                }
            };
            out.effects.push(Effect::Reply { request: pending.request, command: pending.command, result });
        }
    }
}

/// Whether it is on disk. `None`: this host can't bring it there any more.
fn is_done(datastores: &Datastores, until: &Until, now: Time) -> Option<bool> {
    let lists = || datastores.owned_lists(now);
    match until {
        Until::Vm(name, vm) => {
            let datastore = datastores.owned(now).find(|datastore| datastore.name() == name)?;
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

fn try_command(desk: &mut Desk<'_>, command: &Command, out: &mut Out<'_>) -> Result<Asked, String> {
    match command {
        Command::Protect { vm } => vms::protect(desk, vm, out),
        Command::Unprotect { vm } => vms::unprotect(desk, vm, out),
        Command::SetIsolation { vm, response, shutdown_timeout } => {
            vms::set_isolation(desk, vm, *response, *shutdown_timeout, out.now)
        }
        Command::SetPriority { vm, priority } => settings::set_priority(desk, vm, *priority, out),
        Command::SetReadiness { vm, readiness } => settings::set_readiness(desk, vm, readiness.as_ref(), out),
        Command::SetRule { name, strength, kind, vms, hosts } => {
            let wanted = rules::Wanted { strength: *strength, kind: *kind, vms, hosts };
            rules::set(desk, name, wanted, out)
        }
        Command::RemoveRule { name } => rules::remove(desk, name, out),
        Command::SetGroup { name, vms, waits_for } => settings::set_group(desk, name, vms, waits_for, out),
        Command::RemoveGroup { name } => settings::remove_group(desk, name, out),
        Command::SetAdmission { admission } => admission::set(desk, admission, out),
        Command::SetFailoverHost { host, keep } => admission::set_failover_host(desk, host, *keep, out),
        Command::EnterMaintenance { host, how, force } => maintenance::enter(desk, host, *how, *force, out),
        Command::LeaveMaintenance { host, bring_back } => maintenance::leave(desk, host, *bring_back, out),
        Command::Suspend { length } => suspending::suspend(desk, *length, out),
        Command::Resume => suspending::resume(desk, out),
        Command::ConfirmDown { host } => suspending::confirm_down(desk, host, out),
        Command::AdmitStart { host, vm, name, spec, datastore, arrives } => {
            let start = starting::Start { host, vm: *vm, name, spec, datastore, arrives: *arrives };
            let warning = starting::admit(&desk.cluster(), &start, out.now)?;
            Ok(Asked::Now(warning.unwrap_or_default()))
        }
    }
}
