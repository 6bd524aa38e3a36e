//! Messages of the core to and from the transport.
//!
//! What it does not do: judge who may speak. The transport has proven the sender; a datagram that can't be read is counted,
//! warned about now and then, and dropped: the core lives with lost ones.

use mainstay_core::ids::HostId;
use mainstay_core::{Event, Input, Message};
use mainstay_formats::layout::ClusterId;
use mainstay_formats::wire::{decode_message, encode_message};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mainstay_transport::Net;

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

    /// Reads a datagram. One that can't be read is counted; now and then an event is to be told about it.
    pub fn read(&mut self, from: &str, bytes: &[u8]) -> Result<Input, Option<Event>> {
        match decode_message(&self.cluster, bytes) {
            Ok(message) => Ok(Input::Message { from: HostId::new(from), message }),
            Err(error) => {
                self.errors.fetch_add(1, Ordering::Relaxed);
                let now = Instant::now();
                // Senders are configured peers, so this map is bounded.
                let due =
                    self.complained.get(from).is_none_or(|at| now.duration_since(*at) >= COMPLAINT_INTERVAL);
                if due {
                    self.complained.insert(from.to_owned(), now);
                }
                let reason = error.to_string().into();
                Err(due.then(|| Event::MessageUnreadable { host: HostId::new(from), reason }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn what_cannot_be_read_is_counted_each_time_and_told_once() {
        let cluster = ClusterId::parse("lab").expect("a cluster id");
        let errors = Arc::new(AtomicU64::new(0));
        let mut incoming = Incoming::new(cluster, Arc::clone(&errors));
        let told = incoming.read("host-2", b"nonsense that is no message");
        let Err(Some(Event::MessageUnreadable { host, .. })) = told else { panic!("{told:?}") };
        assert_eq!(host, HostId::new("host-2"));
        assert_eq!(incoming.read("host-2", b"more of it, and longer than a frame"), Err(None));
        assert!(matches!(incoming.read("host-3", b""), Err(Some(_))), "each sender is told of");
        assert_eq!(errors.load(Ordering::Relaxed), 3);
    }
}
