//! The protocol on virtual time: any number of hosts, each with the same [`mainstay_core::Core`] that the agent runs, in a
//! [`World`] of seeded latencies and faults, under checkers that look at the world and never at a core's opinion.
//!
//! Reading order: [`setup`] (what a world is made of), [`action`] (what can be done to it), [`world`] (how it behaves),
//! [`checkers`] (what must hold), [`generator`] (a seed becomes a setup and a schedule), [`run`] (a seed, a batch of seeds),
//! [`scenario`] (the same from a file).
//!
//! Architecture invariant: one seed, one run. No clock, no thread and no random state of the standard library has any
//! influence on a run; [`trace::Trace::hash`] proves it.
//!
//! What it does not do: run the adapters (registers land whole or are damaged, messages arrive or do not; bytes are `formats`' matter), or
//! measure anything: its times are drawn, not taken.

pub mod action;
pub mod checkers;
pub mod clock;
pub mod dice;
pub mod generator;
pub mod node;
pub mod rehearse;
pub mod run;
pub mod scenario;
pub mod setup;
pub mod sometimes;
pub mod trace;
pub mod world;

pub use action::Action;
pub use checkers::{Extra, Violation};
pub use generator::Shape;
pub use generator::stories::Story;
pub use node::{GuardFactory, Node, NodeFactory};
pub use run::{Failure, Go, Options, Outcome, Soak, run_one_fault, run_seed, soak, soak_watched};
pub use scenario::{Overrides, Scenario, ScenarioError, run_scenario, run_scenario_on};
pub use setup::Setup;
pub use sometimes::Sometimes;
pub use world::World;
