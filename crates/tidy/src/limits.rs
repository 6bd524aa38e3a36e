//! Every limit, with its goal beside it.
//!
//! A limit is the figure that the sources have reached. It is there to be tightened: `scripts/house.sh` marks each one that could be.
//! Raise one only with a reason in the commit.

/// What is measured, how bad it may be, and how good it is to become.
#[derive(Debug)]
pub struct Limit {
    /// A short name, for the command line.
    pub key: &'static str,
    /// What is counted.
    pub what: &'static str,
    /// Which way is better.
    pub better: Better,
    /// What the sources have reached; `None` where a figure is only printed.
    pub limit: Option<usize>,
    /// Where the figure is to end.
    pub goal: usize,
}

/// Which way a figure gets better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// The fewer of them there are, the better.
    Fewer,
    /// The more of them there are, the better.
    More,
}

const fn at_most(key: &'static str, what: &'static str, limit: usize, goal: usize) -> Limit {
    Limit { key, what, better: Better::Fewer, limit: Some(limit), goal }
}

const fn at_least(key: &'static str, what: &'static str, limit: usize, goal: usize) -> Limit {
    Limit { key, what, better: Better::More, limit: Some(limit), goal }
}

const fn printed(key: &'static str, what: &'static str, goal: usize) -> Limit {
    Limit { key, what, better: Better::Fewer, limit: None, goal }
}

/// Lines that a file may have: longer ones are split.
pub const LINES_OF_A_FILE: usize = 500;
/// Lines that a function may have, from its signature to its closing brace.
pub const LINES_OF_A_FUNCTION: usize = 70;
/// Parameters that a function may have besides `self`.
pub const PARAMETERS: usize = 5;
/// Fields that a struct may have.
pub const FIELDS: usize = 15;
/// Files of the protocol's crates that may cite one rule.
pub const FILES_OF_A_RULE: usize = 3;
/// Words that a doc comment must exceed to say anything.
pub const WORDS_OF_A_DOC: usize = 2;
/// Words that a sentence of the protocol's text may have.
pub const WORDS_OF_A_SENTENCE: usize = 35;
/// Characters that a line of the protocol's text may have.
pub const WIDTH_OF_THE_PROTOCOL: usize = 120;
/// Characters that the subject of a commit may have.
pub const WIDTH_OF_A_SUBJECT: usize = 72;

// The protocol's crates.
pub(crate) const GLOBS: Limit = at_most("globs", "`use super::*` in production code of core", 0, 0);
pub(crate) const CIRCLES: Limit = at_most("circles", "modules of core that stand on an import circle", 0, 4);
pub(crate) const PARENTS: Limit = at_most("parents", "modules of core that import from their parent", 18, 0);
pub(crate) const ASSERTIONS: Limit = at_least("assertions", "assertions in production code of core", 20, 20);
pub(crate) const TUPLES: Limit = at_most("tuples", "fields of core that hold an anonymous tuple", 0, 0);
pub(crate) const RULES: Limit = at_most("rules", "rules in more than 3 files of core", 4, 5);
pub(crate) const WIDEST_RULE: Limit =
    at_most("widest-rule", "files of the rule that is in most of them", 5, 5);

// The whole workspace.
pub(crate) const FILES: Limit = at_most("files", "files of more than 500 lines", 1, 0);
pub(crate) const LARGEST_STRUCT: Limit = at_most("largest-struct", "fields of the largest struct", 28, 16);
pub(crate) const STRUCTS: Limit = at_most("structs", "structs of more than 15 fields", 6, 6);
pub(crate) const FUNCTIONS: Limit = at_most("functions", "functions of more than 70 lines", 5, 5);
pub(crate) const WIDE_FUNCTIONS: Limit = at_most("parameters", "functions of more than 5 parameters", 7, 12);
pub(crate) const DOCS: Limit = at_most("docs", "doc comments of two words or fewer", 40, 200);
pub(crate) const EVENT_MATCHES: Limit = at_most("event-matches", "exhaustive matches over events", 2, 2);
pub(crate) const CORE_FOR_WORDS: Limit =
    at_most("core-for-words", "crates that need only words and take the machine", 0, 0);
pub(crate) const AGENT: Limit = printed("agent", "lines of the agent's source", 7_400);
pub(crate) const CTL_TESTS: Limit = at_most("ctl-tests", "lines of tests in ctl's source", 0, 500);

// Documents.
pub(crate) const LONG_SENTENCES: Limit =
    at_most("sentences", "the protocol: percent of sentences over 35 words", 1, 5);
pub(crate) const LONG_LINES: Limit =
    at_most("protocol-lines", "the protocol: percent of lines over 120 characters", 0, 0);
pub(crate) const LONGEST_RULE: Limit =
    at_most("longest-rule", "the protocol: words of the longest rule, lists left out", 120, 120);
pub(crate) const TABLES: Limit = at_most("tables", "tables in documents that are not shown as tables", 0, 0);
pub(crate) const LINKS: Limit = at_most("links", "links in documents to files that are not there", 0, 0);

// What comes from outside, and history.
pub(crate) const LICENCES: Limit =
    at_most("licences", "crates under a licence that is not on the list", 0, 0);
pub(crate) const SUBJECTS: Limit =
    printed("subjects", "percent of commit subjects over 72 characters since the house was measured", 10);
