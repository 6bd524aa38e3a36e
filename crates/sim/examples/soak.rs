//! Runs a batch of seeds and prints one line for each that failed: `cargo run --release -p mainstay-sim --example soak 0 2000`.

use mainstay_sim::{Options, soak};

fn main() {
    let bound = |index: usize| std::env::args().nth(index).and_then(|text| text.parse::<u64>().ok());
    let (Some(from), Some(to)) = (bound(1), bound(2)) else {
        eprintln!("usage: soak FROM TO");
        std::process::exit(2);
    };
    let soak = soak(from..to, 2, &Options::default());
    for (_, failure) in &soak.failures {
        let lines: Vec<&str> = failure.what.lines().take(2).map(str::trim).collect();
        println!("{} ({} us)", lines.join(" "), failure.at);
    }
    print!("{soak}");
    println!("never seen: {:?}", soak.seen.missing());
}
