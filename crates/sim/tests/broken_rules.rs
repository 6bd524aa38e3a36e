//! The checkers can find what they are there for: with one rule of the protocol broken on purpose, a batch of seeds finds a
//! VM that two hosts execute. (`mainstay-check` does the same by exploration.)

use mainstay_core::{BrokenRule, Config, Core, Guard, GuardConfig, Time};
use mainstay_sim::{Node, Options, run_seed};

/// More seeds than it takes.
const SEEDS: u64 = 4_000;

type Made = Result<Box<dyn Node>, String>;

fn broken(rule: BrokenRule, config: Config, now: Time) -> Made {
    Ok(Box::new(Core::new(config, now)?.with_broken(rule)))
}

/// The first seed that finds the broken rule by two runners, and what was found.
fn found_by(options: &Options) -> Option<(u64, String)> {
    (0..SEEDS).find_map(|seed| {
        let failure = run_seed(seed, options).verdict.err()?;
        failure.what.starts_with("single_runner").then_some((seed, failure.what))
    })
}

fn expect_found(rule: &str, options: &Options) {
    let (seed, what) =
        found_by(options).unwrap_or_else(|| panic!("{rule} broken, and {SEEDS} seeds found nothing"));
    println!("{rule}: seed {seed}: {what}");
}

#[test]
fn a_lease_counted_from_the_answer_is_found() {
    let guard = |config: GuardConfig, now| Guard::new(config, now).with_broken(BrokenRule::LeaseFromAnswer);
    expect_found("lease counted from the answer", &Options { guard, ..Options::default() });
}

#[test]
fn no_read_after_a_claim_is_found() {
    let node = |config, now| broken(BrokenRule::NoReadAfterClaim, config, now);
    expect_found("no read after a claim", &Options { node, ..Options::default() });
}

#[test]
fn no_read_before_confirming_a_take_over_is_found() {
    let node = |config, now| broken(BrokenRule::NoReadBeforeConfirm, config, now);
    expect_found("no read before confirming", &Options { node, ..Options::default() });
}

#[test]
fn acknowledging_beyond_the_own_ownership_is_found() {
    let node = |config, now| broken(BrokenRule::AckBeyondOwnership, config, now);
    expect_found("acknowledging beyond the own ownership", &Options { node, ..Options::default() });
}
