//! The agent of a host: runs the core on real clocks, sockets, datastores and libvirt.
pub mod alarms;
pub mod api;
pub mod client;
pub mod clock;
pub mod config;
pub mod driver;
pub mod journal;
pub mod lock;
pub mod net;
pub mod ping;
pub mod vms;
pub mod wire;
