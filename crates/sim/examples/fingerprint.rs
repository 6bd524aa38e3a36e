//! One hash over all that happens in a batch of seeds, one over a batch with a single fault each, one over all scenarios.
//! A change of the core that is to leave its behaviour alone leaves these alone: `scripts/same-behaviour.sh`.
//!
//! `cargo run -p mainstay-sim --example fingerprint -- 4096`

use mainstay_sim::node::real_core;
use mainstay_sim::{Options, Scenario, run_one_fault, run_scenario, soak};
use std::hash::Hasher;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// FNV-1a, as the simulator's traces use it: the standard library's hasher may change with a release.
struct Fnv(u64);

impl Fnv {
    fn new() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// Does the same with each item on as many threads as there are processors; the results have the items' order.
fn on_all_processors<T: Sync, R: Send>(items: &[T], act: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let taken = std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)));
        let mine = taken.map_while(|index| items.get(index).map(|item| (index, act(item))));
        mine.collect::<Vec<_>>()
    };
    let mut all = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads()).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("no panic")).collect::<Vec<_>>()
    });
    all.sort_by_key(|(index, _)| *index);
    all.into_iter().map(|(_, result)| result).collect()
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

fn files_of_scenarios() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let entries = folder.read_dir().expect("the folder of scenarios").flatten();
    let toml = |file: &PathBuf| file.extension().is_some_and(|ext| ext == "toml");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(toml).collect();
    files.sort();
    files
}

/// The bytes that a scenario adds to the hash: its name, whether it went as it says, and its trace.
fn story_of(file: &PathBuf) -> String {
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    let text = std::fs::read_to_string(file).expect("a readable file");
    let scenario = Scenario::parse(&name, &text).expect("a scenario");
    let (verdict, lines) = run_scenario(&name, &scenario, real_core, true);
    let went = if verdict.is_ok() { '\u{1}' } else { '\0' };
    format!("{name}{went}{}", lines.concat())
}

fn main() {
    let seeds = std::env::args().nth(1).and_then(|text| text.parse::<u64>().ok());
    let Some(seeds) = seeds else {
        eprintln!("usage: fingerprint SEEDS");
        std::process::exit(2);
    };
    let options = Options::default();
    let batch = soak(0..seeds, threads(), &options);
    println!("seeds 0..{seeds}: {} failed, hash {:016x}", batch.failures.len(), batch.hash);
    let mut hash = Fnv::new();
    let single: Vec<u64> = (0..seeds / 16).collect();
    on_all_processors(&single, |seed| run_one_fault(*seed, &options).hash)
        .into_iter()
        .for_each(|one| hash.write_u64(one));
    println!("one fault each 0..{}: hash {:016x}", single.len(), hash.finish());
    let files = files_of_scenarios();
    let mut hash = Fnv::new();
    on_all_processors(&files, story_of).into_iter().for_each(|story| hash.write(story.as_bytes()));
    println!("{} scenarios: hash {:016x}", files.len(), hash.finish());
}
