//! A cable between two hosts that a test can cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::net::UdpSocket;

/// A path between host-1 and host-2 that can be cut. Each side sees the other at the relay's addresses.
pub struct Relay {
    pub cut: Arc<AtomicBool>,
    /// Where host-1 finds host-2.
    pub for_one: SocketAddr,
    /// Where host-2 finds host-1.
    pub for_two: SocketAddr,
}

impl Relay {
    /// Its own addresses have the IP of `one`.
    pub async fn start(one: SocketAddr, two: SocketAddr) -> Self {
        let left = UdpSocket::bind((one.ip(), 0)).await.expect("bind");
        let right = UdpSocket::bind((one.ip(), 0)).await.expect("bind");
        let [for_one, for_two] = [&left, &right].map(|s| s.local_addr().expect("address"));
        let cut = Arc::new(AtomicBool::new(false));
        let is_cut = Arc::clone(&cut);
        tokio::spawn(async move {
            let [mut from_left, mut from_right] = [[0; 2048]; 2];
            loop {
                // Errors are ICMP echoes of a peer that is down: like a cable, the relay does not care.
                tokio::select! {
                    Ok((length, _)) = left.recv_from(&mut from_left) => if !is_cut.load(Ordering::Relaxed) {
                        let _ = right.send_to(&from_left[..length], two).await;
                    },
                    Ok((length, _)) = right.recv_from(&mut from_right) => if !is_cut.load(Ordering::Relaxed) {
                        let _ = left.send_to(&from_right[..length], one).await;
                    },
                    else => {}
                }
            }
        });
        Self { cut, for_one, for_two }
    }
}
