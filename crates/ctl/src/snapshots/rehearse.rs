//! `mainstay rehearse`.

use super::*;

#[test]
fn rehearse_shows_the_plan_for_each_host() {
    check(Canned::rehearsed(), "mainstay rehearse", expect![[r#"
        IF IT FAILS  COME BACK  DO NOT  NOT RESTARTED  WHERE
        h1 (host-1)  3          0       0              h2 1, h3 2
        h2 (host-2)  1          1       1              h1 1
        h3 (host-3)  0          0       0              -

        If h2 fails, 1 VM does not come back:
        VM   NOT ON  BECAUSE
        big  h1      39,936 MiB free, 98,304 MiB needed
             h3      kept free for failovers

        Admission control (proved for 1 failed hosts, refuses): if h2 fails, big does not come back
    "#]]);
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

        Admission control (proved for 1 failed hosts, refuses): if h2 fails, big does not come back
    "#]].assert_eq(&text);
}

#[test]
fn rehearse_of_one_host_is_the_plan_in_full() {
    check(Canned::rehearsed(), "mainstay rehearse --host h1", expect![[r#"
        If h1 (host-1) fails, 3 of 3 VMs come back.

        WAVE  PRIORITY  VM    TO
        1     highest   mail  h3
        1     low       dns   h3
        2     medium    web   h2
    "#]]);
    check(Canned::rehearsed(), "mainstay rehearse --host host-2", expect![[r#"
        If h2 (host-2) fails, 1 of 2 VMs come back.

        WAVE  PRIORITY  VM  TO
        1     medium    db  h1

        Not back:
        VM   NOT ON  BECAUSE
        big  h1      39,936 MiB free, 98,304 MiB needed
             h3      kept free for failovers

        NOT RESTARTED  BECAUSE
        batch          its restart priority is disabled
    "#]]);
    check(Canned::rehearsed(), "mainstay rehearse --host h3", expect![[r#"
        If h3 (host-3) fails, 0 of 0 VMs come back.
    "#]]);
}

#[test]
fn rehearse_of_a_host_that_is_not_there_or_has_no_plan() {
    check(Canned::rehearsed(), "mainstay rehearse --host h9", expect![[r#"
        stderr| error: there is no host named 'h9'
        stderr| hint: known are: h1 (host-1), h2 (host-2), h3 (host-3)
        exit 1
    "#]]);
    let mut canned = Canned::rehearsed();
    canned.rehearsal.as_mut().expect("canned").rehearsed.hosts.truncate(1);
    check(canned, "mainstay rehearse --host h2", expect![[r#"
        stderr| error: the primary has no plan for h2 (host-2): it does not take part now; see `mainstay host list`
        exit 1
    "#]]);
    check(Canned::healthy(), "mainstay rehearse", expect![[r#"
        stderr| error: no primary answers; try again in a few seconds
        exit 1
    "#]]);
}

#[test]
fn json_of_rehearse_is_what_the_api_said() {
    let mut canned = Canned::rehearsed();
    let text = run(&mut canned, None, "mainstay rehearse --json");
    let answer: mainstay_api::Rehearsal = serde_json::from_str(&text).expect("a Rehearsal");
    assert_eq!(Some(answer), canned.rehearsal);
    check(canned, "mainstay rehearse --json --host h3", expect![[r#"
        {
          "host": "host-3",
          "placed": [],
          "left_out": [],
          "not_restarted": []
        }
    "#]]);
}

#[test]
fn faults_are_played_on_a_simulated_copy() {
    let text = run(&mut Canned::healthy(), None, "mainstay rehearse --fail h1");
    expect![[r#"
           +0.0 s  h1  alarm    h1 loses its power; 1 VM runs there
           +4.0 s  h3  alarm    h1 was connected, is failed (last evidence 4.507 s ago)
           +4.0 s  h3  warning  web is to go from silent h1 to h2
           +4.3 s  h3  warning  web of h1 runs again on h2 (attempts: 1)

        VM   FROM  TO  DOWN FOR  OUTCOME
        db   h2    h2  -         stays up
        web  h1    h2  4.2 s     runs again at +4.2 s

        HOST         VMS BEFORE  VMS AFTER  JUDGED
        h1 (host-1)  1           0          failed at +4.0 s by h3
        h2 (host-2)  1           2          -
        h3 (host-3)  0           0          -

        All VMs that take part run in the end.
        old takes no part: it is off
        Times are expectations, not promises: they follow from the cluster's own time-outs and from typical times of libvirt and storage,
        on a simulated copy of the cluster that runs the code of this build. Nothing was done to the real cluster.
    "#]].assert_eq(&text);
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
    check(Canned::healthy(), "mainstay rehearse --fail h9", expect![[r#"
        stderr| error: there is no host named 'h9'
        stderr| hint: known are: h1 (host-1), h2 (host-2), h3 (host-3)
        exit 1
    "#]]);
    check(Canned::healthy(), "mainstay rehearse --cut-storage h1:nfs7", expect![[r#"
        stderr| error: there is no datastore nfs7 in the cluster: its datastores are nfs1, nfs2
        exit 1
    "#]]);
    check(Canned::healthy(), "mainstay rehearse --fail h1 --fail h2 --fail h3", expect![[r#"
        stderr| error: every host that is up would fail: leave one, nobody restarts anything otherwise
        exit 1
    "#]]);
    check(Canned::host_failed(), "mainstay rehearse --fail h1", expect![[r#"
        stderr| error: h1 is failed already: name a host that is connected
        exit 1
    "#]]);
    check(Canned::no_primary(), "mainstay rehearse --isolate h1", expect![[r#"
        stderr| error: the view of h2 is not a primary's and does not have the whole cluster: no primary is elected now, try again in some seconds
        exit 1
    "#]]);
}
