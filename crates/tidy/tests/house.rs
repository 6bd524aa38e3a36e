//! No figure of the house gets worse. The limits stand in `src/limits.rs`, each with its goal.

use mainstay_tidy::figures::{Figure, figures};
use mainstay_tidy::tree::Tree;
use std::path::Path;

/// How many places of a figure that has become worse are shown.
const SHOWN: usize = 30;

#[test]
fn no_figure_is_worse_than_its_limit() {
    let tree = Tree::read(Path::new(env!("CARGO_MANIFEST_DIR"))).expect("the workspace");
    let figures = figures(&tree).expect("figures");
    for figure in figures.iter().filter(|figure| figure.is_better()) {
        println!("the limit of `{}` can be tightened: {}", figure.limit.key, sentence(figure));
    }
    let worse: Vec<String> = figures.iter().filter(|figure| figure.is_worse()).map(report).collect();
    assert!(worse.is_empty(), "worse than crates/tidy/src/limits.rs allows:\n{}", worse.join("\n"));
}

fn sentence(figure: &Figure) -> String {
    let limit = figure.limit.limit.unwrap_or_default();
    format!("{}: {}, limit {limit}, goal {}", figure.limit.what, figure.value, figure.limit.goal)
}

fn report(figure: &Figure) -> String {
    let places: String = figure.places.iter().take(SHOWN).map(|place| format!("\n    {place}")).collect();
    format!("{}{places}\n    (all: scripts/house.sh {})", sentence(figure), figure.limit.key)
}
