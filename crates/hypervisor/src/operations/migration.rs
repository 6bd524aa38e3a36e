//! Live migration: libvirtd here talks to libvirtd there, and the VM's memory goes from QEMU to QEMU.
//!
//! Storage must be shared: no disk is copied. Whether the destination may run the VM is the caller's business.

use virt_sys as sys;

use super::Act;
use crate::domain::DomainUuid;
use crate::error::{CallFailure, OpError};
use crate::event::OpOutput;
use crate::libvirt::Connection;

impl Act<'_> {
    pub(super) fn migrate(
        &self,
        destination: &str,
        data: Option<&str>,
        allow_unsafe: bool,
    ) -> Result<OpOutput, OpError> {
        let (handle, state) = self.look()?;
        if !state.is_active() {
            return Err(OpError::WrongState {
                message: "it is shut off; only an active domain is migrated".into(),
            });
        }
        let persistent = handle.is_persistent().map_err(|error| self.failed(&error))?;
        self.ticket.check()?;
        let flags = flags(persistent, allow_unsafe);
        match handle.migrate_to_uri2(Some(destination), data, None, flags, None, 0) {
            Ok(()) => Ok(OpOutput::Done),
            Err(error) => {
                let failure = self.connection.failure(&error);
                Err(refusal(failure, !self.connection.is_alive(), destination, self.uuid))
            }
        }
    }
}

/// A disk error on the way aborts it, since a VM that can't read its disk here would be paused there. It is slowed down when it
/// writes memory faster than the network carries (auto-converge): else it might never end.
fn flags(persistent: bool, allow_unsafe: bool) -> u32 {
    let mut flags = sys::VIR_MIGRATE_LIVE
        | sys::VIR_MIGRATE_PEER2PEER
        | sys::VIR_MIGRATE_AUTO_CONVERGE
        | sys::VIR_MIGRATE_ABORT_ON_ERROR;
    if persistent {
        flags |= sys::VIR_MIGRATE_PERSIST_DEST | sys::VIR_MIGRATE_UNDEFINE_SOURCE;
    }
    if allow_unsafe {
        flags |= sys::VIR_MIGRATE_UNSAFE;
    }
    flags
}

/// `cut_off`: our own connection is gone. An error of the RPC layer that comes while it stands is libvirtd's, and about the
/// connection to the other libvirtd.
fn refusal(failure: CallFailure, cut_off: bool, destination: &str, uuid: DomainUuid) -> OpError {
    let message = failure.message.clone();
    if cut_off {
        return OpError::ConnectionLost { message };
    }
    match failure.code {
        sys::VIR_ERR_MIGRATE_UNSAFE => OpError::MigrationUnsafe { message },
        sys::VIR_ERR_MIGRATE_FINISH_OK | sys::VIR_ERR_MIGRATE_PERSIST_FAILED => {
            OpError::MigrationUnclear { message }
        }
        _ if UNREACHABLE.iter().any(|text| message.contains(text)) => {
            OpError::DestinationUnreachable { uri: destination.to_owned(), message }
        }
        _ if failure.connection_lost => OpError::MigrationUnclear { message },
        _ => failure.into_op_error(uuid),
    }
}

/// libvirt's words when it, or QEMU, does not get through. Stable from libvirt 0.9 on.
const UNREACHABLE: [&str; 4] = [
    "Failed to connect to remote libvirt URI",
    "unable to connect to server at",
    "Unable to resolve address",
    "unable to connect to destination",
];

/// What the end of a migration means that was ordered to abort.
pub(crate) fn aborted(error: OpError, seconds: u64) -> OpError {
    if error.outcome_unknown() {
        return error;
    }
    OpError::MigrationAborted { seconds, message: error.to_string() }
}

/// Orders the migration of a domain to abort.
pub(crate) fn abort(connection: &Connection, uuid: DomainUuid) -> Result<(), OpError> {
    let handle = connection.lookup(uuid).map_err(|failure| failure.into_op_error(uuid))?;
    // Safety: the handle is alive.
    if unsafe { sys::virDomainAbortJob(handle.as_ptr()) } == 0 {
        return Ok(());
    }
    let error = virt::error::Error::last_error();
    Err(connection.failure(&error).into_op_error(uuid))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(code: u32, message: &str) -> OpError {
        let failure = CallFailure { connection_lost: false, code, message: message.into() };
        refusal(failure, false, "qemu+tcp://h9/system", DomainUuid([0; 16]))
    }

    #[test]
    fn refusals_say_what_to_do() {
        let unreachable = class(
            sys::VIR_ERR_OPERATION_FAILED,
            "operation failed: Failed to connect to remote libvirt URI qemu+tcp://h9/system: unable to connect to server at 'h9:16509': Connection refused",
        );
        assert!(matches!(unreachable, OpError::DestinationUnreachable { .. }), "{unreachable}");
        assert!(unreachable.to_string().contains("check that libvirtd listens there"));
        assert!(unreachable.to_string().contains("qemu+tcp://h9/system"));
        assert!(matches!(class(sys::VIR_ERR_MIGRATE_UNSAFE, "x"), OpError::MigrationUnsafe { .. }));
        assert!(class(sys::VIR_ERR_MIGRATE_FINISH_OK, "x").outcome_unknown());
        assert!(matches!(
            class(sys::VIR_ERR_OPERATION_INVALID, "domain is not running"),
            OpError::WrongState { .. }
        ));
    }

    #[test]
    fn a_broken_connection_between_the_libvirts_is_not_ours() {
        let class = |message: &str, cut_off| {
            let failure = CallFailure {
                connection_lost: true,
                code: sys::VIR_ERR_SYSTEM_ERROR,
                message: message.into(),
            };
            refusal(failure, cut_off, "qemu+tcp://h9/system", DomainUuid([0; 16]))
        };
        let refused = "unable to connect to server at 'h9:16509': Connection refused";
        assert!(matches!(class(refused, false), OpError::DestinationUnreachable { .. }));
        assert!(matches!(class("End of file while reading data", false), OpError::MigrationUnclear { .. }));
        assert!(matches!(class("End of file while reading data", true), OpError::ConnectionLost { .. }));
    }

    #[test]
    fn an_aborted_migration_leaves_the_vm_here_unless_nobody_knows() {
        let error = aborted(OpError::Other { message: "canceled by client".into() }, 7);
        assert!(error.to_string().contains("7 s") && !error.outcome_unknown());
        assert!(aborted(OpError::ConnectionLost { message: "x".into() }, 7).outcome_unknown());
    }

    #[test]
    fn a_transient_domain_stays_transient_and_unsafe_is_asked_for() {
        assert_eq!(flags(false, false) & sys::VIR_MIGRATE_PERSIST_DEST, 0);
        assert_ne!(flags(true, false) & sys::VIR_MIGRATE_UNDEFINE_SOURCE, 0);
        assert_eq!(flags(true, false) & sys::VIR_MIGRATE_UNSAFE, 0);
        assert_ne!(flags(true, true) & sys::VIR_MIGRATE_UNSAFE, 0);
    }
}
