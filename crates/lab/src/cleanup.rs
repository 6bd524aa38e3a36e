//! Taking a lab apart, whatever is left of it.
//!
//! Everything is found by the names and places that the configuration gives, and each step is content if its part is
//! gone already. So it works for a whole lab, for one that was never completed and for one whose process was killed.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cgroup::Cgroup;
use crate::config::LabConfig;
use crate::error::{LabError, Result};
use crate::exec::run;

/// Where the command line finds a host's agent.
pub(crate) fn socket_link(host: usize) -> PathBuf {
    Path::new("/run/mainstay/hosts").join(format!("h{host}.sock"))
}

/// Mounts at or below a directory, innermost last.
pub(crate) fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines()
        .filter_map(|l| l.split(' ').nth(4))
        .map(PathBuf::from)
        .filter(|p| p.starts_with(dir))
        .collect()
}

fn namespace_exists(name: &str) -> bool {
    Path::new("/run/netns").join(name).exists()
}

/// Refuses to begin if something bears our names that no lab recorded: it is somebody else's.
pub(crate) fn refuse_foreign(config: &LabConfig) -> Result<()> {
    let mut found: Vec<String> = config
        .all_ns()
        .into_iter()
        .filter(|ns| namespace_exists(ns))
        .map(|ns| format!("network namespace {ns}"))
        .collect();
    let group = Cgroup::named(&config.cgroup_name())?;
    if group.populated() {
        found.push(format!("processes in {}", group.path().display()));
    }
    for host in 1..=config.hosts {
        let link = socket_link(host);
        let dangling_of_ours = fs::read_link(&link).is_ok_and(|to| to.starts_with(&config.dir));
        if dangling_of_ours {
            // Nothing is behind it, or the namespaces would be there too.
            let _ = fs::remove_file(&link);
        } else if link.symlink_metadata().is_ok() {
            found.push(format!("{}", link.display()));
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    Err(LabError::Config(format!(
        "these exist already and no lab of ours made them: {}. Remove them, or choose another name (MAINSTAY_LAB_NAME)",
        found.join(", ")
    )))
}

/// Removes all of a lab but its files. Goes on after a failure, so as to leave as little as possible, and then reports.
pub(crate) fn remove_all(config: &LabConfig) -> Result<()> {
    let mut left = Vec::new();
    let mut note = |r: Result<()>| {
        if let Err(e) = r {
            left.push(e.to_string());
        }
    };
    let group = Cgroup::named(&config.cgroup_name())?;
    note(group.kill());
    for ns in config.all_ns().into_iter().filter(|ns| namespace_exists(ns)) {
        note(run("delete a network", &["ip", "netns", "del", &ns]).map(drop));
    }
    for mount in mounts_below(&config.dir).iter().rev() {
        // Lazily: should a process that isn't ours look into it, it must not keep the lab from going.
        note(run("unmount", &["umount", "-l", &mount.display().to_string()]).map(drop));
    }
    if group.exists() {
        note(group.remove());
    }
    remove_socket_links(config);
    if left.is_empty() { Ok(()) } else { Err(LabError::Leftovers(left)) }
}

/// Removes the links to the agents' sockets, and their directories if nobody else uses them.
fn remove_socket_links(config: &LabConfig) {
    for host in 1..=config.hosts {
        let link = socket_link(host);
        if fs::read_link(&link).is_ok_and(|to| to.starts_with(&config.dir)) {
            // A link that stays leads nowhere, and the next lab replaces it.
            let _ = fs::remove_file(&link);
        }
    }
    for dir in ["/run/mainstay/hosts", "/run/mainstay"] {
        // Fails if something is in it, which is then not ours.
        let _ = fs::remove_dir(dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found_by_whole_path_components() {
        assert!(mounts_below(Path::new("/")).len() > 1);
        assert!(mounts_below(Path::new("/pro")).is_empty());
        assert!(mounts_below(Path::new("/proc")).contains(&PathBuf::from("/proc")));
    }
}
