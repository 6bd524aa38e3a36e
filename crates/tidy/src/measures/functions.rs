//! Functions: their length and their parameters; and what stands in their bodies: assertions.

use crate::Finding;
use crate::tree::Source;
use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// A function of production code.
pub struct Function {
    /// Where it stands, and its name.
    pub place: Finding,
    /// Lines from its signature to its closing brace.
    pub lines: usize,
    /// Parameters besides `self`.
    pub parameters: usize,
}

/// All functions of production code.
pub fn functions<'a>(sources: impl IntoIterator<Item = &'a Source>) -> Vec<Function> {
    let mut found = Vec::new();
    for source in sources {
        let mut functions = Functions { source, found: Vec::new() };
        functions.visit_file(&source.production);
        found.append(&mut functions.found);
    }
    found
}

struct Functions<'a> {
    source: &'a Source,
    found: Vec<Function>,
}

impl Functions<'_> {
    fn add(&mut self, signature: &syn::Signature, end: Span) {
        let start = signature.span().start().line;
        let typed = |input: &&syn::FnArg| matches!(input, syn::FnArg::Typed(_));
        self.found.push(Function {
            place: self.source.finding(start, signature.ident.to_string()),
            lines: end.end().line + 1 - start,
            parameters: signature.inputs.iter().filter(typed).count(),
        });
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.add(&item.sig, item.block.span());
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.add(&item.sig, item.block.span());
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        self.add(&item.sig, item.default.as_ref().map_or_else(|| item.sig.span(), Spanned::span));
        visit::visit_trait_item_fn(self, item);
    }
}

/// Assertions that are on in release. `debug_assert` is not, and does not count.
pub fn assertions<'a>(sources: impl IntoIterator<Item = &'a Source>) -> Vec<Finding> {
    let mut found = Vec::new();
    for source in sources {
        let mut assertions = Assertions { source, found: Vec::new() };
        assertions.visit_file(&source.production);
        found.append(&mut assertions.found);
    }
    found
}

struct Assertions<'a> {
    source: &'a Source,
    found: Vec<Finding>,
}

impl<'ast> Visit<'ast> for Assertions<'_> {
    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        if let Some(last) = call.path.segments.last()
            && ["assert", "assert_eq", "assert_ne"].iter().any(|name| last.ident == name)
        {
            self.found.push(self.source.finding(last.ident.span().start().line, format!("{}!", last.ident)));
        }
    }

    /// What is asserted of a constant is checked by the compiler: it guards nothing that runs.
    fn visit_item_const(&mut self, _: &'ast syn::ItemConst) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_parameters_are_counted() {
        let text = "/// A doc.\n#[inline]\nfn long(a: u8,\n b: u8) {\n\n}\ntrait T { fn short(&self, c: u8); }\n#[test]\nfn test() {}";
        let found = functions([&Source::sample("core", "sample", text)]);
        let figures: Vec<_> = found
            .iter()
            .map(|found| (found.place.what.as_str(), found.place.line, found.lines, found.parameters))
            .collect();
        assert_eq!(figures, [("long", 3, 4, 2), ("short", 7, 1, 1)]);
    }

    #[test]
    fn assertions_of_release_builds_are_found() {
        let text = "fn f() { assert!(true); if x { assert_eq!(1, 1, \"why\"); } debug_assert!(true); matches!(1, 1); }
                    const A: () = assert!(true); #[cfg(test)] mod tests { fn g() { assert!(true); } }";
        let found = assertions([&Source::sample("core", "sample", text)]);
        assert_eq!(
            found.iter().map(|found| found.what.as_str()).collect::<Vec<_>>(),
            ["assert!", "assert_eq!"]
        );
    }
}
