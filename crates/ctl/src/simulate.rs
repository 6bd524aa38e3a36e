//! `mainstay sim`: the protocol of this very build on virtual time, with faults and checkers.
//!
//! Data on stdout is the trace and what was seen; a broken promise is a failure on stderr, with a line that shows it again.

mod scenarios;
mod soak;

use crate::args::{SimCommand, SimRunArgs};
use crate::exit::{Exit, Failure};
use mainstay_sim::scenario::topology::ScenarioTiming;
use mainstay_sim::{Options, Outcome, Shape, Sometimes, run_one_fault, run_seed};
use serde_json::{Value, json};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs the simulator.
pub fn run(command: &SimCommand, json: bool, out: &mut dyn Write) -> Result<Exit, Failure> {
    match command {
        SimCommand::Run(args @ SimRunArgs { files, seed: Some(seed), .. }) if files.is_empty() => {
            let hosts = args.hosts.map(|hosts| hosts as u64);
            let shape = shape(hosts, args.datastores, args.vms, args.timing.as_ref())?;
            run_one_seed(
                *seed,
                args.one_fault,
                Options { trace: args.trace, shape, story: args.story, ..Options::default() },
                json,
                out,
            )
        }
        SimCommand::Run(args) => scenarios::run(args, json, out),
        SimCommand::Soak(args) => soak::run(args, json, out),
    }
}

/// One's own size and times, in place of drawn ones.
fn shape(
    hosts: Option<u64>,
    datastores: Option<u64>,
    vms: Option<u64>,
    timing: Option<&ScenarioTiming>,
) -> Result<Shape, Failure> {
    let timing = timing.map(ScenarioTiming::times).transpose().map_err(Failure::Refused)?;
    Ok(Shape { hosts, datastores, vms, timing })
}

/// The core asserts its invariants also in release; here a broken one is a finding about that run, not the end of the program.
fn guarded<T>(what: &str, run: impl FnOnce() -> T) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|_| {
        Failure::Refused(format!(
            "{what}: an assertion failed, as told above; please report it with that text"
        ))
    })
}

fn run_one_seed(
    seed: u64,
    one_fault: bool,
    options: Options,
    json: bool,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let run = if one_fault { run_one_fault } else { run_seed };
    let outcome: Outcome = guarded(&format!("seed {seed}"), || run(seed, &options))?;
    let broken = outcome.verdict.as_ref().err();
    if json {
        let value = json!({
            "seed": seed,
            "hash": format!("{:016x}", outcome.hash),
            "virtual_time_us": outcome.virtual_time,
            "broken": broken.map(|failure| &failure.what),
            "seen": seen(&outcome.seen),
            "trace": outcome.trace,
        });
        print_json(&value, out)?;
    } else {
        print_lines(&outcome.trace, out)?;
        let held = if broken.is_none() { "all promises held" } else { "a promise was broken" };
        let seconds = outcome.virtual_time / 1_000_000;
        writeln!(out, "seed {seed}: {held}; {seconds} s of virtual time, hash {:016x}", outcome.hash)?;
        for (what, count) in outcome.seen.iter().filter(|(_, count)| *count > 0) {
            writeln!(out, "{count:>10} {what}")?;
        }
    }
    broken.map_or(Ok(Exit::Ok), |failure| Err(Failure::Refused(failure.to_string())))
}

fn seen(seen: &Sometimes) -> Value {
    seen.iter()
        .map(|(what, count)| (what.to_owned(), Value::from(count)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn print_json(value: &Value, out: &mut dyn Write) -> Result<(), Failure> {
    Ok(writeln!(out, "{value:#}")?)
}

fn print_lines(lines: &[String], out: &mut dyn Write) -> Result<(), Failure> {
    for line in lines {
        writeln!(out, "{line}")?;
    }
    Ok(())
}
