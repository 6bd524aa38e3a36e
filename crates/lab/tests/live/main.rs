//! The product as it is: real libvirt, real QEMU guests, real agents, and faults that are done to them for real.
//!
//! Each test brings up a lab and takes a cluster through several steps; a step is one fault and its undoing. What must
//! hold after *every* step is checked in one place, [`support::Cluster::step`], from outside: no guest ever found
//! another copy on its disk, no log has an ERROR line that the step does not expect, and nobody ran into QEMU's image
//! lock. Which QEMU runs where comes from the kernel, how often a guest booted from its own disk.
//!
//! Waiting is on conditions only. A bare sleep is there where "nothing must happen meanwhile" is the scenario itself.

mod agents;
mod alarm;
mod autostart;
mod bad_input;
mod calm;
mod clock;
mod disk_watch;
mod guests;
mod heartbeat_datastores;
mod hypervisor;
mod isolation;
mod leases;
mod maintenance;
mod partitions;
mod placement;
mod power;
mod power_of_five;
mod stages;
mod storage;
mod support;
mod two_hosts;
mod watch;
