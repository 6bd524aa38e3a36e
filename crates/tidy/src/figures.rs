//! All figures of a tree, in the order in which they are printed.

use crate::limits::{self, Better, Limit};
use crate::measures::{
    circles, crates, documents, functions, history, licences, matches, prose, rules, structs, text,
};
use crate::tree::{Page, Source, Tree};
use crate::{Finding, PROTOCOL};
use anyhow::Result;
use std::fmt::Write;

/// One figure as it is now.
pub struct Figure {
    /// What it is, its limit and its goal.
    pub limit: &'static Limit,
    /// How many there are.
    pub value: usize,
    /// The places that were counted, or those that are to be mended first.
    pub places: Vec<Finding>,
}

impl Figure {
    fn count(limit: &'static Limit, places: Vec<Finding>) -> Figure {
        Figure { limit, value: places.len(), places }
    }

    fn value(limit: &'static Limit, value: usize, places: Vec<Finding>) -> Figure {
        Figure { limit, value, places }
    }

    /// Whether it has become worse than what was reached.
    pub fn is_worse(&self) -> bool {
        self.limit.limit.is_some_and(|limit| match self.limit.better {
            Better::Fewer => self.value > limit,
            Better::More => self.value < limit,
        })
    }

    /// Whether it has become better than its limit says, so that this could be tightened.
    pub fn is_better(&self) -> bool {
        !self.is_worse() && self.limit.limit.is_some_and(|limit| limit != self.value)
    }
}

/// Measures everything.
pub fn figures(tree: &Tree) -> Result<Vec<Figure>> {
    let mut figures = of_the_protocol(tree);
    figures.extend(of_the_workspace(tree));
    figures.extend(of_the_documents(tree)?);
    figures.push(Figure::count(&limits::LICENCES, licences::refused(&tree.metadata)?));
    figures.extend(of_the_history(tree));
    Ok(figures)
}

fn of_the_protocol(tree: &Tree) -> Vec<Figure> {
    let sources = || tree.sources.iter().filter(|source| PROTOCOL.contains(&source.package.as_str()));
    let (mut on_circles, mut upwards) = (Vec::new(), Vec::new());
    for package in PROTOCOL {
        let sources: Vec<&Source> = tree.of(package).collect();
        on_circles.extend(circles::circles(&sources));
        upwards.extend(circles::parents(&sources));
    }
    let cited = rules::cited(sources());
    let mut smeared = Vec::new();
    for (rule, files) in cited.iter().filter(|(_, files)| files.len() > limits::FILES_OF_A_RULE) {
        let what = files.iter().cloned().collect::<Vec<_>>().join(", ");
        smeared.push(Finding { path: format!("R{rule}, {} files", files.len()), line: 0, what });
    }
    let widest = cited.values().map(|files| files.len()).max().unwrap_or_default();
    vec![
        Figure::count(&limits::GLOBS, circles::globs(sources())),
        Figure::count(&limits::CIRCLES, on_circles),
        Figure::count(&limits::PARENTS, upwards),
        Figure::count(&limits::ASSERTIONS, functions::assertions(sources())),
        Figure::count(&limits::TUPLES, structs::tuples(sources())),
        Figure::count(&limits::RULES, smeared.clone()),
        Figure::value(&limits::WIDEST_RULE, widest, smeared),
    ]
}

fn of_the_workspace(tree: &Tree) -> Vec<Figure> {
    let sizes = structs::sizes(&tree.sources);
    let largest = sizes.first().map_or(0, |size| size.fields);
    let large: Vec<Finding> =
        sizes.into_iter().filter(|size| size.fields > limits::FIELDS).map(|size| size.place).collect();
    let (mut long, mut wide) = (Vec::new(), Vec::new());
    for mut function in functions::functions(&tree.sources) {
        if function.lines > limits::LINES_OF_A_FUNCTION {
            let mut place = function.place.clone();
            let _ = write!(place.what, ": {} lines", function.lines);
            long.push(place);
        }
        if function.parameters > limits::PARAMETERS {
            let _ = write!(function.place.what, ": {} parameters", function.parameters);
            wide.push(function.place);
        }
    }
    let events = matches::variants(
        tree.sources.iter().filter(|source| PROTOCOL.contains(&source.package.as_str())),
        "Event",
    );
    let of_agent: Vec<&Source> =
        tree.of("mainstay-agent").filter(|source| source.path.contains("/src/")).collect();
    let of_ctl: Vec<&Source> =
        tree.of("mainstay-ctl").filter(|source| source.path.contains("/src/") && source.is_test).collect();
    vec![
        Figure::count(&limits::FILES, text::long_files(&tree.sources, &tree.pages, limits::LINES_OF_A_FILE)),
        Figure::value(&limits::LARGEST_STRUCT, largest, large.iter().take(1).cloned().collect()),
        Figure::count(&limits::STRUCTS, large),
        Figure::count(&limits::FUNCTIONS, long),
        Figure::count(&limits::WIDE_FUNCTIONS, wide),
        Figure::count(&limits::DOCS, text::short_docs(&tree.sources, limits::WORDS_OF_A_DOC)),
        Figure::count(&limits::EVENT_MATCHES, matches::exhaustive(&tree.sources, &events)),
        Figure::count(&limits::CORE_FOR_WORDS, core_for_words(tree)),
        Figure::value(&limits::AGENT, text::lines(of_agent.iter().copied()), by_length(&of_agent)),
        Figure::value(&limits::CTL_TESTS, text::lines(of_ctl.iter().copied()), by_length(&of_ctl)),
    ]
}

/// Files with their lengths, the longest first.
fn by_length(sources: &[&Source]) -> Vec<Finding> {
    let mut lengths: Vec<(usize, &Source)> =
        sources.iter().map(|source| (source.text.lines().count(), *source)).collect();
    lengths.sort_by_key(|(lines, _)| std::cmp::Reverse(*lines));
    lengths.iter().map(|(lines, source)| source.finding(0, format!("{lines} lines"))).collect()
}

fn core_for_words(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for package in tree.metadata.workspace_packages() {
        let takes = package.dependencies.iter().any(|dependency| {
            dependency.name == "mainstay-core" && dependency.kind == cargo_metadata::DependencyKind::Normal
        });
        if takes && !crates::uses_machine(tree.of(&package.name)) {
            found.push(Finding {
                path: package.name.to_string(),
                line: 0,
                what: "uses only words".to_string(),
            });
        }
    }
    found
}

fn of_the_documents(tree: &Tree) -> Result<Vec<Figure>> {
    tree.page("docs/internals/protocol.md")?;
    let protocol: Vec<&Page> =
        tree.pages.iter().filter(|page| page.path.starts_with("docs/internals/protocol")).collect();
    let sentences: Vec<(Finding, usize)> = protocol.iter().flat_map(|page| prose::sentences(page)).collect();
    let all_sentences = sentences.len();
    let long: Vec<Finding> = sentences
        .into_iter()
        .filter(|(_, words)| *words > limits::WORDS_OF_A_SENTENCE)
        .map(|(place, _)| place)
        .collect();
    let lines = protocol.iter().map(|page| page.text.lines().count()).sum();
    let wide: Vec<Finding> =
        protocol.iter().flat_map(|page| prose::long_lines(page, limits::WIDTH_OF_THE_PROTOCOL)).collect();
    let mut rules: Vec<(Finding, usize)> = protocol.iter().flat_map(|page| prose::rules(page)).collect();
    rules.sort_by_key(|(_, words)| std::cmp::Reverse(*words));
    let longest = rules.first().map_or(0, |(_, words)| *words);
    let rules = rules
        .into_iter()
        .take(10)
        .map(|(place, words)| Finding { what: format!("{}: {words} words", place.what), ..place });
    Ok(vec![
        Figure::value(&limits::LONG_SENTENCES, percent(long.len(), all_sentences), long),
        Figure::value(&limits::LONG_LINES, percent(wide.len(), lines), wide),
        Figure::value(&limits::LONGEST_RULE, longest, rules.collect()),
        Figure::count(&limits::TABLES, tree.pages.iter().flat_map(documents::broken_tables).collect()),
        Figure::count(
            &limits::LINKS,
            tree.pages.iter().flat_map(|page| documents::dead_links(&tree.root, page)).collect(),
        ),
    ])
}

/// Nothing where the sources come without their history, or with only the last commit of it.
fn of_the_history(tree: &Tree) -> Option<Figure> {
    let subjects = history::subjects(&tree.root).ok()?;
    let long = history::long(&subjects, limits::WIDTH_OF_A_SUBJECT);
    let place = |subject: &String| Finding { path: "commit".to_string(), line: 0, what: subject.clone() };
    let places = long.iter().map(|subject| place(subject)).collect();
    Some(Figure::value(&limits::SUBJECTS, percent(long.len(), subjects.len()), places))
}

/// Rounded to whole percents, but never down to none.
fn percent(part: usize, whole: usize) -> usize {
    match (part * 100 + whole / 2) / whole.max(1) {
        0 if part > 0 => 1,
        percent => percent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_compared_with_its_limit_in_the_right_direction() {
        let is = |limit: &'static Limit, value: usize| {
            let figure = Figure::value(limit, value, Vec::new());
            (figure.is_worse(), figure.is_better())
        };
        const FEW: Limit = Limit { key: "few", what: "", better: Better::Fewer, limit: Some(5), goal: 0 };
        const MANY: Limit = Limit { key: "many", what: "", better: Better::More, limit: Some(5), goal: 9 };
        assert_eq!([is(&FEW, 6), is(&FEW, 5), is(&FEW, 4)], [(true, false), (false, false), (false, true)]);
        assert_eq!(
            [is(&MANY, 6), is(&MANY, 5), is(&MANY, 4)],
            [(false, true), (false, false), (true, false)]
        );
        assert_eq!(is(&limits::SUBJECTS, 100), (false, false));
    }

    #[test]
    fn one_in_a_thousand_is_not_none() {
        assert_eq!([percent(0, 0), percent(1, 1_000), percent(1, 3), percent(2, 3)], [0, 1, 33, 67]);
    }
}
