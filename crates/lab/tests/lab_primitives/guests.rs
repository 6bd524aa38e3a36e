//! Guests: they beat, obey, and notice a second copy of themselves, which QEMU's image lock refuses.

use super::{LONG, assert_stands_still, default_lab};
use mainstay_lab::{GuestCommand, Lab, VmOptions};

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
