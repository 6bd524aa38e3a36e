//! The repository as the test of the documents reads it.

use super::*;

/// What the documents are compared with.
#[derive(Clone, Debug, Default)]
pub struct Repository {
    /// All Rust source below `crates`, by its path from the root.
    pub sources: BTreeMap<String, String>,
    /// The scenarios, and the rules that each names.
    pub scenarios: BTreeMap<String, Vec<String>>,
    /// Names of test functions.
    pub tests: BTreeSet<String>,
    /// All Markdown files, by their path from the root.
    pub documents: BTreeMap<String, String>,
}

impl Repository {
    /// Whether there is such a file or folder.
    pub fn has(&self, path: &str) -> bool {
        self.sources.contains_key(path)
            || (path.ends_with('/') && self.sources.keys().any(|file| file.starts_with(path)))
    }
}

/// Reads it.
pub fn repository() -> Repository {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    collect(&root, &mut files);
    let mut found = Repository::default();
    for file in files {
        let path = file.strip_prefix(&root).expect("below the root").to_string_lossy().into_owned();
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{path}: {error}"));
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("rs") if path.starts_with("crates/") => {
                found.tests.extend(tests_in(&text));
                found.sources.insert(path, text);
            }
            Some("md") => drop(found.documents.insert(path, text)),
            Some("toml") if path.starts_with("crates/sim/scenarios/") => {
                let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
                found.scenarios.insert(name, rules_of(&text));
            }
            Some(_) | None => {}
        }
    }
    found
}

/// The rules that a scenario names, in a line of their own. (The simulator refuses what is no list of rules.)
fn rules_of(scenario: &str) -> Vec<String> {
    let line = scenario.lines().find(|line| line.starts_with("rules = [")).unwrap_or_default();
    line.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Rust, Markdown and TOML files below a folder, without what was built and what is hidden.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') || name == "target" {
            continue;
        }
        if path.is_dir() {
            collect(&path, files);
        } else if ["rs", "md", "toml"].iter().any(|ending| name.ends_with(&format!(".{ending}"))) {
            files.push(path);
        }
    }
}

/// The names of functions that are tests, and of those that a suite names.
fn tests_in(source: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut tested = false;
    for line in source.lines().map(str::trim) {
        if line == "#[test]" || line.starts_with("#[tokio::test") {
            tested = true;
        } else if let Some(rest) = line.split_once("fn ").map(|(_, rest)| rest).filter(|_| tested) {
            names.push(rest.split(['(', '<']).next().unwrap_or(rest).to_owned());
            tested = false;
        }
    }
    names
}
