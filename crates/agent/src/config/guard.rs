//! `[guard]`: the process that writes heartbeats and freezes VMs.

use super::document::Document;
use super::error::{ConfigError, Place};
use std::path::PathBuf;
use toml::Spanned;

/// How the guard is run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuardOptions {
    /// The program; without it, `mainstay-guard` beside the agent's own.
    pub program: Option<PathBuf>,
    /// The watchdog device that it keeps quiet.
    pub watchdog: Option<PathBuf>,
    /// The file to which its log is appended; without it, the agent's stderr.
    pub log: Option<PathBuf>,
}

pub(super) fn check_guard(place: &Place<'_>, document: &Document) -> Result<GuardOptions, ConfigError> {
    let path = |what: &str, path: &Option<Spanned<PathBuf>>| {
        path.as_ref().map(|path| super::absolute(place, what, path)).transpose()
    };
    let section = &document.guard;
    Ok(GuardOptions {
        program: path("program", &section.program)?,
        watchdog: path("watchdog", &section.watchdog)?,
        log: path("log", &section.log)?,
    })
}
