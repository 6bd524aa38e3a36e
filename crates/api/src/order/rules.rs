//! Orders about rules (where VMs may run) and start groups.

use super::new_name;
use crate::query::{Query, Target, Wrong};
use crate::words::Word;
use mainstay_words::settings::{RuleKind, Strength};
use std::sync::Arc;

/// What is ordered about a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleOrder {
    /// The rule is so from now on.
    Set {
        /// Whether it binds.
        strength: Strength,
        /// What it says.
        kind: RuleKind,
        /// Its VMs, by name or UUID.
        vms: Vec<String>,
        /// Its hosts, by name or id.
        hosts: Vec<String>,
    },
    /// There is no such rule any more.
    Remove,
}

/// What is ordered about a start group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupOrder {
    /// The group is so from now on.
    Set {
        /// Its VMs, by name or UUID.
        vms: Vec<String>,
        /// The groups for which it waits.
        waits_for: Vec<Arc<str>>,
    },
    /// There is no such group any more.
    Remove,
}

impl RuleOrder {
    /// Reads what stands behind the rule's name. `None`: there is no such path.
    pub(super) fn parse(rest: &[&str], query: &str) -> Option<Result<RuleOrder, Wrong>> {
        Some(match rest {
            [] => set_rule(query),
            ["remove"] => Query::read(query, &[]).map(|_| RuleOrder::Remove),
            _ => return None,
        })
    }

    /// Writes it behind the rule's name.
    pub(super) fn write(&self, rule: Target) -> Target {
        match self {
            RuleOrder::Set { strength, kind, vms, hosts } => rule
                .with("strength", strength.word())
                .with("kind", kind.word())
                .with_list("vms", vms)
                .with_list("hosts", hosts),
            RuleOrder::Remove => rule.then("remove"),
        }
    }
}

impl GroupOrder {
    /// Reads what stands behind the group's name. `None`: there is no such path.
    pub(super) fn parse(rest: &[&str], query: &str) -> Option<Result<GroupOrder, Wrong>> {
        Some(match rest {
            [] => set_group(query),
            ["remove"] => Query::read(query, &[]).map(|_| GroupOrder::Remove),
            _ => return None,
        })
    }

    /// Writes it behind the group's name.
    pub(super) fn write(&self, group: Target) -> Target {
        match self {
            GroupOrder::Set { vms, waits_for } => group.with_list("vms", vms).with_list("after", waits_for),
            GroupOrder::Remove => group.then("remove"),
        }
    }
}

fn set_rule(query: &str) -> Result<RuleOrder, Wrong> {
    let query = Query::read(query, &["strength", "kind", "vms", "hosts"])?;
    let strength = query.word_needed("strength", Strength::from_word, &Strength::list(&[]))?;
    let kind = query.word_needed("kind", RuleKind::from_word, &RuleKind::list(&[]))?;
    let (vms, hosts) = (query.list("vms")?, query.list("hosts")?);
    let wrong = |reason: &str| Err(Wrong::value(reason));
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
    Ok(RuleOrder::Set { strength, kind, vms, hosts })
}

fn set_group(query: &str) -> Result<GroupOrder, Wrong> {
    let query = Query::read(query, &["vms", "after"])?;
    let vms = query.list("vms")?;
    if vms.is_empty() {
        return Err(Wrong::value("vms is missing: add vms=A,B with at least one VM"));
    }
    let waits_for = query.list("after")?.into_iter().map(|group| new_name(group, "a group"));
    Ok(GroupOrder::Set { vms, waits_for: waits_for.collect::<Result<_, _>>()? })
}
