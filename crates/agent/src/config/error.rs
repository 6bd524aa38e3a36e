//! How a configuration is refused: where, why, and what to do.

use std::ops::Range;
use std::path::{Path, PathBuf};

/// A configuration that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read at all.
    #[error("configuration {file} can't be read: {source}; name the right file with --config", file = file.display())]
    Unreadable {
        /// The file that was named, or the default one.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Something in it is wrong.
    #[error("{file}, line {line}: {reason}", file = file.display())]
    Refused {
        /// The file that has the mistake.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong and what to do.
        reason: String,
    },
}

/// The text that is being checked.
pub(super) struct Place<'a> {
    pub(super) file: &'a Path,
    pub(super) text: &'a str,
}

impl Place<'_> {
    /// Refuses what stands at `span`.
    pub(super) fn refuse(&self, span: Range<usize>, reason: String, remedy: &str) -> ConfigError {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let reason = if remedy.is_empty() { reason } else { format!("{reason}: {remedy}") };
        ConfigError::Refused { file: self.file.to_path_buf(), line, reason }
    }

    /// Refuses what the TOML reader refused.
    pub(super) fn toml(&self, error: &toml::de::Error) -> ConfigError {
        let message = error.message().replace('\n', " ");
        let remedy = if message.starts_with("unknown field") {
            "remove it, or correct its spelling"
        } else if message.starts_with("missing field") {
            "add it (see agent.example.toml)"
        } else {
            "see agent.example.toml for how it is written"
        };
        self.refuse(error.span().unwrap_or(0..0), message, remedy)
    }
}
