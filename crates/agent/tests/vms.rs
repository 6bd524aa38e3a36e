//! What the core hears of VMs, and what libvirt is asked for, over the hypervisor in memory.

use mainstay_agent::vms::{Errand, ImageState, VmNews, Vms};
use mainstay_core::ids::{DatastoreName, OpId, Token, VmId, XmlId};
use mainstay_core::register::{Priority, StopCause};
use mainstay_core::{Domain, DomainState, Input, Span, Time, VmAction, VmOutcome};
use mainstay_hypervisor as hv;
use mainstay_hypervisor::Handle;
use mainstay_hypervisor::fake::{FakeHypervisor, FakeStorage};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};

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
    /// A second later with each event.
    now: Time,
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
        let vms = Vms::new(datastores.to_vec());
        let mut bench =
            Bench { vms, now: Time(100_000_000), fake, events, inputs: Vec::new(), errands: Vec::new() };
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
        let patience = std::time::Duration::from_secs(10);
        self.now += Span::from_secs(1);
        let event = self.events.recv_timeout(patience).expect("libvirt tells something");
        self.vms.on_news(self.now, VmNews::Hypervisor(event), &mut self.inputs, &mut self.errands);
        self.run_libvirt_errands();
    }

    fn run_libvirt_errands(&mut self) {
        for errand in std::mem::take(&mut self.errands) {
            match errand {
                Errand::Libvirt(id, op) => self.fake.submit(id, op),
                other => self.errands.push(other),
            }
        }
    }

    fn news(&mut self, news: VmNews) {
        self.vms.on_news(self.now, news, &mut self.inputs, &mut self.errands);
        self.run_libvirt_errands();
    }

    fn act(&mut self, op: u64, action: VmAction) {
        self.vms.act(OpId(op), action, &mut self.inputs, &mut self.errands);
        self.run_libvirt_errands();
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
fn what_was_asked_before_an_operation_never_counts_as_of_after_it() {
    let mut bench = Bench::new();
    bench.prepare(7);
    bench.news(VmNews::Probed(OpId(7), Ok(ImageState::Free)));
    let began = bench.now;
    assert_eq!(bench.done(7), VmOutcome::Done);
    let ended = bench.now;
    let fresh = |input: &Input| matches!(input, Input::Domain { as_of, .. } if *as_of >= ended);
    let Input::Domain { domain, .. } = bench.settle_until(fresh) else { panic!() };
    assert_eq!(domain.state, DomainState::Prepared, "it is read again once the operation is done");
    // The news that libvirt sends by itself may be old: they are never told as newer than they can be.
    bench.inputs.clear();
    bench.fake.resync();
    let snapshot = bench.settle_until(|input| matches!(input, Input::Domains { .. }));
    assert!(matches!(snapshot, Input::Domains { as_of, .. } if as_of < began), "{snapshot:?}");
}

#[test]
fn a_stop_is_known_as_of_after_it_at_once() {
    let mut bench = Bench::new();
    let uuid = bench.fake.user_defines(&xml("/srv/ds1/web.img", "")).expect("defined");
    bench.fake.user_starts(uuid).expect("started");
    bench.domain(DomainState::Running);
    let before = bench.now;
    bench.fake.qemu_dies(uuid);
    let stopped = DomainState::Stopped(StopCause::Crashed);
    bench.settle_until(
        |input| matches!(input, Input::Domain { as_of, domain } if *as_of > before && domain.state == stopped),
    );
}

#[test]
fn old_news_of_a_stopped_domain_do_not_undo_its_preparation() {
    let mut bench = Bench::new();
    let uuid = bench.fake.user_defines(&xml("/srv/ds1/web.img", "")).expect("defined");
    bench.domain(DomainState::Stopped(StopCause::Unknown));
    bench.now += Span::from_secs(60);
    // libvirt is asked for all domains, and the answer is still on its way when the start is ordered.
    bench.fake.resync();
    let mut late = Vec::new();
    while !matches!(late.last(), Some(hv::Event::Snapshot { .. })) {
        late.push(bench.events.recv_timeout(std::time::Duration::from_secs(10)).expect("a snapshot"));
    }
    bench.prepare(7);
    bench.news(VmNews::Probed(OpId(7), Ok(ImageState::Free)));
    for event in late {
        bench.news(VmNews::Hypervisor(event));
    }
    assert_eq!(bench.done(7), VmOutcome::Done);
    bench.domain(DomainState::Prepared);
    let running =
        |input: &Input| matches!(input, Input::Domain { domain, .. } if domain.state == DomainState::Running);
    assert!(!bench.inputs.iter().any(running));
    assert!(bench.fake.state_of(uuid).is_some_and(hv::DomainState::is_active));
}
