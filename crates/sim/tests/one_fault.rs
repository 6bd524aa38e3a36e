//! I6: one broken thing stops no VM. Each run has exactly one fault, and no VM may stop, be frozen or be moved for it.
//!
//! `MAINSTAY_SIM_TRACE=1` prints the trace of the first seed that fails.

use mainstay_sim::{Options, run_one_fault};

const SEEDS: u64 = 600;

#[test]
fn one_fault_interrupts_no_vm() {
    let failures: Vec<(u64, String)> = (0..SEEDS)
        .filter_map(|seed| Some((seed, run_one_fault(seed, &Options::default()).verdict.err()?.to_string())))
        .collect();
    if let (Some((seed, _)), true) = (failures.first(), std::env::var_os("MAINSTAY_SIM_TRACE").is_some()) {
        let outcome = run_one_fault(*seed, &Options { trace: true, ..Options::default() });
        println!("{}", outcome.trace.join("\n"));
    }
    let shown: Vec<&str> = failures.iter().take(20).map(|(_, what)| what.as_str()).collect();
    assert!(shown.is_empty(), "{} of {SEEDS} seeds failed:\n{}", failures.len(), shown.join("\n"));
}
