//! The check can fail: with a rule broken, it finds what the rule is there for.

use mainstay_check::setup::SECOND;
use mainstay_check::{Bounds, Effort, Fault, Findings, Holds, Menu, Setup, explore};
use mainstay_core::BrokenRule;

/// One thread: the number of states is then the same in each run (`scripts/same-behaviour.sh`).
const EFFORT: Effort = Effort { threads: 1, visits_max: Some(3_000_000), progress: None };

/// With the rule broken the check finds a violation; with the rule kept, within the same bounds, none.
fn is_what_finds_it(kept: Setup, broken: Setup) {
    is_caught(&explore(broken, &[], EFFORT).expect("a steady start"));
    let findings = explore(kept, &[], EFFORT).expect("a steady start");
    println!("with the rule kept: {findings}");
    assert_eq!(findings.violation, None, "with the rule kept");
    assert!(findings.complete, "{findings}");
}

/// A story that ends with two hosts executing the VM.
fn is_caught(findings: &Findings) {
    println!("{findings}");
    let story = findings.violation.as_ref().expect("a violation");
    story.iter().for_each(|line| println!("{line}"));
    let last = story.last().expect("its end");
    assert!(last.contains("I1: 2 hosts execute the VM") || last.contains("I3: "), "{last}");
}

/// Faults that may come until then, and whether they may be repaired.
fn menu(faults: &[(Fault, u64, bool)]) -> Vec<Menu> {
    let entry = |(fault, until, repaired): &(Fault, u64, bool)| Menu {
        fault: *fault,
        until: *until,
        repaired: *repaired,
    };
    faults.iter().map(entry).collect()
}

#[test]
fn two_hosts_thaw_without_a_new_look() {
    let mut setup = Setup::two_hosts(0);
    setup.menu = menu(&[(Fault::Outage(0), SECOND, true)]);
    setup.bounds = Bounds { delays: 1, faults: 1 };
    setup.holds = Holds { writes: false, reads: true, messages: false, libvirt: false };
    let kept = setup.clone();
    setup.alter_core = |core| core.with_broken(BrokenRule::NoReadAfterClaim);
    is_what_finds_it(kept, setup);
}

#[test]
fn two_hosts_move_a_vm_without_reading_its_holder_again() {
    let mut setup = Setup::two_hosts(0);
    setup.menu =
        menu(&[(Fault::NetworkCut(0), SECOND / 2, false), (Fault::StorageHang(0), SECOND / 2, true)]);
    setup.bounds = Bounds { delays: 1, faults: 2 };
    setup.holds = Holds { writes: true, reads: false, messages: false, libvirt: false };
    setup.grid = SECOND / 4;
    setup.horizon = 6 * SECOND;
    let kept = setup.clone();
    setup.alter_core = |core| core.with_broken(BrokenRule::NoReadBeforeConfirm);
    is_what_finds_it(kept, setup);
}

#[test]
fn two_hosts_lease_counted_from_the_answer() {
    let mut setup = Setup::two_hosts(0);
    setup.menu = menu(&[(Fault::NetworkCut(0), SECOND, false), (Fault::StorageHang(0), 4 * SECOND, false)]);
    setup.bounds = Bounds { delays: 1, faults: 2 };
    setup.holds = Holds { writes: true, reads: false, messages: false, libvirt: false };
    setup.horizon = 8 * SECOND;
    let kept = setup.clone();
    setup.alter_guard = |guard| guard.with_lease_from_answer();
    is_what_finds_it(kept, setup);
}

#[test]
fn three_hosts_owner_grants_more_than_it_has() {
    let mut setup = Setup::three_hosts();
    setup.menu = menu(&[
        (Fault::NetworkCut(1), SECOND / 2, false),
        (Fault::StorageHang(0), 3 * SECOND, false),
        (Fault::StorageHang(2), 3 * SECOND, false),
    ]);
    setup.bounds = Bounds { delays: 0, faults: 3 };
    let kept = setup.clone();
    setup.alter_core = |core| core.with_broken(BrokenRule::AckBeyondOwnership);
    is_what_finds_it(kept, setup);
}

/// The owner's agent comes back with a file that lacks a host, and that host owns the datastore by then.
#[test]
fn three_hosts_the_former_owners_file_lacks_the_present_one() {
    let mut setup = Setup::three_hosts();
    setup.menu = menu(&[(Fault::AgentKill(1), SECOND, false), (Fault::AgentKill(2), SECOND, true)]);
    setup.bounds = Bounds { delays: 0, faults: 2 };
    setup.horizon = 20 * SECOND;
    setup.knows = |host, run, other| !(host == 2 && run > 1 && other == 0);
    let kept = setup.clone();
    setup.alter_core = |core| core.with_broken(BrokenRule::FilesIgnored);
    is_what_finds_it(kept, setup);
}
