//! The datastores, as the agent uses them.
//!
//! Invariant: nothing here waits for a datastore. What is done comes back through the driver's queue, from the datastore's
//! threads.

use crate::config::AgentConfig;
use crate::driver::{Queue, Request};
use crate::outside::tell;
use crate::vms::{ImageState, VmNews};
use mainstay_core::ids::{BootId, DatastoreName, OpId, VmId, XmlId};
use mainstay_core::{DiskAction, DiskOutcome, Input};
use mainstay_storage::{
    Datastore, DatastoreConfig, HostLock, ImageLock, LockedBy, Prober, StorageError, lock_host,
};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Probes of images at a time: more than a host starts at once; those that hang on a hung mount count too.
const PROBES_MAX: usize = 32;

/// The datastores in use.
pub struct Disks {
    datastores: BTreeMap<DatastoreName, Datastore>,
    prober: Prober,
}

/// What each datastore needs to know.
pub fn configs(config: &AgentConfig) -> Vec<DatastoreConfig> {
    let of = |datastore: &crate::config::DatastoreConfig| DatastoreConfig {
        name: datastore.name.clone(),
        path: datastore.path.clone(),
        cluster_id: config.cluster_id.clone(),
        cluster_name: config.cluster_name.clone(),
        me: config.me.id.clone(),
        hosts: config.members().map(|member| member.id.clone()).collect(),
        allow_unmounted: datastore.allow_unmounted,
    };
    config.datastores.iter().map(of).collect()
}

impl Disks {
    /// Starts their threads.
    pub fn start(configs: Vec<DatastoreConfig>, queue: &Queue<VmNews>) -> Result<Disks, StorageError> {
        let mut datastores = BTreeMap::new();
        for config in configs {
            let (name, queue) = (config.name.clone(), queue.clone());
            let done = move |completion: mainstay_storage::Completion| {
                tell(&queue, Request::Input(completion.into_input()));
            };
            datastores.insert(name, Datastore::start(config, Box::new(done))?);
        }
        Ok(Disks { datastores, prober: Prober::new(PROBES_MAX) })
    }

    /// Reads or writes registers.
    pub fn submit(&self, op: OpId, datastore: &DatastoreName, action: DiskAction, inputs: &mut Vec<Input>) {
        match self.datastores.get(datastore) {
            Some(datastore) => datastore.submit(op, action),
            None => {
                inputs.push(Input::DiskDone { op, outcome: DiskOutcome::Failed(unknown(datastore).into()) })
            }
        }
    }

    /// Puts a version of a domain's XML on the datastore.
    pub fn store_xml(
        &self,
        datastore: DatastoreName,
        vm: VmId,
        xml: XmlId,
        text: &str,
        inputs: &mut Vec<Input>,
    ) {
        match self.datastores.get(&datastore) {
            Some(datastore) => datastore.store_xml(vm, xml, text.to_owned()),
            None => {
                let error = Some(unknown(&datastore).into());
                inputs.push(Input::XmlStored { datastore, vm, xml, error });
            }
        }
    }

    /// Reads a version of a domain's XML.
    pub fn load_xml(
        &self,
        datastore: &DatastoreName,
        vm: VmId,
        xml: XmlId,
        done: Box<dyn FnOnce(Result<String, String>) + Send>,
    ) {
        match self.datastores.get(datastore) {
            Some(datastore) => {
                datastore.load_xml(
                    vm,
                    xml,
                    Box::new(|result| done(result.map_err(|error| error.to_string()))),
                );
            }
            None => done(Err(unknown(datastore))),
        }
    }

    /// Looks whether anybody holds one of these images.
    pub fn probe(&self, images: Vec<PathBuf>, done: Box<dyn FnOnce(Result<ImageState, String>) + Send>) {
        let judge = |probe: mainstay_storage::Probe| match probe.obstacle() {
            Some((path, ImageLock::Held { by })) => Ok(ImageState::Held(format!("{}: {by}", path.display()))),
            Some((_, ImageLock::Failed { why })) => Err(why.clone()),
            // Where locks say nothing, QEMU itself is the last to ask.
            Some((_, ImageLock::Unsupported { .. } | ImageLock::Free)) | None => Ok(ImageState::Free),
        };
        self.prober.probe(images, Box::new(move |probe| done(judge(probe))));
    }

    /// Adds the counters of each datastore.
    pub fn count(&self, counters: &mut BTreeMap<String, u64>) {
        for (name, datastore) in &self.datastores {
            let counted = datastore.counters();
            for (what, value) in [
                ("reads", counted.reads),
                ("writes", counted.writes),
                ("bytes_read", counted.bytes_read),
                ("bytes_written", counted.bytes_written),
                ("errors", counted.errors),
                ("unreadable", counted.unreadable),
                ("slot_fallbacks", counted.slot_fallbacks),
                ("second_looks", counted.second_looks),
                ("without_direct_io", u64::from(counted.without_direct_io)),
            ] {
                counters.insert(format!("datastore.{name}.{what}"), value);
            }
        }
    }
}

fn unknown(datastore: &DatastoreName) -> String {
    format!("datastore {datastore} is not in this host's configuration: add it")
}

/// This host's locks on its datastores, which keep a second agent with the same host id from starting elsewhere.
#[derive(Debug, Default)]
pub struct HostLocks {
    held: Arc<Mutex<Vec<HostLock>>>,
}

impl HostLocks {
    /// Takes the lock on each datastore, at the same time. Refuses when another agent shows life under this host's id. A
    /// datastore that does not answer is no reason not to start: its lock is taken when it answers.
    pub async fn take(
        configs: &[DatastoreConfig],
        boot: BootId,
        heartbeat: Duration,
    ) -> Result<HostLocks, StorageError> {
        let watch = heartbeat * 3;
        let locks = HostLocks::default();
        let (report, mut reports) = tokio::sync::mpsc::unbounded_channel();
        for config in configs {
            let (config, held, report) = (config.clone(), Arc::clone(&locks.held), report.clone());
            let name = config.name.to_string();
            let take = move || {
                let taken = lock_host(&config, LockedBy::Agent, boot, watch)
                    .map(|lock| keep(&held, &config.name, lock));
                if let Err(unread) = report.send(taken)
                    && let Err(error) = unread.0
                {
                    tracing::error!(datastore = %config.name, %error, "this host's lock could not be taken, though the agent runs");
                }
            };
            std::thread::Builder::new()
                .name("host-lock".into())
                .spawn(take)
                .map_err(|source| StorageError::NoThread { datastore: name, source })?;
        }
        drop(report);
        let deadline = tokio::time::Instant::now() + watch + Duration::from_secs(1);
        while let Ok(Some(taken)) = tokio::time::timeout_at(deadline, reports.recv()).await {
            match taken {
                Ok(()) => {}
                Err(error @ StorageError::AlreadyHeld { .. }) => return Err(error),
                // The datastore's own threads will say what is wrong, and go on trying.
                Err(error) => tracing::debug!(%error, "no lock for this host on a datastore"),
            }
        }
        Ok(locks)
    }
}

fn keep(held: &Mutex<Vec<HostLock>>, datastore: &DatastoreName, lock: HostLock) {
    if let HostLock::Unsure { why } = &lock {
        tracing::info!(%datastore, why, "starting without this host's lock");
    }
    held.lock().unwrap_or_else(PoisonError::into_inner).push(lock);
}
