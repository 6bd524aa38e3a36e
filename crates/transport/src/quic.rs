//! How QUIC is tuned: for small messages that must not wait, between hosts that are close to each other.

use std::any::Any;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory};
use quinn::{Endpoint, EndpointConfig, IdleTimeout, TokioRuntime, TransportConfig, VarInt};
use quinn_proto::HashedConnectionIdGenerator;

use crate::identity::{Identity, crypto};
use crate::socket::WatchedSocket;
use crate::{DATAGRAM_BYTES_MAX, DIAL_HEARTBEATS, NetError, SILENT_HEARTBEATS, large};

/// Size of packets: what every path carries. Discovering more would cost probes at rest and serve only bulk.
const PACKET_BYTES: u16 = 1200;

/// Packets in flight per connection.
const WINDOW_PACKETS: u64 = 64;

/// Datagrams that wait in one connection; when there are more, QUIC drops the oldest.
const DATAGRAMS_WAITING_MAX: usize = 16;

/// All times of the transport, derived from the heartbeat.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    /// The heartbeat itself.
    pub(crate) heartbeat: Duration,
    /// A connection without any sign of the peer is given up, and so is a large message that has not come through.
    pub(crate) silent: Duration,
    /// A dial, or a handshake of a stranger, is given up.
    pub(crate) dial: Duration,
    /// From the start of one dial to the start of the next, at least. Bounds what a wrong key costs.
    pub(crate) dial_spacing: Duration,
    /// Assumed before the first measurement. The first probe comes after three times this and the next after six more,
    /// so a dial probes at 0, 0.375 and 1.125 heartbeats, and the next dial begins at 2.
    initial_rtt: Duration,
}

impl Timing {
    pub(crate) fn from_heartbeat(heartbeat: Duration) -> Self {
        Self {
            heartbeat,
            silent: heartbeat * SILENT_HEARTBEATS,
            dial: heartbeat * DIAL_HEARTBEATS,
            dial_spacing: heartbeat / 2,
            initial_rtt: (heartbeat / 8).min(Duration::from_millis(333)),
        }
    }
}

/// The QUIC parameters of every connection.
pub(crate) fn transport_config(timing: Timing) -> Result<TransportConfig, NetError> {
    if !(Duration::from_millis(10)..=Duration::from_secs(60)).contains(&timing.heartbeat) {
        return Err(NetError::Heartbeat { heartbeat: timing.heartbeat });
    }
    let silent = IdleTimeout::try_from(timing.silent).map_err(crypto("configuring QUIC's idle time-out"))?;
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(8))
        .max_concurrent_uni_streams(VarInt::from_u32(large::UNDER_WAY_MAX))
        .max_idle_timeout(Some(silent))
        // Heartbeats keep alive what is in use; the rest may go.
        .keep_alive_interval(None)
        .initial_rtt(timing.initial_rtt)
        .initial_mtu(PACKET_BYTES)
        .mtu_discovery_config(None)
        .enable_segmentation_offload(false)
        .stream_receive_window(VarInt::from_u32(256 * 1024))
        .receive_window(VarInt::from_u32(512 * 1024))
        .send_window(512 * 1024)
        .datagram_receive_buffer_size(Some(64 * 1024))
        .datagram_send_buffer_size(DATAGRAMS_WAITING_MAX * DATAGRAM_BYTES_MAX)
        .congestion_controller_factory(Arc::new(FixedWindow));
    Ok(config)
}

/// Starts QUIC on the socket.
pub(crate) fn endpoint(
    identity: &Identity,
    server: quinn::ServerConfig,
    socket: Arc<WatchedSocket>,
) -> io::Result<Endpoint> {
    let mut config = EndpointConfig::new(Arc::new(identity.reset_key.clone()));
    let key = identity.connection_id_key;
    config
        .cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(key)))
        // Without greasing, the fixed bit tells garbage at once.
        .grease_quic_bit(false);
    Endpoint::new_with_abstract_socket(config, Some(server), socket, Arc::new(TokioRuntime))
}

/// A congestion window that never shrinks.
///
/// Why: after loss, a usual window collapses to two packets, and heartbeats would queue behind it just when they matter.
/// Why it is safe for the network: the window is small (75 KiB per connection), probe time-outs still slow down a sender
/// that hears nothing, and streams carry a megabyte now and then, not bulk.
#[derive(Debug, Clone, Copy)]
struct FixedWindow;

impl ControllerFactory for FixedWindow {
    fn build(self: Arc<Self>, _now: Instant, _current_mtu: u16) -> Box<dyn Controller> {
        Box::new(*self)
    }
}

impl Controller for FixedWindow {
    fn on_congestion_event(&mut self, _now: Instant, _sent: Instant, _is_persistent: bool, _lost_bytes: u64) {
    }

    fn on_mtu_update(&mut self, _new_mtu: u16) {}

    fn window(&self) -> u64 {
        WINDOW_PACKETS * u64::from(PACKET_BYTES)
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(*self)
    }

    fn initial_window(&self) -> u64 {
        self.window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
