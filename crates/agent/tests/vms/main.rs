//! What the core hears of VMs, and what libvirt is asked for, over the hypervisor in memory.

mod autostart;
mod needs;
mod orders;

use mainstay_agent::clock;
use mainstay_agent::vms::{Destination, Errand, GoingDown, ImageState, Migrations, Mounts, VmNews, Vms};
use mainstay_core::ids::{DatastoreName, HostId, OpId, Token, VmId, XmlId};
use mainstay_core::register::{Priority, StopCause};
use mainstay_core::{Domain, DomainState, Input, Time, VmAction, VmOutcome};
use mainstay_hypervisor as hv;
use mainstay_hypervisor::Handle;
use mainstay_hypervisor::fake::{FakeHypervisor, FakeStorage};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};

/// The libvirt of host-2.
const URI: &str = "qemu+tcp://h2/system";

const VM: &str = "11111111-2222-3333-4444-555555555555";

fn xml(disk: &str, metadata: &str) -> String {
    format!(
        "<domain type='kvm'><name>web</name><uuid>{VM}</uuid><metadata>{metadata}</metadata>\
         <memory unit='KiB'>1048577</memory><vcpu>2</vcpu><os><type arch='x86_64'>hvm</type></os><devices>\
         <disk type='file' device='cdrom'><source file='/iso/a.iso'/><target dev='sda'/><readonly/></disk>\
         <disk type='file' device='disk'><source file='{disk}'/><target dev='vda'/></disk></devices></domain>"
    )
}

fn vm() -> VmId {
    VmId::parse(VM).expect("a UUID")
}

/// Vms over a fake; each call of `settle` takes all that libvirt has told.
struct Bench {
    vms: Vms,
    /// When the core took the last inputs.
    stepped: Time,
    fake: FakeHypervisor,
    events: Receiver<hv::Event>,
    inputs: Vec<Input>,
    errands: Vec<Errand>,
}

impl Bench {
    fn new() -> Bench {
        let (sink, events) = channel();
        let host = hv::HostInfo {
            hostname: "h1".into(),
            uuid: None,
            cpus: 4,
            memory_bytes: 8 << 30,
            memory_free_bytes: 4 << 30,
            libvirt_version: 9_000_000,
        };
        let tell = Box::new(move |event| drop(sink.send(event)));
        let fake = FakeHypervisor::start(host, FakeStorage::default(), tell).expect("a fake");
        let roots = [("/srv/ds1", "ds1"), ("/srv", "outer"), ("/srv/ds10", "ds10")];
        let datastores = roots.map(|(path, name)| (PathBuf::from(path), DatastoreName::new(name)));
        let destination = Destination { uri: URI.into(), data_uri: Some("tcp://10.77.0.2".into()) };
        let migrations = Migrations {
            destinations: [(HostId::new("host-2"), destination)].into(),
            timeout: std::time::Duration::from_secs(60),
        };
        let vms = Vms::new(Mounts::new(datastores.to_vec()), migrations);
        let mut bench =
            Bench { vms, stepped: clock::now(), fake, events, inputs: Vec::new(), errands: Vec::new() };
        bench.settle_until(|input| matches!(input, Input::Domains { .. }));
        bench
    }

    /// Takes events until one of the inputs that they lead to is the wanted one; that one is returned.
    fn settle_until(&mut self, wanted: impl Fn(&Input) -> bool) -> Input {
        loop {
            if let Some(at) = self.inputs.iter().position(&wanted) {
                return self.inputs.remove(at);
            }
            self.take_event();
        }
    }

    fn take_event(&mut self) {
        let event = self.next_event();
        self.news(VmNews::Hypervisor(event));
    }

    fn next_event(&mut self) -> hv::Event {
        self.events.recv_timeout(std::time::Duration::from_secs(60)).expect("libvirt tells something")
    }

    /// Everything that libvirt has to say up to its answer to a question that is asked now.
    fn events_up_to_a_snapshot(&mut self) -> Vec<hv::Event> {
        self.fake.resync();
        let mut late = Vec::new();
        while !matches!(late.last(), Some(hv::Event::Snapshot { .. })) {
            late.push(self.next_event());
        }
        late
    }

    /// As the driver does it: errands that go by way of the queue come after the core took the inputs.
    fn run_errands(&mut self) {
        self.stepped = clock::now();
        for errand in std::mem::take(&mut self.errands) {
            match errand {
                Errand::Libvirt(id, op) => self.fake.submit(id, op),
                Errand::Later(after, news) if after.is_zero() => self.news(news),
                other => self.errands.push(other),
            }
        }
    }

    fn news(&mut self, news: VmNews) {
        self.vms.on_news(clock::now(), news, &mut self.inputs, &mut self.errands);
        self.run_errands();
    }

    fn act(&mut self, op: u64, action: VmAction) {
        self.vms.act(OpId(op), action, &mut self.inputs, &mut self.errands);
        self.run_errands();
    }

    fn domain(&mut self, state: DomainState) -> Domain {
        let wanted = |input: &Input| matches!(input, Input::Domain { domain, .. } if domain.state == state);
        let Input::Domain { domain, .. } = self.settle_until(wanted) else { panic!("{state:?}") };
        domain
    }

    fn done(&mut self, op: u64) -> VmOutcome {
        let wanted = |input: &Input| matches!(input, Input::VmDone { op: done, .. } if done.0 == op);
        let Input::VmDone { outcome, .. } = self.settle_until(wanted) else { panic!("{op}") };
        outcome
    }

    /// A start up to where the images are looked at.
    fn prepare(&mut self, op: u64) {
        let action = VmAction::Prepare {
            vm: vm(),
            name: "web".into(),
            datastore: "ds1".into(),
            xml: XmlId(1),
            token: Token::default(),
        };
        self.act(op, action);
        assert!(matches!(self.errands.pop(), Some(Errand::LoadXml { .. })));
        self.news(VmNews::XmlLoaded(OpId(op), Ok(xml("/srv/ds1/web.img", ""))));
        let Some(Errand::Probe { images, .. }) = self.errands.pop() else { panic!("no probe") };
        assert_eq!(images, [PathBuf::from("/srv/ds1/web.img")]);
    }
}

#[test]
fn a_domain_is_told_with_home_needs_and_wishes() {
    let mut bench = Bench::new();
    let text = xml("/srv/ds1/web.img", "<m:vm xmlns:m='https://mainstay/1' priority='high'/>");
    let uuid = bench.fake.user_defines(&text).expect("defined");
    bench.fake.user_starts(uuid).expect("started");
    let domain = bench.domain(DomainState::Running);
    assert_eq!(domain.home, Some(DatastoreName::new("ds1")), "the longest of /srv, /srv/ds1; not /srv/ds10");
    let spec = domain.spec.expect("a spec");
    assert_eq!((spec.memory_mib, spec.vcpus, spec.priority), (1_025, 2, Priority::High));
    assert_eq!(spec.xml.0 & 0xffff_ffff, text.len() as u64);
    assert_eq!(bench.vms.xml(vm(), spec.xml).as_deref(), Some(text.as_str()));
    assert_eq!(bench.vms.xml(vm(), XmlId(1)), None);
}

#[test]
fn a_vm_on_no_datastore_has_no_home() {
    let mut bench = Bench::new();
    bench.fake.user_defines(&xml("/var/lib/web.img", "")).expect("defined");
    assert_eq!(bench.domain(DomainState::Stopped(StopCause::Unknown)).home, None);
}

#[test]
fn causes_tell_users_and_guests_from_accidents() {
    type Stop = fn(&FakeHypervisor, hv::DomainUuid);
    let table: [(Stop, StopCause); 4] = [
        (FakeHypervisor::guest_powers_off, StopCause::GuestShutdown),
        (FakeHypervisor::user_destroys, StopCause::UserDestroyed),
        (FakeHypervisor::qemu_dies, StopCause::Crashed),
        (FakeHypervisor::qemu_is_terminated, StopCause::HostFailed),
    ];
    for (stop, cause) in table {
        let mut bench = Bench::new();
        let uuid = bench.fake.user_defines(&xml("/srv/ds1/web.img", "")).expect("defined");
        bench.fake.user_starts(uuid).expect("started");
        bench.domain(DomainState::Running);
        stop(&bench.fake, uuid);
        bench.domain(DomainState::Stopped(cause));
    }
}

#[test]
fn what_is_shut_down_while_its_host_goes_down_was_not_its_users_will() {
    let run = tempfile::tempdir().expect("a folder");
    std::fs::write(run.path().join("nologin"), "System is going down.").expect("written");
    type Stop = fn(&FakeHypervisor, hv::DomainUuid);
    let table: [(Stop, StopCause); 2] = [
        (FakeHypervisor::guest_powers_off, StopCause::HostFailed),
        (FakeHypervisor::user_destroys, StopCause::UserDestroyed),
    ];
    for (stop, cause) in table {
        let mut bench = Bench::new();
        let migrations = Migrations { destinations: [].into(), timeout: std::time::Duration::from_secs(60) };
        bench.vms = Vms::new(Mounts::new(Vec::new()), migrations).in_host(GoingDown::below(run.path()));
        let uuid = bench.fake.user_defines(&xml("/srv/ds1/web.img", "")).expect("defined");
        bench.fake.user_starts(uuid).expect("started");
        bench.domain(DomainState::Running);
        stop(&bench.fake, uuid);
        bench.domain(DomainState::Stopped(cause));
    }
}

#[test]
fn a_prepared_vm_shows_as_prepared_until_it_is_resumed() {
    let mut bench = Bench::new();
    bench.prepare(7);
    bench.news(VmNews::Probed(OpId(7), Ok(ImageState::Free)));
    bench.domain(DomainState::Prepared);
    assert_eq!(bench.done(7), VmOutcome::Done);
    bench.fake.resync();
    let all = bench.settle_until(|input| matches!(input, Input::Domains { .. }));
    assert!(
        matches!(&all, Input::Domains { domains: list, .. } if list[0].state == DomainState::Prepared),
        "{all:?}"
    );
    bench.act(8, VmAction::Resume { vm: vm() });
    bench.domain(DomainState::Running);
    assert_eq!(bench.done(8), VmOutcome::Done);
}

#[test]
fn a_held_image_is_waited_for_and_told_once() {
    let mut bench = Bench::new();
    bench.prepare(7);
    for _ in 0..3 {
        bench.news(VmNews::Probed(OpId(7), Ok(ImageState::Held("h2 holds it".into()))));
        assert!(matches!(bench.errands.pop(), Some(Errand::Later(_, VmNews::ProbeAgain(OpId(7))))));
        bench.news(VmNews::ProbeAgain(OpId(7)));
        assert!(matches!(bench.errands.pop(), Some(Errand::Probe { .. })));
    }
    let waits = |input: &&Input| matches!(input, Input::VmWaits { why, .. } if &**why == "h2 holds it");
    assert_eq!(bench.inputs.iter().filter(waits).count(), 1);
    bench.news(VmNews::Probed(OpId(7), Ok(ImageState::Free)));
    assert_eq!(bench.done(7), VmOutcome::Done);
}

#[test]
fn a_lock_that_only_qemu_sees_leads_back_to_waiting() {
    let mut bench = Bench::new();
    let locked = hv::OpError::ImageLocked { message: "x".into() };
    bench.prepare(7);
    bench.fake.refuse_next(hv::DomainUuid(vm().0), locked);
    bench.news(VmNews::Probed(OpId(7), Ok(ImageState::Free)));
    bench.settle_until(|input| matches!(input, Input::VmWaits { op: OpId(7), .. }));
    bench.news(VmNews::Probed(OpId(7), Ok(ImageState::Free)));
    assert_eq!(bench.done(7), VmOutcome::Done);
}

#[test]
fn destroy_calls_off_a_start_that_waits() {
    let mut bench = Bench::new();
    bench.prepare(7);
    bench.news(VmNews::Probed(OpId(7), Ok(ImageState::Held("h2 holds it".into()))));
    bench.act(8, VmAction::Destroy { vm: vm() });
    assert_eq!(bench.done(7), VmOutcome::Failed("the start was called off".into()));
    assert_eq!(bench.done(8), VmOutcome::Done, "there is nothing to destroy");
    bench.news(VmNews::ProbeAgain(OpId(7)));
    assert!(!bench.errands.iter().any(|errand| matches!(errand, Errand::Probe { .. })));
}

#[test]
fn what_this_agent_destroyed_was_not_its_users_will() {
    let mut bench = Bench::new();
    bench.prepare(7);
    bench.news(VmNews::Probed(OpId(7), Ok(ImageState::Free)));
    assert_eq!(bench.done(7), VmOutcome::Done);
    bench.act(8, VmAction::Destroy { vm: vm() });
    bench.domain(DomainState::Stopped(StopCause::Withdrawn));
}

#[test]
fn how_many_domains_run_is_told_when_it_changes() {
    let mut bench = Bench::new();
    let counted = |count: u32| move |input: &Input| matches!(input, Input::Capacity(c) if c.domains == count);
    let uuid = bench.fake.user_defines(&xml("/var/lib/web.img", "")).expect("defined");
    bench.fake.user_starts(uuid).expect("started");
    // Long before libvirt is asked about the host again, and also for a VM that nobody protects.
    bench.settle_until(counted(1));
    bench.inputs.clear();
    bench.fake.user_destroys(uuid);
    bench.settle_until(counted(0));
}

#[test]
fn a_hanging_libvirt_stops_nothing_and_leaves_outcomes_unknown() {
    let mut bench = Bench::new();
    let uuid = bench.fake.user_defines(&xml("/srv/ds1/web.img", "")).expect("defined");
    bench.fake.user_starts(uuid).expect("started");
    bench.domain(DomainState::Running);
    bench.inputs.clear();
    bench.fake.daemon_hangs();
    bench.settle_until(|input| *input == Input::HypervisorLost);
    bench.act(9, VmAction::Undefine { vm: vm() });
    assert!(matches!(bench.done(9), VmOutcome::Unknown(_)));
    bench.fake.daemon_returns();
    let all = bench.settle_until(|input| matches!(input, Input::Domains { .. }));
    assert!(
        matches!(&all, Input::Domains { domains: list, .. } if list[0].state == DomainState::Running),
        "{all:?}"
    );
}

#[test]
fn a_stuck_qemu_is_there_as_last_known() {
    let mut bench = Bench::new();
    let uuid = bench.fake.user_defines(&xml("/srv/ds1/web.img", "")).expect("defined");
    bench.fake.user_starts(uuid).expect("started");
    bench.domain(DomainState::Running);
    bench.inputs.clear();
    bench.fake.qemu_is_stuck(uuid, true);
    bench.fake.resync();
    let all = bench.settle_until(|input| matches!(input, Input::Domains { .. }));
    assert!(
        matches!(&all, Input::Domains { domains: list, .. } if list[0].state == DomainState::Running),
        "{all:?}"
    );
    assert_eq!(bench.vms.counters.incomplete_snapshots, 1);
}

#[test]
fn a_stored_xml_of_another_vm_is_refused() {
    let mut bench = Bench::new();
    let action = VmAction::Prepare {
        vm: VmId([9; 16]),
        name: "other".into(),
        datastore: "ds1".into(),
        xml: XmlId(1),
        token: Token::default(),
    };
    bench.act(7, action);
    bench.news(VmNews::XmlLoaded(OpId(7), Ok(xml("/srv/ds1/web.img", ""))));
    let expected = format!("the stored domain XML is of another VM ({VM})");
    assert_eq!(bench.done(7), VmOutcome::Failed(expected.as_str().into()));
}

#[test]
fn an_image_that_can_not_be_looked_at_fails_the_start_after_a_while() {
    let mut bench = Bench::new();
    bench.prepare(7);
    for _ in 0..5 {
        bench.news(VmNews::Probed(OpId(7), Err("it does not exist".into())));
    }
    assert_eq!(bench.done(7), VmOutcome::Failed("it does not exist".into()));
}

#[test]
fn after_an_operation_the_vm_is_read_again() {
    let mut bench = Bench::new();
    bench.prepare(7);
    bench.news(VmNews::Probed(OpId(7), Ok(ImageState::Free)));
    for (op, action, state) in [
        (7, None, DomainState::Prepared),
        (8, Some(VmAction::Resume { vm: vm() }), DomainState::Running),
        (9, Some(VmAction::Destroy { vm: vm() }), DomainState::Stopped(StopCause::Withdrawn)),
    ] {
        if let Some(action) = action {
            bench.act(op, action);
        }
        while !bench
            .inputs
            .iter()
            .any(|input| matches!(input, Input::VmDone { op: done, .. } if done.0 == op))
        {
            bench.take_event();
        }
        let (ended, heard) = (bench.stepped, bench.inputs.len());
        bench.inputs.drain(..heard);
        let fresh = |input: &Input| matches!(input, Input::Domain { as_of, .. } if *as_of >= ended);
        let Input::Domain { domain, .. } = bench.settle_until(fresh) else { panic!() };
        assert_eq!(domain.state, state);
    }
}

#[test]
fn answers_count_as_of_when_they_were_asked_for() {
    let mut bench = Bench::new();
    let uuid = bench.fake.user_defines(&xml("/srv/ds1/web.img", "")).expect("defined");
    bench.fake.user_starts(uuid).expect("started");
    bench.domain(DomainState::Running);
    let before = clock::now();
    let late = bench.events_up_to_a_snapshot();
    let asked = clock::now();
    bench.fake.qemu_dies(uuid);
    let stopped = DomainState::Stopped(StopCause::Crashed);
    let after = bench.settle_until(
        |input| matches!(input, Input::Domain { as_of, domain } if *as_of >= asked && domain.state == stopped),
    );
    for event in late {
        bench.news(VmNews::Hypervisor(event));
    }
    let all = bench.settle_until(|input| matches!(input, Input::Domains { .. }));
    let Input::Domains { as_of, domains } = all else { panic!() };
    assert!(before <= as_of && as_of <= asked);
    let Input::Domain { domain, .. } = after else { panic!() };
    assert_eq!(domains, [domain], "the older answer changes nothing");
}

#[test]
fn an_older_answer_brings_nothing_back() {
    let mut bench = Bench::new();
    let uuid = bench.fake.user_defines(&xml("/srv/ds1/web.img", "")).expect("defined");
    bench.fake.user_starts(uuid).expect("started");
    let running = loop {
        match bench.next_event() {
            hv::Event::Changed(domain) if domain.state == hv::DomainState::Running => break domain,
            event => bench.news(VmNews::Hypervisor(event)),
        }
    };
    bench.fake.user_destroys(uuid);
    bench.fake.submit(1_000, hv::Op::Undefine { uuid });
    bench.inputs.clear();
    let stopped = DomainState::Stopped(StopCause::UserDestroyed);
    bench.domain(stopped);
    let gone = bench.settle_until(|input| matches!(input, Input::Domain { .. }));
    assert!(matches!(gone, Input::Domain { domain, .. } if domain.state == stopped));
    // Once as long as it is remembered, once when only the list tells that there is none.
    bench.news(VmNews::Hypervisor(hv::Event::Changed(running.clone())));
    bench.fake.resync();
    let all = bench.settle_until(|input| matches!(input, Input::Domains { .. }));
    assert!(matches!(&all, Input::Domains { domains, .. } if domains.is_empty()), "{all:?}");
    bench.news(VmNews::Hypervisor(hv::Event::Changed(running)));
    let back =
        |input: &Input| matches!(input, Input::Domain { domain, .. } if domain.state == DomainState::Running);
    assert!(!bench.inputs.iter().any(back));
}

#[test]
fn what_is_seen_while_a_start_is_under_way_does_not_undo_its_preparation() {
    let mut bench = Bench::new();
    let uuid = bench.fake.user_defines(&xml("/srv/ds1/web.img", "")).expect("defined");
    bench.domain(DomainState::Stopped(StopCause::Unknown));
    let late = bench.events_up_to_a_snapshot();
    bench.prepare(7);
    bench.news(VmNews::Probed(OpId(7), Ok(ImageState::Free)));
    // libvirt was asked before the start was ordered, and again between its definition and its QEMU.
    for event in late {
        let hv::Event::Snapshot { domains, .. } = &event else { continue };
        let mut defined = domains[0].clone();
        bench.news(VmNews::Hypervisor(event));
        defined.as_of = clock::now();
        bench.news(VmNews::Hypervisor(hv::Event::Changed(Box::new(defined))));
    }
    assert_eq!(bench.done(7), VmOutcome::Done);
    bench.domain(DomainState::Prepared);
    let running =
        |input: &Input| matches!(input, Input::Domain { domain, .. } if domain.state == DomainState::Running);
    assert!(!bench.inputs.iter().any(running));
    assert!(bench.fake.state_of(uuid).is_some_and(hv::DomainState::is_active));
}

#[test]
fn a_partial_snapshot_says_nothing_new_about_absence() {
    let mut bench = Bench::new();
    let uuid = bench.fake.user_defines(&xml("/srv/ds1/web.img", "")).expect("defined");
    bench.fake.user_starts(uuid).expect("started");
    bench.domain(DomainState::Running);
    bench.fake.resync();
    let all = bench.settle_until(|input| matches!(input, Input::Domains { .. }));
    let Input::Domains { as_of: complete, .. } = all else { panic!() };
    bench.fake.qemu_is_stuck(uuid, true);
    bench.fake.resync();
    let some = bench.settle_until(|input| matches!(input, Input::Domains { .. }));
    assert!(matches!(some, Input::Domains { as_of, .. } if as_of == complete), "{some:?}");
}
