//! What recording costs: `cargo run --release -p mainstay-recorder --example cost [SEED]`. Runs a simulated cluster with
//! faults and prints bytes per step, and the time that the driver's side of the recorder takes.

use mainstay_core::{Config, Core, Effect, Input, Time, View};
use mainstay_recorder::{Counts, Identity, Options, Recorder};
use mainstay_sim::{Node, run_seed};
use std::cell::RefCell;
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[derive(Default)]
struct Sum {
    recording: Duration,
    slowest: Duration,
    stepping: Duration,
    steps: u64,
    counts: Counts,
}

thread_local! {
    static SUM: RefCell<Sum> = RefCell::default();
    static DIR: RefCell<PathBuf> = RefCell::default();
}

struct Timed {
    core: Core,
    recorder: Recorder,
}

fn timed(config: Config, now: Time) -> Result<Box<dyn Node>, String> {
    let dir = DIR.with_borrow(|dir| dir.join(config.me.as_str()));
    // A queue that holds everything: virtual time is faster than any disk.
    let options = Options { queue_max: 1 << 22, ..Options::new(dir, 1 << 30) };
    let identity = Identity { cluster: "cost".into(), software: "0".into(), config: config.clone() };
    let recorder = Recorder::start(options, identity).map_err(|error| error.to_string())?;
    Ok(Box::new(Timed { core: Core::new(config, now)?, recorder }))
}

impl Node for Timed {
    fn step(&mut self, now: Time, input: Input, effects: &mut Vec<Effect>) {
        let begin = Instant::now();
        self.recorder.record(now, &input, &self.core);
        let recorded = Instant::now();
        self.core.step(now, input, effects);
        SUM.with_borrow_mut(|sum| {
            sum.stepping += recorded.elapsed();
            sum.recording += recorded - begin;
            sum.slowest = sum.slowest.max(recorded - begin);
            sum.steps += 1;
        });
    }

    fn next_deadline(&self) -> Time {
        self.core.next_deadline()
    }

    fn view(&self, now: Time) -> Option<View> {
        Some(self.core.view(now))
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut before = Counts::default();
        // Until nothing more is written.
        while before != self.recorder.counts() && Instant::now() < deadline {
            before = self.recorder.counts();
            std::thread::sleep(Duration::from_millis(1_200));
        }
        SUM.with_borrow_mut(|sum| {
            sum.counts.bytes += before.bytes;
            sum.counts.segments += before.segments;
            sum.counts.lost += before.lost;
        });
    }
}

fn main() {
    let seed = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1);
    let dir = std::env::temp_dir().join(format!("mainstay-recorder-cost-{}", std::process::id()));
    DIR.set(dir.clone());
    let outcome = run_seed(seed, &mainstay_sim::Options { node: timed, ..mainstay_sim::Options::default() });
    SUM.with_borrow(|sum| {
        let per_step = |time: Duration| time.as_secs_f64() * 1e6 / sum.steps as f64;
        println!(
            "seed {seed}: {} steps in {} s of virtual time",
            sum.steps,
            outcome.virtual_time / 1_000_000
        );
        println!(
            "bytes per step      {:.0} ({} segments, {} steps lost)",
            sum.counts.bytes as f64 / sum.steps as f64,
            sum.counts.segments,
            sum.counts.lost
        );
        println!(
            "driver, recording   {:.2} us per step (slowest {} us)",
            per_step(sum.recording),
            sum.slowest.as_micros()
        );
        println!("driver, the step    {:.2} us per step", per_step(sum.stepping));
    });
    // A folder of our own making; if it stays, it is in the way of nobody.
    let _ = std::fs::remove_dir_all(dir);
}
