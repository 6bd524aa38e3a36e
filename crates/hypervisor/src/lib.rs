//! Virtual machines on this host, by libvirt.
