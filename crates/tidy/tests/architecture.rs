//! What ARCHITECTURE.md says about crates, held against cargo's metadata: who may depend on whom, and who alone may use what.
//!
//! Only what is built into a crate counts here. A crate's tests may take more: a simulator to record from, a client to ask with.

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// Plain words, on which any crate may depend.
const WORDS: &str = "words";

/// One crate, and those of ours on which it may depend.
struct Row {
    name: &'static str,
    may_take: &'static [&'static str],
}

const fn row(name: &'static str, may_take: &'static [&'static str]) -> Row {
    Row { name, may_take }
}

/// An upper bound. What stands here and is not used does no harm; what is used and does not stand here is a decision.
const ROWS: [Row; 21] = [
    row("agent", &["api", "core", "formats", "guard", "hypervisor", "recorder", "storage", "transport"]),
    row("api", &[]),
    row("check", &["core", "guard-core"]),
    row("client", &["api"]),
    row("contracts", &[]),
    row("core", &["placement"]),
    row("ctl", &["agent", "api", "client", "core", "formats", "recorder", "sim", "storage"]),
    row("formats", &[]),
    row("guard", &["guard-core", "processes", "storage"]),
    row("guard-core", &[]),
    row("hypervisor", &["processes"]),
    row("lab", &["api"]),
    row("placement", &[]),
    row("processes", &[]),
    row("recorder", &["core"]),
    row("sim", &["core", "guard-core"]),
    row("storage", &["formats"]),
    row("testkit", &[]),
    // It measures sources; it is no part of what it measures.
    row("tidy", &[]),
    row("transport", &[]),
    row(WORDS, &[]),
];

/// A crate from outside, and those of ours that alone may use it.
struct Privilege {
    of: &'static str,
    only: &'static [&'static str],
}

const fn privilege(of: &'static str, only: &'static [&'static str]) -> Privilege {
    Privilege { of, only }
}

const PRIVILEGES: [Privilege; 11] = [
    // Event loops and sockets: nothing else may wait for the network.
    privilege("tokio", &["agent", "transport"]),
    privilege("axum", &["agent"]),
    privilege("hyper", &["agent"]),
    privilege("quinn", &["transport"]),
    privilege("rustls", &["transport"]),
    // libvirt: everything else goes on when it hangs.
    privilege("virt", &["hypervisor"]),
    privilege("virt-sys", &["hypervisor"]),
    // Randomness comes from a seed, or makes keys.
    privilege("rand_chacha", &["sim"]),
    privilege("aws-lc-rs", &["agent", "transport"]),
    privilege("stateright", &["check"]),
    privilege("comfy-table", &["ctl"]),
];

/// The crates without a clock, I/O, randomness or threads, and what they may take from outside.
const PURE: [&str; 4] = ["core", "guard-core", "placement", WORDS];
const PURE_TAKE: [&str; 1] = ["serde"];

fn metadata() -> Metadata {
    let mut command = MetadataCommand::new();
    command.current_dir(env!("CARGO_MANIFEST_DIR")).no_deps();
    command.other_options(["--locked", "--offline"].map(str::to_owned)).exec().expect("cargo's metadata")
}

fn short(name: &str) -> &str {
    name.strip_prefix("mainstay-").unwrap_or(name)
}

/// What is built into it: of ours (by their short names), and from outside.
fn taken(package: &Package) -> (Vec<&str>, Vec<&str>) {
    let built_in = package.dependencies.iter().filter(|taken| taken.kind == DependencyKind::Normal);
    let names: Vec<&str> = built_in.map(|taken| taken.name.as_str()).collect();
    let (ours, others): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| name.starts_with("mainstay-"));
    (ours.into_iter().map(short).collect(), others)
}

#[test]
fn each_crate_takes_only_those_of_ours_that_it_may() {
    let mut wrong = Vec::new();
    for package in metadata().workspace_packages() {
        let name = short(&package.name);
        let Some(row) = ROWS.iter().find(|row| row.name == name) else {
            wrong.push(format!("{name} has no row: add one here, and to the table in ARCHITECTURE.md"));
            continue;
        };
        let (ours, _) = taken(package);
        for other in ours.iter().filter(|other| **other != WORDS && !row.may_take.contains(other)) {
            wrong.push(format!("{name} takes {other}, which its row does not allow"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_those_who_may_use_event_loops_libvirt_and_randomness() {
    let mut wrong = Vec::new();
    for package in metadata().workspace_packages() {
        let (name, (_, others)) = (short(&package.name), taken(package));
        for Privilege { of, only } in &PRIVILEGES {
            if others.contains(of) && !only.contains(&name) {
                wrong.push(format!("{name} takes {of}, which only {} may", only.join(" and ")));
            }
        }
        for other in others.iter().filter(|other| PURE.contains(&name) && !PURE_TAKE.contains(other)) {
            wrong.push(format!("{name} takes {other}: it has no clock, I/O, randomness or threads"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_in_the_architecture_names_each_crate_once() {
    let metadata = metadata();
    let text = std::fs::read_to_string(metadata.workspace_root.join("ARCHITECTURE.md")).expect("the page");
    for package in metadata.workspace_packages() {
        let row = format!("\n| `{}` |", short(&package.name));
        assert_eq!(text.matches(&row).count(), 1, "rows of ARCHITECTURE.md that begin with {}", row.trim());
    }
}
