//! Several libvirt hosts on one machine: for the demo and the live tests.
//!
//! A *host* is a set of namespaces (network, mount, process, name, IPC, cgroup) with a cgroup of its own, in which a real
//! libvirtd runs real QEMU processes. Hosts are connected by two networks and share datastores. Everything that can
//! break is broken the way it breaks in reality: power loss sends no goodbye, a pulled cable is silent, a hung storage
//! server answers nobody.
//!
//! What the lab sees, it sees from outside: which QEMU runs where comes from the hosts' cgroups, not from libvirt, and
//! how a guest fares comes from the record that it keeps on its disk. So the lab can judge what libvirt or an agent
//! under test says.
//!
//! It does not simulate: time is real, and so is every process. It needs root, and only one lab fits on a machine.
//!
//! Invariant: nothing is touched that the lab didn't make itself. What it makes bears its name, and processes are
//! signalled only if they are in a cgroup of the lab.
//!
//! ```no_run
//! use mainstay_lab::{Lab, LabConfig, VmOptions};
//! use std::time::Duration;
//!
//! let lab = Lab::new(LabConfig { hosts: 3, ..LabConfig::default() })?;
//! lab.define_vm(1, "vm1", &VmOptions::default())?;
//! lab.wait_for_beats("vm1", 3, Duration::from_secs(10))?;
//! lab.host(1)?.power_off()?;
//! assert!(lab.hosts_running("vm1")?.is_empty());
//! # Ok::<(), mainstay_lab::LabError>(())
//! ```

mod agent;
mod cgroup;
mod cleanup;
mod clock;
mod config;
mod datastore;
mod dump;
mod error;
mod exec;
mod faults;
mod guard;
mod guest;
mod host;
mod host_files;
mod lab;
mod libvirtd;
mod network;
mod preflight;
mod process;
mod state;
mod storage_faults;
mod time_limit;
mod vm;

pub use config::{DEFAULT_BASE, DatastoreConfig, DatastoreKind, LabConfig, Net};
pub use error::{LabError, Result};
pub use exec::Output;
pub use guest::{GuestAgent, GuestCommand, GuestKind, GuestRecord};
pub use host::{Host, PowerOn};
pub use lab::Lab;
pub use preflight::Missing;
pub use state::{Cut, Direction, HostState, LinkFaults, NetFaults, Split, State, VmState};
pub use vm::{Runner, SplitReport, VmOptions};
