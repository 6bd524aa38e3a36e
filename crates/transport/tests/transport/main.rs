//! The transport between agents, on real sockets of the loopback interface: who hears what of whom.

mod large;
mod outages;
mod refusals;
mod relay;
mod requests;
mod starting;
mod two_networks;

use mainstay_testkit::PATIENCE;
use mainstay_transport::{Counters, DATAGRAM_BYTES_MAX, Net, NetConfig, NetError, NetEvent, Peer};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::Receiver;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep, timeout};

/// Of tests about silence, which wait for many of them.
const HEARTBEAT: Duration = Duration::from_millis(200);
/// Of all others: a machine that stands still for seconds is no outage then.
const CALM: Duration = Duration::from_secs(10);
const KEY: [u8; 32] = [42; 32];

/// A port that is free at this moment.
fn free_address() -> SocketAddr {
    free_address_at([127, 0, 0, 1])
}

fn free_address_at(ip: [u8; 4]) -> SocketAddr {
    let socket = std::net::UdpSocket::bind((IpAddr::from(ip), 0)).expect("bind");
    socket.local_addr().expect("address")
}

fn config(me: &str, listen: SocketAddr, peers: &[(&str, SocketAddr)]) -> NetConfig {
    NetConfig {
        me: me.to_owned(),
        cluster_id: "blue".to_owned(),
        listen: vec![listen],
        peers: peers
            .iter()
            .map(|(id, address)| Peer { id: (*id).to_owned(), addresses: vec![*address] })
            .collect(),
        key: KEY,
        heartbeat: CALM,
    }
}

/// The same with the short heartbeat.
fn quick(config: NetConfig) -> NetConfig {
    NetConfig { heartbeat: HEARTBEAT, ..config }
}

/// Ticks that a machine which stood still does not make up for.
fn beats(heartbeat: Duration) -> Interval {
    let mut beat = interval(heartbeat);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat
}

async fn start(config: NetConfig) -> (Net, Receiver<NetEvent>) {
    timeout(PATIENCE, async {
        loop {
            match Net::start(config.clone()).await {
                Ok(started) => return started,
                // A predecessor on the same port ends in the background.
                Err(NetError::AddressInUse { .. }) => sleep(Duration::from_millis(5)).await,
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await
    .expect("port becomes free")
}

/// host-1 and host-2 that know each other.
async fn pair() -> ((Net, Receiver<NetEvent>), (Net, Receiver<NetEvent>)) {
    let [one, two] = [free_address(), free_address()];
    let first = start(config("host-1", one, &[("host-2", two)])).await;
    let second = start(config("host-2", two, &[("host-1", one)])).await;
    (first, second)
}

async fn next_datagram(events: &mut Receiver<NetEvent>) -> (String, Vec<u8>) {
    match timeout(PATIENCE, events.recv()).await.expect("in time").expect("open") {
        NetEvent::Datagram { from, bytes } => (from, bytes),
        NetEvent::Request { from, .. } => panic!("request from {from}"),
    }
}

/// Sends one message per heartbeat until one with that text arrives; tells how many were sent since this machine last stood still:
/// while it did, the transport could do nothing.
async fn attempts_until_received(net: &Net, to: &str, text: &str, events: &mut Receiver<NetEvent>) -> u32 {
    let mut beat = beats(HEARTBEAT);
    let mut attempts = 0;
    let mut last = Instant::now();
    let flow = async {
        loop {
            tokio::select! {
                _ = beat.tick() => {
                    let stood_still = last.elapsed() > HEARTBEAT * 3 / 2;
                    last = Instant::now();
                    attempts = if stood_still { 1 } else { attempts + 1 };
                    net.send(to, text.as_bytes().to_vec());
                }
                event = events.recv() => {
                    if matches!(event.expect("open"), NetEvent::Datagram { bytes, .. } if bytes == text.as_bytes()) {
                        break;
                    }
                }
            }
        }
    };
    timeout(PATIENCE, flow).await.expect("traffic flows");
    attempts
}

/// Sends heartbeats until the counters of either side satisfy a condition.
async fn beat_until(from: &Net, to: &str, seen_by: &Net, condition: impl Fn(&Counters) -> bool) -> Counters {
    let wait = async {
        loop {
            from.send(to, b"heartbeat".to_vec());
            sleep(HEARTBEAT / 4).await;
            let counters = seen_by.counters();
            if condition(&counters) {
                return counters;
            }
        }
    };
    match timeout(PATIENCE, wait).await {
        Ok(counters) => counters,
        Err(_) => panic!("not seen: {:?}", seen_by.counters()),
    }
}

#[tokio::test]
async fn three_hosts_exchange_datagrams_and_know_the_senders() {
    let [one, two, three] = [free_address(), free_address(), free_address()];
    let all = [("host-1", one), ("host-2", two), ("host-3", three)];
    let (first, mut to_first) = start(config("host-1", one, &all)).await;
    let (second, mut to_second) = start(config("host-2", two, &all)).await;
    let (third, mut to_third) = start(config("host-3", three, &all)).await;

    first.send("host-2", b"1 to 2".to_vec());
    assert_eq!(next_datagram(&mut to_second).await, ("host-1".into(), b"1 to 2".to_vec()));
    second.send("host-1", b"2 to 1".to_vec());
    assert_eq!(next_datagram(&mut to_first).await, ("host-2".into(), b"2 to 1".to_vec()));
    third.send("host-1", b"3 to 1".to_vec());
    assert_eq!(next_datagram(&mut to_first).await, ("host-3".into(), b"3 to 1".to_vec()));
    first.send("host-3", b"1 to 3".to_vec());
    assert_eq!(next_datagram(&mut to_third).await, ("host-1".into(), b"1 to 3".to_vec()));

    let seen = first.counters();
    assert_eq!((seen.datagrams_sent, seen.datagrams_received), (2, 2));
    assert_eq!((seen.bytes_sent, seen.bytes_received), (12, 12));
    assert_eq!((seen.wrong_key, seen.garbage_packets), (0, 0));
}

#[tokio::test]
async fn dialling_each_other_at_once_loses_nothing_in_use() {
    let ((first, mut to_first), (second, mut to_second)) = pair().await;
    for round in 0..20_u8 {
        first.send("host-2", vec![round]);
        second.send("host-1", vec![round]);
        assert_eq!(next_datagram(&mut to_second).await.1, [round]);
        assert_eq!(next_datagram(&mut to_first).await.1, [round]);
    }
    assert_eq!(first.counters().messages_dropped, 0);
}

#[tokio::test]
async fn datagrams_up_to_the_limit_pass_and_those_for_nobody_are_counted() {
    let ((first, _keep), (_second, mut to_second)) = pair().await;
    first.send("host-2", vec![2; DATAGRAM_BYTES_MAX]);
    first.send("host-9", vec![3]);
    assert_eq!(next_datagram(&mut to_second).await.1, vec![2; DATAGRAM_BYTES_MAX]);
    let seen = first.counters();
    assert_eq!((seen.messages_unaddressed, seen.datagrams_sent, seen.large_sent), (1, 1, 0));
}
