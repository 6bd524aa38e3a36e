//! Peers that crash, leave, stay dead or are cut off: they are reached again soon, and meanwhile delay nobody.

use super::relay::Relay;
use super::{HEARTBEAT, attempts_until_received, beats, config, free_address, next_datagram, quick, start};
use std::net::UdpSocket;
use std::sync::atomic::Ordering;
use tokio::sync::oneshot;

#[tokio::test]
async fn a_peer_that_crashes_and_starts_again_is_reached_again() {
    let [one, two] = [free_address(), free_address()];
    let (first, mut to_first) = start(quick(config("host-1", one, &[("host-2", two)]))).await;

    // A runtime of its own that is torn down: nothing says goodbye, as in a crash.
    let peer = quick(config("host-2", two, &[("host-1", one)]));
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
    let [one, two] = [free_address(), free_address()];
    let (first, _keep) = start(quick(config("host-1", one, &[("host-2", two)]))).await;
    let (second, mut to_second) = start(quick(config("host-2", two, &[("host-1", one)]))).await;
    attempts_until_received(&first, "host-2", "before", &mut to_second).await;
    let listen = second.local_address().expect("address");
    second.close().await;
    drop((second, to_second));
    let first_address = first.local_address().expect("address");
    let (_second, mut to_second) = start(quick(config("host-2", listen, &[("host-1", first_address)]))).await;
    let attempts = attempts_until_received(&first, "host-2", "after", &mut to_second).await;
    assert!(attempts <= 5, "{attempts} attempts");
    assert_eq!(first.counters().connections_lost, 0, "a goodbye is no loss");
}

#[tokio::test]
async fn messages_to_a_dead_peer_are_bounded_and_delay_nobody() {
    let [one, two] = [free_address(), free_address()];
    // Nobody reads there, and nobody else gets the port.
    let silent = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let dead = silent.local_addr().expect("address");
    let (first, _keep) = start(quick(config("host-1", one, &[("host-2", two), ("host-3", dead)]))).await;
    let (_second, mut to_second) = start(quick(config("host-2", two, &[("host-1", one)]))).await;
    for _ in 0..100_000 {
        first.send("host-3", vec![0; 300]);
    }
    let seen = first.counters();
    assert_eq!((seen.datagrams_sent, seen.messages_dropped), (0, 100_000 - 4));
    attempts_until_received(&first, "host-2", "alive", &mut to_second).await;
    assert!(first.counters().dials <= 4, "{:?}", first.counters());
}

/// Cuts the path for so many heartbeats, both sides sending messages of that size all the time; tells the attempts after
/// healing.
async fn attempts_after_cut(heartbeats: u32, bytes: usize) -> u32 {
    let [before, cut, after] = ["b", "c", "a"].map(|letter| letter.repeat(bytes));
    let [one, two] = [free_address(), free_address()];
    let relay = Relay::start(one, two).await;
    let (first, mut to_first) = start(quick(config("host-1", one, &[("host-2", relay.for_one)]))).await;
    let (second, mut to_second) = start(quick(config("host-2", two, &[("host-1", relay.for_two)]))).await;
    attempts_until_received(&first, "host-2", &before, &mut to_second).await;
    attempts_until_received(&second, "host-1", &before, &mut to_first).await;

    relay.cut.store(true, Ordering::Relaxed);
    let mut beat = beats(HEARTBEAT);
    for _ in 0..heartbeats {
        beat.tick().await;
        first.send("host-2", cut.clone().into_bytes());
        second.send("host-1", cut.clone().into_bytes());
    }
    relay.cut.store(false, Ordering::Relaxed);
    let there = attempts_until_received(&first, "host-2", &after, &mut to_second).await;
    let back = attempts_until_received(&second, "host-1", &after, &mut to_first).await;
    println!("cut for {heartbeats} heartbeats: {there} attempts there, {back} back");
    there.max(back)
}

#[tokio::test]
async fn after_a_cut_of_any_length_datagrams_flow_again_within_a_few_heartbeats() {
    for heartbeats in [2, 4, 7, 12, 25, 50] {
        let attempts = attempts_after_cut(heartbeats, 300).await;
        assert!(attempts <= 4, "cut for {heartbeats} heartbeats: {attempts} attempts");
    }
}

#[tokio::test]
async fn after_a_cut_of_any_length_large_messages_flow_again_within_a_few_heartbeats() {
    for heartbeats in [2, 4, 7, 12, 25] {
        let attempts = attempts_after_cut(heartbeats, 20_000).await;
        assert!(attempts <= 4, "cut for {heartbeats} heartbeats: {attempts} attempts");
    }
}
