//! The agent's lock, and domain XML.

use crate::harness::{Client, beat, config, directory, host};
use mainstay_core::ids::*;
use mainstay_core::register::RegisterId;
use mainstay_storage::{Completion, HostLock, StorageError, lock_host};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

#[test]
fn a_second_agent_with_the_same_id_is_refused_while_the_first_one_beats() {
    let directory = directory();
    let config = config(directory.path(), "lab", &host(1));
    let held = lock_host(&config, Duration::ZERO).expect("free");
    assert!(matches!(held, HostLock::Held(_)));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let first = Client::start(config.clone());
            let mut counter = 0;
            while !stop.load(Ordering::SeqCst) {
                counter += 1;
                first.write(RegisterId::Heartbeat(host(1)), beat(counter)).expect("written");
            }
        });
        let second = lock_host(&config, Duration::from_secs(30));
        stop.store(true, Ordering::SeqCst);
        assert!(matches!(second, Err(StorageError::AlreadyHeld { .. })), "{second:?}");
    });
    // A lock without life proves nothing.
    let second = lock_host(&config, Duration::from_millis(300)).expect("unsure");
    assert!(matches!(&second, HostLock::Unsure { why } if why.contains("stands still")), "{second:?}");
    drop(held);
    assert!(matches!(lock_host(&config, Duration::ZERO), Ok(HostLock::Held(_))));
}

#[test]
fn xml_is_stored_and_the_newest_two_versions_stay() {
    let directory = directory();
    let client = Client::start(config(directory.path(), "lab", &host(1)));
    let (vm, other) = (VmId([3; 16]), VmId([4; 16]));
    for (vm, xml) in [(other, 1), (vm, 1), (vm, 2), (vm, 3)] {
        client.datastore.store_xml(vm, XmlId(xml), format!("<domain>{xml}</domain>"));
        let stored =
            Completion::XmlStored { datastore: DatastoreName::new("ds1"), vm, xml: XmlId(xml), error: None };
        assert_eq!(client.wait(), stored);
    }
    let load = |vm, xml| {
        let (sender, receiver) = channel();
        client.datastore.load_xml(vm, XmlId(xml), Box::new(move |text| drop(sender.send(text))));
        receiver.recv().expect("an answer").map_err(|error| error.to_string())
    };
    assert_eq!(load(vm, 3), Ok("<domain>3</domain>".to_string()));
    assert_eq!(load(vm, 2), Ok("<domain>2</domain>".to_string()));
    assert_eq!(load(other, 1), Ok("<domain>1</domain>".to_string()));
    assert!(load(vm, 1).is_err_and(|error| error.contains("0000000000000001.xml")));
    assert_eq!(fs::read_dir(directory.path().join(".mainstay/lab-test/vms")).expect("listed").count(), 3);
}
