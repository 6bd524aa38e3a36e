//! The simulator's datastores and its libvirt under the same rules as the real ones.
//!
//! The world is the simulator's own, as every seed has it. Only the cores are puppets: they order what a rule wants, and keep what they are told.

mod datastore;
mod puppet;
mod vms;
