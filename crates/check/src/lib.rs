//! The same core and the same guard as in the agent, under a model checker: *all* that can happen to a small cluster within
//! stated bounds, where the simulator tries some of what can happen to a large one.
//!
//! Reading order: [`setup`] (what is explored), [`world`] (what can happen), [`checks`] (what must hold), [`model`] (the
//! exploration). docs/internals/model-check.md says what is modelled and what is not.
//!
//! What it does not do: several datastores, several VMs, drift of clocks, damaged registers, isolation responses. The
//! simulator has those.

pub mod checks;
mod fingerprint;
pub mod model;
pub mod setup;
pub mod world;

pub use model::{Effort, Findings, Sometimes, explore, tell};
pub use setup::{Bounds, Fault, Holds, Menu, Setup};
pub use world::{Bench, Choice, Told, World};
