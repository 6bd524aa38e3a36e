//! `docs/scenarios.md` is the whole language: every word is in it, and every example goes as it says.

use mainstay_sim::node::real_core;
use mainstay_sim::scenario::{expect, steps};
use mainstay_sim::{Scenario, Story, run_scenario};

const DOCUMENT: &str = include_str!("../../../docs/scenarios.md");

/// What the examples that are no whole scenario are said to be part of.
const AROUND: &str = r#"
about = "the example's topology"
hosts = ["host-1", "host-2", "host-3"]
datastores = ["ds1", "ds2"]
[[vm]]
name = "web"
host = "host-1"
[[vm]]
name = "db"
host = "host-2"
datastore = "ds2"
[[expect]]
that = "primary_is"
host = "host-3"
within = 20
"#;

fn examples() -> Vec<String> {
    let blocks = DOCUMENT.split("```toml\n").skip(1);
    blocks.filter_map(|rest| rest.split_once("\n```")).map(|(example, _)| example.to_owned()).collect()
}

#[test]
fn every_example_goes_as_it_says() {
    let examples = examples();
    assert!(examples.len() >= 6, "{}", examples.len());
    for (index, example) in examples.iter().enumerate() {
        let whole = example.starts_with("about");
        let text = if whole { example.clone() } else { format!("{AROUND}\n{example}") };
        let name = format!("example {}", index + 1);
        let result = Scenario::parse(&name, &text)
            .and_then(|scenario| run_scenario(&name, &scenario, real_core, false).0);
        assert!(
            result.is_ok(),
            "{}\n{example}",
            result.err().map(|error| error.to_string()).unwrap_or_default()
        );
    }
}

#[test]
fn every_word_is_described() {
    let described = |word: &str| DOCUMENT.contains(&format!("\n| `{word}` |"));
    let (actions, expectations) = (steps::words(), expect::words());
    assert!(actions.len() > 30 && expectations.len() > 10, "{actions:?} {expectations:?}");
    let missing: Vec<&String> = actions.iter().chain(&expectations).filter(|word| !described(word)).collect();
    assert!(missing.is_empty(), "docs/scenarios.md has no row for {missing:?}");
}

#[test]
fn every_story_is_described() {
    let missing: Vec<Story> =
        Story::all().filter(|story| !DOCUMENT.contains(&format!("\n| `{story}` |"))).collect();
    assert!(missing.is_empty(), "docs/scenarios.md has no row for {missing:?}");
}

/// The other way: a word of the tables that the code does not know.
#[test]
fn nothing_is_described_that_is_not_there() {
    let known: Vec<String> = steps::words().into_iter().chain(expect::words()).collect();
    let section = DOCUMENT.split("\n## What is done").nth(1).expect("a section on actions");
    let tables = section.split("\n## Sweeps").next().expect("up to the sweeps");
    let keys = ["at", "lasts", "times`, `every", "hosts`, `vms", "shifts"];
    for row in tables.lines().filter_map(|line| line.strip_prefix("| `")) {
        let word = row.split("` |").next().unwrap_or_default();
        assert!(
            keys.contains(&word) || word == "do" || word == "that" || known.iter().any(|known| known == word),
            "{word}"
        );
    }
}
