//! The agent of a host: runs the core on real clocks, sockets, datastores and libvirt.
pub mod config;
pub mod net;
pub mod ping;
