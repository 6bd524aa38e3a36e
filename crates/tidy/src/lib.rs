//! What this repository demands of its own sources, measured.
//!
//! | module | what |
//! | --- | --- |
//! | [`tree`] | the sources: Rust files with what is production code in them, Markdown files, cargo's metadata |
//! | [`measures`] | one module for each kind of figure |
//! | [`limits`] | each figure's limit and goal, in one place |
//! | [`figures`] | all figures of a tree |
//!
//! `scripts/house.sh` prints the figures, `scripts/house.sh KEY` the places behind one of them. The tests of this crate fail when a
//! figure is worse than its limit. A limit is what the sources have reached: when they get better, tighten it.
//!
//! Each measure has a unit test with a sample that it must find. A check that can't fail is worth nothing.

pub mod figures;
pub mod limits;
pub mod measures;
pub mod tree;

use std::fmt;

/// One place that a measure has found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The file, seen from the workspace's folder.
    pub path: String,
    /// The line, from 1; 0 where the whole file is meant.
    pub line: usize,
    /// What was found there.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.what),
            line => write!(f, "{}:{line}: {}", self.path, self.what),
        }
    }
}

/// The crates of the protocol. What is asked of the core is asked of all of them, so that nothing improves by moving out.
pub const PROTOCOL: [&str; 3] = ["mainstay-core", "mainstay-words", "mainstay-guard-core"];
