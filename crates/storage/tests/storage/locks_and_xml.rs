//! The agent's lock, and domain XML.

use crate::harness::{Client, beat, config, directory, heartbeat, host};
use mainstay_storage::{Completion, HeartbeatWriter, HostLock, LockedBy, StorageError, lock_host};
use mainstay_words::ids::*;
use mainstay_words::register::{HeartbeatRegister, RegisterId};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

/// The boot in which [`beat`]s are.
const THEIRS: BootId = BootId([1; 16]);

const OURS: BootId = BootId([2; 16]);

#[test]
fn a_second_agent_with_the_same_id_is_refused_while_the_first_one_beats() {
    let directory = directory();
    let config = config(directory.path(), "lab", &host(1));
    let lock = |boot, watch| lock_host(&config, LockedBy::Agent, boot, watch);
    let held = lock(OURS, Duration::ZERO).expect("free");
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
        let second = lock(OURS, Duration::from_secs(30));
        // Its own guard beats, and no agent is connected: a lock that a former agent's hung write still holds.
        let own = lock(THEIRS, Duration::from_millis(300));
        stop.store(true, Ordering::SeqCst);
        assert!(matches!(second, Err(StorageError::AlreadyHeld { .. })), "{second:?}");
        assert!(matches!(own, Ok(HostLock::Unsure { .. })), "{own:?}");
    });
    // A lock without life proves nothing.
    let second = lock(OURS, Duration::from_millis(300)).expect("unsure");
    assert!(matches!(&second, HostLock::Unsure { why } if why.contains("stands still")), "{second:?}");
    drop(held);
    assert!(matches!(lock(OURS, Duration::ZERO), Ok(HostLock::Held(_))));
}

#[test]
fn an_agent_is_refused_where_a_guard_of_another_boot_beats_and_not_by_its_own() {
    let directory = directory();
    let config = config(directory.path(), "lab", &host(1));
    let stop = AtomicBool::new(false);
    let (told, beats) = channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut guard = HeartbeatWriter::new(config.clone(), THEIRS, Duration::ZERO).expect("good names");
            let mut register = heartbeat(1);
            // An agent of theirs is connected; it has no lock on this datastore.
            register.agent = Some(Incarnation(7));
            while !stop.load(Ordering::SeqCst) {
                register.counter += 1;
                guard.write(&register).expect("written");
                let _ = told.send(());
            }
        });
        beats.recv().expect("it beats");
        let patience = Duration::from_secs(30);
        let stranger = lock_host(&config, LockedBy::Agent, OURS, patience);
        let strange_guard = HeartbeatWriter::new(config.clone(), OURS, patience)
            .and_then(|mut guard| guard.write(&HeartbeatRegister { boot: OURS, ..heartbeat(1) }));
        let own = lock_host(&config, LockedBy::Agent, THEIRS, patience);
        stop.store(true, Ordering::SeqCst);
        assert!(matches!(stranger, Err(StorageError::AlreadyHeld { .. })), "{stranger:?}");
        assert!(matches!(strange_guard, Err(StorageError::AlreadyHeld { .. })), "{strange_guard:?}");
        assert!(matches!(own, Ok(HostLock::Held(_))), "{own:?}");
    });
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
