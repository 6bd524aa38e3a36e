//! Faults of the datastores, each with its undo. (Cutting a host off from one is [`Host::cut`] with the storage network.)

use nix::sys::signal::Signal;

use crate::datastore;
use crate::error::{LabError, Result};
use crate::host::Host;
use crate::lab::Lab;
use crate::process;

impl Lab {
    /// A datastore's server stops answering, for all hosts.
    pub fn hang_datastore(&self, name: &str) -> Result<()> {
        datastore::require_gluster(self.config.datastore(name)?, "hang")?;
        datastore::server_cgroup(&self.config, name)?.set_frozen(true)
    }

    /// It answers again.
    pub fn unhang_datastore(&self, name: &str) -> Result<()> {
        datastore::require_gluster(self.config.datastore(name)?, "hang")?;
        datastore::server_cgroup(&self.config, name)?.set_frozen(false)
    }

    /// Kills a datastore's server.
    pub fn kill_datastore(&self, name: &str) -> Result<()> {
        datastore::require_gluster(self.config.datastore(name)?, "lose its server")?;
        datastore::server_cgroup(&self.config, name)?.kill()
    }

    /// Starts it again; hosts reconnect by themselves within a few seconds.
    pub fn start_datastore(&self, name: &str) -> Result<()> {
        datastore::require_gluster(self.config.datastore(name)?, "lose its server")?;
        datastore::start_server(&self.config, name)
    }

    /// Takes all space of a datastore that has a size of its own (`DatastoreConfig::sized`).
    pub fn fill_datastore(&self, name: &str) -> Result<()> {
        datastore::fill(&self.config, self.config.datastore(name)?)
    }

    /// Gives the space back.
    pub fn drain_datastore(&self, name: &str) -> Result<()> {
        datastore::drain(&self.config, name)
    }
}

impl Host<'_> {
    fn signal_client(&self, name: &str, signal: Signal) -> Result<()> {
        let config = &self.lab.config;
        datastore::require_gluster(config.datastore(name)?, "hang")?;
        let volume = datastore::client_file(config, name).display().to_string();
        let is_client = |pid| {
            let line = process::command_line(pid);
            line.contains("glusterfs") && line.split(' ').any(|w| w == volume)
        };
        if self.signal_matching(signal, is_client)? > 0 {
            return Ok(());
        }
        let log = self.dir().join(format!("gluster-{name}.log"));
        Err(LabError::NotRunning {
            daemon: format!("the client of datastore {name}"),
            host: self.number,
            log,
        })
    }

    /// A datastore hangs for this host only: whoever touches it waits, unkillably. Locks stay held, since the client
    /// keeps its connection. Undo it before anything else that touches the datastore, or power the host off.
    pub fn hang_datastore(&self, name: &str) -> Result<()> {
        self.signal_client(name, Signal::SIGSTOP)
    }

    /// It goes on.
    pub fn unhang_datastore(&self, name: &str) -> Result<()> {
        self.signal_client(name, Signal::SIGCONT)
    }
}
