//! Two of three datastores carry the heartbeats by which hosts are judged.

use mainstay_lab::{DatastoreConfig, VmOptions};

use crate::support::{Alarm, Cluster, Setup, alarms, calm};

/// The heartbeat datastores, as the answering host knows them.
fn chosen(c: &Cluster) -> Vec<String> {
    let Some(status) = c.status() else { return Vec::new() };
    let carries = status.view.datastores.iter().filter(|datastore| datastore.heartbeat);
    carries.map(|datastore| datastore.datastore.to_string()).collect()
}

#[test]
fn three_hosts_heartbeat_datastores() {
    let datastores = ["ds1", "ds2", "ds3"].map(DatastoreConfig::gluster).to_vec();
    let Some(mut c) = Cluster::up(Setup { vms: &[], datastores, ..Setup::default() }) else { return };
    c.step("VMs on the datastore that is none of the two", calm(), |c| {
        for (host, vm) in [(1, "vm1"), (2, "vm2"), (3, "vm3")] {
            let on_ds3 = VmOptions { datastore: Some("ds3".into()), ..VmOptions::default() };
            c.lab.define_vm(host, vm, &on_ds3).expect("a VM");
        }
        c.settle(&[]);
        c.wait("two datastores to be chosen", || chosen(c) == ["ds1", "ds2"]);
    });
    c.step("one of the two hangs for all: a third is picked", alarms(&[Alarm::DatastoreLost("ds1")]), |c| {
        let before = c.running();
        c.lab.hang_datastore("ds1").expect("hung");
        c.wait("another one to be chosen", || chosen(c) == ["ds2", "ds3"]);
        c.assert_untouched(&before);
        c.lab.unhang_datastore("ds1").expect("it goes on");
        c.settle(&[]);
        c.assert_untouched(&before);
        assert_eq!(chosen(c), ["ds2", "ds3"], "what was chosen stays");
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
