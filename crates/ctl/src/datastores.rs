//! `mainstay datastore list`, which is also the datastores table of status.

use crate::style::{Style, Tone};
use crate::words::{HostNames, age, clean};
use mainstay_core::ids::Epoch;
use mainstay_core::view::{DatastoreView, View};

/// The table of datastores. "Connected", and what is left of ownership and run lease, are the answering host's own experience.
pub fn list(view: &View, names: &HostNames, style: &Style) -> String {
    let row = |datastore: &DatastoreView| {
        let plain = |text: String| style.cell(Tone::Plain, text);
        let connected = match (datastore.connected, &datastore.error) {
            (true, _) => plain("yes".to_owned()),
            (false, Some(error)) => style.cell(Tone::Alarm, format!("no: {}", clean(error))),
            (false, None) => style.cell(Tone::Alarm, "no"),
        };
        let owner = match &datastore.owner {
            Some(owner) => plain(names.full(owner)),
            None => style.cell(Tone::Warning, "nobody"),
        };
        let ownership = datastore.ownership_left.map_or_else(|| "-".to_owned(), age);
        let lease = match datastore.lease_left {
            Some(left) => plain(age(left)),
            // It carries no heartbeats and no VMs of this host: nothing waits for a lease.
            None if datastore.connected && !datastore.heartbeat => plain("-".to_owned()),
            None => style.cell(Tone::Warning, "none"),
        };
        let list = datastore
            .list
            .map_or_else(|| "-".to_owned(), |stamp| format!("{}.{}", stamp.epoch, stamp.version));
        let damaged = match datastore.unreadable_registers {
            0 => plain("0".to_owned()),
            count => style.cell(Tone::Alarm, count.to_string()),
        };
        let epoch = if datastore.epoch == Epoch(0) { "-".to_owned() } else { datastore.epoch.to_string() };
        vec![
            plain(clean(datastore.datastore.as_str())),
            owner,
            plain(epoch),
            plain(ownership),
            lease,
            plain(list),
            plain(if datastore.heartbeat { "yes" } else { "-" }.to_owned()),
            damaged,
            connected,
        ]
    };
    let headings = [
        "DATASTORE",
        "OWNER",
        "EPOCH",
        "OWNERSHIP LEFT",
        "LEASE LEFT",
        "LIST",
        "HEARTBEATS",
        "UNREADABLE",
        "CONNECTED",
    ];
    style.table(&headings, view.datastores.iter().map(row).collect())
}
