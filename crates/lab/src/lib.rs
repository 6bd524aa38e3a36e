//! Several libvirt hosts on one machine: for the demo and the live tests.
