//! The checkers can find what they are there for: with one rule of the protocol broken on purpose, a
//! scenario finds a VM that two hosts execute. (`mainstay-check` does the same by exploration.)

use mainstay_core::{BrokenRule, Config, Core, Time};
use mainstay_guard_core::{Guard, GuardConfig};
use mainstay_sim::node::real_core;
use mainstay_sim::{GuardFactory, Node, NodeFactory, Scenario, run_scenario_on};

type Made = Result<Box<dyn Node>, String>;

fn broken(rule: BrokenRule, config: Config, now: Time) -> Made {
    Ok(Box::new(Core::new(config, now)?.with_broken(rule)))
}

/// The scenario holds, and with the rule broken it finds two runners.
fn a_scenario_finds(name: &str, text: &str, node: NodeFactory, guard: GuardFactory) {
    a_scenario_finds_that("single_runner", name, text, node, guard);
}

/// The scenario holds, and with the rule broken it finds that.
fn a_scenario_finds_that(that: &str, name: &str, text: &str, node: NodeFactory, guard: GuardFactory) {
    let scenario = Scenario::parse(name, text).expect("a scenario");
    run_scenario_on(name, &scenario, (real_core, Guard::new), false).0.expect("it holds with all rules kept");
    let found = run_scenario_on(name, &scenario, (node, guard), false).0;
    let what = found.expect_err("the rule is broken, and nothing was found").to_string();
    assert!(what.contains(that), "{what}");
    println!("{what}");
}

#[test]
fn a_lease_counted_from_the_answer_is_found() {
    let text = include_str!("../scenarios/two_hosts_lease_counts_from_the_start_of_the_write.toml");
    let guard = |config: GuardConfig, now| Guard::new(config, now).with_lease_from_answer();
    a_scenario_finds("lease counted from the answer", text, real_core, guard);
}

#[test]
fn acknowledging_beyond_the_own_ownership_is_found() {
    let text = include_str!("../scenarios/three_hosts_acknowledged_until_the_ownership_ends.toml");
    let node = |config, now| broken(BrokenRule::AckBeyondOwnership, config, now);
    a_scenario_finds("acknowledging beyond the own ownership", text, node, Guard::new);
}

#[test]
fn a_hold_that_is_ignored_is_found() {
    let text =
        include_str!("../scenarios/three_hosts_cut_off_in_suspension_is_not_restarted_when_resumed.toml");
    let node = |config, now| broken(BrokenRule::HoldsIgnored, config, now);
    a_scenario_finds("a hold that is ignored", text, node, Guard::new);
}

#[test]
fn no_read_after_a_claim_is_found() {
    let text = include_str!("../scenarios/two_hosts_storage_returns_while_a_take_over_is_decided.toml");
    let node = |config, now| broken(BrokenRule::NoReadAfterClaim, config, now);
    a_scenario_finds("no read after a claim", text, node, Guard::new);
}

#[test]
fn a_file_that_differs_is_found() {
    let text = include_str!("../scenarios/three_hosts_file_lacks_a_datastore_then_cut_off.toml");
    let node = |config, now| broken(BrokenRule::FilesIgnored, config, now);
    a_scenario_finds("a file that differs", text, node, Guard::new);
}

#[test]
fn a_judgement_that_outlives_the_second_reading_is_found() {
    let text = include_str!("../scenarios/three_hosts_owner_stands_still_while_a_failed_host_returns.toml");
    let node = |config, now| broken(BrokenRule::FailedStands, config, now);
    a_scenario_finds("a judgement that outlives the second reading", text, node, Guard::new);
}

#[test]
fn an_old_copy_that_is_kept_is_found() {
    let text = include_str!("../scenarios/three_hosts_frozen_copy_that_no_list_knew_is_removed.toml");
    let node = |config, now| broken(BrokenRule::OldCopyKept, config, now);
    a_scenario_finds_that("time_travel", "an old copy that is kept", text, node, Guard::new);
}

#[test]
fn a_word_that_is_not_heard_is_found() {
    let text = include_str!("../scenarios/three_hosts_user_destroys_on_a_host_that_lost_its_vm.toml");
    let node = |config, now| broken(BrokenRule::OnlyHolderHeard, config, now);
    a_scenario_finds_that("user_word", "a word that is not heard", text, node, Guard::new);
}
