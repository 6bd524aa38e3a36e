//! What the transport has seen: counters, and warnings that name the remedy without flooding the log.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The same complaint about the same address is logged once in this time.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(600);

/// Complaints that are remembered. Senders can forge addresses, so the memory has to be bounded.
const COMPLAINTS_MAX: usize = 256;

/// Everything that the transport counts, since its start.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counters {
    /// Connections that passed the handshake, both directions.
    pub connections_opened: u64,
    /// Connections that ended by silence, reset or error; not by a goodbye, and not unused spares of a live one.
    pub connections_lost: u64,
    /// Attempts to connect to a peer, whatever came of them.
    pub dials: u64,
    /// Dials that were not answered or refused.
    pub dials_failed: u64,
    /// Times that a path to a peer stopped working, or did not begin to, while another one worked.
    pub paths_lost: u64,
    /// Handshakes refused, by either side, because the cluster keys differ.
    pub wrong_key: u64,
    /// Handshakes refused, by either side, because the clusters differ.
    pub other_cluster: u64,
    /// Handshakes refused because the host, though of this cluster, is not a configured peer (or has our own id).
    pub unknown_host: u64,
    /// Dials refused because another host answered at the address of the dialled one.
    pub wrong_host: u64,
    /// Handshakes that the peer refused because it does not know this host.
    pub refused_by_peer: u64,
    /// Handshakes that failed because the other speaks another version of the protocol.
    pub other_version: u64,
    /// Handshakes of others that failed or were not finished in time for any other reason.
    pub handshakes_failed: u64,
    /// Packets that are no QUIC or belong to no connection of ours. A forged packet that opens a handshake correctly
    /// counts under `handshakes_failed`; one with a valid header and random contents is dropped uncounted.
    pub garbage_packets: u64,
    /// Datagrams handed to a connection.
    pub datagrams_sent: u64,
    /// Datagrams received and passed on.
    pub datagrams_received: u64,
    /// Messages too large for a datagram that were sent on a stream and that the peer confirmed.
    pub large_sent: u64,
    /// Messages too large for a datagram that came in on a stream and were passed on.
    pub large_received: u64,
    /// Messages too large for a datagram that were dropped here: no stream was to be had, the time was up, or the
    /// connection ended.
    pub large_dropped: u64,
    /// Messages too large for a datagram that came in incomplete, too slowly or above the limit.
    pub large_incomplete: u64,
    /// Bytes in `datagrams_sent` and `large_sent`.
    pub bytes_sent: u64,
    /// Bytes in `datagrams_received` and `large_received`.
    pub bytes_received: u64,
    /// Messages refused because they are too large even for a stream.
    pub messages_oversize: u64,
    /// Messages dropped, oldest first, while their peer was being dialled.
    pub messages_dropped: u64,
    /// Messages for a host that is no peer.
    pub messages_unaddressed: u64,
    /// Messages and requests received and dropped because the agent did not take them out in time.
    pub events_dropped: u64,
    /// Requests that this host has made of others.
    pub requests_sent: u64,
    /// Requests made that got no answer.
    pub requests_failed: u64,
    /// Requests that others have made of this host.
    pub requests_received: u64,
}

/// Why a handshake was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Refusal {
    /// Not signed with our cluster's key.
    WrongKey,
    /// Says itself that it belongs to another cluster.
    OtherCluster,
    /// A member of the cluster that is not a configured peer.
    UnknownHost,
    /// Not the host that was dialled.
    WrongHost,
    /// The peer does not know us.
    ByPeer,
    /// No common protocol version.
    OtherVersion,
    /// The handshake failed for any other reason.
    Handshake,
}

impl Refusal {
    /// The reason behind a QUIC error code; `by_peer` when it was the other side that refused.
    pub(crate) fn from_code(code: u64, by_peer: bool) -> Option<Self> {
        // RFC 9001, section 4.8: a TLS alert is the error code 0x100 + alert.
        let alert = code.checked_sub(0x100).filter(|alert| *alert <= 0xff)?;
        Some(match (alert, by_peer) {
            // unknown_ca, decrypt_error, certificate_required
            (48 | 51 | 116, _) => Self::WrongKey,
            // bad_certificate
            (42, _) => Self::OtherCluster,
            // access_denied
            (49, false) => Self::UnknownHost,
            (49, true) => Self::ByPeer,
            // certificate_unknown
            (46, _) => Self::WrongHost,
            // no_application_protocol
            (120, _) => Self::OtherVersion,
            (_, _) => Self::Handshake,
        })
    }
}

/// Something that a person should know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Complaint {
    /// A handshake was refused.
    Refused(Refusal),
    /// A packet is not ours.
    Garbage,
    /// A message is above the limit.
    Oversize,
    /// A message that is too large for a datagram was not delivered.
    Undelivered,
    /// The agent does not take out events fast enough.
    Overflow,
}

impl Complaint {
    fn remedy(self) -> &'static str {
        match self {
            Self::Refused(Refusal::WrongKey) => {
                "refused: its cluster key is not ours; copy the key file of this cluster to that host, or remove that \
                 host's address from the configuration"
            }
            Self::Refused(Refusal::OtherCluster) => {
                "refused: it belongs to another cluster; give the clusters different ports, or correct the address"
            }
            Self::Refused(Refusal::UnknownHost) => {
                "refused: it has our cluster key but its host id is not a peer in this host's configuration, or is this \
                 host's own; join it to the cluster, or give it an id of its own"
            }
            Self::Refused(Refusal::WrongHost) => {
                "refused: another host of the cluster answers at this address; correct the peers' addresses"
            }
            Self::Refused(Refusal::ByPeer) => {
                "it refuses this host: its configuration does not list this host's id; update the configuration there"
            }
            Self::Refused(Refusal::OtherVersion) => {
                "refused: no common protocol version; upgrade the older of the two agents"
            }
            Self::Refused(Refusal::Handshake) => {
                "its handshake failed; something else may be using this port"
            }
            Self::Garbage => "sends packets that are none of ours; something else may be using this port",
            Self::Oversize => "a message for it is above the limit and was dropped; please report this",
            Self::Undelivered => {
                "a large message for it was dropped; upgrade its agent if that is older than this one, else check the \
                 management network for loss and that host for load"
            }
            Self::Overflow => "its messages are dropped because this agent is too busy to read them",
        }
    }
}

/// Counters and memory of complaints, shared by all tasks.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    counters: Mutex<Counters>,
    complaints: Mutex<BTreeMap<(IpAddr, Complaint), Instant>>,
}

impl Tally {
    /// Changes the counters.
    pub(crate) fn count(&self, change: impl FnOnce(&mut Counters)) {
        change(&mut lock(&self.counters));
    }

    pub(crate) fn snapshot(&self) -> Counters {
        lock(&self.counters).clone()
    }

    /// Counts a refusal and warns about it.
    pub(crate) fn refuse(&self, address: SocketAddr, refusal: Refusal, detail: &str) {
        self.count(|c| match refusal {
            Refusal::WrongKey => c.wrong_key += 1,
            Refusal::OtherCluster => c.other_cluster += 1,
            Refusal::UnknownHost => c.unknown_host += 1,
            Refusal::WrongHost => c.wrong_host += 1,
            Refusal::ByPeer => c.refused_by_peer += 1,
            Refusal::OtherVersion => c.other_version += 1,
            Refusal::Handshake => c.handshakes_failed += 1,
        });
        self.complain(address, Complaint::Refused(refusal), detail);
    }

    /// Warns, unless the same was said about the same address a short while ago.
    pub(crate) fn complain(&self, address: SocketAddr, complaint: Complaint, detail: &str) {
        if self.is_due(address.ip().to_canonical(), complaint, Instant::now()) {
            tracing::warn!(%address, detail, "{}", complaint.remedy());
        }
    }

    fn is_due(&self, address: IpAddr, complaint: Complaint, now: Instant) -> bool {
        let mut complaints = lock(&self.complaints);
        let fresh = |said: &Instant| now.saturating_duration_since(*said) < COMPLAINT_INTERVAL;
        if complaints.get(&(address, complaint)).is_some_and(fresh) {
            return false;
        }
        if complaints.len() >= COMPLAINTS_MAX {
            complaints.retain(|_, said| fresh(said));
        }
        if complaints.len() >= COMPLAINTS_MAX {
            return false;
        }
        complaints.insert((address, complaint), now);
        true
    }
}

/// Locks; what a panicked holder left behind here is only counters and queues, which are valid at every instant.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_made_once_per_address_and_reason_and_again_later() {
        let tally = Tally::default();
        let start = Instant::now();
        let [one, two] = [IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])];
        assert!(tally.is_due(one, Complaint::Garbage, start));
        assert!(!tally.is_due(one, Complaint::Garbage, start));
        assert!(tally.is_due(two, Complaint::Garbage, start));
        assert!(tally.is_due(one, Complaint::Oversize, start));
        assert!(tally.is_due(one, Complaint::Garbage, start + COMPLAINT_INTERVAL));
    }

    #[test]
    fn forged_addresses_do_not_grow_the_memory() {
        let tally = Tally::default();
        let start = Instant::now();
        for n in 0..10_000_u32 {
            tally.is_due(IpAddr::from(n.to_be_bytes()), Complaint::Garbage, start);
        }
        assert_eq!(lock(&tally.complaints).len(), COMPLAINTS_MAX);
    }
}
