//! Crates that depend on the core although they use none of its machines, only its words.

use crate::measures::circles::flatten;
use crate::tree::Source;
use std::collections::BTreeSet;
use syn::visit::{self, Visit};

/// What has state and steps. Everything else that the core exports is plain data.
const MACHINES: [&str; 3] = ["Core", "Guard", "machine"];

/// Whether production code names one of the core's machines.
pub fn uses_machine<'a>(sources: impl IntoIterator<Item = &'a Source>) -> bool {
    sources.into_iter().any(|source| {
        let mut names = Names::default();
        names.visit_file(&source.production);
        // After `use mainstay_core::*` any name may be the core's.
        MACHINES
            .iter()
            .any(|name| names.of_core.contains(*name) || (names.takes_all && names.all.contains(*name)))
    })
}

#[derive(Default)]
struct Names {
    of_core: BTreeSet<String>,
    all: BTreeSet<String>,
    takes_all: bool,
}

impl Names {
    fn add(&mut self, path: &[String]) {
        match path {
            [first] if first == "mainstay_core" => self.takes_all = true,
            [first, name, ..] if first == "mainstay_core" => {
                self.of_core.insert(name.clone());
            }
            _ => {}
        }
    }
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let mut paths = Vec::new();
        flatten(&item.tree, Vec::new(), &mut paths);
        paths.iter().for_each(|path| self.add(path));
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.add(&path.segments.iter().map(|segment| segment.ident.to_string()).collect::<Vec<_>>());
        visit::visit_path(self, path);
    }

    fn visit_ident(&mut self, name: &'ast proc_macro2::Ident) {
        self.all.insert(name.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_told_from_words() {
        let uses = |text: &str| uses_machine([&Source::sample("other", "x", text)]);
        assert!(!uses("use mainstay_core::{Event, register::Entry}; fn f(a: mainstay_core::ids::HostId) {}"));
        assert!(uses("use mainstay_core::{Core, Event};"));
        assert!(uses("fn f(core: &mainstay_core::machine::Core) {}"));
        assert!(!uses("use mainstay_core::*; fn f(event: Event) {}"));
        assert!(uses("use mainstay_core::*; fn f(core: Core) {}"));
        assert!(!uses("#[cfg(test)] use mainstay_core::Core;"));
    }
}
