//! `mainstay datastore show`, on a canned datastore.

use super::canned::Canned;
use super::{canned_datastore, check, run};
use expect_test::expect;

#[test]
fn a_datastore_is_shown_register_by_register() {
    let folder = canned_datastore::make();
    let line = format!("mainstay datastore show {}", folder.path().display());
    check(
        Canned::healthy(),
        &line,
        expect![[r#"
            Cluster lab (c1)

            Heartbeats
              HOST    COUNTER  AGENT     AGENT INCARNATION  GUARD INCARNATION  BOOT
              host-1  812      well      0000000000000def   0000000000000abc   01010101-0101-0101-0101-010101010101
              host-2  17       not well  -                  0000000000000abc   01010101-0101-0101-0101-010101010101

            Ownership blocks
              HOST    LATEST OWNERSHIP  COUNTER  CONSENSUS ON  PROMISED BALLOT  ACCEPTED OWNER
              host-2  epoch 7           99       7             3 of host-2      host-2 in ballot 3 of host-2

            Power-on list of host-1: version 5, isolated, protected list acted on: 7.41, boot 01010101-0101-0101-0101-010101010101
              VM    CLAIM                                  GRANT         PRIORITY  MEMORY  UUID
              web   running                                7.1           medium    2 GiB   01010101-0101-0101-0101-010101010101
              db    stopped: the guest powered itself off  7.2           medium    2 GiB   02020202-0202-0202-0202-020202020202
              new   running                                asks for one  -         -       03030303-0303-0303-0303-030303030303
              mail  frozen                                 7.4           medium    2 GiB   04040404-0404-0404-0404-040404040404
              dns   stopping                               7.5           medium    2 GiB   05050505-0505-0505-0505-050505050505

            Protected list of epoch 7 (present): version 42, written by owner host-2, settings of revision 2, suspended for 2 h from this write on
              VM    PROTECTED  DESIRED                HOLDER  GRANT  INTENDED FOR  ATTEMPTS  FAILED OVER FROM  RESTART ON  IF ISOLATED        PRIORITY  UUID
              web   yes        on, migrate to host-2  host-1  7.1    -             0         -                 -           default            medium    01010101-0101-0101-0101-010101010101
              db    yes        on                     host-1  7.2    host-2        2         host-1            -           default            medium    02020202-0202-0202-0202-020202020202
              mail  yes        on                     host-1  7.4    -             0         -                 -           default (60 s)     medium    04040404-0404-0404-0404-040404040404
              dns   yes        on                     host-1  7.5    -             0         -                 host-2      shut down (120 s)  medium    05050505-0505-0505-0505-050505050505

            Protected list of epoch 6 (superseded): version 42, written by owner host-1
              VMs: 1

            Damaged slots
              host-1-hb, slot 2: its header is damaged (it does not begin like a register of Mainstay) (the other slot is good)

            Domain XML
              01010101-0101-0101-0101-010101010101-0000000000000007.xml

            Files that are not Mainstay's
              notes.txt
        "#]],
    );
    let json = run(&mut Canned::healthy(), None, &format!("{line} --cluster lab --json"));
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json[0]["cluster_id"], "c1");
    let heartbeat = &json[0]["registers"][0];
    assert_eq!(heartbeat["file"], "host-1-hb");
    assert_eq!(heartbeat["value"]["Heartbeat"]["counter"], 812);
    assert_eq!(heartbeat["damaged_slots"][0]["slot"], 2);
}

#[test]
fn a_datastore_without_that_cluster_or_without_any() {
    let folder = canned_datastore::make();
    let line = format!("mainstay datastore show {} --cluster prod", folder.path().display());
    check(
        Canned::healthy(),
        &line,
        expect![[r#"
        stderr| error: there is no cluster named 'prod'
        stderr| hint: known are: lab (c1)
        exit 1
    "#]],
    );
    let empty = tempfile::tempdir().expect("a folder");
    let text =
        run(&mut Canned::healthy(), None, &format!("mainstay datastore show {}", empty.path().display()));
    assert_eq!(text, format!("stderr| No cluster has a folder on {}.\n", empty.path().display()));
    let text = run(&mut Canned::healthy(), None, "mainstay datastore show /nowhere");
    assert!(text.starts_with("stderr| error: /nowhere can't be used: "), "{text}");
    assert!(text.ends_with("exit 1\n"), "{text}");
}
