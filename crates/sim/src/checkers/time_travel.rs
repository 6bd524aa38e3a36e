//! Memory is never older than the disk: a copy does not execute after a later run of the same VM has.
//!
//! Each start from disk is a new generation of the VM. A migration hands its generation on. A copy that stood still (frozen, paused, the
//! stopped source of a migration) while a later generation executed must never go on: its guest's memory knows nothing of what is on
//! the disk by now.

use super::Violation;
use crate::setup::Setup;

/// Knows the latest generation of each VM that has executed.
#[derive(Clone, Debug)]
pub struct TimeTravel {
    latest: Vec<u64>,
}

impl TimeTravel {
    /// Nothing has executed.
    pub fn new(vms: usize) -> TimeTravel {
        TimeTravel { latest: vec![0; vms] }
    }

    /// A copy begins to execute, or goes on: of that generation, or (`None`) from disk. Gives its generation.
    pub fn on_execute(
        &mut self,
        vm: usize,
        host: usize,
        generation: Option<u64>,
        setup: &Setup,
    ) -> (u64, Option<Violation>) {
        let latest = &mut self.latest[vm];
        let mine = generation.unwrap_or(*latest + 1);
        let found = (mine < *latest).then(|| Violation {
            checker: "time_travel",
            what: format!(
                "{} goes on on {} with the memory of run {mine}, but run {latest} has written to its disk since",
                setup.vms[vm].name, setup.hosts[host].id
            ),
        });
        *latest = mine.max(*latest);
        (mine, found)
    }

    /// The generation of those that execute now.
    pub fn latest(&self, vm: usize) -> u64 {
        self.latest[vm]
    }
}
