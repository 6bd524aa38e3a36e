//! Guests' agents of the fake.

use super::{FakeHypervisor, State};
use crate::domain::{DomainState, DomainUuid};
use crate::error::OpError;
use crate::event::{GuestAnswer, GuestExit, OpOutput};
use crate::spec::Spec;

/// What a guest's agent does.
#[derive(Clone, Copy)]
pub(super) struct Guest {
    answer: GuestAnswer,
    exit: GuestExit,
}

impl Guest {
    /// One that is well, where the domain has a channel for it.
    pub(super) fn of(spec: &Spec) -> Guest {
        let answer = if spec.guest_agent { GuestAnswer::Answers } else { GuestAnswer::NoChannel };
        Guest { answer, exit: GuestExit::Code(0) }
    }
}

impl FakeHypervisor {
    /// What the guest's agent says from now on. At first it answers if the domain has a channel for it.
    pub fn guest_answers(&self, uuid: DomainUuid, answer: GuestAnswer) {
        if let Some(domain) = self.state().domains.get_mut(&uuid) {
            domain.guest.answer = answer;
        }
    }

    /// How commands in the guest end from now on. At first they succeed.
    pub fn guest_commands_end(&self, uuid: DomainUuid, exit: GuestExit) {
        if let Some(domain) = self.state().domains.get_mut(&uuid) {
            domain.guest.exit = exit;
        }
    }
}

impl State {
    fn guest(&self, uuid: DomainUuid) -> Result<Guest, OpError> {
        let domain = self.domains.get(&uuid).ok_or(OpError::NoSuchDomain { uuid })?;
        if domain.state != DomainState::Running {
            return Err(OpError::WrongState { message: "domain is not running".into() });
        }
        Ok(domain.guest)
    }

    pub(super) fn guest_ping(&self, uuid: DomainUuid) -> Result<OpOutput, OpError> {
        self.guest(uuid).map(|guest| OpOutput::Guest(guest.answer))
    }

    pub(super) fn guest_command(&self, uuid: DomainUuid) -> Result<OpOutput, OpError> {
        let guest = self.guest(uuid)?;
        match guest.answer {
            GuestAnswer::Answers => Ok(OpOutput::GuestEnded(guest.exit)),
            GuestAnswer::NoChannel => {
                Err(OpError::NoGuestAgent { message: "QEMU guest agent is not configured".into() })
            }
            GuestAnswer::Silent => {
                Err(OpError::NoGuestAgent { message: "QEMU guest agent is not connected".into() })
            }
        }
    }
}
