//! Migrations, questions to guests, and starts that are under way.

use super::*;

fn with_agent() -> String {
    let channel =
        "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel></devices>";
    xml("/srv/ds1/web.img", "").replace("</devices>", channel)
}

/// A VM with a guest agent that runs.
fn running(bench: &mut Bench) -> hv::DomainUuid {
    let uuid = bench.fake.user_defines(&with_agent()).expect("defined");
    bench.fake.user_starts(uuid).expect("started");
    bench.domain(DomainState::Running);
    uuid
}

fn failure(outcome: VmOutcome) -> String {
    match outcome {
        VmOutcome::Failed(reason) => reason.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_vm_migrates_to_the_host_that_the_configuration_knows() {
    let (mut bench, other) = (Bench::new(), Bench::new());
    let uuid = running(&mut bench);
    bench.fake.reaches(URI, &other.fake);
    bench.act(7, VmAction::Migrate { vm: vm(), to: HostId::new("host-2") });
    bench.domain(DomainState::Stopped(StopCause::Migrated));
    assert_eq!(bench.done(7), VmOutcome::Done);
    assert_eq!(bench.fake.state_of(uuid), None);
    assert_eq!(other.fake.state_of(uuid), Some(hv::DomainState::Running));
}

#[test]
fn libvirt_is_told_where_the_memory_goes_and_how_long_it_may_take() {
    let mut bench = Bench::new();
    bench.vms.act(
        OpId(7),
        VmAction::Migrate { vm: vm(), to: HostId::new("host-2") },
        &mut bench.inputs,
        &mut bench.errands,
    );
    let Some(Errand::Libvirt(_, operation)) = bench.errands.pop() else { panic!("no operation") };
    let expected = hv::Op::Migrate {
        uuid: hv::DomainUuid(vm().0),
        destination_uri: URI.into(),
        data_uri: Some("tcp://10.77.0.2".into()),
        timeout: std::time::Duration::from_secs(60),
    };
    assert_eq!(operation, expected);
}

#[test]
fn a_migration_that_fails_leaves_the_vm_and_says_why() {
    let mut bench = Bench::new();
    let uuid = running(&mut bench);
    bench.act(7, VmAction::Migrate { vm: vm(), to: HostId::new("host-2") });
    let reason = failure(bench.done(7));
    assert!(reason.starts_with(&format!("the destination {URI} cannot be reached")), "{reason}");
    bench.act(8, VmAction::Migrate { vm: vm(), to: HostId::new("host-9") });
    assert_eq!(
        failure(bench.done(8)),
        "host-9 is no peer in this host's configuration: add it to agent.toml"
    );
    let unclear = hv::OpError::MigrationUnclear { message: "x".into() };
    bench.fake.refuse_next(uuid, unclear);
    bench.act(9, VmAction::Migrate { vm: vm(), to: HostId::new("host-2") });
    assert!(matches!(bench.done(9), VmOutcome::Unknown(_)), "both hosts will show where it is");
    assert_eq!(bench.fake.state_of(uuid), Some(hv::DomainState::Running));
}

#[test]
fn a_guest_is_up_when_its_agent_answers() {
    let mut bench = Bench::new();
    let uuid = running(&mut bench);
    bench.act(7, VmAction::AskGuest { vm: vm(), command: None });
    assert_eq!(bench.done(7), VmOutcome::Done);
    for (answer, reason) in [
        (hv::GuestAnswer::Silent, "its guest agent does not answer"),
        (hv::GuestAnswer::NoChannel, "the VM has no channel for a guest agent"),
    ] {
        bench.fake.guest_answers(uuid, answer);
        bench.act(8, VmAction::AskGuest { vm: vm(), command: Some("/bin/true".into()) });
        assert_eq!(failure(bench.done(8)), reason);
    }
    bench.fake.user_destroys(uuid);
    bench.act(9, VmAction::AskGuest { vm: vm(), command: None });
    assert!(failure(bench.done(9)).contains("not running"));
}

#[test]
fn a_command_counts_when_it_succeeds() {
    let mut bench = Bench::new();
    let uuid = running(&mut bench);
    for (exit, failed) in [
        (hv::GuestExit::Code(0), None),
        (hv::GuestExit::Code(3), Some("the command in its guest ended with exit code 3")),
        (hv::GuestExit::Signal(9), Some("the command in its guest was ended by signal 9")),
        (hv::GuestExit::StillRuns, Some("the command in its guest has not ended within 60 s")),
    ] {
        bench.fake.guest_commands_end(uuid, exit);
        bench.act(7, VmAction::AskGuest { vm: vm(), command: Some("/bin/ready now".into()) });
        let outcome = bench.done(7);
        match failed {
            None => assert_eq!(outcome, VmOutcome::Done),
            Some(reason) => assert_eq!(failure(outcome), reason),
        }
    }
    bench.act(8, VmAction::AskGuest { vm: vm(), command: Some("  ".into()) });
    assert_eq!(failure(bench.done(8)), "the command set for this VM is empty");
}

#[test]
fn words_of_a_command_are_its_path_and_arguments() {
    let mut bench = Bench::new();
    running(&mut bench);
    bench.act(7, VmAction::AskGuest { vm: vm(), command: Some("/bin/ready  -h localhost".into()) });
    let answered = loop {
        match bench.next_event() {
            event @ hv::Event::Done { result: Ok(hv::OpOutput::Guest(_)), .. } => break event,
            event => bench.news(VmNews::Hypervisor(event)),
        }
    };
    bench.vms.on_news(clock::now(), VmNews::Hypervisor(answered), &mut bench.inputs, &mut bench.errands);
    let Some(Errand::Libvirt(_, hv::Op::GuestCommand { path, args, .. })) = bench.errands.pop() else {
        panic!("no command")
    };
    assert_eq!((path.as_str(), args), ("/bin/ready", vec!["-h".to_owned(), "localhost".to_owned()]));
}

#[test]
fn a_start_is_under_way_from_its_order_until_the_vm_runs() {
    let mut bench = Bench::new();
    assert!(!bench.vms.is_starting(vm()));
    bench.prepare(7);
    assert!(bench.vms.is_starting(vm()), "libvirt's hook may ask at any moment from here on");
    bench.news(VmNews::Probed(OpId(7), Ok(ImageState::Free)));
    assert_eq!(bench.done(7), VmOutcome::Done);
    assert!(bench.vms.is_starting(vm()), "it is paused yet");
    assert!(!bench.vms.is_starting(VmId([9; 16])));
    bench.act(8, VmAction::Resume { vm: vm() });
    assert_eq!(bench.done(8), VmOutcome::Done);
    assert!(!bench.vms.is_starting(vm()));
}

#[test]
fn a_start_that_failed_is_not_under_way() {
    let mut bench = Bench::new();
    bench.prepare(7);
    bench.fake.refuse_next(hv::DomainUuid(vm().0), hv::OpError::NotEnoughMemory { message: "x".into() });
    bench.news(VmNews::Probed(OpId(7), Ok(ImageState::Free)));
    failure(bench.done(7));
    assert!(!bench.vms.is_starting(vm()));
}
