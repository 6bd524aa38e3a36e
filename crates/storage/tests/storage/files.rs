//! What happens to the files: layout, races at layout, removal, refusals, `inspect`.

use crate::harness::{Client, as_seen_by_others, beat, config, directory, host};
use mainstay_formats::layout::LIST_SLOT;
use mainstay_formats::{Chosen, Slot};
use mainstay_storage::{Datastore, StorageError, inspect};
use mainstay_testkit::made::protected_list;
use mainstay_words::ids::*;
use mainstay_words::register::*;
use mainstay_words::{ReadRegister, RegisterValue};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::thread;

fn list(epoch: u64, version: u64, owner: u32) -> RegisterValue {
    let empty = protected_list(Epoch(epoch), Vec::new());
    RegisterValue::ProtectedList(ProtectedList { version, owner: host(owner), ..empty })
}

#[test]
fn files_are_laid_out_with_all_their_blocks() {
    let directory = directory();
    let client = Client::start(config(directory.path(), "lab", &host(1)));
    client.write(RegisterId::Heartbeat(host(1)), beat(1)).expect("written");
    // The same thread laid out all the others before it answers this.
    assert_eq!(client.read(&RegisterId::PowerOn(host(1))), Ok(ReadRegister::Missing));
    let folder = directory.path().join(".mainstay/lab-test");
    for (name, size) in [
        ("host-1-hb", 2 * 4096),
        ("host-1-owner", 2 * 4096),
        ("host-1-poweron", 2 * 256 * 1024),
        ("protectedlist", LIST_REGIONS * 2 * LIST_SLOT as u64),
    ] {
        let metadata = fs::metadata(folder.join(name)).expect(name);
        assert_eq!(metadata.len(), size, "{name}");
        assert!(metadata.blocks() * 512 >= size, "{name} has holes");
    }
    let mut names: Vec<_> =
        fs::read_dir(&folder).expect("the folder").flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    assert_eq!(names, ["host-1-hb", "host-1-owner", "host-1-poweron", "protectedlist", "vms"]);
}

#[test]
fn hosts_that_lay_out_at_the_same_time_destroy_nothing() {
    for _ in 0..10 {
        let directory = directory();
        thread::scope(|scope| {
            for number in 1..=4u32 {
                let path = if number % 2 == 0 {
                    directory.path().to_path_buf()
                } else {
                    as_seen_by_others(directory.path())
                };
                let config = config(&path, "lab", &host(number));
                scope.spawn(move || {
                    let client = Client::start(config);
                    let epoch = u64::from(number);
                    let id = RegisterId::ProtectedList(Epoch(epoch));
                    client.write(id, list(epoch, 1, number)).expect("written");
                });
            }
        });
        let reader = Client::start(config(directory.path(), "lab", &host(9)));
        for number in 1..=4u32 {
            let epoch = u64::from(number);
            let read = reader.read(&RegisterId::ProtectedList(Epoch(epoch)));
            assert_eq!(read, Ok(ReadRegister::Value(list(epoch, 1, number))));
        }
    }
}

#[test]
fn a_removed_file_is_noticed_and_laid_out_anew() {
    let directory = directory();
    let id = RegisterId::Heartbeat(host(1));
    let writer = Client::start(config(directory.path(), "lab", &host(1)));
    let reader = Client::start(config(directory.path(), "lab", &host(2)));
    writer.write(id.clone(), beat(1)).expect("written");
    assert_eq!(reader.read(&id), Ok(ReadRegister::Value(beat(1))));
    fs::remove_dir_all(directory.path().join(".mainstay")).expect("removed");
    assert_eq!(reader.read(&id), Ok(ReadRegister::Missing));
    writer.write(id.clone(), beat(2)).expect("written");
    assert_eq!(reader.read(&id), Ok(ReadRegister::Value(beat(2))));
}

#[test]
fn a_datastore_that_is_missing_comes_back_by_itself() {
    let directory = directory();
    let (path, away) = (directory.path().join("ds"), directory.path().join("away"));
    let id = RegisterId::Heartbeat(host(1));
    let client = Client::start(config(&path, "lab", &host(1)));
    let error = client.write(id.clone(), beat(1)).expect_err("not there");
    assert!(error.contains("does not exist: create it and mount the datastore there"), "{error}");
    assert!(client.read(&id).is_err(), "a missing datastore is no missing register");
    fs::create_dir(&path).expect("created");
    client.write(id.clone(), beat(2)).expect("written");
    assert_eq!(client.read(&id), Ok(ReadRegister::Value(beat(2))));
    fs::rename(&path, &away).expect("moved");
    assert!(client.write(id.clone(), beat(3)).is_err(), "nobody would see it");
    assert!(client.read(&id).is_err());
    fs::rename(&away, &path).expect("moved back");
    client.write(id.clone(), beat(4)).expect("written");
    assert_eq!(client.read(&id), Ok(ReadRegister::Value(beat(4))));
    let counters = client.datastore.counters();
    assert!(counters.errors >= 4 && counters.writes == 2, "{counters:?}");
    assert!(counters.last_error.is_some_and(|text| text.contains("does not exist")));
}

#[test]
fn a_path_on_the_root_file_system_is_refused_unless_allowed() {
    let error = Datastore::check_path("/etc".as_ref(), false).map_err(|error| error.to_string());
    assert!(error.is_err_and(|text| text.contains("not mounted")));
    assert!(Datastore::check_path("/etc".as_ref(), true).is_ok());
    assert!(Datastore::check_path("/proc/self".as_ref(), false).is_ok(), "below a mount point");
}

#[test]
fn another_name_of_the_cluster_opens_no_second_folder() {
    let directory = directory();
    let id = RegisterId::Heartbeat(host(1));
    Client::start(config(directory.path(), "lab", &host(1))).write(id.clone(), beat(1)).expect("written");
    let mut renamed = config(directory.path(), "lab", &host(2));
    renamed.cluster_name = "new name".into();
    assert_eq!(Client::start(renamed).read(&id), Ok(ReadRegister::Value(beat(1))));
    fs::create_dir(directory.path().join(".mainstay/lab-twin")).expect("created");
    let error = Client::start(config(directory.path(), "lab", &host(2))).read(&id).expect_err("ambiguous");
    assert!(error.contains("several folders of this cluster"), "{error}");
}

#[test]
fn names_that_are_no_file_names_are_refused_at_once() {
    let directory = directory();
    for (cluster, me) in [("two-words", "host-1"), ("lab", "../host"), ("lab", "")] {
        let started = Datastore::start(config(directory.path(), cluster, &HostId::new(me)), Box::new(drop));
        assert!(matches!(started.map(drop), Err(StorageError::Encode(_))), "{cluster} {me}");
    }
}

#[test]
fn inspect_shows_everything_and_writes_nothing() {
    let directory = directory();
    assert_eq!(inspect(directory.path()).expect("readable"), []);
    let client = Client::start(config(directory.path(), "lab", &host(1)));
    client.write(RegisterId::Heartbeat(host(1)), beat(5)).expect("written");
    client.write(RegisterId::ProtectedList(Epoch(11)), list(11, 1, 1)).expect("written");
    client.datastore.store_xml(VmId([3; 16]), XmlId(9), "<domain/>".into());
    client.wait();
    let folder = directory.path().join(".mainstay/lab-test");
    fs::write(folder.join("notes.txt"), "hello").expect("written");
    let before = fs::read(folder.join("host-1-hb")).expect("read");
    let folders = inspect(directory.path()).expect("readable");
    let [found] = folders.as_slice() else { panic!("{folders:?}") };
    assert_eq!((found.cluster_id.as_str(), found.cluster_name.as_str()), ("lab", "test"));
    assert_eq!(found.xml_files, ["03030303-0303-0303-0303-030303030303-0000000000000009.xml"]);
    assert_eq!(found.strangers, ["notes.txt"]);
    let shown: Vec<_> =
        found.registers.iter().map(|report| (report.file.as_str(), &report.register)).collect();
    assert_eq!(
        shown,
        [
            ("host-1-hb", &RegisterId::Heartbeat(host(1))),
            ("host-1-owner", &RegisterId::Ownership(host(1))),
            ("host-1-poweron", &RegisterId::PowerOn(host(1))),
            ("protectedlist", &RegisterId::ProtectedList(Epoch(11))),
        ]
    );
    let sequences = found.registers[0].slots.clone().map(|slot| match slot {
        Slot::Valid { sequence, .. } => sequence,
        Slot::Empty | Slot::Unreadable { .. } => panic!("{slot:?}"),
    });
    assert_eq!(sequences, [1000, 1001], "the first write fills both");
    assert_eq!(found.registers[2].chosen, Chosen::Missing);
    assert_eq!(fs::read(folder.join("host-1-hb")).expect("read"), before);
}
