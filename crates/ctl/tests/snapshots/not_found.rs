//! What is asked for and isn't there: VMs and hosts that nobody knows, events that there are none of, delays that never end.

use super::canned::{id, record, vm_name};
use super::*;
use mainstay_core::Event;
use mainstay_core::register::StopCause;

/// A healthy cluster with events of web, and of gone, which there isn't any more.
fn eventful() -> Canned {
    let stopped = |vm| Event::VmStopped { vm, host: id(1), cause: StopCause::UserShutdown, restart: false };
    let mut canned = Canned::healthy();
    canned.page.events =
        vec![record(0, 3, stopped(vm_name(1, "web"))), record(1_000, 3, stopped(vm_name(9, "gone")))];
    canned
}

#[test]
fn every_command_says_the_same_of_a_vm_that_nobody_knows() {
    let failures = ["vm show nobody", "vm protect nobody", "events --vm nobody", "events --vm nobody --json"]
        .map(|line| run(&mut eventful(), None, &format!("mainstay {line}")));
    let failures = failures.map(|text| {
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with("stderr| No events")).collect();
        lines.join("\n")
    });
    expect![[r#"
        stderr| error: no VM called nobody is known: `mainstay vm list` shows all; a VM is known once it has been started
        exit 1"#]].assert_eq(&failures[0]);
    assert!(failures.iter().all(|failure| *failure == failures[0]), "{failures:#?}");
}

#[test]
fn names_that_may_have_been_meant_are_suggested() {
    check(
        eventful(),
        "mainstay vm show wbe",
        expect![[r#"
        stderr| error: no VM called wbe is known: did you mean web? `mainstay vm list` shows all; a VM is known once it has been started
        exit 1
    "#]],
    );
    check(
        eventful(),
        "mainstay events --vm WEB",
        expect![[r#"
        stderr| No events of VM WEB.
        stderr| error: no VM called WEB is known: did you mean web? `mainstay vm list` shows all; a VM is known once it has been started
        exit 1
    "#]],
    );
}

#[test]
fn a_host_that_answers_for_itself_alone_says_so_when_it_does_not_know_a_vm() {
    check(
        Canned::no_primary(),
        "mainstay vm show web",
        expect![[r#"
        stderr| error: no VM called web is known: `mainstay vm list` shows all; a VM is known once it has been started (h2 follows no primary at present; an election is under way)
        exit 1
    "#]],
    );
}

#[test]
fn events_of_a_vm_that_is_gone_are_shown_and_a_vm_without_events_is_no_failure() {
    check(
        eventful(),
        "mainstay events --vm gone",
        expect![[r#"
        2026-02-03 14:05:01.000Z  h3  info     gone stopped on h1: its user shut it down; it stays down
    "#]],
    );
    check(
        eventful(),
        "mainstay events --vm db",
        expect![[r#"
        stderr| No events of VM db.
    "#]],
    );
    check(
        eventful(),
        "mainstay events --vm db --json",
        expect![[r#"
        {
          "events": [],
          "missing": {}
        }
        stderr| No events of VM db.
    "#]],
    );
}

#[test]
fn events_that_the_filters_leave_none_of() {
    check(
        Canned::healthy(),
        "mainstay events",
        expect![[r#"
        stderr| No events yet.
    "#]],
    );
    check(
        eventful(),
        "mainstay events --severity warning --since 10m --host h2",
        expect![[r#"
        stderr| No events of host h2 (host-2), of severity warning or alarm, since 2026-02-03 14:05:00.000Z.
    "#]],
    );
    check(eventful(), "mainstay events --limit 0", expect![[""]]);
}

#[test]
fn a_vm_that_nobody_knows_yet_is_followed_until_it_is_there() {
    let mut canned = eventful();
    let protected = |vm| Event::VmProtected { vm, host: id(2), datastore: "nfs1".into() };
    canned.to_follow =
        vec![record(2_000, 3, protected(vm_name(2, "db"))), record(3_000, 3, protected(vm_name(7, "new")))];
    check(
        canned,
        "mainstay events --vm new --follow",
        expect![[r#"
        2026-02-03 14:05:03.000Z  h3  info     new on h2 is protected (on nfs1)
        stderr| No events of VM new.
        stderr| note: no VM called new is known: `mainstay vm list` shows all; a VM is known once it has been started
    "#]],
    );
}

#[test]
fn events_of_a_vm_or_host_when_the_status_is_not_to_be_had() {
    let silent = || Canned { status: Err("the primary does not answer"), ..eventful() };
    check(
        silent(),
        "mainstay events --vm nobody",
        expect![[r#"
        stderr| warning: host names are not known: the primary does not answer
        stderr| No events of VM nobody.
    "#]],
    );
    check(
        silent(),
        "mainstay events --host h9",
        expect![[r#"
        stderr| warning: host names are not known: the primary does not answer
        stderr| No events of host h9.
    "#]],
    );
}

#[test]
fn events_of_a_host_that_nobody_knows() {
    check(
        eventful(),
        "mainstay events --host h9",
        expect![[r#"
        stderr| error: there is no host named 'h9'
        stderr| hint: known are: h1 (host-1), h2 (host-2), h3 (host-3)
        exit 1
    "#]],
    );
    check(
        eventful(),
        "mainstay events --host h9 --follow",
        expect![[r#"
        stderr| error: there is no host named 'h9'
        stderr| hint: known are: h1 (host-1), h2 (host-2), h3 (host-3)
        exit 1
    "#]],
    );
}

#[test]
fn a_delay_that_is_never_over_within_the_time_out_is_wrong_usage() {
    check(
        Canned::healthy(),
        "mainstay vm ready db agent --delay 700s --timeout 600s",
        expect![[r#"
        stderr| error: a delay of 700 s is never over within a time-out of 600 s, which counts from the VM's start and includes the delay: give a shorter --delay or a longer --timeout
        exit 2
    "#]],
    );
    check(
        Canned::healthy(),
        "mainstay vm ready db started --delay 10m",
        expect![[r#"
        stderr| error: a delay of 600 s is never over within a time-out of 600 s, which counts from the VM's start and includes the delay: give a shorter --delay or a longer --timeout
        exit 2
    "#]],
    );
    check(
        Canned::healthy(),
        "mainstay vm ready db started --delay 10m --timeout 11m",
        expect![[r#"
        h3 has done /v1/vms/db/ready?when=started&delay=600&timeout=660
    "#]],
    );
}
