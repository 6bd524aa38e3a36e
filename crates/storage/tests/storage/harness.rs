//! A datastore on a directory of its own, with calls that wait for their answer.

use mainstay_storage::{Completion, Datastore, DatastoreConfig};
use mainstay_testkit::PATIENCE;
pub use mainstay_testkit::made::{heartbeat, host};
use mainstay_words::ids::*;
use mainstay_words::register::*;
use mainstay_words::{DiskAction, DiskOutcome, FoundRegister, ReadRegister, RegisterValue};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use tempfile::TempDir;

pub struct Client {
    pub datastore: Datastore,
    answers: Receiver<Completion>,
}

/// To run these tests on another file system: a directory on it.
const DIRECTORY: &str = "MAINSTAY_TEST_DIRECTORY";

/// The same file system mounted once more, as another host would see it.
const SECOND_MOUNT: &str = "MAINSTAY_TEST_SECOND_MOUNT";

/// A directory where O_DIRECT works as a rule (not a tmpfs).
pub fn directory() -> TempDir {
    let parent = std::env::var_os(DIRECTORY).map_or(env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
    TempDir::new_in(parent).expect("a directory for the test")
}

/// The path by which another host sees that directory.
pub fn as_seen_by_others(directory: &Path) -> PathBuf {
    match (std::env::var_os(SECOND_MOUNT), directory.file_name()) {
        (Some(mount), Some(name)) => Path::new(&mount).join(name),
        (None, _) | (_, None) => directory.to_path_buf(),
    }
}

pub fn config(path: &Path, cluster: &str, me: &HostId) -> DatastoreConfig {
    DatastoreConfig {
        name: DatastoreName::new("ds1"),
        path: path.to_path_buf(),
        cluster_id: cluster.to_string(),
        cluster_name: "test".to_string(),
        me: me.clone(),
        hosts: vec![host(1), host(2)],
        allow_unmounted: true,
    }
}

pub fn beat(counter: u64) -> RegisterValue {
    RegisterValue::Heartbeat(heartbeat(counter))
}

impl Client {
    pub fn start(config: DatastoreConfig) -> Client {
        let (sender, answers) = channel();
        let done = move |completion| drop(sender.send(completion));
        Client { datastore: Datastore::start(config, Box::new(done)).expect("threads"), answers }
    }

    pub fn wait(&self) -> Completion {
        self.answers.recv_timeout(PATIENCE).expect("an answer")
    }

    fn run(&self, action: DiskAction) -> DiskOutcome {
        self.datastore.submit(OpId(7), action);
        match self.wait() {
            Completion::Disk { op: OpId(7), outcome } => outcome,
            other => panic!("{other:?} in answer to a disk operation"),
        }
    }

    pub fn write(&self, id: RegisterId, value: RegisterValue) -> Result<(), String> {
        match self.run(DiskAction::Write(id, value)) {
            DiskOutcome::Written => Ok(()),
            DiskOutcome::Failed(why) => Err(why.to_string()),
            DiskOutcome::Read(read) => panic!("{read:?} in answer to a write"),
        }
    }

    pub fn read_all(&self, ids: &[RegisterId]) -> Result<Vec<FoundRegister>, String> {
        match self.run(DiskAction::Read(ids.to_vec())) {
            DiskOutcome::Read(values) => Ok(values),
            DiskOutcome::Failed(why) => Err(why.to_string()),
            DiskOutcome::Written => panic!("`Written` in answer to a read"),
        }
    }

    pub fn read(&self, id: &RegisterId) -> Result<ReadRegister, String> {
        Ok(self.read_all(std::slice::from_ref(id))?.remove(0).found)
    }
}
