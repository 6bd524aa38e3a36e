//! libvirtd dies or hangs: the VMs and their protection go on.

use std::time::Duration;

use mainstay_words::Event;

use crate::support::{Cluster, calm};

/// VMs and their protection go on.
pub fn libvirtd_dies_and_hangs(c: &mut Cluster) {
    c.step("libvirtd is killed and started on a secondary and on the primary", calm(), |c| {
        let before = c.running();
        for host in [1, 3] {
            c.host(host).kill_libvirtd().expect("killed");
        }
        c.wait("both agents to notice", || {
            let lost = |host| c.local(host).is_some_and(|l| !l.view.hypervisor_well);
            lost(1) && lost(3)
        });
        for host in [1, 3] {
            c.host(host).start_libvirtd().expect("started");
        }
        c.wait("both agents to be connected again", || well(c));
        c.settle(&[]);
        c.assert_untouched(&before);
    });

    c.step("libvirtd hangs on a secondary and on the primary", calm(), |c| {
        let before = c.running();
        for host in [1, 3] {
            c.host(host).hang_libvirtd().expect("hung");
        }
        for host in [1, 3] {
            let noticed = |e: &mainstay_api::EventRecord| {
                e.host == crate::support::id(host) && matches!(e.event, Some(Event::HypervisorLost))
            };
            c.wait("its agent to say so", || c.events().iter().any(noticed));
        }
        // Three times as long as leases last.
        std::thread::sleep(Duration::from_secs(9));
        let status = c.wait_for("a primary, which answers all the same", || c.status());
        assert!(status.view.vms.iter().all(|v| v.protected), "{:?}", status.view.vms);
        c.assert_untouched(&before);
        for host in [1, 3] {
            c.host(host).resume_libvirtd().expect("resumed");
        }
        c.wait("both agents to be connected again", || well(c));
        c.settle(&[]);
        c.assert_untouched(&before);
    });

    c.step("a VM's user finds all as it was", calm(), |c| {
        let boots = c.boots();
        c.host(1).virsh(&["destroy", "vm1"]).expect("destroyed");
        c.wait("vm1's end to be seen", || {
            c.seen(|e| matches!(e, Event::VmStopped { vm, restart: false, .. } if &*vm.name == "vm1"))
        });
        c.host(1).virsh(&["start", "vm1"]).expect("started");
        c.settle(&[]);
        c.assert_restarted_once(&boots, &["vm1".to_string()].into());
    });
}

fn well(c: &Cluster) -> bool {
    (1..=3).all(|host| c.local(host).is_some_and(|l| l.view.hypervisor_well))
}
