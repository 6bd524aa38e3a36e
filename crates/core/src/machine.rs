//! The core: one host's part in the protocol. It dispatches inputs to the sub-machines, each in a file of its own.

use crate::config::Config;
use crate::effect::Effect;
use crate::input::Input;
use crate::time::Time;
use crate::view::View;
use alloc::string::String;
use alloc::vec::Vec;

/// One host's part in the protocol.
#[derive(Clone, Debug)]
pub struct Core {
    config: Config,
}

impl Core {
    /// A core at rest. Fails with a text for the user when the configuration can't work ([`Config::check`]). It begins
    /// with its first [`Core::step`], which should be a [`Input::Tick`].
    pub fn new(config: Config, _now: Time) -> Result<Core, String> {
        config.check()?;
        Ok(Core { config })
    }

    /// Takes one input and appends what is to be done to `effects`. `now` never goes back.
    pub fn step(&mut self, _now: Time, _input: Input, _effects: &mut Vec<Effect>) {}

    /// When [`Input::Tick`] is wanted next, unless another input comes before. May lie in the past: tick at once.
    pub fn next_deadline(&self) -> Time {
        Time(0)
    }

    /// What this core believes.
    pub fn view(&self, _now: Time) -> View {
        todo!("{}", self.config.me)
    }
}
