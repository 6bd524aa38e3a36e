//! The guard's settings: a JSON file that the agent writes before it starts the guard.
//!
//! Fields that this version does not know are ignored and those that are missing get their defaults, so that agent and guard may be of
//! different versions during an upgrade. The agent compares what the running guard has with what it wants.

use crate::error::GuardError;
use mainstay_words::Timing;
use mainstay_words::ids::{DatastoreName, HostId};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What a guard needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The host that this guard runs on.
    pub host: HostId,
    /// The cluster's id.
    pub cluster_id: String,
    /// The cluster's name, for its folder on datastores.
    pub cluster_name: String,
    /// The cluster's datastores.
    pub datastores: Vec<DatastoreSettings>,
    /// The times, the same as the agent's.
    pub timing: Timing,
    /// Where socket, lock and kept state are: the directory of the agent's socket. In memory, so that it never hangs.
    pub runtime_dir: PathBuf,
    /// The watchdog device to keep quiet while the guard works.
    #[serde(default)]
    pub watchdog: Option<PathBuf>,
    /// How much is logged, and in which form.
    #[serde(default)]
    pub log: LogSettings,
}

/// A datastore that this host writes heartbeats to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatastoreSettings {
    /// The name that all hosts know it by.
    pub name: DatastoreName,
    /// Where it is mounted.
    pub path: PathBuf,
    /// Whether a directory that is no mount point serves too.
    #[serde(default)]
    pub allow_unmounted: bool,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSettings {
    /// One JSON object a line instead of text.
    pub json: bool,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
}

impl Default for LogSettings {
    fn default() -> Self {
        LogSettings { json: false, level: "info".into() }
    }
}

impl Settings {
    /// Reads the file.
    pub fn load(file: &Path) -> Result<Settings, GuardError> {
        let failed = |reason: String| GuardError::Settings { file: file.to_path_buf(), reason };
        let text = std::fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
        serde_json::from_str(&text).map_err(|error| failed(error.to_string()))
    }

    /// Writes the file, whole or not at all.
    pub fn store(&self, file: &Path) -> Result<(), GuardError> {
        let failed = |source| GuardError::RuntimeDir { what: "writing", path: file.to_path_buf(), source };
        let text = serde_json::to_string_pretty(self).map_err(|error| failed(error.into()))?;
        let draft = file.with_extension("new");
        std::fs::write(&draft, text + "\n").and_then(|()| std::fs::rename(&draft, file)).map_err(failed)
    }

    /// Where the guard listens.
    pub fn socket(&self) -> PathBuf {
        self.runtime_dir.join("guard.sock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_come_back_as_they_were_and_unknown_ones_are_ignored() {
        let settings = Settings {
            host: HostId::new("host-1"),
            cluster_id: "1ab0001a".into(),
            cluster_name: "lab".into(),
            datastores: vec![DatastoreSettings {
                name: DatastoreName::new("ds1"),
                path: "/srv/ds1".into(),
                allow_unmounted: true,
            }],
            timing: Timing::SWIFT,
            runtime_dir: "/run/mainstay".into(),
            watchdog: None,
            log: LogSettings::default(),
        };
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("guard.json");
        settings.store(&file).expect("stored");
        assert_eq!(Settings::load(&file).expect("loaded"), settings);
        let text = std::fs::read_to_string(&file).expect("text");
        std::fs::write(&file, text.replacen('{', "{\"new_in_a_later_version\": 1,", 1)).expect("written");
        assert_eq!(Settings::load(&file).expect("loaded"), settings);
        std::fs::write(&file, "{").expect("written");
        let refusal = Settings::load(&file).expect_err("broken").to_string();
        assert!(refusal.contains("guard.json") && refusal.ends_with("start the agent"), "{refusal}");
    }
}
