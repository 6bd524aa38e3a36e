//! Requests that want an answer: of any size, from peers that are slow, do not care, or are dead.

use super::{HEARTBEAT, PATIENCE, config, free_address, pair, start};
use mainstay_agent::net::{BODY_BYTES_MAX, NetError, NetEvent};
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
