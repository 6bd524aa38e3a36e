//! Whole agents: the real core, transport, API and datastore (a directory), over a hypervisor in memory.

mod recorder;
mod world;

use mainstay_api::{Done, EventRecord, Local, Status};
use mainstay_core::Event;
use mainstay_core::view::{Role, VmState};
use mainstay_guard::Service;
use mainstay_guard::freezer::Freezer;
use mainstay_hypervisor as hv;
use mainstay_testkit::wait_until;
use std::os::unix::fs::PermissionsExt;
use world::{Guarding, Host, World};

#[test]
fn one_host_alone_protects_its_vm_restarts_it_and_obeys_its_user() {
    let world = World::new(1);
    let mut host = Host::start(world.config(1, "s1")).expect("it starts");
    let status = host.wait("primary and owner", |status| {
        status.complete && status.view.datastores[0].ownership_left.is_some()
    });
    assert_eq!(status.view.role, Role::Primary);

    let uuid = host.fake.user_defines(&world.xml()).expect("defined");
    host.fake.user_starts(uuid).expect("started");
    host.wait_for_vm("protected", VmState::Running, true);

    host.fake.qemu_dies(uuid);
    world.wait_for_event("s1", "the restart", |event| matches!(event, Event::VmRestarted { .. }));
    assert_eq!(host.fake.state_of(uuid), Some(hv::DomainState::Running));

    let refusal = host.client.post::<Done>("/v1/vms/nobody/unprotect").expect_err("no such VM").to_string();
    assert!(refusal.contains("nobody"), "{refusal}");
    let done: Done = host.client.post("/v1/vms/web/unprotect").expect("done");
    assert!(done.message.contains("web"), "{}", done.message);
    host.client.post::<Done>("/v1/vms/web/protect").expect("done");
    host.wait_for_vm("protected again", VmState::Running, true);

    host.fake.guest_powers_off(uuid);
    host.wait_for_vm("off", VmState::Off, false);
    let local: Local = host.client.get("/v1/local").expect("counters");
    assert!(local.counters["datastore.ds1.writes"] > 0 && local.counters["core.steps"] > 0);
    assert_eq!(local.counters["vms.images_held"], 0);
    host.stop();
    assert!(!world.root().join("s1-run/agent.sock").exists());
}

#[test]
fn two_hosts_elect_one_primary_that_answers_for_both_and_hands_over_when_it_stops() {
    let world = World::new(2);
    let mut hosts: Vec<Host> =
        (1..=2).map(|n| Host::start(world.config(n, &format!("s{n}"))).expect("it starts")).collect();
    for host in &hosts {
        let status = host.wait("one primary", |status| {
            status.complete
                && status
                    .view
                    .hosts
                    .iter()
                    .all(|host| host.state == mainstay_core::host_liveness::HostState::Connected)
        });
        assert_eq!(status.view.host.as_str(), "host-2", "the larger id as text");
    }
    let uuid = hosts[0].fake.user_defines(&world.xml()).expect("defined");
    hosts[0].fake.user_starts(uuid).expect("started");
    hosts[0].wait_for_vm("protected by the other host", VmState::Running, true);

    hosts[1].stop();
    let owner_is_here = |status: &Status| {
        status.complete
            && status.view.host.as_str() == "host-1"
            && status.view.datastores[0].ownership_left.is_some()
            && status.view.vms.iter().any(|vm| vm.protected)
    };
    hosts[0].wait("the other host took over", owner_is_here);
    assert_eq!(hosts[0].fake.state_of(uuid), Some(hv::DomainState::Running));
}

#[test]
fn a_host_in_maintenance_is_emptied_by_migration_and_takes_no_start() {
    let world = World::new(2);
    let hosts: Vec<Host> =
        (1..=2).map(|n| Host::start(world.config(n, &format!("s{n}"))).expect("it starts")).collect();
    hosts[0].fake.reaches("qemu+ssh://h2/system", &hosts[1].fake);
    hosts[1].fake.reaches("qemu+ssh://h1/system", &hosts[0].fake);
    let uuid = hosts[0].fake.user_defines(&world.xml()).expect("defined");
    hosts[0].fake.user_starts(uuid).expect("started");
    hosts[0].wait_for_vm("protected", VmState::Running, true);
    // libvirt asks on the host on which the VM is to be started.
    let hook = |host: &Host, operation: &str| {
        let xml = world.xml().into_bytes();
        host.client.post_body::<Done>(&format!("/v1/hook?operation={operation}"), xml)
    };
    let both =
        |status: &Status| status.complete && status.view.hosts.iter().all(|host| host.capacity.is_some());
    hosts[1].wait("both are known", both);
    let second = hook(&hosts[1], "prepare").expect_err("it runs").to_string();
    assert!(second.starts_with("web runs on h1"), "{second}");
    hook(&hosts[1], "migrate").expect("nothing speaks against it");
    hook(&hosts[1], "prepare").expect("it was announced");

    let done: Done = hosts[0].client.post("/v1/hosts/h1/maintenance/enter").expect("done");
    assert!(done.message.starts_with("h1 is being emptied"), "{}", done.message);
    hosts[0].wait("empty", |status| {
        status.complete
            && status
                .view
                .hosts
                .iter()
                .any(|host| host.maintenance.is_some_and(|emptying| emptying.left == 0))
            && status.view.vms.iter().any(|vm| vm.host.as_ref().is_some_and(|on| on.as_str() == "host-2"))
    });
    assert_eq!(hosts[0].fake.state_of(uuid), None);
    assert_eq!(hosts[1].fake.state_of(uuid), Some(hv::DomainState::Running));
    hook(&hosts[0], "migrate").expect("prepare follows");
    let refusal = hook(&hosts[0], "prepare").expect_err("in maintenance").to_string();
    assert_eq!(refusal, "h1 is in maintenance mode: it takes no VMs");

    hosts[0].client.post::<Done>("/v1/hosts/h1/maintenance/leave?bring_back=true").expect("done");
    hosts[0].wait("back", |status| {
        status.complete
            && status.view.vms.iter().any(|vm| vm.host.as_ref().is_some_and(|on| on.as_str() == "host-1"))
    });
    assert_eq!(hosts[0].fake.state_of(uuid), Some(hv::DomainState::Running));
    let rehearsal: mainstay_api::Rehearsal = hosts[0].client.get_patiently("/v1/rehearsal").expect("plans");
    let plan = rehearsal.rehearsed.hosts.iter().find(|plan| plan.host.as_str() == "host-1").expect("a plan");
    let placed: Vec<(&str, &str)> = plan.placed.iter().map(|vm| (&*vm.name, vm.to.as_str())).collect();
    assert_eq!(placed, [("web", "host-2")]);
    assert_eq!(rehearsal.revision, 2, "the maintenance, and its end");
}

#[test]
fn a_second_agent_on_this_host_or_with_this_hosts_id_elsewhere_is_refused() {
    let world = World::new(1);
    let _host = Host::start(world.config(1, "s1")).expect("it starts");
    let here = Host::start_agent(world.config(1, "s1")).err().expect("refused");
    assert!(
        here.starts_with(&format!("another agent (process {}) already runs", std::process::id())),
        "{here}"
    );
    let elsewhere = Host::start_agent(world.config(1, "s2")).err().expect("refused");
    assert!(elsewhere.contains("host-1"), "{elsewhere}");
}

#[test]
fn a_restarted_agent_keeps_its_vm_and_its_events() {
    let world = World::new(1);
    let mut host = Host::start(world.config(1, "s1")).expect("it starts");
    host.wait("primary", |status| status.complete);
    host.stop();
    let before = world.events("s1").len();
    host.guard.as_ref().expect("its guard goes on");
    let mut again = Host::start_agent(world.config(1, "s1")).expect("it starts again");
    again.guard = host.guard.take();
    let host = again;
    host.wait("primary and owner again", |status| {
        status.complete && status.view.datastores[0].ownership_left.is_some()
    });
    let after = world.events("s1");
    assert!(after.len() > before);
    assert!(after.is_sorted_by_key(|record| record.sequence));
    assert_eq!(after.last().map(|record| record.sequence), Some(after.len() as u64));
}

#[test]
fn an_agent_without_a_guard_does_not_begin_and_says_what_to_do() {
    let world = World::new(1);
    let refusal = Host::start_agent(world.config(1, "s1")).err().expect("refused");
    assert!(refusal.contains("mainstay-guard") && refusal.contains("[guard]"), "{refusal}");
    assert!(!world.root().join("ds1/.mainstay/1ab0001a-lab/host-1-poweron").exists());
}

#[test]
fn another_clusters_guard_is_refused_and_goes_on() {
    let world = World::new(1);
    let mut others = world.config(1, "s1");
    others.cluster_id = "0000000b".into();
    let theirs = Guarding::start(&others);
    let refusal = Host::start_agent(world.config(1, "s1")).err().expect("refused");
    let expected = [
        " is that of host-1 in cluster 0000000b-lab",
        "give this agent a directory of its own, by [api] socket",
    ];
    assert!(expected.iter().all(|words| refusal.contains(words)), "{refusal}");

    // With another host's id it is as foreign.
    let mut moved = others.clone();
    moved.me.id = mainstay_core::HostId::new("host-9");
    moved.state_dir = world.root().join("s9");
    let refusal = Host::start_agent(moved).err().expect("refused");
    assert!(refusal.contains(" is that of host-1 in cluster 0000000b-lab"), "{refusal}");

    // It was not told to end: an agent of its own finds it.
    assert!(theirs.thread.as_ref().is_some_and(|thread| !thread.is_finished()));
    let mut host = Host::start_agent(others).expect("it starts");
    host.guard = Some(theirs);
    host.wait("owner", |status| status.complete && status.view.datastores[0].ownership_left.is_some());
}

#[test]
fn a_guard_with_other_settings_is_replaced_and_a_lost_one_is_found_again() {
    let world = World::new(1);
    let mut other = world.config(1, "s1");
    other.cluster_name = "another-name".into();
    let old = Guarding::start(&other);
    let mut config = world.config(1, "s1");
    // Started by the agent, and of no consequence.
    let program = world.root().join("no-guard");
    std::fs::write(&program, "#!/bin/sh\nexec sleep 5\n").expect("a program");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).expect("its mode");
    config.guard.program = Some(program);
    let settings = mainstay_agent::guard_link::settings(&config);
    // Stands for the agent's starting of the program: a guard comes as soon as the old one has gone.
    let next = std::thread::spawn(move || {
        loop {
            match Service::start(settings.clone(), Freezer::by_signal()) {
                Ok(service) => break service,
                Err(mainstay_guard::GuardError::AlreadyRuns { .. }) => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
    });
    let mut host = Host::start_agent(config.clone()).expect("it starts");
    drop(old);
    host.guard = Some(Guarding::run(next.join().expect("a guard")));
    host.wait("owner", |status| status.complete && status.view.datastores[0].ownership_left.is_some());
    let found = || {
        let is_found = |record: &&EventRecord| matches!(record.event, Some(Event::GuardFound { .. }));
        world.events("s1").iter().filter(is_found).count()
    };
    let before = found();
    drop(host.guard.take());
    host.guard = Some(Guarding::start(&config));
    wait_until("the new guard to be found", || found() > before);
}
