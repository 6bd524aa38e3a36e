//! Each file of `scenarios/` is a case. `MAINSTAY_SCENARIO=name` runs one of them, `MAINSTAY_SIM_TRACE=1` prints its trace.

use mainstay_sim::node::real_core;
use mainstay_sim::{Scenario, ScenarioError, run_scenario};
use std::ffi::OsStr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

fn run(file: &Path, trace: bool) -> Result<(), ScenarioError> {
    let name = file.file_stem().unwrap_or_default().to_string_lossy().to_string();
    let text = std::fs::read_to_string(file).expect("a readable file");
    let scenario = Scenario::parse(&name, &text)?;
    let (result, lines) = run_scenario(&name, &scenario, real_core, trace);
    if trace {
        println!("{}", lines.join("\n"));
    }
    result
}

#[test]
fn every_scenario_goes_as_it_says() {
    let wanted = std::env::var("MAINSTAY_SCENARIO").ok();
    let trace = std::env::var_os("MAINSTAY_SIM_TRACE").is_some();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut files: Vec<_> =
        folder.read_dir().expect("the folder of scenarios").flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.retain(|file| wanted.as_ref().is_none_or(|wanted| file.file_stem() == Some(OsStr::new(wanted))));
    files.sort();
    let next = AtomicUsize::new(0);
    let worker = || {
        let taken = std::iter::from_fn(|| files.get(next.fetch_add(1, Ordering::Relaxed)));
        taken.filter_map(|file| run(file, trace).err()).collect::<Vec<_>>()
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let failed: Vec<ScenarioError> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker that did not panic")).collect()
    });
    let failed: Vec<String> = failed.iter().map(ToString::to_string).collect();
    let count = files.len();
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

fn small(from: &str, to: &str) -> Result<(), ScenarioError> {
    assert!(SMALL.contains(from), "{from}");
    let scenario = Scenario::parse("small", &SMALL.replace(from, to))?;
    run_scenario("small", &scenario, real_core, false).0
}

#[test]
fn a_name_that_is_not_there_is_an_error() {
    let result = small("HOST", "host-3");
    assert!(matches!(result, Err(ScenarioError::Unknown { .. })), "{result:?}");
}

#[test]
fn an_unmet_expectation_is_an_error() {
    let result = small("HOST", "host-2");
    assert!(matches!(result, Err(ScenarioError::Unmet { .. })), "{result:?}");
}

#[test]
fn what_can_not_be_meant_is_an_error_that_says_where() {
    let cases = [
        ("on = \"HOST\"", "onn = \"host-1\"", "expectation 1: unknown field `onn`"),
        ("that = \"vm_runs\"", "that = \"vm_flies\"", "expectation 1: unknown variant `vm_flies`"),
        ("within = 5.0\n", "", "expectation 1: `within` is missing"),
        ("within = 5.0", "within = -5.0", "expectation 1: `within` is a number that is not negative"),
        ("[[expect]]", "[[step]]\nat = 1\ndo = \"jump\"\n[[expect]]", "step 1: unknown variant `jump`"),
        ("[[expect]]", "[[step]]\ndo = \"loss\"\npermille = 1\n[[expect]]", "step 1: `at` is missing"),
        (
            "[[expect]]",
            "[[step]]\nat = 1\nlasts = 2\ndo = \"power_on\"\nhost = \"host-1\"\n[[expect]]",
            "`lasts` can't be given with power_on",
        ),
        ("[[vm]]", "timing = \"fast\"\n[[vm]]", "there is no timing 'fast'"),
        (
            "[[vm]]",
            "timing = { heartbeat = 1, lease = 3, failure_timeout = 3 }\n[[vm]]",
            "failure_timeout (3.000 s) must be greater than lease (3.000 s)",
        ),
        ("[[vm]]", "colour = 3\n[[vm]]", "unknown field `colour`"),
        (
            "that = \"vm_runs\"\nvm = \"vm1\"\non = \"HOST\"",
            "that = \"no_event\"\nkind = \"vm_eaten\"",
            "there is no event 'vm_eaten'; the kinds are agent_started, ",
        ),
    ];
    for (from, to, said) in cases {
        let result = small(from, to).expect_err(to).to_string();
        assert!(result.contains(said), "{to}: {result}");
    }
}

#[test]
fn a_misspelt_field_of_an_event_does_not_make_an_expectation_hold() {
    let result = small(
        "that = \"vm_runs\"\nvm = \"vm1\"\non = \"HOST\"",
        "that = \"no_event\"\nkind = \"agent_started\"\nfields = { rebootet = true }",
    );
    let said = result.expect_err("no such field").to_string();
    assert!(said.contains("has no field 'rebootet'"), "{said}");
}
