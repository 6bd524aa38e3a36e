//! `[recorder]`: whether and how much the flight recorder keeps.

use super::document::Document;
use super::error::{ConfigError, Place};
use std::ops::RangeInclusive;

/// Below, a ring of a large cluster would hold little more than one checkpoint; above, somebody mistook the unit.
const MAX_MIB: RangeInclusive<u64> = 16..=65_536;

/// The flight recorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecorderConfig {
    /// Whether there is one.
    pub enabled: bool,
    /// What all its files together may take, in MiB.
    pub max_mib: u64,
}

impl RecorderConfig {
    /// What its files may take, in bytes; `None` when it is switched off.
    pub fn bytes_max(&self) -> Option<u64> {
        self.enabled.then_some(self.max_mib << 20)
    }
}

pub(super) fn check_recorder(place: &Place<'_>, document: &Document) -> Result<RecorderConfig, ConfigError> {
    let section = &document.recorder;
    let max_mib = *section.max_mib.get_ref();
    if !MAX_MIB.contains(&max_mib) {
        return Err(place.refuse(
            section.max_mib.span(),
            format!("max_mib = {max_mib} is not usable"),
            "write 16 to 65536 MiB, or enabled = false for no flight recorder",
        ));
    }
    Ok(RecorderConfig { enabled: section.enabled, max_mib })
}
