//! The units for systemd: what starts before what, and so what ends after what.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The settings of a unit's file, all values of each.
fn unit(name: &str) -> BTreeMap<String, BTreeSet<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut settings: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (key, values) in
        text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='))
    {
        settings.entry(key.to_owned()).or_default().extend(values.split_whitespace().map(str::to_owned));
    }
    settings
}

const LIBVIRT: [&str; 3] = ["libvirtd.service", "virtqemud.service", "libvirt-guests.service"];

#[test]
fn the_agent_starts_before_libvirt_and_ends_after_it() {
    let agent = unit("mainstay.service");
    let of = |key: &str| agent.get(key).cloned().unwrap_or_default();
    for service in LIBVIRT {
        assert!(of("Before").contains(service), "{service}");
        // With these, a restart of libvirt would stop the agent, or the agent's stop libvirt's guests.
        for key in ["After", "Requires", "Requisite", "BindsTo", "PartOf", "Upholds", "Wants"] {
            assert!(!of(key).contains(service), "{key} {service}");
        }
    }
    // Libvirt's own units wait for it, and are waited for by libvirt: a circle.
    assert!(!of("Before").contains("machine.slice"));
    // Libvirt waits until it is ready, and not for ever.
    assert_eq!(of("Type"), ["notify".to_owned()].into());
    assert!(agent.contains_key("TimeoutStartSec"));
}

#[test]
fn the_guard_starts_before_the_agent() {
    let guard = unit("mainstay-guard.service");
    assert!(guard["Before"].contains("mainstay.service"));
    assert!(LIBVIRT.iter().all(|service| !guard["After"].contains(*service)));
}
