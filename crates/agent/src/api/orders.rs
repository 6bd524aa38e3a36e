//! Orders about VMs, rules, groups, hosts and protection: path and query to what the primary is asked. Values that make no
//! sense are refused here, with those that do; whether a thing can be done, the primary's core says.

use super::admission::AdmissionOrder;
use super::query::{Query, Wrong, decode_segment};
use super::{ApiRequest, IsolationOrder};
use mainstay_core::ids::HostId;
use mainstay_core::register::Priority;
use mainstay_core::settings::{Evacuation, READY_TIMEOUT, Readiness, ReadyWhen, RuleKind, Strength};
use mainstay_core::{Command, Span};
use std::sync::Arc;

/// A day: longer waits are mistaken units.
const SECONDS_MAX: u64 = 86_400;
/// A week, as the core has it: a forgotten suspension must end.
const SUSPENSION_SECONDS_MAX: u64 = 7 * 86_400;
/// Names and commands are kept on every datastore.
const NAME_BYTES_MAX: usize = 64;
const COMMAND_BYTES_MAX: usize = 256;
const PRIORITIES: &str = "lowest, low, medium, high, highest, disabled or default";

/// An order that names hosts, by name or id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostOrder {
    /// A rule is so from now on.
    SetRule {
        /// Its name.
        name: Arc<str>,
        /// Whether it binds.
        strength: Strength,
        /// What it says.
        kind: RuleKind,
        /// Names or UUIDs.
        vms: Vec<String>,
        /// Names or ids.
        hosts: Vec<String>,
    },
    /// Keep a host empty for failovers, or not.
    Failover {
        /// Name or id.
        host: String,
        /// Whether.
        keep: bool,
    },
    /// A person has seen to it that a host is down.
    ConfirmDown {
        /// Name or id.
        host: String,
    },
    /// Empty a host.
    EnterMaintenance {
        /// Name or id.
        host: String,
        /// How.
        how: Evacuation,
        /// Whatever speaks against it.
        force: bool,
    },
    /// A host takes VMs again.
    LeaveMaintenance {
        /// Name or id.
        host: String,
        /// With those that were moved away.
        bring_back: bool,
    },
}

impl HostOrder {
    /// The command, with the hosts' ids.
    pub(super) fn command<E>(self, id: impl Fn(&str) -> Result<HostId, E>) -> Result<Command, E> {
        Ok(match self {
            HostOrder::SetRule { name, strength, kind, vms, hosts } => {
                let hosts = hosts.iter().map(|host| id(host)).collect::<Result<_, E>>()?;
                Command::SetRule { name, strength, kind, vms, hosts }
            }
            HostOrder::Failover { host, keep } => Command::SetFailoverHost { host: id(&host)?, keep },
            HostOrder::ConfirmDown { host } => Command::ConfirmDown { host: id(&host)? },
            HostOrder::EnterMaintenance { host, how, force } => {
                Command::EnterMaintenance { host: id(&host)?, how, force }
            }
            HostOrder::LeaveMaintenance { host, bring_back } => {
                Command::LeaveMaintenance { host: id(&host)?, bring_back }
            }
        })
    }
}

/// Reads an order.
pub(super) fn parse(path: &str, query: &str) -> Result<ApiRequest, Wrong> {
    let nowhere = || {
        (404, format!("there is nothing at {path}: see the list of paths in the documentation of the API"))
    };
    let parts: Vec<&str> = path.strip_prefix("/v1/").ok_or_else(nowhere)?.split('/').collect();
    match parts.as_slice() {
        ["vms", vm, verb] => about_vm(&decoded(vm, "a VM")?, verb, query).unwrap_or_else(|| Err(nowhere())),
        ["rules", name] => set_rule(name_of(name, "a rule")?, query).map(ApiRequest::HostOrder),
        ["rules", name, "remove"] => {
            let name = name_of(name, "a rule")?;
            Query::read(query, &[]).map(|_| ApiRequest::Order(Command::RemoveRule { name }))
        }
        ["groups", name] => set_group(name_of(name, "a group")?, query).map(ApiRequest::Order),
        ["groups", name, "remove"] => {
            let name = name_of(name, "a group")?;
            Query::read(query, &[]).map(|_| ApiRequest::Order(Command::RemoveGroup { name }))
        }
        ["admission"] => AdmissionOrder::parse(query).map(ApiRequest::SetAdmission),
        ["hosts", host, rest @ ..] => {
            let host = decoded(host, "a host")?;
            about_host(host, rest, query).unwrap_or_else(|| Err(nowhere())).map(ApiRequest::HostOrder)
        }
        ["suspend"] => suspend(query).map(ApiRequest::Order),
        ["resume"] => Query::read(query, &[]).map(|_| ApiRequest::Order(Command::Resume)),
        _ => Err(nowhere()),
    }
}

fn decoded(segment: &str, what: &str) -> Result<String, Wrong> {
    decode_segment(segment)
        .filter(|name| !name.is_empty())
        .ok_or_else(|| (400, format!("\"{segment}\" is no name of {what}")))
}

/// A name that people give to something new.
fn name_of(segment: &str, what: &str) -> Result<Arc<str>, Wrong> {
    new_name(decoded(segment, what)?, what)
}

fn new_name(name: String, what: &str) -> Result<Arc<str>, Wrong> {
    if name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        let shown: String = name.chars().take(20).collect();
        let reason = format!(
            "\"{}...\" is no name for {what}: use 1 to {NAME_BYTES_MAX} bytes without control characters",
            shown.escape_debug()
        );
        return Err((400, reason));
    }
    Ok(name.into())
}

fn about_vm(vm: &str, verb: &str, query: &str) -> Option<Result<ApiRequest, Wrong>> {
    let vm = vm.to_owned();
    Some(match verb {
        "protect" => Ok(ApiRequest::Order(Command::Protect { vm })),
        "unprotect" => Ok(ApiRequest::Order(Command::Unprotect { vm })),
        "isolation" => IsolationOrder::parse(vm, query).map(ApiRequest::SetIsolation),
        "priority" => priority(vm, query).map(ApiRequest::Order),
        "ready" => {
            readiness(query).map(|readiness| ApiRequest::Order(Command::SetReadiness { vm, readiness }))
        }
        _ => return None,
    })
}

fn priority(vm: String, query: &str) -> Result<Command, Wrong> {
    let query = Query::read(query, &["priority"])?;
    let parse = |word: &str| match word {
        "default" => Some(None),
        word => Priority::parse(word).map(Some),
    };
    let priority = query.word_needed("priority", parse, PRIORITIES)?;
    Ok(Command::SetPriority { vm, priority })
}

fn readiness(query: &str) -> Result<Option<Readiness>, Wrong> {
    let query = Query::read(query, &["when", "command", "delay", "timeout"])?;
    let parse = |word: &str| match word {
        "default" => Some(None),
        "started" => Some(Some(ReadyWhen::Started)),
        "running" => Some(Some(ReadyWhen::Running)),
        "agent" => Some(Some(ReadyWhen::AgentAnswers)),
        "command" => Some(Some(ReadyWhen::CommandSucceeds)),
        _ => None,
    };
    let when = query.word_needed("when", parse, "started, running, agent, command or default")?;
    let command = query.text("command")?;
    let delay = query.number("delay", 0..=SECONDS_MAX)?;
    let timeout = query.number("timeout", 1..=SECONDS_MAX)?;
    let Some(when) = when else {
        if command.is_some() || delay.is_some() || timeout.is_some() {
            return Err((
                400,
                "when=default takes neither command nor delay nor timeout: leave them out".into(),
            ));
        }
        return Ok(None);
    };
    match (&command, when == ReadyWhen::CommandSucceeds) {
        (None, true) => {
            return Err((
                400,
                "command is missing: add command=TEXT, the path of a program in the guest and its arguments"
                    .into(),
            ));
        }
        (Some(_), false) => return Err((400, "a command is run with when=command only".into())),
        (Some(text), true)
            if text.trim().is_empty()
                || text.len() > COMMAND_BYTES_MAX
                || text.chars().any(char::is_control) =>
        {
            return Err((
                400,
                format!(
                    "this command is not possible: write the path of a program in the guest and its arguments with blanks between them, at most {COMMAND_BYTES_MAX} bytes"
                ),
            ));
        }
        (Some(_), true) | (None, false) => {}
    }
    let delay = Span::from_secs(delay.unwrap_or(0));
    let timeout = timeout.map_or(READY_TIMEOUT, Span::from_secs);
    if delay >= timeout {
        // Both count from the VM's start at the earliest: the order would be given up each time.
        let seconds = |span: Span| span.as_millis() / 1_000;
        return Err((
            400,
            format!(
                "delay={} is never over within timeout={}, which counts from the VM's start and includes the delay: use a shorter delay or a longer timeout",
                seconds(delay),
                seconds(timeout)
            ),
        ));
    }
    Ok(Some(Readiness { when, command: command.map(Arc::from), delay, timeout }))
}

fn set_rule(name: Arc<str>, query: &str) -> Result<HostOrder, Wrong> {
    let query = Query::read(query, &["strength", "kind", "vms", "hosts"])?;
    let strength = |word: &str| match word {
        "must" => Some(Strength::Must),
        "should" => Some(Strength::Should),
        _ => None,
    };
    let kind = |word: &str| match word {
        "on-hosts" => Some(RuleKind::OnHosts),
        "not-on-hosts" => Some(RuleKind::NotOnHosts),
        "apart" => Some(RuleKind::Apart),
        "together" => Some(RuleKind::Together),
        _ => None,
    };
    let strength = query.word_needed("strength", strength, "must or should")?;
    let kind = query.word_needed("kind", kind, "on-hosts, not-on-hosts, apart or together")?;
    let (vms, hosts) = (query.list("vms")?, query.list("hosts")?);
    let wrong = |reason: &str| Err((400, reason.to_owned()));
    match kind {
        RuleKind::OnHosts | RuleKind::NotOnHosts if vms.is_empty() => {
            return wrong("vms is missing: add vms=A,B with at least one VM");
        }
        RuleKind::OnHosts | RuleKind::NotOnHosts if hosts.is_empty() => {
            return wrong("hosts is missing: add hosts=A,B with at least one host");
        }
        RuleKind::Apart | RuleKind::Together if vms.len() < 2 => {
            return wrong("a rule of this kind needs two VMs or more: add vms=A,B");
        }
        RuleKind::Apart | RuleKind::Together if !hosts.is_empty() => {
            return wrong(
                "a rule of this kind takes no hosts: leave them out, or use kind=on-hosts or not-on-hosts",
            );
        }
        RuleKind::OnHosts | RuleKind::NotOnHosts | RuleKind::Apart | RuleKind::Together => {}
    }
    Ok(HostOrder::SetRule { name, strength, kind, vms, hosts })
}

fn set_group(name: Arc<str>, query: &str) -> Result<Command, Wrong> {
    let query = Query::read(query, &["vms", "after"])?;
    let vms = query.list("vms")?;
    if vms.is_empty() {
        return Err((400, "vms is missing: add vms=A,B with at least one VM".into()));
    }
    let waits_for = query.list("after")?.into_iter().map(|group| new_name(group, "a group"));
    let waits_for = waits_for.collect::<Result<_, _>>()?;
    Ok(Command::SetGroup { name, vms, waits_for })
}

fn about_host(host: String, rest: &[&str], query: &str) -> Option<Result<HostOrder, Wrong>> {
    Some(match rest {
        ["failover"] => Query::read(query, &["keep"]).and_then(|query| {
            let keep = query.flag("keep")?.unwrap_or(true);
            Ok(HostOrder::Failover { host, keep })
        }),
        ["confirm-down"] => Query::read(query, &[]).map(|_| HostOrder::ConfirmDown { host }),
        ["maintenance", "enter"] => Query::read(query, &["how", "force"]).and_then(|query| {
            let how = |word: &str| match word {
                "migrate" => Some(Evacuation::Migrate),
                "shutdown" => Some(Evacuation::ShutDown),
                _ => None,
            };
            let how = query.word("how", how, "migrate or shutdown")?.unwrap_or_default();
            let force = query.flag("force")?.unwrap_or(false);
            Ok(HostOrder::EnterMaintenance { host, how, force })
        }),
        ["maintenance", "leave"] => Query::read(query, &["bring_back"]).and_then(|query| {
            let bring_back = query.flag("bring_back")?.unwrap_or(false);
            Ok(HostOrder::LeaveMaintenance { host, bring_back })
        }),
        _ => return None,
    })
}

fn suspend(query: &str) -> Result<Command, Wrong> {
    let query = Query::read(query, &["seconds"])?;
    let missing = || (400, format!("seconds is missing: add seconds=N, from 1 to {SUSPENSION_SECONDS_MAX}"));
    let seconds = query.number("seconds", 1..=SUSPENSION_SECONDS_MAX)?.ok_or_else(missing)?;
    Ok(Command::Suspend { length: Span::from_secs(seconds) })
}
