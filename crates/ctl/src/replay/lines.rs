//! A step in words: its input in one line, and a line for each effect.

use crate::words::clean;
use mainstay_core::{
    DiskAction, DiskOutcome, Effect, GuardOrder, Input, OpId, ReadRegister, RegisterId, RegisterValue,
    Severity, View, VmId, VmOutcome,
};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// What is known from the steps so far, to say more than a step does by itself.
#[derive(Debug, Default)]
pub struct Known {
    /// The names of VMs.
    names: BTreeMap<VmId, String>,
    /// The operations under way: of which VM, if of one, and in words.
    operations: BTreeMap<OpId, (Option<VmId>, String)>,
}

impl Known {
    /// Learns the names of the VMs that a core knows.
    pub fn learn_view(&mut self, view: &View) {
        for vm in &view.vms {
            self.names.insert(vm.vm, clean(&vm.name));
        }
    }

    /// Learns from an input, before its step.
    pub fn learn_input(&mut self, input: &Input) {
        if let Input::Domain { domain, .. } = input {
            self.names.insert(domain.vm, clean(&domain.name));
        }
        if let Input::Domains { domains, .. } = input {
            self.names.extend(domains.iter().map(|domain| (domain.vm, clean(&domain.name))));
        }
    }

    /// Learns from an effect.
    pub fn learn_effect(&mut self, effect: &Effect) {
        if let Effect::Disk { op, datastore, .. } = effect {
            self.operations.insert(*op, (None, clean(datastore.as_str())));
        }
        if let Effect::Vm { op, action } = effect {
            let text = self.record(action);
            self.operations.insert(*op, (vm_in(action), text));
        }
        if let Effect::Event(event) = effect
            && let Some(vm) = event.vm()
        {
            self.names.insert(vm.id, clean(&vm.name));
        }
    }

    /// Forgets an operation whose outcome has been shown.
    pub fn forget(&mut self, input: &Input) {
        if let Input::DiskDone { op, .. } | Input::VmDone { op, .. } = input {
            self.operations.remove(op);
        }
    }

    /// The operation's VM.
    pub fn vm_of(&self, op: OpId) -> Option<VmId> {
        self.operations.get(&op).and_then(|(vm, _)| *vm)
    }

    /// The VM of that name or UUID.
    pub fn find(&self, name: &str) -> Option<VmId> {
        let by_name = || self.names.iter().find(|(_, known)| *known == name).map(|(vm, _)| *vm);
        VmId::parse(name).or_else(by_name)
    }

    /// What the operation is about.
    pub fn operation(&self, op: OpId) -> String {
        // Asked for before the recording began.
        self.operations.get(&op).map_or_else(|| format!("operation {}", op.0), |(_, text)| text.clone())
    }

    /// The input in one line.
    pub fn input(&self, input: &Input) -> String {
        match input {
            Input::Tick => "tick".into(),
            Input::Message { from, message } => {
                let kind = mainstay_formats::wire::kind(&message.body);
                format!("message {} from {}: {kind}", message.sequence, clean(from.as_str()))
            }
            Input::DiskDone { op, outcome } => format!("{}: {}", self.operation(*op), outcome_words(outcome)),
            Input::PingDone { host, answered } => {
                format!("ping of {}: {}", clean(host.as_str()), answered_words(*answered))
            }
            Input::IsolationPingDone { index, answered } => {
                format!("ping of isolation address {index}: {}", answered_words(*answered))
            }
            Input::Guard(report) => format!("guard: {}", self.record(report)),
            Input::GuardLost => "the connection to the guard is gone".into(),
            Input::GuardFailed { reason } => format!("no guard can be started: {}", clean(reason)),
            Input::Domains { domains, .. } => format!("all domains: {}", domains.len()),
            Input::Domain { domain, .. } => format!("domain {} {:?}", clean(&domain.name), domain.state),
            Input::HypervisorLost => "libvirt does not answer".into(),
            Input::Capacity(capacity) => format!(
                "capacity: {} of {} MiB free, {} domains",
                capacity.memory_free_mib, capacity.memory_mib, capacity.domains
            ),
            Input::Offers(offers) => format!(
                "offers: {} networks, {} CPU models, {} machine types, {} devices, {} MHz",
                offers.networks.len(),
                offers.cpu_models.len(),
                offers.machines.len(),
                offers.devices.len(),
                offers.cpu_mhz
            ),
            Input::VmDone { op, outcome } => {
                let how = match outcome {
                    VmOutcome::Done => "done".to_owned(),
                    VmOutcome::Failed(reason) => format!("failed: {}", clean(reason)),
                    VmOutcome::Unknown(reason) => format!("nobody knows: {}", clean(reason)),
                };
                format!("{}: {how}", self.operation(*op))
            }
            Input::VmWaits { op, why } => format!("{} waits: {}", self.operation(*op), clean(why)),
            Input::XmlStored { datastore, vm, error, .. } => {
                let how =
                    error.as_ref().map_or("stored".into(), |error| format!("not stored: {}", clean(error)));
                format!("XML of {} on {}: {how}", self.name(*vm), clean(datastore.as_str()))
            }
            Input::Operator { request, command } => format!("request {request}: {}", self.record(command)),
            Input::Stop => "asked to stop".into(),
        }
    }

    /// The effect in one line; `None` when it is routine and `verbose` is not set.
    pub fn effect(&self, effect: &Effect, verbose: bool) -> Option<String> {
        let (routine, text) = match effect {
            Effect::Send { to, message } => {
                let kind = mainstay_formats::wire::kind(&message.body);
                (true, format!("send message {} to {}: {kind}", message.sequence, clean(to.as_str())))
            }
            Effect::Disk { datastore, action: DiskAction::Read(registers), .. } => {
                let names: Vec<String> = registers.iter().map(register_name).collect();
                (true, format!("read {}: {}", clean(datastore.as_str()), names.join(", ")))
            }
            Effect::Disk { datastore, action: DiskAction::Write(register, value), .. } => {
                let routine = matches!(register, RegisterId::Heartbeat(_));
                let (datastore, name) = (clean(datastore.as_str()), register_name(register));
                (routine, format!("write {datastore}: {name} {}", value_words(value)))
            }
            Effect::Ping { host } => (true, format!("ping {}", clean(host.as_str()))),
            Effect::PingIsolation { index } => (true, format!("ping isolation address {index}")),
            Effect::Guard(order) => {
                let routine = matches!(order, GuardOrder::Alive { .. } | GuardOrder::Lease { .. });
                (routine, format!("guard: {}", self.record(order)))
            }
            Effect::ReplaceGuard => (false, "replace the guard".into()),
            Effect::Vm { action, .. } => (false, format!("VM: {}", self.record(action))),
            Effect::StoreXml { datastore, vm, .. } => {
                (false, format!("store XML of {} on {}", self.name(*vm), clean(datastore.as_str())))
            }
            Effect::Event(event) => {
                let severity = match event.severity() {
                    Severity::Info => "info",
                    Severity::Warning => "warning",
                    Severity::Alarm => "alarm",
                };
                (false, format!("{severity}: {}", clean(&event.to_string())))
            }
            Effect::Reply { request, result, .. } => {
                let how = match result {
                    Ok(text) => clean(text),
                    Err(text) => format!("refused: {}", clean(text)),
                };
                (false, format!("reply {request}: {how}"))
            }
        };
        (verbose || !routine).then_some(text)
    }

    fn name(&self, vm: VmId) -> String {
        self.names.get(&vm).cloned().unwrap_or_else(|| vm.to_string())
    }

    /// `thaw web term 3`: a variant of an enum and its fields, with VMs by their names.
    fn record(&self, of: &impl Serialize) -> String {
        let Ok(value) = serde_json::to_value(of) else { return "?".into() };
        let (kind, fields) = match &value {
            Value::Object(variant) => match variant.iter().next() {
                Some((kind, fields)) => (kind.as_str(), Some(fields)),
                None => ("", None),
            },
            Value::String(kind) => (kind.as_str(), None),
            _ => return self.plain(&value),
        };
        let mut text = kind.to_lowercase();
        let all = fields.and_then(Value::as_object).into_iter().flatten();
        for (name, value) in all.filter(|(_, value)| !value.is_null()) {
            let value = self.plain(value);
            if name == "vm" { text += &format!(" {value}") } else { text += &format!(", {name} {value}") }
        }
        text
    }

    fn plain(&self, value: &Value) -> String {
        match value {
            Value::String(text) => VmId::parse(text).map_or_else(|| clean(text), |vm| self.name(vm)),
            Value::Array(items) => {
                let items: Vec<String> = items.iter().map(|item| self.plain(item)).collect();
                format!("[{}]", items.join(", "))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
        }
    }
}

/// The VM that a value names in its field `vm`.
fn vm_in(of: &impl Serialize) -> Option<VmId> {
    let value = serde_json::to_value(of).ok()?;
    let fields = value.as_object()?.values().next()?;
    VmId::parse(fields.get("vm")?.as_str()?)
}

fn answered_words(answered: bool) -> &'static str {
    if answered { "answered" } else { "no answer" }
}

fn outcome_words(outcome: &DiskOutcome) -> String {
    match outcome {
        DiskOutcome::Written => "written".into(),
        DiskOutcome::Failed(reason) => format!("failed: {}", clean(reason)),
        DiskOutcome::Read(registers) => {
            let read = registers.iter().map(|one| {
                let what = match &one.found {
                    ReadRegister::Value(value) => value_words(value),
                    ReadRegister::Missing => "(missing)".into(),
                    ReadRegister::Unreadable(reason, _) => format!("(unreadable: {})", clean(reason)),
                };
                format!("{} {what}", register_name(&one.id))
            });
            format!("read {}", read.collect::<Vec<_>>().join(", "))
        }
    }
}

/// A register by its file name.
pub fn register_name(register: &RegisterId) -> String {
    match register {
        RegisterId::Heartbeat(host) => format!("{}-hb", clean(host.as_str())),
        RegisterId::PowerOn(host) => format!("{}-poweron", clean(host.as_str())),
        RegisterId::Ownership(host) => format!("{}-owner", clean(host.as_str())),
        RegisterId::ProtectedList(epoch) => format!("protectedlist of epoch {epoch}"),
    }
}

fn value_words(value: &RegisterValue) -> String {
    match value {
        RegisterValue::Heartbeat(heartbeat) => format!("(counter {})", heartbeat.counter),
        RegisterValue::PowerOn(list) => format!("(version {}, {} VMs)", list.version, list.claims.len()),
        RegisterValue::Ownership(block) => match &block.beat {
            Some(beat) if beat.released => format!("(epoch {} released)", beat.epoch),
            Some(beat) => format!("(beat {} in epoch {})", beat.counter, beat.epoch),
            None => format!("(contends for epoch {})", block.instance),
        },
        RegisterValue::ProtectedList(list) => {
            format!("({}.{}, {} VMs)", list.epoch, list.version, list.entries.len())
        }
    }
}
