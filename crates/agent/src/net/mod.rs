//! The transport between agents: QUIC over one UDP port, with mutual TLS that is derived from the cluster's key.
//!
//! What: protocol messages (heartbeats, elections, orders) travel as unreliable QUIC *datagrams*; forwarded API requests
//! travel on bi-directional *streams*. [`Net::send`] never blocks and never reports: a lost message is the core's
//! everyday life. Connections are dialled lazily, by whoever has something to say; both directions may exist at once.
//!
//! Why QUIC: one port, authenticated and encrypted messages without a hand-made protocol, and a stream for the bulk that
//! cannot delay a heartbeat. What it would do to heartbeats by itself, and what is done about it:
//! * A cut path: probe time-outs back off, so an old connection could wake up late. Here a connection on which nothing
//!   was received for [`SILENT_HEARTBEATS`] heartbeats ends and the next message dials anew; a dial lives for
//!   [`DIAL_HEARTBEATS`] heartbeats and repeats its first packet faster than once a heartbeat.
//! * Loss: a congestion window that has collapsed would hold back heartbeats. The window here is fixed (`transport`).
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
mod link;
mod socket;
mod transport;
mod verify;

use std::collections::BTreeMap;
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
use socket::WatchedSocket;

/// Largest datagram that [`Net::send`] takes. QUIC promises 1200-byte packets on every path; this is what is left of one
/// after headers and the authentication tag, rounded down. Messages of the protocol are about 300 bytes.
pub const DATAGRAM_BYTES_MAX: usize = 1150;

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
    /// Where its agent listens.
    pub address: SocketAddr,
}

/// What [`Net::start`] needs to know.
#[derive(Clone)]
pub struct NetConfig {
    /// This host's id. Like all ids here: lower-case letters, digits and `-`, at most 63 characters.
    pub me: String,
    /// The cluster's id. Agents of other clusters are refused, even with the same key.
    pub cluster_id: String,
    /// Address and UDP port to listen on and to send from. `[::]:port` serves IPv4 as well.
    pub listen: SocketAddr,
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
    /// A protocol message. It may be lost, repeated, late or out of order.
    Datagram {
        /// Host id of the sender, proven by its certificate.
        from: String,
        /// The message.
        bytes: Vec<u8>,
    },
    /// A request that wants an answer.
    Request {
        /// Host id of the sender, proven by its certificate.
        from: String,
        /// The request.
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
    /// Binds the port and starts to serve. Must be called inside a tokio runtime, which runs the transport's tasks.
    ///
    /// # Errors
    /// When an id is not usable in a certificate, the port cannot be bound, or the cryptographic library refuses.
    pub async fn start(config: NetConfig) -> Result<(Self, mpsc::Receiver<NetEvent>), NetError> {
        let runtime = Handle::try_current().map_err(|_| NetError::NoRuntime)?;
        check_names(&config)?;
        let peers: Vec<&Peer> = config.peers.iter().filter(|p| p.id != config.me).collect();
        let identity = Identity::derive(&config.key, &config.cluster_id, &config.me)?;
        let names = verify::PeerNames::new(&config.cluster_id, peers.iter().map(|p| p.id.as_str()))?;
        let timing = transport::Timing::from_heartbeat(config.heartbeat);
        let quic = Arc::new(transport::transport_config(timing)?);
        let tally = Arc::new(Tally::default());

        let mut links = BTreeMap::new();
        for peer in &peers {
            check_address_family(config.listen, peer)?;
            let client = verify::client_config(&identity, &names, &peer.id, Arc::clone(&quic))?;
            let server_name = identity::dns_name(&peer.id, &config.cluster_id);
            links.insert(peer.id.clone(), Arc::new(Link::new(&peer.id, peer.address, server_name, client)));
        }
        let socket = socket::bind(config.listen)?;
        let known = peers.iter().map(|p| p.address).collect();
        let socket = WatchedSocket::wrap(socket, identity.connection_id_key, known, Arc::clone(&tally))
            .map_err(|source| NetError::Bind { address: config.listen, source })?;
        let server = verify::server_config(&identity, &names, quic)?;
        let endpoint = transport::endpoint(&identity, server, socket)
            .map_err(|source| NetError::Bind { address: config.listen, source })?;

        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let shared = Arc::new(Shared {
            me: config.me,
            names,
            links,
            endpoint,
            timing,
            tally,
            events,
            runtime,
            half_open: Arc::new(Semaphore::new(connection::HALF_OPEN_MAX)),
            closing: AtomicBool::new(false),
        });
        shared.runtime.spawn(connection::accept(Arc::clone(&shared)));
        let owner = Arc::new(Owner { shared });
        Ok((Self { owner }, receiver))
    }

    /// Sends one protocol message, best effort. It never blocks: without a live connection it dials, and keeps the
    /// newest few messages meanwhile. Messages above [`DATAGRAM_BYTES_MAX`] are dropped, counted and logged.
    pub fn send(&self, to: &str, datagram: Vec<u8>) {
        let shared = &self.owner.shared;
        let Some(link) = shared.links.get(to) else {
            shared.tally.count(|c| c.datagrams_unaddressed += 1);
            return;
        };
        if datagram.len() > DATAGRAM_BYTES_MAX {
            shared.tally.count(|c| c.datagrams_oversize += 1);
            shared.tally.complain(link.address, Complaint::Oversize, to);
            return;
        }
        link.send(shared, datagram);
    }

    /// Sends a request and waits for the answer. It is sent once: whether to repeat it is the caller's decision.
    ///
    /// # Errors
    /// When the peer is not known, the body is above [`BODY_BYTES_MAX`], the peer cannot be reached or does not answer
    /// within `timeout`, or refuses.
    pub async fn request(&self, to: &str, body: Vec<u8>, timeout: Duration) -> Result<Vec<u8>, NetError> {
        let shared = &self.owner.shared;
        let link = shared.links.get(to).ok_or_else(|| NetError::UnknownPeer { peer: to.to_owned() })?;
        let outcome = connection::request(shared, link, body, timeout).await;
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

    /// The address in use; tells the port when the configuration said port 0.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn local_address(&self) -> Result<SocketAddr, NetError> {
        let shared = &self.owner.shared;
        shared.endpoint.local_addr().map_err(|_| NetError::Closed)
    }

    /// Says goodbye to the peers and ends the transport, within about a second. The port is free once the last clone of
    /// this handle is dropped as well.
    pub async fn close(&self) {
        let shared = &self.owner.shared;
        shared.stop();
        let goodbye = shared.timing.dial.min(Duration::from_secs(1));
        // A peer that does not confirm the goodbye is no reason to wait longer: it will notice the silence.
        let _ = tokio::time::timeout(goodbye, shared.endpoint.wait_idle()).await;
    }
}

impl Shared {
    /// Ends all connections and tasks, at once and without waiting.
    fn stop(&self) {
        self.closing.store(true, Ordering::Relaxed);
        self.endpoint.close(connection::CODE_GOODBYE, b"agent stops");
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

fn check_address_family(listen: SocketAddr, peer: &Peer) -> Result<(), NetError> {
    if listen.is_ipv4() && peer.address.is_ipv6() {
        return Err(NetError::AddressFamily { listen, peer: peer.id.clone(), address: peer.address });
    }
    Ok(())
}
