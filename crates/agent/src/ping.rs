//! Does a host answer an ICMP echo? Asked of silent hosts and of isolation addresses.
//!
//! Each ping opens a socket of its own and closes it afterwards: at rest nothing is open and no stray packet wakes the
//! agent. An unprivileged ICMP socket is used where `net.ipv4.ping_group_range` permits, a raw socket otherwise. A reply
//! counts only when it comes from the pinged address and carries this ping's sequence number and random token.
//!
//! What it does not do: resolve names, repeat (the core does), or reach link-local IPv6 addresses (an `IpAddr` has no
//! scope).

mod targets;

pub use targets::PingTargets;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

const HEADER_BYTES: usize = 8;
const TOKEN_BYTES: usize = 16;

/// What a ping brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PingResult {
    /// The host answered.
    Answered {
        /// Time from sending to the answer.
        rtt: Duration,
    },
    /// The ping was sent and no answer came in time.
    NoAnswer,
    /// The ping could not be sent: this tells of *this* host (route, link), not of the other.
    CannotSend {
        /// What failed, and what to do about it.
        why: String,
    },
    /// This host can't send any ping: the system gives no ICMP socket.
    Impossible {
        /// What failed, and what to do about it.
        why: String,
    },
}

/// Sends ICMP echo requests. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pinger {
    sequence: Arc<AtomicU16>,
}

/// The two kinds of ICMP.
#[derive(Debug, Clone, Copy)]
struct Family {
    domain: Domain,
    protocol: Protocol,
    request: u8,
    reply: u8,
}

impl Family {
    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self { domain: Domain::IPV4, protocol: Protocol::ICMPV4, request: 8, reply: 0 },
            IpAddr::V6(_) => {
                Self { domain: Domain::IPV6, protocol: Protocol::ICMPV6, request: 128, reply: 129 }
            }
        }
    }
}

/// What one ping sends and expects back.
struct Echo {
    family: Family,
    sequence: u16,
    token: [u8; TOKEN_BYTES],
}

impl Pinger {
    /// Makes a pinger. It holds no socket; whether pings can be sent is told by each of them.
    #[must_use]
    pub fn start() -> Self {
        Self { sequence: Arc::new(AtomicU16::new(0)) }
    }

    /// Whether pings to addresses of that kind are possible here.
    ///
    /// # Errors
    /// When the system gives no ICMP socket; says why and what to do.
    pub fn check(address: IpAddr) -> Result<(), String> {
        open(Family::of(address.to_canonical())).map(drop)
    }

    /// Pings `address` once and waits for the answer, at most for `timeout`.
    pub async fn ping(&self, address: IpAddr, timeout: Duration) -> PingResult {
        let address = address.to_canonical();
        let mut token = [0; TOKEN_BYTES];
        if SystemRandom::new().fill(&mut token).is_err() {
            return PingResult::Impossible { why: "the system gives no random numbers".to_owned() };
        }
        let echo = Echo {
            family: Family::of(address),
            sequence: self.sequence.fetch_add(1, Ordering::Relaxed),
            token,
        };
        let sent = Instant::now();
        let socket = match open(echo.family) {
            Ok(socket) => socket,
            Err(why) => return PingResult::Impossible { why },
        };
        let socket = match send(socket, address, &echo) {
            Ok(socket) => socket,
            Err(why) => return PingResult::CannotSend { why },
        };
        match timeout_at(sent + timeout, wait_for_reply(&socket, &echo)).await {
            Ok(()) => PingResult::Answered { rtt: sent.elapsed() },
            Err(_) => PingResult::NoAnswer,
        }
    }
}

fn send(socket: Socket, address: IpAddr, echo: &Echo) -> Result<UdpSocket, String> {
    let cannot = |error: io::Error| {
        format!(
            "ping to {address} cannot be sent: {error}; check links and routes (`ip route get {address}`)"
        )
    };
    // Connected: the kernel then passes on what comes from this address only.
    socket.connect(&SocketAddr::new(address, 0).into()).map_err(cannot)?;
    socket.send(&encode(echo)).map_err(cannot)?;
    // Why a UDP socket: it is only the safe wrapper for "datagrams on a connected descriptor"; the kernel speaks ICMP.
    UdpSocket::from_std(socket.into()).map_err(|error| format!("the ICMP socket cannot be watched: {error}"))
}

fn open(family: Family) -> Result<Socket, String> {
    let open = |kind| {
        let socket = Socket::new(family.domain, kind, Some(family.protocol))?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    open(Type::DGRAM).or_else(|unprivileged: io::Error| {
        open(Type::RAW).map_err(|raw: io::Error| {
            format!(
                "no ICMP socket: unprivileged: {unprivileged}; raw: {raw}; give the agent CAP_NET_RAW, or set \
                 net.ipv4.ping_group_range to include its group"
            )
        })
    })
}

/// Ends at the reply. Errors that the network reports (such as "host unreachable") are no reply, and not the last word
/// either: a router may say so while a failover of its own is under way.
async fn wait_for_reply(socket: &UdpSocket, echo: &Echo) {
    let mut buffer = [0; 256];
    loop {
        match socket.recv(&mut buffer).await {
            Ok(length) if is_reply(&buffer[..length], echo) => return,
            Ok(_) => {}
            // Reading took the error off the socket, so the next read waits; should it not, others get their turn.
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

fn encode(echo: &Echo) -> Vec<u8> {
    let mut packet = vec![echo.family.request, 0, 0, 0];
    // The identifier: with an unprivileged socket the kernel sets its own. The token does its work here.
    packet.extend_from_slice(&echo.token[..2]);
    packet.extend_from_slice(&echo.sequence.to_be_bytes());
    packet.extend_from_slice(&echo.token);
    // For ICMPv6 the kernel computes it, over addresses that are not known here, and overwrites this one.
    let sum = checksum(&packet);
    packet[2..4].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// The internet checksum, RFC 1071.
fn checksum(packet: &[u8]) -> u16 {
    let mut sum: u32 = packet
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

fn is_reply(packet: &[u8], echo: &Echo) -> bool {
    // A raw IPv4 socket gives the IP header as well. An echo reply begins with 0 or 129, which no IP header does.
    let message = match packet.first() {
        Some(first) if first >> 4 == 4 => packet.get(usize::from(first & 0xf) * 4..),
        Some(_) => Some(packet),
        None => None,
    };
    message.is_some_and(|message| {
        message.len() == HEADER_BYTES + TOKEN_BYTES
            && message[0] == echo.family.reply
            && message[1] == 0
            && message[6..8] == echo.sequence.to_be_bytes()
            && message[HEADER_BYTES..] == echo.token
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo() -> Echo {
        Echo { family: Family::of(IpAddr::from([127, 0, 0, 1])), sequence: 7, token: [9; TOKEN_BYTES] }
    }

    #[test]
    fn checksum_of_a_packet_with_its_checksum_is_zero() {
        assert_eq!(checksum(&encode(&echo())), 0);
    }

    #[test]
    fn only_the_reply_to_this_very_ping_counts() {
        let echo = echo();
        let mut reply = encode(&echo);
        assert!(!is_reply(&reply, &echo), "the request itself, seen on loopback");
        reply[0] = 0;
        assert!(is_reply(&reply, &echo));
        let with_ip_header: Vec<u8> = [0x45].into_iter().chain([0; 19]).chain(reply.clone()).collect();
        assert!(is_reply(&with_ip_header, &echo));
        for spoiled in 6..reply.len() {
            let mut stray = reply.clone();
            stray[spoiled] ^= 1;
            assert!(!is_reply(&stray, &echo), "byte {spoiled}");
        }
        for cut in 0..reply.len() {
            assert!(!is_reply(&reply[..cut], &echo));
            assert!(!is_reply(&with_ip_header[..cut + 4], &echo));
        }
    }
}
