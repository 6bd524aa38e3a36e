//! What can be wrong with bytes, and with values that are to become bytes.

use mainstay_words::Epoch;
use thiserror::Error;

/// Why a value can't be put on disk.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// The value does not fit its slot.
    #[error(
        "the {kind} needs {needed} bytes and its slot has {available}: home fewer VMs on this datastore (spread them over several)"
    )]
    TooBig {
        /// The kind of the register.
        kind: &'static str,
        /// What it would take.
        needed: usize,
        /// What there is.
        available: usize,
    },
    /// The header line must fit the first 512 bytes, which are written atomically.
    #[error(
        "the header of the {kind} takes {needed} bytes and only 512 are written atomically: use shorter host and cluster ids"
    )]
    HeaderTooLong {
        /// The kind of the register.
        kind: &'static str,
        /// What it would take.
        needed: usize,
    },
    /// The value is of another register than its id says.
    #[error(
        "a value of kind {value} can't be written to the register {register}: this is a fault of the program"
    )]
    Mismatch {
        /// The file name of the register.
        register: String,
        /// The kind of the value.
        value: &'static str,
    },
    /// The name can't be part of a file name.
    #[error(
        "{what} {name:?} can't be used in a file name: use letters, digits, `-`, `_` and `.` only, not starting with a dot, at most 100"
    )]
    BadName {
        /// What it names.
        what: &'static str,
        /// The name that was refused.
        name: String,
    },
    /// The serializer refused the value.
    #[error("the {kind} can't be written as JSON ({reason}): this is a fault of the program")]
    Unserializable {
        /// The kind of the register.
        kind: &'static str,
        /// What the serializer says.
        reason: String,
    },
}

/// Why a slot can't be read. [`SlotError::is_damage`] tells a write that was cut short from everything else.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SlotError {
    /// The header line does not match its checksum, or there is none where one belongs.
    #[error("its header is damaged ({0})")]
    BadHeader(String),
    /// The body does not match its checksum: a write was cut short, or the disk damaged it.
    #[error(
        "its body does not match its checksum (write number {sequence} was cut short, or the disk damaged it)"
    )]
    BadChecksum {
        /// The sequence number of the header, which is intact.
        sequence: u64,
    },
    /// Fewer bytes than the header announces.
    #[error("it is cut off: {have} of {needed} bytes are there")]
    Truncated {
        /// What the header announces.
        needed: usize,
        /// What is there.
        have: usize,
    },
    /// Intact, but written by another cluster.
    #[error("it belongs to the cluster {found}: two clusters use one folder; give each its own cluster id")]
    ForeignCluster {
        /// The cluster whose register it is.
        found: String,
    },
    /// Intact, but of a newer version of the format.
    #[error("it has format version {found}, this program reads up to 1: upgrade Mainstay on this host")]
    NewerVersion {
        /// The version that it was written with.
        found: u32,
    },
    /// Intact, but another register: a file was copied or renamed.
    #[error("it holds the register {found}: a file was copied or renamed by hand; put it back or remove it")]
    WrongRegister {
        /// The register that it says it is.
        found: String,
    },
    /// The region of the protected list is in use for a later epoch.
    #[error("epoch {found} has taken this region of the protected list")]
    Superseded {
        /// The epoch that it was written in.
        found: Epoch,
    },
    /// The checksums are right and yet the contents make no sense here: written by a newer program, as a rule.
    #[error(
        "it is intact, but can't be understood ({0}): a newer Mainstay wrote it, as a rule; upgrade this host"
    )]
    Malformed(String),
}

impl SlotError {
    /// Whether this can come from a write that was cut short: then the other slot holds the value that counts. All the
    /// other errors are of slots that were written completely: the other slot may be older than they are.
    pub fn is_damage(&self) -> bool {
        match self {
            SlotError::BadHeader(_) | SlotError::BadChecksum { .. } | SlotError::Truncated { .. } => true,
            SlotError::ForeignCluster { .. }
            | SlotError::NewerVersion { .. }
            | SlotError::WrongRegister { .. }
            | SlotError::Superseded { .. }
            | SlotError::Malformed(_) => false,
        }
    }
}

/// Why a datagram is no message of ours. Such a datagram is counted and dropped; it never changes any state.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// Shorter than the frame.
    #[error("{0} bytes are too few for a message")]
    TooShort(usize),
    /// The sender speaks a newer version.
    #[error("version {found} of the protocol, this program speaks up to 1: upgrade Mainstay on this host")]
    NewerVersion {
        /// The version that it was sent with.
        found: u8,
    },
    /// The sender is of another cluster.
    #[error(
        "the sender belongs to another cluster (hash {found:016x}, ours is {ours:016x}): check its address list"
    )]
    OtherCluster {
        /// Hash of its cluster id.
        found: u64,
        /// Hash of ours.
        ours: u64,
    },
    /// A kind of message that this version does not know.
    #[error("unknown kind of message {kind:?}: the sender runs a newer Mainstay")]
    UnknownKind {
        /// The name of that kind.
        kind: String,
    },
    /// Not a message.
    #[error("malformed message ({0})")]
    Malformed(String),
}
