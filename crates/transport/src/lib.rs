//! The transport between agents: QUIC over UDP, with mutual TLS that is derived from the cluster's key.
//!
//! What: protocol messages (heartbeats, elections, orders) travel as unreliable QUIC *datagrams*, those that do not fit
//! into one on a one-way *stream* each (`large`); forwarded API requests travel on bi-directional *streams*.
//! [`Net::send`] never blocks and never reports: a lost message is the core's everyday life. Connections are dialled
//! lazily, by whoever has something to say; both directions may exist at once.
//! With several management networks each message travels on all paths (`paths`), so that losing a network loses nothing;
//! the receiver drops the doubles. A request travels on one path, which has just been seen to work.
//!
//! Why QUIC: one port, authenticated and encrypted messages without a hand-made protocol, and a stream for the bulk that
//! cannot delay a heartbeat. What it would do to heartbeats by itself, and what is done about it:
//! * A cut path: probe time-outs back off, so an old connection could wake up late. Here a connection on which nothing
//!   was received for [`SILENT_HEARTBEATS`] heartbeats ends and the next message dials anew; a dial lives for
//!   [`DIAL_HEARTBEATS`] heartbeats and repeats its first packet faster than once a heartbeat.
//! * Loss: a congestion window that has collapsed would hold back heartbeats. The window here is fixed (`quic`).
//! * A rebooted peer: its stateless reset ends the stale connection at the first message, because reset key and
//!   connection-id key are derived from the cluster key and the host id and so survive the reboot.
//!
//! Invariants: the sender named in a [`NetEvent`] is proven by its certificate and is a configured peer. No queue is
//! unbounded. A peer that hangs costs its own link and nothing else.
//!
//! What it does not do: judge liveness (the core does, from the messages), detect replayed or repeated messages (the
//! core does), retry requests (the caller knows whether that is safe), or read the clock of the wall: certificates are
//! checked against a fixed instant, so that a host with a wrong clock stays a member.

mod connection;
mod counters;
mod error;
mod identity;
mod large;
mod link;
mod paths;
mod quic;
mod socket;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot};

use connection::Shared;
pub use counters::Counters;
use counters::{Complaint, Tally};
pub use error::NetError;
use identity::Identity;
use link::Link;
pub use paths::common_bits;
use socket::WatchedSocket;

/// Largest message that travels as a datagram. QUIC promises 1200-byte packets on every path; this is what is left of one
/// after headers and the authentication tag, rounded down. Most messages of the protocol are about 300 bytes.
pub const DATAGRAM_BYTES_MAX: usize = 1150;

/// Largest message that [`Net::send`] takes. A heartbeat has up to 100 VMs that do not execute (5 KiB), and up to
/// half a KiB for each datastore when names have 64 bytes: this is enough for a hundred of them. It is small, because
/// eight per connection may be under way (`large`).
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Largest body of a request or a reply. Enough for a whole-cluster view; small enough for an agent of 20 MB.
pub const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;

/// A connection on which nothing was received for so many heartbeats is given up.
pub const SILENT_HEARTBEATS: u32 = 3;

/// A dial that was not answered within so many heartbeats is given up, and the next message dials anew.
pub const DIAL_HEARTBEATS: u32 = 2;

/// Events that wait for the agent's main loop. At 64 peers this is several seconds of heartbeats; when it is full the
/// newest are dropped and counted.
const EVENTS_MAX: usize = 512;

/// Another agent of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Host id, such as `host-12`.
    pub id: String,
    /// Where its agent listens: one address per management network.
    pub addresses: Vec<SocketAddr>,
}

/// What [`Net::start`] needs to know.
#[derive(Clone)]
pub struct NetConfig {
    /// This host's id. Like all ids here: lower-case letters, digits and `-`, at most 63 characters.
    pub me: String,
    /// The cluster's id. Agents of other clusters are refused, even with the same key.
    pub cluster_id: String,
    /// Addresses and UDP ports to listen on and to send from, one per management network. `[::]:port` serves IPv4 as
    /// well. One that this host does not have is waited for, as long as it has another.
    pub listen: Vec<SocketAddr>,
    /// The other agents. An entry for `me` is ignored, so that all hosts can have the same list.
    pub peers: Vec<Peer>,
    /// The secret shared by all agents of the cluster.
    pub key: [u8; 32],
    /// Interval of the protocol's heartbeats; all time-outs here are derived from it.
    pub heartbeat: Duration,
}

impl fmt::Debug for NetConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Why not derive: the key must never reach a log.
        f.debug_struct("NetConfig")
            .field("me", &self.me)
            .field("cluster_id", &self.cluster_id)
            .field("listen", &self.listen)
            .field("peers", &self.peers)
            .field("heartbeat", &self.heartbeat)
            .finish_non_exhaustive()
    }
}

/// What arrives from other agents.
#[derive(Debug)]
pub enum NetEvent {
    /// A protocol message, by datagram or by stream. It may be lost, repeated, late or out of order.
    Datagram {
        /// Host id of the sender, proven by its certificate.
        from: String,
        /// The message as its sender wrote it.
        bytes: Vec<u8>,
    },
    /// A request that wants an answer.
    Request {
        /// Host id of the sender, proven by its certificate.
        from: String,
        /// The request as its sender wrote it.
        body: Vec<u8>,
        /// Takes the answer. Dropping it tells the peer that there will be none; it is closed when the peer gave up.
        reply: oneshot::Sender<Vec<u8>>,
    },
}

/// Handle to the running transport. Clones share it; when the last one is dropped the transport ends.
#[derive(Clone)]
pub struct Net {
    owner: Arc<Owner>,
}

/// Ends the transport when the last [`Net`] goes. The tasks hold `Shared`, never this.
struct Owner {
    shared: Arc<Shared>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net").field("me", &self.owner.shared.me).finish_non_exhaustive()
    }
}

impl Net {
    /// Binds the ports and starts to serve. Must be called inside a tokio runtime, which runs the transport's tasks.
    ///
    /// # Errors
    /// When an id is not usable in a certificate, the port cannot be bound, or the cryptographic library refuses.
    pub async fn start(config: NetConfig) -> Result<(Self, mpsc::Receiver<NetEvent>), NetError> {
        let runtime = Handle::try_current().map_err(|_| NetError::NoRuntime)?;
        check_names(&config)?;
        let peers: Vec<&Peer> = config.peers.iter().filter(|p| p.id != config.me).collect();
        let identity = Identity::derive(&config.key, &config.cluster_id, &config.me)?;
        let names = verify::PeerNames::new(&config.cluster_id, peers.iter().map(|p| p.id.as_str()))?;
        let timing = quic::Timing::from_heartbeat(config.heartbeat);
        let quic = Arc::new(quic::transport_config(timing)?);
        let tally = Arc::new(Tally::default());

        let known: BTreeSet<SocketAddr> = peers.iter().flat_map(|p| &p.addresses).copied().collect();
        let mut endpoints = Vec::new();
        for (&address, socket) in config.listen.iter().zip(socket::bind_all(&config.listen)?) {
            let bind = |source| NetError::Bind { address, source };
            let watched =
                WatchedSocket::wrap(socket, identity.connection_id_key, known.clone(), Arc::clone(&tally))
                    .map_err(bind)?;
            let server = verify::server_config(&identity, &names, Arc::clone(&quic))?;
            endpoints.push(quic::endpoint(&identity, server, watched).map_err(bind)?);
        }
        let mut links = BTreeMap::new();
        for peer in &peers {
            let client = verify::client_config(&identity, &names, &peer.id, Arc::clone(&quic))?;
            let server_name = identity::dns_name(&peer.id, &config.cluster_id);
            let paths: Vec<Arc<Link>> = paths::pair(&config.listen, &peer.addresses)
                .into_iter()
                .filter_map(|(own, address)| {
                    let endpoint = endpoints.get(own)?.clone();
                    let (name, client) = (server_name.clone(), client.clone());
                    Some(Arc::new(Link::new(&peer.id, own, endpoint, address, name, client)))
                })
                .collect();
            if paths.is_empty() {
                let (listen, addresses) = (config.listen, peer.addresses.clone());
                return Err(NetError::NoPath { listen, peer: peer.id.clone(), addresses });
            }
            links.insert(peer.id.clone(), paths);
        }

        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let shared = Arc::new(Shared {
            me: config.me,
            names,
            links,
            endpoints,
            timing,
            tally,
            events,
            runtime,
            half_open: Arc::new(Semaphore::new(connection::HALF_OPEN_MAX)),
            closing: AtomicBool::new(false),
        });
        for (own, endpoint) in shared.endpoints.iter().enumerate() {
            shared.runtime.spawn(connection::accept(Arc::clone(&shared), own, endpoint.clone()));
        }
        let owner = Arc::new(Owner { shared });
        Ok((Self { owner }, receiver))
    }

    /// Sends one protocol message on all paths to that host, best effort. It never blocks: where there is no live
    /// connection it dials, and keeps the newest few messages meanwhile. One above [`DATAGRAM_BYTES_MAX`]
    /// travels on a stream, no more reliably than the others; one above [`MESSAGE_BYTES_MAX`] is dropped, counted and
    /// logged.
    pub fn send(&self, to: &str, message: Vec<u8>) {
        let shared = &self.owner.shared;
        let Some(links) = shared.links.get(to) else {
            shared.tally.count(|c| c.messages_unaddressed += 1);
            return;
        };
        if message.len() > MESSAGE_BYTES_MAX {
            shared.tally.count(|c| c.messages_oversize += 1);
            if let Some(link) = links.first() {
                shared.tally.complain(
                    link.address,
                    Complaint::Oversize,
                    &format!("{to}: {} bytes", message.len()),
                );
            }
            return;
        }
        for link in links {
            link.send(shared, message.clone());
        }
    }

    /// Sends a request and waits for the answer. It is sent once: whether to repeat it is the caller's decision.
    ///
    /// # Errors
    /// When the peer is not known, the body is above [`BODY_BYTES_MAX`], the peer cannot be reached or does not answer
    /// within `timeout`, or refuses.
    pub async fn request(&self, to: &str, body: Vec<u8>, timeout: Duration) -> Result<Vec<u8>, NetError> {
        let shared = &self.owner.shared;
        let links = shared.links.get(to).ok_or_else(|| NetError::UnknownPeer { peer: to.to_owned() })?;
        let outcome = connection::request(shared, to, links, body, timeout).await;
        shared.tally.count(|c| {
            c.requests_sent += 1;
            c.requests_failed += u64::from(outcome.is_err());
        });
        outcome
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.owner.shared.tally.snapshot()
    }

    /// The first address in use; tells the port when the configuration said port 0.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn local_address(&self) -> Result<SocketAddr, NetError> {
        let shared = &self.owner.shared;
        let first = shared.endpoints.first().ok_or(NetError::Closed)?;
        first.local_addr().map_err(|_| NetError::Closed)
    }

    /// Says goodbye to the peers and ends the transport, within about a second. The ports are free once the last clone of
    /// this handle is dropped as well.
    pub async fn close(&self) {
        let shared = &self.owner.shared;
        shared.stop();
        let goodbye = shared.timing.dial.min(Duration::from_secs(1));
        // A peer that does not confirm the goodbye is no reason to wait longer: it will notice the silence.
        let idle = async {
            for endpoint in &shared.endpoints {
                endpoint.wait_idle().await;
            }
        };
        let _ = tokio::time::timeout(goodbye, idle).await;
    }
}

impl Shared {
    /// Ends all connections and tasks, at once and without waiting.
    fn stop(&self) {
        self.closing.store(true, Ordering::Relaxed);
        for endpoint in &self.endpoints {
            endpoint.close(connection::CODE_GOODBYE, b"agent stops");
        }
    }
}

fn check_names(config: &NetConfig) -> Result<(), NetError> {
    identity::check_label("cluster id", &config.cluster_id)?;
    identity::check_label("host id", &config.me)?;
    for peer in &config.peers {
        identity::check_label("host id", &peer.id)?;
    }
    Ok(())
}
