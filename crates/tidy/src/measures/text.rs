//! What is counted in plain lines: long files, and doc comments that say nothing.

use crate::Finding;
use crate::tree::{Page, Source};

/// Files of more lines than that.
pub fn long_files(sources: &[Source], pages: &[Page], lines: usize) -> Vec<Finding> {
    let sources = sources.iter().map(|source| (&source.path, &source.text));
    let pages = pages.iter().map(|page| (&page.path, &page.text));
    let mut found = Vec::new();
    for (path, text) in sources.chain(pages) {
        let count = text.lines().count();
        if count > lines {
            found.push(Finding { path: path.clone(), line: 0, what: format!("{count} lines") });
        }
    }
    found
}

/// Doc comments of so few words. A comment is all lines in a row that begin with three slashes.
pub fn short_docs<'a>(sources: impl IntoIterator<Item = &'a Source>, words: usize) -> Vec<Finding> {
    let mut found = Vec::new();
    for source in sources {
        let mut comment = String::new();
        for (index, line) in source.text.lines().chain([""]).enumerate() {
            if let Some(text) = line.trim_start().strip_prefix("///") {
                comment.push_str(text);
                comment.push(' ');
            } else if !comment.is_empty() {
                if comment.split_whitespace().count() <= words {
                    found.push(source.finding(index, comment.trim()));
                }
                comment.clear();
            }
        }
    }
    found
}

/// Lines of these files.
pub fn lines<'a>(sources: impl IntoIterator<Item = &'a Source>) -> usize {
    sources.into_iter().map(|source| source.text.lines().count()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_over_the_limit_are_found() {
        let source = Source::sample("core", "sample", "// 1\n// 2\n// 3");
        let page = Page { path: "README.md".to_string(), text: "1\n2\n3\n4\n".to_string() };
        assert_eq!(long_files(&[], &[page], 3)[0].to_string(), "README.md: 4 lines");
        assert_eq!(long_files(&[source], &[], 3), []);
    }

    #[test]
    fn docs_that_say_nothing_are_found() {
        let text = "/// Which.\npub a: u8,\n    /// The\n    /// datastore.\n pub b: u8,\n/// Three whole words.\n//// no doc";
        let source = Source { text: text.to_string(), ..Source::sample("core", "sample", "") };
        let found: Vec<String> = short_docs([&source], 2).iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            ["crates/core/src/sample.rs:1: Which.", "crates/core/src/sample.rs:4: The  datastore."]
        );
    }
}
