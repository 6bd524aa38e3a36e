//! What each operation does, in libvirt's calls.
//!
//! Runs on a pool thread. Between two calls it looks whether it was given up ([`Ticket`]): its caller has then been told
//! "outcome unknown" and may have decided otherwise, so nothing more is done, cleaning up included.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mainstay_words::VmId;
use virt::domain::Domain as Handle;
use virt_sys as sys;

use crate::clock;
use crate::domain::{DomainState, DomainUuid};
use crate::error::{CallFailure, OpError};
use crate::event::{Op, OpOutput};
use crate::libvirt::Connection;
use crate::offers;

pub(crate) mod guest;
pub(crate) mod migration;

/// Whether the caller still waits for an operation.
#[derive(Clone, Default)]
pub(crate) struct Ticket(Arc<AtomicBool>);

impl Ticket {
    pub(crate) fn give_up(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn check(&self) -> Result<(), OpError> {
        if self.0.load(Ordering::Acquire) { Err(OpError::TimedOut { seconds: 0 }) } else { Ok(()) }
    }
}

/// Carries out `op`, which is about `uuid`.
pub(crate) fn perform(
    connection: &Connection,
    op: &Op,
    uuid: DomainUuid,
    migrate_unsafe: bool,
    ticket: &Ticket,
) -> Result<OpOutput, OpError> {
    let act = Act { connection, uuid, ticket };
    match op {
        Op::StartPaused { xml } => act.start_paused(xml),
        Op::Resume { .. } => act.resume(),
        Op::Suspend { .. } => act.suspend(),
        Op::Shutdown { .. } => act.shut_down(),
        Op::Destroy { .. } => act.destroy(),
        Op::Undefine { .. } => act.undefine(),
        Op::SetAutostart { on, .. } => act.set_autostart(*on),
        Op::Read { .. } => act.read(),
        Op::HostOffers => offers::read(connection)
            .map(|offers| OpOutput::HostOffers(Box::new(offers)))
            .map_err(|failure| act.refused(failure)),
        Op::GuestPing { .. } => act.guest_ping(),
        Op::GuestCommand { path, args, timeout, .. } => act.guest_command(path, args, *timeout),
        Op::Migrate { destination_uri, data_uri, .. } => {
            act.migrate(destination_uri, data_uri.as_deref(), migrate_unsafe)
        }
    }
}

struct Act<'a> {
    connection: &'a Connection,
    uuid: DomainUuid,
    ticket: &'a Ticket,
}

impl Act<'_> {
    fn failed(&self, error: &virt::error::Error) -> OpError {
        self.connection.failure(error).into_op_error(self.uuid)
    }

    fn refused(&self, failure: CallFailure) -> OpError {
        failure.into_op_error(self.uuid)
    }

    /// The domain and its state.
    fn look(&self) -> Result<(Handle, DomainState), OpError> {
        let handle = self.connection.lookup(self.uuid).map_err(|failure| self.refused(failure))?;
        let state = self.connection.state(&handle).map_err(|failure| self.refused(failure))?;
        self.ticket.check()?;
        Ok((handle, state))
    }

    fn pid(&self) -> Option<u32> {
        mainstay_processes::find_qemu(VmId(self.uuid.0)).ok().flatten()
    }

    fn start_paused(&self, xml: &str) -> Result<OpOutput, OpError> {
        let before = match self.look() {
            Ok((_, state)) if state.is_active() => {
                return Ok(OpOutput::AlreadyActive { uuid: self.uuid, pid: self.pid() });
            }
            Ok((handle, _)) => Some(self.definition(&handle)?),
            Err(OpError::NoSuchDomain { .. }) => None,
            Err(error) => return Err(error),
        };
        self.ticket.check()?;
        let handle =
            Handle::define_xml(self.connection.connect(), xml).map_err(|error| self.failed(&error))?;
        let outcome = self.ticket.check().and_then(|()| self.start_defined(&handle, before.is_none()));
        match outcome {
            Err(ref error) if !error.outcome_unknown() => self.put_back(&handle, before.as_deref()),
            Ok(_) | Err(_) => {}
        }
        outcome
    }

    /// The definition as it is now, to put it back.
    fn definition(&self, handle: &Handle) -> Result<String, OpError> {
        // Starting would continue from the saved memory, on disks that may have changed since on another host.
        if handle.has_managed_save(0).map_err(|error| self.failed(&error))? {
            return Err(OpError::SavedState { uuid: self.uuid });
        }
        handle
            .get_xml_desc(sys::VIR_DOMAIN_XML_INACTIVE | sys::VIR_DOMAIN_XML_SECURE)
            .map_err(|error| self.failed(&error))
    }

    fn start_defined(&self, handle: &Handle, made_here: bool) -> Result<OpOutput, OpError> {
        // A link that was left behind by an earlier domain of this name switches autostart on.
        if made_here && handle.get_autostart().map_err(|error| self.failed(&error))? {
            handle.set_autostart(false).map_err(|error| self.failed(&error))?;
        }
        self.ticket.check()?;
        match handle.create_with_flags(sys::VIR_DOMAIN_START_PAUSED) {
            Ok(_) => Ok(OpOutput::Started { uuid: self.uuid, pid: self.pid() }),
            Err(error) => match self.failed(&error) {
                // Somebody else was faster.
                OpError::WrongState { .. } if self.look().is_ok_and(|(_, state)| state.is_active()) => {
                    Ok(OpOutput::AlreadyActive { uuid: self.uuid, pid: self.pid() })
                }
                error => Err(error),
            },
        }
    }

    /// After a failed start: the host is left as it was found.
    fn put_back(&self, handle: &Handle, before: Option<&str>) {
        // If somebody has started it in the meantime, its definition is his now.
        let Ok((_, DomainState::ShutOff { .. })) = self.look() else { return };
        let result = match before {
            Some(xml) => Handle::define_xml(self.connection.connect(), xml)
                .map(drop)
                .map_err(|error| self.failed(&error)),
            None => self.undefine_handle(handle),
        };
        if let Err(error) = result {
            tracing::warn!(uuid = %self.uuid, %error, "after a failed start the domain's definition could not be put back as it was");
        }
    }

    fn resume(&self) -> Result<OpOutput, OpError> {
        match self.look()? {
            (_, DomainState::Running) => Ok(OpOutput::Done),
            (handle, _) => handle.resume().map(|_| OpOutput::Done).map_err(|error| self.failed(&error)),
        }
    }

    fn suspend(&self) -> Result<OpOutput, OpError> {
        match self.look()? {
            (_, DomainState::Paused { .. }) => Ok(OpOutput::Done),
            (handle, _) => handle.suspend().map(|_| OpOutput::Done).map_err(|error| self.failed(&error)),
        }
    }

    fn shut_down(&self) -> Result<OpOutput, OpError> {
        match self.look()? {
            (_, DomainState::ShutOff { .. } | DomainState::ShuttingDown) => Ok(OpOutput::Done),
            (handle, _) => self.unless_off(handle.shutdown().map(drop)),
        }
    }

    fn destroy(&self) -> Result<OpOutput, OpError> {
        match self.look()? {
            (_, DomainState::ShutOff { .. }) => Ok(OpOutput::Done),
            (handle, _) => self.unless_off(handle.destroy()),
        }
    }

    /// A refusal is success if the domain went off just before.
    fn unless_off(&self, result: Result<(), virt::error::Error>) -> Result<OpOutput, OpError> {
        let Err(error) = result else { return Ok(OpOutput::Done) };
        match self.failed(&error) {
            OpError::WrongState { .. } if matches!(self.look(), Ok((_, DomainState::ShutOff { .. }))) => {
                Ok(OpOutput::Done)
            }
            error => Err(error),
        }
    }

    fn undefine(&self) -> Result<OpOutput, OpError> {
        let (handle, state) = self.look()?;
        if state.is_active() {
            // libvirt would make it transient: its definition would be lost with its QEMU.
            return Err(OpError::WrongState {
                message: "it is active; only a domain that is shut off is undefined".into(),
            });
        }
        self.undefine_handle(&handle).map(|()| OpOutput::Done)
    }

    fn undefine_handle(&self, handle: &Handle) -> Result<(), OpError> {
        // NVRAM and TPM state are the VM's data. Older libvirt and other drivers know fewer flags, and refuse them.
        let attempts = [
            sys::VIR_DOMAIN_UNDEFINE_KEEP_NVRAM | sys::VIR_DOMAIN_UNDEFINE_KEEP_TPM,
            sys::VIR_DOMAIN_UNDEFINE_KEEP_NVRAM,
            0,
        ];
        let mut last = OpError::NoSuchDomain { uuid: self.uuid };
        for flags in attempts {
            self.ticket.check()?;
            match handle.undefine_flags(flags) {
                Ok(()) => return Ok(()),
                Err(error) => {
                    let unknown_flag = error.code() == virt::error::ErrorNumber::InvalidArg;
                    last = self.failed(&error);
                    if !unknown_flag {
                        break;
                    }
                }
            }
        }
        Err(last)
    }

    fn set_autostart(&self, on: bool) -> Result<OpOutput, OpError> {
        let (handle, _) = self.look()?;
        if !handle.is_persistent().map_err(|error| self.failed(&error))? {
            return Err(OpError::WrongState { message: "a transient domain has no autostart".into() });
        }
        handle.set_autostart(on).map(|_| OpOutput::Done).map_err(|error| self.failed(&error))
    }

    fn read(&self) -> Result<OpOutput, OpError> {
        match self.connection.read(clock::now(), self.uuid) {
            Ok(Some(domain)) => Ok(OpOutput::Domain(Box::new(domain))),
            Ok(None) => Err(OpError::NoSuchDomain { uuid: self.uuid }),
            Err(failure) => Err(self.refused(failure)),
        }
    }
}
