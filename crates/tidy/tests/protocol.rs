//! The documents are true: rules and promises are where `docs/internals/protocol.md` says, and what cites one cites one that exists.
//!
//! [`Protocol::parse`] reads the rules out of the text; [`faults`] compares them with the repository. Each check is also run on a
//! broken sample, so that it is known to be able to fail.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

mod repository;

use repository::{Repository, repository};

/// Rules that nothing shows yet, and why. One that is shown has to leave this list.
const SHOWN_BY_NOTHING: [(&str, &str); 1] = [("R47", "no scenario and no test can move a disk")];

/// As wide as a line of the protocol may be, so that a difference shows one thought.
const LINE_MAX: usize = 120;

/// A rule as the document has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rule {
    heading: String,
    lives_in: Vec<Place>,
    shown_by: Vec<String>,
}

/// A file or a room that a rule lives in, and the functions and types there that keep it: `` `path` (`name`, `name`) ``.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Place {
    path: String,
    names: Vec<String>,
}

/// All that the documents say about rules and promises.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Protocol {
    rules: BTreeMap<String, Rule>,
    /// Promises, and what checks them.
    promises: BTreeMap<String, Vec<String>>,
    /// The list of rules on the first page: number and heading.
    index: BTreeMap<String, String>,
    /// What can't be read.
    unreadable: Vec<String>,
}

impl Protocol {
    /// Reads one more file.
    fn parse(&mut self, text: &str) {
        let mut present: Option<(String, Rule)> = None;
        for block in text.split("\n\n") {
            let block = block.trim();
            if let Some(heading) = block.strip_prefix("### ") {
                self.end(present.take());
                let (name, heading) = heading.split_once(' ').unwrap_or((heading, ""));
                if is_cited(name) {
                    present =
                        Some((name.to_owned(), Rule { heading: heading.to_owned(), ..Rule::default() }));
                }
            } else if block.starts_with("## ") {
                self.end(present.take());
            } else if let (Some(paths), Some((_, rule))) = (block.strip_prefix("*Lives in:*"), &mut present) {
                rule.lives_in = places(paths);
            } else if let (Some(names), Some((_, rule))) = (block.strip_prefix("*Shown by:*"), &mut present) {
                rule.shown_by = in_backticks(names);
            } else if let (Some(paths), Some((_, rule))) = (block.strip_prefix("*Checked by:*"), &mut present)
            {
                rule.lives_in =
                    in_backticks(paths).into_iter().map(|path| Place { path, names: Vec::new() }).collect();
            }
            for line in block.lines() {
                if let [number, heading] = cells(line).as_slice()
                    && is_cited(number)
                {
                    self.index.insert(number.clone(), heading.clone());
                }
            }
        }
        self.end(present);
    }

    fn end(&mut self, rule: Option<(String, Rule)>) {
        let Some((name, rule)) = rule else { return };
        let twice = if name.starts_with('I') {
            let checked_by = rule.lives_in.into_iter().map(|place| place.path).collect();
            self.promises.insert(name.clone(), checked_by).is_some()
        } else {
            self.rules.insert(name.clone(), rule).is_some()
        };
        if twice {
            self.unreadable.push(format!("{name} is there twice"));
        }
    }
}

/// Whether this is the name of a rule or a promise.
fn is_cited(name: &str) -> bool {
    let number = name.strip_prefix('R').map(|number| (number, 99)).or(name.strip_prefix('I').map(|n| (n, 8)));
    number.is_some_and(|(digits, most)| {
        !digits.starts_with('0') && digits.parse::<u32>().is_ok_and(|number| (1..=most).contains(&number))
    })
}

/// What stands between backticks.
fn in_backticks(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The places in a *Lives in* line. What is no path is a name in the path before it.
fn places(text: &str) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    for word in in_backticks(text) {
        match places.last_mut() {
            Some(place) if !word.ends_with(".rs") && !word.ends_with('/') => place.names.push(word),
            Some(_) | None => places.push(Place { path: word, names: Vec::new() }),
        }
    }
    places
}

/// Whether source defines a function, a type or a constant of that name.
fn defines(source: &str, name: &str) -> bool {
    source.lines().map(str::trim_start).filter(|line| !line.starts_with("//")).any(|line| {
        let words: Vec<&str> = line.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        let is_it = |two: &[&str]| ["fn", "struct", "enum", "const"].contains(&two[0]) && two[1] == name;
        words.windows(2).any(is_it)
    })
}

/// The cells of a row of a Markdown table; none when the line is no row.
fn cells(line: &str) -> Vec<String> {
    let row = line.trim().strip_prefix('|').and_then(|row| row.strip_suffix('|'));
    row.map_or_else(Vec::new, |row| row.split('|').map(|cell| cell.trim().to_owned()).collect())
}

/// All names of rules and promises in a text, ranges such as `R30 to R33` and `I1..I8` included.
fn citations(text: &str) -> BTreeSet<String> {
    let words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    let mut found: BTreeSet<String> =
        words.iter().filter(|word| is_name(word)).map(|word| (*word).to_owned()).collect();
    for three in words.windows(3) {
        let numbers = |at: usize| three[at].get(1..).and_then(|digits| digits.parse::<u32>().ok());
        if let (true, true, "to", Some(from), Some(to)) =
            (is_name(three[0]), is_name(three[2]), three[1], numbers(0), numbers(2))
        {
            found.extend((from..to).map(|number| format!("{}{number}", &three[0][..1])));
        }
    }
    found
}

/// Looks like the name of a rule or a promise, whether there is one or not.
fn is_name(word: &str) -> bool {
    let digits = |prefix| word.strip_prefix(prefix).filter(|digits: &&str| matches!(digits.len(), 1 | 2));
    digits('R').or(digits('I')).is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Comments of Rust source: what stands behind `//`.
fn comments(source: &str) -> String {
    let comment = |line: &str| line.split_once("//").map(|(_, comment)| comment.to_owned());
    source.lines().filter_map(comment).collect::<Vec<_>>().join("\n")
}

/// A path of the document, from the root of the repository.
fn from_root(path: &str) -> String {
    if path.starts_with("crates/") { path.to_owned() } else { format!("crates/core/src/{path}") }
}

/// Where the documents and the repository don't fit each other.
fn faults(protocol: &Protocol, repository: &Repository) -> Vec<String> {
    let mut faults = protocol.unreadable.clone();
    let headings: BTreeMap<String, String> =
        protocol.rules.iter().map(|(name, rule)| (name.clone(), rule.heading.clone())).collect();
    for (name, heading) in &headings {
        if protocol.index.get(name) != Some(heading) {
            faults.push(format!("the list of rules does not have {name} with the heading {heading:?}"));
        }
    }
    faults.extend(
        protocol
            .index
            .keys()
            .filter(|name| !headings.contains_key(*name))
            .map(|name| format!("the list of rules has {name}, which is no rule")),
    );
    for (name, rule) in &protocol.rules {
        faults.extend(faults_of_place(name, rule, repository));
        faults.extend(faults_of_showing(name, rule, repository));
    }
    for number in 1..=8 {
        let name = format!("I{number}");
        let checked = protocol.promises.get(&name);
        let missing = |path: &&String| path.starts_with("crates/") && !repository.has(path);
        match checked {
            None => faults.push(format!("{name} is not there")),
            Some(paths) if paths.is_empty() => faults.push(format!("{name} does not say what checks it")),
            Some(paths) => faults.extend(
                paths
                    .iter()
                    .filter(missing)
                    .map(|path| format!("{name} is checked by {path}: there is none")),
            ),
        }
    }
    let known = |name: &String| protocol.rules.contains_key(name) || protocol.promises.contains_key(name);
    for (path, text) in &repository.sources {
        let cited = citations(&comments(text));
        faults.extend(
            cited
                .iter()
                .filter(|name| !known(name))
                .map(|name| format!("{path} cites {name}: there is none")),
        );
    }
    for (path, text) in &repository.documents {
        let cited = citations(text);
        faults.extend(
            cited
                .iter()
                .filter(|name| !known(name))
                .map(|name| format!("{path} cites {name}: there is none")),
        );
    }
    for (scenario, rules) in &repository.scenarios {
        if !(1..=4).contains(&rules.len()) {
            faults
                .push(format!("scenario {scenario} names {} rules; it is to name one to four", rules.len()));
        }
        faults.extend(
            rules
                .iter()
                .filter(|rule| !known(rule))
                .map(|rule| format!("scenario {scenario} shows {rule}: there is none")),
        );
    }
    faults
}

/// Whether a file is the one that a path names or, where it names a room (`claims/`), one of that room's: `claims.rs` is its first.
fn is_in(file: &str, path: &str) -> bool {
    let room = path.strip_suffix('/');
    file == path || room.is_some_and(|room| file.starts_with(path) || file.strip_suffix(".rs") == Some(room))
}

fn faults_of_place(name: &str, rule: &Rule, repository: &Repository) -> Vec<String> {
    if rule.lives_in.is_empty() {
        return vec![format!("{name} does not say where it lives")];
    }
    let cites = |place: &Place| {
        let path = from_root(&place.path);
        let below = repository.sources.iter().filter(|(file, _)| is_in(file, &path));
        below.map(|(_, text)| citations(&comments(text))).any(|cited| cited.contains(name))
    };
    if !rule.lives_in.iter().any(cites) {
        return vec![format!("{name} lives in files of which none cites it")];
    }
    rule.lives_in.iter().flat_map(|place| faults_of_one_place(name, place, repository)).collect()
}

/// A place is there, and says what of it keeps the rule: by names that it defines, or by citing the rule itself.
fn faults_of_one_place(name: &str, place: &Place, repository: &Repository) -> Vec<String> {
    let path = from_root(&place.path);
    if !repository.has(&path) {
        return vec![format!("{name} lives in {path}: there is none")];
    }
    let below = || repository.sources.iter().filter(|(file, _)| is_in(file, &path)).map(|(_, text)| text);
    let missing = place.names.iter().filter(|wanted| !below().any(|text| defines(text, wanted)));
    let mut faults: Vec<String> =
        missing.map(|missing| format!("{name} lives in {path}, which defines no {missing}")).collect();
    let cited = below().any(|text| citations(&comments(text)).contains(name));
    if place.names.is_empty() && !cited {
        faults.push(format!("{name} lives in {path}, which does not cite it"));
    }
    faults
}

fn faults_of_showing(name: &str, rule: &Rule, repository: &Repository) -> Vec<String> {
    let mut faults = Vec::new();
    for shown in &rule.shown_by {
        match repository.scenarios.get(shown) {
            Some(rules) if !rules.iter().any(|rule| rule == name) => {
                faults.push(format!("{name} is shown by {shown}, which does not name it"));
            }
            Some(_) => {}
            None if !repository.tests.contains(shown) => {
                faults.push(format!("{name} is shown by {shown}, which is neither a scenario nor a test"));
            }
            None => {}
        }
    }
    let scenario = repository.scenarios.values().flatten().any(|rule| rule == name);
    let excused = SHOWN_BY_NOTHING.iter().any(|(excused, _)| *excused == name);
    match (scenario || !rule.shown_by.is_empty(), excused) {
        (false, false) => faults.push(format!("nothing shows {name}")),
        (true, true) => faults.push(format!("{name} is shown by now: take it out of SHOWN_BY_NOTHING")),
        (true, false) | (false, true) => {}
    }
    faults
}

/// Headings that a text has more than once.
fn doubled_headings(text: &str) -> Vec<String> {
    let (mut seen, mut doubled, mut fenced) = (BTreeSet::new(), Vec::new(), false);
    for line in text.lines() {
        fenced ^= line.trim_start().starts_with("```");
        if !fenced && line.starts_with('#') && !seen.insert(line.trim_start_matches('#').trim()) {
            doubled.push(line.to_owned());
        }
    }
    doubled
}

fn protocol(repository: &Repository) -> Protocol {
    let mut protocol = Protocol::default();
    let texts = repository.documents.iter().filter(|(path, _)| path.starts_with("docs/internals/protocol"));
    texts.for_each(|(_, text)| protocol.parse(text));
    protocol
}

#[test]
fn the_protocol_and_the_repository_fit_each_other() {
    let repository = repository();
    let protocol = protocol(&repository);
    assert!(protocol.rules.len() > 50 && repository.scenarios.len() > 200, "{}", protocol.rules.len());
    let faults = faults(&protocol, &repository);
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn no_heading_is_there_twice() {
    let mut faults = Vec::new();
    // A change log has the same headings for each release.
    for (path, text) in repository().documents.iter().filter(|(path, _)| *path != "CHANGELOG.md") {
        faults.extend(doubled_headings(text).into_iter().map(|heading| format!("{path}: twice: {heading}")));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_protocol_has_short_lines() {
    let repository = repository();
    let texts = repository.documents.iter().filter(|(path, _)| path.starts_with("docs/internals/protocol"));
    let long = |line: &&str| line.chars().count() > LINE_MAX;
    let lines: Vec<&str> = texts.flat_map(|(_, text)| text.lines()).filter(long).collect();
    assert!(lines.is_empty(), "longer than {LINE_MAX}:\n{}", lines.join("\n"));
}

/// A protocol of one rule that fits [`sample_repository`].
const SAMPLE: &str = "# A sample\n\n### I1 One\n\nText.\n\n*Checked by:* `crates/a.rs`\n\n### R1 A rule\n\nText of R1.\n\n\
                      *Lives in:* `crates/a.rs`,\n`crates/b.rs` (`keep`, `Kept`), `crates/room/`\n\n*Shown by:* `a_scenario`, `a_test`\n\n## The rules\n\n\
                      | rule | what |\n| --- | --- |\n| R1 | A rule |\n";

fn sample_repository() -> Repository {
    let source = |path: &str, text: &str| (path.to_owned(), text.to_owned());
    Repository {
        sources: BTreeMap::from([
            source("crates/a.rs", "let R9 = 1; // R1 and I1 live here"),
            source(
                "crates/b.rs",
                "// fn gone\npub(crate) struct Kept;\nimpl Kept {\n    pub fn keep<T>(&self) {}\n}",
            ),
            source("crates/room/b.rs", "//! Rules R1 to R1."),
        ]),
        scenarios: BTreeMap::from([("a_scenario".into(), vec!["R1".into()])]),
        tests: BTreeSet::from(["a_test".into()]),
        documents: BTreeMap::new(),
    }
}

fn faults_of_sample(text: &str, repository: &Repository) -> String {
    let mut protocol = Protocol::default();
    protocol.parse(text);
    let missing = |fault: &String| (2..=8).any(|number| *fault == format!("I{number} is not there"));
    faults(&protocol, repository).into_iter().filter(|fault| !missing(fault)).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_sample_that_fits_has_no_fault() {
    assert_eq!(faults_of_sample(SAMPLE, &sample_repository()), "");
}

#[test]
fn each_fault_of_a_broken_sample_is_found() {
    let broken = |from: &str, to: &str| {
        assert!(SAMPLE.contains(from), "{from}");
        faults_of_sample(&SAMPLE.replacen(from, to, 1), &sample_repository())
    };
    let same =
        |from: &str, to: &str, what: &str| assert!(broken(from, to).contains(what), "{}", broken(from, to));
    same("`crates/a.rs`,", "`crates/gone.rs`,", "R1 lives in crates/gone.rs: there is none");
    same("`keep`", "`gone`", "R1 lives in crates/b.rs, which defines no gone");
    same(" (`keep`, `Kept`)", "", "R1 lives in crates/b.rs, which does not cite it");
    same(
        "`crates/a.rs`,\n`crates/b.rs` (`keep`, `Kept`), `crates/room/`",
        "`crates/b.rs` (`keep`)",
        "R1 lives in files of which none cites it",
    );
    same("| R1 | A rule |", "| R1 | Another |", "does not have R1 with the heading");
    same("| R1 | A rule |", "| R1 | A rule |\n| R2 | More |", "the list of rules has R2, which is no rule");
    same("`a_scenario`", "`no_scenario`", "neither a scenario nor a test");
    same("*Lives in:*", "*Lived in:*", "R1 does not say where it lives");
    same("*Checked by:* `crates/a.rs`", "*Checked by:* nobody", "I1 does not say what checks it");
    same(
        "*Checked by:* `crates/a.rs`",
        "*Checked by:* `crates/c.rs`",
        "I1 is checked by crates/c.rs: there is none",
    );
    same("## The rules", "### R1 Again\n\n*Lives in:* `crates/a.rs`\n\n## The rules", "R1 is there twice");

    let other = |change: fn(&mut Repository), what: &str| {
        let mut repository = sample_repository();
        change(&mut repository);
        let found = faults_of_sample(SAMPLE, &repository);
        assert!(found.contains(what), "{found}");
    };
    other(
        |repository| drop(repository.sources.insert("crates/a.rs".into(), "let R1 = 1;".into())),
        "R1 lives in crates/a.rs, which does not cite it",
    );
    other(
        |repository| drop(repository.sources.insert("crates/c.rs".into(), format!("// as R{} has it", 7))),
        "crates/c.rs cites R7: there is none",
    );
    other(
        |repository| drop(repository.scenarios.insert("a_scenario".into(), vec!["R3".into()])),
        "R1 is shown by a_scenario, which does not name it",
    );
    other(
        |repository| drop(repository.scenarios.insert("b".into(), vec!["R99".into()])),
        "scenario b shows R99: there is none",
    );
    other(|repository| drop(repository.scenarios.insert("b".into(), Vec::new())), "scenario b names 0 rules");
    let unshown = SAMPLE.replace("*Shown by:* `a_scenario`, `a_test`", "*Shown by:* nothing");
    let mut repository = sample_repository();
    repository.scenarios.clear();
    assert!(faults_of_sample(&unshown, &repository).contains("nothing shows R1"));
}

#[test]
fn doubled_headings_are_found() {
    assert_eq!(doubled_headings("# A\n## B\n```\n# A\n```\n## A\n"), ["## A"]);
}

#[test]
fn ranges_are_citations_and_code_is_none() {
    let cited = citations("R30 to R33, R41 (b); not R, R123 or XR1. I1 to I3.");
    assert_eq!(cited.into_iter().collect::<Vec<_>>(), ["I1", "I2", "I3", "R30", "R31", "R32", "R33", "R41"]);
    assert_eq!(comments("let R1 = 2; // R3\n/// R41"), " R3\n/ R41");
}
