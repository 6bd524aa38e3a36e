//! Licences of all that is linked into our programs, or builds them.

use crate::Finding;
use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, Metadata, Package, PackageId};
use spdx::{Expression, ParseMode};
use std::collections::{BTreeMap, BTreeSet};

/// Licences that what we link may be under. LGPL-2.1 is that of the binding to libvirt, whose sources are open as ours are.
/// BlueOak-1.0.0 is permissive, as MIT is; minicbor is under it.
const ALLOWED: [&str; 7] =
    ["Apache-2.0", "BlueOak-1.0.0", "BSD-3-Clause", "ISC", "LGPL-2.1", "MIT", "Unicode-3.0"];

/// Crates that no allowed licence covers.
pub fn refused(metadata: &Metadata) -> Result<Vec<Finding>> {
    let resolved = metadata.resolve.as_ref().context("cargo metadata resolved nothing")?;
    let nodes: BTreeMap<&PackageId, _> = resolved.nodes.iter().map(|node| (&node.id, node)).collect();
    let mut linked: BTreeSet<&PackageId> = BTreeSet::new();
    let mut next: Vec<&PackageId> = metadata.workspace_members.iter().collect();
    while let Some(id) = next.pop() {
        if !linked.insert(id) {
            continue;
        }
        for dependency in nodes.get(id).into_iter().flat_map(|node| &node.deps) {
            // What only tests use is not given to anybody.
            if dependency.dep_kinds.iter().any(|kind| kind.kind != DependencyKind::Development) {
                next.push(&dependency.pkg);
            }
        }
    }
    let packages = metadata.packages.iter().filter(|package| linked.contains(&package.id));
    Ok(packages.filter_map(refusal).collect())
}

fn refusal(package: &Package) -> Option<Finding> {
    let licence = package.license.as_deref().unwrap_or("no licence");
    let what = (!is_allowed(licence)).then(|| licence.to_string())?;
    Some(Finding { path: format!("{} {}", package.name, package.version), line: 0, what })
}

/// Whether one of the ways to satisfy this expression needs only allowed licences. `MIT/Apache-2.0` is an old way to write *or*.
fn is_allowed(expression: &str) -> bool {
    let Ok(expression) = Expression::parse_mode(expression, ParseMode::LAX) else { return false };
    expression.evaluate(|requirement| requirement.license.id().is_some_and(|id| ALLOWED.contains(&id.name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_understood() {
        for good in [
            "MIT",
            "GPL-3.0 OR MIT",
            "MIT/Apache-2.0",
            "(MIT OR GPL-2.0) AND ISC",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert!(is_allowed(good), "{good}");
        }
        for bad in ["GPL-3.0", "MIT AND GPL-3.0", "no licence", "", "LicenseRef-Mine"] {
            assert!(!is_allowed(bad), "{bad}");
        }
    }
}
