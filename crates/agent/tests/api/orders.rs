//! Orders: how each is read, what is refused, and that hosts and what stays are filled in.

use crate::cluster::Cluster;
use mainstay_agent::api::{AdmissionOrder, ApiRequest, HostOrder, encode_segment};
use mainstay_agent::client::ClientError;
use mainstay_api::{Done, Rehearsal};
use mainstay_core::ids::HostId;
use mainstay_core::register::Priority;
use mainstay_core::settings::{Evacuation, Policy, READY_TIMEOUT, Readiness, ReadyWhen, RuleKind, Strength};
use mainstay_core::{Command, Span};

fn read(target: &str) -> ApiRequest {
    ApiRequest::parse("POST", target).expect(target)
}

fn command(target: &str) -> Command {
    match read(target) {
        ApiRequest::Order(command) => command,
        other => panic!("{target}: {other:?}"),
    }
}

fn host_order(target: &str) -> HostOrder {
    match read(target) {
        ApiRequest::HostOrder(order) => order,
        other => panic!("{target}: {other:?}"),
    }
}

fn refused(target: &str) -> String {
    let (status, error) = ApiRequest::parse("POST", target).expect_err(target);
    assert_eq!(status, 400, "{target}: {error}");
    error
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
        assert_eq!(command(&target), Command::SetPriority { vm: "web 1".into(), priority });
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
    let ready = |query: &str| {
        let Command::SetReadiness { vm, readiness } = command(&format!("/v1/vms/db/ready?{query}")) else {
            panic!("{query}")
        };
        assert_eq!(vm, "db");
        readiness
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
        host_order("/v1/rules/near%20db?strength=must&kind=on-hosts&vms=web%2C1,db&hosts=h1,host-2"),
        HostOrder::SetRule {
            name: "near db".into(),
            strength: Strength::Must,
            kind: RuleKind::OnHosts,
            vms: strings(&["web,1", "db"]),
            hosts: strings(&["h1", "host-2"]),
        }
    );
    for (word, kind, hosts) in [
        ("not-on-hosts", RuleKind::NotOnHosts, "h1"),
        ("apart", RuleKind::Apart, ""),
        ("together", RuleKind::Together, ""),
    ] {
        let order = host_order(&format!("/v1/rules/r?strength=should&kind={word}&vms=a,b&hosts={hosts}"));
        let HostOrder::SetRule { strength: Strength::Should, kind: read, .. } = order else {
            panic!("{order:?}")
        };
        assert_eq!(read, kind);
    }
    assert_eq!(command("/v1/rules/r/remove"), Command::RemoveRule { name: "r".into() });
    assert_eq!(
        command("/v1/groups/web?vms=a,b&after=db,cache"),
        Command::SetGroup {
            name: "web".into(),
            vms: strings(&["a", "b"]),
            waits_for: vec!["db".into(), "cache".into()]
        }
    );
    assert_eq!(command("/v1/groups/web/remove"), Command::RemoveGroup { name: "web".into() });
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
        ApiRequest::SetAdmission(order) => order,
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
    let host = || String::from("h1");
    let table = [
        ("/v1/hosts/h1/failover", HostOrder::Failover { host: host(), keep: true }),
        ("/v1/hosts/h1/failover?keep=false", HostOrder::Failover { host: host(), keep: false }),
        ("/v1/hosts/h1/confirm-down", HostOrder::ConfirmDown { host: host() }),
        (
            "/v1/hosts/h1/maintenance/enter",
            HostOrder::EnterMaintenance { host: host(), how: Evacuation::Migrate, force: false },
        ),
        (
            "/v1/hosts/h1/maintenance/enter?how=shutdown&force=true",
            HostOrder::EnterMaintenance { host: host(), how: Evacuation::ShutDown, force: true },
        ),
        ("/v1/hosts/h1/maintenance/leave", HostOrder::LeaveMaintenance { host: host(), bring_back: false }),
        (
            "/v1/hosts/h1/maintenance/leave?bring_back=true",
            HostOrder::LeaveMaintenance { host: host(), bring_back: true },
        ),
    ];
    for (target, order) in table {
        assert_eq!(host_order(target), order);
    }
    assert_eq!(command("/v1/suspend?seconds=7200"), Command::Suspend { length: Span::from_secs(7_200) });
    assert_eq!(command("/v1/resume"), Command::Resume);
    for (target, remedy) in [
        ("/v1/suspend", "add seconds=N, from 1 to 604800"),
        ("/v1/suspend?seconds=604801", "from 1 to 604800"),
        ("/v1/suspend?seconds=2h", "a whole number"),
        ("/v1/hosts/h1/maintenance/enter?how=explode", "use migrate or shutdown"),
        ("/v1/hosts//confirm-down", "is no name of a host"),
        ("/v1/hook", "operation is missing"),
        ("/v1/hook?operation=start", "use prepare or migrate"),
    ] {
        let error = refused(target);
        assert!(error.contains(remedy), "{target}: {error}");
    }
    for target in
        ["/v1/hosts/h1/maintenance", "/v1/hosts/h1", "/v1/rules/r/rename", "/v1/rules", "/v2/resume"]
    {
        assert_eq!(ApiRequest::parse("POST", target).expect_err(target).0, 404, "{target}");
    }
    for target in ["/v1/resume", "/v1/rules/r/remove", "/v1/hook?operation=prepare", "/peer/admit"] {
        assert_eq!(ApiRequest::parse("GET", target).expect_err(target).0, 405, "{target}");
    }
    assert_eq!(ApiRequest::parse("POST", "/v1/rehearsal").expect_err("GET").0, 405);
}

#[test]
fn hosts_are_meant_by_name_or_id_and_unknown_ones_are_refused() {
    let cluster = Cluster::start(Some(2));
    for n in 1..=2 {
        for name in ["h1", "host-1"] {
            let target = format!("/v1/hosts/{name}/confirm-down");
            let done: Done = cluster.client(n).post(&target).expect("done");
            assert_eq!(done.message, "ConfirmDown { host: id=1 }, says id=2");
        }
        let target = "/v1/rules/r?strength=must&kind=on-hosts&vms=a&hosts=h2,host-1";
        let done: Done = cluster.client(n).post(target).expect("done");
        assert!(done.message.contains("hosts: [id=2, id=1]"), "{}", done.message);
        let refusal = cluster.client(n).post::<Done>("/v1/hosts/h9/failover").expect_err("no such host");
        assert!(
            matches!(&refusal, ClientError::Refused { status: 404, error }
                if error.starts_with("there is no host h9 in this cluster: its hosts are h")),
            "{refusal:?}"
        );
    }
}

#[test]
fn what_is_not_named_of_admission_control_stays() {
    let cluster = Cluster::start(Some(2));
    let set = |query: &str| {
        cluster.client(1).post::<Done>(&format!("/v1/admission?{query}")).expect("done").message
    };
    let done = set("refuse=false");
    assert!(done.contains("Percentage { cpu: 25, memory: 30 }, refuse: false"), "{done}");
    let done = set("policy=proved");
    assert!(done.contains("Proved { failures: 1 }, refuse: true"), "{done}");
}

#[test]
fn a_rehearsal_is_the_primarys_from_any_host() {
    let cluster = Cluster::start(Some(2));
    for n in 1..=2 {
        let rehearsal: Rehearsal = cluster.client(n).get_patiently("/v1/rehearsal").expect("a rehearsal");
        let hosts: Vec<&str> = rehearsal.rehearsed.hosts.iter().map(|plan| plan.host.as_str()).collect();
        assert_eq!(hosts, ["host-1", "host-2"]);
        assert_eq!(rehearsal.host_names[&HostId::new("host-1")], "h1");
    }
    let cluster = Cluster::start(None);
    let refusal = cluster.client(1).get::<Rehearsal>("/v1/rehearsal").expect_err("no primary");
    assert_eq!(refusal.to_string(), "no primary is elected at the moment: try again in a few seconds");
}
