//! A datastore operation that never ends: nothing else waits for it.

use crate::harness::{Client, config, directory, heartbeat, host};
use mainstay_storage::{Completion, HeartbeatWriter};
use mainstay_words::ids::*;
use mainstay_words::register::RegisterId;
use mainstay_words::{DiskAction, DiskOutcome};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::fs::OpenOptions;
use std::time::Duration;

#[test]
fn a_hanging_read_delays_neither_heartbeats_nor_xml_nor_the_end() {
    let directory = directory();
    let client = Client::start(config(directory.path(), "lab", &host(1)));
    let settings = config(directory.path(), "lab", &host(1));
    let mut guard = HeartbeatWriter::new(settings, BootId([1; 16]), Duration::ZERO).expect("good names");
    guard.write(&heartbeat(1)).expect("written");
    // Opening a pipe that nobody writes to waits forever, as an operation on a hung mount does.
    let pipe = directory.path().join(".mainstay/lab-test/host-2-poweron");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("a pipe");
    let hanging = DiskAction::Read(vec![RegisterId::PowerOn(host(2))]);
    client.datastore.submit(OpId(100), hanging.clone());

    for counter in 2..50 {
        guard.write(&heartbeat(counter)).expect("written");
    }
    client.datastore.store_xml(VmId([3; 16]), XmlId(1), "<domain/>".into());
    assert!(matches!(client.wait(), Completion::XmlStored { error: None, .. }));

    // What waits is bounded; what is too much is refused at once, with the reason.
    for op in 101..300 {
        client.datastore.submit(OpId(op), hanging.clone());
    }
    let Completion::Disk { op, outcome: DiskOutcome::Failed(why) } = client.wait() else {
        panic!("an operation was done on a hung datastore");
    };
    assert!(op >= OpId(164), "{op:?} had room");
    assert!(
        why.contains("does not answer: 64 operations wait already; check its storage connection"),
        "{why}"
    );

    // Returns although a thread hangs. Then let that thread go.
    drop(client);
    drop(OpenOptions::new().write(true).open(&pipe).expect("the hanging thread reads"));
}
