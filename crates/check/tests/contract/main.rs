//! The model check's registers and its libvirt under the same rules as the real ones.

mod datastore;
mod vms;
