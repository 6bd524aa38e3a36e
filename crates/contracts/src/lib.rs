//! What the world does for a core, as rules. The real adapters are run through them, and so is each model of them. That is what makes
//! results of a simulation mean something.
//!
//! | module | what | run by the tests of |
//! | --- | --- | --- |
//! | [`datastore`] | registers | `storage`, `sim`, `check` |
//! | [`vms`] | libvirt and the VMs of one host, in the core's words | `agent`, `hypervisor`, `sim`, `check` |
//!
//! Where a model breaks a rule that the real adapter keeps, the model is wrong.
//!
//! Architecture invariant: no I/O, no thread, no clock; it imports nothing but the core's words. Only tests depend on it.

pub mod datastore;
pub mod vms;
