//! The UDP socket, watched: counts the packets that are none of ours before QUIC silently drops them.
//!
//! It does not filter: dropping is QUIC's business, and a fault in the watching must never cost a good packet.

use std::collections::BTreeSet;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, ConnectionId, ConnectionIdGenerator, Runtime, TokioRuntime, UdpPoller};
use quinn_proto::HashedConnectionIdGenerator;
use socket2::{Domain, Protocol, Socket, Type};

use crate::NetError;
use crate::counters::{Complaint, Tally};

/// Length of our connection ids, as `HashedConnectionIdGenerator` makes them.
const CONNECTION_ID_BYTES: usize = 8;

/// RFC 9000, section 14.1: a packet that opens a connection is padded to this.
const INITIAL_BYTES_MIN: usize = 1200;

/// RFC 9000, section 10.3: a stateless reset is at least so long.
const RESET_BYTES_MIN: usize = 21;

/// Opens a socket for each of these addresses. Of several, some may be missing (an interface that is down at start must
/// not keep the agent from using the others); those work as soon as they are there.
pub(crate) fn bind_all(addresses: &[SocketAddr]) -> Result<Vec<UdpSocket>, NetError> {
    let mut sockets = Vec::new();
    let mut missing = Vec::new();
    for &address in addresses {
        let socket = match bind(address, false) {
            Err(NetError::AddressNotHere { address }) if addresses.len() > 1 => {
                missing.push(address);
                bind(address, true)?
            }
            bound => bound?,
        };
        sockets.push(socket);
    }
    if let Some(&address) = missing.first()
        && missing.len() == addresses.len()
    {
        return Err(NetError::AddressNotHere { address });
    }
    for address in missing {
        tracing::warn!(
            %address,
            "this host does not have this address now, so one management network is not used until it has; see \
             `ip address`, or correct the configuration"
        );
    }
    Ok(sockets)
}

/// Opens the port, of an address that may be missing if so told. An IPv6 wildcard address serves IPv4 as well.
fn bind(address: SocketAddr, may_be_missing: bool) -> Result<UdpSocket, NetError> {
    let open = || -> io::Result<UdpSocket> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        match address {
            SocketAddr::V4(_) => socket.set_freebind_v4(may_be_missing)?,
            SocketAddr::V6(_) => socket.set_freebind_v6(may_be_missing)?,
        }
        socket.bind(&address.into())?;
        Ok(socket.into())
    };
    open().map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => NetError::AddressInUse { address },
        io::ErrorKind::AddrNotAvailable => NetError::AddressNotHere { address },
        // Foreign enum: everything else is told as the system says it.
        _ => NetError::Bind { address, source },
    })
}

/// A socket that counts garbage.
pub(crate) struct WatchedSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    connection_ids: HashedConnectionIdGenerator,
    /// The configured peers, whose stateless resets look random.
    known: BTreeSet<SocketAddr>,
    tally: Arc<Tally>,
}

impl std::fmt::Debug for WatchedSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("WatchedSocket").field(&self.inner).finish()
    }
}

impl WatchedSocket {
    pub(crate) fn wrap(
        socket: UdpSocket,
        connection_id_key: u64,
        known: BTreeSet<SocketAddr>,
        tally: Arc<Tally>,
    ) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            inner: TokioRuntime.wrap_udp_socket(socket)?,
            connection_ids: HashedConnectionIdGenerator::from_key(connection_id_key),
            known,
            tally,
        }))
    }

    fn inspect(&self, packet: &[u8], from: SocketAddr) {
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        let looks_ours = |id: &[u8]| self.connection_ids.validate(&ConnectionId::new(id)).is_ok();
        if is_garbage(packet, self.known.contains(&from), looks_ours) {
            self.tally.count(|c| c.garbage_packets += 1);
            self.tally.complain(from, Complaint::Garbage, "");
        }
    }
}

/// Whether a packet can belong to no connection of ours.
fn is_garbage(packet: &[u8], from_peer: bool, looks_ours: impl Fn(&[u8]) -> bool) -> bool {
    let Some(&first) = packet.first() else { return true };
    if first & 0x40 == 0 {
        return true;
    }
    if first & 0x80 == 0 {
        // A short header: our connection id follows. A stateless reset has random bytes there, so a peer is believed.
        return match packet.get(1..=CONNECTION_ID_BYTES) {
            Some(id) => {
                let may_be_reset = from_peer && packet.len() >= RESET_BYTES_MIN;
                !may_be_reset && !looks_ours(id)
            }
            None => true,
        };
    }
    match packet.get(1..5) {
        // A client pads its first packets; a server's mere acknowledgements of them are short.
        Some([0, 0, 0, 1]) => first & 0x30 == 0 && packet.len() < INITIAL_BYTES_MIN && !from_peer,
        // Version negotiation, from a peer that speaks another QUIC.
        Some([0, 0, 0, 0]) => !from_peer,
        Some(_) | None => true,
    }
}

impl AsyncUdpSocket for WatchedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let polled = self.inner.poll_recv(cx, bufs, meta);
        if let Poll::Ready(Ok(count)) = &polled {
            for (buffer, meta) in bufs.iter().zip(meta.iter()).take(*count) {
                // The kernel may glue several packets of one sender together.
                for packet in buffer[..meta.len].chunks(meta.stride.max(1)) {
                    self.inspect(packet, meta.addr);
                }
                if meta.len == 0 {
                    self.inspect(&[], meta.addr);
                }
            }
        }
        polled
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_is_told_from_packets_that_may_be_ours() {
        let ours = |id: &[u8]| id == [7; 8];
        let mut short = vec![0x40];
        short.extend([7; 8]);
        let mut initial = vec![0xc0, 0, 0, 0, 1];
        initial.resize(INITIAL_BYTES_MIN, 0);

        assert!(!is_garbage(&short, false, ours));
        assert!(!is_garbage(&initial, false, ours));
        assert!(is_garbage(&initial[..300], false, ours), "an unpadded first packet");
        assert!(!is_garbage(&initial[..300], true, ours), "a peer's answer to ours");
        assert!(is_garbage(&[0x40; 60], false, ours), "a connection id that is not ours");
        assert!(!is_garbage(&[0x40; 60], true, ours), "may be a peer's stateless reset");
        for text in [&b""[..], b"GET / HTTP/1.1", b"\x80", b"\xc0\xff\xff\xff\xff123"] {
            assert!(is_garbage(text, true, ours), "{text:?}");
        }
    }
}
