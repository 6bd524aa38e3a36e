//! Two management networks: as long as either works, messages and requests arrive.

use super::relay::Relay;
use super::{PATIENCE, beat_until, beats, config, free_address_at, next_datagram, start};
use mainstay_transport::{Net, NetEvent, Peer};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

/// Short enough to wait for silence, long enough for both networks not to seem silent on a busy machine.
const BEAT: Duration = Duration::from_secs(1);

/// host-1 and host-2 on two management networks, each of which can be cut.
struct TwoNetworks {
    first: Net,
    _to_first: Receiver<NetEvent>,
    second: Net,
    to_second: Receiver<NetEvent>,
    relays: [Relay; 2],
}

impl TwoNetworks {
    async fn start() -> Self {
        let networks = [[127, 0, 0, 1], [127, 0, 0, 2]];
        let [one, two] = [networks.map(free_address_at), networks.map(free_address_at)];
        let relays = [Relay::start(one[0], two[0]).await, Relay::start(one[1], two[1]).await];
        let on_both = |me: &str, own: [SocketAddr; 2], peer: &str, addresses: Vec<SocketAddr>| {
            let mut config = config(me, own[0], &[]);
            config.heartbeat = BEAT;
            config.listen = own.to_vec();
            config.peers = vec![Peer { id: peer.to_owned(), addresses }];
            config
        };
        let to_two = relays.iter().map(|relay| relay.for_one).collect();
        // In the other order: which addresses belong together does not hang on it.
        let to_one = relays.iter().rev().map(|relay| relay.for_two).collect();
        let (first, to_first) = start(on_both("host-1", one, "host-2", to_two)).await;
        let (second, to_second) = start(on_both("host-2", two, "host-1", to_one)).await;
        Self { first, _to_first: to_first, second, to_second, relays }
    }

    /// Sends until one message has come by both networks.
    async fn until_both_carry(&mut self) {
        let mut copies = std::collections::BTreeMap::new();
        let mut beat = beats(BEAT);
        let mut number = 0_u32;
        let flow = async {
            loop {
                tokio::select! {
                    _ = beat.tick() => {
                        number += 1;
                        self.first.send("host-2", format!("both {number}").into_bytes());
                    }
                    event = self.to_second.recv() => {
                        let NetEvent::Datagram { bytes, .. } = event.expect("open") else { continue };
                        let seen: &mut u32 = copies.entry(bytes).or_default();
                        *seen += 1;
                        if *seen == 2 {
                            break;
                        }
                    }
                }
            }
        };
        timeout(PATIENCE, flow).await.expect("both networks carry messages");
    }
}

#[tokio::test]
async fn two_networks_cut_either_and_no_message_is_lost() {
    let mut hosts = TwoNetworks::start().await;
    for (round, cut) in [0, 1, 0].into_iter().enumerate() {
        hosts.until_both_carry().await;
        hosts.relays[cut].cut.store(true, Ordering::Relaxed);
        let messages = || (0..12_u32).map(|number| format!("round {round}, {number}").into_bytes());
        // Long enough for the cut connection to end by its silence and for dials that fail.
        let mut beat = beats(BEAT);
        for message in messages() {
            beat.tick().await;
            hosts.first.send("host-2", message);
        }
        let mut missing: std::collections::BTreeSet<Vec<u8>> = messages().collect();
        while !missing.is_empty() {
            missing.remove(&next_datagram(&mut hosts.to_second).await.1);
        }
        let lost = round as u64 + 1;
        let seen = beat_until(&hosts.first, "host-2", &hosts.first, |c| c.paths_lost >= lost).await;
        assert_eq!(seen.paths_lost, lost, "said once");
        hosts.relays[cut].cut.store(false, Ordering::Relaxed);
    }
    assert_eq!(hosts.second.counters().events_dropped, 0);
}

#[tokio::test]
async fn two_networks_a_request_takes_the_one_that_works() {
    let mut hosts = TwoNetworks::start().await;
    hosts.until_both_carry().await;
    let TwoNetworks { first, mut to_second, relays, .. } = hosts;
    let server = tokio::spawn(async move {
        while let Some(event) = to_second.recv().await {
            let NetEvent::Request { body, reply, .. } = event else { continue };
            reply.send(body).expect("peer waits");
        }
    });
    for cut in [0, 1] {
        // At once: both connections still look alive.
        relays[cut].cut.store(true, Ordering::Relaxed);
        relays[1 - cut].cut.store(false, Ordering::Relaxed);
        let answer = first.request("host-2", vec![cut as u8; 100_000], PATIENCE).await.expect("an answer");
        assert_eq!(answer, vec![cut as u8; 100_000]);
    }
    server.abort();
}
