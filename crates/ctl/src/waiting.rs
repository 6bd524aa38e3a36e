//! Looking again and again until something is done, when the one who is asked may not answer for a while: the primary role is
//! being handed on, or a datastore taken over. Within bounds.

use crate::ask::Agent;
use crate::commands::Output;
use crate::exit::Failure;
use crate::words::HostNames;
use mainstay_api::Status;
use std::time::Duration;

/// For so long nobody may answer: an election and a takeover of datastores take less, at every preset.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// Looks in a row that found nobody who knows.
#[derive(Debug, Default)]
pub struct Misses {
    silence: Duration,
    told: bool,
}

impl Misses {
    /// The status of the whole cluster; `None` when it can't be had at the moment, which is told once. `every` is how often
    /// one looks.
    pub fn look(
        &mut self,
        every: Duration,
        agent: &mut dyn Agent,
        output: &mut Output<'_>,
    ) -> Result<Option<Status>, Failure> {
        let failure = match agent.status() {
            Ok(status) if status.complete => {
                *self = Misses::default();
                return Ok(Some(status));
            }
            Ok(status) => {
                let note = status.note.clone().unwrap_or_else(|| "no primary answers".to_owned());
                Failure::Refused(HostNames(status.host_names).in_text(&note))
            }
            Err(failure) => failure,
        };
        self.silence += every;
        if self.silence >= SILENCE_MAX {
            return Err(failure);
        }
        if !std::mem::replace(&mut self.told, true) {
            output.message(&format!("warning: {failure}; still waiting"));
        }
        Ok(None)
    }
}
