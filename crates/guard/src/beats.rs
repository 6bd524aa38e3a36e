//! Writes this host's heartbeat, with one thread per datastore: one that hangs blocks nothing but itself.

use crate::service::{Message, STACK};
use crate::settings::Settings;
use mainstay_guard_core::GuardInput;
use mainstay_storage::{DatastoreConfig, HeartbeatWriter, StorageError};
use mainstay_words::ids::{BootId, DatastoreName, OpId};
use mainstay_words::register::HeartbeatRegister;
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// Heartbeats for which somebody else is watched who uses this host's id.
const WATCH_HEARTBEATS: u64 = 3;

type Beat = (OpId, HeartbeatRegister);

/// The threads. They end when this is dropped, except those that hang: they are left behind.
pub struct Beats {
    threads: BTreeMap<DatastoreName, Sender<Beat>>,
}

impl Beats {
    /// Starts them. Touches no datastore itself.
    pub fn start(settings: &Settings, boot: BootId, news: &Sender<Message>) -> Result<Beats, StorageError> {
        let watch = Duration::from_micros(settings.timing.heartbeat.scaled(WATCH_HEARTBEATS, 1).0);
        let mut threads = BTreeMap::new();
        for datastore in &settings.datastores {
            let config = DatastoreConfig {
                name: datastore.name.clone(),
                path: datastore.path.clone(),
                cluster_id: settings.cluster_id.clone(),
                cluster_name: settings.cluster_name.clone(),
                me: settings.host.clone(),
                hosts: vec![settings.host.clone()],
                allow_unmounted: datastore.allow_unmounted,
            };
            let writer = HeartbeatWriter::new(config, boot, watch)?;
            let (beats, receiver) = channel();
            let (name, news) = (datastore.name.clone(), news.clone());
            std::thread::Builder::new()
                .name(format!("beat {name}"))
                .stack_size(STACK)
                .spawn(move || run(&name, writer, &receiver, &news))
                .map_err(|source| StorageError::NoThread { datastore: datastore.name.to_string(), source })?;
            threads.insert(datastore.name.clone(), beats);
        }
        Ok(Beats { threads })
    }

    /// Has it written. Answered by `Written` once, however late.
    pub fn write(&self, op: OpId, datastore: &DatastoreName, register: HeartbeatRegister) {
        // The guard has only the datastores of its settings, and a thread ends with this handle only.
        if let Some(thread) = self.threads.get(datastore) {
            let _ = thread.send((op, register));
        }
    }
}

fn run(name: &DatastoreName, mut writer: HeartbeatWriter, beats: &Receiver<Beat>, news: &Sender<Message>) {
    let mut well = true;
    while let Ok((op, register)) = beats.recv() {
        let error = writer.write(&register).err();
        match &error {
            Some(error) if well => {
                tracing::warn!(datastore = %name, %error, "no heartbeat can be written: this path of the lease is gone");
            }
            None if !well => tracing::info!(datastore = %name, "heartbeats are written again"),
            Some(_) | None => {}
        }
        well = error.is_none();
        let error = error.map(|error| error.to_string().into());
        if news.send(Message::Input(GuardInput::Written { op, error })).is_err() {
            return;
        }
    }
}
