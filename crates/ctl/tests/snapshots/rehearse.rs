//! `mainstay rehearse`.

use super::canned::id;
use super::*;
use mainstay_core::host_liveness::HostState;
use mainstay_core::{Severity, Span};
use mainstay_sim::rehearse::{HostOutcome, Judgement, LeftOut, Moment, Outcome, Rehearsed, VmOutcome};
use std::sync::Arc;

#[test]
fn rehearse_shows_the_plan_for_each_host() {
    check(
        Canned::rehearsed(),
        "mainstay rehearse",
        expect![[r#"
            IF IT FAILS  COME BACK  DO NOT  NOT RESTARTED  WHERE
            h1 (host-1)  3          0       0              h2 1, h3 2
            h2 (host-2)  1          1       1              h1 1
            h3 (host-3)  0          0       0              -

            If h2 fails, 1 VM does not come back:
            VM   NOT ON  BECAUSE
            big  h1      39,936 MiB free, 98,304 MiB needed
                 h3      kept free for failovers

            Admission control (proved for 1 failed host, refuses): if h2 fails, big does not come back
        "#]],
    );
}

#[test]
fn rehearse_on_a_narrow_terminal() {
    let text = run(&mut Canned::rehearsed(), Some(60), "mainstay rehearse");
    expect![[r#"
        IF IT FAILS  COME BACK  DO NOT  NOT        WHERE
                                        RESTARTED
        h1 (host-1)  3          0       0          h2 1, h3 2
        h2 (host-2)  1          1       1          h1 1
        h3 (host-3)  0          0       0          -

        If h2 fails, 1 VM does not come back:
        VM   NOT ON  BECAUSE
        big  h1      39,936 MiB free, 98,304 MiB needed
             h3      kept free for failovers

        Admission control (proved for 1 failed host, refuses): if h2 fails, big does not come back
    "#]]
    .assert_eq(&text);
}

#[test]
fn rehearse_of_one_host_is_the_plan_in_full() {
    check(
        Canned::rehearsed(),
        "mainstay rehearse --host h1",
        expect![[r#"
        If h1 (host-1) fails, 3 of 3 VMs come back.

        WAVE  PRIORITY  VM    TO
        1     highest   mail  h3
        1     low       dns   h3
        2     medium    web   h2
    "#]],
    );
    check(
        Canned::rehearsed(),
        "mainstay rehearse --host host-2",
        expect![[r#"
        If h2 (host-2) fails, 1 of 2 VMs come back.

        WAVE  PRIORITY  VM  TO
        1     medium    db  h1

        Not back:
        VM   NOT ON  BECAUSE
        big  h1      39,936 MiB free, 98,304 MiB needed
             h3      kept free for failovers

        NOT RESTARTED  BECAUSE
        batch          its restart priority is disabled
    "#]],
    );
    check(
        Canned::rehearsed(),
        "mainstay rehearse --host h3",
        expect![[r#"
            If h3 (host-3) fails, no VM has to come back.
        "#]],
    );
}

#[test]
fn rehearse_of_a_host_that_is_not_there_or_has_no_plan() {
    check(
        Canned::rehearsed(),
        "mainstay rehearse --host h9",
        expect![[r#"
        stderr| error: there is no host named 'h9'
        stderr| hint: known are: h1 (host-1), h2 (host-2), h3 (host-3)
        exit 1
    "#]],
    );
    let mut canned = Canned::rehearsed();
    canned.rehearsal.as_mut().expect("canned").rehearsed.hosts.truncate(1);
    check(
        canned,
        "mainstay rehearse --host h2",
        expect![[r#"
        stderr| error: the primary has no plan for h2 (host-2): it does not take part now; see `mainstay host list`
        exit 1
    "#]],
    );
    check(
        Canned::healthy(),
        "mainstay rehearse",
        expect![[r#"
        stderr| error: no primary answers; try again in a few seconds
        exit 1
    "#]],
    );
}

#[test]
fn json_of_rehearse_is_what_the_api_said() {
    let mut canned = Canned::rehearsed();
    let text = run(&mut canned, None, "mainstay rehearse --json");
    let answer: mainstay_api::Rehearsal = serde_json::from_str(&text).expect("a Rehearsal");
    assert_eq!(Some(answer), canned.rehearsal);
    check(
        canned,
        "mainstay rehearse --json --host h3",
        expect![[r#"
        {
          "host": "host-3",
          "placed": [],
          "left_out": [],
          "not_restarted": []
        }
    "#]],
    );
}

#[test]
fn faults_are_played_on_a_simulated_copy() {
    let text = run(&mut Canned::healthy(), None, "mainstay rehearse --fail h1");
    // When exactly, and after which steps, is the simulator's matter.
    for part in [
        "   +0.0 s  h1  alarm    h1 loses its power; 1 VM runs there\n",
        " h1 was connected, is failed (last sign of life ",
        " web of h1 runs again on h2 ",
        "\ndb   h2    h2  -         stays up\n",
        "\nAll VMs that are to come back run in the end.\nold takes no part: it is off\n",
        "\nTimes are expectations, not promises: ",
    ] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
}

/// All that can become of a VM, which no single fault brings about.
fn played() -> Rehearsed {
    let after = Span::from_millis;
    let moment = |ms, host, severity, what: &str| Moment {
        after: after(ms),
        host: Some(id(host)),
        severity,
        what: what.to_owned(),
    };
    let vm = |name: &str, to: Option<u32>, down: Option<u64>, outcome| VmOutcome {
        vm: name.into(),
        from: Some(id(1)),
        to: to.map(id),
        outcome,
        down_for: down.map(after),
    };
    let host = |number, struck, judged, vms_before, vms_after| HostOutcome {
        host: id(number),
        struck,
        judged,
        vms_before,
        vms_after,
    };
    let judged = Judgement { after: after(4_012), by: id(3), state: HostState::Failed };
    let reasons = vec![
        (id(2), Arc::from("39,936 MiB free, 98,304 MiB needed")).into(),
        (id(3), Arc::from("kept free for failovers")).into(),
    ];
    Rehearsed {
        timeline: vec![
            moment(0, 1, Severity::Alarm, "host-1 loses its power; 7 VMs run there"),
            moment(
                4_012,
                3,
                Severity::Alarm,
                "host-1 was connected, is failed (last sign of life 4.507 s ago)",
            ),
            moment(64_345, 3, Severity::Warning, "web of host-1 runs again on host-2 (attempts: 1)"),
        ],
        vms: vec![
            vm("big", None, None, Outcome::Waits { reasons }),
            vm("cut", Some(1), None, Outcome::WithoutStorage { datastore: "nfs1".into() }),
            vm("ice", None, None, Outcome::StillFrozen),
            vm(
                "off",
                None,
                None,
                Outcome::StaysDown { why: "its restart priority is disabled".to_owned(), wished: true },
            ),
            vm("thawed", Some(1), Some(2_000), Outcome::FrozenOnly),
            vm("up", Some(1), None, Outcome::StayedUp),
            vm("web", Some(2), Some(64_250), Outcome::Restarted { after: after(64_250) }),
        ],
        hosts: vec![host(1, true, vec![judged], 7, 3), host(2, false, vec![], 0, 1)],
        left_out: vec![LeftOut { vm: "old".into(), why: "it is off".to_owned() }],
        assumptions: vec!["hosts have isolation addresses".to_owned()],
        ended: after(600_000),
        complete: false,
    }
}

#[test]
fn a_played_rehearsal_tells_what_becomes_of_each_vm() {
    let names =
        mainstay_ctl::parts::HostNames((1..=3).map(|number| (id(number), format!("h{number}"))).collect());
    let style = Style { colour: false, width: None, zone: Zone::Utc };
    expect![[r#"
           +0.0 s  h1  alarm    h1 loses its power; 7 VMs run there
           +4.0 s  h3  alarm    h1 was connected, is failed (last sign of life 4.507 s ago)
          +64.3 s  h3  warning  web of h1 runs again on h2 (attempts: 1)

        VM      FROM  TO  DOWN FOR  OUTCOME
        big     h1    -   -         waits, no host can take it: h2: 39,936 MiB free, 98,304 MiB needed; h3: kept free for failovers
        cut     h1    h1  -         goes on without its datastore nfs1
        ice     h1    -   -         is frozen until contact returns
        off     h1    -   -         stays down: its restart priority is disabled
        thawed  h1    h1  2.0 s     is frozen for a while, then goes on
        up      h1    h1  -         stays up
        web     h1    h2  64.2 s    runs again at +64.2 s

        HOST         VMS BEFORE  VMS AFTER  JUDGED
        h1 (host-1)  7           3          failed at +4.0 s by h3
        h2 (host-2)  0           1          -

        3 VMs do not run well in the end.
        It was not over after 600.0 s: this is how it stood then.
        old takes no part: it is off
        Assumed: hosts have isolation addresses
        Times are expectations, not promises: they follow from the cluster's own time-outs and from typical times of libvirt and storage,
        on a simulated copy of the cluster that runs the code of this build. Nothing was done to the real cluster.
    "#]].assert_eq(&mainstay_ctl::parts::rehearsal_played(&played(), &names, &style));
    let narrow =
        mainstay_ctl::parts::rehearsal_played(&played(), &names, &Style { width: Some(60), ..style });
    expect![[r#"
        VM      FROM  TO  DOWN FOR  OUTCOME
        big     h1    -   -         waits, no host can take it:
                                    h2: 39,936 MiB free, 98,304
                                    MiB needed; h3: kept free for
                                    failovers
        cut     h1    h1  -         goes on without its datastore
                                    nfs1
        ice     h1    -   -         is frozen until contact
                                    returns
        off     h1    -   -         stays down: its restart
                                    priority is disabled
        thawed  h1    h1  2.0 s     is frozen for a while, then
                                    goes on
        up      h1    h1  -         stays up
        web     h1    h2  64.2 s    runs again at +64.2 s"#]]
    .assert_eq(narrow.split("\n\n").nth(1).expect("the VMs"));
}

#[test]
fn several_faults_at_once_as_json() {
    let text =
        run(&mut Canned::healthy(), None, "mainstay rehearse --isolate h1 --cut-storage h2:nfs2 --json");
    let played: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let whats: Vec<_> = played["timeline"].as_array().expect("a timeline").iter().take(2).collect();
    assert_eq!(whats[0]["after"], 0);
    assert_eq!(whats[0]["host"], "host-1");
    assert_eq!(whats[1]["host"], "host-2");
    assert_eq!(played["complete"], true);
}

#[test]
fn faults_that_cannot_be_played_are_refused_with_the_remedy() {
    check(
        Canned::healthy(),
        "mainstay rehearse --fail h9",
        expect![[r#"
        stderr| error: there is no host named 'h9'
        stderr| hint: known are: h1 (host-1), h2 (host-2), h3 (host-3)
        exit 1
    "#]],
    );
    check(
        Canned::healthy(),
        "mainstay rehearse --cut-storage h1:nfs7",
        expect![[r#"
        stderr| error: there is no datastore nfs7 in the cluster: its datastores are nfs1, nfs2
        exit 1
    "#]],
    );
    check(
        Canned::healthy(),
        "mainstay rehearse --fail h1 --fail h2 --fail h3",
        expect![[r#"
        stderr| error: every host that is up would fail: leave one, nobody restarts anything otherwise
        exit 1
    "#]],
    );
    check(
        Canned::host_failed(),
        "mainstay rehearse --fail h1",
        expect![[r#"
        stderr| error: h1 is failed already: name a host that is connected
        exit 1
    "#]],
    );
    check(
        Canned::no_primary(),
        "mainstay rehearse --isolate h1",
        expect![[r#"
        stderr| error: the view of h2 is not a primary's and does not have the whole cluster: no primary is elected now, try again in some seconds
        exit 1
    "#]],
    );
}
