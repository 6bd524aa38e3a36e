//! Imports between the modules of a crate: which modules stand on a circle, and which import from their parent, or all of it.
//!
//! An arrow goes from a module to each other module of its crate that it names: in a `use`, or in a path that begins with `crate`,
//! `super` or `self`. A name that the crate's root re-exports counts as the name of the module that it comes from. Arrows to the
//! root itself are left out. A module stands on a circle if one can go along arrows from it and come back.

use crate::Finding;
use crate::tree::Source;
use std::collections::{BTreeMap, BTreeSet};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// Modules of one crate that stand on a circle, each with the other modules on its circles.
pub fn circles(sources: &[&Source]) -> Vec<Finding> {
    let sources: Vec<&Source> = sources.iter().copied().filter(|source| !source.is_test).collect();
    let arrows = arrows(&sources);
    let reached: BTreeMap<&Module, BTreeSet<&Module>> =
        arrows.keys().map(|from| (from, reach(from, &arrows))).collect();
    let mut found = Vec::new();
    for source in &sources {
        let Some(there) = reached.get(&source.module) else { continue };
        if !there.contains(&source.module) {
            continue;
        }
        let back = |module: &&&Module| reached.get(*module).is_some_and(|back| back.contains(&source.module));
        let circle: Vec<String> = there.iter().filter(back).map(|module| module.join("::")).collect();
        let direct = arrows[&source.module]
            .iter()
            .map(|module| module.join("::"))
            .filter(|name| circle.contains(name));
        found.push(source.finding(0, format!("imports {}", direct.collect::<Vec<_>>().join(", "))));
    }
    found
}

/// Modules that import from the module that declares them, or from one above that. The root is everybody's.
pub fn parents(sources: &[&Source]) -> Vec<Finding> {
    let sources: Vec<&Source> = sources.iter().copied().filter(|source| !source.is_test).collect();
    let arrows = arrows(&sources);
    let mut found = Vec::new();
    for source in &sources {
        let above = |module: &&Module| source.module.starts_with(module);
        let names: Vec<String> =
            arrows.get(&source.module).into_iter().flatten().filter(above).map(|m| m.join("::")).collect();
        if !names.is_empty() {
            found.push(source.finding(0, format!("imports {}", names.join(", "))));
        }
    }
    found
}

type Module = Vec<String>;

fn arrows(sources: &[&Source]) -> BTreeMap<Module, BTreeSet<Module>> {
    let modules: BTreeSet<&Module> = sources.iter().map(|source| &source.module).collect();
    let exports =
        sources.iter().find(|source| source.module.is_empty()).map(|root| exports(root)).unwrap_or_default();
    let mut arrows: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
    for source in sources.iter().filter(|source| !source.module.is_empty()) {
        let mut names = Names { module: &source.module, found: Vec::new() };
        names.visit_file(&source.production);
        for mut name in names.found {
            if let Some(module) = name.first().and_then(|first| exports.get(first)) {
                name.clone_from(module);
            }
            // The rest of the path is a type or a function.
            while !modules.contains(&name) {
                name.pop();
            }
            if name != source.module && !name.is_empty() {
                arrows.entry(source.module.clone()).or_default().insert(name);
            }
        }
    }
    arrows
}

/// Names that the root re-exports, and the modules that they come from.
fn exports(root: &Source) -> BTreeMap<String, Module> {
    let mut exports = BTreeMap::new();
    for item in &root.production.items {
        let syn::Item::Use(item) = item else { continue };
        let mut paths = Vec::new();
        flatten(&item.tree, Vec::new(), &mut paths);
        for mut path in paths {
            if let Some(name) = path.pop() {
                exports.insert(name, path);
            }
        }
    }
    exports
}

fn reach<'a>(from: &Module, arrows: &'a BTreeMap<Module, BTreeSet<Module>>) -> BTreeSet<&'a Module> {
    let mut seen = BTreeSet::new();
    let mut next: Vec<&Module> = arrows.get(from).into_iter().flatten().collect();
    while let Some(module) = next.pop() {
        if seen.insert(module) {
            next.extend(arrows.get(module).into_iter().flatten());
        }
    }
    seen
}

/// The paths that a `use` names, one by one. A glob is the path before it.
pub(crate) fn flatten(tree: &syn::UseTree, mut before: Vec<String>, paths: &mut Vec<Vec<String>>) {
    match tree {
        syn::UseTree::Path(path) => {
            before.push(path.ident.to_string());
            flatten(&path.tree, before, paths);
        }
        syn::UseTree::Group(group) => {
            group.items.iter().for_each(|tree| flatten(tree, before.clone(), paths))
        }
        syn::UseTree::Name(name) => {
            before.push(name.ident.to_string());
            paths.push(before);
        }
        syn::UseTree::Rename(name) => {
            before.push(name.ident.to_string());
            paths.push(before);
        }
        _ => paths.push(before),
    }
}

struct Names<'a> {
    module: &'a Module,
    found: Vec<Module>,
}

impl Names<'_> {
    fn add(&mut self, path: &[String]) {
        let (mut base, mut rest) = match path.first().map(String::as_str) {
            Some("crate") => (Vec::new(), &path[1..]),
            Some("self") => (self.module.clone(), &path[1..]),
            Some("super") => (self.module.clone(), path),
            _ => return,
        };
        while rest.first().is_some_and(|name| name == "super") {
            base.pop();
            rest = &rest[1..];
        }
        base.extend_from_slice(rest);
        self.found.push(base);
    }
}

impl<'ast> Visit<'ast> for Names<'_> {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let mut paths = Vec::new();
        flatten(&item.tree, Vec::new(), &mut paths);
        paths.iter().for_each(|path| self.add(path));
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.add(&path.segments.iter().map(|segment| segment.ident.to_string()).collect::<Vec<_>>());
        visit::visit_path(self, path);
    }

    /// `pub(super)` imports nothing.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}
}

/// `use super::*` in production code: who writes that may touch everything that its parent can.
pub fn globs<'a>(sources: impl IntoIterator<Item = &'a Source>) -> Vec<Finding> {
    let mut found = Vec::new();
    for source in sources {
        let mut globs = Globs { source, found: Vec::new() };
        globs.visit_file(&source.production);
        found.append(&mut globs.found);
    }
    found
}

struct Globs<'a> {
    source: &'a Source,
    found: Vec<Finding>,
}

impl<'ast> Visit<'ast> for Globs<'_> {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let syn::UseTree::Path(path) = &item.tree else { return };
        if path.ident == "super" && has_glob_of_parent(&path.tree) {
            self.found.push(self.source.finding(item.span().start().line, "use super::*"));
        }
    }
}

fn has_glob_of_parent(tree: &syn::UseTree) -> bool {
    match tree {
        syn::UseTree::Glob(_) => true,
        syn::UseTree::Group(group) => group.items.iter().any(has_glob_of_parent),
        syn::UseTree::Path(path) => path.ident == "super" && has_glob_of_parent(&path.tree),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_through_a_re_export_a_path_and_a_parent_is_found() {
        let root = Source::sample("core", "", "mod a; mod b; mod c; mod d; mod e; pub use a::A;");
        let a = Source::sample("core", "a", "use crate::b::{self, B}; pub struct A(B);");
        let b = Source::sample("core", "b", "fn f(c: crate::c::inner::C) {}");
        let c = Source::sample("core", "c", "pub mod inner;");
        let inner = Source::sample("core", "c::inner", "use super::super::A; pub(super) struct C(A);");
        let d = Source::sample(
            "core",
            "d",
            "use crate::{A, e::E}; #[cfg(test)] mod tests { use super::*; use crate::d; }",
        );
        let e = Source::sample("core", "e", "#[cfg(test)] use crate::d::D;");
        let found = circles(&[&root, &a, &b, &c, &inner, &d, &e]);
        let names: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            names,
            [
                "crates/core/src/a.rs: imports b",
                "crates/core/src/b.rs: imports c::inner",
                "crates/core/src/c/inner.rs: imports a",
            ]
        );
    }

    #[test]
    fn who_imports_from_above_is_found() {
        let root = Source::sample("core", "", "mod a; use a::A;");
        let a = Source::sample("core", "a", "mod b; mod c;");
        let b = Source::sample("core", "a::b", "mod d; use super::A; use crate::a::c::C;");
        let c = Source::sample(
            "core",
            "a::c",
            "use super::b::B; use super::super::Root; #[cfg(test)] use super::*;",
        );
        let d = Source::sample("core", "a::b::d", "use crate::a::A;");
        let found: Vec<String> = parents(&[&root, &a, &b, &c, &d]).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["crates/core/src/a/b.rs: imports a", "crates/core/src/a/b/d.rs: imports a"]);
    }

    #[test]
    fn globs_of_a_parent_are_found_outside_of_tests() {
        let text =
            "use super::*; use super::{A, inner::*}; use super::super::*; use crate::words::*; use Kind::*;
                    mod inner { use super::{super::*, B}; } #[cfg(test)] mod tests { use super::*; }";
        let found = globs([&Source::sample("core", "sample", text)]);
        assert_eq!(found.iter().map(|found| found.line).collect::<Vec<_>>(), [1, 1, 2]);
    }
}
