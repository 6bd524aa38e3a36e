//! One hash over all that happens in a batch of seeds, one over a batch with a single fault each, one over all scenarios.
//! A change of the core that is to leave its behaviour alone leaves these alone: `scripts/same-behaviour.sh`.
//!
//! `cargo run -p mainstay-sim --example fingerprint -- 4096`

use mainstay_sim::node::real_core;
use mainstay_sim::{Options, Scenario, run_one_fault, run_scenario, soak};
use std::hash::Hasher;
use std::path::{Path, PathBuf};

/// FNV-1a, as the simulator's traces use it: the standard library's hasher may change with a release.
struct Fnv(u64);

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

fn hash_of_scenarios() -> (usize, u64) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let entries = folder.read_dir().expect("the folder of scenarios").flatten();
    let toml = |file: &PathBuf| file.extension().is_some_and(|ext| ext == "toml");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(toml).collect();
    files.sort();
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    for file in &files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        let text = std::fs::read_to_string(file).expect("a readable file");
        let scenario = Scenario::parse(&name, &text).expect("a scenario");
        let (verdict, lines) = run_scenario(&name, &scenario, real_core, true);
        hash.write(name.as_bytes());
        hash.write_u8(u8::from(verdict.is_ok()));
        for line in lines {
            hash.write(line.as_bytes());
        }
    }
    (files.len(), hash.finish())
}

fn main() {
    let seeds = std::env::args().nth(1).and_then(|text| text.parse::<u64>().ok());
    let Some(seeds) = seeds else {
        eprintln!("usage: fingerprint SEEDS");
        std::process::exit(2);
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let options = Options::default();
    let batch = soak(0..seeds, threads, &options);
    println!("seeds 0..{seeds}: {} failed, hash {:016x}", batch.failures.len(), batch.hash);
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    let single = 0..seeds / 16;
    for seed in single.clone() {
        hash.write_u64(run_one_fault(seed, &options).hash);
    }
    println!("one fault each {single:?}: hash {:016x}", hash.finish());
    let (count, hash) = hash_of_scenarios();
    println!("{count} scenarios: hash {hash:016x}");
}
