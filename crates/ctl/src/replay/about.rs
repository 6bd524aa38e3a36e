//! Which steps concern a VM or a host: `--vm` and `--host`.
//!
//! Registers and lists of domains name all VMs each time they are read. Such a step concerns a VM only when what it says of
//! that VM is not what was said the last time.

use super::lines::{Known, register_name};
use mainstay_core::{DiskAction, DiskOutcome, Effect, HostId, Input, OpId, RegisterId, VmId};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// The wish of the command line, and what was said of the VM last.
pub struct About {
    vm: Option<String>,
    host: Option<HostId>,
    said: BTreeMap<String, String>,
}

impl About {
    /// Of the values of `--vm` and `--host`.
    pub fn new(vm: Option<&str>, host: Option<&str>) -> About {
        About { vm: vm.map(str::to_owned), host: host.map(HostId::new), said: BTreeMap::new() }
    }

    /// Whether the step is to be shown. Must be asked for each step, in order.
    pub fn admits(&mut self, recorded_by: &HostId, input: &Input, effects: &[Effect], known: &Known) -> bool {
        let of_host = match &self.host {
            Some(host) if host != recorded_by => concerns_host(host, input, effects),
            Some(_) | None => true,
        };
        let Some(name) = self.vm.clone() else { return of_host };
        let Some(vm) = known.find(&name) else { return false };
        let of_vm = self.concerns_vm(vm, &name, input, effects, known);
        of_vm && of_host
    }

    fn concerns_vm(
        &mut self,
        vm: VmId,
        name: &str,
        input: &Input,
        effects: &[Effect],
        known: &Known,
    ) -> bool {
        let of_operation = |op: OpId| known.vm_of(op) == Some(vm);
        let mut concerned = match input {
            Input::VmDone { op, .. } | Input::VmWaits { op, .. } => of_operation(*op),
            Input::DiskDone { op, outcome: DiskOutcome::Read(registers) } => {
                let datastore = known.operation(*op);
                registers.iter().fold(false, |news, one| {
                    let key = format!("{datastore}/{}", register_key(&one.id));
                    self.is_news(key, vm, &one.found) || news
                })
            }
            Input::Domain { domain, .. } => domain.vm == vm && self.is_news("domain".into(), vm, domain),
            Input::Domains { domains, .. } => self.is_news("domain".into(), vm, domains),
            Input::Guard(report) => self.is_news("guard".into(), vm, report),
            Input::Operator { command, .. } => {
                let value = serde_json::to_value(command).unwrap_or_default();
                names(&value, name) || names(&value, &vm.to_string())
            }
            Input::XmlStored { vm: stored, .. } => *stored == vm,
            Input::Tick
            | Input::Message { .. }
            | Input::DiskDone { .. }
            | Input::PingDone { .. }
            | Input::IsolationPingDone { .. }
            | Input::GuardLost
            | Input::GuardFailed { .. }
            | Input::HypervisorLost
            | Input::Capacity(_)
            | Input::Offers(_)
            | Input::Stop => false,
        };
        for effect in effects {
            concerned |= match effect {
                Effect::Disk { datastore, action: DiskAction::Write(register, value), .. } => {
                    self.is_news(format!("{datastore}/{}", register_key(register)), vm, value)
                }
                Effect::Event(event) => event.vm().is_some_and(|about| about.id == vm),
                Effect::Vm { op, .. } => of_operation(*op),
                Effect::StoreXml { vm: stored, .. } => *stored == vm,
                Effect::Guard(order) => self.is_news("order".into(), vm, order),
                Effect::Disk { .. }
                | Effect::Send { .. }
                | Effect::Ping { .. }
                | Effect::PingIsolation { .. }
                | Effect::ReplaceGuard
                | Effect::Reply { .. } => false,
            };
        }
        concerned
    }

    /// Whether `value` says of the VM what `key` did not say the last time.
    fn is_news(&mut self, key: String, vm: VmId, value: &impl Serialize) -> bool {
        let value = serde_json::to_value(value).unwrap_or_default();
        let mut said = String::new();
        about_vm(&value, &vm.to_string(), &mut said);
        if said.is_empty() && !self.said.contains_key(&key) {
            return false;
        }
        self.said.insert(key, said.clone()).is_none_or(|before| before != said)
    }
}

/// Protected lists of all epochs are one list, as far as a VM is concerned.
fn register_key(register: &RegisterId) -> String {
    match register {
        RegisterId::ProtectedList(_) => "protectedlist".into(),
        RegisterId::Heartbeat(_) | RegisterId::PowerOn(_) | RegisterId::Ownership(_) => {
            register_name(register)
        }
    }
}

/// Appends all objects that have the VM in their field `vm`, and the lists that hold it by itself.
fn about_vm(value: &Value, vm: &str, said: &mut String) {
    match value {
        Value::Object(fields) => {
            if fields.get("vm").and_then(Value::as_str) == Some(vm) {
                said.push_str(&value.to_string());
                return;
            }
            fields.values().for_each(|field| about_vm(field, vm, said));
        }
        Value::Array(items) => items.iter().for_each(|item| match item {
            Value::String(text) if text == vm => said.push('+'),
            Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
            Value::Array(_) | Value::Object(_) => about_vm(item, vm, said),
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Whether a text of the value is that name.
fn names(value: &Value, name: &str) -> bool {
    match value {
        Value::String(text) => text == name,
        Value::Array(items) => items.iter().any(|item| names(item, name)),
        Value::Object(fields) => fields.values().any(|field| names(field, name)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Words from the host, and decisions that name it. Reads of its registers do not count: they never end.
fn concerns_host(host: &HostId, input: &Input, effects: &[Effect]) -> bool {
    let heard = match input {
        Input::Message { from, .. } => from == host,
        Input::PingDone { host: pinged, .. } => pinged == host,
        Input::Tick
        | Input::DiskDone { .. }
        | Input::IsolationPingDone { .. }
        | Input::Guard(_)
        | Input::GuardLost
        | Input::GuardFailed { .. }
        | Input::Domains { .. }
        | Input::Domain { .. }
        | Input::HypervisorLost
        | Input::Capacity(_)
        | Input::Offers(_)
        | Input::VmDone { .. }
        | Input::VmWaits { .. }
        | Input::XmlStored { .. }
        | Input::Operator { .. }
        | Input::Stop => false,
    };
    let told = |effect: &Effect| match effect {
        Effect::Event(event) => names(&serde_json::to_value(event).unwrap_or_default(), host.as_str()),
        Effect::Send { .. }
        | Effect::Disk { .. }
        | Effect::Ping { .. }
        | Effect::PingIsolation { .. }
        | Effect::Guard(_)
        | Effect::ReplaceGuard
        | Effect::Vm { .. }
        | Effect::StoreXml { .. }
        | Effect::Reply { .. } => false,
    };
    heard || effects.iter().any(told)
}
