//! What guests and users do to VMs: nothing is restarted that somebody wanted down, and nothing stays down that nobody did.

use std::collections::BTreeSet;
use std::fs;

use mainstay_lab::{GuestCommand, VmOptions};
use mainstay_words::Event;
use mainstay_words::register::StopCause;
use mainstay_words::view::VmState;

use crate::support::{Alarm, Cluster, Setup, alarms, calm, id, returning};

fn vms(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

/// Waits for the end of a VM as its user's or guest's will, and that it stays down while others go on.
fn assert_stays_down(c: &Cluster, name: &str, allowed: &[StopCause]) {
    let cause = c.wait_for(&format!("{name}'s end to be seen"), || {
        c.events().into_iter().find_map(|e| match e.event {
            Some(Event::VmStopped { vm, cause, restart, .. }) if *vm.name == *name => Some((cause, restart)),
            Some(_) | None => None,
        })
    });
    assert!(allowed.contains(&cause.0) && !cause.1, "{name}: {cause:?}\n{}", c.story());
    c.wait(&format!("{name} to be seen as off"), || c.vm_view(name).is_some_and(|v| v.state == VmState::Off));
    // Ten beats of another VM, two seconds: eight rounds of everything that agents do.
    c.lab.wait_for_beats("vm4", 10, crate::support::LONG).expect("vm4 beats");
    c.settle(&[name]);
}

#[test]
fn three_hosts_guests_and_users_stop_vms() {
    let setup = Setup { vms: &[1, 1, 2, 3], timing: "swift", ..Setup::default() };
    let Some(mut c) = Cluster::up(setup) else { return };

    c.step("a guest resets itself", calm(), |c| {
        let before = c.boots();
        let runner = c.lab.runners("vm1").expect("the runners");
        c.lab.send_command("vm1", GuestCommand::Reset).expect("told");
        c.wait("its second boot", || c.lab.guest_record("vm1").is_ok_and(|r| r.boots == before["vm1"] + 1));
        c.settle(&[]);
        assert_eq!(runner, c.lab.runners("vm1").expect("the runners"), "the same QEMU");
        c.assert_restarted_once(&before, &vms(&["vm1"]));
        assert!(!c.seen(|e| matches!(e, Event::VmStopped { .. })), "{}", c.story());
    });

    c.step("a guest powers itself off", calm(), |c| {
        let before = c.boots();
        c.lab.send_command("vm1", GuestCommand::PowerOff).expect("told");
        assert_stays_down(c, "vm1", &[StopCause::GuestShutdown]);
        assert_eq!(before, c.boots());
    });
    c.step("its user starts it again", calm(), |c| {
        let before = c.boots();
        c.host(1).virsh(&["start", "vm1"]).expect("started");
        c.settle(&[]);
        c.assert_restarted_once(&before, &vms(&["vm1"]));
    });

    c.step("QEMU is killed", calm(), |c| {
        let before = c.boots();
        let runner = c.lab.runners("vm1").expect("the runners")[0];
        assert_eq!(c.lab.kill_vm(1, "vm1").expect("killed"), 1);
        c.wait("another QEMU", || c.lab.runners("vm1").is_ok_and(|r| r.len() == 1 && r[0].pid != runner.pid));
        c.settle(&[]);
        assert_eq!(c.lab.hosts_running("vm1").expect("the runners"), [1], "on the same host");
        c.assert_restarted_once(&before, &vms(&["vm1"]));
        let crash = |e: &Event| matches!(e, Event::VmStopped { vm, restart: true, .. } if &*vm.name == "vm1");
        assert!(c.seen(crash), "{}", c.story());
    });

    c.step("a user shuts a VM down", calm(), |c| {
        let before = c.boots();
        c.host(1).virsh(&["shutdown", "vm1"]).expect("asked");
        assert_stays_down(c, "vm1", &[StopCause::UserShutdown, StopCause::GuestShutdown]);
        assert_eq!(before, c.boots());
    });
    c.step("and starts it again on another host", calm(), |c| {
        let before = c.boots();
        c.lab.define_existing(2, "vm1", &VmOptions::default()).expect("defined");
        c.host(2).virsh(&["start", "vm1"]).expect("started");
        c.settle(&[]);
        assert_eq!(c.lab.hosts_running("vm1").expect("the runners"), [2]);
        c.assert_restarted_once(&before, &vms(&["vm1"]));
    });

    c.step("it runs, and is started on a third host too: in vain", calm(), |c| {
        let before = c.running();
        let xml = c.lab.domain_xml("vm1", &VmOptions::default()).expect("its XML");
        let file = c.lab.dir().join("vm1.xml");
        fs::write(&file, xml).expect("written");
        let path = file.to_str().expect("a path");
        // Were the primary not to answer in time, the start would go on to the image lock.
        let output = c.host(3).virsh_output(&["create", path]).expect("virsh runs");
        assert!(!output.success && output.stderr.contains("vm1 runs on h2"), "{output:?}\n{}", c.story());
        eprintln!("  {}", output.stderr.trim());
        c.settle(&[]);
        c.assert_untouched(&before);
    });
    c.step("its user migrates it there, which is let in", calm(), |c| {
        let before = c.boots();
        let how = ["migrate", "--live", "--persistent", "--undefinesource", "--unsafe"];
        c.host(2).virsh(&[&how[..], &["vm1", "qemu+tcp://h3/system"]].concat()).expect("moved");
        c.settle(&[]);
        assert_eq!(c.lab.hosts_running("vm1").expect("the runners"), [3]);
        assert_eq!(before, c.boots());
    });

    c.step("a user destroys a VM", calm(), |c| {
        let before = c.boots();
        c.host(1).virsh(&["destroy", "vm2"]).expect("destroyed");
        assert_stays_down(c, "vm2", &[StopCause::UserDestroyed]);
        assert_eq!(before, c.boots());
    });
    c.step("its host fails: it stays down all the same", alarms(&[Alarm::Failed(1)]), |c| {
        let before = c.boots();
        c.power_off(1);
        c.settle(&["vm2"]);
        c.lab.wait_for_beats("vm4", 10, crate::support::LONG).expect("vm4 beats");
        c.settle(&["vm2"]);
        assert_eq!(before, c.boots());
    });
    // It is off yet when this begins: a primary that is elected anew says so again.
    let back = returning(&[1]).perhaps(&[Alarm::Failed(1)]);
    c.step("its user starts it on the host that came back", back, |c| {
        let before = c.boots();
        c.power_on(1);
        c.settle(&["vm2"]);
        c.host(1).virsh(&["start", "vm2"]).expect("started");
        c.settle(&[]);
        c.assert_restarted_once(&before, &vms(&["vm2"]));
    });
    c.down();
}

#[test]
fn three_hosts_changed_definition_is_what_is_restarted() {
    let setup = Setup { vms: &[1, 2, 3], timing: "swift", ..Setup::default() };
    let Some(mut c) = Cluster::up(setup) else { return };
    let stored = |c: &Cluster| -> Vec<String> {
        let folder = c.lab.dir().join("store/ds1/.mainstay/1ab0001a-lab/vms");
        let files = fs::read_dir(folder).into_iter().flatten().flatten();
        files.filter_map(|f| fs::read_to_string(f.path()).ok()).filter(|x| x.contains("<name>vm1<")).collect()
    };
    c.step("a user gives a running VM more memory", calm(), |c| {
        let before = c.running();
        assert!(stored(c).iter().all(|xml| !xml.contains("<memory unit='KiB'>24576</memory>")));
        let options = VmOptions { memory_mib: 24, ..VmOptions::default() };
        c.lab.define_existing(1, "vm1", &options).expect("defined");
        c.wait("the change to be on the datastore", || {
            stored(c).iter().any(|xml| xml.contains("<memory unit='KiB'>24576</memory>"))
        });
        c.wait("the change to be in the list", || c.vm_view("vm1").is_some_and(|v| v.memory_mib == 24));
        c.settle(&[]);
        c.assert_untouched(&before);
    });
    c.step("after its host's failure it has it", alarms(&[Alarm::Failed(1)]), |c| {
        let before = c.boots();
        c.power_off(1);
        c.settle(&[]);
        c.assert_restarted_once(&before, &vms(&["vm1"]));
        let host = c.lab.hosts_running("vm1").expect("the runners")[0];
        let info = c.host(host).virsh(&["dominfo", "vm1"]).expect("dominfo");
        assert!(info.lines().any(|l| l.starts_with("Max memory:") && l.contains("24576 KiB")), "{info}");
        assert_eq!(c.vm_view("vm1").and_then(|v| v.host), Some(id(host)));
    });
    c.down();
}
