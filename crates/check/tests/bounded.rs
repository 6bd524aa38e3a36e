//! Nothing is violated within bounds that a test can explore, and what must happen, happens. (`mainstay-check` on the command
//! line goes further.)

use mainstay_check::setup::SECOND;
use mainstay_check::{Bounds, Effort, Fault, Setup, Sometimes, explore};

/// One thread: the number of states is then the same in each run (`scripts/same-behaviour.sh`).
const EFFORT: Effort = Effort { threads: 1, visits_max: None, progress: None };

/// One fault, one operation held back, and an instant a second: what fits into seconds.
fn small(setup: Setup, wanted: impl Fn(Fault) -> bool) -> Setup {
    let menu = setup.menu.iter().copied().filter(|menu| wanted(menu.fault));
    let menu = menu.map(|menu| mainstay_check::Menu { until: SECOND, ..menu }).collect();
    Setup { menu, bounds: Bounds { delays: 1, faults: 1 }, grid: SECOND, horizon: 8 * SECOND, ..setup }
}

fn is_safe(setup: Setup, sometimes: &[Sometimes]) {
    let findings = explore(setup, sometimes, EFFORT).expect("a steady start");
    println!("{findings}");
    for line in findings.violation.iter().flatten() {
        println!("{line}");
    }
    assert_eq!(findings.violation, None);
    assert!(findings.complete, "{findings}");
    assert_eq!(findings.unseen, Vec::<&str>::new(), "vacuous");
}

#[test]
fn two_hosts_any_one_fault() {
    let seen = [
        Sometimes::Restarted,
        Sometimes::Thawed,
        Sometimes::Intended,
        Sometimes::CopyRemoved,
        Sometimes::OwnerChanged,
        Sometimes::Stopped,
    ];
    is_safe(Setup::two_hosts(0), &seen);
    is_safe(Setup::two_hosts(1), &seen);
}

#[test]
fn two_hosts_holder_cut_off_and_one_late_operation() {
    let setup = small(Setup::two_hosts(0), |fault| fault == Fault::Outage(0));
    let seen = [
        Sometimes::Restarted,
        Sometimes::Thawed,
        Sometimes::Intended,
        Sometimes::Cancelled,
        Sometimes::CopyRemoved,
    ];
    is_safe(setup, &seen);
}

#[test]
fn two_hosts_owner_with_the_vm_cut_off_and_one_late_operation() {
    let setup = small(Setup::two_hosts(1), |fault| fault == Fault::Outage(1));
    is_safe(setup, &[Sometimes::Restarted, Sometimes::Thawed, Sometimes::OwnerChanged]);
}

#[test]
fn two_hosts_holder_loses_power_and_one_late_operation() {
    let setup = small(Setup::two_hosts(0), |fault| fault == Fault::PowerLoss(0));
    is_safe(setup, &[Sometimes::Restarted, Sometimes::Intended]);
}

#[test]
fn two_hosts_vm_shut_down_by_its_user_and_one_late_operation() {
    let setup = small(Setup::two_hosts(0), |fault| fault == Fault::UserShutdown);
    is_safe(setup, &[Sometimes::Stopped]);
}

#[test]
fn two_hosts_vm_shut_down_by_its_user_around_another_fault() {
    let mut setup = small(Setup::two_hosts(0), |fault| {
        matches!(fault, Fault::UserShutdown | Fault::AgentKill(0) | Fault::PowerLoss(0) | Fault::Outage(0))
    });
    setup.bounds = Bounds { delays: 0, faults: 2 };
    setup.menu.iter_mut().for_each(|menu| menu.until = 4 * SECOND);
    is_safe(setup, &[Sometimes::Stopped, Sometimes::Restarted]);
}

#[test]
fn three_hosts_owner_changes() {
    let mut setup = Setup::three_hosts();
    setup.bounds = Bounds { delays: 0, faults: 3 };
    setup.grid = SECOND;
    setup.horizon = 8 * SECOND;
    setup.menu.iter_mut().for_each(|menu| menu.repaired = false);
    is_safe(setup, &[Sometimes::OwnerChanged, Sometimes::Restarted]);
}
