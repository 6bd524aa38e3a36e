//! The life of a connection: let in, served, ended; and the requests on its bi-directional streams.
//!
//! A body on a stream is preceded by its length. Why: a sender that gives up half-way ends its stream in good order, and
//! half a request must not be taken for a whole one. A stream without a single byte only asks whether somebody is there, and is
//! answered likewise.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use quinn::{
    Connection, ConnectionError, Endpoint, Incoming, ReadError, ReadToEndError, RecvStream, SendStream,
    VarInt,
};
use rustls::pki_types::CertificateDer;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::counters::{Complaint, Refusal, Tally};
use crate::link::Link;
use crate::quic::Timing;
use crate::verify::PeerNames;
use crate::{BODY_BYTES_MAX, NetError, NetEvent};
use crate::{large, paths};

/// Handshakes of others that may be under way at once.
pub(crate) const HALF_OPEN_MAX: usize = 32;

/// From so many on, a stranger must first prove that it can receive at its address, which a forger cannot.
const HALF_OPEN_TRUSTING: usize = 8;

/// Close codes that agents tell each other.
pub(crate) const CODE_GOODBYE: VarInt = VarInt::from_u32(0);
pub(crate) const CODE_SUPERSEDED: VarInt = VarInt::from_u32(1);
const CODE_BUSY: VarInt = VarInt::from_u32(2);
const CODE_NO_ANSWER: VarInt = VarInt::from_u32(3);
const CODE_TOO_LARGE: VarInt = VarInt::from_u32(4);

/// Length of the length before a body.
const LENGTH_BYTES: usize = 4;

/// What all tasks of the transport share.
pub(crate) struct Shared {
    pub(crate) me: String,
    pub(crate) names: PeerNames,
    /// For each peer the paths to it; never none.
    pub(crate) links: BTreeMap<String, Vec<Arc<Link>>>,
    /// For each own address the socket there.
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) timing: Timing,
    pub(crate) tally: Arc<Tally>,
    pub(crate) events: mpsc::Sender<NetEvent>,
    pub(crate) runtime: Handle,
    pub(crate) half_open: Arc<Semaphore>,
    pub(crate) closing: AtomicBool,
}

impl Shared {
    /// Passes an event on, or drops it: a slow reader must not stop the network.
    pub(crate) fn emit(&self, event: NetEvent, address: SocketAddr) -> Result<(), ()> {
        self.events.try_send(event).map_err(|error| {
            self.tally.count(|c| c.events_dropped += 1);
            if matches!(error, TrySendError::Full(_)) {
                self.tally.complain(address, Complaint::Overflow, "");
            }
        })
    }
}

/// Lets others in at our address number `own`, until its endpoint is closed.
pub(crate) async fn accept(shared: Arc<Shared>, own: usize, endpoint: Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        let Ok(permit) = Arc::clone(&shared.half_open).try_acquire_owned() else {
            incoming.ignore();
            continue;
        };
        let half_open = HALF_OPEN_MAX - shared.half_open.available_permits();
        if half_open > HALF_OPEN_TRUSTING && incoming.may_retry() && !incoming.remote_address_validated() {
            // It may come again with proof; an error only says that it has some already.
            let _ = incoming.retry();
            continue;
        }
        let task = Arc::clone(&shared);
        shared.runtime.spawn(async move {
            welcome(task, own, incoming).await;
            drop(permit);
        });
    }
}

async fn welcome(shared: Arc<Shared>, own: usize, incoming: Incoming) {
    let address = incoming.remote_address();
    let connection = match timeout(shared.timing.dial, incoming).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            report_end(&shared, address, "", &error, true);
            return;
        }
        Err(_) => {
            shared.tally.count(|c| c.handshakes_failed += 1);
            return;
        }
    };
    let host = certificate(&connection).and_then(|leaf| shared.names.host_of(&leaf).map(str::to_owned));
    let links = host.and_then(|host| shared.links.get(&host));
    match links.and_then(|links| paths::path_of(links, own, address)) {
        Some(link) => link.adopt(&shared, connection),
        None => {
            // The verifier has refused such a peer already; this is the second lock on the same door.
            connection.close(CODE_GOODBYE, b"not a peer");
            shared.tally.refuse(address, Refusal::UnknownHost, "");
        }
    }
}

fn certificate(connection: &Connection) -> Option<CertificateDer<'static>> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    chain.into_iter().next()
}

/// Reads what comes in on a connection, until it ends.
pub(crate) async fn serve(shared: Arc<Shared>, link: Arc<Link>, connection: Connection) {
    let address = connection.remote_address();
    tracing::debug!(peer = link.id, %address, "connection opened");
    let end = loop {
        tokio::select! {
            datagram = connection.read_datagram() => match datagram {
                // An empty one only keeps a connection alive while a request is pending.
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => {
                    let size = bytes.len() as u64;
                    let event = NetEvent::Datagram { from: link.id.clone(), bytes: bytes.to_vec() };
                    if shared.emit(event, address).is_ok() {
                        shared.tally.count(|c| {
                            c.datagrams_received += 1;
                            c.bytes_received += size;
                        });
                    }
                }
                Err(end) => break end,
            },
            stream = connection.accept_bi() => match stream {
                Ok((send, receive)) => {
                    let task = answer(Arc::clone(&shared), link.id.clone(), address, send, receive);
                    shared.runtime.spawn(task);
                }
                Err(end) => break end,
            },
            stream = connection.accept_uni() => match stream {
                Ok(stream) => {
                    let task = large::receive(Arc::clone(&shared), link.id.clone(), address, stream);
                    shared.runtime.spawn(task);
                }
                Err(end) => break end,
            },
        }
    };
    link.forget(&connection);
    if end == ConnectionError::TimedOut && link.is_connected() {
        // The spare of two that came from dialling each other: nobody used it, nothing is lost.
        return;
    }
    report_end(&shared, address, &link.id, &end, false);
}

/// Counts how a connection or a handshake ended, and warns where somebody should act.
pub(crate) fn report_end(
    shared: &Shared,
    address: SocketAddr,
    peer: &str,
    end: &ConnectionError,
    handshake: bool,
) {
    tracing::debug!(peer, %address, %end, handshake, "connection ended");
    let refusal = match end {
        ConnectionError::TransportError(error) => Refusal::from_code(error.code.into(), false),
        ConnectionError::ConnectionClosed(close) => Refusal::from_code(close.error_code.into(), true),
        ConnectionError::VersionMismatch => Some(Refusal::OtherVersion),
        ConnectionError::ApplicationClosed(_) | ConnectionError::LocallyClosed => return,
        ConnectionError::Reset | ConnectionError::TimedOut | ConnectionError::CidsExhausted => None,
    };
    match refusal {
        Some(refusal) => shared.tally.refuse(address, refusal, &end.to_string()),
        None if handshake => shared.tally.count(|c| c.handshakes_failed += 1),
        None => shared.tally.count(|c| c.connections_lost += 1),
    }
}

/// Handles one request of a peer.
async fn answer(
    shared: Arc<Shared>,
    from: String,
    address: SocketAddr,
    mut send: SendStream,
    mut receive: RecvStream,
) {
    // Where the whole stream failed, there is nobody to tell.
    let body = match read_body(&mut receive, BODY_BYTES_MAX).await {
        Ok(body) => body,
        Err(BodyError::Empty) => {
            let _ = send.finish();
            return;
        }
        Err(BodyError::Reset(_) | BodyError::Incomplete | BodyError::Lost(_)) => {
            let _ = send.reset(CODE_TOO_LARGE);
            return;
        }
    };
    shared.tally.count(|c| c.requests_received += 1);
    let (reply, answer) = oneshot::channel();
    if shared.emit(NetEvent::Request { from, body, reply }, address).is_err() {
        let _ = send.reset(CODE_BUSY);
        return;
    }
    let answer = tokio::select! {
        answer = answer => answer,
        // The peer gave up: dropping `answer` tells the one who works on it.
        _ = send.stopped() => return,
    };
    match answer {
        Ok(body) if body.len() <= BODY_BYTES_MAX => {
            // A failed write means that the connection ended; the peer notices by itself.
            let _ = write_body(&mut send, &body).await;
        }
        Ok(_) => {
            let _ = send.reset(CODE_TOO_LARGE);
        }
        Err(_) => {
            let _ = send.reset(CODE_NO_ANSWER);
        }
    }
}

/// Makes one request of ours.
pub(crate) async fn request(
    shared: &Arc<Shared>,
    peer: &str,
    links: &[Arc<Link>],
    body: Vec<u8>,
    after: Duration,
) -> Result<Vec<u8>, NetError> {
    if body.len() > BODY_BYTES_MAX {
        return Err(NetError::TooLarge { peer: peer.to_owned(), size: body.len(), max: BODY_BYTES_MAX });
    }
    let mut reached = false;
    let whole = async {
        let (link, connection) = paths::reach(shared, links).await.ok_or(NetError::Closed)?;
        reached = true;
        let exchange = exchange(&connection, &link, &body);
        tokio::pin!(exchange);
        let mut beat = interval(shared.timing.heartbeat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                outcome = &mut exchange => return outcome,
                // Heartbeats may meanwhile flow on a newer connection, and this one would end by its silence. Should it
                // have ended, the exchange says so.
                _ = beat.tick() => { let _ = connection.send_datagram(Vec::new().into()); }
            }
        }
    };
    match timeout(after, whole).await {
        Ok(outcome) => outcome,
        Err(_) => Err(NetError::Timeout {
            peer: peer.to_owned(),
            after,
            detail: if reached {
                "connected, but no answer came".to_owned()
            } else {
                let failures: Vec<String> = links.iter().filter_map(|link| link.last_failure()).collect();
                if failures.is_empty() { "not connected".to_owned() } else { failures.join("; ") }
            },
        }),
    }
}

/// Whether the peer answers on this connection; no sooner told than that, or than the connection ends by its silence.
pub(crate) async fn is_answered(connection: &Connection) -> bool {
    let Ok((mut send, mut receive)) = connection.open_bi().await else { return false };
    // Fails when the connection has ended, as does the reading then.
    let _ = send.finish();
    match receive.read_to_end(0).await {
        Ok(_) => true,
        Err(ReadToEndError::Read(ReadError::ConnectionLost(_))) => false,
        // Whatever else it says, it is there.
        Err(ReadToEndError::Read(_) | ReadToEndError::TooLong) => true,
    }
}

async fn exchange(connection: &Connection, link: &Link, body: &[u8]) -> Result<Vec<u8>, NetError> {
    let lost = |why: String| NetError::ConnectionLost { peer: link.id.clone(), why };
    let (mut send, mut receive) = connection.open_bi().await.map_err(|e| lost(e.to_string()))?;
    // A peer that refuses stops the stream while we write; why, its reset tells when we read.
    let written = write_body(&mut send, body).await;
    read_body(&mut receive, BODY_BYTES_MAX).await.map_err(|error| match error {
        BodyError::Reset(CODE_BUSY) => refused(link, "it is too busy"),
        BodyError::Reset(CODE_NO_ANSWER) => refused(link, "it has no answer"),
        BodyError::Reset(CODE_TOO_LARGE) => refused(link, "the request or the answer is too large"),
        BodyError::Reset(_) => refused(link, "it gave up"),
        BodyError::Empty | BodyError::Incomplete => lost("the answer is incomplete".to_owned()),
        BodyError::Lost(why) => lost(written.err().unwrap_or(why)),
    })
}

fn refused(link: &Link, why: &'static str) -> NetError {
    NetError::Refused { peer: link.id.clone(), why }
}

/// Why a body could not be read.
pub(crate) enum BodyError {
    Reset(VarInt),
    Empty,
    Incomplete,
    Lost(String),
}

pub(crate) async fn write_body(send: &mut SendStream, body: &[u8]) -> Result<(), String> {
    let length = u32::try_from(body.len()).map_err(|e| e.to_string())?;
    let write = async {
        send.write_all(&length.to_be_bytes()).await?;
        send.write_all(body).await
    };
    write.await.map_err(|e| e.to_string())?;
    send.finish().map_err(|e| e.to_string())
}

pub(crate) async fn read_body(receive: &mut RecvStream, bytes_max: usize) -> Result<Vec<u8>, BodyError> {
    let read = receive.read_to_end(bytes_max + LENGTH_BYTES).await;
    let mut bytes = read.map_err(|error| match error {
        ReadToEndError::Read(ReadError::Reset(code)) => BodyError::Reset(code),
        ReadToEndError::Read(error) => BodyError::Lost(error.to_string()),
        ReadToEndError::TooLong => BodyError::Incomplete,
    })?;
    if bytes.is_empty() {
        return Err(BodyError::Empty);
    }
    let length = bytes.first_chunk().map(|length| u32::from_be_bytes(*length));
    if length.is_none_or(|length| u64::from(length) != (bytes.len() - LENGTH_BYTES) as u64) {
        return Err(BodyError::Incomplete);
    }
    Ok(bytes.split_off(LENGTH_BYTES))
}
