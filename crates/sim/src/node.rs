//! What runs on a simulated host: the core, or in tests a scripted fake of one that breaks a rule on purpose, to prove that
//! the checkers can fail.

use mainstay_core::{Config, Core, Effect, Input, Time, View};
use mainstay_guard_core::{Guard, GuardConfig};

/// The part of [`Core`] that the world drives.
pub trait Node {
    /// Takes one input in, as [`Core::step`] does.
    fn step(&mut self, now: Time, input: Input, effects: &mut Vec<Effect>);
    /// When the next tick is due, as [`Core::next_deadline`] says.
    fn next_deadline(&self) -> Time;
    /// See [`Core::view`]; `None` when this node has no views.
    fn view(&self, now: Time) -> Option<View>;
}

/// Makes the node of a host at each start of its agent.
pub type NodeFactory = fn(Config, Time) -> Result<Box<dyn Node>, String>;

/// Makes the guard of a host at each of its starts.
pub type GuardFactory = fn(GuardConfig, Time) -> Guard;

impl Node for Core {
    fn step(&mut self, now: Time, input: Input, effects: &mut Vec<Effect>) {
        Core::step(self, now, input, effects);
        self.check();
    }

    fn next_deadline(&self) -> Time {
        Core::next_deadline(self)
    }

    fn view(&self, now: Time) -> Option<View> {
        Some(Core::view(self, now))
    }
}

/// Makes real cores.
pub fn real_core(config: Config, now: Time) -> Result<Box<dyn Node>, String> {
    Ok(Box::new(Core::new(config, now)?))
}
