//! Messages of the core to and from the transport.
//!
//! What it does not do: judge who may speak. The transport has proven the sender; a datagram that can't be read is counted,
//! warned about now and then, and dropped: the core lives with lost ones.

use mainstay_core::ids::HostId;
use mainstay_core::{Input, Message};
use mainstay_formats::layout::ClusterId;
use mainstay_formats::wire::{decode_message, encode_message};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::net::Net;

/// The same trouble with the same host is logged once in this time.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(600);

/// What goes out.
pub struct Outgoing {
    net: Net,
    cluster: ClusterId,
    /// Messages that could not be encoded.
    errors: u64,
}

impl Outgoing {
    /// Sends by that transport.
    pub fn new(net: Net, cluster: ClusterId) -> Outgoing {
        Outgoing { net, cluster, errors: 0 }
    }

    /// Sends a message, best effort.
    pub fn send(&mut self, to: &HostId, message: &Message) {
        match encode_message(&self.cluster, message) {
            Ok(bytes) => self.net.send(to.as_str(), bytes),
            Err(error) => {
                self.errors += 1;
                // Every message of ours can be encoded: one line per start is enough to report the bug.
                if self.errors == 1 {
                    tracing::warn!(%to, %error, "a message can't be encoded; please report this");
                }
            }
        }
    }

    /// Adds the counters of the transport.
    pub fn count(&self, counters: &mut BTreeMap<String, u64>) {
        counters.insert("wire.encode_errors".into(), self.errors);
        if let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(self.net.counters()) {
            counters.extend(
                fields.iter().filter_map(|(name, value)| Some((format!("net.{name}"), value.as_u64()?))),
            );
        }
    }
}

/// What comes in.
pub struct Incoming {
    cluster: ClusterId,
    complained: BTreeMap<String, Instant>,
    errors: std::sync::Arc<AtomicU64>,
}

impl Incoming {
    /// Reads messages of that cluster; `errors` counts those that can't be read.
    pub fn new(cluster: ClusterId, errors: std::sync::Arc<AtomicU64>) -> Incoming {
        Incoming { cluster, complained: BTreeMap::new(), errors }
    }

    /// Reads a datagram.
    pub fn read(&mut self, from: &str, bytes: &[u8]) -> Option<Input> {
        match decode_message(&self.cluster, bytes) {
            Ok(message) => Some(Input::Message { from: HostId::new(from), message }),
            Err(error) => {
                self.errors.fetch_add(1, Ordering::Relaxed);
                let now = Instant::now();
                // Senders are configured peers, so this map is bounded.
                let due =
                    self.complained.get(from).is_none_or(|at| now.duration_since(*at) >= COMPLAINT_INTERVAL);
                if due {
                    self.complained.insert(from.to_owned(), now);
                    tracing::warn!(host = from, %error, "a message can't be read and was dropped; run the same version on all hosts");
                }
                None
            }
        }
    }
}
