//! I1: at every instant, at most one host executes a VM.

use super::Violation;
use crate::setup::Setup;

/// Knows on which hosts each VM executes, and finds the second one.
#[derive(Clone, Debug)]
pub struct SingleRunner {
    /// By VM: who executes it, and since when.
    executing: Vec<Vec<(usize, u64)>>,
}

impl SingleRunner {
    /// A checker of a world in which nothing executes yet.
    pub fn new(vms: usize) -> SingleRunner {
        SingleRunner { executing: vec![Vec::new(); vms] }
    }

    /// A host begins to execute a VM.
    pub fn on_execute(&mut self, at: u64, vm: usize, host: usize, setup: &Setup) -> Option<Violation> {
        let others: Vec<String> = self.executing[vm]
            .iter()
            .map(|(other, since)| format!("{} (since {} us)", setup.hosts[*other].id, since))
            .collect();
        self.executing[vm].push((host, at));
        (!others.is_empty()).then(|| Violation {
            checker: "single_runner",
            what: format!(
                "{} executes on {} and still on {}",
                setup.vms[vm].name,
                setup.hosts[host].id,
                others.join(", ")
            ),
        })
    }

    /// A host executes it no more.
    pub fn on_halt(&mut self, vm: usize, host: usize) {
        self.executing[vm].retain(|(other, _)| *other != host);
    }

    /// Who executes it.
    pub fn hosts(&self, vm: usize) -> impl Iterator<Item = usize> + '_ {
        self.executing[vm].iter().map(|(host, _)| *host)
    }
}
