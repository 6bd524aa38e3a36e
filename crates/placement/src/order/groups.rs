//! Can the start groups be put into an order at all?

use crate::picture::{Name, Picture, Priority};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::fmt;

/// Why the start groups can't be put into an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrderError {
    /// Each of these groups waits for the next, and the last for the first.
    Circle(Vec<Name>),
    /// The first VM waits for the second by their groups, and the second for the first by its priority.
    Priorities {
        /// The group that waits.
        group: Name,
        /// A VM in it.
        vm: Name,
        /// That VM's priority.
        priority: Priority,
        /// The group that is waited for.
        other_group: Name,
        /// A VM in it, of a lower priority.
        other: Name,
        /// That VM's priority.
        other_priority: Priority,
    },
}

impl fmt::Display for OrderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Circle(groups) => {
                f.write_str("these groups wait for each other in a circle: ")?;
                for group in groups {
                    write!(f, "`{group}` waits for ")?;
                }
                match groups.first() {
                    Some(first) => write!(f, "`{first}`; take one of these dependencies out"),
                    None => f.write_str("nothing"),
                }
            }
            Self::Priorities { group, vm, priority, other_group, other, other_priority } => write!(
                f,
                "{vm} (priority {priority}, group `{group}`) waits for {other} (priority {other_priority}, group `{other_group}`), \
                 which waits for {vm} because its priority is lower; raise the priority of {other} to {priority}, or take the \
                 dependency out"
            ),
        }
    }
}

impl core::error::Error for OrderError {}

/// Refuses groups that wait for each other in a circle, and groups in which a VM of a higher priority waits for one of a lower.
pub fn check_groups(picture: &Picture) -> Result<(), OrderError> {
    circle(picture)?;
    for (group, body) in &picture.groups {
        let Some((vm, priority)) = restarted(picture, &body.vms).max_by_key(|(_, priority)| *priority) else {
            continue;
        };
        for other_group in &body.waits_for {
            let others = picture.groups.get(other_group).map_or(&[][..], |other| &other.vms);
            let lowest = restarted(picture, others).min_by_key(|(_, priority)| *priority);
            if let Some((other, other_priority)) = lowest.filter(|(_, lowest)| *lowest < priority) {
                return Err(OrderError::Priorities {
                    group: group.clone(),
                    vm: vm.clone(),
                    priority,
                    other_group: other_group.clone(),
                    other: other.clone(),
                    other_priority,
                });
            }
        }
    }
    Ok(())
}

fn restarted<'a>(picture: &'a Picture, vms: &'a [Name]) -> impl Iterator<Item = (&'a Name, Priority)> {
    let priority = |vm: &'a Name| picture.vms.get(vm).map(|slot| (vm, slot.priority));
    vms.iter().filter_map(priority).filter(|(_, priority)| *priority != Priority::Disabled)
}

/// Which groups each group waits for. A VM in two groups makes each of them wait for what the other waits for.
fn edges(picture: &Picture) -> BTreeMap<&Name, BTreeSet<&Name>> {
    let own = |name: &Name| picture.groups.get_key_value(name).map(|(name, _)| name);
    let mut waits_of: BTreeMap<&Name, BTreeSet<&Name>> = BTreeMap::new();
    for group in picture.groups.values() {
        for vm in &group.vms {
            waits_of.entry(vm).or_default().extend(group.waits_for.iter().filter_map(own));
        }
    }
    let mut edges = BTreeMap::new();
    for (name, group) in &picture.groups {
        let by_members = group.vms.iter().filter_map(|vm| waits_of.get(vm)).flatten().copied();
        let all: BTreeSet<&Name> = by_members.chain(group.waits_for.iter().filter_map(own)).collect();
        edges.insert(name, all);
    }
    edges
}

/// Looks for a circle, depth first, without recursion: a chain of groups may be long.
fn circle(picture: &Picture) -> Result<(), OrderError> {
    let edges = edges(picture);
    let mut clear: BTreeSet<&Name> = BTreeSet::new();
    for start in edges.keys().copied() {
        let mut path: Vec<(&Name, Vec<&Name>)> = Vec::new();
        let mut next = Some(start);
        while let Some(group) = next.take().or_else(|| path.last_mut().and_then(|(_, rest)| rest.pop())) {
            if let Some(from) = path.iter().position(|(other, _)| *other == group) {
                let groups = path[from..].iter().map(|(name, _)| (*name).clone()).collect();
                return Err(OrderError::Circle(groups));
            }
            if !clear.contains(group) {
                let rest =
                    edges.get(group).map(|all| all.iter().rev().copied().collect()).unwrap_or_default();
                path.push((group, rest));
            }
            while path.last().is_some_and(|(_, rest)| rest.is_empty()) {
                if let Some((done, _)) = path.pop() {
                    clear.insert(done);
                }
            }
        }
    }
    Ok(())
}
