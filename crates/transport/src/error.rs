//! What can go wrong in the transport, told so that the reader knows what to do. Lost datagrams are not errors.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Error of the transport between agents.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// Another process has the port.
    #[error(
        "UDP {address} is already in use: another agent or another program has it; find it with `ss -lunp sport = :{port}`, \
         stop it, or set another port in this host's address, here and in its peers' configuration",
        port = address.port()
    )]
    AddressInUse {
        /// The address that was wanted.
        address: SocketAddr,
    },
    /// The address is not one of this host.
    #[error(
        "UDP {address} is not an address of this host (see `ip address`): correct this host's address in the \
         configuration"
    )]
    AddressNotHere {
        /// The address that was wanted.
        address: SocketAddr,
    },
    /// The port could not be bound for another reason.
    #[error("UDP {address} cannot be opened: {source}; check this host's address and the agent's privileges")]
    Bind {
        /// The address that was wanted.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// None of a peer's addresses can be reached from an own one.
    #[error(
        "no address of host {peer} {addresses:?} can be reached from one of this host's {listen:?}, since one is IPv4 and \
         the other IPv6: give both hosts an address of the same kind"
    )]
    NoPath {
        /// Where this agent listens.
        listen: Vec<SocketAddr>,
        /// Host id of the peer.
        peer: String,
        /// The addresses that the configuration names for that peer.
        addresses: Vec<SocketAddr>,
    },
    /// An id cannot be put into a certificate.
    #[error(
        "{what} {name:?} cannot be used: it must have 1 to 63 characters, only lower-case letters, digits and `-`, and \
         neither begin nor end with `-`"
    )]
    InvalidName {
        /// What the id names, in words: a host or the cluster.
        what: &'static str,
        /// The id as it is configured.
        name: String,
    },
    /// The interval of heartbeats makes no sense.
    #[error("a heartbeat interval of {heartbeat:?} is not possible: use one between 10 ms and 60 s")]
    Heartbeat {
        /// The interval as it is configured.
        heartbeat: Duration,
    },
    /// The cryptographic library refused.
    #[error("{what} failed: {why}; this is a fault of the program or its libraries, please report it")]
    Crypto {
        /// What was tried.
        what: &'static str,
        /// What the library said.
        why: String,
    },
    /// Started outside of a runtime.
    #[error(
        "the transport was started outside of a tokio runtime; this is a fault of the program, please report it"
    )]
    NoRuntime,
    /// No such peer.
    #[error("host {peer} is not a peer of this agent: check the host id with `mainstay host list`")]
    UnknownPeer {
        /// The host id.
        peer: String,
    },
    /// A body is too large.
    #[error(
        "a message of {size} bytes for host {peer} is above the limit of {max} bytes: ask for less at once"
    )]
    TooLarge {
        /// Host id of the peer.
        peer: String,
        /// The size of the message, in bytes.
        size: usize,
        /// The most that a message may have, in bytes.
        max: usize,
    },
    /// No answer in time. The request may or may not have been carried out.
    #[error(
        "host {peer} did not answer within {after:?} ({detail}): is its agent running, and its UDP port reachable?"
    )]
    Timeout {
        /// Host id of the peer.
        peer: String,
        /// How long was waited.
        after: Duration,
        /// How far it came.
        detail: String,
    },
    /// The connection ended before the answer. The request may or may not have been carried out.
    #[error("the connection to host {peer} ended before its answer ({why}): try again")]
    ConnectionLost {
        /// Host id of the peer.
        peer: String,
        /// Why it ended.
        why: String,
    },
    /// The peer's agent received the request and gave no answer.
    #[error("the agent of host {peer} refused the request ({why}): see its log")]
    Refused {
        /// Host id of the peer.
        peer: String,
        /// Why there is no answer, in words for people.
        why: &'static str,
    },
    /// The transport was closed.
    #[error("the agent is stopping")]
    Closed,
}
