//! The guard of a host, as a process: it renews run leases by writing datastore heartbeats and freezes VMs when a lease ends,
//! whatever the agent does meanwhile.
//!
//! | module | what |
//! | --- | --- |
//! | [`settings`], [`error`] | what the agent tells it at its start; what can go wrong |
//! | [`service`] | the loop that runs [`mainstay_guard_core::Guard`] |
//! | [`vms`], [`observer`], [`scanner`] | the watched VMs' processes: what is asked of them, what they do, how they are found |
//! | [`freezer`], [`qemu`] | stopping a process, and naming one without fear of mistaking it for another |
//! | [`beats`] | one thread per datastore, which writes the heartbeat |
//! | [`link`], [`socket`] | the words between agent and guard, and the socket that they travel on |
//! | [`kept`], [`lock`] | what the next run of the guard finds; one guard per host |
//! | [`watchdog`], [`realtime`], [`log`], [`clock`] | `/dev/watchdog`, priority and memory, log lines, the clock |
//!
//! Architecture invariants: no libvirt, no event loop, no async. The thread that keeps deadlines ([`service`]) never waits for a
//! datastore, for the agent, for a process, for a disk or for the reader of its log.

pub mod beats;
pub mod clock;
pub mod error;
pub mod freezer;
pub mod kept;
pub mod link;
pub mod lock;
pub mod log;
pub mod observer;
pub mod qemu;
pub mod realtime;
pub mod scanner;
pub mod service;
pub mod settings;
pub mod socket;
pub mod vms;
pub mod watchdog;

pub use error::GuardError;
pub use link::{FromGuard, ToGuard};
pub use service::{Service, Stopper};
pub use settings::{DatastoreSettings, LogSettings, Settings};
