//! `mainstay events`: choosing events and printing them, one per line.

use crate::style::{Style, Tone};
use crate::words::{HostNames, clean};
use mainstay_api::EventRecord;
use mainstay_core::ids::{HostId, VmId};
use mainstay_core::register::OrderKind;
use mainstay_core::{Event, Severity};

/// Which events are wanted.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Not older than this, in microseconds since 1970.
    pub not_before_us: u64,
    /// About this VM: its name or UUID.
    pub vm: Option<String>,
    /// Reported by this host, or about it.
    pub host: Option<HostId>,
    /// At least this severe.
    pub severity: Severity,
}

impl Filter {
    /// Whether the event is wanted.
    pub fn admits(&self, record: &EventRecord) -> bool {
        record.at_unix_us >= self.not_before_us
            && record.severity >= self.severity
            && self.vm.as_ref().is_none_or(|wanted| is_about_vm(record, wanted))
            && self.host.as_ref().is_none_or(|wanted| is_about_host(record, wanted))
    }
}

fn is_about_vm(record: &EventRecord, wanted: &str) -> bool {
    let vm = record.event.as_ref().and_then(Event::vm);
    vm.is_some_and(|vm| &*vm.name == wanted || VmId::parse(wanted) == Some(vm.id))
}

fn is_about_host(record: &EventRecord, wanted: &HostId) -> bool {
    record.host == *wanted || record.event.as_ref().is_some_and(|event| names_host(event, wanted))
}

/// Whether the event has the host among its objects (the reporting host is none of them).
fn names_host(event: &Event, wanted: &HostId) -> bool {
    match event {
        Event::FollowsPrimary { primary: host }
        | Event::HostStateChanged { host, .. }
        | Event::VmProtected { host, .. }
        | Event::VmStopped { host, .. }
        | Event::TakeoverCancelled { host, .. }
        | Event::ResponsibilityDropped { host, .. }
        | Event::MessageUnreadable { host, .. }
        | Event::VmGranted { host, .. }
        | Event::DefinitionDropped { holder: host, .. } => host == wanted,
        Event::TakeoverIntended { from, to, .. } | Event::ResponsibilityTaken { from, to, .. } => {
            from == wanted || to == wanted
        }
        Event::VmRestarted { from, to, .. } => from.as_ref() == Some(wanted) || to == wanted,
        Event::VmActiveTwice { holder, other, .. } => holder == wanted || other == wanted,
        Event::VmActiveOnce { host, .. } => host == wanted,
        Event::VmCopyRemoved { holder, .. } => holder.as_ref() == Some(wanted),
        Event::OwnershipAcquired { former, .. } => former.as_ref() == Some(wanted),
        Event::VmOrdered { host, order, .. } | Event::VmOrderFailed { host, order, .. } => {
            host == wanted || matches!(order, OrderKind::Migrate(to) if to == wanted)
        }
        Event::VmNotVerified { host, .. }
        | Event::VmVerified { host, .. }
        | Event::MaintenanceBegun { host, .. }
        | Event::MaintenanceReached { host }
        | Event::MaintenanceLeft { host } => host == wanted,
        Event::VmWaitsForHost { reasons, .. } => reasons.iter().any(|(host, _)| host == wanted),
        Event::SettingsChanged { .. }
        | Event::VmWaitsForOthers { .. }
        | Event::OrderGivenUp { .. }
        | Event::ProtectionSuspended { .. }
        | Event::ProtectionResumed { .. }
        | Event::AdmissionNotMet { .. }
        | Event::AdmissionMet
        | Event::AgentStarted { .. }
        | Event::ElectionStarted { .. }
        | Event::BecamePrimary { .. }
        | Event::SteppedDown { .. }
        | Event::DatastoreLost { .. }
        | Event::DatastoreBack { .. }
        | Event::OwnershipLost { .. }
        | Event::RegisterUnreadable { .. }
        | Event::RegisterUnwritable { .. }
        | Event::RegisterReadable { .. }
        | Event::VmNotProtectable { .. }
        | Event::VmUnprotected { .. }
        | Event::VmClaimed { .. }
        | Event::VmWaitsForStorage { .. }
        | Event::VmStarted { .. }
        | Event::VmStartFailed { .. }
        | Event::GuardFound { .. }
        | Event::GuardLost
        | Event::VmFrozen { .. }
        | Event::VmThawed { .. }
        | Event::VmContinued { .. }
        | Event::HostIsolated
        | Event::HostNotIsolated
        | Event::IsolationResponseApplied { .. }
        | Event::ShutdownTimedOut { .. }
        | Event::IsolationResponseStopped { .. }
        | Event::StormSuspected { .. }
        | Event::StormOver
        | Event::HeartbeatDatastoresChosen { .. }
        | Event::TimingDiffers { .. }
        | Event::TimingAgrees { .. }
        | Event::HypervisorLost
        | Event::HypervisorBack => false,
    }
}

/// The event as one line: time, host, severity, text.
pub fn line(record: &EventRecord, names: &HostNames, style: &Style) -> String {
    let (tone, severity) = match record.severity {
        Severity::Info => (Tone::Plain, "info   "),
        Severity::Warning => (Tone::Warning, "warning"),
        Severity::Alarm => (Tone::Alarm, "alarm  "),
    };
    let time = style.zone.show(record.at_unix_us);
    let width = names.width();
    let host = names.short(&record.host);
    let text = names.in_text(&record.text);
    format!("{time}  {host:<width$}  {}  {text}\n", style.paint(tone, severity))
}

/// The remark about a host whose events are missing.
pub fn missing_line(host: &HostId, reason: &str, names: &HostNames) -> String {
    format!("warning: events of {} are missing: {}", names.full(host), clean(reason))
}
