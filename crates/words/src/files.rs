//! What a host's `agent.toml` says of the cluster: who its members are, and which datastores it has (R5).

use crate::config::Config;
use crate::ids::{DatastoreName, HostId};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

/// Members and datastores, as one host's file has them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Files {
    /// All hosts, this one included, in the order of their ids.
    pub members: Vec<HostId>,
    /// All datastores, in the order of their names.
    pub datastores: Vec<DatastoreName>,
}

/// Tells one [`Files`] from another: equal ones have equal digests, and others practically never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FilesDigest(pub u64);

impl Files {
    /// Those that a core was started with.
    pub fn of(config: &Config) -> Files {
        let mut members: Vec<HostId> = config.peers.iter().chain([&config.me]).cloned().collect();
        members.sort();
        let mut datastores = config.datastores.clone();
        datastores.sort();
        Files { members, datastores }
    }

    /// FNV-1a over all names, each with an end that stands in no name.
    pub fn digest(&self) -> FilesDigest {
        let mut sum: u64 = 0xcbf2_9ce4_8422_2325;
        let mut add = |byte: u8| sum = (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        for host in &self.members {
            host.as_str().bytes().chain([0]).for_each(&mut add);
        }
        add(1);
        for datastore in &self.datastores {
            datastore.as_str().bytes().chain([0]).for_each(&mut add);
        }
        FilesDigest(sum)
    }

    /// In words, what is missing where: `self` is the file of `me`, `other` that of `host`.
    pub fn difference(&self, me: &HostId, other: &Files, host: &HostId) -> String {
        let (there, here) = (lacking(other, self), lacking(self, other));
        match (there.is_empty(), here.is_empty()) {
            (false, true) => format!("{host} lacks {there}, which {me} has"),
            (true, false) => format!("{me} lacks {here}, which {host} has"),
            (false, false) => format!("{host} lacks {there}, and {me} lacks {here}"),
            (true, true) => format!("{host} and {me} name the same"),
        }
    }
}

/// What the second has and the first has not.
fn lacking(one: &Files, other: &Files) -> String {
    let hosts = named("host", other.members.iter().filter(|host| !one.members.contains(host)));
    let stores = other.datastores.iter().filter(|name| !one.datastores.contains(name));
    let stores = named("datastore", stores);
    if hosts.is_empty() || stores.is_empty() { hosts + &stores } else { format!("{hosts} and {stores}") }
}

fn named<T: fmt::Display>(what: &str, names: impl Iterator<Item = T>) -> String {
    let names: Vec<String> = names.map(|name| format!("{name}")).collect();
    match names.len() {
        0 => String::new(),
        1 => format!("{what} {}", names[0]),
        _ => format!("{what}s {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::{DatastoreName, Files, HostId};
    use alloc::vec::Vec;

    fn files(hosts: &[&str], datastores: &[&str]) -> Files {
        let members: Vec<HostId> = hosts.iter().map(|id| HostId::new(id)).collect();
        Files { members, datastores: datastores.iter().map(|name| DatastoreName::new(name)).collect() }
    }

    #[test]
    fn what_is_missing_is_said_with_where_it_is_missing() {
        let (h1, h3) = (HostId::new("h1"), HostId::new("h3"));
        let ours = files(&["h1", "h2", "h3"], &["ds1", "ds2"]);
        let shorter = files(&["h1", "h3"], &["ds1"]);
        let longer = files(&["h1", "h2", "h3", "h4"], &["ds1"]);
        assert_eq!(ours.difference(&h1, &shorter, &h3), "h3 lacks host h2 and datastore ds2, which h1 has");
        assert_eq!(ours.difference(&h1, &longer, &h3), "h3 lacks datastore ds2, and h1 lacks host h4");
        assert_ne!(ours.digest(), shorter.digest());
        assert_ne!(files(&["a", "b"], &[]).digest(), files(&["ab"], &[]).digest());
        assert_ne!(files(&["a"], &["b"]).digest(), files(&["a", "b"], &[]).digest());
    }
}
