//! A domain as libvirt shows it: identity, state, definition.
//!
//! Does not interpret: whether a stopped domain should run somewhere is the agent's business.

use std::fmt;
use std::str::FromStr;

use mainstay_words::{Time, VmId};

use crate::error::XmlError;
use crate::metadata::Metadata;
use crate::spec::Spec;
use crate::stop_cause::StopCause;

/// The UUID of a domain: its identity on all hosts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainUuid(pub [u8; 16]);

impl fmt::Display for DomainUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&VmId(self.0), f)
    }
}

impl fmt::Debug for DomainUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for DomainUuid {
    type Err = XmlError;

    /// Reads 32 hexadecimal digits, with dashes anywhere between them, as libvirt does.
    fn from_str(text: &str) -> Result<DomainUuid, XmlError> {
        let bad = || XmlError::BadValue { what: "uuid", value: text.chars().take(64).collect() };
        VmId::parse(text.trim()).map(|vm| DomainUuid(vm.0)).ok_or_else(bad)
    }
}

/// Why a domain is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PauseReason {
    /// Somebody suspended it, or it was started paused and not yet resumed (libvirt calls both "user").
    User,
    /// A live migration is under way.
    Migration,
    /// It is being saved or dumped, or a snapshot is being taken.
    Saving,
    /// A disk gave an error and `error_policy='stop'`. When resumed it repeats the failed writes.
    IoError,
    /// Its watchdog fired with `action='pause'`.
    Watchdog,
    /// The guest crashed and the domain was kept for inspection.
    Crashed,
    /// libvirt is just starting it.
    StartingUp,
    /// The guest has powered off, and QEMU is about to be ended.
    ShuttingDown,
    /// libvirt could not resume it after an operation, or gives another reason or none.
    Other,
}

/// What a domain does at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainState {
    /// The guest executes (as far as libvirt knows: a VM frozen by its cgroup or by SIGSTOP looks like this as well).
    Running,
    /// QEMU is there, the guest does not execute.
    Paused {
        /// Why the CPUs are stopped, as libvirt tells it.
        reason: PauseReason,
    },
    /// The guest has powered off, QEMU is ending.
    ShuttingDown,
    /// There is no QEMU as far as libvirt knows.
    ShutOff {
        /// Why it stopped. Partly remembered from libvirt's events: see [`StopCause`].
        cause: StopCause,
    },
    /// The guest crashed, and QEMU is kept (`on_crash='preserve'`).
    Crashed,
    /// The guest sleeps (S3). QEMU is there.
    PmSuspended,
    /// libvirt does not know.
    NoState,
}

impl DomainState {
    /// Whether there is a QEMU that holds the disks, according to libvirt; unknown counts as yes.
    pub fn is_active(self) -> bool {
        match self {
            DomainState::ShutOff { .. } => false,
            DomainState::Running
            | DomainState::Paused { .. }
            | DomainState::ShuttingDown
            | DomainState::Crashed
            | DomainState::PmSuspended
            | DomainState::NoState => true,
        }
    }
}

/// One domain of this host, as read at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// When libvirt was asked for it.
    pub as_of: Time,
    /// The UUID by which libvirt, and all of Mainstay, knows the domain.
    pub uuid: DomainUuid,
    /// Its name on this host.
    pub name: String,
    /// What it does.
    pub state: DomainState,
    /// Whether it has a definition that outlives its QEMU.
    pub persistent: bool,
    /// Whether libvirtd starts it at its own start.
    pub autostart: bool,
    /// Its QEMU process, found in /proc and not by libvirt, so it can be there although libvirt says "shut off": then
    /// the process is still dying, and may still write.
    pub pid: Option<u32>,
    /// Its definition, so that another host can define and start it (`virDomainGetXMLDesc` with `INACTIVE | SECURE`):
    /// what `virsh dumpxml --inactive --security-info` prints. Chosen because it is the text that round-trips through
    /// `virDomainDefineXML`: no run-time data (ids, aliases, labels), secrets included (else graphics passwords would be
    /// lost on the other host), the same text whether the domain runs or not, and the same between two reads. Not
    /// `MIGRATABLE`: on top of `INACTIVE` that only leaves out implicit devices. Consequences: devices that were plugged
    /// in with `--live` only are not in it, and edits that wait for the next boot are. It holds secrets: never log it.
    pub xml: String,
    /// What the XML says, or why it could not be understood.
    pub spec: Result<Spec, XmlError>,
}

impl Domain {
    /// The user's wishes from the domain's metadata; the defaults where the XML could not be understood.
    pub fn metadata(&self) -> Metadata {
        self.spec.as_ref().map(|spec| spec.metadata.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuid_reads_what_it_prints_and_refuses_the_rest() {
        let text = "44c9b1b5-592e-4d43-b810-5d0eb8d81c64";
        let uuid: DomainUuid = text.parse().expect("a valid uuid");
        assert_eq!(uuid.to_string(), text);
        assert_eq!("44C9B1B5592E4D43B8105D0EB8D81C64".parse::<DomainUuid>().expect("no dashes"), uuid);
        for bad in
            ["", "44c9b1b5", "44c9b1b5-592e-4d43-b810-5d0eb8d81c6g", "44c9b1b5-592e-4d43-b810-5d0eb8d81c640"]
        {
            assert!(bad.parse::<DomainUuid>().is_err(), "{bad:?}");
        }
    }
}
