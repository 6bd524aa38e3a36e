//! What every hypervisor must do, the fake one and the real one alike.

use std::cell::Cell;
use std::time::Duration;

use mainstay_hypervisor::{
    DomainState, DomainUuid, Event, GuestAnswer, Handle, NAME_MAX, NAMES_MAX, Op, OpError, OpOutput,
    PauseReason, StopCause,
};

use mainstay_words::Time;
use rustix::time::{ClockId, clock_gettime};

use crate::recorder::Recorder;

/// A hypervisor and the people around it.
pub trait World {
    fn handle(&self) -> &dyn Handle;
    fn news(&self) -> &Recorder;
    /// A definition with a bootable disk whose guest obeys the power button.
    fn xml(&self, name: &str) -> (DomainUuid, String);
    /// Waits until the guest can see its power button.
    fn wait_booted(&self, name: &str);
    fn resync(&self);
    fn user_destroys(&self, uuid: DomainUuid);
    fn kill_qemu(&self, uuid: DomainUuid);
    fn terminate_qemu(&self, uuid: DomainUuid);
    /// Somebody else takes or frees the write lock of the domain's image.
    fn lock_image(&self, name: &str, locked: bool);
}

/// On a busy machine libvirt takes its time.
const PATIENT: Duration = Duration::from_secs(30);

fn guest_command(uuid: DomainUuid) -> Op {
    Op::GuestCommand { uuid, path: "/bin/true".into(), args: vec![], timeout: PATIENT }
}

fn migrate(uuid: DomainUuid, uri: &str) -> Op {
    Op::Migrate { uuid, destination_uri: uri.into(), data_uri: None, timeout: PATIENT }
}

const PAUSED: DomainState = DomainState::Paused { reason: PauseReason::User };

fn op(world: &dyn World, op: Op) -> Result<OpOutput, OpError> {
    thread_local!(static NEXT: Cell<u64> = const { Cell::new(1) });
    let id = NEXT.with(|next| next.replace(next.get() + 1));
    world.news().run(world.handle(), id, op)
}

fn done(world: &dyn World, what: Op) {
    assert_eq!(op(world, what.clone()), Ok(OpOutput::Done), "{what:?}");
}

/// Starts, resumes, and waits until it is told as running.
pub fn running(world: &dyn World, name: &str) -> DomainUuid {
    let (uuid, xml) = world.xml(name);
    assert!(matches!(op(world, Op::StartPaused { xml }), Ok(OpOutput::Started { .. })), "start of {name}");
    let mark = world.news().mark();
    done(world, Op::Resume { uuid });
    world.news().wait_domain("running", mark, uuid, |domain| domain.state == DomainState::Running);
    uuid
}

fn remove(world: &dyn World, uuid: DomainUuid) {
    done(world, Op::Destroy { uuid });
    let mark = world.news().mark();
    done(world, Op::Undefine { uuid });
    world.news().wait("removed", mark, |event| {
        matches!(event, Event::Removed { uuid: gone, .. } if *gone == uuid).then_some(())
    });
}

pub fn run_all(world: &dyn World) {
    connecting_tells_the_host_and_a_complete_snapshot(world);
    life_of_a_domain(world);
    starting_an_active_domain_changes_nothing(world);
    failed_start_leaves_the_host_as_it_was(world);
    operations_on_nothing_say_so(world);
    stop_causes_are_told(world);
    domains_of_two_are_in_one_snapshot(world);
    news_say_when_they_were_asked_for(world);
    autostart_is_set_and_told(world);
    host_tells_what_it_offers(world);
    guest_without_channel_is_told_as_such(world);
    migration_that_cannot_begin_leaves_the_vm(world);
}

fn connecting_tells_the_host_and_a_complete_snapshot(world: &dyn World) {
    let news = world.news();
    news.wait("connected", 0, |event| matches!(event, Event::Connected).then_some(()));
    let host = news
        .wait("host", 0, |event| if let Event::HostInfo(host) = event { Some(host.clone()) } else { None });
    assert!(host.cpus > 0 && host.memory_bytes > 0 && !host.hostname.is_empty());
    assert!(host.memory_free_bytes <= host.memory_bytes);
    let complete = news.wait("snapshot", 0, |event| {
        if let Event::Snapshot { complete, .. } = event { Some(*complete) } else { None }
    });
    assert!(complete);
}

fn life_of_a_domain(world: &dyn World) {
    let news = world.news();
    let (uuid, xml) = world.xml("life");
    let mark = news.mark();
    let started = op(world, Op::StartPaused { xml });
    let Ok(OpOutput::Started { uuid: told, pid }) = started else { panic!("{started:?}") };
    assert_eq!(told, uuid);
    let paused = news.wait_domain("paused", mark, uuid, |domain| domain.state == PAUSED);
    assert!(paused.persistent && !paused.autostart);
    assert_eq!((paused.pid, paused.pid.is_some()), (pid, true));
    let spec = paused.spec.as_ref().expect("understood");
    assert_eq!((spec.uuid, spec.name.as_str(), spec.vcpus), (uuid, "life", 1));

    let mark = news.mark();
    done(world, Op::Resume { uuid });
    let running = news.wait_domain("running", mark, uuid, |domain| domain.state == DomainState::Running);
    done(world, Op::Resume { uuid });
    assert_eq!(running.xml, paused.xml, "the XML of an unchanged domain does not change");

    let mark = news.mark();
    done(world, Op::Suspend { uuid });
    news.wait_domain("suspended", mark, uuid, |domain| domain.state == PAUSED);
    done(world, Op::Suspend { uuid });
    assert!(
        matches!(op(world, Op::Undefine { uuid }), Err(OpError::WrongState { .. })),
        "an active domain is not undefined"
    );

    let mark = news.mark();
    done(world, Op::Destroy { uuid });
    let off = news.wait_domain("off", mark, uuid, |domain| !domain.state.is_active());
    assert_eq!((off.state, off.pid), (DomainState::ShutOff { cause: StopCause::Destroyed }, None));
    assert_eq!(off.xml, paused.xml, "also not when it stops");
    done(world, Op::Destroy { uuid });
    done(world, Op::Shutdown { uuid });
    assert!(matches!(op(world, Op::Resume { uuid }), Err(OpError::WrongState { .. })));

    let Ok(OpOutput::Domain(read)) = op(world, Op::Read { uuid }) else { panic!("it is still defined") };
    assert_eq!(read.xml, off.xml);
    remove(world, uuid);
    assert_eq!(op(world, Op::Read { uuid }), Err(OpError::NoSuchDomain { uuid }));
    // What was read on one host can be started on another.
    assert!(matches!(op(world, Op::StartPaused { xml: off.xml }), Ok(OpOutput::Started { .. })));
    remove(world, uuid);
}

fn starting_an_active_domain_changes_nothing(world: &dyn World) {
    let uuid = running(world, "twice");
    let (_, xml) = world.xml("twice");
    assert!(
        matches!(op(world, Op::StartPaused { xml }), Ok(OpOutput::AlreadyActive { uuid: told, pid: Some(_) }) if told == uuid)
    );
    let Ok(OpOutput::Domain(read)) = op(world, Op::Read { uuid }) else { panic!("it is there") };
    assert_eq!(read.state, DomainState::Running);
    remove(world, uuid);
}

fn failed_start_leaves_the_host_as_it_was(world: &dyn World) {
    let (uuid, xml) = world.xml("locked");
    world.lock_image("locked", true);
    let mark = world.news().mark();
    let result = op(world, Op::StartPaused { xml: xml.clone() });
    assert!(matches!(result, Err(OpError::ImageLocked { .. })), "{result:?}");
    assert_eq!(
        op(world, Op::Read { uuid }),
        Err(OpError::NoSuchDomain { uuid }),
        "no definition is left behind"
    );

    // libvirt 9.0 tells no stop here. If another does, it must not look like a VM that ran.
    world.resync();
    world.news().wait("a snapshot", mark, |event| matches!(event, Event::Snapshot { .. }).then_some(()));
    for event in world.news().since(mark) {
        if let Event::Stopped { cause, .. } = event {
            assert_eq!(cause, StopCause::StartFailed);
        }
    }

    world.lock_image("locked", false);
    assert!(matches!(op(world, Op::StartPaused { xml: xml.clone() }), Ok(OpOutput::Started { .. })));
    done(world, Op::Destroy { uuid });
    let Ok(OpOutput::Domain(before)) = op(world, Op::Read { uuid }) else { panic!("defined") };
    world.lock_image("locked", true);
    let newer = xml.replace("</name>", "</name><title>newer</title>");
    assert!(matches!(op(world, Op::StartPaused { xml: newer }), Err(OpError::ImageLocked { .. })));
    let Ok(OpOutput::Domain(after)) = op(world, Op::Read { uuid }) else {
        panic!("a definition that was there before stays")
    };
    assert_eq!(after.xml, before.xml, "and is as it was");
    world.lock_image("locked", false);
    remove(world, uuid);
}

fn operations_on_nothing_say_so(world: &dyn World) {
    let uuid = DomainUuid([0xee; 16]);
    for what in [
        Op::Resume { uuid },
        Op::Suspend { uuid },
        Op::Shutdown { uuid },
        Op::Destroy { uuid },
        Op::Undefine { uuid },
        Op::SetAutostart { uuid, on: true },
        Op::Read { uuid },
        Op::GuestPing { uuid },
        guest_command(uuid),
        migrate(uuid, "qemu+tcp://127.0.0.1:1/system"),
    ] {
        assert_eq!(op(world, what.clone()), Err(OpError::NoSuchDomain { uuid }), "{what:?}");
    }
    for xml in ["", "<domain/>", "<domain>\0</domain>"] {
        assert!(matches!(op(world, Op::StartPaused { xml: xml.into() }), Err(OpError::Xml(_))), "{xml:?}");
    }
}

fn stop_causes_are_told(world: &dyn World) {
    type Stop = fn(&dyn World, DomainUuid);
    let cases: [(&str, Stop, StopCause); 4] = [
        ("shut", |world, uuid| done(world, Op::Shutdown { uuid }), StopCause::GuestShutdown),
        ("destroyed", |world, uuid| world.user_destroys(uuid), StopCause::Destroyed),
        ("killed", |world, uuid| world.kill_qemu(uuid), StopCause::QemuDied),
        ("terminated", |world, uuid| world.terminate_qemu(uuid), StopCause::HostSignal),
    ];
    for (name, stop, expected) in cases {
        let uuid = running(world, name);
        world.wait_booted(name);
        let mark = world.news().mark();
        stop(world, uuid);
        let cause = world.news().wait("stopped", mark, |event| match event {
            Event::Stopped { uuid: stopped, cause, .. } if *stopped == uuid => Some(*cause),
            _ => None,
        });
        assert_eq!(cause, expected, "{name}");
        // A reading that comes before the event knows the reason alone, which tells less.
        let off = DomainState::ShutOff { cause: expected };
        world.news().wait_domain(&format!("{name}, {off:?}"), mark, uuid, |domain| domain.state == off);
        remove(world, uuid);
    }
}

fn domains_of_two_are_in_one_snapshot(world: &dyn World) {
    let (one, two) = (running(world, "one"), running(world, "two"));
    let mark = world.news().mark();
    world.resync();
    let (found, complete) = world.news().wait("snapshot", mark, |event| match event {
        Event::Snapshot { domains, complete, .. } => {
            Some((domains.iter().map(|domain| domain.uuid).collect::<Vec<_>>(), *complete))
        }
        _ => None,
    });
    assert!(complete && found.contains(&one) && found.contains(&two), "{found:?}");
    remove(world, one);
    remove(world, two);
}

fn boottime() -> Time {
    let at = clock_gettime(ClockId::Boottime);
    Time(at.tv_sec.unsigned_abs() * 1_000_000 + at.tv_nsec.unsigned_abs() / 1_000)
}

fn news_say_when_they_were_asked_for(world: &dyn World) {
    let news = world.news();
    let begun = boottime();
    let uuid = running(world, "dated");
    let before = boottime();
    let Ok(OpOutput::Domain(read)) = op(world, Op::Read { uuid }) else { panic!("it is there") };
    assert!(before <= read.as_of && read.as_of <= boottime());

    let mark = news.mark();
    done(world, Op::Suspend { uuid });
    let after = boottime();
    let paused = news.wait_domain("suspended", mark, uuid, |domain| domain.state == PAUSED);
    // A read that was under way before may show it, too.
    assert!(begun <= paused.as_of && paused.as_of <= boottime());

    world.resync();
    // A round that was under way may come first.
    let told = news.wait("a snapshot of now", mark, |event| match event {
        Event::Snapshot { as_of, domains, complete: true, .. } if *as_of >= after => {
            Some((*as_of, domains.clone()))
        }
        _ => None,
    });
    assert!(told.0 <= boottime() && told.1.iter().all(|domain| domain.as_of >= told.0));
    assert!(told.1.iter().any(|domain| domain.uuid == uuid && domain.state == PAUSED));

    done(world, Op::Destroy { uuid });
    done(world, Op::Undefine { uuid });
    let gone = news.wait("removed", mark, |event| match event {
        Event::Removed { as_of, uuid: gone, .. } if *gone == uuid => Some(*as_of),
        _ => None,
    });
    assert!(begun <= gone && gone <= boottime());
    // No time goes back: what comes later in the news of one domain was asked for later.
    let dates = news.since(0).into_iter().filter_map(|event| match event {
        Event::Changed(domain) if domain.uuid == uuid => Some(domain.as_of),
        _ => None,
    });
    let dates: Vec<Time> = dates.collect();
    assert!(dates.is_sorted() && dates.first().is_some_and(|first| *first >= begun), "{dates:?}");
}

fn autostart_is_set_and_told(world: &dyn World) {
    let uuid = running(world, "at-boot");
    let autostart = || match op(world, Op::Read { uuid }) {
        Ok(OpOutput::Domain(domain)) => domain.autostart,
        other => panic!("{other:?}"),
    };
    for on in [true, true, false, false, true] {
        done(world, Op::SetAutostart { uuid, on });
        assert_eq!(autostart(), on);
    }
    // It outlives the run, and says nothing about a later domain of this name.
    done(world, Op::Destroy { uuid });
    assert!(autostart());
    done(world, Op::SetAutostart { uuid, on: false });
    assert!(!autostart());
    done(world, Op::SetAutostart { uuid, on: true });
    remove(world, uuid);
    let again = running(world, "at-boot");
    assert_eq!((again, autostart()), (uuid, false));
    remove(world, uuid);
}

fn host_tells_what_it_offers(world: &dyn World) {
    let Ok(OpOutput::HostOffers(offers)) = op(world, Op::HostOffers) else { panic!("it can be asked") };
    let lists =
        [&offers.networks, &offers.bridges, &offers.cpu_models, &offers.machine_types, &offers.devices];
    for names in lists {
        assert!(names.len() <= NAMES_MAX && names.is_sorted(), "{names:?}");
        assert!(names.iter().all(|name| !name.is_empty() && name.len() <= NAME_MAX), "{names:?}");
    }
}

fn guest_without_channel_is_told_as_such(world: &dyn World) {
    let uuid = running(world, "mute");
    assert_eq!(op(world, Op::GuestPing { uuid }), Ok(OpOutput::Guest(GuestAnswer::NoChannel)));
    let result = op(world, guest_command(uuid));
    assert!(matches!(result, Err(OpError::NoGuestAgent { .. })), "{result:?}");
    done(world, Op::Destroy { uuid });
    for what in [Op::GuestPing { uuid }, guest_command(uuid)] {
        let result = op(world, what);
        assert!(matches!(result, Err(OpError::WrongState { .. })), "{result:?}");
    }
    remove(world, uuid);
}

fn migration_that_cannot_begin_leaves_the_vm(world: &dyn World) {
    let uuid = running(world, "stays");
    for bad in ["", "qemu+tcp://host\0/system"] {
        let result = op(world, migrate(uuid, bad));
        assert!(matches!(result, Err(OpError::NotAttempted { .. })), "{result:?}");
    }
    let result = op(world, migrate(uuid, "qemu+tcp://127.0.0.1:1/system"));
    assert!(
        matches!(&result, Err(OpError::DestinationUnreachable { uri, .. }) if uri == "qemu+tcp://127.0.0.1:1/system"),
        "{result:?}"
    );
    let Ok(OpOutput::Domain(read)) = op(world, Op::Read { uuid }) else { panic!("it is there") };
    assert_eq!((read.state, read.persistent), (DomainState::Running, true));
    done(world, Op::Destroy { uuid });
    let result = op(world, migrate(uuid, "qemu+tcp://127.0.0.1:1/system"));
    assert!(matches!(result, Err(OpError::WrongState { .. })), "{result:?}");
    remove(world, uuid);
}
