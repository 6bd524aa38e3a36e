//! How a claim stands to a grant: whether its VM came since, and whether its stop is the last that is known of it.

use crate::ids::Token;
use crate::register::{Claim, ClaimState, Desired, Entry, StopCause};

impl Claim {
    /// Whether it shows that the VM came here after that grant was given: under no grant yet, or a later one. What is held
    /// under an earlier grant goes (R36). Of a frozen copy without a grant that must be known: it may be an old one.
    pub fn is_new_since(&self, token: Token) -> bool {
        let came_since = match self.token {
            Some(held) => held >= token,
            None => self.state != ClaimState::Frozen || self.under >= token,
        };
        self.state.is_running_or_frozen() && came_since
    }

    /// Why its VM stopped, if that was on purpose.
    pub fn intended_stop(&self) -> Option<StopCause> {
        match self.state {
            ClaimState::Stopped { cause } => cause.is_intended().then_some(cause),
            ClaimState::StartFailed { .. }
            | ClaimState::Starting
            | ClaimState::Running
            | ClaimState::Frozen
            | ClaimState::Stopping
            | ClaimState::Migrating => None,
        }
    }

    /// Whether it shows that the VM came, or is coming, since that grant was given.
    pub fn may_be_there(&self, token: Token) -> bool {
        let arriving = self.state == ClaimState::Migrating && self.token.is_none();
        arriving || self.is_new_since(token)
    }
}

impl Entry {
    /// Whether a stop on purpose under that grant, or of a copy that came under it, is younger than any run of the VM that
    /// is known of.
    pub fn heeds(&self, came: Token) -> bool {
        self.desired == Desired::On && came >= self.ran_under.unwrap_or(self.token)
    }
}
