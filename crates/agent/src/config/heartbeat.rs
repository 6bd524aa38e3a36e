//! Heartbeat datastores: how many, and which the user wants.

use super::das::{Das, given_once};
use super::document::Document;
use super::error::{ConfigError, Place};
use super::{DatastoreConfig, Spanned};
use mainstay_core::{DatastoreName, HeartbeatChoice};

pub(super) fn check_heartbeat(
    place: &Place<'_>,
    document: &Document,
    das: &Das,
    datastores: &[DatastoreConfig],
) -> Result<HeartbeatChoice, ConfigError> {
    let section = &document.heartbeat;
    let count = given_once(
        place,
        "[heartbeat] datastores_per_host",
        section.datastores_per_host.as_ref(),
        "heartbeatDsPerHost",
        das.heartbeat_ds_per_host(),
    )?;
    let mut choice = HeartbeatChoice::default();
    if let Some(count) = count {
        let usable = u32::try_from(*count.get_ref()).ok().filter(|count| (2..=5).contains(count));
        choice.count = usable.ok_or_else(|| {
            let reason = format!("{} heartbeat datastores for each host are not possible", count.get_ref());
            place.refuse(count.span(), reason, "use 2 to 5")
        })?;
    }
    let wanted: &[Spanned<String>] = section.datastores.as_ref().map_or(&[], |list| list.get_ref());
    for name in wanted {
        if !datastores.iter().any(|datastore| datastore.name.as_str() == name.get_ref()) {
            let reason = format!("heartbeat datastore {} is no datastore of this cluster", name.get_ref());
            return Err(place.refuse(name.span(), reason, "name it as in its [[datastore]] section"));
        }
        choice.wanted.push(DatastoreName::new(name.get_ref()));
    }
    Ok(choice)
}
