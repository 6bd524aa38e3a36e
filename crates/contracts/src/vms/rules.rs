//! The rules.

use super::desk::{Desk, seen_in, stopped};
use super::host::{Deed, HostUnderTest};
use mainstay_words::register::StopCause;
use mainstay_words::{DomainState, HostId, Input, Time, VmAction, VmOutcome};

/// One rule of the contract. `Ok(false)`: the host under test has nothing that the rule could be tried on.
pub type Rule = fn(&mut dyn HostUnderTest) -> Result<bool, String>;

/// All rules, with their names. Each begins by removing the VM from the host.
pub const RULES: [(&str, Rule); 21] = [
    ("what is not there can be removed, and nothing else", nothing_there),
    ("a start makes it paused, a resume lets it run", life_of_a_vm),
    ("what is off is shut down already, and is not resumed", off_is_off),
    ("an active VM is not undefined", active_is_not_undefined),
    ("a start of a VM that is there changes nothing", start_of_what_is_there),
    ("orders for one VM are carried out in turn", orders_in_turn),
    ("a VM that is destroyed while it is started does not come to be", destroyed_while_started),
    ("a start waits for the image, and can be called off", start_waits_for_the_image),
    ("a guest without an agent does not answer, and its VM runs on", mute_guest),
    ("a migration that can't begin leaves the VM where it runs", migration_that_cannot_begin),
    ("a shutdown by the user is told as the guest's own", shutdown_is_told),
    ("a destroy by the user is told as such", destroy_is_told),
    ("a QEMU that is killed is told as a crash", kill_is_told),
    ("a QEMU that is terminated is told as the host's doing", termination_is_told),
    ("a new agent reads that the guest has shut down", shutdown_outlives_the_agent),
    ("a new agent reads that the user has destroyed it", destroy_outlives_the_agent),
    ("a new agent reads that it has crashed", kill_outlives_the_agent),
    ("a libvirtd that ends is told, and says nothing about VMs", libvirtd_ends),
    ("a VM that dies without libvirtd has crashed", dies_without_libvirtd),
    ("a libvirtd that hangs leaves the outcome open", libvirtd_hangs),
    ("a resume of a frozen VM is carried out when it is thawed", resume_of_a_frozen_vm),
];
fn nothing_there(host: &mut dyn HostUnderTest) -> Result<bool, String> {
    let mut desk = Desk::empty(host)?;
    let vm = desk.host.vm();
    for action in [
        VmAction::Resume { vm },
        VmAction::Shutdown { vm },
        VmAction::AskGuest { vm, command: None },
        VmAction::Migrate { vm, to: HostId::new("host-2") },
    ] {
        desk.failed(action)?;
    }
    desk.remove()?;
    desk.end()
}

fn life_of_a_vm(host: &mut dyn HostUnderTest) -> Result<bool, String> {
    let mut desk = Desk::empty(host)?;
    let vm = desk.host.vm();
    desk.done(desk.prepare())?;
    desk.expect_look(DomainState::Prepared)?;
    desk.done(VmAction::Resume { vm })?;
    desk.expect_look(DomainState::Running)?;
    desk.done(VmAction::Resume { vm })?;
    desk.expect_look(DomainState::Running)?;
    desk.done(VmAction::Destroy { vm })?;
    // Who ordered it, knows: it is not the user's word.
    desk.expect_look(DomainState::Stopped(StopCause::Withdrawn))?;
    let mark = desk.mark();
    desk.done(VmAction::Undefine { vm })?;
    desk.wait(mark, "all domains without it", |heard| match &heard.input {
        Input::Domains { domains, .. } => domains.iter().all(|domain| domain.vm != vm).then_some(()),
        _ => None,
    })?;
    // It can be started again.
    desk.start()?;
    desk.end()
}

fn off_is_off(host: &mut dyn HostUnderTest) -> Result<bool, String> {
    let mut desk = Desk::running(host)?;
    let vm = desk.host.vm();
    desk.done(VmAction::Destroy { vm })?;
    desk.done(VmAction::Destroy { vm })?;
    desk.done(VmAction::Shutdown { vm })?;
    desk.failed(VmAction::Resume { vm })?;
    desk.failed(VmAction::AskGuest { vm, command: None })?;
    desk.end()
}

fn active_is_not_undefined(host: &mut dyn HostUnderTest) -> Result<bool, String> {
    let mut desk = Desk::running(host)?;
    let vm = desk.host.vm();
    desk.failed(VmAction::Undefine { vm })?;
    // Its definition is still there when it has ended.
    desk.done(VmAction::Destroy { vm })?;
    desk.expect_look(DomainState::Stopped(StopCause::Withdrawn))?;
    desk.end()
}

fn start_of_what_is_there(host: &mut dyn HostUnderTest) -> Result<bool, String> {
    let mut desk = Desk::running(host)?;
    let vm = desk.host.vm();
    let mark = desk.mark();
    let op = desk.order(desk.prepare());
    // It waits for the image, which the VM itself holds. Where images have no locks, there is nothing left to do.
    let waits = desk.wait(mark, "an answer", |heard| match &heard.input {
        Input::VmWaits { op: told, .. } if *told == op => Some(Ok(true)),
        Input::VmDone { op: told, outcome: VmOutcome::Done } if *told == op => Some(Ok(false)),
        Input::VmDone { op: told, outcome } if *told == op => Some(Err(format!("{outcome:?}"))),
        _ => None,
    })??;
    desk.never(mark, "it stopped", |heard| stopped(heard, vm))?;
    desk.done(VmAction::Destroy { vm })?;
    if waits && !matches!(desk.answer(op)?.0, VmOutcome::Failed(_)) {
        return Err("the start was not called off".into());
    }
    desk.expect_look(DomainState::Stopped(StopCause::Withdrawn))?;
    desk.end()
}

fn orders_in_turn(host: &mut dyn HostUnderTest) -> Result<bool, String> {
    let mut desk = Desk::empty(host)?;
    let vm = desk.host.vm();
    for _ in 0..8 {
        desk.done(desk.prepare())?;
        let ops = [
            VmAction::Resume { vm },
            VmAction::Destroy { vm },
            VmAction::Undefine { vm },
            VmAction::Destroy { vm },
        ];
        let ops = ops.map(|action| desk.order(action));
        let mut before = Time(0);
        for op in ops {
            let (outcome, at) = desk.answer(op)?;
            if outcome != VmOutcome::Done || at < before {
                return Err(format!(
                    "{op:?} of {ops:?}: {outcome:?} at {at:?}, the one before at {before:?}"
                ));
            }
            before = at;
        }
    }
    desk.end()
}

fn destroyed_while_started(host: &mut dyn HostUnderTest) -> Result<bool, String> {
    let mut desk = Desk::empty(host)?;
    let vm = desk.host.vm();
    for pause in 0..5 {
        let start = desk.order(desk.prepare());
        // So that it has come further each time.
        for _ in 0..pause {
            desk.host.go_on();
        }
        let destroy = desk.order(VmAction::Destroy { vm });
        desk.answer(start)?;
        if desk.answer(destroy)?.0 != VmOutcome::Done {
            return Err("it could not be destroyed".into());
        }
        desk.never_there()?;
        desk.remove()?;
    }
    desk.end()
}

fn start_waits_for_the_image(host: &mut dyn HostUnderTest) -> Result<bool, String> {
    let mut desk = Desk::empty(host)?;
    let vm = desk.host.vm();
    if !desk.host.happens(Deed::ImageHeld(true)) {
        return Ok(false);
    }
    for called_off in [true, false] {
        desk.host.happens(Deed::ImageHeld(true));
        let mark = desk.mark();
        let op = desk.order(desk.prepare());
        desk.wait(mark, "that it waits", |heard| {
            matches!(&heard.input, Input::VmWaits { op: told, .. } if *told == op).then_some(())
        })?;
        desk.never(
            mark,
            "it did not wait",
            |heard| matches!(&heard.input, Input::VmDone { op: told, .. } if *told == op),
        )?;
        if called_off {
            desk.done(VmAction::Destroy { vm })?;
        }
        desk.host.happens(Deed::ImageHeld(false));
        let (outcome, _) = desk.answer(op)?;
        if called_off == (outcome == VmOutcome::Done) {
            return Err(format!("called off: {called_off}, and yet {outcome:?}"));
        }
        if called_off {
            desk.never_there()?;
        }
    }
    desk.expect_look(DomainState::Prepared)?;
    desk.end()
}

fn mute_guest(host: &mut dyn HostUnderTest) -> Result<bool, String> {
    let mut desk = Desk::running(host)?;
    let vm = desk.host.vm();
    let mark = desk.mark();
    for command in [None, Some("/bin/true".into())] {
        desk.failed(VmAction::AskGuest { vm, command })?;
    }
    desk.never(mark, "it stopped", |heard| stopped(heard, vm))?;
    desk.end()
}

fn migration_that_cannot_begin(host: &mut dyn HostUnderTest) -> Result<bool, String> {
    let mut desk = Desk::running(host)?;
    let vm = desk.host.vm();
    if !desk.host.happens(Deed::DestinationDies) {
        return Ok(false);
    }
    let mark = desk.mark();
    desk.failed(VmAction::Migrate { vm, to: HostId::new("host-2") })?;
    desk.expect_look(DomainState::Running)?;
    desk.never(mark, "it stopped", |heard| stopped(heard, vm))?;
    desk.end()
}

/// A VM that runs is stopped in that way, and its core is told of that cause. `None`: it can't be stopped so here.
fn stop<'a>(
    host: &'a mut dyn HostUnderTest,
    deed: Deed,
    cause: StopCause,
) -> Result<Option<Desk<'a>>, String> {
    let mut desk = Desk::running(host)?;
    let mark = desk.mark();
    if !desk.host.happens(deed) {
        return Ok(None);
    }
    desk.told(mark, DomainState::Stopped(cause))?;
    Ok(Some(desk))
}

fn is_told(host: &mut dyn HostUnderTest, deed: Deed, cause: StopCause) -> Result<bool, String> {
    match stop(host, deed, cause)? {
        Some(desk) => desk.end(),
        None => Ok(false),
    }
}

fn outlives_the_agent(host: &mut dyn HostUnderTest, deed: Deed, cause: StopCause) -> Result<bool, String> {
    let Some(mut desk) = stop(host, deed, cause)? else { return Ok(false) };
    if !desk.host.happens(Deed::AgentRestarts) {
        return Ok(false);
    }
    let mark = desk.mark();
    desk.told(mark, DomainState::Stopped(cause))?;
    Ok(true)
}

fn shutdown_is_told(host: &mut dyn HostUnderTest) -> Result<bool, String> {
    is_told(host, Deed::UserShutsDown, StopCause::GuestShutdown)
}

fn destroy_is_told(host: &mut dyn HostUnderTest) -> Result<bool, String> {
    is_told(host, Deed::UserDestroys, StopCause::UserDestroyed)
}

fn kill_is_told(host: &mut dyn HostUnderTest) -> Result<bool, String> {
    is_told(host, Deed::QemuDies, StopCause::Crashed)
}

/// Only as long as the agent runs: libvirt keeps no word of it that a new agent could tell from a shutdown.
fn termination_is_told(host: &mut dyn HostUnderTest) -> Result<bool, String> {
    is_told(host, Deed::QemuIsTerminated, StopCause::HostFailed)
}

fn shutdown_outlives_the_agent(host: &mut dyn HostUnderTest) -> Result<bool, String> {
    outlives_the_agent(host, Deed::UserShutsDown, StopCause::GuestShutdown)
}

fn destroy_outlives_the_agent(host: &mut dyn HostUnderTest) -> Result<bool, String> {
    outlives_the_agent(host, Deed::UserDestroys, StopCause::UserDestroyed)
}

fn kill_outlives_the_agent(host: &mut dyn HostUnderTest) -> Result<bool, String> {
    outlives_the_agent(host, Deed::QemuDies, StopCause::Crashed)
}

fn libvirtd_ends(host: &mut dyn HostUnderTest) -> Result<bool, String> {
    let mut desk = Desk::running(host)?;
    let vm = desk.host.vm();
    let mark = desk.mark();
    if !desk.host.happens(Deed::LibvirtdDies) {
        return Ok(false);
    }
    desk.wait(mark, "that libvirt is lost", |heard| (heard.input == Input::HypervisorLost).then_some(()))?;
    if desk.outcome(VmAction::Destroy { vm })? == VmOutcome::Done {
        return Err("a libvirtd that does not run has destroyed a VM".into());
    }
    let back = desk.mark();
    desk.never(back, "told without libvirtd", |heard| seen_in(heard, vm).is_some())?;
    desk.host.happens(Deed::LibvirtdReturns);
    desk.connected(back)?;
    desk.told(back, DomainState::Running)?;
    desk.never(mark, "it stopped", |heard| stopped(heard, vm))?;
    let lost = desk.host.heard()[mark..].iter().filter(|heard| heard.input == Input::HypervisorLost).count();
    if lost != 1 {
        return Err(format!("told {lost} times that libvirt is lost"));
    }
    desk.end()
}

fn dies_without_libvirtd(host: &mut dyn HostUnderTest) -> Result<bool, String> {
    let mut desk = Desk::running(host)?;
    let mark = desk.mark();
    if !desk.host.happens(Deed::LibvirtdDies) || !desk.host.happens(Deed::QemuDies) {
        return Ok(false);
    }
    desk.wait(mark, "that libvirt is lost", |heard| (heard.input == Input::HypervisorLost).then_some(()))?;
    let back = desk.mark();
    desk.host.happens(Deed::LibvirtdReturns);
    desk.told(back, DomainState::Stopped(StopCause::Crashed))?;
    desk.end()
}

fn libvirtd_hangs(host: &mut dyn HostUnderTest) -> Result<bool, String> {
    let mut desk = Desk::running(host)?;
    let vm = desk.host.vm();
    let mark = desk.mark();
    if !desk.host.happens(Deed::LibvirtdHangs) {
        return Ok(false);
    }
    match desk.outcome(VmAction::Shutdown { vm })? {
        VmOutcome::Unknown(_) => {}
        other => return Err(format!("{other:?} of a libvirtd that hangs")),
    }
    desk.wait(mark, "that libvirt is lost", |heard| (heard.input == Input::HypervisorLost).then_some(()))?;
    let back = desk.mark();
    desk.never(back, "told by a libvirtd that hangs", |heard| seen_in(heard, vm).is_some())?;
    desk.host.happens(Deed::LibvirtdReturns);
    desk.connected(back)?;
    desk.end()
}

fn resume_of_a_frozen_vm(host: &mut dyn HostUnderTest) -> Result<bool, String> {
    let mut desk = Desk::empty(host)?;
    let vm = desk.host.vm();
    desk.done(desk.prepare())?;
    if !desk.host.happens(Deed::Frozen(true)) {
        return Ok(false);
    }
    match desk.outcome(VmAction::Resume { vm })? {
        VmOutcome::Unknown(_) => {}
        other => return Err(format!("{other:?} of a QEMU that stands still")),
    }
    let mark = desk.mark();
    desk.host.happens(Deed::Frozen(false));
    desk.told(mark, DomainState::Running)?;
    desk.end()
}
