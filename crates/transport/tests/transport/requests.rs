//! Requests that want an answer: of any size, from peers that are slow, do not care, or are dead.

use super::{HEARTBEAT, PATIENCE, attempts_until_received, config, free_address, pair, quick, start};
use mainstay_transport::{BODY_BYTES_MAX, NetConfig, NetError, NetEvent, SILENT_HEARTBEATS};
use std::time::Duration;
use tokio::time::timeout;

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
    // Connections that a busy machine does not take for silent, and twice as long a wait.
    let heartbeat = Duration::from_secs(2);
    let slow = |config| NetConfig { heartbeat, ..config };
    let [one, two] = [free_address(), free_address()];
    let (first, _keep) = start(slow(config("host-1", one, &[("host-2", two)]))).await;
    let (_second, mut to_second) = start(slow(config("host-2", two, &[("host-1", one)]))).await;
    attempts_until_received(&first, "host-2", "before", &mut to_second).await;
    // No other traffic: the pending request itself keeps its connection.
    let request = first.request("host-2", b"hello?".to_vec(), heartbeat * SILENT_HEARTBEATS * 2);
    let request_arrives = async {
        loop {
            match to_second.recv().await {
                Some(NetEvent::Datagram { .. }) => {}
                other => break other,
            }
        }
    };
    let (outcome, event) = tokio::join!(request, timeout(PATIENCE, request_arrives));
    assert!(
        matches!(&outcome, Err(NetError::Timeout { detail, .. }) if detail.starts_with("connected")),
        "{outcome:?}"
    );
    let Ok(Some(NetEvent::Request { mut reply, .. })) = event else { panic!("no request") };
    timeout(PATIENCE, reply.closed()).await.expect("the handler learns that nobody waits");
}

#[tokio::test]
async fn a_dropped_reply_and_a_dead_peer_are_told_apart() {
    let [one, two] = [free_address(), free_address()];
    // Nobody reads there, and nobody else gets the port.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
    let dead = silent.local_addr().expect("address");
    let (first, _keep) = start(quick(config("host-1", one, &[("host-2", two), ("host-3", dead)]))).await;
    let (_second, mut to_second) = start(quick(config("host-2", two, &[("host-1", one)]))).await;
    attempts_until_received(&first, "host-2", "before", &mut to_second).await;
    let request = first.request("host-2", vec![1], PATIENCE);
    let (outcome, ()) = tokio::join!(request, async { drop(to_second.recv().await) });
    assert!(matches!(outcome, Err(NetError::Refused { .. })), "{outcome:?}");
    let outcome = first.request("host-3", vec![1], HEARTBEAT * 25).await;
    assert!(
        matches!(&outcome, Err(NetError::Timeout { detail, .. }) if detail.contains("dial")),
        "{outcome:?}"
    );
}
