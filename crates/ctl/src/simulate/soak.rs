//! `mainstay sim soak`: many seeds, with a bar on terminals, and what was found also when it is ended early.

use super::{print_json, seen, shape};
use crate::args::SimSoakArgs;
use crate::exit::{Exit, Failure};
use indicatif::{ProgressBar, ProgressStyle};
use mainstay_sim::{Go, Options, Soak, soak_watched};
use serde_json::json;
use signal_hook::consts::SIGINT;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const MICROS_PER_HOUR: f64 = 3_600e6;
/// So many failures are told in full; a broken build fails thousands of seeds in the same way.
const TOLD_MAX: usize = 20;

/// Runs the seeds.
pub fn run(args: &SimSoakArgs, json: bool, out: &mut dyn Write) -> Result<Exit, Failure> {
    let jobs =
        args.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).max(1);
    let wanted = args.seeds.end - args.seeds.start;
    let interrupted = on_interrupt()?;
    let bar = bar(wanted);
    let started = Instant::now();
    let shape = shape(args.hosts, args.datastores, args.vms, args.timing.as_ref())?;
    let options = Options { shape, story: args.story, ..Options::default() };
    let result = soak_watched(args.seeds.clone(), jobs, &options, &|so_far, failure| {
        if let Some(failure) = failure {
            bar.println(failure.to_string());
        }
        bar.set_message(progress(so_far, started.elapsed()));
        bar.set_position(so_far.seeds);
        if interrupted.load(Ordering::Relaxed) { Go::NoFurther } else { Go::On }
    });
    bar.finish_and_clear();
    let took = started.elapsed();
    if json {
        let failures = result
            .failures
            .iter()
            .map(|(seed, failure)| json!({ "seed": seed, "broken": failure.what, "again": failure.paste }));
        let value = json!({
            "seeds": result.seeds,
            "seeds_wanted": wanted,
            "hash": format!("{:016x}", result.hash),
            "virtual_time_us": result.virtual_time,
            "seconds": took.as_secs_f64(),
            "simulated_hours_per_second": rate(&result, took),
            "failures": failures.collect::<Vec<_>>(),
            "seen": seen(&result.seen),
            "never_seen": result.seen.missing(),
        });
        print_json(&value, out)?;
    } else {
        write!(out, "{result}")?;
        let hours = result.virtual_time as f64 / MICROS_PER_HOUR;
        writeln!(
            out,
            "{hours:.1} simulated hours in {:.1} s, {:.1} a second",
            took.as_secs_f64(),
            rate(&result, took)
        )?;
        if result.seeds < wanted {
            writeln!(out, "ended early, after {} of {wanted} seeds", result.seeds)?;
        }
    }
    verdict(&result, args.require_sometimes)
}

/// The first Ctrl-C asks for the end, which comes with the seeds that run now; a second one does not wait for them.
fn on_interrupt() -> Result<Arc<AtomicBool>, Failure> {
    let flag = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register_conditional_default(SIGINT, Arc::clone(&flag))
        .and_then(|_| signal_hook::flag::register(SIGINT, Arc::clone(&flag)))
        .map_err(|error| Failure::Local { object: String::from("Ctrl-C"), reason: error.to_string() })?;
    Ok(flag)
}

/// On stderr; where that is no terminal, nothing of it is shown.
fn bar(seeds: u64) -> ProgressBar {
    let bar = ProgressBar::new(seeds);
    let style = ProgressStyle::with_template("{wide_bar} {human_pos}/{human_len} seeds, {msg}, {eta} left");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn rate(soak: &Soak, took: Duration) -> f64 {
    soak.virtual_time as f64 / MICROS_PER_HOUR / took.as_secs_f64().max(0.001)
}

fn progress(soak: &Soak, took: Duration) -> String {
    format!("{:.1} simulated hours/s, {} failed", rate(soak, took), soak.failures.len())
}

/// What of it is a failure.
fn verdict(result: &Soak, require_sometimes: bool) -> Result<Exit, Failure> {
    let mut text = Vec::new();
    if !result.failures.is_empty() {
        text.push(format!("{} of {} seeds broke a promise", result.failures.len(), result.seeds));
        text.extend(result.failures.iter().take(TOLD_MAX).map(|(_, failure)| failure.to_string()));
        if result.failures.len() > TOLD_MAX {
            let seeds = result.failures.iter().skip(TOLD_MAX).map(|(seed, _)| seed.to_string());
            text.push(format!("and, told no further, seeds {}", seeds.collect::<Vec<_>>().join(" ")));
        }
    }
    let missing = result.seen.missing();
    if require_sometimes && !missing.is_empty() {
        text.push(format!(
            "vacuous: {} seeds never saw {}; run more seeds, and when that does not help, the generator does not cause it",
            result.seeds,
            missing.join(", ")
        ));
    }
    if text.is_empty() { Ok(Exit::Ok) } else { Err(Failure::Refused(text.join("\n"))) }
}
