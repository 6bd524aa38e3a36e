//! `[migration]`: how VMs are live-migrated when Mainstay moves them (maintenance).

use super::document::Document;
use super::error::{ConfigError, Place};
use super::members::Member;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

/// A migration that takes longer than a day never ends; one that must be done within seconds is no migration.
const TIMEOUT_S: RangeInclusive<u64> = 10..=86_400;

/// How VMs are live-migrated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationConfig {
    /// The destination's libvirt, with `{host}` for its name and `{address}` for its first address.
    uri: String,
    /// Where the memory goes, likewise; `None`: to the name that the destination gives itself.
    data_uri: Option<String>,
    /// Also where libvirt calls it unsafe.
    pub allow_unsafe: bool,
    /// How long one may take.
    pub timeout: Duration,
}

impl MigrationConfig {
    /// That host's libvirt, as this host's libvirtd is to reach it.
    pub fn uri(&self, host: &Member) -> String {
        filled_in(&self.uri, host)
    }

    /// Where the memory is sent.
    pub fn data_uri(&self, host: &Member) -> Option<String> {
        self.data_uri.as_ref().map(|uri| filled_in(uri, host))
    }
}

fn filled_in(template: &str, host: &Member) -> String {
    let address = match host.addresses.first().map(|address| address.ip()) {
        Some(IpAddr::V6(address)) => format!("[{address}]"),
        Some(IpAddr::V4(address)) => address.to_string(),
        // Members have addresses; their names are the next best.
        None => host.name.clone(),
    };
    template.replace("{host}", &host.name).replace("{address}", &address)
}

pub(super) fn check_migration(
    place: &Place<'_>,
    document: &Document,
) -> Result<MigrationConfig, ConfigError> {
    let section = &document.migration;
    for (what, uri, example) in [
        ("uri", Some(&section.uri), "qemu+ssh://{host}/system"),
        ("data_uri", Some(&section.data_uri).filter(|uri| !uri.get_ref().is_empty()), "tcp://{address}"),
    ] {
        let Some(uri) = uri else { continue };
        let text = uri.get_ref();
        let names_host = text.contains("{host}") || text.contains("{address}");
        let rest = text.replace("{host}", "").replace("{address}", "");
        let is_uri = text.contains("://") && !rest.contains(['{', '}', '\0', ' ']);
        if !names_host || !is_uri {
            return Err(place.refuse(
                uri.span(),
                format!("migration {what} \"{text}\" does not say how each host is reached"),
                &format!("write a URI with {{host}} (its name) or {{address}} (its first address) in it, such as {example}"),
            ));
        }
    }
    let timeout = *section.timeout_s.get_ref();
    if !TIMEOUT_S.contains(&timeout) {
        return Err(place.refuse(
            section.timeout_s.span(),
            format!("timeout_s = {timeout} is not usable"),
            "write 10 to 86400 seconds",
        ));
    }
    let data_uri = section.data_uri.get_ref();
    Ok(MigrationConfig {
        uri: section.uri.get_ref().clone(),
        data_uri: (!data_uri.is_empty()).then(|| data_uri.clone()),
        allow_unsafe: section.allow_unsafe,
        timeout: Duration::from_secs(timeout),
    })
}
