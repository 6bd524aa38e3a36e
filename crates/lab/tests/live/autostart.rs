//! libvirt's autostart of protected VMs: off, on each host, and put back when they are not protected any more. Then what a host
//! without an agent starts after its boot, and what becomes of VMs that are shut down with their host.

use std::collections::BTreeSet;

use mainstay_lab::PowerOn;

use crate::support::{Alarm, Cluster, Setup, alarms, calm, returning};

/// Whether that host's libvirt starts the VM when it starts itself.
fn autostart(c: &Cluster, host: usize, vm: &str) -> bool {
    let info = c.host(host).virsh(&["dominfo", vm]).unwrap_or_else(|e| panic!("{e}\n{}", c.story()));
    let line = info.lines().find_map(|line| line.strip_prefix("Autostart:"));
    line.unwrap_or_else(|| panic!("no autostart in {info}")).trim() == "enable"
}

/// That host's kernel says that it has been up for so many seconds.
fn is_up_for(c: &Cluster, host: usize, seconds: u32) {
    let write = format!("echo {seconds}.00 3.00 > /run/uptime");
    let mount = "mountpoint -q /proc/uptime || mount --bind /run/uptime /proc/uptime";
    let told = c.host(host).exec(&["sh", "-c", &format!("{write} && {{ {mount}; }}")]);
    told.unwrap_or_else(|e| panic!("{e}"));
}

/// Why libvirt does not start the VM there.
fn start_in_vain(c: &Cluster, host: usize, vm: &str) -> String {
    let output = c.host(host).virsh_output(&["start", vm]).expect("virsh runs");
    assert!(!output.success, "{vm} was started\n{}", c.story());
    eprintln!("  {}", output.stderr.trim());
    output.stderr
}

/// The hook lets the VM start there. It is asked as libvirt asks it: libvirt itself would go on to the image lock.
fn is_let_start(c: &Cluster, host: usize, vm: &str) {
    let host = c.host(host);
    let xml = host.virsh(&["dumpxml", vm]).unwrap_or_else(|e| panic!("{e}"));
    let hook = ["/etc/libvirt/hooks/qemu.d/mainstay", vm, "prepare", "begin", "-"];
    host.exec_with_input(&hook, &xml).unwrap_or_else(|e| panic!("{vm} is refused: {e}\n{}", c.story()));
}

/// vm1 runs elsewhere, and nobody is there who could say so.
fn first_minutes(c: &Cluster, host: usize) {
    let refusal = "Mainstay refuses: vm1 is protected and may run on another host";
    is_up_for(c, host, 20);
    let why = start_in_vain(c, host, "vm1");
    assert!(why.contains(refusal), "{why}");
    is_up_for(c, host, 301);
    is_let_start(c, host, "vm1");
    is_up_for(c, host, 20);
    let why = start_in_vain(c, host, "vm1");
    assert!(why.contains(refusal), "{why}");
    // A person may overrule it.
    c.host(host).exec(&["touch", "/run/mainstay/start-anyway"]).unwrap_or_else(|e| panic!("{e}"));
    is_let_start(c, host, "vm1");
    let restore = "rm /run/mainstay/start-anyway; umount /proc/uptime";
    c.host(host).exec(&["sh", "-c", restore]).unwrap_or_else(|e| panic!("{e}"));
}

/// As systemd and libvirt-guests do it.
fn shut_down_with_its_host(c: &Cluster, host: usize, vm: &str) {
    let before = c.boots();
    let announce = "echo 'System is going down.' > /run/nologin";
    c.host(host).exec(&["sh", "-c", announce]).unwrap_or_else(|e| panic!("{e}"));
    c.host(host).virsh(&["shutdown", vm]).unwrap_or_else(|e| panic!("{e}"));
    c.wait("its guest to boot again", || c.boots()[vm] > before[vm]);
    c.host(host).exec(&["rm", "/run/nologin"]).unwrap_or_else(|e| panic!("{e}"));
    c.settle(&[]);
    c.assert_restarted_once(&before, &BTreeSet::from([vm.to_string()]));
}

#[test]
fn three_hosts_a_host_boots_with_autostart_before_its_agent() {
    let Some(mut c) = Cluster::up(Setup { vms: &[1, 2], ..Setup::default() }) else { return };
    c.step("autostart of protected VMs goes off", calm(), |c| {
        let before = c.running();
        for (host, vm) in [(1, "vm1"), (2, "vm2")] {
            c.host(host).virsh(&["autostart", vm]).unwrap_or_else(|e| panic!("{e}"));
        }
        for (host, vm) in [(1, "vm1"), (2, "vm2")] {
            c.wait("autostart to be off", || !autostart(c, host, vm));
        }
        c.assert_untouched(&before);
    });
    c.step("one of their hosts loses power", alarms(&[Alarm::Failed(1)]), |c| {
        let before = c.boots();
        c.power_off(1);
        c.settle(&[]);
        c.assert_restarted_once(&before, &BTreeSet::from(["vm1".to_string()]));
    });
    c.step("it boots, libvirt first: it starts nothing", returning(&[1]).perhaps(&[Alarm::Failed(1)]), |c| {
        let before = c.running();
        let host = c.host(1);
        // When this is back, libvirtd has started what it wants to start.
        host.power_on_with(&PowerOn::default()).unwrap_or_else(|e| panic!("{e}"));
        assert!(!autostart(c, 1, "vm1"), "its definition is still there, without autostart");
        c.assert_untouched(&before);
        first_minutes(c, 1);
        c.assert_untouched(&before);
        host.start_agent().unwrap_or_else(|e| panic!("{e}"));
        c.settle(&[]);
        c.wait_for_definitions(&[]);
        c.assert_untouched(&before);
    });
    c.step("a VM leaves protection, and its autostart comes back", calm(), |c| {
        c.order(3, "vm2", "unprotect");
        c.wait("autostart to be on again", || autostart(c, 2, "vm2"));
        c.order(3, "vm2", "protect");
        c.wait("autostart to be off again", || !autostart(c, 2, "vm2"));
        c.settle(&[]);
    });
    c.step("it is shut down with its host: it comes back", calm(), |c| shut_down_with_its_host(c, 2, "vm2"));
    c.down();
}
