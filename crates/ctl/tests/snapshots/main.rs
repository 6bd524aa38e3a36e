//! Whole outputs of commands for canned answers. `UPDATE_EXPECT=1 cargo test -p mainstay-ctl --test snapshots` rewrites them.

mod canned;
mod canned_datastore;
mod canned_settings;
mod datastore_show;
mod events;
mod json;
mod not_found;
mod operate;
mod rehearse;
mod replay;
mod settings;
mod suspend;

use canned::Canned;
use clap::Parser;
use expect_test::{Expect, expect};
use mainstay_ctl::{Agent, Cli, Confirmation, Exit, Failure, Output, Style, Zone};

fn parse(line: &str) -> Cli {
    Cli::try_parse_from(line.split(' ')).expect("a good command line")
}

/// Runs a command line against canned answers: what is on stdout, then what is on stderr (marked), then the exit code.
fn run(canned: &mut Canned, width: Option<u16>, line: &str) -> String {
    let cli = parse(line);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let style = Style { colour: false, width, zone: Zone::Utc };
    let mut output = Output {
        out: &mut out,
        err: &mut err,
        style,
        json: cli.global.json,
        confirm: |_| Confirmation::Nobody,
        now_us: canned::START_US + 600_000_000,
    };
    let exit = match mainstay_ctl::run(&cli, canned as &mut dyn Agent, &mut output) {
        Ok(exit) => exit,
        Err(failure) => {
            err.extend(format!("error: {failure}\n").bytes());
            err.extend(failure.hint().map(|hint| format!("hint: {hint}\n")).unwrap_or_default().bytes());
            failure.exit()
        }
    };
    let mut text = String::from_utf8(out).expect("UTF-8");
    for line in String::from_utf8(err).expect("UTF-8").lines() {
        text.push_str(&format!("stderr| {line}\n"));
    }
    if exit != Exit::Ok {
        text.push_str(&format!("exit {}\n", exit.code()));
    }
    text
}

fn check(mut canned: Canned, line: &str, expected: Expect) {
    expected.assert_eq(&run(&mut canned, None, line));
}

#[test]
fn status_of_a_healthy_cluster() {
    check(
        Canned::healthy(),
        "mainstay status --check",
        expect![[r#"
            Cluster   lab (c1)
            Primary   h3 (host-3): reaches 2 datastore(s) like h2, and has the larger id as text
            VMs       3 (2 running, 1 off), 2 protected

            HOST         STATE      SINCE  ROLE       VMS  DATASTORES  LAST HEARTBEATS
            h1 (host-1)  connected  5 min  secondary  1    2 of 2      network 0.4 s, nfs1 0.9 s, nfs2 0.9 s
            h2 (host-2)  connected  5 min  secondary  1    2 of 2      network 0.4 s, nfs1 0.9 s, nfs2 0.9 s
            h3 (host-3)  connected  5 min  primary    0    2 of 2      nfs1 0.9 s, nfs2 0.9 s

            DATASTORE  OWNER        EPOCH  OWNERSHIP LEFT  LEASE LEFT  LIST  HEARTBEATS  UNREADABLE  CONNECTED
            nfs1       h3 (host-3)  7      2.6 s           2.4 s       7.42  yes         0           yes
            nfs2       h3 (host-3)  7      2.6 s           2.4 s       7.42  yes         0           yes

            No alarms stand.
        "#]],
    );
}

#[test]
fn status_with_a_failed_host() {
    check(
        Canned::host_failed(),
        "mainstay status --check",
        expect![[r#"
            Cluster   lab (c1)
            Primary   h3 (host-3): reaches 2 datastore(s) like h2, and has the larger id as text
            VMs       4 (1 running, 1 starting, 1 waiting, 1 off), 1 protected

            HOST         STATE      SINCE  ROLE       VMS  DATASTORES  LAST HEARTBEATS
            h1 (host-1)  failed     2.1 s  -          0    0 of 2      network 6.7 s, nfs1 7.2 s
            h2 (host-2)  connected  5 min  secondary  2    2 of 2      network 0.4 s, nfs1 0.9 s, nfs2 0.9 s
            h3 (host-3)  connected  5 min  primary    0    2 of 2      nfs1 0.9 s, nfs2 0.9 s

            DATASTORE  OWNER        EPOCH  OWNERSHIP LEFT  LEASE LEFT  LIST  HEARTBEATS  UNREADABLE  CONNECTED
            nfs1       h3 (host-3)  7      2.6 s           2.4 s       7.42  yes         0           yes
            nfs2       nobody       -      -               none        -     yes         2           no: Stale file handle

            Alarms (3)
              2026-02-03 14:05:00.000Z  h3  datastore nfs2 is out of reach: Stale file handle
              2026-02-03 14:05:04.612Z  h3  h1 was connected, is failed (last sign of life 4.612 s ago)
              2026-02-03 14:05:05.300Z  h3  big waits, no host can take it: h2: needs 96 GiB, 39 GiB are free
            exit 4
        "#]],
    );
}

#[test]
fn status_without_a_primary_and_without_vms() {
    check(
        Canned::no_primary(),
        "mainstay status --check",
        expect![[r#"
            Cluster   lab (c1)
            Primary   none: no host decides at present
            VMs       none known
            View      only that of h2 (host-2) itself
            Note      h2 follows no primary at present; an election is under way
            Libvirt   libvirt does not answer on h2 (host-2); VMs go on

            HOST         STATE      SINCE  ROLE       VMS  DATASTORES  LAST HEARTBEATS
            h1 (host-1)  unknown    5 min  -          0    0 of 2      -
            h2 (host-2)  connected  5 min  candidate  0    2 of 2      nfs1 0.9 s, nfs2 0.9 s
            h3 (host-3)  unknown    5 min  -          0    0 of 2      -

            DATASTORE  OWNER        EPOCH  OWNERSHIP LEFT  LEASE LEFT  LIST  HEARTBEATS  UNREADABLE  CONNECTED
            nfs1       h3 (host-3)  7      -               2.4 s       7.42  yes         0           yes
            nfs2       h3 (host-3)  7      -               2.4 s       7.42  yes         0           yes

            No alarms stand.
            exit 4
        "#]],
    );
}

#[test]
fn status_with_ugly_names() {
    check(
        Canned::ugly(),
        "mainstay status",
        expect![[r#"
            Cluster   Zürich-Süd (c1)
            Primary   host-3: reaches 2 datastore(s) like 日本語ホスト, and has the larger id as text
            VMs       3 (2 running, 1 off), 2 protected

            HOST                                                           STATE      SINCE  ROLE       VMS  DATASTORES  LAST HEARTBEATS
            kvm-node-with-a-rather-long-name.rack-17.example.org (host-1)  connected  5 min  secondary  1    2 of 2      network 0.4 s, nfs1 0.9 s, nfs2 0.9 s
            日本語ホスト (host-2)                                          connected  5 min  secondary  1    2 of 2      network 0.4 s, nfs1 0.9 s, nfs2 0.9 s
            host-3                                                         connected  5 min  primary    0    2 of 2      nfs1 0.9 s, nfs2 0.9 s

            DATASTORE  OWNER   EPOCH  OWNERSHIP LEFT  LEASE LEFT  LIST  HEARTBEATS  UNREADABLE  CONNECTED
            nfs1       host-3  7      2.6 s           2.4 s       7.42  yes         0           yes
            nfs2       host-3  7      2.6 s           2.4 s       7.42  yes         0           yes

            No alarms stand.
        "#]],
    );
}

#[test]
fn status_fits_eighty_columns() {
    let text = run(&mut Canned::host_failed(), Some(80), "mainstay status");
    let table = text.split("\n\n").nth(1).expect("the hosts table");
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{text}");
    expect![[r#"
        HOST         STATE      SINCE  ROLE       VMS  DATASTORES  LAST
                                                                   HEARTBEATS
        h1 (host-1)  failed     2.1 s  -          0    0 of 2      network 6.7 s,
                                                                   nfs1 7.2 s
        h2 (host-2)  connected  5 min  secondary  2    2 of 2      network 0.4 s,
                                                                   nfs1 0.9 s,
                                                                   nfs2 0.9 s
        h3 (host-3)  connected  5 min  primary    0    2 of 2      nfs1 0.9 s,
                                                                   nfs2 0.9 s"#]]
    .assert_eq(table);
}

#[test]
fn host_list_with_a_failed_host() {
    check(
        Canned::host_failed(),
        "mainstay host list",
        expect![[r#"
        HOST         STATE      SINCE  ROLE       VMS  DATASTORES  CPUS  MEMORY FREE         DOMAINS  LIBVIRT  PING
        h1 (host-1)  failed     2.1 s  -          0    0 of 2      16    39.5 GiB of 64 GiB  3        -        silent
        h2 (host-2)  connected  5 min  secondary  2    2 of 2      16    39.5 GiB of 64 GiB  3        silent   -
        h3 (host-3)  connected  5 min  primary    0    2 of 2      16    39.5 GiB of 64 GiB  3        answers  -
    "#]],
    );
}

#[test]
fn vm_list_of_all_hosts() {
    check(
        Canned::host_failed(),
        "mainstay vm list",
        expect![[r#"
            VM   STATE     HOST  PROTECTED  PRIORITY  IF ISOLATED  DATASTORE  MEMORY  VCPUS  NOTE
            big  waiting   -     no         highest   leave        nfs1       96 GiB  2      no host can take it: h2 has 39 GiB free, it needs 96 GiB
            db   running   h2    yes        medium    leave        nfs1       2 GiB   2      -
            old  off       -     no         medium    leave        nfs1       2 GiB   2      -
            web  starting  h2    no         medium    leave        nfs1       2 GiB   2      -
        "#]],
    );
}

#[test]
fn vm_list_of_one_host_by_name_and_by_id_is_the_same() {
    let by_name = run(&mut Canned::healthy(), None, "mainstay vm list --host h2");
    assert_eq!(by_name, run(&mut Canned::healthy(), None, "mainstay vm list --host host-2"));
    expect![[r#"
        VM  STATE    HOST  PROTECTED  PRIORITY  IF ISOLATED  DATASTORE  MEMORY  VCPUS  NOTE
        db  running  h2    yes        medium    leave        nfs1       2 GiB   2      -
    "#]]
    .assert_eq(&by_name);
}

#[test]
fn vm_list_of_an_unknown_host() {
    check(
        Canned::healthy(),
        "mainstay vm list --host h9",
        expect![[r#"
        stderr| error: there is no host named 'h9'
        stderr| hint: known are: h1 (host-1), h2 (host-2), h3 (host-3)
        exit 1
    "#]],
    );
}

#[test]
fn vm_list_without_vms_leaves_stdout_empty() {
    check(
        Canned::no_primary(),
        "mainstay vm list",
        expect![[r#"
        stderr| No VMs are known.
    "#]],
    );
}

#[test]
fn vm_list_with_ugly_names() {
    check(
        Canned::ugly(),
        "mainstay vm list",
        expect![[r#"
            VM                                                                     STATE    HOST                                                  PROTECTED  PRIORITY  IF ISOLATED  DATASTORE  MEMORY  VCPUS  NOTE
            a-virtual-machine-whose-owner-likes-to-write-everything-into-its-name  off      -                                                     no         medium    leave        nfs1       2 GiB   2      -
            web\u{1b}[2J\nevil                                                     running  kvm-node-with-a-rather-long-name.rack-17.example.org  yes        medium    leave        nfs1       2 GiB   2      -
            データベース                                                           running  日本語ホスト                                          yes        medium    leave        nfs1       2 GiB   2      -
        "#]],
    );
}

#[test]
fn datastore_list_with_one_out_of_reach() {
    check(
        Canned::host_failed(),
        "mainstay datastore list",
        expect![[r#"
            DATASTORE  OWNER        EPOCH  OWNERSHIP LEFT  LEASE LEFT  LIST  HEARTBEATS  UNREADABLE  CONNECTED
            nfs1       h3 (host-3)  7      2.6 s           2.4 s       7.42  yes         0           yes
            nfs2       nobody       -      -               none        -     yes         2           no: Stale file handle
        "#]],
    );
}

#[test]
fn vm_protect_says_what_the_agent_says() {
    check(
        Canned::healthy(),
        "mainstay vm protect web",
        expect![[r#"
        web is protected
    "#]],
    );
    check(
        Canned::healthy(),
        "mainstay vm unprotect web --json",
        expect![[r#"
        {
          "message": "web is no longer protected"
        }
    "#]],
    );
}

#[test]
fn status_of_an_isolated_host() {
    check(
        Canned::isolated(),
        "mainstay status --check",
        expect![[r#"
            Cluster   lab (c1)
            Primary   h2 (host-2)
            VMs       4 (3 running, 1 frozen), 3 protected
            Isolated  h2 (host-2) reaches no other host and no isolation address

            HOST         STATE     SINCE  ROLE     VMS  DATASTORES  LAST HEARTBEATS
            h1 (host-1)  unknown   5 min  -        0    0 of 2      -
            h2 (host-2)  isolated  5 min  primary  4    1 of 2      nfs1 0.9 s, nfs2 0.9 s
            h3 (host-3)  unknown   5 min  -        0    0 of 2      -

            DATASTORE  OWNER        EPOCH  OWNERSHIP LEFT  LEASE LEFT  LIST  HEARTBEATS  UNREADABLE  CONNECTED
            nfs1       h3 (host-3)  7      -               2.4 s       7.42  yes         0           yes
            nfs2       h3 (host-3)  7      -               none        7.42  yes         0           no: Stale file handle

            No alarms stand.
            exit 4
        "#]],
    );
}

#[test]
fn status_of_a_host_without_a_guard() {
    check(
        Canned::without_guard(),
        "mainstay status --check",
        expect![[r#"
            Cluster   lab (c1)
            Primary   h3 (host-3): reaches 2 datastore(s) like h2, and has the larger id as text
            VMs       3 (2 running, 1 off), 2 protected
            Guard     none on h3 (host-3): no VM is started there until there is one

            HOST         STATE      SINCE  ROLE       VMS  DATASTORES  LAST HEARTBEATS
            h1 (host-1)  connected  5 min  secondary  1    2 of 2      network 0.4 s, nfs1 0.9 s, nfs2 0.9 s
            h2 (host-2)  connected  5 min  secondary  1    2 of 2      network 0.4 s, nfs1 0.9 s, nfs2 0.9 s
            h3 (host-3)  connected  5 min  primary    0    2 of 2      nfs1 0.9 s, nfs2 0.9 s

            DATASTORE  OWNER        EPOCH  OWNERSHIP LEFT  LEASE LEFT  LIST  HEARTBEATS  UNREADABLE  CONNECTED
            nfs1       h3 (host-3)  7      2.6 s           none        7.42  yes         0           yes
            nfs2       h3 (host-3)  7      2.6 s           none        7.42  yes         0           yes

            No alarms stand.
            exit 4
        "#]],
    );
}

#[test]
fn host_list_of_an_isolated_host() {
    check(
        Canned::isolated(),
        "mainstay host list",
        expect![[r#"
        HOST         STATE     SINCE  ROLE     VMS  DATASTORES  CPUS  MEMORY FREE         DOMAINS  LIBVIRT  PING
        h1 (host-1)  unknown   5 min  -        0    0 of 2      -     -                   -        -        -
        h2 (host-2)  isolated  5 min  primary  4    1 of 2      16    39.5 GiB of 64 GiB  3        answers  -
        h3 (host-3)  unknown   5 min  -        0    0 of 2      -     -                   -        -        -
    "#]],
    );
}

#[test]
fn vm_list_of_an_isolated_host_says_what_becomes_of_its_vms() {
    check(
        Canned::isolated(),
        "mainstay vm list",
        expect![[r#"
        VM    STATE    HOST  PROTECTED  PRIORITY  IF ISOLATED             DATASTORE  MEMORY  VCPUS  NOTE
        db    frozen   h2    no         medium    power off, own          nfs2       2 GiB   2      frozen: its host reaches neither its datastore nor the datastore's owner
        dns   running  h2    yes        medium    leave                   nfs1       2 GiB   2      -
        mail  running  h2    yes        medium    shut down (300 s)       nfs1       2 GiB   2      -
        web   running  h2    yes        medium    shut down (120 s), own  nfs1       2 GiB   2      its host is isolated, isolation response: shut down; will be restarted on h1 when its host has stopped it
    "#]],
    );
}

#[test]
fn vm_set_passes_on_what_is_given_and_keeps_the_rest() {
    check(
        Canned::healthy(),
        "mainstay vm set web --isolation-response shutdown --shutdown-timeout 120",
        expect![[r#"
            web: To(ShutDown), time-out 120.000 s
        "#]],
    );
    check(
        Canned::healthy(),
        "mainstay vm set web --isolation-response default --json",
        expect![[r#"
        {
          "message": "web: ClusterDefault, time-out is kept"
        }
    "#]],
    );
    check(
        Canned::healthy(),
        "mainstay vm set web --shutdown-timeout default",
        expect![[r#"
        web: Keep, time-out is the cluster's
    "#]],
    );
}

#[test]
fn vm_protect_that_is_refused() {
    check(
        Canned::healthy(),
        "mainstay vm protect nobody",
        expect![[r#"
            stderr| error: no VM called nobody is known: `mainstay vm list` shows all; a VM is known once it has been started
            exit 1
        "#]],
    );
}

#[test]
fn a_closed_pipe_is_quiet_and_no_failure() {
    struct Closed;
    impl std::io::Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    for line in ["mainstay status", "mainstay --json status", "mainstay events --follow"] {
        let cli = parse(line);
        let style = Style { colour: false, width: None, zone: Zone::Utc };
        let mut output = Output {
            out: &mut Closed,
            err: &mut Vec::new(),
            style,
            json: cli.global.json,
            confirm: |_| Confirmation::Nobody,
            now_us: canned::START_US,
        };
        let failure: Failure =
            mainstay_ctl::run(&cli, &mut Canned::host_failed(), &mut output).expect_err("a closed pipe");
        assert!(failure.is_quiet(), "{line}: {failure}");
        assert_eq!(failure.exit(), Exit::Ok, "{line}");
    }
}
