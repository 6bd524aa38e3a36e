//! The watched VMs: which processes each has, and what was asked of them.
//!
//! Freezing never looks for processes first: what is known is frozen at once, then all processes are gone through, and what was
//! missed is frozen too.

use crate::freezer::{Freezer, Hold};
use crate::observer::{Look, Observer, Seen, Wanted};
use crate::scanner::{Scan, Scanner};
use mainstay_guard_core::GuardInput;
use mainstay_words::{ProcessState, VmId};
use std::collections::BTreeMap;

/// Freezing was requested so often without success that everything is tried.
const ATTEMPTS_BY_GROUP: u32 = 2;

#[derive(Debug, Default)]
struct Watched {
    holds: Vec<Hold>,
    /// The scan that is to answer for it.
    asked: Option<u64>,
    is_to_be_frozen: bool,
    /// Killed are also those that this scan finds.
    killing: Option<u64>,
    attempts: u32,
    told: Option<ProcessState>,
}

impl Watched {
    /// For the log.
    fn pids(&self) -> String {
        let pids: Vec<String> = self.holds.iter().map(|hold| hold.process.pid.to_string()).collect();
        pids.join(", ")
    }
}

/// The watched VMs.
pub struct Vms {
    freezer: Freezer,
    observer: Observer,
    scanner: Scanner,
    watched: BTreeMap<VmId, Watched>,
    /// Groups of ours to be removed once they are empty.
    leftovers: Vec<Hold>,
}

impl Vms {
    /// No VM is known yet.
    pub fn new(freezer: Freezer, observer: Observer, scanner: Scanner) -> Vms {
        Vms { freezer, observer, scanner, watched: BTreeMap::new(), leftovers: Vec::new() }
    }

    /// Those that are frozen, for the log of a guard that ends.
    pub fn frozen(&self) -> Vec<VmId> {
        let is_frozen = |watched: &Watched| watched.told == Some(ProcessState::Frozen);
        self.watched.iter().filter(|(_, watched)| is_frozen(watched)).map(|(vm, _)| *vm).collect()
    }

    /// Whether there is any.
    pub fn is_empty(&self) -> bool {
        self.watched.is_empty()
    }

    /// Stops a VM's processes. First of all that a step of the guard asks for.
    pub fn freeze(&mut self, vm: VmId) {
        let watched = self.watched.entry(vm).or_default();
        watched.is_to_be_frozen = true;
        let thoroughly = watched.attempts >= ATTEMPTS_BY_GROUP;
        watched.attempts += 1;
        for hold in &mut watched.holds {
            hold.freeze(&self.freezer, thoroughly);
        }
    }

    /// What is to be done after a freeze and can wait for other VMs' freezes.
    pub fn follow_freeze(&mut self, vm: VmId) {
        if self.watched.get(&vm).is_some_and(|watched| watched.attempts == 1 && !watched.holds.is_empty()) {
            tracing::info!(%vm, "the lease has ended: the VM is being frozen");
        }
        self.look(vm, Wanted::Frozen);
        self.ask(vm);
    }

    /// Finds out what a VM's process does.
    pub fn inspect(&mut self, vm: VmId) {
        self.watched.entry(vm).or_default();
        self.ask(vm);
    }

    /// Lets a VM go on.
    pub fn thaw(&mut self, vm: VmId) {
        let watched = self.watched.entry(vm).or_default();
        watched.is_to_be_frozen = false;
        watched.attempts = 0;
        tracing::info!(%vm, processes = watched.pids(), "the VM is being thawed");
        if watched.holds.is_empty() {
            self.ask(vm);
            return;
        }
        for hold in &mut watched.holds {
            hold.thaw();
        }
        self.look(vm, Wanted::Runs);
    }

    /// Ends a VM's processes.
    pub fn kill(&mut self, vm: VmId) {
        let number = self.scanner.ask();
        let watched = self.watched.entry(vm).or_default();
        (watched.killing, watched.asked) = (Some(number), Some(number));
        tracing::info!(%vm, processes = watched.pids(), "the VM's copy here is being killed");
        for hold in &watched.holds {
            hold.kill();
        }
        self.look(vm, Wanted::Gone);
    }

    /// The VM is no business of this host any more. Whatever its process does, it goes on doing.
    pub fn forget(&mut self, vm: VmId) {
        if let Some(watched) = self.watched.remove(&vm) {
            self.leftovers.extend(watched.holds);
        }
        self.remove_leftovers();
    }

    /// Goes through all processes, for what nobody has told.
    pub fn refresh(&mut self) {
        if !self.is_empty() || !self.leftovers.is_empty() {
            self.scanner.ask();
        }
    }

    /// Replaces a scan that hangs.
    pub fn look_after_scanner(&mut self) {
        self.scanner.look_after();
    }

    /// Takes what a scan has found.
    pub fn on_scan(&mut self, mut scan: Scan, inputs: &mut Vec<GuardInput>) {
        self.scanner.on_answer(scan.number);
        let vms: Vec<VmId> = self.watched.keys().copied().collect();
        for vm in vms {
            let found = scan.found.remove(&vm).unwrap_or_default();
            self.update(vm, scan.number, found, inputs);
        }
        self.remove_leftovers();
    }

    fn update(
        &mut self,
        vm: VmId,
        number: u64,
        found: Vec<crate::qemu::Process>,
        inputs: &mut Vec<GuardInput>,
    ) {
        let Some(watched) = self.watched.get_mut(&vm) else { return };
        let is_gone =
            |hold: &mut Hold| !found.iter().any(|process| process.identity() == hold.process.identity());
        let gone: Vec<Hold> = watched.holds.extract_if(.., is_gone).collect();
        let has_ended = have_ended(&gone);
        let mut has_changed = !gone.is_empty();
        self.leftovers.extend(gone);
        for process in found {
            if watched.holds.iter().any(|hold| hold.process.identity() == process.identity()) {
                continue;
            }
            has_changed = true;
            let mut hold = Hold::unprepared(vm, process);
            if watched.is_to_be_frozen {
                hold.freeze(&self.freezer, false);
            }
            if watched.killing.is_some() {
                hold.kill();
            }
            watched.holds.push(hold);
        }
        let is_asked = watched.asked.take_if(|asked| *asked <= number).is_some();
        let is_killed = watched.killing.take_if(|asked| *asked <= number).is_some();
        if watched.holds.is_empty() {
            watched.attempts = 0;
            let before = watched.told;
            // A scan that finds nothing takes nothing back.
            let ended = has_ended || before == Some(ProcessState::Ended);
            let state = if ended { ProcessState::Ended } else { ProcessState::Absent };
            watched.told = Some(state);
            if is_asked || before != Some(state) {
                inputs.push(GuardInput::Process { vm, state });
            }
        } else if is_killed {
            self.look(vm, Wanted::Gone);
        } else if watched.is_to_be_frozen {
            // Also when nothing has changed: somebody else may have thawed it.
            self.look(vm, Wanted::Frozen);
        } else if is_asked || has_changed {
            self.look(vm, Wanted::Anything);
        }
    }

    /// Takes what the observer has seen.
    pub fn on_seen(&mut self, seen: Seen, inputs: &mut Vec<GuardInput>) {
        let Seen { vm, mut state, holds, wanted: _ } = seen;
        if let Some(watched) = self.watched.get(&vm)
            && state == ProcessState::Absent
        {
            let ended = have_ended(&holds) && watched.holds.iter().all(|hold| hold.process.has_ended());
            let ended = ended || watched.told == Some(ProcessState::Ended);
            state = if ended { ProcessState::Ended } else { state };
        }
        if let Some(watched) = self.watched.get_mut(&vm) {
            for hold in &mut watched.holds {
                for other in &holds {
                    hold.take_group(other);
                }
            }
            if watched.told.replace(state) != Some(state) {
                tracing::info!(%vm, ?state, lease_is_over = watched.is_to_be_frozen, "a VM's process");
            }
            match state {
                ProcessState::Absent | ProcessState::Ended => {
                    self.leftovers.append(&mut watched.holds);
                    watched.attempts = 0;
                }
                ProcessState::Frozen => watched.attempts = 0,
                ProcessState::Runs => {}
            }
        }
        if matches!(state, ProcessState::Absent | ProcessState::Ended) {
            self.leftovers.extend(holds);
            self.remove_leftovers();
        }
        inputs.push(GuardInput::Process { vm, state });
    }

    fn look(&self, vm: VmId, wanted: Wanted) {
        let Some(watched) = self.watched.get(&vm).filter(|watched| !watched.holds.is_empty()) else { return };
        self.observer.look(Look { vm, holds: watched.holds.clone(), wanted });
    }

    fn ask(&mut self, vm: VmId) {
        let number = self.scanner.ask();
        if let Some(watched) = self.watched.get_mut(&vm) {
            watched.asked = Some(number);
        }
    }

    fn remove_leftovers(&mut self) {
        self.leftovers.retain(|hold| !hold.remove_group());
    }
}

/// Whether there were processes, and all of them have ended. One that can't be asked, or that only a scan did not find, has not.
fn have_ended(holds: &[Hold]) -> bool {
    !holds.is_empty() && holds.iter().all(|hold| hold.process.has_ended())
}
