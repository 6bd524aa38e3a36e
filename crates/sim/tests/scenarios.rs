//! Each file of `scenarios/` is a case. `MAINSTAY_SCENARIO=name` runs one of them, `MAINSTAY_SIM_TRACE=1` prints its trace.

use mainstay_sim::node::real_core;
use mainstay_sim::{Scenario, ScenarioError, run_scenario};
use std::path::Path;

#[test]
fn every_scenario_goes_as_it_says() {
    let wanted = std::env::var("MAINSTAY_SCENARIO").ok();
    let trace = std::env::var_os("MAINSTAY_SIM_TRACE").is_some();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut failed = Vec::new();
    let mut count = 0;
    let mut files: Vec<_> =
        folder.read_dir().expect("the folder of scenarios").flatten().map(|entry| entry.path()).collect();
    files.sort();
    for file in files.iter().filter(|file| file.extension().is_some_and(|ext| ext == "toml")) {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().to_string();
        if wanted.as_ref().is_some_and(|wanted| *wanted != name) {
            continue;
        }
        count += 1;
        let text = std::fs::read_to_string(file).expect("a readable file");
        let result = Scenario::parse(&name, &text).and_then(|scenario| {
            let (result, lines) = run_scenario(&name, &scenario, real_core, trace);
            if trace {
                println!("{}", lines.join("\n"));
            }
            result
        });
        if let Err(error) = result {
            failed.push(error.to_string());
        }
    }
    assert!(count > 0, "no scenario is called {wanted:?}");
    assert!(failed.is_empty(), "{} of {count} scenarios failed:\n{}", failed.len(), failed.join("\n"));
}

const SMALL: &str = r#"
about = "A host of two loses power."
hosts = ["host-1", "host-2"]
[[vm]]
name = "vm1"
host = "host-1"
[[expect]]
within = 5.0
that = "vm_runs"
vm = "vm1"
on = "HOST"
"#;

#[test]
fn a_name_that_is_not_there_is_an_error() {
    let scenario = Scenario::parse("small", &SMALL.replace("HOST", "host-3")).expect("it parses");
    let (result, _) = run_scenario("small", &scenario, real_core, false);
    assert!(matches!(result, Err(ScenarioError::Unknown { .. })), "{result:?}");
}

#[test]
fn an_unmet_expectation_is_an_error() {
    let scenario = Scenario::parse("small", &SMALL.replace("HOST", "host-2")).expect("it parses");
    let (result, _) = run_scenario("small", &scenario, real_core, false);
    assert!(matches!(result, Err(ScenarioError::Unmet { .. })), "{result:?}");
}

#[test]
fn an_unknown_field_is_an_error() {
    let text = SMALL.replace("on = \"HOST\"", "onn = \"host-1\"");
    assert!(matches!(Scenario::parse("small", &text), Err(ScenarioError::Unreadable { .. })));
}
