//! I5: once everything but dead hosts is healed, every VM that is to run runs, once, and is protected, within a bound. Nothing
//! of a start lies about half done.

use super::user_word::{Protection, Wanted};
use crate::world::World;
use mainstay_core::register::{ClaimState, Desired, Entry};
use mainstay_core::{RegisterId, RegisterValue};

/// What is not as it should be in the end, VM by VM; empty when all is well.
pub fn stuck(world: &World) -> Vec<String> {
    let mut stuck = Vec::new();
    for vm in 0..world.setup().vms.len() {
        let truth = world.checkers().user_word.truth(vm);
        let runs: Vec<usize> = world.executing(vm).collect();
        let problem = match (truth.wanted, runs.as_slice()) {
            // A cluster without room for it, by this file's own arithmetic: it waits.
            (Wanted::On, []) if !has_room(world, vm) => None,
            (Wanted::On, []) => Some(String::from("is to run, and does not")),
            (Wanted::Off | Wanted::Either, []) => None,
            (Wanted::On | Wanted::Either, [host]) => match truth.protection {
                Protection::Yes => unprotected(world, vm, *host),
                Protection::No | Protection::Unanswered => None,
            },
            (Wanted::Off, [host]) => {
                Some(format!("is to be off, and runs on {}", world.setup().hosts[*host].id))
            }
            (Wanted::On | Wanted::Off | Wanted::Either, [_, _, ..]) => {
                Some(String::from("runs more than once"))
            }
        };
        let problem = problem.or_else(|| {
            let host = world.half_started(vm)?;
            Some(format!("lies about half started on {}", world.setup().hosts[host].id))
        });
        if let Some(problem) = problem {
            stuck.push(format!(
                "{} {problem}; on disk: {}",
                world.setup().vms[vm].name,
                on_disk(world, vm).map_or(String::from("no entry"), |entry| format!("{entry:?}"))
            ));
        }
    }
    stuck
}

/// Whether some host that has power has the memory for a VM besides what runs there. In a healed world all hosts reach all datastores,
/// and no rule stands.
fn has_room(world: &World, vm: usize) -> bool {
    let needed = world.setup().vms[vm].memory_mib;
    (0..world.setup().hosts.len()).any(|host| world.powered(host) && world.memory_free(host) >= needed)
}

/// Whether each VM that does not run, although there is room, was tried on some host and could not be started there, or has to wait
/// for a group (until the time-out of its members: who has no room is never ready).
pub fn only_retries_left(world: &World) -> bool {
    (0..world.setup().vms.len()).all(|vm| {
        let truth = world.checkers().user_word.truth(vm);
        let off = truth.wanted == Wanted::On && world.executing(vm).next().is_none() && has_room(world, vm);
        let tried = || on_disk(world, vm).is_some_and(|entry| !entry.failed_on.is_empty());
        !off || tried() || waits_for_group(world, vm)
    })
}

/// Whether it is in a group that starts after others, by what is on disk.
fn waits_for_group(world: &World, vm: usize) -> bool {
    let id = world.setup().vm_id(vm);
    let list = world.checkers().single_owner.list(world.setup().vms[vm].datastore);
    list.is_some_and(|list| {
        list.settings.groups.values().any(|group| group.vms.contains(&id) && !group.waits_for.is_empty())
    })
}

fn on_disk(world: &World, vm: usize) -> Option<&Entry> {
    let list = world.checkers().single_owner.list(world.setup().vms[vm].datastore)?;
    list.entries.iter().find(|entry| entry.vm == world.setup().vm_id(vm))
}

/// Why a VM that runs there is not protected, by what is on disk.
fn unprotected(world: &World, vm: usize, host: usize) -> Option<String> {
    let id = &world.setup().hosts[host].id;
    let Some(entry) = on_disk(world, vm) else {
        return Some(format!("runs on {id} and has no entry in the protected list"));
    };
    if entry.desired != Desired::On || entry.holder.as_ref() != Some(id) || entry.unprotected {
        return Some(format!("runs on {id}, which the protected list does not say"));
    }
    let register = RegisterId::PowerOn(id.clone());
    let Some(RegisterValue::PowerOn(list)) = world.register(world.setup().vms[vm].datastore, &register)
    else {
        return Some(format!("runs on {id}, which has no power-on list"));
    };
    let claimed = list.claims.iter().any(|claim| {
        claim.vm == entry.vm && claim.token == Some(entry.token) && claim.state == ClaimState::Running
    });
    (!claimed).then(|| format!("runs on {id}, which has no running claim under grant {}", entry.token))
}
