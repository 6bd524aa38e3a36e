//! Live migration between fakes.

use std::sync::Arc;

use super::{Daemon, FakeDomain, FakeHypervisor, State, locked};
use crate::clock;
use crate::domain::DomainUuid;
use crate::error::OpError;
use crate::event::{Event, Op, OpOutput};
use crate::stop_cause::StopCause;

impl FakeHypervisor {
    /// Makes another fake reachable under a URI, as a destination of migrations.
    pub fn reaches(&self, uri: &str, destination: &FakeHypervisor) {
        self.state().destinations.insert(uri.to_owned(), Arc::clone(&destination.state));
    }

    /// Never holds the locks of both: two fakes may migrate to each other at once.
    pub(super) fn migrate(&self, op: &Op, uuid: DomainUuid, uri: &str) -> Result<OpOutput, OpError> {
        let destination = {
            let mut source = self.state();
            source.admit(op)?;
            let domain = source.domains.get(&uuid).ok_or(OpError::NoSuchDomain { uuid })?;
            if !domain.state.is_active() {
                return Err(OpError::WrongState { message: "it is shut off".into() });
            }
            source.destinations.get(uri).map(Arc::clone).ok_or_else(|| unreachable(uri))?
        };
        if Arc::ptr_eq(&destination, &self.state) {
            let message = "Attempt to migrate guest to the same host".into();
            return Err(OpError::Other { message });
        }
        if locked(&destination).daemon != Daemon::Answers {
            return Err(unreachable(uri));
        }
        if locked(&destination).domains.get(&uuid).is_some_and(|there| there.state.is_active()) {
            return Err(OpError::Conflict {
                message: "the domain is already active on the destination".into(),
            });
        }
        let Some(leaving) = self.state().leave(uuid) else { return Err(OpError::NoSuchDomain { uuid }) };
        let arrived = locked(&destination).arrive(uuid, leaving);
        let mut source = self.state();
        match arrived {
            Ok(name) => {
                source.tell(Event::Stopped { uuid, name: name.clone(), cause: StopCause::Migrated });
                source.tell(Event::Removed { as_of: clock::now(), uuid, name });
                Ok(OpOutput::Done)
            }
            Err((leaving, error)) => {
                source.storage.take(&leaving.images(), &source.host.hostname)?;
                source.domains.insert(uuid, *leaving);
                Err(error)
            }
        }
    }
}

fn unreachable(uri: &str) -> OpError {
    OpError::DestinationUnreachable { uri: uri.to_owned(), message: "unable to connect to server".into() }
}

impl State {
    /// Takes the domain, and its image locks, away.
    fn leave(&mut self, uuid: DomainUuid) -> Option<Box<FakeDomain>> {
        let domain = self.domains.remove(&uuid)?;
        domain.images().iter().for_each(|path| self.storage.unlock(path));
        Some(Box::new(domain))
    }

    /// Takes the domain in, under a process of this host; gives it back when it can't.
    fn arrive(
        &mut self,
        uuid: DomainUuid,
        mut domain: Box<FakeDomain>,
    ) -> Result<String, (Box<FakeDomain>, OpError)> {
        if let Err(error) = self.storage.take(&domain.images(), &self.host.hostname) {
            return Err((domain, error));
        }
        let name = domain.spec.name.clone();
        self.next_pid += 1;
        domain.pid = Some(self.next_pid);
        domain.autostart = false;
        self.domains.insert(uuid, *domain);
        self.changed(uuid);
        Ok(name)
    }
}
