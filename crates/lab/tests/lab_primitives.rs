//! The lab's primitives, tried on real hosts: what other live tests rely on must be true.
//!
//! Each test brings up a lab of its own; the machine's lab lock makes them take turns.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mainstay_lab::{
    Cut, DatastoreConfig, Direction, GuestCommand, Lab, LabConfig, LabError, Net, PowerOn, VmOptions,
};

/// Patience with a busy machine. Nothing is expected to take as long.
const LONG: Duration = Duration::from_secs(40);

fn lab(config: LabConfig) -> Lab {
    Lab::new(config).unwrap_or_else(|e| panic!("{e}"))
}

fn default_lab() -> Lab {
    lab(LabConfig::default())
}

fn pings(lab: &Lab, from: usize, to: &str) -> bool {
    let argv = ["ping", "-q", "-c1", "-W1", to];
    lab.host(from).unwrap().output(&argv, LONG).unwrap().success
}

fn carrier(lab: &Lab, host: usize, net: Net) -> String {
    let path = format!("/sys/class/net/{}/carrier", net.nic());
    lab.host(host).unwrap().exec(&["cat", &path]).unwrap()
}

/// Asserts that `vm` does not beat while `witness` does: an absence needs a clock that ticks, not a duration.
fn assert_stands_still(lab: &Lab, vm: &str, witness: &str) {
    let before = lab.guest_record(vm).unwrap();
    lab.wait_for_beats(witness, 5, LONG).unwrap();
    assert_eq!(before, lab.guest_record(vm).unwrap(), "{vm} went on");
}

#[test]
fn three_hosts_guests_beat_and_obey() {
    if !Lab::ready_for_live_tests() {
        return;
    }
    let lab = default_lab();
    for host in 1..=3 {
        lab.define_vm(host, &format!("vm{host}"), &VmOptions::default()).unwrap();
    }
    for host in 1..=3 {
        let vm = format!("vm{host}");
        let record = lab.wait_for_beats(&vm, 5, LONG).unwrap();
        assert_eq!((record.name.as_str(), record.boots, record.splits), (vm.as_str(), 1, 0));
        assert_eq!(lab.hosts_running(&vm).unwrap(), [host]);
        assert_eq!(lab.host(host).unwrap().domstate(&vm).unwrap(), "running");
        assert!(lab.serial_log(host, &vm).unwrap().starts_with(&format!("BOOT {vm} 1 0\n")));
    }

    lab.send_command("vm1", GuestCommand::Reset).unwrap();
    lab.wait_until("vm1's second boot", LONG, || lab.guest_record("vm1").is_ok_and(|r| r.boots == 2))
        .unwrap();

    let h1 = lab.host(1).unwrap();
    lab.send_command("vm1", GuestCommand::IgnorePowerButton).unwrap();
    lab.wait_for_beats("vm1", 2, LONG).unwrap();
    h1.virsh(&["shutdown", "vm1"]).unwrap();
    lab.wait_until("vm1 to ignore its button", LONG, || {
        lab.guest_record("vm1").is_ok_and(|r| r.buttons == 1)
    })
    .unwrap();
    lab.wait_for_beats("vm1", 2, LONG).unwrap();

    lab.send_command("vm1", GuestCommand::Hang).unwrap();
    lab.wait_until("vm1 to hang", LONG, || lab.serial_log(1, "vm1").unwrap().contains("HANG vm1")).unwrap();
    assert_stands_still(&lab, "vm1", "vm2");
    assert_eq!(h1.domstate("vm1").unwrap(), "running");

    lab.host(2).unwrap().virsh(&["shutdown", "vm2"]).unwrap();
    lab.wait_until("vm2 to be off", LONG, || lab.runners("vm2").unwrap().is_empty()).unwrap();
    assert!(lab.serial_log(2, "vm2").unwrap().trim_end().lines().last().unwrap().starts_with("OFF vm2 1 "));
    assert_eq!(lab.guest_record("vm2").unwrap().offs, 1);

    lab.send_command("vm3", GuestCommand::PowerOff).unwrap();
    lab.wait_until("vm3 to be off", LONG, || lab.runners("vm3").unwrap().is_empty()).unwrap();
    lab.wait_until("libvirt to see it", LONG, || lab.host(3).unwrap().domstate("vm3").unwrap() == "shut off")
        .unwrap();
    lab.host(3).unwrap().virsh(&["start", "vm3"]).unwrap();
    lab.wait_for_beats("vm3", 1, LONG).unwrap();
    lab.send_command("vm3", GuestCommand::Panic).unwrap();
    lab.wait_until("vm3 to have panicked", LONG, || lab.runners("vm3").unwrap().is_empty()).unwrap();
    let record = lab.guest_record("vm3").unwrap();
    assert_eq!((record.boots, record.offs), (2, 1));
    assert_eq!(lab.split_count().unwrap(), 0);
}

/// The switch's hardware address as `host` sees it; asking goes over the wire.
fn switch_mac(lab: &Lab, host: usize, net: Net) -> String {
    assert!(pings(lab, host, &net.switch_address()));
    let argv = ["ip", "-4", "neigh", "show", "to", &net.switch_address(), "dev", net.nic()];
    let line = lab.host(host).unwrap().exec(&argv).unwrap();
    let mac = line.split_whitespace().skip_while(|w| *w != "lladdr").nth(1);
    mac.unwrap_or_else(|| panic!("no address in '{line}'")).to_string()
}

#[test]
fn a_host_that_comes_or_goes_leaves_the_storage_server_where_it_was() {
    if !Lab::ready_for_live_tests() {
        return;
    }
    let lab = default_lab();
    for host in 1..=3 {
        let witness = host % 3 + 1;
        let before = Net::ALL.map(|net| switch_mac(&lab, witness, net));
        let h = lab.host(host).unwrap();
        h.power_off().unwrap();
        assert_eq!(before, Net::ALL.map(|net| switch_mac(&lab, witness, net)), "host {host} went");
        h.power_on().unwrap();
        assert_eq!(before, Net::ALL.map(|net| switch_mac(&lab, witness, net)), "host {host} came");
    }
}

#[test]
fn power_loss_ends_everything_and_power_on_is_another_boot() {
    if !Lab::ready_for_live_tests() {
        return;
    }
    let lab = default_lab();
    let (h1, h2) = (lab.host(1).unwrap(), lab.host(2).unwrap());
    lab.define_vm(1, "vm1", &VmOptions::default()).unwrap();
    lab.define_vm(2, "vm2", &VmOptions::default()).unwrap();
    lab.define_existing(2, "vm1", &VmOptions::default()).unwrap();
    lab.wait_for_beats("vm1", 3, LONG).unwrap();
    let boot = |h: &mainstay_lab::Host<'_>| h.exec(&["cat", "/proc/sys/kernel/random/boot_id"]).unwrap();
    let first = boot(&h1);
    assert_eq!(first, h1.boot_id().unwrap());
    assert_ne!(first, boot(&h2));
    h1.exec(&["sh", "-c", "echo kept > /var/lib/mainstay/x; echo lost > /run/mainstay/x"]).unwrap();

    h1.power_off().unwrap();
    assert!(h1.pids().unwrap().is_empty());
    assert!(lab.hosts_running("vm1").unwrap().is_empty());
    assert_stands_still(&lab, "vm1", "vm2");
    assert!(!pings(&lab, 2, "10.77.0.1"));
    assert!(matches!(h1.exec(&["true"]), Err(LabError::HostOff { host: 1 })));

    // The storage server keeps the lock of the client that vanished, until its keepalive gives it up.
    let start = Instant::now();
    lab.wait_until("vm1 to start on h2", LONG, || h2.virsh(&["start", "vm1"]).is_ok()).unwrap();
    eprintln!("vm1 could be started elsewhere {:.1} s after power loss", start.elapsed().as_secs_f64());
    let record = lab.wait_for_beats("vm1", 3, LONG).unwrap();
    assert_eq!((record.boots, record.splits), (2, 0));

    h1.power_on().unwrap();
    let second = boot(&h1);
    assert_ne!(first, second);
    assert_eq!(second, h1.boot_id().unwrap());
    assert_eq!(h1.domstate("vm1").unwrap(), "shut off");
    assert_eq!(h1.exec(&["cat", "/var/lib/mainstay/x"]).unwrap(), "kept");
    assert!(!h1.output(&["test", "-e", "/run/mainstay/x"], LONG).unwrap().success);
    assert!(pings(&lab, 1, "10.77.0.2") && pings(&lab, 1, "10.77.0.254"));
    assert_eq!(lab.split_count().unwrap(), 0);
}

#[test]
fn hung_host_stands_still_and_goes_on() {
    if !Lab::ready_for_live_tests() {
        return;
    }
    let lab = default_lab();
    lab.define_vm(1, "vm1", &VmOptions::default()).unwrap();
    lab.define_vm(2, "vm2", &VmOptions::default()).unwrap();
    lab.wait_for_beats("vm1", 2, LONG).unwrap();
    let h1 = lab.host(1).unwrap();
    h1.hang().unwrap();
    assert!(lab.runners("vm1").unwrap().iter().all(|r| r.stopped));
    assert_stands_still(&lab, "vm1", "vm2");
    assert!(matches!(h1.exec(&["true"]), Err(LabError::HostHung { host: 1 })));
    assert!(pings(&lab, 2, "10.77.0.1"), "a hung host's kernel answers");
    h1.unhang().unwrap();
    lab.wait_for_beats("vm1", 2, LONG).unwrap();
    assert!(lab.runners("vm1").unwrap().iter().all(|r| !r.stopped));
}

#[test]
fn networks_are_cut_as_told_and_healed() {
    if !Lab::ready_for_live_tests() {
        return;
    }
    let lab = default_lab();
    let h1 = lab.host(1).unwrap();
    let all_well =
        || pings(&lab, 1, "10.77.0.2") && pings(&lab, 2, "10.77.0.3") && pings(&lab, 1, "10.78.0.254");
    assert!(all_well());

    h1.cut(Net::Mgmt, Cut::Silent).unwrap();
    assert!(!pings(&lab, 1, "10.77.0.2") && !pings(&lab, 1, "10.77.0.254") && !pings(&lab, 2, "10.77.0.1"));
    assert!(pings(&lab, 1, "10.78.0.254") && pings(&lab, 2, "10.77.0.3"));
    assert_eq!(carrier(&lab, 1, Net::Mgmt), "1");
    h1.join(Net::Mgmt).unwrap();
    assert!(all_well());

    h1.cut(Net::Storage, Cut::Carrier).unwrap();
    assert_eq!(carrier(&lab, 1, Net::Storage), "0");
    h1.join(Net::Storage).unwrap();
    lab.wait_until("the link to be back", LONG, || pings(&lab, 1, "10.78.0.254")).unwrap();

    lab.split(Net::Mgmt, &[&[1, 2], &[3]]).unwrap();
    assert!(pings(&lab, 1, "10.77.0.2") && !pings(&lab, 1, "10.77.0.3") && !pings(&lab, 3, "10.77.0.2"));
    assert!(pings(&lab, 3, "10.77.0.254"));
    lab.unsplit(Net::Mgmt).unwrap();

    h1.set_gateway_reachable(Net::Mgmt, false).unwrap();
    assert!(!pings(&lab, 1, "10.77.0.254") && pings(&lab, 1, "10.77.0.2"));
    h1.set_gateway_reachable(Net::Mgmt, true).unwrap();

    // One way: h2 hears nothing of h1, while h1 hears h2. Seen in the counters of h1's card.
    let received = || -> u64 {
        let path = "/sys/class/net/eth0/statistics/rx_packets";
        h1.exec(&["cat", path]).unwrap().parse().unwrap()
    };
    h1.drop_direction(Net::Mgmt, Direction::Out).unwrap();
    let before = received();
    assert!(!pings(&lab, 2, "10.77.0.1"));
    assert!(received() > before, "what others send must still arrive");
    h1.undrop(Net::Mgmt).unwrap();

    lab.drop_pair(Net::Mgmt, 1, 2, true).unwrap();
    assert!(!pings(&lab, 1, "10.77.0.2") && pings(&lab, 1, "10.77.0.3"));
    h1.lose_packets(Net::Mgmt, 100).unwrap();
    assert!(!pings(&lab, 1, "10.77.0.3"));
    lab.heal().unwrap();
    assert!(all_well());

    h1.firewall_drop(Net::Mgmt, Direction::Out).unwrap();
    assert!(!pings(&lab, 1, "10.77.0.2"));
    h1.firewall_clear().unwrap();
    assert!(all_well());

    // A fault outlives the power cycle, as a broken switch does.
    h1.cut(Net::Mgmt, Cut::Carrier).unwrap();
    h1.power_off().unwrap();
    h1.power_on().unwrap();
    assert_eq!(carrier(&lab, 1, Net::Mgmt), "0");
    lab.heal().unwrap();
    lab.wait_until("all to be well", LONG, all_well).unwrap();
}

#[test]
fn second_start_is_refused_by_the_image_lock_and_a_rogue_copy_is_noticed() {
    if !Lab::ready_for_live_tests() {
        return;
    }
    let lab = default_lab();
    lab.define_vm(1, "vm1", &VmOptions::default()).unwrap();
    lab.define_existing(2, "vm1", &VmOptions::default()).unwrap();
    lab.wait_for_beats("vm1", 2, LONG).unwrap();
    let refused = lab.host(2).unwrap().virsh(&["start", "vm1"]).unwrap_err().to_string();
    assert!(refused.contains("Failed to get \"write\" lock"), "{refused}");
    assert_eq!(lab.hosts_running("vm1").unwrap(), [1]);
    assert_eq!(lab.split_count().unwrap(), 0);

    lab.start_rogue_copy(2, "vm1").unwrap();
    assert_eq!(lab.hosts_running("vm1").unwrap(), [1, 2]);
    let noticed = |at_least: u64| {
        let s = lab.splits().unwrap();
        s.on_disk >= at_least && s.in_logs >= at_least
    };
    lab.wait_until("both copies to notice", LONG, || {
        let says = |host| lab.serial_log(host, "vm1").unwrap().contains("SPLIT vm1");
        noticed(3) && says(1) && says(2)
    })
    .unwrap();

    // The count survives both copies' deaths and a later, single one.
    assert_eq!(lab.kill_vm(2, "vm1").unwrap(), 1);
    lab.host(1).unwrap().power_off().unwrap();
    lab.host(1).unwrap().power_on().unwrap();
    lab.wait_until("vm1 to start", LONG, || lab.host(1).unwrap().virsh(&["start", "vm1"]).is_ok()).unwrap();
    lab.wait_for_beats("vm1", 3, LONG).unwrap();
    assert!(noticed(3));
}

#[test]
fn agent_is_started_hung_killed_and_stopped() {
    if !Lab::ready_for_live_tests() {
        return;
    }
    let tools = tempfile::tempdir_in("/var/tmp").unwrap();
    let dummy = tools.path().join("mainstay");
    fs::write(
        &dummy,
        "#!/bin/sh\ntrap 'echo bye; exit 0' TERM\ntouch /run/mainstay/agent.sock\necho \"$@\"\n\
         while :; do echo tick; sleep 0.05; done\n",
    )
    .unwrap();
    fs::set_permissions(&dummy, fs::Permissions::from_mode(0o755)).unwrap();
    // An agent counts as one only with a guard beside it; this one starts none.
    fs::write(tools.path().join("mainstay-guard"), "").unwrap();
    let lab = lab(LabConfig { hosts: 2, agent_bin: Some(dummy), ..LabConfig::default() });
    let h1 = lab.host(1).unwrap();
    assert_eq!(h1.agent_pid().unwrap(), None);
    h1.start_agent().unwrap();
    let log = || fs::read_to_string(h1.agent_log()).unwrap_or_default();
    let ticks = || log().matches("tick").count();
    lab.wait_until("the agent to tick", LONG, || ticks() > 2).unwrap();
    assert!(log().starts_with("agent --config /etc/mainstay/agent.toml\n"), "{}", log());
    assert!(Path::new("/run/mainstay/hosts/h1.sock").exists(), "the socket is reached from outside");
    assert!(h1.exec(&["cat", "/etc/mainstay/agent.toml"]).unwrap().contains("id = \"host-1\""));
    assert_eq!(h1.exec(&["stat", "-c", "%a %s", "/etc/mainstay/cluster.key"]).unwrap(), "600 65");

    let pid = h1.agent_pid().unwrap().unwrap();
    let stat = || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    h1.hang_agent().unwrap();
    lab.wait_until("the agent to stand still", LONG, || stat().contains(") T ")).unwrap();
    h1.resume_agent().unwrap();
    let before = ticks();
    lab.wait_until("the agent to go on", LONG, || ticks() > before).unwrap();
    h1.kill_agent().unwrap();
    assert_eq!(h1.agent_pid().unwrap(), None);
    h1.start_agent().unwrap();
    lab.wait_until("the agent's second start", LONG, || log().matches("agent --config").count() == 2)
        .unwrap();
    assert!(h1.stop_agent().unwrap(), "it ends when asked to");
    assert!(log().contains("bye"));
    assert!(matches!(h1.stop_agent(), Err(LabError::NotRunning { .. })));

    h1.power_off().unwrap();
    h1.power_on_with(&PowerOn { agent: true, ..PowerOn::default() }).unwrap();
    assert!(h1.agent_pid().unwrap().is_some());
}

#[test]
fn libvirtd_dies_and_hangs_and_its_guests_go_on() {
    if !Lab::ready_for_live_tests() {
        return;
    }
    let lab = lab(LabConfig { hosts: 1, ..LabConfig::default() });
    let h1 = lab.host(1).unwrap();
    lab.define_vm(1, "vm1", &VmOptions::default()).unwrap();
    h1.kill_libvirtd().unwrap();
    assert!(!h1.libvirtd_runs().unwrap());
    assert!(h1.domstate("vm1").is_err());
    lab.wait_for_beats("vm1", 3, LONG).unwrap();
    h1.start_libvirtd().unwrap();
    lab.wait_until("libvirt to find its VM", LONG, || h1.domstate("vm1").is_ok_and(|s| s == "running"))
        .unwrap();

    h1.hang_libvirtd().unwrap();
    let argv = ["virsh", "-c", "qemu:///system", "list"];
    let asked = h1.output(&argv, Duration::from_secs(1));
    assert!(matches!(asked, Err(LabError::ToolTimeout { .. })), "{asked:?}");
    lab.wait_for_beats("vm1", 3, LONG).unwrap();
    h1.resume_libvirtd().unwrap();
    assert_eq!(h1.domstate("vm1").unwrap(), "running");
    assert_eq!(lab.kill_vm(1, "vm1").unwrap(), 1);
    lab.wait_until("libvirt to notice", LONG, || h1.domstate("vm1").is_ok_and(|s| s == "shut off")).unwrap();
}

#[test]
fn datastores_hang_fill_up_and_go_missing() {
    if !Lab::ready_for_live_tests() {
        return;
    }
    let datastores = vec![
        DatastoreConfig::gluster("ds1"),
        DatastoreConfig::gluster("ds2").sized(64),
        DatastoreConfig::local("ds3"),
    ];
    let lab = lab(LabConfig { hosts: 2, datastores, ..LabConfig::default() });
    let (h1, h2) = (lab.host(1).unwrap(), lab.host(2).unwrap());
    lab.define_vm(1, "vm1", &VmOptions::default()).unwrap();
    lab.define_vm(2, "vm2", &VmOptions::default()).unwrap();
    lab.define_vm(2, "vm3", &VmOptions { datastore: Some("ds3".into()), ..VmOptions::default() }).unwrap();
    lab.wait_for_beats("vm1", 2, LONG).unwrap();
    lab.wait_for_beats("vm3", 2, LONG).unwrap();

    h1.hang_datastore("ds1").unwrap();
    assert_stands_still(&lab, "vm1", "vm2");
    h1.unhang_datastore("ds1").unwrap();
    lab.wait_for_beats("vm1", 2, LONG).unwrap();

    lab.hang_datastore("ds1").unwrap();
    assert_stands_still(&lab, "vm2", "vm3");
    lab.unhang_datastore("ds1").unwrap();
    lab.wait_for_beats("vm2", 2, LONG).unwrap();
    assert!(matches!(h1.hang_datastore("ds3"), Err(LabError::Unsupported { .. })));

    let write = ["dd", "if=/dev/zero", "of=/srv/ds2/probe", "bs=64k", "count=4", "oflag=direct"];
    lab.fill_datastore("ds2").unwrap();
    let full = h1.output(&write, LONG).unwrap();
    assert!(!full.success && full.stderr.contains("No space left"), "{full:?}");
    lab.drain_datastore("ds2").unwrap();
    lab.wait_until("space to be seen again", LONG, || h1.output(&write, LONG).unwrap().success).unwrap();

    h2.power_off().unwrap();
    h2.power_on_with(&PowerOn { without_datastores: vec!["ds2".into()], ..PowerOn::default() }).unwrap();
    assert!(!h2.has_datastore("ds2").unwrap() && h2.has_datastore("ds1").unwrap());
    h2.mount_datastore("ds2").unwrap();
    assert_eq!(h2.exec(&["stat", "-c", "%s", "/srv/ds2/probe"]).unwrap(), "262144");
}

/// Everything on this machine that bears a lab's name or lies in its directory.
fn traces(name: &str, dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        found.push(format!("netns {}", entry.file_name().to_string_lossy()));
    }
    for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
        for entry in fs::read_dir(root).into_iter().flatten().flatten() {
            found.push(format!("cgroup {}", entry.path().display()));
        }
    }
    found.retain(|f| f.contains(&format!("{name}-lab")));
    let dir = dir.display().to_string();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    found.extend(mounts.lines().filter(|l| l.contains(&dir)).map(|l| format!("mount {l}")));
    for entry in fs::read_dir("/sys/block").unwrap().flatten() {
        let backing = fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        if backing.contains(&dir) {
            found.push(format!("loop device of {backing}"));
        }
    }
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&dir) {
            found.push(format!("process {line}"));
        }
    }
    for host in 1..=3 {
        let link = format!("/run/mainstay/hosts/h{host}.sock");
        if fs::read_link(&link).is_ok_and(|to| to.starts_with(&dir)) {
            found.push(link);
        }
    }
    if Path::new(&dir).exists() {
        found.push(dir);
    }
    found
}

#[test]
fn taking_a_lab_down_leaves_nothing() {
    if !Lab::ready_for_live_tests() {
        return;
    }
    let (name, dir) = ("traces", Path::new("/var/tmp/mainstay-lab-traces"));
    let datastores = vec![DatastoreConfig::gluster("ds1").sized(64), DatastoreConfig::local("ds2")];
    let config = LabConfig { name: name.into(), dir: dir.into(), datastores, ..LabConfig::default() };
    for explicitly in [true, false] {
        let lab = lab(config.clone());
        lab.define_vm(1, "vm1", &VmOptions::default()).unwrap();
        lab.host(2).unwrap().hang().unwrap();
        lab.host(3).unwrap().power_off().unwrap();
        lab.hang_datastore("ds1").unwrap();
        let attached = Lab::attach().unwrap();
        assert_eq!(attached.hosts_running("vm1").unwrap(), [1]);
        drop(attached);
        let standing = traces(name, dir);
        for kind in ["netns", "cgroup", "mount", "loop", "process", "h1.sock"] {
            assert!(standing.iter().any(|t| t.contains(kind)), "no {kind} among {standing:?}");
        }
        if explicitly {
            lab.down().unwrap();
        } else {
            drop(lab);
        }
        assert_eq!(traces(name, dir), Vec::<String>::new());
    }
}

const HANGS: &str = "hangs";

/// Not a test: what [`a_lab_that_stands_too_long_is_taken_down_with_its_program`] starts.
#[test]
#[ignore = "it hangs on purpose"]
fn hangs_with_a_lab() {
    let dir = Path::new(mainstay_lab::DEFAULT_BASE).join(HANGS);
    let limit = Some(Duration::from_secs(3));
    let _lab =
        lab(LabConfig { name: HANGS.into(), dir, hosts: 2, time_limit: limit, ..LabConfig::default() });
    std::thread::sleep(LONG);
}

#[test]
fn a_lab_that_stands_too_long_is_taken_down_with_its_program() {
    if !Lab::ready_for_live_tests() {
        return;
    }
    let mut program = Command::new(std::env::current_exe().unwrap());
    // Its output is kept, as that of a test that passes: what is said all the same must be seen.
    let ended = program.args(["--exact", "hangs_with_a_lab", "--ignored"]).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(101), "{said}");
    assert!(said.contains("hangs_with_a_lab is not done within 3 s") && said.contains("h2 "), "{said}");
    let dir = Path::new(mainstay_lab::DEFAULT_BASE).join(HANGS);
    assert!(dir.join("h1").is_dir(), "its files are kept");
    fs::remove_dir_all(&dir).unwrap();
    assert_eq!(traces(HANGS, &dir), Vec::<String>::new());
}

/// `mainstay-lab up` in the foreground, as soon as it says that its lab stands.
fn foreground_lab(name: &str) -> (Child, std::path::PathBuf) {
    let dir = Path::new(mainstay_lab::DEFAULT_BASE).join(name);
    let mut child = Command::new(env!("CARGO_BIN_EXE_mainstay-lab"))
        .args(["up", "--hosts", "2", "--vms", "2", "--wait", "900"])
        .env("MAINSTAY_LAB_NAME", name)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|l| l.unwrap().starts_with("vm2 ")), "`up` ended before its lab stood");
    (child, dir)
}

#[test]
fn command_line_cleans_up_after_signals_and_crashes() {
    if !Lab::ready_for_live_tests() {
        return;
    }
    let name = "fromcli";
    let tool = |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_mainstay-lab")).args(args).output().unwrap();
    let signal = |child: &Child, signal: nix::sys::signal::Signal| {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id().cast_signed()), signal).unwrap();
    };

    let (mut child, dir) = foreground_lab(name);
    assert_eq!(tool(&["up"]).status.code(), Some(4), "a second lab is refused");
    assert!(tool(&["host", "off", "h2"]).status.success());
    let status = String::from_utf8(tool(&["status"]).stdout).unwrap();
    assert!(status.lines().any(|l| l.starts_with("h2 ") && l.contains("off")), "{status}");
    signal(&child, nix::sys::signal::Signal::SIGINT);
    assert!(child.wait().unwrap().success());
    assert_eq!(traces(name, &dir), Vec::<String>::new());

    let (mut child, dir) = foreground_lab(name);
    signal(&child, nix::sys::signal::Signal::SIGKILL);
    child.wait().unwrap();
    assert!(!traces(name, &dir).is_empty());
    // Another lab may come first and do it; `down` has to wait for that one, or has nothing left to do.
    let start = Instant::now();
    while !traces(name, &dir).is_empty() {
        assert!(start.elapsed() < LONG * 5, "{:?}", traces(name, &dir));
        tool(&["down"]);
    }

    // `down` in another shell ends a lab that is up in the foreground.
    let (mut child, dir) = foreground_lab(name);
    assert!(tool(&["down"]).status.success());
    assert!(child.wait().unwrap().success());
    assert_eq!(traces(name, &dir), Vec::<String>::new());
}
