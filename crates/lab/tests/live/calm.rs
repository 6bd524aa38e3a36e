//! Faults that must not touch any VM, one after the other on one lab: what they leave behind is what they found.

use crate::support::{Cluster, Setup};
use crate::{agents, bad_input, clock, hypervisor, leases, partitions};

#[test]
fn three_hosts_faults_of_the_network_touch_no_vm() {
    let Some(mut c) = Cluster::up(Setup::default()) else { return };
    partitions::network_breaks(&mut c);
    leases::storage_goes_alone(&mut c);
    leases::both_switches_reboot(&mut c);
    c.down();
}

#[test]
fn three_hosts_faults_of_programs_touch_no_vm() {
    let Some(mut c) = Cluster::up(Setup::default()) else { return };
    bad_input::bad_input(&mut c);
    bad_input::damaged_registers(&mut c);
    hypervisor::libvirtd_dies_and_hangs(&mut c);
    clock::wall_clock_jumps(&mut c);
    agents::agents_are_killed(&mut c);
    c.down();
}
