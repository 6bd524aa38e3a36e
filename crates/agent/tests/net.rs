//! The transport between agents and the ping, on real sockets of the loopback interface.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mainstay_agent::config::AgentConfig;
use mainstay_agent::net::{
    BODY_BYTES_MAX, Counters, DATAGRAM_BYTES_MAX, Net, NetConfig, NetError, NetEvent, Peer,
};
use mainstay_agent::ping::{PingResult, PingTargets, Pinger};
use mainstay_core::ids::HostId;
use tokio::net::UdpSocket;
use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;
use tokio::time::{interval, sleep, timeout};

const HEARTBEAT: Duration = Duration::from_millis(100);
const KEY: [u8; 32] = [42; 32];
/// Bounds a test that hangs; no assertion depends on it.
const PATIENCE: Duration = Duration::from_secs(30);

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
        heartbeat: HEARTBEAT,
    }
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

/// Sends one message per heartbeat until one with that text arrives; tells how many were sent.
async fn attempts_until_received(net: &Net, to: &str, text: &str, events: &mut Receiver<NetEvent>) -> u32 {
    let mut beat = interval(HEARTBEAT);
    let mut attempts = 0;
    let flow = async {
        loop {
            tokio::select! {
                _ = beat.tick() => { net.send(to, text.as_bytes().to_vec()); attempts += 1; }
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
    assert_eq!(first.counters().datagrams_dropped, 0);
}

#[tokio::test]
async fn datagrams_up_to_the_limit_pass_and_larger_ones_are_counted() {
    let ((first, _keep), (_second, mut to_second)) = pair().await;
    first.send("host-2", vec![1; DATAGRAM_BYTES_MAX + 1]);
    first.send("host-2", vec![2; DATAGRAM_BYTES_MAX]);
    first.send("host-9", vec![3]);
    assert_eq!(next_datagram(&mut to_second).await.1, vec![2; DATAGRAM_BYTES_MAX]);
    let seen = first.counters();
    assert_eq!((seen.datagrams_oversize, seen.datagrams_unaddressed, seen.datagrams_sent), (1, 1, 1));
}

#[tokio::test]
async fn wrong_key_is_refused_and_counted_by_both_sides() {
    let [one, two] = [free_address(), free_address()];
    let (first, _keep) = start(config("host-1", one, &[("host-2", two)])).await;
    let mut other = config("host-2", two, &[("host-1", one)]);
    other.key = [43; 32];
    let (second, mut to_second) = start(other).await;

    beat_until(&first, "host-2", &first, |c| c.wrong_key > 0).await;
    let seen = beat_until(&first, "host-2", &second, |c| c.wrong_key > 0).await;
    assert_eq!(seen.connections_opened, 0);
    assert_eq!(first.counters().datagrams_sent, 0);
    assert!(to_second.try_recv().is_err());
}

#[tokio::test]
async fn other_cluster_with_the_same_key_is_refused_and_counted() {
    let [one, two] = [free_address(), free_address()];
    let (first, _keep) = start(config("host-1", one, &[("host-2", two)])).await;
    let mut other = config("host-2", two, &[("host-1", one)]);
    other.cluster_id = "red".to_owned();
    let (second, mut to_second) = start(other).await;

    beat_until(&first, "host-2", &first, |c| c.other_cluster > 0).await;
    let seen = beat_until(&first, "host-2", &second, |c| c.other_cluster > 0).await;
    assert_eq!((seen.wrong_key, seen.connections_opened), (0, 0));
    assert!(to_second.try_recv().is_err());
}

#[tokio::test]
async fn unknown_host_is_refused_and_both_sides_learn_it() {
    let [one, two] = [free_address(), free_address()];
    let (first, _keep) = start(config("host-1", one, &[("host-2", two)])).await;
    let (second, mut to_second) = start(config("host-2", two, &[("host-3", free_address())])).await;

    let seen = beat_until(&first, "host-2", &second, |c| c.unknown_host > 0).await;
    assert_eq!((seen.connections_opened, seen.wrong_key), (0, 0));
    beat_until(&first, "host-2", &first, |c| c.refused_by_peer > 0).await;
    assert!(to_second.try_recv().is_err());
}

#[tokio::test]
async fn another_host_at_the_dialled_address_is_refused() {
    let [one, two] = [free_address(), free_address()];
    let (first, _keep) = start(config("host-1", one, &[("host-3", two), ("host-2", free_address())])).await;
    let (_second, mut to_second) = start(config("host-2", two, &[("host-1", one)])).await;
    let seen = beat_until(&first, "host-3", &first, |c| c.wrong_host > 0).await;
    assert_eq!(seen.datagrams_sent, 0);
    assert!(to_second.try_recv().is_err());
}

#[tokio::test]
async fn garbage_is_counted_and_harmless() {
    let ((first, mut to_first), (second, mut to_second)) = pair().await;
    let stranger = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
    let target = second.local_address().expect("address");
    let mut initial = vec![0xc3, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0];
    initial.resize(1200, 0xaa);
    for packet in [&b"GET / HTTP/1.1\r\n"[..], &[0; 1], &[0x40; 100], &[0xff; 1200], &[], &initial] {
        stranger.send_to(packet, target).await.expect("send");
    }
    beat_until(&first, "host-2", &second, |c| c.garbage_packets == 5).await;
    second.send("host-1", b"well".to_vec());
    assert_eq!(next_datagram(&mut to_first).await.1, b"well");
    assert_eq!(next_datagram(&mut to_second).await.1, b"heartbeat");
    assert_eq!(second.counters().connections_lost, 0);
}

#[tokio::test]
async fn requests_are_answered_up_to_megabytes() {
    let ((first, _keep), (_second, mut to_second)) = pair().await;
    let server = tokio::spawn(async move {
        while let Some(event) = to_second.recv().await {
            let NetEvent::Request { from, body, reply } = event else { continue };
            assert_eq!(from, "host-1");
            let answer = body.iter().rev().copied().collect();
            reply.send(answer).expect("peer waits");
        }
    });
    for size in [0, 1, 1 << 20, BODY_BYTES_MAX] {
        let body: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        let answer = first.request("host-2", body.clone(), PATIENCE).await.expect("answer");
        assert!(answer.iter().rev().eq(body.iter()), "{size} bytes");
    }
    let too_large = first.request("host-2", vec![0; BODY_BYTES_MAX + 1], PATIENCE).await;
    assert!(matches!(too_large, Err(NetError::TooLarge { .. })), "{too_large:?}");
    let nobody = first.request("host-7", vec![], PATIENCE).await;
    assert!(matches!(nobody, Err(NetError::UnknownPeer { .. })), "{nobody:?}");
    server.abort();
}

#[tokio::test]
async fn a_request_outlives_the_silence_limit_and_times_out_when_nobody_answers() {
    let ((first, _keep), (_second, mut to_second)) = pair().await;
    // Ten heartbeats without any other traffic: the pending request itself keeps its connection.
    let request = first.request("host-2", b"hello?".to_vec(), HEARTBEAT * 10);
    let (outcome, event) = tokio::join!(request, to_second.recv());
    assert!(
        matches!(&outcome, Err(NetError::Timeout { detail, .. }) if detail.starts_with("connected")),
        "{outcome:?}"
    );
    let Some(NetEvent::Request { mut reply, .. }) = event else { panic!("no request") };
    timeout(PATIENCE, reply.closed()).await.expect("the handler learns that nobody waits");
}

#[tokio::test]
async fn a_dropped_reply_and_a_dead_peer_are_told_apart() {
    let [one, two, dead] = [free_address(), free_address(), free_address()];
    let (first, _keep) = start(config("host-1", one, &[("host-2", two), ("host-3", dead)])).await;
    let (_second, mut to_second) = start(config("host-2", two, &[("host-1", one)])).await;
    let request = first.request("host-2", vec![1], PATIENCE);
    let (outcome, ()) = tokio::join!(request, async { drop(to_second.recv().await) });
    assert!(matches!(outcome, Err(NetError::Refused { .. })), "{outcome:?}");
    let outcome = first.request("host-3", vec![1], HEARTBEAT * 5).await;
    assert!(
        matches!(&outcome, Err(NetError::Timeout { detail, .. }) if detail.contains("dial")),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_peer_that_crashes_and_starts_again_is_reached_again() {
    let [one, two] = [free_address(), free_address()];
    let (first, mut to_first) = start(config("host-1", one, &[("host-2", two)])).await;

    // A runtime of its own that is torn down: nothing says goodbye, as in a crash.
    let peer = config("host-2", two, &[("host-1", one)]);
    let (started, running) = oneshot::channel();
    let (crash, crashed) = oneshot::channel::<()>();
    let starting = peer.clone();
    let victim = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            assert!(started.send(start(starting).await).is_ok());
            crashed.await.expect("order to crash");
        });
    });
    let (second, mut to_second) = running.await.expect("started");
    attempts_until_received(&first, "host-2", "before", &mut to_second).await;
    second.send("host-1", b"before".to_vec());
    next_datagram(&mut to_first).await;
    crash.send(()).expect("running");
    victim.join().expect("crashed");
    drop((second, to_second));

    let (second, mut to_second) = start(peer).await;
    let attempts = attempts_until_received(&first, "host-2", "after", &mut to_second).await;
    // One message meets the stateless reset, the next waits for the dial; the rest is for a slow machine.
    assert!(attempts <= 5, "{attempts} attempts");
    let attempts = attempts_until_received(&second, "host-1", "after", &mut to_first).await;
    assert!(attempts <= 5, "{attempts} attempts back");
}

#[tokio::test]
async fn a_peer_that_closes_and_starts_again_is_reached_again() {
    let ((first, _keep), (second, mut to_second)) = pair().await;
    attempts_until_received(&first, "host-2", "before", &mut to_second).await;
    let listen = second.local_address().expect("address");
    second.close().await;
    drop((second, to_second));
    let first_address = first.local_address().expect("address");
    let (_second, mut to_second) = start(config("host-2", listen, &[("host-1", first_address)])).await;
    let attempts = attempts_until_received(&first, "host-2", "after", &mut to_second).await;
    assert!(attempts <= 5, "{attempts} attempts");
    assert_eq!(first.counters().connections_lost, 0, "a goodbye is no loss");
}

#[tokio::test]
async fn messages_to_a_dead_peer_are_bounded_and_delay_nobody() {
    let [one, two, dead] = [free_address(), free_address(), free_address()];
    let (first, _keep) = start(config("host-1", one, &[("host-2", two), ("host-3", dead)])).await;
    let (_second, mut to_second) = start(config("host-2", two, &[("host-1", one)])).await;
    for _ in 0..100_000 {
        first.send("host-3", vec![0; 300]);
    }
    let seen = first.counters();
    assert_eq!((seen.datagrams_sent, seen.datagrams_dropped), (0, 100_000 - 4));
    attempts_until_received(&first, "host-2", "alive", &mut to_second).await;
    assert!(first.counters().dials <= 4, "{:?}", first.counters());
}

#[tokio::test]
async fn a_port_in_use_is_told_with_a_remedy() {
    let (first, _keep) = start(config("host-1", free_address(), &[])).await;
    let taken = first.local_address().expect("address");
    let error = Net::start(config("host-2", taken, &[])).await.expect_err("taken");
    assert!(matches!(error, NetError::AddressInUse { address } if address == taken), "{error}");
    assert!(error.to_string().contains("ss -lunp"), "{error}");
    let error = Net::start(config("Host.1", taken, &[])).await.expect_err("name");
    assert!(matches!(error, NetError::InvalidName { .. }), "{error}");
}

/// A path between host-1 and host-2 that can be cut. Each side sees the other at the relay's addresses.
struct Relay {
    cut: Arc<AtomicBool>,
    /// Where host-1 finds host-2.
    for_one: SocketAddr,
    /// Where host-2 finds host-1.
    for_two: SocketAddr,
}

impl Relay {
    /// Its own addresses have the IP of `one`.
    async fn start(one: SocketAddr, two: SocketAddr) -> Self {
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

/// Cuts the path for so many heartbeats, both sides sending all the time; tells the attempts after healing.
async fn attempts_after_cut(heartbeats: u32) -> u32 {
    let [one, two] = [free_address(), free_address()];
    let relay = Relay::start(one, two).await;
    let (first, mut to_first) = start(config("host-1", one, &[("host-2", relay.for_one)])).await;
    let (second, mut to_second) = start(config("host-2", two, &[("host-1", relay.for_two)])).await;
    attempts_until_received(&first, "host-2", "before", &mut to_second).await;
    attempts_until_received(&second, "host-1", "before", &mut to_first).await;

    relay.cut.store(true, Ordering::Relaxed);
    let mut beat = interval(HEARTBEAT);
    for _ in 0..heartbeats {
        beat.tick().await;
        first.send("host-2", b"cut".to_vec());
        second.send("host-1", b"cut".to_vec());
    }
    relay.cut.store(false, Ordering::Relaxed);
    let there = attempts_until_received(&first, "host-2", "after", &mut to_second).await;
    let back = attempts_until_received(&second, "host-1", "after", &mut to_first).await;
    println!("cut for {heartbeats} heartbeats: {there} attempts there, {back} back");
    there.max(back)
}

#[tokio::test]
async fn after_a_cut_of_any_length_datagrams_flow_again_within_a_few_heartbeats() {
    for heartbeats in [2, 4, 7, 12, 25, 50] {
        let attempts = attempts_after_cut(heartbeats).await;
        assert!(attempts <= 4, "cut for {heartbeats} heartbeats: {attempts} attempts");
    }
}

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
        let mut beat = interval(HEARTBEAT);
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
        let mut beat = interval(HEARTBEAT);
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

#[tokio::test]
async fn an_address_that_is_missing_at_start_stops_only_an_agent_that_has_no_other() {
    // Reserved for documentation: no host has it.
    let missing = SocketAddr::from(([192, 0, 2, 9], 7780));
    let [one, two] = [free_address(), free_address()];
    let mut both = config("host-1", one, &[("host-2", two)]);
    both.listen = vec![missing, one];
    let (first, _keep) = start(both).await;
    let (_second, mut to_second) = start(config("host-2", two, &[("host-1", one)])).await;
    attempts_until_received(&first, "host-2", "by the other", &mut to_second).await;

    let error = Net::start(config("host-3", missing, &[])).await.expect_err("no address");
    assert!(matches!(error, NetError::AddressNotHere { address } if address == missing), "{error}");
    let six = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 7780));
    let error = Net::start(config("host-3", free_address(), &[("host-4", six)])).await.expect_err("no path");
    assert!(matches!(error, NetError::NoPath { .. }), "{error}");
}

#[tokio::test]
async fn ping_of_loopback_is_answered() {
    let pinger = Pinger::start();
    for address in ["127.0.0.1", "::1"] {
        let address: IpAddr = address.parse().expect("address");
        match pinger.ping(address, PATIENCE).await {
            PingResult::Answered { rtt } => assert!(rtt < PATIENCE),
            PingResult::NoAnswer => panic!("{address} did not answer"),
            PingResult::CannotSend { why } | PingResult::Impossible { why } => {
                println!("skipped {address}: {why}");
            }
        }
    }
}

#[tokio::test]
async fn many_pings_at_once_do_not_take_each_others_answers() {
    let pinger = Pinger::start();
    let pings: Vec<_> = (1..=50_u8)
        .map(|last| {
            let pinger = pinger.clone();
            tokio::spawn(async move { pinger.ping(IpAddr::from([127, 0, 0, last]), PATIENCE).await })
        })
        .collect();
    for ping in pings {
        match ping.await.expect("ping") {
            PingResult::Answered { .. } => {}
            PingResult::CannotSend { why } | PingResult::Impossible { why } => println!("skipped: {why}"),
            PingResult::NoAnswer => panic!("no answer"),
        }
    }
}

/// Runs a ping in a network namespace of its own, which ends with its thread; `None` without the privileges for that.
fn ping_in_own_namespace(setup: fn() -> Option<()>, address: &'static str) -> Option<PingResult> {
    let in_namespace = move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).ok()?;
        setup()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let address = address.parse().expect("address");
        Some(runtime.block_on(Pinger::start().ping(address, HEARTBEAT)))
    };
    std::thread::spawn(in_namespace).join().expect("no panic")
}

#[test]
fn ping_of_a_silent_host_gets_no_answer() {
    fn loopback_up() -> Option<()> {
        let mut ip = std::process::Command::new("ip");
        let done = ip.args(["link", "set", "lo", "up"]).status().ok()?;
        done.success().then_some(())
    }
    fn loopback_up_and_silent() -> Option<()> {
        loopback_up()?;
        // Below /proc/sys/net a thread sees its own namespace.
        std::fs::write("/proc/sys/net/ipv4/icmp_echo_ignore_all", "1").ok()
    }
    let Some(control) = ping_in_own_namespace(loopback_up, "127.0.0.1") else {
        println!("skipped: needs root and `ip`");
        return;
    };
    assert!(matches!(control, PingResult::Answered { .. }), "{control:?}");
    match ping_in_own_namespace(loopback_up_and_silent, "127.0.0.1") {
        Some(result) => assert_eq!(result, PingResult::NoAnswer),
        None => println!("skipped: /proc/sys/net is read-only"),
    }
}

#[test]
fn ping_without_a_route_says_that_it_cannot_send() {
    for address in ["192.0.2.1", "2001:db8::1"] {
        match ping_in_own_namespace(|| Some(()), address) {
            Some(PingResult::CannotSend { why }) => assert!(why.contains("ip route get"), "{why}"),
            Some(other) => panic!("{address}: {other:?}"),
            None => println!("skipped: needs root"),
        }
    }
}

/// A host in a network namespace of its own: 10.8.0.1 on a network with nobody else, and a default gateway there. `None`
/// without the privileges for that.
fn lonely_host<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let in_namespace = move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).ok()?;
        for command in [
            "link set lo up",
            "link add mgmt type veth peer name far",
            "link set far up",
            "link set mgmt up",
            "addr add 10.8.0.1/24 dev mgmt",
            "route add default via 10.8.0.254",
        ] {
            let done = std::process::Command::new("ip").args(command.split(' ')).status().ok()?;
            done.success().then_some(())?;
        }
        Some(work())
    };
    std::thread::spawn(in_namespace).join().expect("no panic")
}

/// A configuration of that host whose peers have these addresses.
fn lonely_config(peers: &[&[&str]]) -> AgentConfig {
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().display();
    let key = dir.path().join("key");
    std::fs::write(&key, "5a".repeat(32)).expect("a key file");
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("its mode");
    let mut text = format!(
        "state_dir = \"{root}\"\n[cluster]\nid = \"1ab0001a\"\nname = \"lab\"\nkey_file = \"{root}/key\"\n\
         [host]\nid = \"host-1\"\nname = \"h1\"\naddress = \"10.8.0.1:7780\"\n\
         [isolation]\naddresses = [\"10.8.0.7\"]\n[[datastore]]\nname = \"ds1\"\npath = \"{root}\"\n"
    );
    for (n, addresses) in (2..).zip(peers) {
        let addresses: Vec<String> = addresses.iter().map(|ip| format!("\"{ip}:{}\"", 7780 + n)).collect();
        text += &format!(
            "[[peer]]\nid = \"host-{n}\"\nname = \"h{n}\"\naddresses = [{}]\n",
            addresses.join(", ")
        );
    }
    AgentConfig::parse(Path::new("agent.toml"), &text).expect("a good file")
}

#[test]
fn a_host_is_pinged_at_all_its_addresses_and_isolation_addresses_by_their_number() {
    let seen = lonely_host(|| {
        let mut config = lonely_config(&[&["10.8.0.2", "127.0.0.1"], &["10.8.0.3", "10.8.0.4"]]);
        let names: Vec<String> = config.isolation.names().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["10.8.0.7", "default gateway 10.8.0.254"]);
        // Refused in a file, since it would always answer; here just this is wanted.
        config.isolation.addresses.push(IpAddr::from([127, 0, 0, 1]));
        let mut targets = PingTargets::new(&config, HEARTBEAT);
        targets.warn_of_gaps();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let mut seen = Vec::new();
            for host in ["host-2", "host-3"] {
                seen.push(targets.host(&HostId::new(host)).await);
            }
            for index in 0..4 {
                seen.push(targets.isolation(index).await);
            }
            // The gateway's interface goes down, and with it its route: it still counts as one that does not answer.
            let down = std::process::Command::new("ip").args(["link", "set", "mgmt", "down"]).status();
            assert!(down.expect("ip").success());
            seen.push(targets.isolation(2).await);
            seen
        })
    });
    match seen {
        // host-2, host-3; 10.8.0.7, 127.0.0.1, the gateway, one that is not there; the gateway.
        Some(seen) => assert_eq!(seen, [true, false, false, true, false, false, false]),
        None => println!("skipped: needs root and `ip`"),
    }
}

#[test]
fn without_the_privilege_for_pings_nobody_is_taken_for_silent() {
    let seen = lonely_host(|| {
        let config = lonely_config(&[&["10.8.0.2"]]);
        // The thread's own; in a new namespace, `ping_group_range` lets nobody ping without it.
        let mut mine = rustix::thread::capabilities(None).expect("capabilities");
        mine.effective.remove(rustix::thread::CapabilitySet::NET_RAW);
        rustix::thread::set_capabilities(None, mine).expect("fewer capabilities");
        let why = Pinger::check(IpAddr::from([10, 8, 0, 2])).expect_err("no socket");
        assert!(why.contains("CAP_NET_RAW") && why.contains("ping_group_range"), "{why}");
        let mut targets = PingTargets::new(&config, HEARTBEAT);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async { [targets.host(&HostId::new("host-2")).await, targets.isolation(0).await] })
    });
    match seen {
        Some(seen) => assert_eq!(seen, [true, true]),
        None => println!("skipped: needs root and `ip`"),
    }
}
