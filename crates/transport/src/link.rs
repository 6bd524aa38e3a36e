//! The link to one peer on one path, from an address of ours to one of its: its live connections, the messages that wait for one, and the dial.
//!
//! Invariants: at most one dial in flight; at most [`WAITING_MAX`] messages wait and [`CONNECTIONS_MAX`] connections
//! live. Both ends may dial at once; both connections are kept, the newest live one is sent on, and the other ends by
//! its silence.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use quinn::{Connection, Endpoint, SendDatagramError};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

use crate::connection::{self, Shared};
use crate::counters::lock;
use crate::{DATAGRAM_BYTES_MAX, large};

/// Messages that wait for a connection. Protocol messages are only worth something while fresh: the newest few suffice.
const WAITING_MAX: usize = 4;

/// Connections kept per peer. Two come from dialling each other; more from a peer that restarts quickly.
const CONNECTIONS_MAX: usize = 4;

/// One path to a configured peer.
pub(crate) struct Link {
    pub(crate) id: String,
    /// Number of the own address.
    pub(crate) own: usize,
    endpoint: Endpoint,
    pub(crate) address: SocketAddr,
    server_name: String,
    client: quinn::ClientConfig,
    state: Mutex<LinkState>,
    /// Something changed that a waiting request may want to see: a connection came up or a dial failed.
    changed: Notify,
}

#[derive(Default)]
struct LinkState {
    /// The connections with this peer, the oldest first.
    connections: Vec<Connection>,
    waiting: VecDeque<Vec<u8>>,
    dialling: bool,
    dialled_at: Option<Instant>,
    last_failure: Option<String>,
    /// It was said that this path does not work.
    told_lost: bool,
}

impl LinkState {
    fn newest_live(&mut self) -> Option<&Connection> {
        self.connections.retain(|c| c.close_reason().is_none());
        self.connections.last()
    }
}

impl Link {
    pub(crate) fn new(
        id: &str,
        own: usize,
        endpoint: Endpoint,
        address: SocketAddr,
        server_name: String,
        client: quinn::ClientConfig,
    ) -> Self {
        Self {
            id: id.to_owned(),
            own,
            endpoint,
            address,
            server_name,
            client,
            state: Mutex::new(LinkState::default()),
            changed: Notify::new(),
        }
    }

    /// Sends on the newest live connection, or keeps the message and dials.
    pub(crate) fn send(self: &Arc<Self>, shared: &Arc<Shared>, message: Vec<u8>) {
        let mut state = lock(&self.state);
        let message = match state.newest_live() {
            Some(connection) => match self.send_on(shared, connection, message) {
                Some(unsent) => unsent,
                None => return,
            },
            None => message,
        };
        if state.waiting.len() >= WAITING_MAX {
            state.waiting.pop_front();
            shared.tally.count(|c| c.messages_dropped += 1);
        }
        state.waiting.push_back(message);
        self.dial_if_idle(shared, &mut state);
    }

    /// Gives the message back when the connection ended just now.
    fn send_on(&self, shared: &Arc<Shared>, connection: &Connection, message: Vec<u8>) -> Option<Vec<u8>> {
        let size = message.len();
        if size > DATAGRAM_BYTES_MAX {
            return large::send(shared, &self.id, connection, message);
        }
        match connection.send_datagram(message.clone().into()) {
            Ok(()) => shared.tally.count(|c| {
                c.datagrams_sent += 1;
                c.bytes_sent += size as u64;
            }),
            Err(SendDatagramError::ConnectionLost(_)) => return Some(message),
            // A path or a peer with packets smaller than ours.
            Err(
                SendDatagramError::TooLarge
                | SendDatagramError::UnsupportedByPeer
                | SendDatagramError::Disabled,
            ) => return large::send(shared, &self.id, connection, message),
        }
        None
    }

    /// Takes in a connection that passed the handshake, sends what waits, and serves it.
    pub(crate) fn adopt(self: &Arc<Self>, shared: &Arc<Shared>, connection: Connection) {
        let mut state = lock(&self.state);
        if shared.closing.load(Ordering::Relaxed) {
            connection.close(connection::CODE_GOODBYE, b"agent stops");
            return;
        }
        shared.tally.count(|c| c.connections_opened += 1);
        state.last_failure = None;
        if std::mem::take(&mut state.told_lost) {
            tracing::info!(peer = self.id, own = ?self.own_address(), address = %self.address, "path works again");
        }
        while let Some(message) = state.waiting.pop_front() {
            let _lost_with_the_connection = self.send_on(shared, &connection, message);
        }
        state.connections.push(connection.clone());
        if state.connections.len() > CONNECTIONS_MAX {
            state
                .connections
                .remove(0)
                .close(connection::CODE_SUPERSEDED, b"superseded by newer connections");
        }
        drop(state);
        self.changed.notify_waiters();
        shared.runtime.spawn(connection::serve(Arc::clone(shared), Arc::clone(self), connection));
    }

    /// Forgets a connection that ended.
    pub(crate) fn forget(&self, connection: &Connection) {
        let id = connection.stable_id();
        lock(&self.state).connections.retain(|c| c.stable_id() != id);
    }

    /// Whether a live connection is at hand.
    pub(crate) fn is_connected(&self) -> bool {
        lock(&self.state).newest_live().is_some()
    }

    /// The newest live connection; dials until there is one. The caller bounds the wait.
    pub(crate) async fn connected(self: &Arc<Self>, shared: &Arc<Shared>) -> Option<Connection> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before looking, so that no change between looking and waiting is missed.
            changed.as_mut().enable();
            {
                let mut state = lock(&self.state);
                if let Some(connection) = state.newest_live() {
                    return Some(connection.clone());
                }
                if shared.closing.load(Ordering::Relaxed) {
                    return None;
                }
                self.dial_if_idle(shared, &mut state);
            }
            changed.await;
        }
    }

    fn own_address(&self) -> Option<SocketAddr> {
        self.endpoint.local_addr().ok()
    }

    /// Notes a dial that failed. With another path at work it is this network that is lost, not the peer; nobody would
    /// notice otherwise, and the next loss would be the last.
    fn on_dial_failure(&self, shared: &Shared, why: String) {
        tracing::debug!(peer = self.id, why, "dial failed");
        shared.tally.count(|c| c.dials_failed += 1);
        // Before the own state is locked: only one link's is at a time.
        let others = shared.links.get(&self.id).into_iter().flatten();
        let other_works =
            others.filter(|other| !std::ptr::eq(other.as_ref(), self)).any(|o| o.is_connected());
        let mut state = lock(&self.state);
        if other_works && !state.told_lost && state.newest_live().is_none() {
            state.told_lost = true;
            shared.tally.count(|c| c.paths_lost += 1);
            tracing::warn!(
                peer = self.id,
                own = ?self.own_address(),
                address = %self.address,
                why,
                "one of the paths to this host does not work, others do: check that management network, here and there"
            );
        }
        state.last_failure = Some(why);
        drop(state);
        self.changed.notify_waiters();
    }

    /// How the last dial failed, for the text of an error.
    pub(crate) fn last_failure(&self) -> Option<String> {
        lock(&self.state).last_failure.clone()
    }

    fn dial_if_idle(self: &Arc<Self>, shared: &Arc<Shared>, state: &mut LinkState) {
        if state.dialling || shared.closing.load(Ordering::Relaxed) {
            return;
        }
        state.dialling = true;
        shared.runtime.spawn(dial(Arc::clone(shared), Arc::clone(self)));
    }
}

/// Dials once. Whoever has something to send starts the next one.
async fn dial(shared: Arc<Shared>, link: Arc<Link>) {
    let earliest = lock(&link.state).dialled_at.map(|at| at + shared.timing.dial_spacing);
    if let Some(earliest) = earliest {
        sleep_until(earliest).await;
    }
    lock(&link.state).dialled_at = Some(Instant::now());
    shared.tally.count(|c| c.dials += 1);
    let dialled = link.endpoint.connect_with(link.client.clone(), link.address, &link.server_name);
    let outcome = match dialled {
        Ok(connecting) => match timeout(shared.timing.dial, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => {
                connection::report_end(&shared, link.address, &link.id, &error, true);
                Err(error.to_string())
            }
            Err(_) => Err(format!("no answer from {} to a dial", link.address)),
        },
        Err(error) => Err(format!("dialling {} failed: {error}", link.address)),
    };
    lock(&link.state).dialling = false;
    match outcome {
        Ok(connection) => link.adopt(&shared, connection),
        Err(why) => link.on_dial_failure(&shared, why),
    }
}
