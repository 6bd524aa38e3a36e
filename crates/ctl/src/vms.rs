//! `mainstay vm list`, and the counts of VMs in status.

use crate::style::{Style, Tone};
use crate::words::{HostNames, clean, memory};
use mainstay_core::ids::HostId;
use mainstay_core::register::IsolationResponse;
use mainstay_core::settings::{READY_TIMEOUT, Readiness, ReadyWhen, Settings};
use mainstay_core::time::Span;
use mainstay_core::view::{SuspensionView, View, VmState, VmView};
use serde::Serialize;

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

/// How much a state is to catch the eye.
pub fn tone(state: VmState) -> Tone {
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
pub fn if_isolated(vm: &VmView) -> String {
    let words = response_words(vm.isolation_response, Some(vm.shutdown_timeout));
    let timeout_counts = vm.isolation_response == IsolationResponse::ShutDown;
    if vm.isolation_response_own || (timeout_counts && vm.shutdown_timeout_own) {
        format!("{words}, own")
    } else {
        words
    }
}

/// A VM in the JSON of `vm list`.
#[derive(Debug, Serialize)]
pub struct VmJson<'a> {
    /// The API's words.
    #[serde(flatten)]
    view: &'a VmView,
    /// When those that wait for it may start, if that was set.
    readiness: Option<&'a Readiness>,
    /// Whether its priority was set with `vm priority`.
    priority_own: bool,
    /// Whether it is not protected for the moment, since protection is suspended on its datastore.
    suspended: bool,
}

/// Whether it would be restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// It is protected now.
    Protected,
    /// Not before protection goes on.
    Suspended,
    /// It is not protected, now or when protection goes on.
    Unprotected,
}

impl Protection {
    /// That of a VM.
    pub fn of(vm: &VmView, view: &View) -> Protection {
        let stands = |it: &SuspensionView| it.suspension.stands && it.datastore == vm.datastore;
        match (vm.protected, view.suspensions.iter().any(stands)) {
            (true, false) => Protection::Protected,
            (true, true) => Protection::Suspended,
            (false, _) => Protection::Unprotected,
        }
    }

    /// The word for tables.
    pub fn word(self) -> &'static str {
        match self {
            Protection::Protected => "yes",
            Protection::Suspended => "suspended",
            Protection::Unprotected => "no",
        }
    }
}

/// The VMs, for `--json`.
pub fn json<'a>(vms: &[&'a VmView], view: &'a View) -> Vec<VmJson<'a>> {
    let json = |vm: &&'a VmView| {
        let own = view.settings.vms.get(&vm.vm);
        VmJson {
            view: vm,
            readiness: own.and_then(|own| own.readiness.as_ref()),
            priority_own: own.is_some_and(|own| own.priority.is_some()),
            suspended: Protection::of(vm, view) == Protection::Suspended,
        }
    };
    vms.iter().map(json).collect()
}

/// The priority that counts, and whether it was set for this VM.
pub fn priority(vm: &VmView, settings: &Settings) -> String {
    let priority = settings.priority(vm.vm, vm.priority);
    let own = settings.vms.get(&vm.vm).is_some_and(|own| own.priority.is_some());
    if own { format!("{priority}, own") } else { priority.to_string() }
}

/// What the VM waits for or is asked to do, and what others wait for, if that was set.
fn note(vm: &VmView, settings: &Settings, names: &HostNames) -> String {
    let readiness = settings.vms.get(&vm.vm).and_then(|own| own.readiness.as_ref());
    let notes = vm.note.as_ref().map(|note| names.in_text(note)).into_iter();
    let notes: Vec<_> = notes.chain(readiness.map(ready_words)).collect();
    if notes.is_empty() { "-".to_owned() } else { notes.join("; ") }
}

/// `ready when its guest agent answers, 30 s later`
pub fn ready_words(readiness: &Readiness) -> String {
    let mut words = match (readiness.when, &readiness.command) {
        (ReadyWhen::Started, _) => "ready when started".to_owned(),
        (ReadyWhen::Running, _) => "ready when running".to_owned(),
        (ReadyWhen::AgentAnswers, _) => "ready when its guest agent answers".to_owned(),
        (ReadyWhen::CommandSucceeds, command) => {
            format!(
                "ready when this succeeds in its guest: {}",
                clean(command.as_deref().unwrap_or_default())
            )
        }
    };
    if readiness.delay > Span::ZERO {
        words.push_str(&format!(", {} later", seconds(readiness.delay)));
    }
    if readiness.timeout != READY_TIMEOUT {
        words.push_str(&format!(", waited for {} at most", seconds(readiness.timeout)));
    }
    words
}

/// The table of `mainstay vm list`.
pub fn list(vms: &[&VmView], view: &View, names: &HostNames, style: &Style) -> String {
    let settings = &view.settings;
    let row = |vm: &&VmView| {
        let plain = |text: String| style.cell(Tone::Plain, text);
        vec![
            plain(clean(&vm.name)),
            style.cell(tone(vm.state), state_word(vm.state)),
            plain(vm.host.as_ref().map_or_else(|| "-".to_owned(), |host| names.short(host))),
            match Protection::of(vm, view) {
                it @ Protection::Protected => plain(it.word().to_owned()),
                it @ Protection::Unprotected if vm.state == VmState::Off => plain(it.word().to_owned()),
                it @ (Protection::Suspended | Protection::Unprotected) => {
                    style.cell(Tone::Warning, it.word())
                }
            },
            plain(priority(vm, settings)),
            plain(if_isolated(vm)),
            plain(clean(vm.datastore.as_str())),
            plain(memory(vm.memory_mib)),
            plain(vm.vcpus.to_string()),
            plain(note(vm, settings, names)),
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

/// `12 (11 running, 1 waiting), 11 protected`, and how many are not for the moment. States without a VM are left out, except running.
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
    let are = |wanted| view.vms.iter().filter(|vm| Protection::of(vm, view) == wanted).count();
    let mut text =
        format!("{} ({}), {} protected", view.vms.len(), parts.join(", "), are(Protection::Protected));
    let suspended = are(Protection::Suspended);
    if suspended > 0 {
        text.push_str(&style.paint(Tone::Warning, &format!(", {suspended} suspended")));
    }
    text
}
