//! Contract tests: one suite for the fake and for real QEMU; then what only the real one can show.

mod fake_world;
mod guest_agent;
mod migration;
mod offers;
mod real_world;
mod recorder;
mod small;
mod suite;

use std::time::{Duration, Instant};

use fake_world::FakeWorld;
use mainstay_hypervisor::{
    Config, DomainState, DomainUuid, Event, Hypervisor, Op, OpError, OpOutput, PauseReason, StopCause,
};
use real_world::{RealWorld, inside};
use recorder::Recorder;
use suite::World;

#[test]
fn fake_passes_the_suite() {
    suite::run_all(&FakeWorld::new());
}

#[test]
fn real_qemu_passes_the_suite() {
    inside("real_qemu_passes_the_suite", |world| suite::run_all(world));
}

fn lost(world: &RealWorld, mark: usize) -> String {
    world.news.wait(
        "lost",
        mark,
        |event| if let Event::Lost { why } = event { Some(why.clone()) } else { None },
    )
}

fn snapshot_of(world: &RealWorld, mark: usize, uuid: DomainUuid) -> DomainState {
    world.news.wait("connected", mark, |event| matches!(event, Event::Connected).then_some(()));
    world.news.wait("a complete snapshot", mark, |event| match event {
        Event::Snapshot { domains, complete: true, .. } => {
            domains.iter().find(|domain| domain.uuid == uuid).map(|domain| domain.state)
        }
        _ => None,
    })
}

/// Nothing may have claimed that the VM is off.
fn assert_never_told_off(events: &[Event], uuid: DomainUuid) {
    for event in events {
        let off = match event {
            Event::Changed(domain) => domain.uuid == uuid && !domain.state.is_active(),
            Event::Removed { uuid: gone, .. } | Event::Stopped { uuid: gone, .. } => *gone == uuid,
            Event::Snapshot { domains, complete, .. } => {
                domains.iter().any(|domain| domain.uuid == uuid && !domain.state.is_active())
                    || *complete && !domains.iter().any(|domain| domain.uuid == uuid)
            }
            Event::Connected | Event::Lost { .. } | Event::HostInfo(_) | Event::Done { .. } => false,
        };
        assert!(!off, "told as off: {event:?}");
    }
}

#[test]
fn real_libvirtd_killed_vm_runs_on_and_is_found_again() {
    inside("real_libvirtd_killed_vm_runs_on_and_is_found_again", |world| {
        let uuid = suite::running(world, "runs-on");
        let mark = world.news.mark();
        world.kill_libvirtd();
        lost(world, mark);
        let result = world.news.run(world.handle(), 900, Op::Destroy { uuid });
        assert!(matches!(result, Err(OpError::NotAttempted { .. })), "{result:?}");
        world.start_libvirtd();
        assert_eq!(snapshot_of(world, mark, uuid), DomainState::Running);
        assert_never_told_off(&world.news.since(mark), uuid);
        assert_eq!(world.news.run(world.handle(), 901, Op::Destroy { uuid }), Ok(OpOutput::Done));
    });
}

#[test]
fn real_libvirtd_killed_and_vm_killed_meanwhile() {
    inside("real_libvirtd_killed_and_vm_killed_meanwhile", |world| {
        let uuid = suite::running(world, "dies");
        let mark = world.news.mark();
        world.kill_libvirtd();
        lost(world, mark);
        world.signal_qemu(uuid, libc::SIGKILL);
        world.wait_no_qemu(uuid);
        world.start_libvirtd();
        // A libvirtd that has just started may still show it as it was, until it has looked for the process.
        let off =
            world.news.wait_domain("it to be seen as off", mark, uuid, |domain| !domain.state.is_active());
        assert_eq!(off.state, DomainState::ShutOff { cause: StopCause::Crashed });
    });
}

#[test]
fn real_libvirtd_hangs_and_thaws() {
    inside("real_libvirtd_hangs_and_thaws", |world| {
        let uuid = suite::running(world, "waits");
        let mark = world.news.mark();
        let start = Instant::now();
        world.signal_libvirtd(libc::SIGSTOP);
        let result = world.news.run(world.handle(), 900, Op::Suspend { uuid });
        let took = start.elapsed();
        assert!(result.as_ref().is_err_and(OpError::outcome_unknown), "{result:?}");
        lost(world, mark);
        // Keepalives free it after 4 s; the rest is for a busy machine.
        assert!(took < Duration::from_secs(25), "{took:?}");
        assert_never_told_off(&world.news.since(mark), uuid);
        world.signal_libvirtd(libc::SIGCONT);
        assert!(snapshot_of(world, mark, uuid).is_active());
        assert_never_told_off(&world.news.since(mark), uuid);
        assert_eq!(world.news.run(world.handle(), 901, Op::Destroy { uuid }), Ok(OpOutput::Done));
    });
}

#[test]
fn real_transient_domain_ends_with_its_cause() {
    inside("real_transient_domain_ends_with_its_cause", |world| {
        let (uuid, xml) = world.xml("transient");
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), xml).expect("written");
        let mark = world.news.mark();
        world.virsh(&["create", file.path().to_str().expect("UTF-8")]);
        let domain =
            world.news.wait_domain("running", mark, uuid, |domain| domain.state == DomainState::Running);
        assert!(!domain.persistent && domain.spec.is_ok());
        world.signal_qemu(uuid, libc::SIGKILL);
        let cause = world.news.wait("stopped", mark, |event| match event {
            Event::Stopped { uuid: stopped, cause, .. } if *stopped == uuid => Some(*cause),
            _ => None,
        });
        assert_eq!(cause, StopCause::QemuDied);
        world.news.wait("removed", mark, |event| {
            matches!(event, Event::Removed { uuid: gone, .. } if *gone == uuid).then_some(())
        });
    });
}

#[test]
fn real_saved_state_is_not_continued() {
    inside("real_saved_state_is_not_continued", |world| {
        let uuid = suite::running(world, "saved");
        let mark = world.news.mark();
        world.virsh(&["managedsave", "saved"]);
        let off = world.news.wait_domain("off", mark, uuid, |domain| !domain.state.is_active());
        assert_eq!(off.state, DomainState::ShutOff { cause: StopCause::Saved });
        let result = world.news.run(world.handle(), 900, Op::StartPaused { xml: off.xml });
        assert_eq!(result, Err(OpError::SavedState { uuid }));
    });
}

/// A stopped QEMU does not answer its monitor: libvirtd answers keepalives, but nothing about this domain's monitor.
#[test]
fn real_qemu_hangs_others_are_operated() {
    inside("real_qemu_hangs_others_are_operated", |world| {
        let (stuck, other) = (suite::running(world, "stuck"), suite::running(world, "other"));
        let mark = world.news.mark();
        world.signal_qemu(stuck, libc::SIGSTOP);
        world.handle().submit(900, Op::Suspend { uuid: stuck });
        assert_eq!(world.news.run(world.handle(), 901, Op::Suspend { uuid: other }), Ok(OpOutput::Done));
        world.news.wait_domain("paused", mark, other, |domain| {
            domain.state == DomainState::Paused { reason: PauseReason::User }
        });
        world.signal_qemu(stuck, libc::SIGCONT);
        let result = world.news.wait("the stuck one's result", mark, |event| {
            if let Event::Done { id: 900, result } = event { Some(result.clone()) } else { None }
        });
        assert_eq!(result, Ok(OpOutput::Done));
        assert_never_told_off(&world.news.since(mark), stuck);
    });
}

/// `test:///default` has domains, states and events, but can't start paused: it serves for observation.
#[test]
fn test_driver_is_observed() {
    let news = Recorder::default();
    let config = Config { uri: "test:///default".into(), ..Config::default() };
    let hypervisor = Hypervisor::start(config, news.sink()).expect("threads");
    news.wait("host", 0, |event| matches!(event, Event::HostInfo(host) if host.cpus > 0).then_some(()));
    let uuid = news.wait("snapshot", 0, |event| match event {
        Event::Snapshot { domains, complete: true, .. } => {
            domains.iter().find(|domain| domain.name == "test").map(|domain| domain.uuid)
        }
        _ => None,
    });
    let mark = news.mark();
    assert_eq!(news.run(&hypervisor, 1, Op::Suspend { uuid }), Ok(OpOutput::Done));
    news.wait_domain("paused", mark, uuid, |domain| {
        domain.state == DomainState::Paused { reason: PauseReason::User }
    });
    assert_eq!(news.run(&hypervisor, 2, Op::Destroy { uuid }), Ok(OpOutput::Done));
    let off = news.wait_domain("off", mark, uuid, |domain| !domain.state.is_active());
    assert_eq!(off.state, DomainState::ShutOff { cause: StopCause::Destroyed });
}

#[test]
fn unreachable_libvirtd_is_lost_once_and_nothing_is_attempted() {
    let news = Recorder::default();
    let config =
        Config { uri: "qemu+unix:///system?socket=/nonexistent/libvirt-sock".into(), ..Config::default() };
    let hypervisor = Hypervisor::start(config, news.sink()).expect("threads");
    news.wait("lost", 0, |event| matches!(event, Event::Lost { .. }).then_some(()));
    let result = news.run(&hypervisor, 1, Op::Destroy { uuid: DomainUuid([1; 16]) });
    assert!(matches!(result, Err(OpError::NotAttempted { .. })), "{result:?}");
    assert_eq!(news.since(0).iter().filter(|event| matches!(event, Event::Lost { .. })).count(), 1);
}
