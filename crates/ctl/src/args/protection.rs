//! `mainstay suspend` and `mainstay rehearse`: before planned work, and before a failure.

use super::{AskArgs, span, values};
use clap::{ArgGroup, Args};
use mainstay_api::order::Order;
use std::time::Duration;

/// Arguments of `mainstay suspend`.
#[derive(Debug, Args)]
pub struct SuspendArgs {
    /// Which agent to ask.
    #[command(flatten)]
    pub ask: AskArgs,
    /// For how long at most (such as 90s, 30m, 2h, 1d)
    #[arg(id = "length", long = "for", value_name = "TIME", value_parser = values::some_length)]
    pub length: Duration,
    /// Do not wait until failovers in progress are completed and every host honours the suspension
    #[arg(long)]
    pub no_wait: bool,
}

impl SuspendArgs {
    /// What the API is asked to do.
    pub fn order(&self) -> Order {
        Order::Suspend { length: span(self.length) }
    }
}

/// A host that is to lose its storage, or one datastore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageCut {
    /// The host, by name or id.
    pub host: String,
    /// The datastore; `None`: all.
    pub datastore: Option<String>,
}

/// Arguments of `mainstay rehearse`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("faults").multiple(true).args(["fail", "isolate", "cut_storage"]).conflicts_with("of")))]
pub struct RehearseArgs {
    /// Show the plan for the failure of this host in full (name or id)
    #[arg(id = "of", long = "host", value_name = "HOST")]
    pub host: Option<String>,
    /// Play on a simulated copy of the cluster: this host loses its power; give it once for each
    #[arg(long, value_name = "HOST")]
    pub fail: Vec<String>,
    /// Play: this host loses the management networks, its storage goes on; give it once for each
    #[arg(long, value_name = "HOST")]
    pub isolate: Vec<String>,
    /// Play: this host loses all its datastores, or that one; give it once for each
    #[arg(long, value_name = "HOST[:DATASTORE]", value_parser = values::storage_cut)]
    pub cut_storage: Vec<StorageCut>,
}

impl RehearseArgs {
    /// Whether faults are to be played.
    pub fn plays(&self) -> bool {
        !(self.fail.is_empty() && self.isolate.is_empty() && self.cut_storage.is_empty())
    }
}
