//! The lab's primitives, tried on real hosts: what other live tests rely on must be true.
//!
//! Each test brings up a lab of its own; the machine's lab lock makes them take turns.

mod datastores;
mod guests;
mod lifetime;
mod networks;
mod power;
mod processes;

use mainstay_lab::{Lab, LabConfig};
use std::time::Duration;

/// Patience with a busy machine. Nothing is expected to take as long.
const LONG: Duration = Duration::from_secs(120);

fn lab(config: LabConfig) -> Lab {
    Lab::new(config).unwrap_or_else(|e| panic!("{e}"))
}

fn default_lab() -> Lab {
    lab(LabConfig::default())
}

fn pings(lab: &Lab, from: usize, to: &str) -> bool {
    let argv = ["ping", "-q", "-c1", "-W1", to];
    lab.host(from).unwrap().output(&argv, LONG).unwrap().success
}

/// The same where an answer must come: on a busy machine one may be late, so it is asked for until one comes.
fn answers(lab: &Lab, from: usize, to: &str) -> bool {
    let argv = ["ping", "-q", "-c1", "-w60", to];
    lab.host(from).unwrap().output(&argv, LONG).unwrap().success
}

/// Asserts that `vm` does not beat while `witness` does: an absence needs a clock that ticks, not a duration.
fn assert_stands_still(lab: &Lab, vm: &str, witness: &str) {
    let before = lab.guest_record(vm).unwrap();
    lab.wait_for_beats(witness, 5, LONG).unwrap();
    assert_eq!(before, lab.guest_record(vm).unwrap(), "{vm} went on");
}
