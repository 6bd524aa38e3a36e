//! The events in words.

use super::*;
use crate::settings::{counted, in_words};

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::AgentStarted { rebooted: true } => f.write_str("agent started; the host has rebooted"),
            Event::AgentStarted { rebooted: false } => f.write_str("agent started"),
            Event::ElectionStarted { reason } => write!(f, "election started: {reason}"),
            Event::BecamePrimary { reason } => write!(f, "elected primary: {reason}"),
            Event::FollowsPrimary { primary } => write!(f, "follows primary {primary}"),
            Event::SteppedDown { reason } => write!(f, "stepped down as primary: {reason}"),
            Event::HostStateChanged { host, from, to, last_evidence } => {
                write!(f, "{host} was {from}, is {to} (last evidence {last_evidence} ago)")
            }
            Event::DatastoreLost { datastore, reason } => {
                write!(f, "datastore {datastore} is out of reach: {reason}")
            }
            Event::DatastoreBack { datastore } => write!(f, "datastore {datastore} is reached"),
            Event::OwnershipAcquired { datastore, epoch, former } => match former {
                Some(former) => write!(f, "owns datastore {datastore} in epoch {epoch}, after {former}"),
                None => write!(f, "owns datastore {datastore} in epoch {epoch}"),
            },
            Event::OwnershipLost { datastore, epoch, reason } => {
                write!(f, "no longer owns datastore {datastore} (epoch {epoch}): {reason}")
            }
            Event::RegisterUnreadable { datastore, register, reason } => {
                write!(f, "register {register} on datastore {datastore} is unreadable: {reason}")
            }
            Event::RegisterUnwritable { datastore, register, reason } => {
                write!(f, "register {register} on datastore {datastore} can't be written: {reason}")
            }
            Event::RegisterReadable { datastore, register } => {
                write!(f, "register {register} on datastore {datastore} is well again")
            }
            Event::VmProtected { vm, host, datastore } => {
                write!(f, "{vm} on {host} is protected (on {datastore})")
            }
            Event::VmNotProtectable { vm, reason } => write!(f, "{vm} can't be protected: {reason}"),
            Event::VmUnprotected { vm } => write!(f, "{vm} is no longer protected: its user asked for it"),
            Event::VmStopped { vm, host, cause, restart: true } => {
                write!(f, "{vm} stopped on {host}: {cause}; it will be restarted")
            }
            Event::VmStopped { vm, host, cause, restart: false } => {
                write!(f, "{vm} stopped on {host}: {cause}; it stays down")
            }
            Event::TakeoverIntended { vm, from, to } => write!(f, "{vm} is to go from silent {from} to {to}"),
            Event::TakeoverCancelled { vm, host, reason } => write!(f, "{vm} stays with {host}: {reason}"),
            Event::VmGranted { vm, host, token, attempt, reason } => {
                write!(f, "{vm} granted to {host} (grant {token}, attempt {attempt}): {reason}")
            }
            Event::VmWaitsForHost { vm, reasons } => {
                write!(f, "{vm} waits, no host can take it:")?;
                for (index, (host, reason)) in reasons.iter().enumerate() {
                    write!(f, "{} {host}: {reason}", if index == 0 { "" } else { ";" })?;
                }
                Ok(())
            }
            Event::SettingsChanged { text } => f.write_str(text),
            Event::VmWaitsForOthers { vm, reason } => write!(f, "{vm} {reason}"),
            Event::OrderGivenUp { vm } => {
                write!(f, "{vm} is not ready and its time-out is over: others no longer wait for it")
            }
            Event::VmNotVerified { vm, host, again: true } => write!(
                f,
                "{vm} runs on {host}, but its guest agent, which answered before the failover, does not: it is started elsewhere"
            ),
            Event::VmNotVerified { vm, host, again: false } => write!(
                f,
                "{vm} runs on {host}, but its guest agent does not answer, and did not on another host: look at its console"
            ),
            Event::VmVerified { vm, host } => {
                write!(f, "the guest agent of {vm} on {host} answers after all")
            }
            Event::MaintenanceBegun { host, vms } => {
                write!(f, "{host} is being emptied for maintenance: {} on it", counted(*vms, "VM"))
            }
            Event::MaintenanceReached { host } => write!(f, "{host} is empty: in maintenance mode"),
            Event::MaintenanceLeft { host } => {
                write!(f, "{host} has left maintenance mode and takes VMs again")
            }
            Event::VmOrdered { vm, host, order } => match order {
                OrderKind::Migrate(to) => write!(f, "{vm} is to migrate from {host} to {to}"),
                OrderKind::ShutDown => write!(f, "{vm} is to be shut down on {host}, for maintenance"),
                OrderKind::StartElsewhere => write!(f, "{vm} is to be ended on {host} and started elsewhere"),
            },
            Event::VmOrderFailed { vm, host, order, reason } => match order {
                OrderKind::Migrate(to) => write!(f, "{vm} could not migrate from {host} to {to}: {reason}"),
                OrderKind::ShutDown => write!(f, "{vm} could not be shut down on {host}: {reason}"),
                OrderKind::StartElsewhere => write!(f, "{vm} could not be ended on {host}: {reason}"),
            },
            Event::ProtectionSuspended { datastore, left } => write!(
                f,
                "protection of the VMs of {datastore} is suspended for {}: no restart, no isolation response, no freeze",
                in_words(*left)
            ),
            Event::ProtectionResumed { datastore, reason } => {
                write!(f, "protection of the VMs of {datastore} goes on: {reason}")
            }
            Event::AdmissionNotMet { objection } => write!(f, "admission control: {objection}"),
            Event::AdmissionMet => f.write_str("admission control: enough is kept for failures again"),
            Event::VmClaimed { vm, token } => write!(f, "{vm} claimed (grant {token}), starting it"),
            Event::VmWaitsForStorage { vm, reason } => write!(f, "{vm} waits for the storage: {reason}"),
            Event::VmStarted { vm, token } => write!(f, "{vm} started (grant {token})"),
            Event::VmStartFailed { vm, reason } => write!(f, "{vm} could not be started: {reason}"),
            Event::VmRestarted { vm, from: Some(from), to, attempts } => {
                write!(f, "{vm} of {from} runs again on {to} (attempts: {attempts})")
            }
            Event::VmRestarted { vm, from: None, to, attempts } => {
                write!(f, "{vm} runs again on {to} (attempts: {attempts})")
            }
            Event::DefinitionDropped { vm, holder } => {
                write!(f, "stale definition of {vm} removed here: it belongs to {holder}")
            }
            Event::VmActiveTwice { vm, holder, other } => {
                write!(f, "{vm} is held by {holder} but also active on {other}: stop one of them")
            }
            Event::VmActiveOnce { vm, host } => write!(f, "{vm} is active on {host} only"),
            Event::VmCopyRemoved { vm, holder: Some(holder) } => {
                write!(f, "{vm} was here too, but was given to {holder} since: the copy here was removed")
            }
            Event::VmCopyRemoved { vm, holder: None } => {
                write!(
                    f,
                    "{vm} was here too, but was given to another host since and stopped there: the copy here was removed"
                )
            }
            Event::HypervisorLost => f.write_str("libvirt does not answer; VMs go on"),
            Event::HypervisorBack => f.write_str("libvirt answers"),
            Event::GuardFound { .. } => f.write_str("guard found"),
            Event::GuardLost => f.write_str("the guard is gone: nothing is started until there is one again"),
            Event::VmFrozen { vm } => {
                write!(
                    f,
                    "{vm} is frozen: neither its datastore nor its owner can be reached; it goes on when one can"
                )
            }
            Event::VmContinued { vm } => {
                write!(f, "{vm} goes on: QEMU had paused it for an I/O error, and the storage is back")
            }
            Event::VmThawed { vm } => write!(f, "{vm} goes on"),
            Event::MessageUnreadable { host, reason } => {
                write!(f, "a message of {host} can't be read and was dropped: {reason}")
            }
            Event::HeartbeatDatastoresChosen { datastores } => {
                let names: Vec<&str> = datastores.iter().map(DatastoreName::as_str).collect();
                write!(f, "heartbeat datastores: {}", names.join(", "))
            }
            Event::TimingDiffers { host, theirs, ours } => write!(
                f,
                "{host} has a failure time-out of {theirs}, this host one of {ours}: give all hosts the same [timing]; until then the longer one counts"
            ),
            Event::TimingAgrees { host } => write!(f, "{host} has the same times as this host again"),
            Event::HostConfirmedDown { host } => {
                write!(f, "a person has confirmed that {host} is down: its VMs need not wait for it")
            }
            Event::HostIsolated => {
                f.write_str("this host is isolated: it reaches no other host and no isolation address")
            }
            Event::HostNotIsolated => f.write_str("this host is not isolated any more"),
            Event::ResponsibilityTaken { vm, from, to } => {
                write!(
                    f,
                    "{vm} of isolated {from} will be restarted on {to} as soon as {from} has released it"
                )
            }
            Event::ResponsibilityDropped { vm, host, reason } => {
                write!(f, "{vm} stays with {host}: {reason}")
            }
            Event::IsolationResponseApplied { vm, response } => {
                write!(f, "isolation response of {vm}: {response}")
            }
            Event::ShutdownTimedOut { vm, after } => {
                write!(f, "{vm} has not shut down within {after}: it is powered off")
            }
            Event::IsolationResponseStopped { vm } => {
                write!(f, "{vm} is left running: this host has contact again")
            }
            Event::StormSuspected { silent, of } => write!(
                f,
                "{silent} of {of} other hosts are silent at once: looking again before anything is restarted"
            ),
            Event::StormOver => f.write_str("hosts were looked at again after many had been silent at once"),
        }
    }
}
