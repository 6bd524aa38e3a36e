//! Whole hosts that lose power, come back as another boot, or stand still.

use super::{LONG, answers, assert_stands_still, default_lab, pings};
use mainstay_lab::{Lab, LabError, VmOptions};
use std::time::Instant;

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
    assert!(answers(&lab, 1, "10.77.0.2") && answers(&lab, 1, "10.77.0.254"));
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
    assert!(answers(&lab, 2, "10.77.0.1"), "a hung host's kernel answers");
    h1.unhang().unwrap();
    lab.wait_for_beats("vm1", 2, LONG).unwrap();
    assert!(lab.runners("vm1").unwrap().iter().all(|r| !r.stopped));
}
