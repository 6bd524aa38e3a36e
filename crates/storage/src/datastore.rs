//! The handle of a datastore, and its threads.
//!
//! Two threads per datastore: one for registers, one for domain XML. So no slow XML file delays a register. In the first one, writes go
//! before reads. Heartbeats are the guard's business: see [`crate::HeartbeatWriter`].
//!
//! Invariant: nothing here waits for a datastore except those threads. They are never joined: one that hangs in the kernel
//! is left behind when the handle is dropped.

use crate::counters::{Counters, SharedCounters};
use crate::error::StorageError;
use crate::folder::Folder;
use crate::mount;
use crate::queue::{Lane, Queue};
use crate::registers::Registers;
use crate::xml;
use mainstay_formats::{ClusterId, locate};
use mainstay_words::register::RegisterId;
use mainstay_words::{
    DatastoreName, DiskAction, DiskOutcome, Epoch, FoundRegister, HostId, Input, OpId, VmId, XmlId,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

/// The core has a handful under way.
const OPERATIONS_WAITING_MAX: usize = 64;

/// A host that sees all its VMs for the first time stores one XML for each.
const XMLS_WAITING_MAX: usize = 4096;

/// What a datastore needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatastoreConfig {
    /// The name that all hosts know it by.
    pub name: DatastoreName,
    /// Where it is mounted.
    pub path: PathBuf,
    /// The cluster's id: a UUID, or a word without dashes.
    pub cluster_id: String,
    /// The cluster's name, for the folder's name.
    pub cluster_name: String,
    /// The host that reads and writes.
    pub me: HostId,
    /// All hosts of the cluster.
    pub hosts: Vec<HostId>,
    /// Accept a path on the root file system (tests only).
    pub allow_unmounted: bool,
}

/// Something is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Completion {
    /// A register operation.
    Disk {
        /// The operation that is done.
        op: OpId,
        /// How it went.
        outcome: DiskOutcome,
    },
    /// A domain XML was stored, or not.
    XmlStored {
        /// The datastore that has the file.
        datastore: DatastoreName,
        /// The VM that the XML defines.
        vm: VmId,
        /// The version that is stored.
        xml: XmlId,
        /// The reason when it failed.
        error: Option<Arc<str>>,
    },
}

impl Completion {
    /// As the core wants it.
    pub fn into_input(self) -> Input {
        match self {
            Completion::Disk { op, outcome } => Input::DiskDone { op, outcome },
            Completion::XmlStored { datastore, vm, xml, error } => {
                Input::XmlStored { datastore, vm, xml, error }
            }
        }
    }
}

type Done = dyn Fn(Completion) + Send + Sync;

/// How a text is handed back.
pub type XmlReply = Box<dyn FnOnce(Result<String, StorageError>) + Send>;

/// A datastore in use. Clones are handles of the same one; its threads end when the last one is dropped.
#[derive(Clone)]
pub struct Datastore {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.operations.close();
        self.shared.xmls.close();
    }
}

struct Shared {
    config: Arc<DatastoreConfig>,
    cluster: ClusterId,
    counters: Arc<SharedCounters>,
    done: Box<Done>,
    operations: Queue<(OpId, DiskAction)>,
    xmls: Queue<XmlJob>,
}

enum XmlJob {
    Store { vm: VmId, xml: XmlId, text: String },
    Load { vm: VmId, xml: XmlId, reply: XmlReply },
}

impl Datastore {
    /// Checks that the path exists, is a directory and (unless `allow_unmounted`) lies below a mount point other than `/`.
    /// Waits for the storage: on a hung mount this hangs.
    pub fn check_path(path: &Path, allow_unmounted: bool) -> Result<(), StorageError> {
        mount::check_path(path, allow_unmounted)
    }

    /// Starts the threads. They open and lay out what is needed, and try again at each operation while the datastore is
    /// missing. Never waits for the storage. Fails only for names that can't be file names, and for want of threads.
    ///
    /// `done` is called from the datastore's threads, and from [`Datastore::submit`] itself when too much is waiting: it must
    /// not wait, and must not need a lock that the caller of `submit` holds.
    pub fn start(config: DatastoreConfig, done: Box<Done>) -> Result<Datastore, StorageError> {
        let cluster = ClusterId::parse(&config.cluster_id)?;
        for host in config.hosts.iter().chain([&config.me]) {
            locate(&RegisterId::Heartbeat(host.clone()))?;
        }
        let shared = Arc::new(Shared {
            config: Arc::new(config),
            cluster,
            counters: Arc::default(),
            done,
            operations: Queue::new(OPERATIONS_WAITING_MAX),
            xmls: Queue::new(XMLS_WAITING_MAX),
        });
        // Before the threads: if one can't be started, dropping the handle ends the others.
        let datastore = Datastore { handle: Arc::new(Handle { shared: shared.clone() }) };
        datastore.spawn("disk", Shared::run_operations)?;
        datastore.spawn("xml", Shared::run_xmls)?;
        Ok(datastore)
    }

    fn spawn(&self, role: &str, run: fn(&Shared)) -> Result<(), StorageError> {
        let shared = self.handle.shared.clone();
        let datastore = shared.config.name.to_string();
        thread::Builder::new()
            .name(format!("{role} {datastore}"))
            .spawn(move || run(&shared))
            .map(drop)
            .map_err(|source| StorageError::NoThread { datastore, source })
    }

    /// The configuration that it was started with.
    pub fn config(&self) -> &DatastoreConfig {
        &self.handle.shared.config
    }

    /// Has an operation carried out. Never waits. Answered exactly once by a [`Completion::Disk`], unless the last handle is dropped before.
    pub fn submit(&self, op: OpId, action: DiskAction) {
        let shared = &self.handle.shared;
        let lane = match &action {
            DiskAction::Write(..) => Lane::Urgent,
            DiskAction::Read(_) => Lane::Normal,
        };
        if let Err((_, waiting)) = shared.operations.push(lane, (op, action)) {
            shared.finish(op, Err(shared.no_answer(waiting)));
        }
    }

    /// Stores a version of a VM's domain XML. Never waits. Answered by a [`Completion::XmlStored`].
    pub fn store_xml(&self, vm: VmId, xml: XmlId, text: String) {
        let shared = &self.handle.shared;
        if let Err((_, waiting)) = shared.xmls.push(Lane::Normal, XmlJob::Store { vm, xml, text }) {
            shared.finish_xml(vm, xml, Err(shared.no_answer(waiting)));
        }
    }

    /// Reads a version of a VM's domain XML. Never waits; goes before stores.
    pub fn load_xml(&self, vm: VmId, xml: XmlId, reply: XmlReply) {
        let shared = &self.handle.shared;
        if let Err((job, waiting)) = shared.xmls.push(Lane::Urgent, XmlJob::Load { vm, xml, reply }) {
            match job {
                XmlJob::Load { reply, .. } => reply(Err(shared.no_answer(waiting))),
                XmlJob::Store { .. } => {}
            }
        }
    }

    /// What was done so far.
    pub fn counters(&self) -> Counters {
        self.handle.shared.counters.snapshot()
    }
}

impl Shared {
    fn run_operations(&self) {
        let mut registers = self.registers();
        let me = &self.config.me;
        for id in [
            RegisterId::Ownership(me.clone()),
            RegisterId::PowerOn(me.clone()),
            RegisterId::ProtectedList(Epoch(0)),
        ] {
            self.prepare(&mut registers, id);
        }
        while let Some((op, action)) = self.operations.pop() {
            self.finish(op, perform(&mut registers, action));
        }
    }

    fn run_xmls(&self) {
        while let Some(job) = self.xmls.pop() {
            match job {
                XmlJob::Store { vm, xml, text } => {
                    let stored = self
                        .folder()
                        .and_then(|folder| xml::store(&folder.path, &self.config.me, vm, xml, &text));
                    self.finish_xml(vm, xml, stored);
                }
                XmlJob::Load { vm, xml, reply } => {
                    reply(self.folder().and_then(|folder| xml::load(&folder.path, vm, xml)));
                }
            }
        }
    }

    fn registers(&self) -> Registers {
        Registers::new(self.config.clone(), self.cluster.clone(), self.counters.clone())
    }

    fn folder(&self) -> Result<Folder, StorageError> {
        let config = &self.config;
        Folder::open(&config.path, &self.cluster, &config.cluster_name, config.allow_unmounted)
    }

    /// Ahead of time; what fails here is tried again when it is needed.
    fn prepare(&self, registers: &mut Registers, id: RegisterId) {
        if let Err(error) = registers.prepare(&id) {
            self.counters.error(error.to_string());
            tracing::warn!(datastore = %self.config.name, %error, "the datastore is not ready yet");
        }
    }

    fn finish(&self, op: OpId, result: Result<DiskOutcome, StorageError>) {
        let outcome = result.unwrap_or_else(|error| {
            let text = error.to_string();
            self.counters.error(text.clone());
            DiskOutcome::Failed(text.as_str().into())
        });
        (self.done)(Completion::Disk { op, outcome });
    }

    fn finish_xml(&self, vm: VmId, xml: XmlId, result: Result<(), StorageError>) {
        let error = result.err().map(|error| error.to_string());
        if let Some(error) = &error {
            self.counters.error(error.clone());
        }
        let error = error.map(|error| error.as_str().into());
        (self.done)(Completion::XmlStored { datastore: self.config.name.clone(), vm, xml, error });
    }

    fn no_answer(&self, waiting: usize) -> StorageError {
        StorageError::NoAnswer { datastore: self.config.name.to_string(), waiting }
    }
}

fn perform(registers: &mut Registers, action: DiskAction) -> Result<DiskOutcome, StorageError> {
    match action {
        DiskAction::Write(id, value) => registers.write(&id, &value).map(|()| DiskOutcome::Written),
        DiskAction::Read(ids) => {
            let mut values = Vec::with_capacity(ids.len());
            for id in ids {
                let found = registers.read(&id)?;
                values.push(FoundRegister { id, found });
            }
            Ok(DiskOutcome::Read(values))
        }
    }
}
