//! Messages that do not fit into a datagram, each on a one-way stream of its own.
//!
//! What: a heartbeat names each datastore and the VMs that do not execute, so its size grows with the host, and one that
//! is never delivered costs the host its leases. What is too large for a packet is split by QUIC, as a stream, and put
//! together again here.
//!
//! To the core this is a datagram all the same: it may be lost, late, or overtaken by a smaller one sent after it.
//! So nothing waits for it. Invariants: a message is given up when no stream is to be had at once, or when it was not
//! delivered by the time at which a connection would be given up; at most [`UNDER_WAY_MAX`] are under way per connection
//! and direction. QUIC puts datagrams into a packet before streams: small messages do not queue behind these.
//!
//! What it does not do: send again on a newer connection. The next heartbeat does.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::time::timeout;

use crate::connection::{Shared, read_body, write_body};
use crate::counters::Complaint;
use crate::{MESSAGE_BYTES_MAX, NetEvent};

/// Large messages of each side that may be under way on a connection. A heartbeat may take three heartbeats, an answer
/// likewise, and there are seldom others. With [`MESSAGE_BYTES_MAX`] this is what the windows of a connection hold.
pub(crate) const UNDER_WAY_MAX: u32 = 8;

/// Above a request's, which is 0: a heartbeat must not share a full window with somebody's view of the whole cluster.
const PRIORITY: i32 = 1;

/// Tells the other side that the message took too long.
const CODE_LATE: VarInt = VarInt::from_u32(5);

/// Begins to send. Gives the message back when the connection ended just now.
pub(crate) fn send(
    shared: &Arc<Shared>,
    peer: &str,
    connection: &Connection,
    message: Vec<u8>,
) -> Option<Vec<u8>> {
    // Asked once, not awaited: with all streams taken (none are given by an agent of a release before these), this
    // message is not worth waiting for.
    match pin!(connection.open_uni()).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(stream)) => {
            let (task, peer, connection) = (Arc::clone(shared), peer.to_owned(), connection.clone());
            shared.runtime.spawn(async move { deliver(&task, &peer, &connection, stream, &message).await });
            None
        }
        Poll::Ready(Err(_)) => Some(message),
        Poll::Pending => {
            give_up(shared, peer, connection.remote_address(), "it takes none, or not so many at once");
            None
        }
    }
}

async fn deliver(
    shared: &Shared,
    peer: &str,
    connection: &Connection,
    mut stream: SendStream,
    message: &[u8],
) {
    // Fails when the stream has ended already, as the writing then says.
    let _ = stream.set_priority(PRIORITY);
    let whole = async {
        write_body(&mut stream, message).await?;
        match stream.stopped().await {
            // All of it was received.
            Ok(None) => Ok(()),
            Ok(Some(code)) => Err(format!("it refused it with code {code}")),
            Err(error) => Err(error.to_string()),
        }
    };
    let why = match timeout(shared.timing.silent, whole).await {
        Ok(Ok(())) => {
            return shared.tally.count(|c| {
                c.large_sent += 1;
                c.bytes_sent += message.len() as u64;
            });
        }
        Ok(Err(why)) => why,
        Err(_) => {
            // Otherwise QUIC would go on repeating it, and the peer's stream would stay taken.
            let _ = stream.reset(CODE_LATE);
            format!("it was not delivered within {:?}", shared.timing.silent)
        }
    };
    if connection.close_reason().is_some() {
        // Lost with the connection, whose end is told elsewhere.
        shared.tally.count(|c| c.large_dropped += 1);
    } else {
        give_up(shared, peer, connection.remote_address(), &why);
    }
}

fn give_up(shared: &Shared, peer: &str, address: SocketAddr, why: &str) {
    tracing::debug!(peer, %address, why, "a large message was dropped");
    shared.tally.count(|c| c.large_dropped += 1);
    shared.tally.complain(address, Complaint::Undelivered, &format!("{peer}: {why}"));
}

/// Takes in one message of that peer.
pub(crate) async fn receive(shared: Arc<Shared>, from: String, address: SocketAddr, mut stream: RecvStream) {
    let read = timeout(shared.timing.silent, read_body(&mut stream, MESSAGE_BYTES_MAX)).await;
    let Ok(Ok(bytes)) = read else {
        // Fails when the stream has ended already, which is as well.
        let _ = stream.stop(CODE_LATE);
        shared.tally.count(|c| c.large_incomplete += 1);
        return;
    };
    let size = bytes.len() as u64;
    if shared.emit(NetEvent::Datagram { from, bytes }, address).is_ok() {
        shared.tally.count(|c| {
            c.large_received += 1;
            c.bytes_received += size;
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use mainstay_testkit::PATIENCE;
    use quinn::{Endpoint, TransportConfig};
    use tokio::sync::mpsc;
    use tokio::time::interval;

    use super::*;
    use crate::counters::Tally;
    use crate::identity::{Identity, dns_name};
    use crate::quic::{self, Timing};
    use crate::socket::{self, WatchedSocket};
    use crate::{DATAGRAM_BYTES_MAX, Net, NetConfig, Peer, verify};

    const HEARTBEAT: Duration = Duration::from_millis(200);
    const KEY: [u8; 32] = [7; 32];

    /// host-1, and a connection to it from a host-2 that is not the transport of this release.
    struct Hosts {
        first: Net,
        to_first: mpsc::Receiver<NetEvent>,
        second: Connection,
        _endpoint: Endpoint,
    }

    impl Hosts {
        /// `tuned` is how the other's QUIC differs from ours.
        async fn start(tuned: impl Fn(&mut TransportConfig)) -> Self {
            let any = "127.0.0.1:0".parse().expect("an address");
            let socket = socket::bind_all(&[any]).expect("a port").remove(0);
            let peer =
                Peer { id: "host-2".to_owned(), addresses: vec![socket.local_addr().expect("an address")] };
            let config = NetConfig {
                me: "host-1".to_owned(),
                cluster_id: "blue".to_owned(),
                listen: vec![any],
                peers: vec![peer],
                key: KEY,
                heartbeat: HEARTBEAT,
            };
            let (first, mut to_first) = Net::start(config).await.expect("a transport");

            let identity = Identity::derive(&KEY, "blue", "host-2").expect("an identity");
            let names = verify::PeerNames::new("blue", ["host-1"].into_iter()).expect("names");
            let mut quic = quic::transport_config(Timing::from_heartbeat(HEARTBEAT)).expect("parameters");
            tuned(&mut quic);
            let quic = Arc::new(quic);
            let key = identity.connection_id_key;
            let watched = WatchedSocket::wrap(socket, key, BTreeSet::new(), Arc::new(Tally::default()));
            let server = verify::server_config(&identity, &names, Arc::clone(&quic)).expect("a server");
            let endpoint =
                quic::endpoint(&identity, server, watched.expect("a socket")).expect("an endpoint");
            let client = verify::client_config(&identity, &names, "host-1", quic).expect("a client");
            let address = first.local_address().expect("an address");
            let dial = endpoint.connect_with(client, address, &dns_name("host-1", "blue")).expect("a dial");
            let second = dial.await.expect("a connection");
            // When this has arrived, host-1 sends on that connection.
            second.send_datagram(b"hello".to_vec().into()).expect("sent");
            assert_eq!(message(&mut to_first).await, b"hello");
            Self { first, to_first, second, _endpoint: endpoint }
        }
    }

    async fn message(events: &mut mpsc::Receiver<NetEvent>) -> Vec<u8> {
        match timeout(PATIENCE, events.recv()).await.expect("in time").expect("open") {
            NetEvent::Datagram { from, bytes } => {
                assert_eq!(from, "host-2");
                bytes
            }
            NetEvent::Request { .. } => panic!("a request"),
        }
    }

    #[tokio::test]
    async fn to_a_peer_of_a_former_release_large_messages_are_dropped_and_small_ones_flow() {
        let mut hosts = Hosts::start(|quic| {
            quic.max_concurrent_uni_streams(VarInt::from_u32(0));
        })
        .await;
        for number in 0..20_u8 {
            hosts.first.send("host-2", vec![number; DATAGRAM_BYTES_MAX + 1]);
            hosts.first.send("host-2", vec![number]);
            assert_eq!(hosts.second.read_datagram().await.expect("open"), [number].as_slice());
            hosts.second.send_datagram(vec![number].into()).expect("sent");
            assert_eq!(message(&mut hosts.to_first).await, [number]);
        }
        let seen = hosts.first.counters();
        assert_eq!((seen.large_dropped, seen.large_sent, seen.datagrams_sent), (20, 0, 20));
        assert_eq!((seen.connections_opened, seen.connections_lost), (1, 0));
    }

    #[tokio::test]
    async fn what_is_incomplete_too_slow_or_above_the_limit_frees_its_stream_and_harms_nothing() {
        let mut hosts = Hosts::start(|_| {}).await;
        let second = hosts.second.clone();
        // Half a message, ended in good order.
        let mut half = second.open_uni().await.expect("a stream");
        half.write_all(&[0, 0, 4, 0, 1, 2, 3]).await.expect("written");
        half.finish().expect("finished");
        // All other streams at once, none of which is ever finished; one is above the limit.
        let mut streams = Vec::new();
        for number in 1..UNDER_WAY_MAX {
            let mut stream = second.open_uni().await.expect("a stream");
            let bytes = if number == 1 { MESSAGE_BYTES_MAX + 5 } else { 100 };
            stream.write_all(&vec![0; bytes]).await.expect("written");
            streams.push(stream);
        }
        let alive = tokio::spawn(async move {
            let mut beat = interval(HEARTBEAT / 4);
            loop {
                beat.tick().await;
                second.send_datagram(b"alive".to_vec().into()).expect("the connection lives");
            }
        });
        for stream in &streams {
            let stopped = timeout(PATIENCE, stream.stopped()).await.expect("in time");
            assert!(matches!(stopped, Ok(Some(_))), "{stopped:?}");
        }
        drop(streams);
        // A good one passes after all of them.
        let mut good = timeout(PATIENCE, hosts.second.open_uni()).await.expect("in time").expect("a stream");
        write_body(&mut good, &[9; 5000]).await.expect("written");
        while message(&mut hosts.to_first).await != [9; 5000] {}
        alive.abort();
        let seen = hosts.first.counters();
        assert_eq!((seen.large_incomplete, seen.large_received), (u64::from(UNDER_WAY_MAX), 1));
        assert_eq!((seen.connections_opened, seen.connections_lost), (1, 0));
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_gets_no_more_than_fits_and_small_ones_flow() {
        // It has the streams, but its program never takes one: the window of one packet is soon full.
        let hosts = Hosts::start(|quic| {
            quic.stream_receive_window(VarInt::from_u32(1000));
        })
        .await;
        let count = u64::from(UNDER_WAY_MAX) + 12;
        for _ in 0..count {
            hosts.first.send("host-2", vec![1; 5000]);
        }
        let mut beat = interval(HEARTBEAT / 4);
        let all_dropped = async {
            while hosts.first.counters().large_dropped < count {
                beat.tick().await;
                hosts.first.send("host-2", b"small".to_vec());
                assert_eq!(hosts.second.read_datagram().await.expect("open"), b"small".as_slice());
            }
        };
        timeout(PATIENCE, all_dropped).await.expect("given up in time");
        let seen = hosts.first.counters();
        assert_eq!((seen.large_dropped, seen.large_sent, seen.connections_lost), (count, 0, 0));
    }
}
