//! The agent of a host: runs the core on real clocks, sockets, datastores and libvirt.
//!
//! | module | what |
//! | --- | --- |
//! | [`config`] | the configuration file, checked |
//! | [`agent`] | what is started in which order, and how it stops; [`run`] is the whole process |
//! | [`driver`] | owns the core: inputs in, effects out |
//! | [`outside`] | gives each effect to the adapter whose matter it is |
//! | [`disk`], [`vms`], [`wire`], [`ping`] | the adapters: datastores, libvirt, messages, pings |
//! | [`guard_link`] | the guard: its start, and the connection to it |
//! | [`journal`], [`alarms`] | events, and the alarms that stand |
//! | [`api`] | what people ask |
//! | [`remembered`], [`first_minutes`] | protected VMs, known beyond a boot; what that is for |
//! | [`lock`], [`clock`] | one agent per host; the two clocks |
//!
//! Architecture invariant: this is the only crate that starts an event loop (the transport's tasks run on it). One thread runs it,
//! and never waits for a datastore, for libvirt or for another host.

pub mod agent;
pub mod alarms;
pub mod api;
pub mod clock;
pub mod config;
pub mod disk;
pub mod driver;
pub mod first_minutes;
mod gateway;
pub mod guard_link;
pub mod journal;
pub mod lock;
pub mod outside;
pub mod ping;
mod process;
pub mod remembered;
pub mod vms;
pub mod wire;

pub use agent::StartError;
pub use process::run;
