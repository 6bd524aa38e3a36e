//! Orders about one host: failover host, maintenance mode, and that it is down.

use crate::query::{Query, Target, Wrong};
use crate::words::Word;
use mainstay_words::settings::Evacuation;

/// What is ordered about a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostOrder {
    /// Keep it empty for failovers, or not.
    Failover {
        /// Whether it is kept empty.
        keep: bool,
    },
    /// A person has seen to it that the host is down.
    ConfirmDown,
    /// Empty it, and put nothing on it.
    EnterMaintenance {
        /// How its VMs leave it.
        how: Evacuation,
        /// Also when admission control, or the room on the other hosts, speaks against it.
        force: bool,
    },
    /// It takes VMs again.
    LeaveMaintenance {
        /// Migrate the VMs back that were moved away.
        bring_back: bool,
    },
}

impl HostOrder {
    /// Reads what stands behind the host's name. `None`: there is no such path.
    pub(super) fn parse(rest: &[&str], query: &str) -> Option<Result<HostOrder, Wrong>> {
        Some(match rest {
            ["failover"] => failover(query),
            ["confirm-down"] => Query::read(query, &[]).map(|_| HostOrder::ConfirmDown),
            ["maintenance", "enter"] => enter_maintenance(query),
            ["maintenance", "leave"] => leave_maintenance(query),
            _ => return None,
        })
    }

    /// Writes it behind the host's name.
    pub(super) fn write(self, host: Target) -> Target {
        match self {
            HostOrder::Failover { keep } => host.then("failover").with("keep", keep),
            HostOrder::ConfirmDown => host.then("confirm-down"),
            HostOrder::EnterMaintenance { how, force } => {
                host.then("maintenance").then("enter").with("how", how.word()).with("force", force)
            }
            HostOrder::LeaveMaintenance { bring_back } => {
                host.then("maintenance").then("leave").with("bring_back", bring_back)
            }
        }
    }
}

fn failover(query: &str) -> Result<HostOrder, Wrong> {
    let keep = Query::read(query, &["keep"])?.flag("keep")?.unwrap_or(true);
    Ok(HostOrder::Failover { keep })
}

fn enter_maintenance(query: &str) -> Result<HostOrder, Wrong> {
    let query = Query::read(query, &["how", "force"])?;
    let how = query.word("how", Evacuation::from_word, &Evacuation::list(&[]))?.unwrap_or_default();
    let force = query.flag("force")?.unwrap_or(false);
    Ok(HostOrder::EnterMaintenance { how, force })
}

fn leave_maintenance(query: &str) -> Result<HostOrder, Wrong> {
    let bring_back = Query::read(query, &["bring_back"])?.flag("bring_back")?.unwrap_or(false);
    Ok(HostOrder::LeaveMaintenance { bring_back })
}
