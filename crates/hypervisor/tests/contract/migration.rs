//! Live migration, between fakes and between two real libvirts.
//!
//! The second libvirtd has its own files and its own name, and shares network and disks with the first.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mainstay_hypervisor::fake::{FakeHypervisor, FakeStorage};
use mainstay_hypervisor::{
    Config, DomainState, DomainUuid, Event, HostInfo, Hypervisor, Op, OpError, OpOutput, StopCause,
};
use mainstay_testkit::wait_for;

use crate::real_world::{LIBVIRTD_CONF, MOUNTS, QEMU_CONF, RealWorld, inside, kill};
use crate::recorder::Recorder;
use crate::suite::{self, World};

const URI: &str = "qemu+tcp://127.0.0.1:16510/system";
const PATIENT: Duration = Duration::from_secs(60);

/// Fills 62 MiB with what is not zero, which takes as many seconds to be sent at 1 MiB/s, and says R on the serial line.
const FILLER: [u8; 76] = [
    0xfa, 0xfc, 0x31, 0xc0, 0x8e, 0xd8, 0x0f, 0x01, 0x16, 0x46,
    0x7c, // cli; cld; xor ax,ax; mov ds,ax; lgdt [gdtr]
    0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0, 0xbb, 0x08,
    0x00, // mov eax,cr0; or al,1; mov cr0,eax; mov bx,8
    0x8e, 0xc3, 0x24, 0xfe, 0x0f, 0x22, 0xc0, 0x66, 0xbf, 0x00, 0x00, 0x10,
    0x00, // mov es,bx; and al,0xfe; mov cr0,eax; mov edi,0x100000
    0x66, 0xb9, 0x00, 0x00, 0xf8, 0x00, 0xf3, 0x66, 0x67, 0xab, // mov ecx,0xf80000; a32 rep stosd
    0xba, 0xf8, 0x03, 0xb0, b'R', 0xee, 0xf4, 0xeb,
    0xfd, // mov dx,0x3f8; mov al,R; out dx,al; stop: hlt; jmp stop
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0x00, 0x00, 0x00, 0x92, 0xcf,
    0x00, // dq 0; dq 0x00cf92000000ffff
    0x0f, 0x00, 0x36, 0x7c, 0x00, 0x00, // dw 15; dd gdt
];

struct Destination {
    libvirtd: Child,
    hypervisor: Hypervisor,
    news: Recorder,
}

impl Destination {
    fn start(world: &RealWorld) -> Destination {
        let dir = world.dir().join("other");
        fs::create_dir_all(dir.join("etc")).expect("a directory");
        fs::write(dir.join("etc/qemu.conf"), QEMU_CONF).expect("a file");
        let own = LIBVIRTD_CONF.replace("777777777771", "777777777772");
        let listening = "listen_tls = 0\nlisten_tcp = 1\nauth_tcp = \"none\"\nlisten_addr = \"127.0.0.1\"\ntcp_port = \"16510\"\n";
        fs::write(dir.join("etc/libvirtd.conf"), format!("{own}{listening}")).expect("a file");
        let libvirtd = Command::new("unshare")
            .args(["--mount", "--uts", "sh", "-c"])
            .arg(format!("{MOUNTS}\nexec libvirtd --listen"))
            .args(["sh", dir.to_str().expect("UTF-8"), "other-host"])
            .stdin(Stdio::null())
            .spawn()
            .expect("unshare");
        let news = Recorder::default();
        let config = Config { uri: URI.into(), ..Config::default() };
        let hypervisor = Hypervisor::start(config, news.sink()).expect("threads");
        news.wait("connected", 0, |event| matches!(event, Event::Connected).then_some(()));
        Destination { libvirtd, hypervisor, news }
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        let _ = self.libvirtd.kill();
        let _ = self.libvirtd.wait();
    }
}

fn migrate(uuid: DomainUuid, timeout: Duration) -> Op {
    Op::Migrate { uuid, destination_uri: URI.into(), data_uri: Some("tcp://127.0.0.1".into()), timeout }
}

fn state(world: &RealWorld, id: u64, uuid: DomainUuid) -> Result<(DomainState, bool), OpError> {
    match world.news.run(world.handle(), id, Op::Read { uuid }) {
        Ok(OpOutput::Domain(domain)) => Ok((domain.state, domain.persistent)),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error),
    }
}

#[test]
fn real_vm_migrates_with_its_definition() {
    inside("migration::real_vm_migrates_with_its_definition", |world| {
        let there = Destination::start(world);
        let uuid = suite::running(world, "moves");
        let (_, xml) = world.xml("moves");
        let careful_news = Recorder::default();
        let careful = Hypervisor::start(Config::default(), careful_news.sink()).expect("threads");
        let refused = careful_news.run(&careful, 900, migrate(uuid, PATIENT));
        assert!(matches!(refused, Err(OpError::MigrationUnsafe { .. })), "{refused:?}");
        assert_eq!(state(world, 901, uuid), Ok((DomainState::Running, true)));

        let (mark, mark_there) = (world.news.mark(), there.news.mark());
        assert_eq!(world.news.run(world.handle(), 902, migrate(uuid, PATIENT)), Ok(OpOutput::Done));
        let cause = world.news.wait("stopped", mark, |event| match event {
            Event::Stopped { uuid: stopped, cause, .. } if *stopped == uuid => Some(*cause),
            _ => None,
        });
        assert_eq!(cause, StopCause::Migrated);
        assert_eq!(state(world, 903, uuid), Err(OpError::NoSuchDomain { uuid }));
        let arrived = there.news.wait_domain("running", mark_there, uuid, |domain| {
            domain.state == DomainState::Running && domain.persistent
        });
        let spec = arrived.spec.expect("understood");
        let sent: mainstay_hypervisor::Spec = xml.parse().expect("understood");
        assert_eq!(
            (&spec.disks, &spec.name, spec.memory_bytes),
            (&sent.disks, &sent.name, sent.memory_bytes)
        );
        assert_eq!(there.news.run(&there.hypervisor, 904, Op::Destroy { uuid }), Ok(OpOutput::Done));
    });
}

#[test]
fn real_migration_that_takes_too_long_is_aborted_and_holds_nobody_up() {
    inside("migration::real_migration_that_takes_too_long_is_aborted_and_holds_nobody_up", |world| {
        let there = Destination::start(world);
        let other = suite::running(world, "other");
        let (uuid, xml) = world.xml_of("busy", &FILLER);
        let xml = xml.replace("<memory unit='MiB'>16<", "<memory unit='MiB'>64<");
        assert!(matches!(
            world.news.run(world.handle(), 900, Op::StartPaused { xml }),
            Ok(OpOutput::Started { .. })
        ));
        assert_eq!(world.news.run(world.handle(), 901, Op::Resume { uuid }), Ok(OpOutput::Done));
        world.wait_booted("busy");
        world.virsh(&["migrate-setspeed", "busy", "1"]);
        let (mark, mark_there) = (world.news.mark(), there.news.mark());
        // Long enough for the two others to be done meanwhile on a busy machine, and far from enough for 62 MiB.
        world.handle().submit(902, migrate(uuid, Duration::from_secs(12)));
        assert_eq!(world.news.run(world.handle(), 903, Op::Suspend { uuid: other }), Ok(OpOutput::Done));
        assert!(state(world, 904, uuid).is_ok(), "the VM itself can be read meanwhile");
        let ended = |event: &Event| matches!(event, Event::Done { id: 902, .. });
        assert!(!world.news.since(mark).iter().any(ended), "it was still under way");
        let result = world.news.wait("the migration's end", mark, |event| match event {
            Event::Done { id: 902, result } => Some(result.clone()),
            _ => None,
        });
        assert!(matches!(result, Err(OpError::MigrationAborted { seconds: 12, .. })), "{result:?}");
        assert_eq!(state(world, 905, uuid), Ok((DomainState::Running, true)));
        let gone =
            |event: &Event| matches!(event, Event::Removed { uuid: gone, .. } if *gone == uuid).then_some(());
        there.news.wait("nothing left behind", mark_there, gone);
        assert_eq!(world.news.run(world.handle(), 906, Op::Destroy { uuid }), Ok(OpOutput::Done));
    });
}

/// libvirtd here waits for the other one and can't be interrupted. Its caller is told so, and the VM runs on.
#[test]
fn real_migration_to_a_hung_destination_is_given_up_and_never_comes_about() {
    inside("migration::real_migration_to_a_hung_destination_is_given_up_and_never_comes_about", |world| {
        let there = Destination::start(world);
        let uuid = suite::running(world, "stays");
        let news = Recorder::default();
        let op_timeout = Duration::from_secs(3);
        let config = Config { migrate_unsafe: true, op_timeout, ..Config::default() };
        let impatient = Hypervisor::start(config, news.sink()).expect("threads");
        kill(there.libvirtd.id(), libc::SIGSTOP);
        let result = news.run(&impatient, 900, migrate(uuid, Duration::from_secs(1)));
        assert_eq!(result, Err(OpError::TimedOut { seconds: 1 }));
        assert_eq!(state(world, 901, uuid), Ok((DomainState::Running, true)));
        kill(there.libvirtd.id(), libc::SIGCONT);
        // Another one is refused until the first has ended, and then finds the VM here.
        let moved = wait_for("the end of the first", || {
            let result = world.news.run(world.handle(), 902, migrate(uuid, PATIENT));
            (!matches!(result, Err(OpError::WrongState { .. }))).then_some(result)
        });
        assert_eq!(moved, Ok(OpOutput::Done));
        let last = there.news.wait_domain("running", 0, uuid, |domain| domain.state == DomainState::Running);
        assert!(last.persistent);
    });
}

#[test]
fn fake_vm_migrates_with_its_image_locks() {
    let storage = FakeStorage::default();
    let host = |name: &str| {
        let news = Recorder::default();
        let info = HostInfo {
            hostname: name.into(),
            uuid: None,
            cpus: 4,
            memory_bytes: 1 << 33,
            memory_free_bytes: 1 << 32,
            libvirt_version: 9_000_000,
        };
        (FakeHypervisor::start(info, storage.clone(), news.sink()).expect("a thread"), news)
    };
    let ((one, one_news), (two, two_news)) = (host("host-1"), host("host-2"));
    one.reaches(URI, &two);
    one.reaches("qemu+tcp://itself/system", &one);
    let (uuid, xml) = crate::small::domain_xml("moves", "/srv/ds/moves.raw");
    assert_eq!(one.user_defines(&xml), Ok(uuid));
    one.user_starts(uuid).expect("nothing hinders it");
    let mark = one_news.mark();
    assert_eq!(one_news.run(&one, 1, migrate(uuid, PATIENT)), Ok(OpOutput::Done));
    one_news.wait("removed", mark, |event| {
        matches!(event, Event::Removed { uuid: gone, .. } if *gone == uuid).then_some(())
    });
    two_news
        .wait_domain("running", 0, uuid, |domain| domain.state == DomainState::Running && domain.persistent);
    storage.release("host-1");
    one.user_defines(&xml).expect("it is not known there any more");
    let twice = one.user_starts(uuid);
    assert!(matches!(twice, Err(OpError::ImageLocked { .. })), "{twice:?}");
    // Back is another way: host-2 knows no such URI.
    let result = two_news.run(&two, 2, migrate(uuid, PATIENT));
    assert!(matches!(result, Err(OpError::DestinationUnreachable { .. })), "{result:?}");
    assert_eq!(two.state_of(uuid), Some(DomainState::Running));
}
