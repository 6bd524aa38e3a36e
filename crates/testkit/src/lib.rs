//! What tests of several crates need: waiting for an event ([`wait`]), and made-up contents of registers ([`made`]).
//!
//! Only ever a dev-dependency. A test that needs one thing more for itself keeps that to itself.

pub mod made;
pub mod wait;

pub use wait::{PATIENCE, wait_for, wait_for_ok, wait_until};
