//! I1: at every instant, at most one host executes a VM.

use super::Violation;
use crate::setup::Setup;

/// Knows on which hosts each VM executes, and finds the second one.
#[derive(Clone, Debug)]
pub struct SingleRunner {
    /// By VM: who executes it, and since when.
    executing: Vec<Vec<(usize, u64)>>,
    /// By VM: where libvirtd started a copy by itself beside another. That is no core's doing, and is looked at later.
    strays: Vec<Vec<usize>>,
}

impl SingleRunner {
    /// A checker of a world in which nothing executes yet.
    pub fn new(vms: usize) -> SingleRunner {
        SingleRunner { executing: vec![Vec::new(); vms], strays: vec![Vec::new(); vms] }
    }

    /// A host begins to execute a VM.
    pub fn on_execute(&mut self, at: u64, vm: usize, host: usize, setup: &Setup) -> Option<Violation> {
        let first = &self.executing[vm];
        let beside = |other: &usize| *other == host || first.iter().any(|(first, _)| first == other);
        // A stray copy beside one other is no core's doing; a third one is.
        let stray = first.len() == 1 && self.strays[vm].iter().any(beside);
        let others: Vec<String> = first
            .iter()
            .filter(|_| !stray)
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

    /// Libvirtd is about to start a copy there by itself, beside one that executes.
    pub fn on_stray(&mut self, vm: usize, host: usize) {
        self.strays[vm].push(host);
    }

    /// Agent and guard of that host have had their time to look: the stray copy executes beside no other.
    pub fn on_stray_over(&mut self, vm: usize, host: usize, setup: &Setup) -> Option<Violation> {
        self.strays[vm].retain(|stray| *stray != host);
        let here = self.executing[vm].iter().any(|(other, _)| *other == host);
        let other = self.executing[vm].iter().find(|(other, _)| *other != host);
        let (other, since) = other.filter(|_| here)?;
        Some(Violation {
            checker: "single_runner",
            what: format!(
                "{} executes on {} (since {since} us), and still on {}, whose libvirtd started it by itself",
                setup.vms[vm].name, setup.hosts[*other].id, setup.hosts[host].id
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
