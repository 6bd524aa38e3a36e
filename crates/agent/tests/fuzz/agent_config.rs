//! Fuzz target `agent_config`: the agent's configuration file. `ROOT` in it is a folder with a key and two datastores.

use mainstay_agent::config::AgentConfig;
use mainstay_core::{BootId, Incarnation};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Whether it is a configuration that an agent would start with.
pub fn check(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let text = text.replace("ROOT", &root().display().to_string());
    let file = Path::new("agent.toml");
    let config = match AgentConfig::parse(file, &text) {
        Ok(config) => config,
        Err(error) => {
            assert!(error.to_string().starts_with("agent.toml"), "the file is not named: {error}");
            return false;
        }
    };
    // Nothing that the core would refuse comes through.
    assert_eq!(config.core(BootId([1; 16]), Incarnation(1)).check(), Ok(()));
    assert!(!config.datastores.is_empty() && config.state_dir.is_absolute());
    // The same text, the same configuration; a key that nobody knows is refused wherever it is.
    let again = AgentConfig::parse(file, &text).expect("it was accepted before");
    assert_eq!(format!("{again:?}"), format!("{config:?}"));
    assert!(AgentConfig::parse(file, &format!("zz_novelty = 1\n{text}")).is_err());
    true
}

/// Made once for a process. It stays behind: nothing of it is secret.
fn root() -> PathBuf {
    static ROOT: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    let make = || {
        let root = std::env::temp_dir().join("mainstay-fuzz-agent-config");
        for datastore in ["ds1", "ds2"] {
            std::fs::create_dir_all(root.join(datastore)).expect("a datastore");
        }
        // Other processes may use it already: the key is there as a whole or not at all.
        let new = root.join(format!("key-{}", std::process::id()));
        std::fs::write(&new, "5a".repeat(32)).expect("a key");
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&new, mode).expect("its mode");
        std::fs::rename(&new, root.join("key")).expect("put in its place");
        root
    };
    ROOT.get_or_init(make).clone()
}
