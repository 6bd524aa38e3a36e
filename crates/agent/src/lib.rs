//! The agent of a host: runs the core on real clocks, sockets, datastores and libvirt.
