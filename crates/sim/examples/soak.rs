//! Runs a batch of seeds and prints one line for each that failed: `cargo run --release -p mainstay-sim --example soak 0 2000`.
//! With the name of a story, each seed tells that one; with `stories`, all stories one after the other, and one line for each of them.

use mainstay_sim::{Options, Soak, Story, soak};
use std::collections::BTreeMap;

fn main() {
    let bound = |index: usize| std::env::args().nth(index).and_then(|text| text.parse::<u64>().ok());
    let (Some(from), Some(to)) = (bound(1), bound(2)) else {
        eprintln!("usage: soak FROM TO [STORY | stories]");
        std::process::exit(2);
    };
    let run = |story| soak(from..to, 2, &Options { story, ..Options::default() });
    match std::env::args().nth(3).as_deref() {
        Some("stories") => Story::all().for_each(|story| by_checker(story, &run(Some(story)))),
        Some(name) => match name.parse() {
            Ok(story) => {
                let soak = run(Some(story));
                failures(&soak);
                by_checker(story, &soak);
            }
            Err(why) => eprintln!("{why}"),
        },
        None => {
            let soak = run(None);
            failures(&soak);
            print!("{soak}");
            println!("never seen: {:?}", soak.seen.missing());
        }
    }
}

fn failures(soak: &Soak) {
    for (_, failure) in &soak.failures {
        let lines: Vec<&str> = failure.what.lines().take(2).map(str::trim).collect();
        println!("{} ({} us)", lines.join(" "), failure.at);
    }
}

/// How many seeds failed by which checker.
fn by_checker(story: Story, soak: &Soak) {
    let mut found: BTreeMap<&str, u64> = BTreeMap::new();
    for (_, failure) in &soak.failures {
        *found.entry(failure.what.split(": ").nth(1).unwrap_or("?")).or_default() += 1;
    }
    println!("{story}: {} seeds, {} failed {found:?}", soak.seeds, soak.failures.len());
}
