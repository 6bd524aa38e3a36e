//! Two of three datastores carry the heartbeats by which hosts are judged.

use mainstay_lab::{DatastoreConfig, VmOptions};

use crate::support::{Alarm, Cluster, Setup, alarms, calm};

const NAMES: [&str; 3] = ["ds1", "ds2", "ds3"];

/// The heartbeat datastores, as a primary says.
fn chosen(c: &Cluster) -> Vec<&'static str> {
    let Some(status) = c.status() else { return Vec::new() };
    let carries = |name: &&str| {
        let datastores = &status.view.datastores;
        datastores.iter().any(|datastore| datastore.datastore.as_str() == *name && datastore.heartbeat)
    };
    NAMES.into_iter().filter(carries).collect()
}

#[test]
fn three_hosts_heartbeat_datastores() {
    let datastores = NAMES.map(DatastoreConfig::gluster).to_vec();
    let Some(mut c) = Cluster::up(Setup { vms: &[], datastores, ..Setup::default() }) else { return };
    // The first two by name, unless one of these was reached later than the third when the primary chose: it keeps its choice.
    let before = c.wait_for("two datastores to be chosen", || Some(chosen(&c)).filter(|two| two.len() == 2));
    let third = NAMES.into_iter().find(|name| !before.contains(name)).expect("a third one");
    let (first, second) = (before[0], before[1]);
    let after: Vec<&str> = NAMES.into_iter().filter(|name| *name != first).collect();
    c.step("VMs on the datastore that is none of the two", calm(), |c| {
        for (host, vm) in [(1, "vm1"), (2, "vm2"), (3, "vm3")] {
            let on_third = VmOptions { datastore: Some(third.into()), ..VmOptions::default() };
            c.lab.define_vm(host, vm, &on_third).expect("a VM");
        }
        c.settle(&[]);
        c.wait("the choice to stand", || chosen(c) == [first, second]);
    });
    c.step("one of the two hangs for all: a third is picked", alarms(&[Alarm::DatastoreLost(first)]), |c| {
        let running = c.running();
        c.lab.hang_datastore(first).expect("hung");
        c.wait("another one to be chosen", || chosen(c) == after);
        c.assert_untouched(&running);
        c.lab.unhang_datastore(first).expect("it goes on");
        c.settle(&[]);
        c.assert_untouched(&running);
        let now = c.wait_for("a primary's answer", || Some(chosen(c)).filter(|two| !two.is_empty()));
        assert_eq!(now, after, "what was chosen stays");
    });
    c.step("a host fails: its VM runs elsewhere", alarms(&[Alarm::Failed(1)]), |c| {
        let (before, moved) = (c.boots(), c.vms_on(1));
        assert!(moved.contains("vm1"));
        c.power_off(1);
        c.wait("its VM to run again", || c.lab.hosts_running("vm1").is_ok_and(|h| !h.is_empty() && h != [1]));
        c.lab.wait_for_beats("vm1", 2, crate::support::LONG).expect("it beats");
        c.assert_restarted_once(&before, &moved);
    });
    c.down();
}
