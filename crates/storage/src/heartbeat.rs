//! The heartbeat register of this host, for the guard: one register, no threads, no queue.
//!
//! Everything here waits for the storage: one thread per datastore, which may hang.

use crate::counters::SharedCounters;
use crate::datastore::DatastoreConfig;
use crate::error::StorageError;
use crate::host_lock::{HostLock, LockedBy, lock_host};
use crate::registers::Registers;
use mainstay_formats::ClusterId;
use mainstay_words::RegisterValue;
use mainstay_words::ids::BootId;
use mainstay_words::register::{HeartbeatRegister, RegisterId};
use std::sync::Arc;
use std::time::Duration;

/// Writes this host's heartbeat on one datastore.
pub struct HeartbeatWriter {
    config: Arc<DatastoreConfig>,
    boot: BootId,
    watch: Duration,
    registers: Registers,
    lock: Option<HostLock>,
}

impl HeartbeatWriter {
    /// Does not touch the datastore yet. `watch` as in [`lock_host`].
    pub fn new(
        config: DatastoreConfig,
        boot: BootId,
        watch: Duration,
    ) -> Result<HeartbeatWriter, StorageError> {
        let cluster = ClusterId::parse(&config.cluster_id)?;
        let config = Arc::new(config);
        let counters = Arc::<SharedCounters>::default();
        let registers = Registers::new(Arc::clone(&config), cluster, counters);
        Ok(HeartbeatWriter { config, boot, watch, registers, lock: None })
    }

    /// Writes the register. On disk, and visible to others, when this returns. The first one takes the guard's lock on this
    /// datastore, and refuses when a guard of another host uses this host's id.
    pub fn write(&mut self, register: &HeartbeatRegister) -> Result<(), StorageError> {
        if self.lock.is_none() {
            let lock = lock_host(&self.config, LockedBy::Guard, self.boot, self.watch)?;
            if let HostLock::Unsure { why } = &lock {
                tracing::info!(datastore = %self.config.name, why, "beating without this guard's lock");
            }
            self.lock = Some(lock);
        }
        let id = RegisterId::Heartbeat(self.config.me.clone());
        self.registers.write(&id, &RegisterValue::Heartbeat(register.clone()))
    }
}
