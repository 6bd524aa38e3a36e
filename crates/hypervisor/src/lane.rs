//! What may run beside what: operations of one lane go one after the other, those of different lanes side by side.
//!
//! Why several: some operations take long by their nature (a migration), or as long as a guest pleases. None of them may
//! hold up the destroying of a VM, neither of its own nor of another.

use std::time::Duration;

use crate::domain::DomainUuid;
use crate::error::{OpError, XmlError};
use crate::event::{Config, Op};
use crate::libvirt::is_c_text;
use crate::operations::guest;
use crate::spec::Spec;

/// The queue of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// What changes a domain, or reads it.
    Domain(DomainUuid),
    /// Asking whether a guest's agent answers.
    GuestPing(DomainUuid),
    /// A command in a guest.
    GuestCommand(DomainUuid),
    /// A live migration.
    Migration(DomainUuid),
    /// About the host, not about a domain.
    Host,
}

impl Lane {
    pub(crate) fn of(op: &Op) -> Result<Lane, OpError> {
        match op {
            Op::StartPaused { xml } => {
                if !is_c_text(xml) {
                    return Err(XmlError::Malformed { message: "it contains a NUL character".into() }.into());
                }
                Ok(Lane::Domain(xml.parse::<Spec>()?.uuid))
            }
            Op::Resume { uuid }
            | Op::Suspend { uuid }
            | Op::Shutdown { uuid }
            | Op::Destroy { uuid }
            | Op::Undefine { uuid }
            | Op::SetAutostart { uuid, on: _ }
            | Op::Read { uuid } => Ok(Lane::Domain(*uuid)),
            Op::GuestPing { uuid } => Ok(Lane::GuestPing(*uuid)),
            Op::GuestCommand { uuid, .. } => Ok(Lane::GuestCommand(*uuid)),
            Op::Migrate { uuid, destination_uri, data_uri, .. } => {
                let uris = [Some(destination_uri), data_uri.as_ref()];
                if let Some(bad) = uris.into_iter().flatten().find(|uri| uri.is_empty() || !is_c_text(uri)) {
                    let why = format!("{bad:?} is no URI; give one such as qemu+tls://host2/system");
                    return Err(OpError::NotAttempted { why });
                }
                Ok(Lane::Migration(*uuid))
            }
            Op::HostOffers => Ok(Lane::Host),
        }
    }

    /// The domain; for those about the host, one that does not exist.
    pub(crate) fn uuid(self) -> DomainUuid {
        match self {
            Lane::Domain(uuid) | Lane::GuestPing(uuid) | Lane::GuestCommand(uuid) | Lane::Migration(uuid) => {
                uuid
            }
            Lane::Host => DomainUuid([0; 16]),
        }
    }

    /// At most so many operations of its kind run at once. Each occupies a thread of libvirtd, which has 20 by default for
    /// everybody. Two migrations fill most networks; more at once would only make each last longer.
    pub(crate) fn in_flight_max(self) -> usize {
        match self {
            Lane::Domain(_) => 4,
            Lane::GuestPing(_) | Lane::GuestCommand(_) => 3,
            Lane::Migration(_) => 2,
            Lane::Host => 1,
        }
    }

    pub(crate) fn same_kind(self, other: Lane) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }

    /// A call that hangs keeps its place until it returns. Else what is asked again and again would collect threads, as long
    /// as a guest's agent, or libvirtd, does not answer.
    pub(crate) fn is_kept_while_hung(self) -> bool {
        match self {
            Lane::GuestPing(_) | Lane::GuestCommand(_) | Lane::Host => true,
            Lane::Domain(_) | Lane::Migration(_) => false,
        }
    }
}

/// How long an operation may run. (A migration is then aborted, see the actor.)
pub(crate) fn time_to_run(op: &Op, config: &Config) -> Duration {
    match op {
        Op::GuestPing { .. } => guest::PING_TIMEOUT + guest::SLACK,
        Op::GuestCommand { timeout, .. } => timeout.saturating_add(guest::COMMAND_SLACK).min(LONGEST),
        Op::Migrate { timeout, .. } => (*timeout).min(LONGEST),
        Op::StartPaused { .. }
        | Op::Resume { .. }
        | Op::Suspend { .. }
        | Op::Shutdown { .. }
        | Op::Destroy { .. }
        | Op::Undefine { .. }
        | Op::SetAutostart { .. }
        | Op::Read { .. }
        | Op::HostOffers => config.op_timeout,
    }
}

/// How long an operation may wait for its turn. Migrations wait for each other as long as they may run.
pub(crate) fn time_to_wait(op: &Op, config: &Config) -> Duration {
    match op {
        Op::Migrate { timeout, .. } => (*timeout).min(LONGEST),
        Op::GuestPing { .. }
        | Op::GuestCommand { .. }
        | Op::StartPaused { .. }
        | Op::Resume { .. }
        | Op::Suspend { .. }
        | Op::Shutdown { .. }
        | Op::Destroy { .. }
        | Op::Undefine { .. }
        | Op::SetAutostart { .. }
        | Op::Read { .. }
        | Op::HostOffers => config.op_timeout,
    }
}

/// More than any migration takes, and far from where adding to an instant overflows.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);
