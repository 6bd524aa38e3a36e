//! `mainstay sim`: the protocol of this very build on virtual time, with faults and checkers.
//!
//! Data on stdout is the trace and what was seen; a broken promise is a failure on stderr, with a line that shows it again.

use crate::args::SimCommand;
use crate::exit::{Exit, Failure};
use mainstay_sim::node::real_core;
use mainstay_sim::{Options, Outcome, Scenario, Sometimes, run_scenario, run_seed, soak};
use serde_json::{Value, json};
use std::io::Write;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Runs the simulator.
pub fn run(command: &SimCommand, json: bool, out: &mut dyn Write) -> Result<Exit, Failure> {
    match command {
        SimCommand::Run { file: Some(file), trace, .. } => run_file(file, *trace, json, out),
        SimCommand::Run { file: None, seed, trace } => {
            run_one_seed(seed.unwrap_or_default(), *trace, json, out)
        }
        SimCommand::Soak { seeds, threads } => run_soak(seeds.clone(), *threads, json, out),
    }
}

/// The core asserts its invariants also in release; here a broken one is a finding about that run, not the end of the program.
fn guarded<T>(what: &str, run: impl FnOnce() -> T) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|_| {
        Failure::Refused(format!(
            "{what}: an assertion failed, as told above; please report it with that text"
        ))
    })
}

fn run_one_seed(seed: u64, trace: bool, json: bool, out: &mut dyn Write) -> Result<Exit, Failure> {
    let options = Options { trace, ..Options::default() };
    let outcome: Outcome = guarded(&format!("seed {seed}"), || run_seed(seed, &options))?;
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
            writeln!(out, "  {count:>8} {what}")?;
        }
    }
    match broken {
        None => Ok(Exit::Ok),
        Some(failure) => Err(Failure::Refused(format!(
            "{}\nsee it again with: mainstay sim run --seed {seed} --trace",
            failure.what
        ))),
    }
}

fn run_file(file: &Path, trace: bool, json: bool, out: &mut dyn Write) -> Result<Exit, Failure> {
    let object = || file.display().to_string();
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::Local { object: object(), reason: error.to_string() })?;
    let name = file.file_stem().map_or_else(object, |stem| stem.to_string_lossy().into_owned());
    let refused = |error: mainstay_sim::ScenarioError| Failure::Refused(error.to_string());
    let scenario = Scenario::parse(&name, &text).map_err(refused)?;
    let (verdict, lines) = guarded(&name, || run_scenario(&name, &scenario, real_core, trace))?;
    let broken = verdict.as_ref().err().map(ToString::to_string);
    if json {
        print_json(
            &json!({ "scenario": name, "about": scenario.about, "broken": broken, "trace": lines }),
            out,
        )?;
    } else {
        print_lines(&lines, out)?;
        let went = if broken.is_none() { "went as expected" } else { "did not go as expected" };
        writeln!(out, "scenario {name} {went}: {}", scenario.about.trim())?;
    }
    verdict.map(|()| Exit::Ok).map_err(refused)
}

fn run_soak(
    seeds: Range<u64>,
    threads: Option<usize>,
    json: bool,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let threads = threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let what = format!("seeds {}..{}", seeds.start, seeds.end);
    let result = guarded(&what, || soak(seeds, threads, &Options::default()))?;
    if json {
        let failures =
            result.failures.iter().map(|(seed, failure)| json!({ "seed": seed, "broken": failure.what }));
        let value = json!({
            "seeds": result.seeds,
            "hash": format!("{:016x}", result.hash),
            "virtual_time_us": result.virtual_time,
            "failures": failures.collect::<Vec<_>>(),
            "seen": seen(&result.seen),
        });
        print_json(&value, out)?;
    } else {
        write!(out, "{result}")?;
    }
    if result.failures.is_empty() {
        return Ok(Exit::Ok);
    }
    let mut text = format!("{} of {} seeds broke a promise", result.failures.len(), result.seeds);
    for (seed, failure) in &result.failures {
        text.push_str(&format!(
            "\n{}\nsee it again with: mainstay sim run --seed {seed} --trace",
            failure.what
        ));
    }
    Err(Failure::Refused(text))
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
