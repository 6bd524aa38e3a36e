//! Strangers: another key, another cluster, hosts that nobody knows, garbage. They are refused, counted and harmless.

use super::{beat_until, config, free_address, next_datagram, pair, quick, start};
use tokio::net::UdpSocket;

#[tokio::test]
async fn wrong_key_is_refused_and_counted_by_both_sides() {
    let [one, two] = [free_address(), free_address()];
    let (first, _keep) = start(quick(config("host-1", one, &[("host-2", two)]))).await;
    let mut other = config("host-2", two, &[("host-1", one)]);
    other.key = [43; 32];
    let (second, mut to_second) = start(quick(other)).await;

    beat_until(&first, "host-2", &first, |c| c.wrong_key > 0).await;
    let seen = beat_until(&first, "host-2", &second, |c| c.wrong_key > 0).await;
    assert_eq!(seen.connections_opened, 0);
    assert_eq!(first.counters().datagrams_sent, 0);
    assert!(to_second.try_recv().is_err());
}

#[tokio::test]
async fn other_cluster_with_the_same_key_is_refused_and_counted() {
    let [one, two] = [free_address(), free_address()];
    let (first, _keep) = start(quick(config("host-1", one, &[("host-2", two)]))).await;
    let mut other = config("host-2", two, &[("host-1", one)]);
    other.cluster_id = "red".to_owned();
    let (second, mut to_second) = start(quick(other)).await;

    beat_until(&first, "host-2", &first, |c| c.other_cluster > 0).await;
    let seen = beat_until(&first, "host-2", &second, |c| c.other_cluster > 0).await;
    assert_eq!((seen.wrong_key, seen.connections_opened), (0, 0));
    assert!(to_second.try_recv().is_err());
}

#[tokio::test]
async fn unknown_host_is_refused_and_both_sides_learn_it() {
    let [one, two] = [free_address(), free_address()];
    let (first, _keep) = start(quick(config("host-1", one, &[("host-2", two)]))).await;
    let (second, mut to_second) = start(quick(config("host-2", two, &[("host-3", free_address())]))).await;

    let seen = beat_until(&first, "host-2", &second, |c| c.unknown_host > 0).await;
    assert_eq!((seen.connections_opened, seen.wrong_key), (0, 0));
    beat_until(&first, "host-2", &first, |c| c.refused_by_peer > 0).await;
    assert!(to_second.try_recv().is_err());
}

#[tokio::test]
async fn another_host_at_the_dialled_address_is_refused() {
    let [one, two] = [free_address(), free_address()];
    let (first, _keep) =
        start(quick(config("host-1", one, &[("host-3", two), ("host-2", free_address())]))).await;
    let (_second, mut to_second) = start(quick(config("host-2", two, &[("host-1", one)]))).await;
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
