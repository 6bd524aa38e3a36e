//! The sources of the workspace: which files there are, and which of them are only compiled for tests.
//!
//! A file is found as the compiler finds it: from each target's root, along its `mod` declarations. So what a `#[cfg(test)]` above a
//! declaration says is known for the whole file that it names. A file of several targets is read once; it counts as production code
//! if one of them is a library or a program.

use crate::Finding;
use anyhow::{Context, Result};
use cargo_metadata::{Metadata, MetadataCommand, TargetKind};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use syn::visit_mut::{self, VisitMut};
use syn::{Attribute, Expr, Item, Lit, Meta};

/// All that is measured.
pub struct Tree {
    /// The folder of the workspace.
    pub root: PathBuf,
    /// What cargo says of the workspace and of all that it depends on.
    pub metadata: Metadata,
    /// Rust files, by path.
    pub sources: Vec<Source>,
    /// Markdown files, by path.
    pub pages: Vec<Page>,
}

/// One Rust file.
pub struct Source {
    /// The package, as `mainstay-core`.
    pub package: String,
    /// Where it is, seen from the workspace's folder.
    pub path: String,
    /// Its module, without the crate: `["machine", "judging"]`.
    pub module: Vec<String>,
    /// Whether only tests, benches or examples have it.
    pub is_test: bool,
    /// The text as it stands.
    pub text: String,
    /// Everything in it.
    pub whole: syn::File,
    /// What is left without `#[cfg(test)]` and `#[test]`; nothing, where the file is a test's.
    pub production: syn::File,
}

/// One Markdown file.
pub struct Page {
    /// Where it is, seen from the workspace's folder.
    pub path: String,
    /// The text as it stands.
    pub text: String,
}

impl Tree {
    /// Reads the workspace that `folder` is in.
    pub fn read(folder: &Path) -> Result<Tree> {
        let metadata = MetadataCommand::new()
            .current_dir(folder)
            .other_options(["--locked", "--offline", "--filter-platform=host-tuple"].map(str::to_string))
            .exec()
            .context("cargo metadata")?;
        let root = metadata.workspace_root.clone().into_std_path_buf();
        let mut found = Files { root: root.clone(), sources: BTreeMap::new() };
        for package in metadata.workspace_packages() {
            for target in &package.targets {
                if target.kind.contains(&TargetKind::CustomBuild) {
                    continue;
                }
                let production =
                    [TargetKind::Lib, TargetKind::Bin].iter().any(|kind| target.kind.contains(kind));
                let place =
                    Place { package: package.name.to_string(), module: Vec::new(), is_test: !production };
                found.read(target.src_path.as_std_path(), place, true)?;
            }
        }
        let mut pages = Vec::new();
        read_pages(&root, &root, &mut pages)?;
        pages.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Tree { root, metadata, sources: found.sources.into_values().collect(), pages })
    }

    /// The files of one package.
    pub fn of<'a>(&'a self, package: &'a str) -> impl Iterator<Item = &'a Source> {
        self.sources.iter().filter(move |source| source.package == package)
    }

    /// The page at this path.
    pub fn page(&self, path: &str) -> Result<&Page> {
        self.pages.iter().find(|page| page.path == path).with_context(|| format!("{path} is missing"))
    }
}

impl Source {
    /// A file of production code out of a text, as the samples of unit tests need it.
    pub fn sample(package: &str, module: &str, text: &str) -> Source {
        let module: Vec<String> =
            module.split("::").filter(|name| !name.is_empty()).map(str::to_string).collect();
        let path = format!("crates/{}/src/{}.rs", package.trim_start_matches("mainstay-"), module.join("/"));
        let place = Place { package: package.to_string(), module, is_test: false };
        Source::parse(path, place, text.to_string()).expect("a sample that can be parsed")
    }

    /// Something at a line of this file.
    pub fn finding(&self, line: usize, what: impl Into<String>) -> Finding {
        Finding { path: self.path.clone(), line, what: what.into() }
    }

    fn parse(path: String, place: Place, text: String) -> Result<Source> {
        let whole = syn::parse_file(&text).with_context(|| path.clone())?;
        let mut production = whole.clone();
        if place.is_test {
            production.items.clear();
        } else {
            WithoutTests.visit_file_mut(&mut production);
        }
        let Place { package, module, is_test } = place;
        Ok(Source { package, path, module, is_test, text, whole, production })
    }
}

/// Where a file stands among the modules.
#[derive(Clone)]
struct Place {
    package: String,
    module: Vec<String>,
    is_test: bool,
}

struct Files {
    root: PathBuf,
    sources: BTreeMap<PathBuf, Source>,
}

impl Files {
    /// Reads a file and all that it declares. `owns_folder`: its modules lie beside it (`lib.rs`, `mod.rs`), not in a folder of its name.
    fn read(&mut self, file: &Path, place: Place, owns_folder: bool) -> Result<()> {
        let file = file.canonicalize().with_context(|| file.display().to_string())?;
        if self.sources.get(&file).is_some_and(|known| place.is_test || !known.is_test) {
            return Ok(());
        }
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let path = file.strip_prefix(&self.root).unwrap_or(&file).display().to_string();
        let source = Source::parse(path, place.clone(), text)?;
        let beside = file.parent().unwrap_or(&self.root).to_path_buf();
        let folder = if owns_folder { beside.clone() } else { file.with_extension("") };
        let declared = declared(&source.whole.items, &folder, &beside, &place);
        self.sources.insert(file, source);
        for (candidates, place) in declared {
            let Some(file) = candidates.iter().find(|path| path.exists()) else {
                anyhow::bail!("no file for the module {}", place.module.join("::"));
            };
            let owns_folder = file.file_name().is_some_and(|name| name == "mod.rs");
            self.read(file, place, owns_folder)?;
        }
        Ok(())
    }
}

/// The modules that are declared here and lie in other files, each with the paths where it may be.
fn declared(items: &[Item], folder: &Path, beside: &Path, place: &Place) -> Vec<(Vec<PathBuf>, Place)> {
    let mut found = Vec::new();
    for item in items {
        let Item::Mod(module) = item else { continue };
        let name = module.ident.to_string();
        let mut inner = place.clone();
        inner.module.push(name.clone());
        inner.is_test |= is_for_tests(&module.attrs);
        match &module.content {
            Some((_, items)) => {
                let folder = folder.join(&name);
                found.extend(declared(items, &folder, &folder, &inner));
            }
            None => {
                let candidates = match path_attribute(&module.attrs) {
                    Some(path) => vec![beside.join(path)],
                    None => vec![folder.join(format!("{name}.rs")), folder.join(&name).join("mod.rs")],
                };
                found.push((candidates, inner));
            }
        }
    }
    found
}

fn path_attribute(attributes: &[Attribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Str(text) => Some(text.value()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    })
}

/// Whether the attributes say that this is compiled for tests only.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let configured = attribute.path().is_ident("cfg")
            && attribute.parse_args::<Meta>().is_ok_and(|condition| condition.path().is_ident("test"));
        configured || attribute.path().is_ident("test")
    })
}

struct WithoutTests;

impl VisitMut for WithoutTests {
    fn visit_file_mut(&mut self, file: &mut syn::File) {
        file.items.retain(is_production);
        visit_mut::visit_file_mut(self, file);
    }

    fn visit_item_mod_mut(&mut self, module: &mut syn::ItemMod) {
        if let Some((_, items)) = &mut module.content {
            items.retain(is_production);
        }
        visit_mut::visit_item_mod_mut(self, module);
    }

    fn visit_item_impl_mut(&mut self, block: &mut syn::ItemImpl) {
        block.items.retain(|item| match item {
            syn::ImplItem::Fn(function) => !is_for_tests(&function.attrs),
            syn::ImplItem::Const(constant) => !is_for_tests(&constant.attrs),
            _ => true,
        });
        visit_mut::visit_item_impl_mut(self, block);
    }
}

fn is_production(item: &Item) -> bool {
    let attributes = match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => return true,
    };
    !is_for_tests(attributes)
}

fn read_pages(root: &Path, folder: &Path, pages: &mut Vec<Page>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().to_string());
        if entry.file_type()?.is_dir() {
            if !name.starts_with('.') && name != "target" {
                read_pages(root, &path, pages)?;
            }
        } else if name.ends_with(".md") {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            pages.push(Page { path: path.strip_prefix(root).unwrap_or(&path).display().to_string(), text });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_tests_is_left_out() {
        let text = "fn one() {} #[test] fn two() {} #[cfg(test)] mod three { fn four() {} } #[cfg(unix)] fn five() {}
                    struct S; impl S { #[cfg(test)] fn six() {} fn seven() {} }";
        let sample = Source::sample("mainstay-core", "sample", text);
        assert_eq!(sample.whole.items.len(), 6);
        let left: Vec<bool> =
            sample.production.items.iter().map(|item| matches!(item, Item::Fn(_))).collect();
        assert_eq!(left, [true, true, false, false]);
        let Some(Item::Impl(block)) = sample.production.items.last() else { panic!("the impl is gone") };
        assert_eq!(block.items.len(), 1);
    }

    #[test]
    fn this_workspace_is_read_and_tests_are_told_from_production() {
        let tree = Tree::read(Path::new(env!("CARGO_MANIFEST_DIR"))).expect("the workspace");
        let is_test =
            |path: &str| tree.sources.iter().find(|source| source.path == path).map(|source| source.is_test);
        assert_eq!(is_test("crates/tidy/src/tree.rs"), Some(false));
        assert_eq!(is_test("crates/tidy/tests/house.rs"), Some(true));
        assert_eq!(is_test("crates/core/src/machine.rs"), Some(false));
        assert_eq!(is_test("fuzz/short_run.rs"), Some(true), "declared by a path");
        assert!(tree.pages.iter().any(|page| page.path == "docs/internals/protocol.md"));
    }
}
