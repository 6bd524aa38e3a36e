//! The configuration file's shape, as serde sees it. Values keep their place in the file, so that a refusal can name the line.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use toml::Spanned;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    pub(super) state_dir: Spanned<PathBuf>,
    pub(super) cluster: ClusterSection,
    pub(super) host: HostSection,
    #[serde(default)]
    pub(super) peer: Vec<HostSection>,
    #[serde(default)]
    pub(super) network: NetworkSection,
    #[serde(default)]
    pub(super) datastore: Vec<DatastoreSection>,
    #[serde(default)]
    pub(super) libvirt: LibvirtSection,
    #[serde(default = "default_timing")]
    pub(super) timing: Spanned<TimingSection>,
    #[serde(default)]
    pub(super) restart: RestartSection,
    #[serde(default)]
    pub(super) migration: MigrationSection,
    #[serde(default)]
    pub(super) isolation: IsolationSection,
    #[serde(default)]
    pub(super) heartbeat: HeartbeatSection,
    /// Names of old; which there are, `das` knows.
    #[serde(default)]
    pub(super) das: BTreeMap<Spanned<String>, Spanned<toml::Value>>,
    #[serde(default)]
    pub(super) api: ApiSection,
    #[serde(default)]
    pub(super) recorder: RecorderSection,
    #[serde(default)]
    pub(super) guard: GuardSection,
    #[serde(default)]
    pub(super) log: LogSection,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClusterSection {
    pub(super) id: Spanned<String>,
    pub(super) name: Spanned<String>,
    pub(super) key_file: Spanned<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HostSection {
    pub(super) id: Spanned<String>,
    pub(super) name: Spanned<String>,
    pub(super) address: Option<Spanned<String>>,
    pub(super) addresses: Option<Spanned<Vec<Spanned<String>>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NetworkSection {
    pub(super) allow_networks: Option<Spanned<Vec<Spanned<String>>>>,
}

/// `None` where nothing is written: a name of old may say it instead.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IsolationSection {
    pub(super) addresses: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) use_default_gateway: Option<Spanned<bool>>,
    pub(super) response: Option<Spanned<String>>,
    pub(super) timeout: Option<Spanned<u64>>,
    pub(super) shutdown_timeout: Option<Spanned<u64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HeartbeatSection {
    pub(super) datastores_per_host: Option<Spanned<u64>>,
    pub(super) datastores: Option<Spanned<Vec<Spanned<String>>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DatastoreSection {
    pub(super) name: Spanned<String>,
    pub(super) path: Spanned<PathBuf>,
    #[serde(default)]
    pub(super) allow_unmounted: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LibvirtSection {
    pub(super) uri: String,
}

impl Default for LibvirtSection {
    fn default() -> Self {
        LibvirtSection { uri: "qemu:///system".into() }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TimingSection {
    #[serde(default = "default_preset")]
    pub(super) preset: Spanned<String>,
    pub(super) heartbeat: Option<Spanned<String>>,
    pub(super) lease: Option<Spanned<String>>,
    pub(super) failure_timeout: Option<Spanned<String>>,
}

fn default_preset() -> Spanned<String> {
    Spanned::new(0..0, "standard".into())
}

fn default_timing() -> Spanned<TimingSection> {
    let section =
        TimingSection { preset: default_preset(), heartbeat: None, lease: None, failure_timeout: None };
    Spanned::new(0..0, section)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RestartSection {
    pub(super) concurrent_starts: Spanned<u32>,
}

impl Default for RestartSection {
    fn default() -> Self {
        RestartSection { concurrent_starts: Spanned::new(0..0, 4) }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct MigrationSection {
    pub(super) uri: Spanned<String>,
    pub(super) data_uri: Spanned<String>,
    #[serde(rename = "unsafe")]
    pub(super) allow_unsafe: bool,
    pub(super) timeout_s: Spanned<u64>,
}

impl Default for MigrationSection {
    fn default() -> Self {
        MigrationSection {
            uri: Spanned::new(0..0, "qemu+ssh://{host}/system".into()),
            data_uri: Spanned::new(0..0, "tcp://{address}".into()),
            allow_unsafe: false,
            timeout_s: Spanned::new(0..0, 3_600),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ApiSection {
    pub(super) socket: Spanned<PathBuf>,
}

impl Default for ApiSection {
    fn default() -> Self {
        ApiSection { socket: Spanned::new(0..0, "/run/mainstay/agent.sock".into()) }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RecorderSection {
    pub(super) enabled: bool,
    pub(super) max_mib: Spanned<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct GuardSection {
    pub(super) program: Option<Spanned<PathBuf>>,
    pub(super) watchdog: Option<Spanned<PathBuf>>,
    pub(super) log: Option<Spanned<PathBuf>>,
}

impl Default for RecorderSection {
    fn default() -> Self {
        RecorderSection { enabled: true, max_mib: Spanned::new(0..0, 64) }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LogSection {
    pub(super) format: LogFormat,
    pub(super) level: LogLevel,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line of text per event, for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Which log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Only what a person must act on.
    Error,
    /// What is degraded too.
    Warn,
    /// The protocol at work too.
    #[default]
    Info,
    /// Each operation on disks, VMs and the network too.
    Debug,
    /// Everything, message by message.
    Trace,
}
