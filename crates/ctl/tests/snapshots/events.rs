//! `mainstay events`.

use super::*;

#[test]
fn events_of_a_failover() {
    check(
        Canned::host_failed(),
        "mainstay events",
        expect![[r#"
            2026-02-03 14:05:00.000Z  h3  alarm    datastore nfs2 is out of reach: Stale file handle
            2026-02-03 14:05:04.612Z  h3  alarm    h1 was connected, is failed (last sign of life 4.612 s ago)
            2026-02-03 14:05:04.700Z  h3  info     web granted to h2 (grant 7.4, attempt 1): h1 has failed
            2026-02-03 14:05:05.100Z  h2  info     web is being started here (grant 7.4)
            2026-02-03 14:05:05.300Z  h3  alarm    big waits, no host can take it: h2: needs 96 GiB, 39 GiB are free
            2026-02-03 14:05:05.400Z  h3  info     db stopped on h2: its user shut it down; it stays down
            stderr| warning: events of h1 (host-1) are missing: no answer within 2 s
        "#]],
    );
}

#[test]
fn events_are_filtered() {
    check(
        Canned::host_failed(),
        "mainstay events --vm web --severity warning",
        expect![[r#"
            stderr| warning: events of h1 (host-1) are missing: no answer within 2 s
            stderr| No events of VM web, of severity warning or alarm.
        "#]],
    );
    check(
        Canned::host_failed(),
        "mainstay events --host h2 --limit 1",
        expect![[r#"
        2026-02-03 14:05:05.400Z  h3  info     db stopped on h2: its user shut it down; it stays down
        stderr| warning: events of h1 (host-1) are missing: no answer within 2 s
    "#]],
    );
    check(
        Canned::host_failed(),
        "mainstay events --vm 00000000-0000-0000-0000-000000000002",
        expect![[r#"
        2026-02-03 14:05:05.400Z  h3  info     db stopped on h2: its user shut it down; it stays down
        stderr| warning: events of h1 (host-1) are missing: no answer within 2 s
    "#]],
    );
    check(
        Canned::host_failed(),
        "mainstay events --since 1m",
        expect![[r#"
            stderr| warning: events of h1 (host-1) are missing: no answer within 2 s
            stderr| No events since 2026-02-03 14:14:00.000Z.
        "#]],
    );
}

#[test]
fn events_as_they_happen() {
    check(
        Canned::host_failed(),
        "mainstay events --follow --limit 2",
        expect![[r#"
            2026-02-03 14:05:05.300Z  h3  alarm    big waits, no host can take it: h2: needs 96 GiB, 39 GiB are free
            2026-02-03 14:05:05.400Z  h3  info     db stopped on h2: its user shut it down; it stays down
            2026-02-03 14:05:06.000Z  h3  warning  web of h1 runs again on h2 (attempts: 1)
            stderr| warning: events of h1 (host-1) are missing: no answer within 2 s
        "#]],
    );
}

#[test]
fn events_go_on_when_the_names_of_hosts_are_not_to_be_had() {
    let canned = Canned {
        status: Err("the primary does not answer; try again in a few seconds"),
        ..Canned::host_failed()
    };
    check(
        canned,
        "mainstay events --severity alarm",
        expect![[r#"
            2026-02-03 14:05:00.000Z  host-3  alarm    datastore nfs2 is out of reach: Stale file handle
            2026-02-03 14:05:04.612Z  host-3  alarm    host-1 was connected, is failed (last sign of life 4.612 s ago)
            2026-02-03 14:05:05.300Z  host-3  alarm    big waits, no host can take it: host-2: needs 96 GiB, 39 GiB are free
            stderr| warning: host names are not known: the primary does not answer; try again in a few seconds
            stderr| warning: events of host-1 are missing: no answer within 2 s
        "#]],
    );
}
