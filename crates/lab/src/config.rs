//! What a lab is to consist of, and the names and addresses that follow from it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{LabError, Result};

/// Where everything goes when [`LabConfig::dir`] isn't set. Not below `/run` or `/srv`, which every host covers.
pub const DEFAULT_BASE: &str = "/var/tmp/mainstay-lab";

/// The switch's own number in a network, where a host has its own.
pub(crate) const SWITCH: usize = 254;

/// One of the two networks that connect the hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Net {
    /// Management: the agents, libvirt, ping. `eth0`, 10.77.0.N; the bridge is 10.77.0.254, every host's gateway.
    Mgmt,
    /// Storage: the datastores' servers. `eth1`, 10.78.0.N; the bridge, where the servers listen, is 10.78.0.254.
    Storage,
}

impl Net {
    /// Both networks of a lab.
    pub const ALL: [Net; 2] = [Net::Mgmt, Net::Storage];

    /// The bridge in the switch.
    pub(crate) fn bridge(self) -> &'static str {
        match self {
            Net::Mgmt => "mgmt",
            Net::Storage => "storage",
        }
    }

    /// The network card in a host.
    pub fn nic(self) -> &'static str {
        match self {
            Net::Mgmt => "eth0",
            Net::Storage => "eth1",
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Net::Mgmt => "10.77.0",
            Net::Storage => "10.78.0",
        }
    }

    /// A host's address in this network.
    pub fn address(self, host: usize) -> String {
        format!("{}.{host}", self.prefix())
    }

    /// The switch's address in this network: the gateway, or the storage server.
    pub fn switch_address(self) -> String {
        format!("{}.{SWITCH}", self.prefix())
    }

    /// A network card's address on the wire, the same after every power-on, as with real hardware.
    pub(crate) fn mac(self, host: usize) -> String {
        match self {
            Net::Mgmt => format!("02:77:00:00:00:{host:02x}"),
            Net::Storage => format!("02:78:00:00:00:{host:02x}"),
        }
    }

    /// The switch's port to that host.
    pub(crate) fn port(self, host: usize) -> String {
        format!("h{host}{}", self.bridge())
    }
}

/// How a datastore is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DatastoreKind {
    /// A GlusterFS brick behind the storage network: real connections, real locks across hosts, really cut off.
    Gluster,
    /// The same directory bound into every host: faster, without a network, cannot be cut off.
    Local,
}

/// One datastore. It is mounted at `/srv/<name>` in every host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatastoreConfig {
    /// Its name, also of the directory under `/srv`.
    pub name: String,
    /// How it is made.
    pub kind: DatastoreKind,
    /// Its size in MiB, when it is to be one that can be filled up: a file system of its own in a file.
    /// Without it, it shares the space of the lab's directory.
    pub size_mib: Option<u64>,
}

impl DatastoreConfig {
    /// A GlusterFS datastore.
    pub fn gluster(name: &str) -> Self {
        DatastoreConfig { name: name.into(), kind: DatastoreKind::Gluster, size_mib: None }
    }

    /// A shared directory.
    pub fn local(name: &str) -> Self {
        DatastoreConfig { name: name.into(), kind: DatastoreKind::Local, size_mib: None }
    }

    /// The same with a size, so that it can be filled up.
    pub fn sized(mut self, mib: u64) -> Self {
        self.size_mib = Some(mib);
        self
    }

    /// Where hosts see it.
    pub fn path(&self) -> PathBuf {
        Path::new("/srv").join(&self.name)
    }
}

/// What a lab is to consist of.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LabConfig {
    /// Every namespace and cgroup of the lab begins with it. Environment `MAINSTAY_LAB_NAME`, else `mainstay`.
    pub name: String,
    /// Where hosts keep their files and datastores their data. Its own file system needs direct I/O (so not tmpfs).
    /// Anything below it is deleted when the lab is brought up and when it goes down.
    pub dir: PathBuf,
    /// How many hosts, `h1` to `hN`; at most 32.
    pub hosts: usize,
    /// The datastores; one Gluster `ds1` by default.
    pub datastores: Vec<DatastoreConfig>,
    /// How long a Gluster client waits for its server before its requests fail. Longer rides out longer cuts, with
    /// the VMs blocked meanwhile.
    pub ping_timeout: Duration,
    /// The agents' timing preset.
    pub timing: String,
    /// The `mainstay` binary. Environment `MAINSTAY_BIN`; without it, the one beside the running program, else the one
    /// in the workspace's `target`.
    pub agent_bin: Option<PathBuf>,
    /// Whether bringing the lab up starts the agents too.
    pub start_agents: bool,
    /// How long to wait for another lab on this machine to go.
    pub lock_wait: Duration,
    /// How long it may stand. Then it is described on stderr and taken down, and this process ends: for tests, which may hang.
    #[serde(default)]
    pub time_limit: Option<Duration>,
    /// Whether the lab stays when the [`crate::Lab`] is dropped, until `mainstay-lab down`.
    pub keep: bool,
    /// Whether the files stay when the lab goes, to look into. They do in any case while a test panics.
    pub keep_files: bool,
}

impl Default for LabConfig {
    fn default() -> Self {
        let name = std::env::var("MAINSTAY_LAB_NAME").unwrap_or_else(|_| "mainstay".into());
        LabConfig {
            dir: Path::new(DEFAULT_BASE).join(&name),
            name,
            hosts: 3,
            datastores: vec![DatastoreConfig::gluster("ds1")],
            ping_timeout: Duration::from_secs(5),
            timing: "standard".into(),
            agent_bin: std::env::var_os("MAINSTAY_BIN").map(PathBuf::from),
            start_agents: false,
            lock_wait: Duration::from_secs(900),
            time_limit: None,
            keep: false,
            keep_files: false,
        }
    }
}

impl LabConfig {
    /// Says what is wrong with it, before anything is touched.
    pub(crate) fn validate(&self) -> Result<()> {
        let refuse = |text: String| Err(LabError::Config(text));
        let plain = |s: &str| {
            !s.is_empty() && s.len() <= 20 && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        if !plain(&self.name) {
            return refuse(format!("name '{}': 1 to 20 letters, digits or '-'", self.name));
        }
        if !(1..=32).contains(&self.hosts) {
            return refuse(format!("{} hosts: 1 to 32 are possible", self.hosts));
        }
        if self.datastores.is_empty() || self.datastores.len() > 8 {
            return refuse(format!("{} datastores: 1 to 8 are possible", self.datastores.len()));
        }
        for (i, d) in self.datastores.iter().enumerate() {
            if !plain(&d.name) {
                return refuse(format!("datastore '{}': 1 to 20 letters, digits or '-'", d.name));
            }
            if self.datastores[..i].iter().any(|other| other.name == d.name) {
                return refuse(format!("datastore '{}' is there twice", d.name));
            }
        }
        // What is below these is covered by the hosts' own file systems; a short path is more likely a mistake than
        // meant, and its content would be deleted.
        let covered = ["/run", "/srv", "/proc", "/sys", "/dev"].iter().any(|p| self.dir.starts_with(p));
        if !self.dir.is_absolute() || self.dir.components().count() < 3 || covered {
            return refuse(format!(
                "dir {}: an absolute path of at least two parts, not below /run, /srv, /proc, /sys or /dev",
                self.dir.display()
            ));
        }
        if self.dir.to_string_lossy().bytes().any(|b| b.is_ascii_whitespace() || b"'\"\\$`".contains(&b)) {
            return refuse(format!("dir {}: no blanks or quotes, please", self.dir.display()));
        }
        Ok(())
    }

    /// The network namespace that plays the switches and the storage server.
    pub(crate) fn switch_ns(&self) -> String {
        format!("{}-lab-sw", self.name)
    }

    /// A host's network namespace.
    pub(crate) fn host_ns(&self, host: usize) -> String {
        format!("{}-lab-h{host}", self.name)
    }

    /// Every network namespace of the lab.
    pub(crate) fn all_ns(&self) -> Vec<String> {
        std::iter::once(self.switch_ns()).chain((1..=self.hosts).map(|h| self.host_ns(h))).collect()
    }

    /// The lab's cgroup, below the root of the hierarchy.
    pub(crate) fn cgroup_name(&self) -> String {
        format!("{}-lab", self.name)
    }

    /// A host's own directory.
    pub(crate) fn host_dir(&self, host: usize) -> PathBuf {
        self.dir.join(format!("h{host}"))
    }

    /// The directory that holds a datastore's data.
    pub(crate) fn store_dir(&self, datastore: &str) -> PathBuf {
        self.dir.join("store").join(datastore)
    }

    /// The datastore of that name.
    pub(crate) fn datastore(&self, name: &str) -> Result<&DatastoreConfig> {
        self.datastores.iter().find(|d| d.name == name).ok_or_else(|| LabError::NoSuchDatastore {
            datastore: name.into(),
            known: self.datastores.iter().map(|d| d.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    }

    /// The TCP port of a datastore's server.
    pub(crate) fn brick_port(&self, datastore: &str) -> usize {
        24010 + self.datastores.iter().position(|d| d.name == datastore).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_is_valid() {
        LabConfig::default().validate().unwrap();
    }

    #[test]
    fn dangerous_directories_are_refused() {
        for dir in ["/", "/var", "relative/x", "/run/lab", "/srv/lab", "/var/tmp/a b"] {
            let config = LabConfig { dir: dir.into(), ..LabConfig::default() };
            assert!(matches!(config.validate(), Err(LabError::Config(_))), "{dir} was accepted");
        }
    }

    #[test]
    fn port_names_fit_the_kernels_limit() {
        assert!(Net::ALL.iter().all(|n| n.port(32).len() <= 15));
    }

    #[test]
    fn datastores_have_ports_of_their_own_and_no_twins() {
        let two = vec![DatastoreConfig::gluster("ds1"), DatastoreConfig::gluster("ds2")];
        let config = LabConfig { datastores: two, ..LabConfig::default() };
        config.validate().unwrap();
        assert_ne!(config.brick_port("ds1"), config.brick_port("ds2"));
        let twins = vec![DatastoreConfig::gluster("ds1"), DatastoreConfig::local("ds1")];
        assert!(LabConfig { datastores: twins, ..LabConfig::default() }.validate().is_err());
    }
}
