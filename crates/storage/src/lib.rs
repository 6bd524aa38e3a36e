//! Datastores on real files: registers read and written with O_DIRECT, domain XML, image lock probes.
//!
//! | module | what |
//! | --- | --- |
//! | [`datastore`] | the handle that the agent uses; three threads per datastore |
//! | [`image_lock`] | does some QEMU, anywhere, hold this disk image? |
//! | [`heartbeat`] | a host's heartbeat register, written by its guard on a thread of the guard's own |
//! | [`host_lock`] | does another agent or guard run under this host's id? |
//! | [`mod@inspect`] | a read-only walk over a datastore, for people |
//!
//! What every datastore must do, this one and each model of it, is in `mainstay-contracts`.
//!
//! Architecture invariant: no async, no libvirt. A hung mount hangs the threads of its own datastore and nothing else;
//! those threads are never joined, so the process can end without them.

mod aligned;
mod counters;
pub mod datastore;
mod error;
mod folder;
pub mod heartbeat;
pub mod host_lock;
pub mod image_lock;
pub mod inspect;
mod mount;
mod queue;
mod register_file;
mod registers;
mod xml;

pub use counters::Counters;
pub use datastore::{Completion, Datastore, DatastoreConfig};
pub use error::StorageError;
pub use heartbeat::HeartbeatWriter;
pub use host_lock::{HostLock, LockedBy, lock_host};
pub use image_lock::{ImageLock, Probe, Prober};
pub use inspect::{ClusterFolder, RegisterReport, inspect};
