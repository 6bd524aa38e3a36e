//! `mainstay sim run FILE...`: scenarios from files and folders.

use super::{guarded, print_json, print_lines};
use crate::args::SimRunArgs;
use crate::exit::{Exit, Failure};
use mainstay_sim::node::real_core;
use mainstay_sim::{Overrides, Scenario, run_scenario};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Runs them all, also after one that did not go as it says.
pub fn run(args: &SimRunArgs, json: bool, out: &mut dyn Write) -> Result<Exit, Failure> {
    let files = listed(&args.files)?;
    let mut told: Vec<Value> = Vec::new();
    let mut failed: Vec<String> = Vec::new();
    for file in &files {
        let (name, scenario) = read(file, args)?;
        let (verdict, trace) = guarded(&name, || run_scenario(&name, &scenario, real_core, args.trace))?;
        let broken = verdict.err().map(|error| error.to_string());
        if json {
            told.push(json!({ "scenario": name, "about": scenario.about, "broken": broken, "trace": trace }));
        } else {
            print_lines(&trace, out)?;
            let went = if broken.is_none() { "went as expected" } else { "did not go as expected" };
            writeln!(out, "scenario {name} {went}: {}", scenario.about.trim())?;
        }
        failed.extend(broken);
    }
    if json {
        // One file is one object; several are an array.
        let value = if let ([one], [_]) = (told.as_slice(), args.files.as_slice()) {
            one.clone()
        } else {
            Value::Array(told)
        };
        print_json(&value, out)?;
    } else if files.len() > 1 {
        writeln!(out, "{} of {} scenarios went as expected", files.len() - failed.len(), files.len())?;
    }
    if failed.is_empty() { Ok(Exit::Ok) } else { Err(Failure::Refused(failed.join("\n"))) }
}

fn unusable(path: &Path, reason: impl ToString) -> Failure {
    Failure::Local { object: path.display().to_string(), reason: reason.to_string() }
}

/// The files, and those of the folders by name.
fn listed(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let mut inside = Vec::new();
        for entry in path.read_dir().map_err(|error| unusable(path, error))? {
            let file = entry.map_err(|error| unusable(path, error))?.path();
            if file.extension().is_some_and(|extension| extension == "toml") {
                inside.push(file);
            }
        }
        if inside.is_empty() {
            return Err(unusable(path, "there is no .toml file in it"));
        }
        inside.sort();
        files.extend(inside);
    }
    Ok(files)
}

fn read(file: &Path, args: &SimRunArgs) -> Result<(String, Scenario), Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| unusable(file, error))?;
    let name = file
        .file_stem()
        .map_or_else(|| file.display().to_string(), |stem| stem.to_string_lossy().into_owned());
    let mut scenario = Scenario::parse(&name, &text).map_err(|error| Failure::Refused(error.to_string()))?;
    let named = scenario.topology.hosts.len();
    let bystanders = match args.hosts {
        None => None,
        Some(hosts) if hosts < named => {
            return Err(Failure::Refused(format!(
                "scenario {name} names {named} hosts: --hosts must be at least that many"
            )));
        }
        Some(hosts) => Some(hosts - named),
    };
    scenario.change(&Overrides { timing: args.timing.clone(), seed: args.seed, bystanders });
    Ok((name, scenario))
}
