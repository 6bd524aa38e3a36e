//! Datastores that hang, fill up and go missing.

use super::{LONG, assert_stands_still, lab};
use mainstay_lab::{DatastoreConfig, Lab, LabConfig, LabError, PowerOn, VmOptions};

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
