//! What a core is told at its start and never changes.

use crate::ids::{BootId, DatastoreName, HostId, Incarnation};
use crate::time::Span;
use crate::timing::Timing;
use crate::vm::IsolationResponse;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// The configuration of a core.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Config {
    /// The host that this core runs on.
    pub me: HostId,
    /// The other hosts of the cluster.
    pub peers: Vec<HostId>,
    /// The cluster's datastores; this host's heartbeats go to each of them.
    pub datastores: Vec<DatastoreName>,
    /// Heartbeat, lease and failure time-out: the same on all hosts.
    pub timing: Timing,
    /// This boot of the host.
    pub boot: BootId,
    /// This run of the agent: drawn by the shell, different at each start.
    pub incarnation: Incarnation,
    /// How many VMs this host starts at once.
    pub concurrent_starts: u32,
    /// What is pinged before this host believes that it is isolated: how many there are, and what to call each. None:
    /// it never believes that.
    pub isolation_addresses: Vec<Arc<str>>,
    /// How long there must have been no answer of any kind before this host believes that it is isolated; `None`: as its times say
    /// ([`Timing::isolation_timeout`]).
    #[serde(default)]
    pub isolation_timeout: Option<Span>,
    /// What is done with a VM of an isolated host, unless the VM says otherwise.
    pub isolation_response: IsolationResponse,
    /// How long a guest may take to shut down before it is powered off, unless the VM says otherwise.
    pub shutdown_timeout: Span,
    /// Which datastores carry the heartbeats by which hosts are judged.
    #[serde(default)]
    pub heartbeat_datastores: HeartbeatChoice,
    /// Whether a primary keeps a plan for each host's failure at hand.
    #[serde(default = "yes")]
    pub rehearse: bool,
}

fn yes() -> bool {
    true
}

/// How heartbeat datastores are chosen.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HeartbeatChoice {
    /// How many: 2 to 5.
    pub count: u32,
    /// The user's choice, before any other.
    pub wanted: Vec<DatastoreName>,
}

impl Default for HeartbeatChoice {
    fn default() -> Self {
        HeartbeatChoice { count: 2, wanted: Vec::new() }
    }
}

impl Config {
    /// Refuses what can't work; the text says what to do.
    pub fn check(&self) -> Result<(), String> {
        self.timing.check()?;
        let mut ids: Vec<&HostId> = self.peers.iter().chain([&self.me]).collect();
        ids.sort();
        if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(alloc::format!(
                "host id {} is used twice: each host needs an id of its own",
                pair[0]
            ));
        }
        if self.datastores.is_empty() {
            return Err(String::from("no datastore is configured: name at least one that the hosts share"));
        }
        let choice = &self.heartbeat_datastores;
        if !(2..=5).contains(&choice.count) {
            return Err(alloc::format!(
                "{} heartbeat datastores are asked for: it must be 2 to 5",
                choice.count
            ));
        }
        if let Some(name) = choice.wanted.iter().find(|name| !self.datastores.contains(name)) {
            return Err(alloc::format!("heartbeat datastore {name} is none of the cluster's datastores"));
        }
        if self.concurrent_starts == 0 {
            return Err(String::from("concurrent_starts must be at least 1"));
        }
        Ok(())
    }
}
