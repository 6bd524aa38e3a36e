//! The agent's configuration file: TOML to checked values. What is wrong is refused with file, line, reason and remedy,
//! before anything has been started. It reads the key file and looks whether the datastores' directories are there; it does
//! not touch what is in them.

mod das;
mod document;
mod error;
mod guard;
mod heartbeat;
mod isolation;
mod members;
mod migration;
mod recorder;

pub use document::{LogFormat, LogLevel};
pub use error::ConfigError;
pub use guard::GuardOptions;
pub use isolation::{IsolationConfig, IsolationResponse, IsolationTarget};
pub use members::{ADDRESSES_MAX, Member};
pub use migration::MigrationConfig;
pub use recorder::RecorderConfig;

use document::Document;
use error::Place;
use mainstay_core::ids::{BootId, DatastoreName, Incarnation};
use mainstay_core::{Span, Timing};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;

/// How long a datastore's directory may take to show itself at start. A hung mount is not a wrong configuration: the agent
/// starts all the same, and says later that the datastore is out of reach.
const DIRECTORY_PATIENCE: Duration = Duration::from_secs(2);

/// A configuration that can work.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Where the agent keeps its own files.
    pub state_dir: PathBuf,
    /// The cluster's id: 8 to 32 hexadecimal digits, lower case.
    pub cluster_id: String,
    /// The cluster's name.
    pub cluster_name: String,
    /// The cluster's key.
    pub key: ClusterKey,
    /// The host that this agent runs on.
    pub me: Member,
    /// The other hosts.
    pub peers: Vec<Member>,
    /// The datastores that the hosts share.
    pub datastores: Vec<DatastoreConfig>,
    /// Where libvirt listens.
    pub libvirt_uri: String,
    /// The times of the protocol.
    pub timing: Timing,
    /// How many VMs this host starts at once.
    pub concurrent_starts: u32,
    /// How VMs are live-migrated.
    pub migration: MigrationConfig,
    /// How this host finds out that it is isolated, and what it does then.
    pub isolation: IsolationConfig,
    /// How heartbeat datastores are chosen.
    pub heartbeat: mainstay_core::HeartbeatChoice,
    /// Where the API listens.
    pub api_socket: PathBuf,
    /// The flight recorder.
    pub recorder: RecorderConfig,
    /// How the guard is run.
    pub guard: GuardOptions,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which are written.
    pub log_level: LogLevel,
}

/// The secret that all hosts of the cluster share. Not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKey(pub [u8; 32]);

impl std::fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClusterKey(..)")
    }
}

/// A datastore as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatastoreConfig {
    /// Its name, the same on all hosts.
    pub name: DatastoreName,
    /// Where it is mounted on this host.
    pub path: PathBuf,
    /// Whether a directory that is no mount point serves too.
    pub allow_unmounted: bool,
}

impl AgentConfig {
    /// Reads and checks the file.
    pub fn load(file: &Path) -> Result<AgentConfig, ConfigError> {
        let text = std::fs::read_to_string(file)
            .map_err(|source| ConfigError::Unreadable { file: file.to_path_buf(), source })?;
        AgentConfig::parse(file, &text)
    }

    /// Checks the text of the file.
    pub fn parse(file: &Path, text: &str) -> Result<AgentConfig, ConfigError> {
        let place = Place { file, text };
        let document: Document = toml::from_str(text).map_err(|error| place.toml(&error))?;
        let das = das::Das::read(&place, &document)?;
        let members = members::check_members(&place, &document, &das)?;
        let isolation = isolation::check_isolation(&place, &document, &das, &members.0)?;
        let datastores = check_datastores(&place, &document)?;
        let heartbeat = heartbeat::check_heartbeat(&place, &document, &das, &datastores)?;
        let (cluster_id, cluster_name) = check_cluster(&place, &document)?;
        let timing = check_timing(&place, &document)?;
        let key = read_key(&place, &document.cluster.key_file)?;
        let state_dir = absolute(&place, "state_dir", &document.state_dir)?;
        let api_socket = absolute(&place, "socket", &document.api.socket)?;
        let recorder = recorder::check_recorder(&place, &document)?;
        let guard = guard::check_guard(&place, &document)?;
        let migration = migration::check_migration(&place, &document)?;
        let (me, peers) = members;
        let config = AgentConfig {
            state_dir,
            cluster_id,
            cluster_name,
            key,
            me,
            peers,
            datastores,
            libvirt_uri: document.libvirt.uri,
            timing,
            concurrent_starts: *document.restart.concurrent_starts.get_ref(),
            migration,
            isolation,
            heartbeat,
            api_socket,
            recorder,
            guard,
            log_format: document.log.format,
            log_level: document.log.level,
        };
        // Whatever the core would refuse is refused here, before anything is started.
        config
            .core(BootId([0; 16]), Incarnation(0))
            .check()
            .map_err(|reason| place.refuse(document.restart.concurrent_starts.span(), reason, ""))?;
        Ok(config)
    }

    /// The part that the core gets.
    pub fn core(&self, boot: BootId, incarnation: Incarnation) -> mainstay_core::Config {
        mainstay_core::Config {
            me: self.me.id.clone(),
            peers: self.peers.iter().map(|peer| peer.id.clone()).collect(),
            datastores: self.datastores.iter().map(|datastore| datastore.name.clone()).collect(),
            timing: self.timing,
            boot,
            incarnation,
            concurrent_starts: self.concurrent_starts,
            isolation_addresses: self.isolation.names(),
            isolation_timeout: self
                .isolation
                .timeout
                .map(|timeout| mainstay_core::Span(timeout.as_micros() as u64)),
            isolation_response: self.isolation.response.core(),
            shutdown_timeout: mainstay_core::Span(self.isolation.shutdown_timeout.as_micros() as u64),
            heartbeat_datastores: self.heartbeat.clone(),
            rehearse: true,
        }
    }

    /// The host of that name or id.
    pub fn member(&self, name_or_id: &str) -> Option<&Member> {
        self.members().find(|member| member.name == name_or_id || member.id.as_str() == name_or_id)
    }

    /// All hosts, this one first.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        std::iter::once(&self.me).chain(&self.peers)
    }
}

fn check_cluster(place: &Place<'_>, document: &Document) -> Result<(String, String), ConfigError> {
    let id = document.cluster.id.get_ref();
    if !(8..=32).contains(&id.len()) || !id.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err(place.refuse(
            document.cluster.id.span(),
            format!("cluster id \"{id}\" is not 8 to 32 hexadecimal digits"),
            "make one with: openssl rand -hex 4, and use the same on all hosts",
        ));
    }
    let name = document.cluster.name.get_ref();
    check_name(place, "cluster name", &document.cluster.name)?;
    Ok((id.to_ascii_lowercase(), name.clone()))
}

/// Names become parts of file names on datastores, so they are kept plain.
fn check_name(place: &Place<'_>, what: &str, name: &Spanned<String>) -> Result<(), ConfigError> {
    let text = name.get_ref();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.len() > 64 || text.starts_with('.') || !text.chars().all(plain) {
        return Err(place.refuse(
            name.span(),
            format!("{what} \"{text}\" is not usable"),
            "use 1 to 64 letters, digits, '-', '_' and '.', not beginning with '.'",
        ));
    }
    Ok(())
}

fn check_datastores(place: &Place<'_>, document: &Document) -> Result<Vec<DatastoreConfig>, ConfigError> {
    let mut datastores: Vec<DatastoreConfig> = Vec::new();
    if document.datastore.is_empty() {
        return Err(place.refuse(
            0..0,
            "no datastore is configured".into(),
            "name at least one that the hosts share, as [[datastore]] with name and path",
        ));
    }
    for section in &document.datastore {
        check_name(place, "datastore name", &section.name)?;
        let name = section.name.get_ref();
        let path = absolute(place, "path", &section.path)?;
        if datastores.iter().any(|other| other.name.as_str() == name) {
            return Err(place.refuse(
                section.name.span(),
                format!("datastore name {name} is used twice"),
                "give each datastore a name of its own, the same on all hosts",
            ));
        }
        if let Some(other) = datastores.iter().find(|other| other.path == path) {
            return Err(place.refuse(
                section.path.span(),
                format!("path {} is used twice, {} has it too", path.display(), other.name),
                "name each datastore once",
            ));
        }
        check_directory(place, section.path.span(), &path)?;
        datastores.push(DatastoreConfig {
            name: DatastoreName::new(name),
            path,
            allow_unmounted: section.allow_unmounted,
        });
    }
    Ok(datastores)
}

/// Looks on a thread of its own, since a hung mount would keep the caller for ever.
fn check_directory(place: &Place<'_>, span: std::ops::Range<usize>, path: &Path) -> Result<(), ConfigError> {
    let (tell, told) = std::sync::mpsc::channel();
    let looked_at = path.to_path_buf();
    let looker = std::thread::Builder::new().name("look".into()).spawn(move || {
        // The receiver may be gone by then: that is the case this thread exists for.
        let _ = tell.send(std::fs::metadata(&looked_at));
    });
    if looker.is_err() {
        return Ok(());
    }
    match told.recv_timeout(DIRECTORY_PATIENCE) {
        Ok(Ok(metadata)) if metadata.is_dir() => Ok(()),
        Ok(Ok(_)) => Err(place.refuse(
            span,
            format!("datastore path {} is not a directory", path.display()),
            "name the directory where the datastore is mounted",
        )),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => Err(place.refuse(
            span,
            format!("datastore path {} does not exist", path.display()),
            "mount the datastore there, or correct the path",
        )),
        // A stale NFS handle or a silent server: not the configuration's fault.
        Ok(Err(_)) | Err(_) => Ok(()),
    }
}

fn check_timing(place: &Place<'_>, document: &Document) -> Result<Timing, ConfigError> {
    let section = document.timing.get_ref();
    let preset = section.preset.get_ref();
    let mut timing = Timing::preset(preset).ok_or_else(|| {
        place.refuse(
            section.preset.span(),
            format!("there is no timing preset \"{preset}\""),
            "use standard, swift or patient",
        )
    })?;
    for (value, field) in [
        (&section.heartbeat, &mut timing.heartbeat),
        (&section.lease, &mut timing.lease),
        (&section.failure_timeout, &mut timing.failure_timeout),
    ] {
        if let Some(text) = value {
            *field = parse_span(text.get_ref()).ok_or_else(|| {
                place.refuse(
                    text.span(),
                    format!("\"{}\" is not a time", text.get_ref()),
                    "write whole seconds or milliseconds, for example 3s or 4500ms",
                )
            })?;
        }
    }
    timing.check().map_err(|reason| place.refuse(document.timing.span(), reason, ""))?;
    Ok(timing)
}

fn parse_span(text: &str) -> Option<Span> {
    let (digits, factor) = match text.strip_suffix("ms") {
        Some(digits) => (digits, 1_000),
        None => (text.strip_suffix('s')?, 1_000_000),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_ascii_digit()) {
        return None;
    }
    // A day is far beyond what Timing::check lets through, and far below what could overflow later.
    let micros = digits.parse::<u64>().ok()?.checked_mul(factor)?;
    (micros <= Span::from_secs(86_400).0).then_some(Span(micros))
}

fn absolute(place: &Place<'_>, what: &str, path: &Spanned<PathBuf>) -> Result<PathBuf, ConfigError> {
    if path.get_ref().is_absolute() {
        // Without a slash at the end, so that the same directory is not taken for another one.
        return Ok(path.get_ref().components().collect());
    }
    Err(place.refuse(
        path.span(),
        format!("{what} \"{}\" is not an absolute path", path.get_ref().display()),
        "write it from the root, beginning with /",
    ))
}

fn read_key(place: &Place<'_>, key_file: &Spanned<PathBuf>) -> Result<ClusterKey, ConfigError> {
    let path = absolute(place, "key_file", key_file)?;
    let refuse = |reason: String, remedy: &str| place.refuse(key_file.span(), reason, remedy);
    let make_one = format!(
        "make it on one host with: openssl rand -hex 32 > {0}; chmod 600 {0}, and copy it to all others",
        path.display()
    );
    let metadata = std::fs::metadata(&path)
        .map_err(|error| refuse(format!("key file {} can't be read: {error}", path.display()), &make_one))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(refuse(
            format!("key file {} may be read by others (mode {mode:04o})", path.display()),
            &format!("chmod 600 {}", path.display()),
        ));
    }
    let text = std::fs::read_to_string(&path)
        .map_err(|error| refuse(format!("key file {} can't be read: {error}", path.display()), &make_one))?;
    parse_key(text.trim()).ok_or_else(|| {
        refuse(format!("key file {} does not hold 64 hexadecimal digits", path.display()), &make_one)
    })
}

fn parse_key(text: &str) -> Option<ClusterKey> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut key = [0u8; 32];
    for (byte, pair) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digit = |c: u8| char::from(c).to_digit(16);
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Some(ClusterKey(key))
}
