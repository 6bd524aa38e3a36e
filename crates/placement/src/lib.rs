//! Where VMs come back, in which order, and the proof beforehand: pure functions on a [`Picture`] of the cluster.
//!
//! - [`plan()`]: which VM goes to which host when some hosts fail, and for each VM that does not come back the reason, host by host.
//! - [`StartPlan`]: in which order the VMs of a plan start, and what each one still waits for.
//! - [`admit`]: would everything come back, asked before anything has failed.
//! - [`Rehearsal`]: the plan for each single-host failure, kept current while the picture changes.
//! - [`breaches`]: does a plan keep every rule and fit, found out independently of how the plan was made.
//!
//! What this crate does not do: it has no clock, no I/O, no randomness and no floating point. It knows hosts and VMs by name
//! only, and never asks what a name means. It starts nothing: the owner carries plans out.
//!
//! Invariant: no function here panics, whatever the picture holds (names that nobody has, rules that contradict each other,
//! numbers at the end of their range). Invariant: a result depends on the picture alone, not on the order in which it was filled:
//! everything in it is kept by name, and every tie is broken by name.
#![no_std]
extern crate alloc;

mod admission;
mod bits;
mod check;
mod index;
mod order;
mod picture;
mod place;
mod plan;
mod refusal;
mod rehearsal;
mod room;
mod spread;
mod unit;

pub use admission::{
    AdmissionControl, Enforcement, OBJECTIONS_SHOWN, Objection, PROOF_WORK, Policy, Proposal, Slot, Verdict,
    admit, admit_after,
};
pub use check::{Breach, breaches};
pub use order::{Because, Next, OrderError, Progress, StartPlan, StartStep, Waiting, check_groups};
pub use picture::*;
pub use plan::{How, LeftOut, NotRestarted, Placement, Plan, plan};
pub use refusal::Refusal;
pub use rehearsal::{Rehearsal, Summary};
pub use room::Purpose;
pub use spread::{HostRoom, choose_spread};
