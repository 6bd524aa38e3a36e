//! Orders: how each is read, what is refused, and that each is read as it was written.

use mainstay_api::order::{AdmissionOrder, GroupOrder, HostOrder, Order, RuleOrder, Setting, VmOrder};
use mainstay_api::query::{Wrong, encode_segment};
use mainstay_api::words::Word;
use mainstay_words::Span;
use mainstay_words::register::{IsolationResponse, Priority};
use mainstay_words::settings::{Evacuation, Policy, READY_TIMEOUT, Readiness, ReadyWhen, RuleKind, Strength};

fn parse(target: &str) -> Result<Order, Wrong> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Order::parse(path, query)
}

fn read(target: &str) -> Order {
    parse(target).expect(target)
}

fn refused(target: &str) -> String {
    let wrong = parse(target).expect_err(target);
    assert_eq!(wrong.status, 400, "{target}: {}", wrong.reason);
    wrong.reason
}

fn vm(vm: &str, order: VmOrder) -> Order {
    Order::Vm { vm: vm.into(), order }
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn priorities_are_read() {
    for (word, priority) in [
        ("disabled", Some(Priority::Disabled)),
        ("lowest", Some(Priority::Lowest)),
        ("low", Some(Priority::Low)),
        ("medium", Some(Priority::Medium)),
        ("high", Some(Priority::High)),
        ("highest", Some(Priority::Highest)),
        ("default", None),
    ] {
        let target = format!("/v1/vms/web%201/priority?priority={word}");
        assert_eq!(read(&target), vm("web 1", VmOrder::SetPriority(priority)));
    }
    let allowed = "lowest, low, medium, high, highest, disabled or default";
    assert_eq!(
        refused("/v1/vms/web/priority?priority=urgent"),
        format!("priority=urgent is not possible: use {allowed}")
    );
    assert_eq!(
        refused("/v1/vms/web/priority"),
        format!("priority is missing: add priority=VALUE, with {allowed}")
    );
}

#[test]
fn ready_conditions_are_read() {
    let ready = |query: &str| match read(&format!("/v1/vms/db/ready?{query}")) {
        Order::Vm { vm, order: VmOrder::SetReadiness(readiness) } if vm == "db" => readiness,
        other => panic!("{query}: {other:?}"),
    };
    let of = |when, command: Option<&str>, delay, timeout| {
        Some(Readiness { when, command: command.map(Into::into), delay, timeout })
    };
    assert_eq!(ready("when=started"), of(ReadyWhen::Started, None, Span::ZERO, READY_TIMEOUT));
    assert_eq!(
        ready("when=running&delay=5"),
        of(ReadyWhen::Running, None, Span::from_secs(5), READY_TIMEOUT)
    );
    assert_eq!(
        ready("when=agent&timeout=120"),
        of(ReadyWhen::AgentAnswers, None, Span::ZERO, Span::from_secs(120))
    );
    assert_eq!(
        ready("when=started&delay=599"),
        of(ReadyWhen::Started, None, Span::from_secs(599), READY_TIMEOUT)
    );
    let line = "/usr/bin/pg_isready -h localhost";
    assert_eq!(
        ready(&format!("when=command&command={}", encode_segment(line))),
        of(ReadyWhen::CommandSucceeds, Some(line), Span::ZERO, READY_TIMEOUT)
    );
    assert_eq!(ready("when=default"), None);
    for (query, remedy) in [
        ("", "when is missing"),
        ("when=never", "use started, running, agent, command or default"),
        ("when=command", "command is missing"),
        ("when=command&command=%20", "write the path of a program"),
        ("when=command&command=a%0Ab", "write the path of a program"),
        ("when=agent&command=x", "with when=command only"),
        ("when=default&delay=1", "leave them out"),
        ("when=agent&delay=-1", "use a whole number from 0 to 86400"),
        ("when=agent&delay=700&timeout=600", "delay=700 is never over within timeout=600, which counts from"),
        ("when=running&delay=600", "use a shorter delay or a longer timeout"),
        ("when=agent&timeout=0", "use a whole number from 1 to 86400"),
        ("when=agent&timeouts=9", "there is no parameter \"timeouts\" here: when, command, delay, timeout"),
        ("when=agent&when=agent", "when is given twice"),
    ] {
        let error = refused(&format!("/v1/vms/db/ready?{query}"));
        assert!(error.contains(remedy), "{query}: {error}");
    }
    let long = "x".repeat(257);
    assert!(refused(&format!("/v1/vms/db/ready?when=command&command={long}")).contains("at most 256 bytes"));
}

#[test]
fn rules_and_groups_are_read() {
    assert_eq!(
        read("/v1/rules/near%20db?strength=must&kind=on-hosts&vms=web%2C1,db&hosts=h1,host-2"),
        Order::Rule {
            name: "near db".into(),
            order: RuleOrder::Set {
                strength: Strength::Must,
                kind: RuleKind::OnHosts,
                vms: strings(&["web,1", "db"]),
                hosts: strings(&["h1", "host-2"]),
            }
        }
    );
    for (word, kind, hosts) in [
        ("not-on-hosts", RuleKind::NotOnHosts, "h1"),
        ("apart", RuleKind::Apart, ""),
        ("together", RuleKind::Together, ""),
    ] {
        let order = read(&format!("/v1/rules/r?strength=should&kind={word}&vms=a,b&hosts={hosts}"));
        let Order::Rule { order: RuleOrder::Set { strength: Strength::Should, kind: read, .. }, .. } = order
        else {
            panic!("{order:?}")
        };
        assert_eq!(read, kind);
    }
    assert_eq!(read("/v1/rules/r/remove"), Order::Rule { name: "r".into(), order: RuleOrder::Remove });
    let group = GroupOrder::Set { vms: strings(&["a", "b"]), waits_for: vec!["db".into(), "cache".into()] };
    assert_eq!(
        read("/v1/groups/web?vms=a,b&after=db,cache"),
        Order::Group { name: "web".into(), order: group }
    );
    assert_eq!(read("/v1/groups/web/remove"), Order::Group { name: "web".into(), order: GroupOrder::Remove });
    for (target, remedy) in [
        ("/v1/rules/r?kind=apart&vms=a,b", "strength is missing: add strength=VALUE, with must or should"),
        ("/v1/rules/r?strength=must&kind=near&vms=a,b", "use on-hosts, not-on-hosts, apart or together"),
        ("/v1/rules/r?strength=must&kind=on-hosts&vms=a", "hosts is missing"),
        ("/v1/rules/r?strength=must&kind=on-hosts&hosts=h1", "vms is missing"),
        ("/v1/rules/r?strength=must&kind=apart&vms=a", "needs two VMs or more"),
        ("/v1/rules/r?strength=must&kind=apart&vms=a,b&hosts=h1", "takes no hosts"),
        ("/v1/rules/r?strength=must&kind=apart&vms=a,,b", "a name is empty"),
        ("/v1/rules/r?strength=must&kind=apart&vms=a,%FF", "percent-encode it as UTF-8"),
        ("/v1/rules/r/remove?now=1", "there is no parameter \"now\" here: it takes none"),
        ("/v1/rules/%0A?strength=must&kind=apart&vms=a,b", "is no name for a rule"),
        ("/v1/groups/web", "vms is missing"),
    ] {
        let error = refused(target);
        assert!(error.contains(remedy), "{target}: {error}");
    }
    let long = format!("/v1/groups/{}?vms=a", "g".repeat(65));
    assert!(refused(&long).contains("use 1 to 64 bytes"));
}

#[test]
fn admission_control_is_read() {
    let read = |query: &str| match read(&format!("/v1/admission?{query}")) {
        Order::Admission(order) => order,
        other => panic!("{other:?}"),
    };
    let order = |policy, refuse| AdmissionOrder { policy, refuse };
    assert_eq!(read("policy=proved"), order(Some(Policy::Proved { failures: 1 }), None));
    assert_eq!(
        read("policy=proved&failures=2&refuse=true"),
        order(Some(Policy::Proved { failures: 2 }), Some(true))
    );
    assert_eq!(
        read("policy=host-failures&failures=1&slot_cpu=500&slot_memory=1024"),
        order(
            Some(Policy::HostFailures {
                tolerated: 1,
                slot_cpu_mhz: Some(500),
                slot_memory_mib: Some(1_024)
            }),
            None
        )
    );
    assert_eq!(
        read("policy=percentage&cpu=25&memory=0"),
        order(Some(Policy::Percentage { cpu: 25, memory: 0 }), None)
    );
    assert_eq!(read("policy=failover-hosts&refuse=false"), order(Some(Policy::FailoverHosts), Some(false)));
    assert_eq!(read("refuse=true"), order(None, Some(true)));
    for (query, remedy) in [
        ("", "nothing is to be set"),
        ("policy=hope", "use proved, host-failures, percentage or failover-hosts"),
        ("policy=percentage&cpu=25", "memory is missing: add memory=PERCENT"),
        ("policy=percentage&cpu=25&memory=101", "from 0 to 100"),
        ("policy=proved&failures=0", "from 1 to 1000"),
        ("policy=proved&cpu=25", "policy=proved takes no cpu"),
        ("failures=2", "add policy=NAME"),
        ("refuse=yes", "use true or false"),
    ] {
        let error = refused(&format!("/v1/admission?{query}"));
        assert!(error.contains(remedy), "{query}: {error}");
    }
}

#[test]
fn orders_about_hosts_and_protection_are_read() {
    let table = [
        ("/v1/hosts/h1/failover", HostOrder::Failover { keep: true }),
        ("/v1/hosts/h1/failover?keep=false", HostOrder::Failover { keep: false }),
        ("/v1/hosts/h1/confirm-down", HostOrder::ConfirmDown),
        (
            "/v1/hosts/h1/maintenance/enter",
            HostOrder::EnterMaintenance { how: Evacuation::Migrate, force: false },
        ),
        (
            "/v1/hosts/h1/maintenance/enter?how=shutdown&force=true",
            HostOrder::EnterMaintenance { how: Evacuation::ShutDown, force: true },
        ),
        ("/v1/hosts/h1/maintenance/leave", HostOrder::LeaveMaintenance { bring_back: false }),
        ("/v1/hosts/h1/maintenance/leave?bring_back=true", HostOrder::LeaveMaintenance { bring_back: true }),
    ];
    for (target, order) in table {
        assert_eq!(read(target), Order::Host { host: "h1".into(), order });
    }
    assert_eq!(read("/v1/suspend?seconds=7200"), Order::Suspend { length: Span::from_secs(7_200) });
    assert_eq!(read("/v1/resume"), Order::Resume);
    for (target, remedy) in [
        ("/v1/suspend", "add seconds=N, from 1 to 604800"),
        ("/v1/suspend?seconds=604801", "from 1 to 604800"),
        ("/v1/suspend?seconds=2h", "a whole number"),
        ("/v1/hosts/h1/maintenance/enter?how=explode", "use migrate or shutdown"),
        ("/v1/hosts//confirm-down", "is no name of a host"),
        ("/v1/vms//protect", "is no name of a VM"),
        ("/v1/vms/%f/protect", "is no name of a VM"),
    ] {
        let error = refused(target);
        assert!(error.contains(remedy), "{target}: {error}");
    }
    for target in [
        "/v1/hosts/h1/maintenance",
        "/v1/hosts/h1",
        "/v1/rules/r/rename",
        "/v1/rules",
        "/v1/vms/a/explode",
        "/v2/resume",
    ] {
        assert_eq!(parse(target).expect_err(target).status, 404, "{target}");
    }
}

#[test]
fn isolation_responses_are_read_and_old_words_too() {
    let response = |query: &str| match read(&format!("/v1/vms/web/isolation?{query}")) {
        Order::Vm { order: VmOrder::SetIsolation { response, .. }, .. } => response,
        other => panic!("{query}: {other:?}"),
    };
    for (word, expected) in [
        ("leave", IsolationResponse::LeavePoweredOn),
        ("none", IsolationResponse::LeavePoweredOn),
        ("shut-down", IsolationResponse::ShutDown),
        ("power_off", IsolationResponse::PowerOff),
    ] {
        assert_eq!(response(&format!("response={word}")), Setting::To(expected), "{word}");
    }
    assert_eq!(response("shutdown_timeout=9"), Setting::Keep);
    let refused = |query: &str| refused(&format!("/v1/vms/web/isolation?{query}"));
    assert_eq!(
        refused("response=explode"),
        "there is no isolation response \"explode\": use leave, shutdown, power-off or default"
    );
    for seconds in ["0", "86401", "-1", "2m", ""] {
        let error = refused(&format!("shutdown_timeout={seconds}"));
        assert!(error.contains("use 1 to 86400 seconds"), "{error}");
    }
    assert!(refused("responses=leave").contains("nothing is to be set"));
}

/// Orders of each kind, with each value that has a word.
fn orders() -> Vec<Order> {
    let name = "web 1/ä%,&=";
    let mut orders = vec![Order::Resume, Order::Suspend { length: Span::from_secs(90) }];
    orders.push(vm(name, VmOrder::Protect));
    orders.push(vm(name, VmOrder::Unprotect));
    let responses = IsolationResponse::ALL.iter().copied().map(Setting::To);
    for response in responses.chain([Setting::Keep, Setting::ClusterDefault]) {
        for shutdown_timeout in [Setting::ClusterDefault, Setting::To(Span::from_secs(120))] {
            orders.push(vm(name, VmOrder::SetIsolation { response, shutdown_timeout }));
        }
    }
    let priorities = Priority::ALL.iter().copied().map(Some).chain([None]);
    orders.extend(priorities.map(|priority| vm(name, VmOrder::SetPriority(priority))));
    orders.push(vm(name, VmOrder::SetReadiness(None)));
    for &when in ReadyWhen::ALL {
        let command = (when == ReadyWhen::CommandSucceeds).then(|| "/bin/a b&c=ä,d".into());
        let readiness = Readiness { when, command, delay: Span::from_secs(5), timeout: Span::from_secs(60) };
        orders.push(vm(name, VmOrder::SetReadiness(Some(readiness))));
    }
    for &strength in Strength::ALL {
        for &kind in RuleKind::ALL {
            let about_hosts = matches!(kind, RuleKind::OnHosts | RuleKind::NotOnHosts);
            let hosts = if about_hosts { strings(&["h1", "host,2"]) } else { Vec::new() };
            let order = RuleOrder::Set { strength, kind, vms: strings(&["a,b", "c"]), hosts };
            orders.push(Order::Rule { name: name.into(), order });
        }
    }
    orders.push(Order::Rule { name: name.into(), order: RuleOrder::Remove });
    for waits_for in [vec![], vec!["x,y".into(), "z".into()]] {
        let order = GroupOrder::Set { vms: strings(&["a"]), waits_for };
        orders.push(Order::Group { name: name.into(), order });
    }
    orders.push(Order::Group { name: name.into(), order: GroupOrder::Remove });
    let host_failures =
        |slot_cpu_mhz, slot_memory_mib| Policy::HostFailures { tolerated: 2, slot_cpu_mhz, slot_memory_mib };
    for policy in [
        Policy::Proved { failures: 2 },
        host_failures(None, None),
        host_failures(Some(500), Some(1_024)),
        Policy::Percentage { cpu: 25, memory: 0 },
        Policy::FailoverHosts,
    ] {
        orders.push(Order::Admission(AdmissionOrder { policy: Some(policy), refuse: None }));
    }
    orders.push(Order::Admission(AdmissionOrder { policy: None, refuse: Some(true) }));
    for flag in [false, true] {
        let host = |order| Order::Host { host: name.into(), order };
        orders.push(host(HostOrder::Failover { keep: flag }));
        orders.push(host(HostOrder::LeaveMaintenance { bring_back: flag }));
        for &how in Evacuation::ALL {
            orders.push(host(HostOrder::EnterMaintenance { how, force: flag }));
        }
    }
    orders.push(Order::Host { host: name.into(), order: HostOrder::ConfirmDown });
    orders
}

#[test]
fn an_order_is_read_as_it_was_written() {
    for order in orders() {
        let target = order.target();
        assert_eq!(parse(&target), Ok(order), "{target}");
    }
}
