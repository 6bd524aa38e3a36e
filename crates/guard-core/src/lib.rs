//! The guard of a host as one deterministic state machine: `step(now, input, &mut effects)`, `next_deadline()`.
//!
//! Architecture invariant: no clock, no I/O, no randomness, no async, no hash maps. The program `mainstay-guard`, the simulator
//! and the model checker run this same code. It imports the words and nothing else of ours: the program that freezes VMs does not
//! link the machine that decides about them.
#![no_std]
extern crate alloc;

mod guard;
mod messages;

pub use guard::Guard;
pub use messages::{GuardConfig, GuardEffect, GuardInput};
