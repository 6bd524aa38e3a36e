//! Errors of this crate, and how libvirt's errors are classed.
//!
//! What matters to the caller is not libvirt's code but what may have happened: "nothing was done", "it was refused", or
//! "nobody knows" ([`OpError::outcome_unknown`]).

use crate::domain::DomainUuid;

/// The crate's errors outside of operations.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A thread could not be started.
    #[error("cannot start the thread {name}: {source}; check the limits on threads (ulimit -u, pids.max)")]
    Thread {
        /// The thread's name.
        name: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// libvirt's event loop could not be set up.
    #[error("libvirt's event loop cannot be set up: {message}")]
    EventLoop {
        /// What libvirt said.
        message: String,
    },
    /// A value in the configuration cannot be used.
    #[error("hypervisor configuration: {what} is {value}; {remedy}")]
    Config {
        /// The setting that is refused, by its name in the configuration.
        what: &'static str,
        /// What it is.
        value: String,
        /// What it should be.
        remedy: &'static str,
    },
}

/// Why a domain's XML could not be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum XmlError {
    /// It is no XML.
    #[error("the domain XML cannot be parsed: {message}")]
    Malformed {
        /// Where and why.
        message: String,
    },
    /// Something that every domain has is not there.
    #[error("the domain XML has no {what}")]
    Missing {
        /// What is missing, in words for people.
        what: &'static str,
    },
    /// A value cannot be understood.
    #[error("the domain XML has a {what} of {value:?}, which cannot be understood")]
    BadValue {
        /// The element or attribute that has the value.
        what: &'static str,
        /// What it is, shortened.
        value: String,
    },
}

/// Why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    /// Nothing was done: libvirtd could not be reached, or too many earlier calls still hang.
    #[error("nothing was done: {why}")]
    NotAttempted {
        /// Why nothing was tried, in words for people.
        why: String,
    },
    /// The connection ended during the operation: its outcome is unknown.
    #[error("the connection to libvirtd ended during the operation, its outcome is unknown: {message}")]
    ConnectionLost {
        /// What libvirt said.
        message: String,
    },
    /// libvirtd did not answer in time: the outcome is unknown, and the operation may still be carried out later.
    #[error("libvirtd did not answer within {seconds} s, the outcome is unknown and may still come about")]
    TimedOut {
        /// How long was waited.
        seconds: u64,
    },
    /// Another process holds the lock on a disk image: the VM runs elsewhere, or the storage has not yet dropped the
    /// lock of a dead client.
    #[error("a disk image is locked by another process or host: {message}")]
    ImageLocked {
        /// QEMU's message, as libvirt passes it on.
        message: String,
    },
    /// There is not enough memory for the VM.
    #[error("not enough memory to start the VM: {message}")]
    NotEnoughMemory {
        /// QEMU's or libvirt's words.
        message: String,
    },
    /// A file, network or device that the VM needs is not on this host.
    #[error("something that the VM needs is missing on this host: {message}")]
    MissingResource {
        /// libvirt's message; it names what is missing.
        message: String,
    },
    /// Another domain on this host has the same name, or the same UUID under another name.
    #[error("another domain on this host is in the way: {message}")]
    Conflict {
        /// libvirt's message; it names the other domain.
        message: String,
    },
    /// The domain has a saved state on this host. Starting it would continue from an old memory image on disks that have
    /// changed since.
    #[error(
        "domain {uuid} has a saved state on this host that may be older than its disks; remove it with `virsh managedsave-remove {uuid}`"
    )]
    SavedState {
        /// The domain that has a saved state.
        uuid: DomainUuid,
    },
    /// libvirt does not know the domain.
    #[error("libvirt knows no domain {uuid}")]
    NoSuchDomain {
        /// The domain that was asked for.
        uuid: DomainUuid,
    },
    /// The domain is not in a state for this operation.
    #[error("the domain's state does not allow it: {message}")]
    WrongState {
        /// libvirt's message; it says what state the domain is in.
        message: String,
    },
    /// The guest's agent does not answer, or there is none. The command may have been started.
    #[error(
        "the guest's agent cannot be asked: {message}; install and start qemu-guest-agent in the guest, and give the domain the channel org.qemu.guest_agent.0"
    )]
    NoGuestAgent {
        /// libvirt's message about the channel or the agent.
        message: String,
    },
    /// The guest's agent answered with an error.
    #[error(
        "the guest's agent refused: {message}; check the command's path in the guest, and that the agent's configuration there does not block guest-exec"
    )]
    GuestRefused {
        /// The agent's words, by way of libvirt.
        message: String,
    },
    /// The other host can't be reached, by libvirtd or by QEMU.
    #[error(
        "the destination {uri} cannot be reached: {message}; check that libvirtd listens there for this URI and lets this host in, that this host resolves its name, and that a firewall passes libvirt's port and 49152 to 49215"
    )]
    DestinationUnreachable {
        /// The destination's libvirt.
        uri: String,
        /// libvirt's message about the connection to the destination.
        message: String,
    },
    /// libvirt fears that both hosts would see different data.
    #[error(
        "libvirt calls this migration unsafe: {message}; set cache='none' on the VM's disks, or switch migrate_unsafe on if the storage is coherent between hosts"
    )]
    MigrationUnsafe {
        /// libvirt's message; it says what makes the migration unsafe.
        message: String,
    },
    /// A migration took too long and was aborted: the VM is still here.
    #[error(
        "the migration did not end within {seconds} s and was aborted, the VM stays here: {message}; allow more time, or migrate it when it writes less memory"
    )]
    MigrationAborted {
        /// How long it was allowed to take.
        seconds: u64,
        /// libvirt's message, from when the migration was ended.
        message: String,
    },
    /// The VM may be on the destination although libvirt reports an error.
    #[error(
        "libvirt cannot tell whether the migration succeeded: {message}; look on both hosts (virsh list --all)"
    )]
    MigrationUnclear {
        /// libvirt's message about the end of the migration.
        message: String,
    },
    /// The XML cannot be used.
    #[error(transparent)]
    Xml(#[from] XmlError),
    /// Anything else that libvirt refused.
    #[error("libvirt refused: {message}")]
    Other {
        /// libvirt's message, whatever it is about.
        message: String,
    },
}

impl OpError {
    /// Whether the operation may have been carried out, or may still be, although it failed for us.
    pub fn outcome_unknown(&self) -> bool {
        match self {
            OpError::ConnectionLost { .. }
            | OpError::TimedOut { .. }
            | OpError::NoGuestAgent { .. }
            | OpError::MigrationUnclear { .. } => true,
            OpError::NotAttempted { .. }
            | OpError::ImageLocked { .. }
            | OpError::NotEnoughMemory { .. }
            | OpError::MissingResource { .. }
            | OpError::Conflict { .. }
            | OpError::SavedState { .. }
            | OpError::NoSuchDomain { .. }
            | OpError::WrongState { .. }
            | OpError::GuestRefused { .. }
            | OpError::DestinationUnreachable { .. }
            | OpError::MigrationUnsafe { .. }
            | OpError::MigrationAborted { .. }
            | OpError::Xml(_)
            | OpError::Other { .. } => false,
        }
    }
}

/// A failed libvirt call, and whether the connection is gone with it.
#[derive(Clone, Debug)]
pub(crate) struct CallFailure {
    pub(crate) connection_lost: bool,
    pub(crate) code: u32,
    pub(crate) message: String,
}

impl CallFailure {
    pub(crate) fn is_no_domain(&self) -> bool {
        !self.connection_lost && self.code == virt_sys::VIR_ERR_NO_DOMAIN
    }

    /// What the failure means for an operation on `uuid`.
    pub(crate) fn into_op_error(self, uuid: DomainUuid) -> OpError {
        if self.connection_lost {
            return OpError::ConnectionLost { message: self.message };
        }
        match self.code {
            virt_sys::VIR_ERR_NO_DOMAIN => OpError::NoSuchDomain { uuid },
            virt_sys::VIR_ERR_DOM_EXIST => OpError::Conflict { message: self.message },
            virt_sys::VIR_ERR_OPERATION_INVALID => OpError::WrongState { message: self.message },
            virt_sys::VIR_ERR_NO_NETWORK
            | virt_sys::VIR_ERR_NO_STORAGE_POOL
            | virt_sys::VIR_ERR_NO_STORAGE_VOL => OpError::MissingResource { message: self.message },
            virt_sys::VIR_ERR_NO_MEMORY => OpError::NotEnoughMemory { message: self.message },
            _ => classify_message(self.message),
        }
    }
}

/// QEMU's reasons reach us as text only. The texts were stable from QEMU 2.10 (image locks) on; an unknown text is
/// [`OpError::Other`], which is never wrong.
fn classify_message(message: String) -> OpError {
    let has = |needles: &[&str]| needles.iter().any(|needle| message.contains(needle));
    // "write" when another has it open for writing, "shared ..." and "consistent read" for the other permissions.
    if message.contains("Failed to get") && has(&["\" lock", "Is another process using the image"]) {
        OpError::ImageLocked { message }
    } else if has(&[
        "Cannot allocate memory",
        "cannot set up guest memory",
        "unable to map backing store",
        "out of memory",
    ]) {
        OpError::NotEnoughMemory { message }
    } else if has(&["already exists with uuid", "is already defined with uuid", "already exists with name"]) {
        OpError::Conflict { message }
    } else if has(&[
        "No such file or directory",
        "Could not open",
        "Cannot get interface MTU",
        "No such device",
        "does not exist",
        "not found",
        "Cannot check QEMU binary",
    ]) {
        OpError::MissingResource { message }
    } else {
        OpError::Other { message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(message: &str) -> OpError {
        let failure = CallFailure {
            connection_lost: false,
            code: virt_sys::VIR_ERR_INTERNAL_ERROR,
            message: message.into(),
        };
        failure.into_op_error(DomainUuid([0; 16]))
    }

    #[test]
    fn texts_of_qemu_and_libvirt_are_classed() {
        let locked = "internal error: process exited while connecting to monitor: Failed to get \"write\" lock\nIs another process using the image [/srv/ds/vm1/disk.raw]?";
        assert!(matches!(class(locked), OpError::ImageLocked { .. }));
        assert!(matches!(
            class("cannot set up guest memory 'pc.ram': Cannot allocate memory"),
            OpError::NotEnoughMemory { .. }
        ));
        assert!(matches!(
            class("Cannot access storage file '/x.img': No such file or directory"),
            OpError::MissingResource { .. }
        ));
        assert!(matches!(
            class("operation failed: domain 'a' already exists with uuid 1"),
            OpError::Conflict { .. }
        ));
        assert!(matches!(class("something new"), OpError::Other { .. }));
    }

    #[test]
    fn lost_connection_is_an_unknown_outcome_whatever_the_code() {
        let failure =
            CallFailure { connection_lost: true, code: virt_sys::VIR_ERR_NO_DOMAIN, message: "x".into() };
        assert!(!failure.is_no_domain());
        assert!(failure.into_op_error(DomainUuid([0; 16])).outcome_unknown());
    }
}
