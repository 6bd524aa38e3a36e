//! Matches that name every variant of an enum: each is a place that a new variant must be added to.

use crate::Finding;
use crate::tree::Source;
use std::collections::BTreeSet;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// The variants of the enum of this name, or nothing where it is not.
pub fn variants<'a>(sources: impl IntoIterator<Item = &'a Source>, name: &str) -> BTreeSet<String> {
    struct Variants<'b> {
        name: &'b str,
        found: BTreeSet<String>,
    }
    impl<'ast> Visit<'ast> for Variants<'_> {
        fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
            if item.ident == self.name {
                self.found.extend(item.variants.iter().map(|variant| variant.ident.to_string()));
            }
        }
    }
    let mut variants = Variants { name, found: BTreeSet::new() };
    sources.into_iter().for_each(|source| variants.visit_file(&source.production));
    variants.found
}

/// Matches of production code whose patterns name all of these variants.
pub fn exhaustive<'a>(
    sources: impl IntoIterator<Item = &'a Source>,
    variants: &BTreeSet<String>,
) -> Vec<Finding> {
    let mut found = Vec::new();
    for source in sources {
        let mut matches = Matches { source, variants, found: Vec::new() };
        matches.visit_file(&source.production);
        found.append(&mut matches.found);
    }
    found
}

struct Matches<'a> {
    source: &'a Source,
    variants: &'a BTreeSet<String>,
    found: Vec<Finding>,
}

impl<'ast> Visit<'ast> for Matches<'_> {
    fn visit_expr_match(&mut self, expression: &'ast syn::ExprMatch) {
        let mut patterns = Patterns::default();
        expression.arms.iter().for_each(|arm| patterns.visit_pat(&arm.pat));
        if !self.variants.is_empty() && self.variants.is_subset(&patterns.names) {
            self.found.push(self.source.finding(expression.span().start().line, "match"));
        }
        visit::visit_expr_match(self, expression);
    }
}

#[derive(Default)]
struct Patterns {
    names: BTreeSet<String>,
}

impl<'ast> Visit<'ast> for Patterns {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.names.extend(path.segments.last().map(|segment| segment.ident.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_match_over_all_variants_is_found() {
        let text = "enum Event { A, B { x: u8 }, C(u8) } enum Other { D }
                    impl Event { fn f(&self) { match self { Self::A | Self::B { .. } => 1, Event::C(_) => 2 } } }
                    fn g(e: Event) { match e { Event::A => 1, Event::C(_) => 2, _ => 3 } }
                    fn h(e: Event) { match e { Event::A => match e { Event::B { .. } => 1, _ => 3 }, Event::C(_) => 2 } }";
        let sample = Source::sample("core", "sample", text);
        let variants = variants([&sample], "Event");
        assert_eq!(variants.iter().collect::<Vec<_>>(), ["A", "B", "C"]);
        let lines: Vec<usize> = exhaustive([&sample], &variants).iter().map(|found| found.line).collect();
        assert_eq!(lines, [2]);
    }
}
