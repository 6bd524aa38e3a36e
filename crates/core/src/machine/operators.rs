//! What people ask of an owner, and when they are answered: when it is on disk.

use super::*;

impl Core {
    pub(super) fn on_operator(&mut self, request: u64, command: Command, out: &mut Out<'_>) {
        let result = self.try_command(&command, out);
        match result {
            Ok((datastore, vm, answer)) => {
                self.pending.push(Pending { request, command, datastore, vm, answer });
                for datastore in self.datastores.values_mut() {
                    datastore.review_wanted = true;
                }
            }
            Err(error) => out.effects.push(Effect::Reply { request, command, result: Err(error) }),
        }
    }

    fn try_command(
        &mut self,
        command: &Command,
        out: &mut Out<'_>,
    ) -> Result<(DatastoreName, crate::ids::VmId, String), String> {
        let (Command::Protect { vm: wanted }
        | Command::Unprotect { vm: wanted }
        | Command::SetIsolation { vm: wanted, .. }) = command;
        if !self.election.is_primary() {
            return Err(alloc::format!("{} is not the primary: ask the primary", self.config.me));
        }
        for (name, datastore) in &mut self.datastores {
            let owned = datastore.ownership.epoch(out.now).is_some();
            let Some(list) = datastore.list.as_mut().filter(|_| owned) else { continue };
            if let Some(vm) = list.find(wanted) {
                let answer = match command {
                    Command::Protect { .. } => list.set_unprotected(vm, false, out)?,
                    Command::Unprotect { .. } => list.set_unprotected(vm, true, out)?,
                    Command::SetIsolation { response, shutdown_timeout, .. } => {
                        list.set_isolation(vm, *response, *shutdown_timeout)?
                    }
                };
                return Ok((name.clone(), vm, answer));
            }
        }
        if let Some(reason) = self.vms.why_not(wanted) {
            return Err(alloc::format!("{wanted} can't be protected: {reason}"));
        }
        Err(alloc::format!("no VM called {wanted} is known on a datastore that {} owns", self.config.me))
    }

    pub(super) fn answer_operators(&mut self, out: &mut Out<'_>) {
        let (datastores, now) = (&self.datastores, out.now);
        self.pending.retain(|pending| {
            let datastore = datastores
                .get(&pending.datastore)
                .filter(|datastore| datastore.ownership.epoch(now).is_some());
            let list = datastore.and_then(|datastore| datastore.list.as_ref());
            let result = match list {
                None => Err(String::from("the ownership was lost before it was on disk: ask again")),
                Some(list) if list.is_settled(pending.vm) => Ok(pending.answer.clone()),
                Some(_) => return true,
            };
            let (request, command) = (pending.request, pending.command.clone());
            out.effects.push(Effect::Reply { request, command, result });
            false
        });
    }
}
