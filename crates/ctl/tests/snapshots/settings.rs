//! What is set for the cluster, on show.

use super::*;

#[test]
fn status_shows_maintenance_failover_hosts_suspensions_and_the_objection() {
    check(
        Canned::with_settings(),
        "mainstay status",
        expect![[r#"
            Cluster   lab (c1)
            Primary   h3 (host-3): reaches 2 datastore(s) like h2, and has the larger id as text
            VMs       3 (2 running, 1 off), 0 protected, 2 suspended
            Suspended protection of VMs on nfs1, until 2026-02-03 16:15:00Z: no restart; h1, h2 would freeze VMs yet
            Suspended protection of VMs on nfs2, until 2026-02-03 16:15:00Z; waits for failovers in progress, which are completed first
            Admission if h2 fails, db does not come back: h3: 1,024 MiB free, 2,048 MiB needed

            HOST         STATE                              SINCE  ROLE               VMS  DATASTORES  LAST HEARTBEATS
            h1 (host-1)  connected; maintenance, 1 VM left  5 min  secondary          1    2 of 2      network 0.4 s, nfs1 0.9 s, nfs2 0.9 s
            h2 (host-2)  connected                          5 min  secondary          1    2 of 2      network 0.4 s, nfs1 0.9 s, nfs2 0.9 s
            h3 (host-3)  connected                          5 min  primary, failover  0    2 of 2      nfs1 0.9 s, nfs2 0.9 s

            DATASTORE  OWNER        EPOCH  OWNERSHIP LEFT  LEASE LEFT  LIST  HEARTBEATS  UNREADABLE  CONNECTED
            nfs1       h3 (host-3)  7      2.6 s           2.4 s       7.42  yes         0           yes
            nfs2       h3 (host-3)  7      2.6 s           2.4 s       7.42  yes         0           yes

            No alarms stand.
        "#]],
    );
}

#[test]
fn vms_are_suspended_while_protection_is() {
    let list = run(&mut Canned::suspended(), None, "mainstay vm list");
    expect![[r#"
        VM   STATE    HOST  PROTECTED  PRIORITY  IF ISOLATED  DATASTORE  MEMORY  VCPUS  NOTE
        db   running  h2    suspended  medium    leave        nfs1       2 GiB   2      -
        old  off      -     no         medium    leave        nfs1       2 GiB   2      -
        web  running  h1    suspended  medium    leave        nfs1       2 GiB   2      -
    "#]]
    .assert_eq(&list);
    let show = run(&mut Canned::suspended(), None, "mainstay vm show web");
    assert!(show.contains("\nProtected    suspended\n"), "{show}");
    let json = run(&mut Canned::suspended(), None, "mainstay --json vm show web");
    assert!(json.contains("\"suspended\": true"), "{json}");
    // Where it waits for a failover in progress, restarts go on.
    let one = run(&mut Canned::with_settings(), None, "mainstay vm list");
    expect![[r#"
        VM   STATE    HOST  PROTECTED  PRIORITY   IF ISOLATED  DATASTORE  MEMORY  VCPUS  NOTE
        db   running  h2    suspended  medium     leave        nfs1       2 GiB   2      ready when this succeeds in its guest: /usr/bin/systemctl is-active postgresql, 30 s later, waited for 900 s at most
        old  off      -     no         medium     leave        nfs1       2 GiB   2      -
        web  running  h1    suspended  high, own  leave        nfs1       2 GiB   2      migrates to h2
    "#]].assert_eq(&one);
}

#[test]
fn status_of_a_cluster_that_is_suspended_as_a_whole() {
    let text = run(&mut Canned::suspended(), None, "mainstay status");
    let lines: Vec<_> = text.lines().filter(|line| line.starts_with("Suspended")).collect();
    expect!["Suspended protection, until 2026-02-03 15:45:00Z: no restart, no isolation response, no freeze"]
        .assert_eq(&lines.join("\n"));
}

#[test]
fn host_list_shows_maintenance_and_failover_hosts() {
    check(
        Canned::with_settings(),
        "mainstay host list",
        expect![[r#"
        HOST         STATE                              SINCE  ROLE               VMS  DATASTORES  CPUS  MEMORY FREE         DOMAINS  LIBVIRT  PING
        h1 (host-1)  connected; maintenance, 1 VM left  5 min  secondary          1    2 of 2      16    39.5 GiB of 64 GiB  3        answers  -
        h2 (host-2)  connected                          5 min  secondary          1    2 of 2      16    39.5 GiB of 64 GiB  3        answers  -
        h3 (host-3)  connected                          5 min  primary, failover  0    2 of 2      16    39.5 GiB of 64 GiB  3        answers  -
    "#]],
    );
}

#[test]
fn an_empty_host_in_maintenance_and_one_that_is_down_meanwhile() {
    let mut canned = Canned::with_settings();
    let hosts = &mut canned.status_mut().view.hosts;
    hosts[0].maintenance = Some((mainstay_core::settings::Evacuation::ShutDown, 0).into());
    hosts[0].state = mainstay_core::host_liveness::HostState::Failed;
    hosts[1].maintenance = Some((mainstay_core::settings::Evacuation::Migrate, 0).into());
    let text = run(&mut canned, None, "mainstay host list");
    let states: Vec<_> = text.lines().map(|line| line.get(..50).unwrap_or(line).trim_end()).collect();
    expect![[r#"
        HOST         STATE                          SINCE
        h1 (host-1)  failed; maintenance, empty     5 min
        h2 (host-2)  connected; maintenance, empty  5 min
        h3 (host-3)  connected                      5 min"#]]
    .assert_eq(&states.join("\n"));
}

#[test]
fn vm_list_shows_orders_own_priorities_and_readiness() {
    check(
        Canned::with_settings(),
        "mainstay vm list",
        expect![[r#"
            VM   STATE    HOST  PROTECTED  PRIORITY   IF ISOLATED  DATASTORE  MEMORY  VCPUS  NOTE
            db   running  h2    suspended  medium     leave        nfs1       2 GiB   2      ready when this succeeds in its guest: /usr/bin/systemctl is-active postgresql, 30 s later, waited for 900 s at most
            old  off      -     no         medium     leave        nfs1       2 GiB   2      -
            web  running  h1    suspended  high, own  leave        nfs1       2 GiB   2      migrates to h2
        "#]],
    );
    let json = run(&mut Canned::with_settings(), None, "mainstay vm list --json");
    let vms: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(vms[0]["name"], "db");
    assert_eq!(vms[0]["readiness"]["when"], "command_succeeds");
    assert_eq!(vms[0]["priority_own"], false);
    assert_eq!(vms[2]["order"]["migrate"], "host-2");
    assert_eq!(vms[2]["priority_own"], true);
}

#[test]
fn vm_show_has_all_that_is_known_and_set() {
    check(
        Canned::with_settings(),
        "mainstay vm show web",
        expect![[r#"
            VM           web (00000000-0000-0000-0000-000000000001)
            State        running
            Host         h1 (host-1)
            Protected    suspended
            Autostart    off in libvirt while it is in protection: Mainstay restarts it
            Note         migrates to h2
            Asked to     migrate to h2 (host-2)
            Priority     high, own
            Counts as    ready when started
            Group        front, starts after backends
            Rule         web-apart: should apart old, 00000000-0000-0000-0000-000000000063
            If isolated  leave
            Datastore    nfs1
            Size         2 GiB, 2 vCPUs
            Grant        7.1
        "#]],
    );
    check(
        Canned::with_settings(),
        "mainstay vm show 00000000-0000-0000-0000-000000000002",
        expect![[r#"
            VM           db (00000000-0000-0000-0000-000000000002)
            State        running
            Host         h2 (host-2)
            Protected    suspended
            Autostart    off in libvirt while it is in protection: Mainstay restarts it
            Priority     medium
            Counts as    ready when this succeeds in its guest: /usr/bin/systemctl is-active postgresql, 30 s later, waited for 900 s at most
            Group        backends
            Rule         licences: must on-hosts h1, h2
            If isolated  leave
            Datastore    nfs1
            Size         2 GiB, 2 vCPUs
            Grant        7.2
        "#]],
    );
    check(
        Canned::host_failed(),
        "mainstay vm show big",
        expect![[r#"
        VM           big (00000000-0000-0000-0000-000000000004)
        State        waiting
        Host         -
        Protected    no
        Autostart    off in libvirt while it is in protection: Mainstay restarts it
        Note         no host can take it: h2 has 39 GiB free, it needs 96 GiB
        Priority     highest
        Counts as    ready when started
        If isolated  leave
        Datastore    nfs1
        Size         96 GiB, 2 vCPUs
        Grant        7.4
    "#]],
    );
    let json = run(&mut Canned::with_settings(), None, "mainstay vm show db --json");
    let vm: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(vm["readiness"]["delay"], 30_000_000);
}

#[test]
fn vm_show_of_none_and_of_two() {
    check(
        Canned::with_settings(),
        "mainstay vm show nobody",
        expect![[r#"
            stderr| error: no VM called nobody is known: `mainstay vm list` shows all; a VM is known once it has been started
            exit 1
        "#]],
    );
    let mut canned = Canned::with_settings();
    canned.status_mut().view.vms[2].name = "web".into();
    check(
        canned,
        "mainstay vm show web",
        expect![[r#"
        stderr| error: 2 VMs are called web: say which by its UUID, 00000000-0000-0000-0000-000000000001 or 00000000-0000-0000-0000-000000000003
        exit 1
    "#]],
    );
}

#[test]
fn rule_list() {
    check(
        Canned::with_settings(),
        "mainstay rule list",
        expect![[r#"
        RULE       STRENGTH  KIND      VMS                                             HOSTS
        licences   must      on-hosts  db                                              h1, h2
        web-apart  should    apart     00000000-0000-0000-0000-000000000063, old, web  -
    "#]],
    );
    check(
        Canned::with_settings(),
        "mainstay rule list --json",
        expect![[r#"
        [
          {
            "name": "licences",
            "strength": "must",
            "kind": "on_hosts",
            "vms": [
              "00000000-0000-0000-0000-000000000002"
            ],
            "hosts": [
              "host-1",
              "host-2"
            ]
          },
          {
            "name": "web-apart",
            "strength": "should",
            "kind": "apart",
            "vms": [
              "00000000-0000-0000-0000-000000000001",
              "00000000-0000-0000-0000-000000000003",
              "00000000-0000-0000-0000-000000000063"
            ],
            "hosts": []
          }
        ]
    "#]],
    );
    check(
        Canned::healthy(),
        "mainstay rule list",
        expect![[r#"
        stderr| No rules are set.
    "#]],
    );
}

#[test]
fn rule_list_on_a_narrow_terminal() {
    let text = run(&mut Canned::with_settings(), Some(50), "mainstay rule list");
    expect![[r#"
        RULE       STRENGTH  KIND      VMS                                    HOSTS
        licences   must      on-hosts  db                                     h1,
                                                                              h2
        web-apart  should    apart     00000000-0000-0000-0000-000000000063,  -
                                       old, web
    "#]]
    .assert_eq(&text);
}

#[test]
fn group_list() {
    check(
        Canned::with_settings(),
        "mainstay group list",
        expect![[r#"
        GROUP     AFTER     VMS
        backends  -         db
        front     backends  old, web
    "#]],
    );
    check(
        Canned::with_settings(),
        "mainstay group list --json",
        expect![[r#"
        [
          {
            "name": "backends",
            "vms": [
              "00000000-0000-0000-0000-000000000002"
            ],
            "waits_for": []
          },
          {
            "name": "front",
            "vms": [
              "00000000-0000-0000-0000-000000000001",
              "00000000-0000-0000-0000-000000000003"
            ],
            "waits_for": [
              "backends"
            ]
          }
        ]
    "#]],
    );
    check(
        Canned::healthy(),
        "mainstay group list",
        expect![[r#"
        stderr| No groups are set.
    "#]],
    );
}

#[test]
fn admission_show() {
    check(
        Canned::with_settings(),
        "mainstay admission show",
        expect![[r#"
            Policy          proved: a plan must exist for the failure of each host
            Does not pass   is refused
            Failover hosts  h3 (host-3)
            Objection       if h2 fails, db does not come back: h3: 1,024 MiB free, 2,048 MiB needed
        "#]],
    );
    check(
        Canned::with_settings(),
        "mainstay admission show --json",
        expect![[r#"
        {
          "policy": {
            "kind": "proved",
            "failures": 1
          },
          "refuse": true,
          "objection": "if host-2 fails, db does not come back: host-3: 1,024 MiB free, 2,048 MiB needed",
          "failover_hosts": [
            "host-3"
          ]
        }
    "#]],
    );
    check(
        Canned::healthy(),
        "mainstay admission show",
        expect![[r#"
            Policy          proved: a plan must exist for the failure of each host
            Does not pass   is done, with a warning
            Objection       none: what the policy asks for is kept
        "#]],
    );
    check(
        Canned::no_primary(),
        "mainstay admission show",
        expect![[r#"
            Policy          proved: a plan must exist for the failure of each host
            Does not pass   is done, with a warning
            Objection       not known: only the primary can say it
        "#]],
    );
}

#[test]
fn each_policy_says_what_it_asks_for() {
    use mainstay_core::settings::Policy;
    let slots = |tolerated, slot_cpu_mhz, slot_memory_mib| Policy::HostFailures {
        tolerated,
        slot_cpu_mhz,
        slot_memory_mib,
    };
    let words: Vec<_> = [
        Policy::Proved { failures: 2 },
        slots(1, None, None),
        slots(2, Some(500), Some(1_024)),
        Policy::Percentage { cpu: 25, memory: 30 },
        Policy::FailoverHosts,
    ]
    .iter()
    .map(mainstay_ctl::parts::policy_words)
    .collect();
    expect![[r#"
        proved: a plan must exist for each choice of 2 hosts that fail
        host-failures: slots must be left when the largest host fails
        host-failures: slots must be left when the 2 largest hosts fail; a slot has at most 500 MHz; a slot has at most 1024 MiB
        percentage: 25 % of the CPU and 30 % of the memory must not be reserved
        failover-hosts: these must be kept empty"#]].assert_eq(&words.join("\n"));
}
