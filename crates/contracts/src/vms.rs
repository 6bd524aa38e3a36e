//! What libvirt and its adapter must do for a core, on one host and about one VM, in the core's words: orders go in, `Input`s come out.
//!
//! Not in here: how long something takes, and live migrations that go well (they need two hosts).

mod desk;
mod host;
mod rules;

pub use host::{Deed, Heard, HostUnderTest};
pub use rules::{RULES, Rule};
