//! `mainstay vm list`, and the counts of VMs in status.

use crate::style::{Style, Tone};
use crate::words::{HostNames, clean, memory};
use mainstay_core::ids::HostId;
use mainstay_core::register::IsolationResponse;
use mainstay_core::time::Span;
use mainstay_core::view::{View, VmState, VmView};

/// The VMs, of one host or of all, by name.
pub fn select<'a>(view: &'a View, host: Option<&HostId>) -> Vec<&'a VmView> {
    let wanted = |vm: &&VmView| host.is_none_or(|host| vm.host.as_ref() == Some(host));
    let mut vms: Vec<_> = view.vms.iter().filter(wanted).collect();
    vms.sort_by(|a, b| (&a.name, a.vm).cmp(&(&b.name, b.vm)));
    vms
}

/// The word for a VM's state.
pub fn state_word(state: VmState) -> &'static str {
    match state {
        VmState::Running => "running",
        VmState::Starting => "starting",
        VmState::Frozen => "frozen",
        VmState::Waiting => "waiting",
        VmState::Unknown => "unknown",
        VmState::Off => "off",
    }
}

fn tone(state: VmState) -> Tone {
    match state {
        VmState::Running => Tone::Plain,
        VmState::Off => Tone::Faint,
        VmState::Starting | VmState::Frozen | VmState::Unknown => Tone::Warning,
        VmState::Waiting => Tone::Alarm,
    }
}

/// What an isolated host does with a VM: `leave`, `shut down (120 s)`, `power off`.
pub fn response_words(response: IsolationResponse, shutdown_timeout: Option<Span>) -> String {
    match (response, shutdown_timeout) {
        (IsolationResponse::LeavePoweredOn, _) => "leave".to_owned(),
        (IsolationResponse::ShutDown, Some(span)) => format!("shut down ({})", seconds(span)),
        (IsolationResponse::ShutDown, None) => "shut down".to_owned(),
        (IsolationResponse::PowerOff, _) => "power off".to_owned(),
    }
}

/// A time-out as its user wrote it.
pub fn seconds(span: Span) -> String {
    format!("{} s", span.as_millis() / 1_000)
}

/// What applies to the VM, and whether that is the VM's own.
fn if_isolated(vm: &VmView) -> String {
    let words = response_words(vm.isolation_response, Some(vm.shutdown_timeout));
    let timeout_counts = vm.isolation_response == IsolationResponse::ShutDown;
    if vm.isolation_response_own || (timeout_counts && vm.shutdown_timeout_own) {
        format!("{words}, own")
    } else {
        words
    }
}

/// The table of `mainstay vm list`.
pub fn list(vms: &[&VmView], names: &HostNames, style: &Style) -> String {
    let row = |vm: &&VmView| {
        let plain = |text: String| style.cell(Tone::Plain, text);
        vec![
            plain(clean(&vm.name)),
            style.cell(tone(vm.state), state_word(vm.state)),
            plain(vm.host.as_ref().map_or_else(|| "-".to_owned(), |host| names.short(host))),
            match vm.protected {
                true => plain("yes".to_owned()),
                false if vm.state == VmState::Off => plain("no".to_owned()),
                false => style.cell(Tone::Warning, "no"),
            },
            plain(vm.priority.to_string()),
            plain(if_isolated(vm)),
            plain(clean(vm.datastore.as_str())),
            plain(memory(vm.memory_mib)),
            plain(vm.vcpus.to_string()),
            plain(vm.note.as_ref().map_or_else(|| "-".to_owned(), |note| names.in_text(note))),
        ]
    };
    let headings = [
        "VM",
        "STATE",
        "HOST",
        "PROTECTED",
        "PRIORITY",
        "IF ISOLATED",
        "DATASTORE",
        "MEMORY",
        "VCPUS",
        "NOTE",
    ];
    style.table(&headings, vms.iter().map(row).collect())
}

/// `12 (11 running, 1 waiting), 11 protected`. States without a VM are left out, except running.
pub fn counts(view: &View, style: &Style) -> String {
    if view.vms.is_empty() {
        return "none known".to_owned();
    }
    let count = |state: VmState| view.vms.iter().filter(|vm| vm.state == state).count();
    let mut parts = Vec::new();
    for state in [
        VmState::Running,
        VmState::Starting,
        VmState::Waiting,
        VmState::Frozen,
        VmState::Unknown,
        VmState::Off,
    ] {
        let number = count(state);
        if number > 0 || state == VmState::Running {
            let tone = if state == VmState::Off { Tone::Plain } else { tone(state) };
            parts.push(style.paint(tone, &format!("{number} {}", state_word(state))));
        }
    }
    let protected = view.vms.iter().filter(|vm| vm.protected).count();
    format!("{} ({}), {protected} protected", view.vms.len(), parts.join(", "))
}
