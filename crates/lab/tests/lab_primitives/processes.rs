//! Agents and libvirtd as processes: started, hung, killed and stopped, while guests go on.

use super::{LONG, lab};
use mainstay_lab::{Lab, LabConfig, LabError, PowerOn, VmOptions};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

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
