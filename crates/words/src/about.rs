//! One row per event: how much it matters, what it is about, which alarm it raises, and what it says.
//!
//! Whoever adds an event adds its row here, and nothing else has to know of it. (The simulator counts some events, and says so by
//! an exhaustive `match` of its own.)

use crate::event::{AutostartChange, Event, VmName};
use crate::ids::{DatastoreName, HostId, VmId};
use crate::judgement::{HostState, Severity};
use crate::register::OrderKind;
use crate::settings::{counted, in_words};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

/// All that a reader of events asks of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About<'a> {
    /// How much it matters.
    pub severity: Severity,
    /// The alarm that it raises. Every event of severity [`Severity::Alarm`] raises one, and no other event does.
    pub alarm: Option<Alarm>,
    /// The hosts by which it is found. The host that reports it is none of them.
    pub hosts: Vec<&'a HostId>,
    /// The VM by which it is found.
    pub vm: Option<&'a VmName>,
    /// The datastore by which it is found.
    pub datastore: Option<&'a DatastoreName>,
    /// What it says, for log, command line and API.
    pub text: String,
}

/// An alarm, by its kind and object: of two that are equal only the later one stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    /// A host is failed or isolated, or its agent does not answer.
    Host(HostId),
    /// A datastore is out of reach.
    Datastore(DatastoreName),
    /// The register file of that name on that datastore is damaged, or can't be written.
    Register(DatastoreName, Arc<str>),
    /// A VM can't be protected.
    NotProtectable(VmId),
    /// No host can take a VM.
    WaitsForHost(VmId),
    /// A VM is active on two hosts.
    ActiveTwice(VmId),
    /// A host has other times than the one that reports it.
    Timing(HostId),
    /// A host's file names other hosts or datastores than that of the one that reports it.
    Files(HostId),
    /// A datastore has had two owners in one epoch.
    OwnedTwice(DatastoreName),
    /// There is no guard.
    Guard,
    /// A host says that it has no guard.
    Unguarded(HostId),
    /// Libvirt of the reporting host does not answer.
    Libvirt,
    /// A VM is frozen.
    Frozen(VmId),
    /// The reporting host is isolated.
    Isolated,
    /// Most hosts went silent at once.
    Storm,
    /// Protection of the VMs of a datastore is suspended.
    Suspended(DatastoreName),
    /// Too little is kept for failures.
    Admission,
    /// A VM runs, but its guest agent does not answer.
    NotVerified(VmId),
}

fn info<'a>(text: impl Into<String>) -> About<'a> {
    let text = text.into();
    About { severity: Severity::Info, alarm: None, hosts: Vec::new(), vm: None, datastore: None, text }
}

fn warning<'a>(text: impl Into<String>) -> About<'a> {
    About { severity: Severity::Warning, ..info(text) }
}

fn alarm<'a>(alarm: Alarm, text: impl Into<String>) -> About<'a> {
    About { severity: Severity::Alarm, alarm: Some(alarm), ..info(text) }
}

impl<'a> About<'a> {
    fn vm(self, vm: &'a VmName) -> About<'a> {
        About { vm: Some(vm), ..self }
    }

    fn datastore(self, datastore: &'a DatastoreName) -> About<'a> {
        About { datastore: Some(datastore), ..self }
    }

    fn host(self, host: &'a HostId) -> About<'a> {
        self.hosts([host])
    }

    fn hosts(mut self, hosts: impl IntoIterator<Item = &'a HostId>) -> About<'a> {
        self.hosts.extend(hosts);
        self
    }
}

impl Event {
    /// The row of this event.
    pub fn about(&self) -> About<'_> {
        match self {
            // Agents, elections, and what hosts are taken for.
            Event::AgentStarted { rebooted: true } => info("agent started; the host has rebooted"),
            Event::AgentStarted { rebooted: false } => info("agent started"),
            Event::ElectionStarted { reason } => info(format!("election started: {reason}")),
            Event::BecamePrimary { reason } => info(format!("elected primary: {reason}")),
            Event::FollowsPrimary { primary } => info(format!("follows primary {primary}")).host(primary),
            Event::SteppedDown { reason } => info(format!("stepped down as primary: {reason}")),
            Event::HostStateChanged { host, to, cut_off: true, .. } => {
                let text =
                    format!("{host} is {to} to this host, which reaches nobody itself: {host} may be well");
                info(text).host(host)
            }
            Event::HostStateChanged { host, from, to, last_evidence, cut_off: false } => {
                let was = if from == to { String::new() } else { format!("was {from}, ") };
                let text = format!("{host} {was}is {to} (last sign of life {last_evidence} ago)");
                let row = match to {
                    HostState::Unknown | HostState::Connected => info(text),
                    HostState::Partitioned => warning(text),
                    HostState::Unguarded => alarm(
                        Alarm::Host(host.clone()),
                        format!(
                            "{text}: its guard was gone before, so its VMs may still run there and are restarted nowhere; look at {host}, and when it is down say so (mainstay host confirm-down {host})"
                        ),
                    ),
                    HostState::Isolated | HostState::AgentUnreachable | HostState::Failed => {
                        alarm(Alarm::Host(host.clone()), text)
                    }
                };
                row.host(host)
            }
            Event::HostConfirmedDown { host } => warning(format!(
                "a person has confirmed that {host} is down: its VMs need not wait for it"
            ))
            .host(host),
            Event::HostIsolated => alarm(
                Alarm::Isolated,
                "this host is isolated: it reaches no other host and no isolation address; look at its network",
            ),
            Event::HostNotIsolated => info("this host is not isolated any more"),
            Event::StormSuspected { silent, of } => alarm(
                Alarm::Storm,
                format!(
                    "{silent} of {of} other hosts are silent at once: looking again before anything is restarted"
                ),
            ),
            Event::StormOver => info("the hosts that had gone silent at once were judged one by one, or are heard again"),
            Event::MessageUnreadable { host, reason } => {
                warning(format!("a message of {host} can't be read and was dropped: {reason}")).host(host)
            }
            Event::TimingDiffers { host, theirs, ours } => alarm(
                Alarm::Timing(host.clone()),
                format!(
                    "{host} has a failure time-out of {theirs}, this host one of {ours}: give all hosts the same [timing]; until then the longer one counts"
                ),
            ),
            Event::TimingAgrees { host } => info(format!("{host} has the same times as this host again")),
            Event::FilesDiffer { host, difference } => {
                let what = match difference {
                    Some(difference) => format!("agent.toml differs: {difference}"),
                    None => format!("the agent.toml of {host} names other hosts or datastores than that of this host"),
                };
                alarm(
                    Alarm::Files(host.clone()),
                    format!(
                        "{what}. Until all name the same, nothing is started, restarted or taken over; VMs that run go on. \
                         Correct the file and restart that host's agent"
                    ),
                )
                .host(host)
            }
            Event::FilesAgree { host } => {
                info(format!("the agent.toml of {host} is not in the way any more: it names the same, or the host is down"))
                    .host(host)
            }
            Event::HypervisorLost => warning("libvirt does not answer; VMs go on"),
            Event::HypervisorSilent { lasting } => alarm(
                Alarm::Libvirt,
                format!(
                    "libvirt has not answered on this host for {}: VMs go on, but none can be started, moved or shut down here, and one that stops is noticed late: look after it (systemctl restart libvirtd)",
                    in_words(*lasting)
                ),
            ),
            Event::HypervisorBack => info("libvirt answers"),
            Event::GuardFound { .. } => info("guard found"),
            Event::GuardSilent => alarm(
                Alarm::Guard,
                "the guard does not answer and is replaced: until there is one again, nothing is started, and VMs here can't be frozen",
            ),
            Event::GuardFailed { reason } => alarm(
                Alarm::Guard,
                format!("no guard can be started: {reason}; nothing is started here, and VMs here can't be frozen"),
            ),
            Event::HostUnguarded { host, reason } => {
                let why = reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
                alarm(
                    Alarm::Unguarded(host.clone()),
                    format!(
                        "{host} has no guard that answers{why}: should it be cut off now, its VMs are neither frozen there nor restarted elsewhere; look at its agent's log"
                    ),
                )
                .host(host)
            }
            Event::HostGuarded { host } => info(format!("the guard of {host} answers again")).host(host),
            Event::GuardLost => {
                alarm(Alarm::Guard, "the guard is gone: nothing is started until there is one again")
            }

            // Datastores, their registers and their owners.
            Event::DatastoreLost { datastore, reason } => alarm(
                Alarm::Datastore(datastore.clone()),
                format!("datastore {datastore} is out of reach: {reason}"),
            )
            .datastore(datastore),
            Event::DatastoreBack { datastore } => {
                info(format!("datastore {datastore} is reached")).datastore(datastore)
            }
            Event::HeartbeatDatastoresChosen { datastores } => {
                let names: Vec<&str> = datastores.iter().map(DatastoreName::as_str).collect();
                info(format!("heartbeat datastores: {}", names.join(", ")))
            }
            Event::RegisterUnreadable { datastore, register, reason } => alarm(
                Alarm::Register(datastore.clone(), register.clone()),
                format!("register {register} on datastore {datastore} is unreadable: {reason}"),
            )
            .datastore(datastore),
            Event::RegisterUnwritable { datastore, register, reason } => alarm(
                Alarm::Register(datastore.clone(), register.clone()),
                format!("register {register} on datastore {datastore} can't be written: {reason}"),
            )
            .datastore(datastore),
            Event::RegisterReadable { datastore, register } => {
                info(format!("register {register} on datastore {datastore} is well again"))
                    .datastore(datastore)
            }
            Event::OwnershipAcquired { datastore, epoch, former } => {
                let before = former.as_ref().map(|it| format!("; {it} owned it before")).unwrap_or_default();
                info(format!("owns datastore {datastore} in epoch {epoch}{before}"))
                    .hosts(former)
                    .datastore(datastore)
            }
            Event::OwnedTwice { datastore, epoch, other } => alarm(
                Alarm::OwnedTwice(datastore.clone()),
                format!(
                    "{other} owns datastore {datastore} in epoch {epoch} as this host did: this host has given it up. \
                     Compare the agent.toml of both: each must name the other"
                ),
            )
            .host(other)
            .datastore(datastore),
            Event::OwnershipLost { datastore, epoch, reason } => {
                warning(format!("no longer owns datastore {datastore} (epoch {epoch}): {reason}"))
                    .datastore(datastore)
            }

            // Whether a VM is protected, and what became of it.
            Event::VmProtected { vm, host, datastore } => {
                info(format!("{vm} on {host} is protected (on {datastore})"))
                    .vm(vm)
                    .host(host)
                    .datastore(datastore)
            }
            Event::VmNotProtectable { vm, reason } => {
                alarm(Alarm::NotProtectable(vm.id), format!("{vm} can't be protected: {reason}")).vm(vm)
            }
            Event::VmUnprotected { vm } => {
                info(format!("{vm} is no longer protected: its user asked for it")).vm(vm)
            }
            Event::VmStopped { vm, host, cause, restart: true } => {
                warning(format!("{vm} stopped on {host}: {cause}; it will be restarted")).vm(vm).host(host)
            }
            Event::VmStopped { vm, host, cause, restart: false } => {
                info(format!("{vm} stopped on {host}: {cause}; it stays down")).vm(vm).host(host)
            }

            // From one host to another.
            Event::TakeoverIntended { vm, from, to } => {
                warning(format!("{vm} is to move from {from} to {to}; {from} is checked once more first")).vm(vm).hosts([from, to])
            }
            Event::TakeoverCancelled { vm, host, reason } => {
                warning(format!("{vm} is not taken from {host}: {reason}")).vm(vm).host(host)
            }
            Event::ResponsibilityTaken { vm, from, to } => warning(format!(
                "{vm} of isolated {from} will be restarted on {to} as soon as {from} has stopped it"
            ))
            .vm(vm)
            .hosts([from, to]),
            Event::ResponsibilityDropped { vm, host, reason } => {
                info(format!("{vm} on {host} will not be restarted elsewhere: {reason}")).vm(vm).host(host)
            }
            Event::VmGranted { vm, host, token, attempt, reason } => {
                info(format!("{vm} granted to {host} (grant {token}, attempt {attempt}): {reason}"))
                    .vm(vm)
                    .host(host)
            }
            Event::VmWaitsForHost { vm, reasons } => {
                let why: Vec<String> =
                    reasons.iter().map(|one| format!(" {}: {}", one.host, one.reason)).collect();
                alarm(
                    Alarm::WaitsForHost(vm.id),
                    format!("{vm} waits, no host can take it:{}", why.join(";")),
                )
                .vm(vm)
                .hosts(reasons.iter().map(|one| &one.host))
            }
            Event::VmWaitsForOthers { vm, reason } => info(format!("{vm} {reason}")).vm(vm),
            Event::OrderGivenUp { vm } => {
                warning(format!("{vm} is not ready within its time-out: VMs that waited for it wait no longer"))
                    .vm(vm)
            }
            Event::VmClaimed { vm, token } => {
                info(format!("{vm} is being started here (grant {token})")).vm(vm)
            }
            Event::VmWaitsForStorage { vm, reason } => {
                warning(format!("{vm} waits for the storage: {reason}")).vm(vm)
            }
            Event::VmStarted { vm, token } => info(format!("{vm} started (grant {token})")).vm(vm),
            Event::VmStartFailed { vm, reason } => {
                warning(format!("{vm} could not be started: {reason}")).vm(vm)
            }
            Event::VmRestarted { vm, from, to, attempts } => {
                let of = from.as_ref().map(|from| format!(" of {from}")).unwrap_or_default();
                warning(format!("{vm}{of} runs again on {to} (attempts: {attempts})"))
                    .vm(vm)
                    .hosts(from)
                    .host(to)
            }
            Event::VmNotVerified { vm, host, again: true } => warning(format!(
                "{vm} runs on {host}, but its guest agent, which answered before the failover, does not: it is started elsewhere"
            ))
            .vm(vm)
            .host(host),
            Event::VmNotVerified { vm, host, again: false } => alarm(
                Alarm::NotVerified(vm.id),
                format!(
                    "{vm} runs on {host}, but its guest agent does not answer, and did not on another host: look at its console"
                ),
            )
            .vm(vm)
            .host(host),
            Event::VmVerified { vm, host } => {
                info(format!("the guest agent of {vm} on {host} answers after all")).vm(vm).host(host)
            }

            // Copies and definitions that should not be.
            Event::DefinitionDropped { vm, holder } => {
                info(format!("the definition of {vm} was removed here: the VM belongs to {holder} now"))
                    .vm(vm)
                    .host(holder)
            }
            Event::VmActiveTwice { vm, holder, other } => alarm(
                Alarm::ActiveTwice(vm.id),
                format!("{vm} is active on {other} too, although it was given to {holder}: stop one of the two"),
            )
            .vm(vm)
            .hosts([holder, other]),
            Event::VmActiveOnce { vm, host } => {
                info(format!("{vm} is active on {host} only")).vm(vm).host(host)
            }
            Event::VmCopyRemoved { vm, holder: Some(holder) } => warning(format!(
                "{vm} was given to {holder} meanwhile: the copy on this host was removed"
            ))
            .vm(vm)
            .host(holder),
            Event::VmCopyRemoved { vm, holder: None } => warning(format!(
                "{vm} was given to another host meanwhile, and stopped there: the copy on this host was removed"
            ))
            .vm(vm),

            // What libvirt may start by itself.
            Event::VmAutostart { vm, change: AutostartChange::Off } => info(format!(
                "autostart of {vm} is off on this host while the VM is protected: libvirt would start it at boot, although it may run elsewhere by then; restarts are Mainstay's, which puts autostart back when the VM leaves protection"
            ))
            .vm(vm),
            Event::VmAutostart { vm, change: AutostartChange::OffAgain } => warning(format!(
                "autostart of {vm} was switched on again on this host, and is off again: while the VM is protected, libvirt must not start it by itself; if it is to, take the VM out of protection (mainstay vm unprotect)"
            ))
            .vm(vm),
            Event::VmAutostart { vm, change: AutostartChange::Back } => info(format!(
                "{vm} is not protected any more: its autostart is on again on this host, as it was before"
            ))
            .vm(vm),

            // Freezing, and what isolated hosts do.
            Event::VmFrozen { vm } => alarm(
                Alarm::Frozen(vm.id),
                format!(
                    "{vm} is frozen: this host reaches neither its datastore nor the datastore's owner; it goes on when one of them is reached again"
                ),
            )
            .vm(vm),
            Event::VmThawed { vm } => info(format!("{vm} is frozen no more and goes on")).vm(vm),
            Event::VmContinued { vm } => {
                info(format!("{vm} goes on: QEMU had paused it for an I/O error, and the storage is back"))
                    .vm(vm)
            }
            Event::IsolationResponseApplied { vm, response } => {
                warning(format!("this host is isolated; isolation response of {vm}: {response}")).vm(vm)
            }
            Event::ShutdownTimedOut { vm, after } => {
                warning(format!("{vm} has not shut down within {after}: it is powered off")).vm(vm)
            }
            Event::IsolationResponseStopped { vm } => {
                info(format!("{vm} is left running: this host has contact again, or nobody would restart the VM")).vm(vm)
            }

            // What people asked for.
            Event::SettingsChanged { text } => info(&**text),
            Event::MaintenanceBegun { host, vms } => {
                info(format!("{host} is being emptied for maintenance: {} on it", counted(*vms, "VM")))
                    .host(host)
            }
            Event::MaintenanceReached { host } => {
                info(format!("{host} is empty: in maintenance mode")).host(host)
            }
            Event::MaintenanceLeft { host } => {
                info(format!("{host} has left maintenance mode and takes VMs again")).host(host)
            }
            Event::VmOrdered { vm, host, order } => {
                let (text, to) = match order {
                    OrderKind::Migrate(to) => {
                        (format!("{vm} is to migrate from {host} to {to}"), Some(to))
                    }
                    OrderKind::ShutDown => {
                        (format!("{vm} is to be shut down on {host}, for maintenance"), None)
                    }
                    OrderKind::StartElsewhere => {
                        (format!("{vm} is to be ended on {host} and started elsewhere"), None)
                    }
                };
                info(text).vm(vm).host(host).hosts(to)
            }
            Event::VmOrderFailed { vm, host, order, reason } => {
                let (text, to) = match order {
                    OrderKind::Migrate(to) => {
                        (format!("{vm} could not migrate from {host} to {to}: {reason}"), Some(to))
                    }
                    OrderKind::ShutDown => {
                        (format!("{vm} could not be shut down on {host}: {reason}"), None)
                    }
                    OrderKind::StartElsewhere => {
                        (format!("{vm} could not be ended on {host}: {reason}"), None)
                    }
                };
                warning(text).vm(vm).host(host).hosts(to)
            }
            Event::ProtectionSuspended { datastore, left } => alarm(
                Alarm::Suspended(datastore.clone()),
                format!(
                    "protection of the VMs of {datastore} is suspended for {}: no restart, no isolation response, no freeze",
                    in_words(*left)
                ),
            )
            .datastore(datastore),
            Event::ProtectionResumed { datastore, reason } => {
                info(format!("protection of the VMs of {datastore} goes on: {reason}")).datastore(datastore)
            }
            Event::AdmissionNotMet { objection } => {
                alarm(Alarm::Admission, format!("admission control: {objection}"))
            }
            Event::AdmissionMet => info("admission control: enough is kept for failures again"),
        }
    }

    /// How much it matters.
    pub fn severity(&self) -> Severity {
        self.about().severity
    }

    /// The VM that it is about, if it is about one.
    pub fn vm(&self) -> Option<&VmName> {
        self.about().vm
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.about().text)
    }
}
