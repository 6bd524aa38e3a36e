//! What an administrator can order, and how each order is written: as path and query of a POST request.
//!
//! [`Order`] is the only list of orders. The command line makes one of its arguments, the client sends what
//! [`Order::target`] writes, and the agent reads it with [`Order::parse`] and makes the core's command of it. Both
//! directions of an order stand in one file, that of its subject: `vms`, `rules` (with groups), `admission`, `hosts`.
//!
//! Invariant: an order within the limits of this grammar is read as it was written (`tests/orders.rs`).
//!
//! Why paths, not a JSON body: scripts send them with curl, and agents forward them to a primary of an older release.
//!
//! What it does not do: know which VMs and hosts there are, or whether the order can be carried out. VMs and hosts are
//! named here as the administrator named them.

mod admission;
mod hosts;
mod rules;
mod vms;

pub use admission::AdmissionOrder;
pub use hosts::HostOrder;
pub use rules::{GroupOrder, RuleOrder};
pub use vms::{SHUTDOWN_TIMEOUT_MAX, Setting, VmOrder};

use crate::query::{Query, Target, Wrong, decode_segment};
use mainstay_words::Span;
use std::sync::Arc;

/// A week, as the core has it: a forgotten suspension must end.
const SUSPENSION_SECONDS_MAX: u64 = 7 * 86_400;
/// Names of rules and groups are kept on every datastore.
const NAME_BYTES_MAX: usize = 64;

/// An order to the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// About one VM.
    Vm {
        /// Its name or UUID.
        vm: String,
        /// What is ordered.
        order: VmOrder,
    },
    /// About a rule.
    Rule {
        /// The rule's name.
        name: Arc<str>,
        /// What is ordered.
        order: RuleOrder,
    },
    /// About a start group.
    Group {
        /// The group's name.
        name: Arc<str>,
        /// What is ordered.
        order: GroupOrder,
    },
    /// About admission control.
    Admission(AdmissionOrder),
    /// About one host.
    Host {
        /// Its name or id.
        host: String,
        /// What is ordered.
        order: HostOrder,
    },
    /// Suspend protection on all datastores.
    Suspend {
        /// It ends by itself after this time.
        length: Span,
    },
    /// End the suspension of protection.
    Resume,
}

impl Order {
    /// Reads an order from the path and query of a request.
    pub fn parse(path: &str, query: &str) -> Result<Order, Wrong> {
        let nowhere = || Wrong::nowhere(path);
        let parts: Vec<&str> = path.strip_prefix("/v1/").ok_or_else(nowhere)?.split('/').collect();
        match parts.as_slice() {
            ["vms", vm, verb] => {
                let vm = decoded(vm, "a VM")?;
                let order = VmOrder::parse(verb, query).unwrap_or_else(|| Err(nowhere()))?;
                Ok(Order::Vm { vm, order })
            }
            ["rules", name, rest @ ..] => {
                let name = new_name(decoded(name, "a rule")?, "a rule")?;
                let order = RuleOrder::parse(rest, query).unwrap_or_else(|| Err(nowhere()))?;
                Ok(Order::Rule { name, order })
            }
            ["groups", name, rest @ ..] => {
                let name = new_name(decoded(name, "a group")?, "a group")?;
                let order = GroupOrder::parse(rest, query).unwrap_or_else(|| Err(nowhere()))?;
                Ok(Order::Group { name, order })
            }
            ["admission"] => AdmissionOrder::parse(query).map(Order::Admission),
            ["hosts", host, rest @ ..] => {
                let host = decoded(host, "a host")?;
                let order = HostOrder::parse(rest, query).unwrap_or_else(|| Err(nowhere()))?;
                Ok(Order::Host { host, order })
            }
            ["suspend"] => suspend(query),
            ["resume"] => Query::read(query, &[]).map(|_| Order::Resume),
            _ => Err(nowhere()),
        }
    }

    /// Writes the order as path and query of a request.
    pub fn target(&self) -> String {
        let target = match self {
            Order::Vm { vm, order } => order.write(Target::of(&["vms", vm])),
            Order::Rule { name, order } => order.write(Target::of(&["rules", name])),
            Order::Group { name, order } => order.write(Target::of(&["groups", name])),
            Order::Admission(order) => order.write(Target::of(&["admission"])),
            Order::Host { host, order } => order.write(Target::of(&["hosts", host])),
            Order::Suspend { length } => Target::of(&["suspend"]).with("seconds", seconds(*length)),
            Order::Resume => Target::of(&["resume"]),
        };
        target.into()
    }

    /// The VMs that the order names.
    pub fn vms(&self) -> &[String] {
        match self {
            Order::Vm { vm, .. } => std::slice::from_ref(vm),
            Order::Rule { order: RuleOrder::Set { vms, .. }, .. }
            | Order::Group { order: GroupOrder::Set { vms, .. }, .. } => vms,
            Order::Rule { order: RuleOrder::Remove, .. }
            | Order::Group { order: GroupOrder::Remove, .. }
            | Order::Admission(_)
            | Order::Host { .. }
            | Order::Suspend { .. }
            | Order::Resume => &[],
        }
    }

    /// The hosts that the order names.
    pub fn hosts(&self) -> &[String] {
        match self {
            Order::Host { host, .. } => std::slice::from_ref(host),
            Order::Rule { order: RuleOrder::Set { hosts, .. }, .. } => hosts,
            Order::Vm { .. }
            | Order::Rule { order: RuleOrder::Remove, .. }
            | Order::Group { .. }
            | Order::Admission(_)
            | Order::Suspend { .. }
            | Order::Resume => &[],
        }
    }
}

fn suspend(query: &str) -> Result<Order, Wrong> {
    let query = Query::read(query, &["seconds"])?;
    let seconds = query.number("seconds", 1..=SUSPENSION_SECONDS_MAX)?.ok_or_else(|| {
        Wrong::value(format!("seconds is missing: add seconds=N, from 1 to {SUSPENSION_SECONDS_MAX}"))
    })?;
    Ok(Order::Suspend { length: Span::from_secs(seconds) })
}

/// A name as it stands in a path.
fn decoded(segment: &str, what: &str) -> Result<String, Wrong> {
    decode_segment(segment)
        .filter(|name| !name.is_empty())
        .ok_or_else(|| Wrong::value(format!("\"{segment}\" is no name of {what}")))
}

/// A name that people give to something new.
fn new_name(name: String, what: &str) -> Result<Arc<str>, Wrong> {
    if name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        let shown: String = name.chars().take(20).collect();
        return Err(Wrong::value(format!(
            "\"{}...\" is no name for {what}: use 1 to {NAME_BYTES_MAX} bytes without control characters",
            shown.escape_debug()
        )));
    }
    Ok(name.into())
}

/// Whole seconds, as orders have them.
fn seconds(span: Span) -> u64 {
    span.as_millis() / 1_000
}
