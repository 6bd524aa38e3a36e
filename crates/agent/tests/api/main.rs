//! The API over a real socket and the real transport, with a scripted core behind it.

mod cluster;
mod hook;
mod orders;

use cluster::Cluster;
use mainstay_agent::api;
use mainstay_api::order::{Order, Setting, VmOrder};
use mainstay_api::{Done, EventPage, Local, Status};
use mainstay_client::{Client, ClientError};
use mainstay_core::ids::{DatastoreName, HostId, VmId};
use mainstay_core::register::IsolationResponse;
use mainstay_core::{Event, Span, Time};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

/// What everybody is told who names a VM that there isn't.
const ALL_VMS: &str = "`mainstay vm list` shows all; a VM is known once it has been started";

fn lost(datastore: &str) -> Event {
    Event::DatastoreLost { datastore: DatastoreName::new(datastore), reason: "stale".into() }
}

#[test]
fn status_is_the_primarys_from_any_host_with_the_alarms_of_all() {
    let cluster = Cluster::start(Some(2));
    cluster.journal(1).record(Time(1), lost("ds1"));
    cluster.journal(2).record(Time(1), lost("ds2"));
    for n in 1..=2 {
        let of_all = |status: &Status| status.complete && status.alarms.len() == 2;
        let status: Status = cluster.whole(n, "/v1/status", of_all);
        assert_eq!((status.complete, status.note), (true, None));
        assert_eq!(status.view.host, HostId::new("host-2"));
        assert_eq!(status.host_names[&HostId::new("host-1")], "h1");
        let alarms: Vec<&str> = status.alarms.iter().map(|alarm| alarm.host.as_str()).collect();
        assert_eq!(alarms, ["host-1", "host-2"]);
    }
}

#[test]
fn status_without_a_primary_says_what_it_is() {
    let cluster = Cluster::start(None);
    let status: Status = cluster.client(1).get("/v1/status").expect("a status");
    assert!(!status.complete);
    assert_eq!(
        status.note.as_deref(),
        Some("no primary is elected at the moment; this is only what h1 itself knows")
    );
}

#[test]
fn status_of_a_primary_that_is_gone_is_the_hosts_own() {
    let cluster = Cluster::start(Some(3));
    let status: Status = cluster.client(1).get("/v1/status").expect("a status");
    let note = status.note.expect("a note");
    assert!(note.starts_with("the primary host-3 could not be asked: "), "{note}");
    assert_eq!((status.complete, status.view.host), (false, HostId::new("host-1")));
}

#[test]
fn a_status_names_who_could_not_be_asked_for_alarms() {
    let status: Status = Cluster::without_h2().client(1).get("/v1/status").expect("a status");
    assert!(status.complete);
    let note = status.note.expect("a note");
    assert!(note.starts_with("h2 could not be asked for its alarms: "), "{note}");
}

#[test]
fn orders_go_to_the_primary_and_come_back_with_its_words() {
    let cluster = Cluster::start(Some(2));
    for n in 1..=2 {
        let done: Done = cluster.client(n).post("/v1/vms/web%201/protect").expect("done");
        assert_eq!(done.message, "web 1 is protected, says h2");
        let refusal = cluster.client(n).post::<Done>("/v1/vms/web%201/unprotect").expect_err("refused");
        assert!(
            matches!(&refusal, ClientError::Refused { status: 409, error } if error == "web 1 stays protected"),
            "{refusal:?}"
        );
    }
}

#[test]
fn an_unknown_vm_is_told_in_the_same_words_by_every_order_and_near_names_are_suggested() {
    let cluster = Cluster::start(Some(2));
    for n in 1..=2 {
        let refused = |target: &str| match cluster.client(n).post::<Done>(target) {
            Err(ClientError::Refused { status: 409, error }) => error,
            other => panic!("{target}: {other:?}"),
        };
        for target in [
            "/v1/vms/nobody/unprotect",
            "/v1/vms/nobody/isolation?response=leave",
            "/v1/vms/nobody/priority?priority=lowest",
            "/v1/vms/nobody/ready?when=default",
            "/v1/rules/r?strength=must&kind=apart&vms=db,nobody",
            "/v1/groups/g?vms=db,nobody",
        ] {
            assert_eq!(refused(target), format!("no VM called nobody is known: {ALL_VMS}"));
        }
        assert_eq!(
            refused("/v1/vms/wbe%201/unprotect"),
            format!("no VM called wbe 1 is known: did you mean web 1? {ALL_VMS}")
        );
        // Known to the core before any view shows it.
        let done: Done = cluster.client(n).post("/v1/vms/newborn/protect").expect("done");
        assert_eq!(done.message, "newborn is protected, says h2");
    }
}

#[test]
fn an_isolation_response_is_set_by_the_primary_and_what_is_not_named_stays() {
    let cluster = Cluster::start(Some(2));
    let set = |n: u32, vm: &str, response, shutdown_timeout| {
        let order = VmOrder::SetIsolation { response, shutdown_timeout };
        let order = Order::Vm { vm: vm.into(), order };
        cluster.client(n).post::<Done>(&order.target()).map(|done| done.message)
    };
    let (web, db) = (VmId([1; 16]), VmId([2; 16]));
    let shut_down = Setting::To(IsolationResponse::ShutDown);
    for n in 1..=2 {
        let done = set(n, "web 1", shut_down, Setting::Keep).expect("done");
        assert_eq!(done, format!("{web}: Some(\"shut down\"), None, says h2"));
        let done = set(n, "db", shut_down, Setting::Keep).expect("done");
        assert_eq!(done, format!("{db}: Some(\"shut down\"), Some(\"60.000 s\"), says h2"));
        let done = set(n, &db.to_string(), Setting::Keep, Setting::ClusterDefault).expect("done");
        assert_eq!(done, format!("{db}: Some(\"power off\"), None, says h2"));
        let done = set(n, "db", Setting::ClusterDefault, Setting::To(Span::from_secs(9))).expect("done");
        assert_eq!(done, format!("{db}: None, Some(\"9.000 s\"), says h2"));
        let refusal = set(n, "twin", shut_down, Setting::Keep).expect_err("two of them").to_string();
        let twins = [VmId([3; 16]), VmId([4; 16])];
        let expected = format!("2 VMs are called twin: say which by its UUID, {} or {}", twins[0], twins[1]);
        assert_eq!(refusal, expected);
        let refusal = set(n, "nobody", shut_down, Setting::Keep).expect_err("none").to_string();
        assert_eq!(refusal, format!("no VM called nobody is known: {ALL_VMS}"));
    }
}

#[test]
fn orders_without_a_primary_are_refused_with_the_remedy() {
    let cluster = Cluster::start(None);
    let refusal = cluster.client(1).post::<Done>("/v1/vms/web/protect").expect_err("refused");
    assert_eq!(refusal.to_string(), "no primary is elected at the moment: try again in a few seconds");
}

#[test]
fn the_header_sends_a_request_to_a_host_by_name_or_id() {
    let cluster = Cluster::start(Some(2));
    for name in ["h2", "host-2"] {
        let local: Local = cluster.client(1).on_host(name).get("/v1/local").expect("an answer");
        assert_eq!((local.host, local.counters["core.steps"]), (HostId::new("host-2"), 17));
    }
    let local: Local = cluster.client(1).on_host("h1").get("/v1/local").expect("an answer");
    assert_eq!(local.host, HostId::new("host-1"));
    let refusal = cluster.client(1).on_host("h9").get::<Local>("/v1/local").expect_err("no such host");
    assert_eq!(refusal.to_string(), "there is no host h9 in this cluster: its hosts are h1, h2");
}

#[test]
fn events_of_all_hosts_are_merged_by_time() {
    let cluster = Cluster::start(Some(2));
    for (n, datastore) in [(1, "a"), (2, "b"), (1, "c"), (2, "d")] {
        cluster.journal(n).record(Time(1), lost(datastore));
    }
    let page: EventPage = cluster.whole(1, "/v1/events", |page: &EventPage| page.missing.is_empty());
    let texts: Vec<&str> = page.events.iter().map(|event| event.text.as_str()).collect();
    let expected = ["a", "b", "c", "d"].map(|name| format!("datastore {name} is out of reach: stale"));
    assert_eq!(texts, expected);
    assert!(page.missing.is_empty());
    let after = page.events[1].at_unix_us;
    let later = format!("/v1/events?after={after}&limit=1");
    let page: EventPage = cluster.whole(2, &later, |page: &EventPage| page.missing.is_empty());
    assert_eq!(page.events.len(), 1);
    assert_eq!(page.events[0].text, expected[3]);
}

#[test]
fn a_follower_gets_events_of_all_hosts() {
    let cluster = Cluster::start(Some(2));
    cluster.journal(1).record(Time(1), lost("before"));
    let journals = cluster.journals.clone();
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    // A follower says nowhere that it is ready for a peer's events, so they are repeated until it has seen both hosts'.
    let recorder = std::thread::spawn(move || {
        while is_done
            .recv_timeout(Duration::from_millis(20))
            .is_err_and(|error| error == std::sync::mpsc::RecvTimeoutError::Timeout)
        {
            journals.iter().for_each(|journal| journal.record(Time(1), lost("now")));
        }
    });
    let mut seen = std::collections::BTreeSet::new();
    cluster
        .client(1)
        .follow("/v1/events?follow=true", |record| {
            assert!(!record.text.contains("before"), "only new ones were asked for");
            seen.insert(record.host);
            seen.len() < 2
        })
        .expect("events");
    drop(done);
    recorder.join().expect("no panic");
    assert_eq!(seen.len(), 2);
}

#[test]
fn following_through_another_host_is_refused_with_the_remedy() {
    let cluster = Cluster::start(Some(1));
    let client = cluster.client(1).on_host("h2");
    let refusal = client.follow("/v1/events?follow=true", |_| true).expect_err("refused").to_string();
    assert_eq!(
        refusal,
        "events can't be followed through another host: leave the host out, events of all hosts come anyway"
    );
}

#[test]
fn what_is_not_there_is_refused() {
    let cluster = Cluster::start(Some(1));
    let refusal = cluster.client(1).get::<Status>("/v1/nothing").expect_err("nothing there");
    assert!(matches!(refusal, ClientError::Refused { status: 404, .. }), "{refusal:?}");
}

#[test]
fn the_socket_is_for_its_owner_and_a_live_one_is_not_replaced() {
    let cluster = Cluster::start(Some(1));
    let path = cluster.dir.path().join("h1.sock");
    let mode = std::fs::metadata(&path).expect("a socket").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let refusal = api::bind(&path).expect_err("a live socket").to_string();
    let expected = format!(
        "another agent already answers at {}: stop it first, or give this one another [api] socket",
        path.display()
    );
    assert_eq!(refusal, expected);
}

#[test]
fn a_socket_that_a_crashed_agent_left_is_replaced() {
    let dir = tempfile::tempdir().expect("a directory");
    let path: PathBuf = dir.path().join("run/agent.sock");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _inside = runtime.enter();
    drop(api::bind(&path).expect("a socket"));
    assert!(path.exists(), "left as after a crash");
    let refusal = Client::new(&path).get::<Status>("/v1/status").expect_err("nobody answers");
    assert!(refusal.to_string().starts_with("no agent runs here (nothing answers at "), "{refusal}");
    api::bind(&path).expect("a socket again");
}

#[test]
fn without_a_socket_the_client_says_how_to_start_the_agent() {
    let refusal = Client::new("/nowhere/agent.sock").get::<Status>("/v1/status").expect_err("no agent");
    assert_eq!(
        refusal.to_string(),
        "no agent runs here (nothing answers at /nowhere/agent.sock): start it with \"systemctl start mainstay\" or \"mainstay agent --config FILE\""
    );
}
