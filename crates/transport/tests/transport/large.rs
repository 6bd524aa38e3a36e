//! Messages that do not fit into a datagram: they arrive among small ones, and cost these nothing.

use super::{HEARTBEAT, PATIENCE, next_datagram, pair};
use mainstay_formats::layout::ClusterId;
use mainstay_formats::wire::{decode_message, encode_message};
use mainstay_testkit::made::heartbeat_message;
use mainstay_transport::{DATAGRAM_BYTES_MAX, MESSAGE_BYTES_MAX, Net, NetEvent};
use mainstay_words::Message;
use mainstay_words::ids::{DatastoreName, VmId};
use mainstay_words::message::{Body, HALTED_MAX, Halt, Heartbeat};
use mainstay_words::time::{Span, Time};
use std::collections::BTreeSet;
use tokio::sync::mpsc::Receiver;
use tokio::time::{interval, timeout};

fn cluster() -> ClusterId {
    ClusterId::parse("blue").expect("a cluster id")
}

/// A heartbeat of a host with so many datastores and VMs that do not execute.
fn heartbeat(sequence: u64, datastores: usize, halted: usize) -> Message {
    let names = || (0..datastores).map(|number| DatastoreName::new(&format!("datastore-{number:03}")));
    let heartbeat = Heartbeat {
        sent: Time(sequence * 1_000_000),
        datastores: names().collect(),
        power_on: names().map(|name| (name, sequence).into()).collect(),
        held: names().map(|name| (name, Span::from_millis(5000)).into()).collect(),
        guard: Default::default(),
        guard_error: None,
        halted: (0..halted).map(|number| (VmId([number as u8; 16]), Halt::Frozen).into()).collect(),
        ..heartbeat_message()
    };
    Message {
        incarnation: Default::default(),
        sequence,
        files: None,
        body: Body::Heartbeat(heartbeat.into()),
    }
}

fn encoded(message: &Message) -> Vec<u8> {
    encode_message(&cluster(), message).expect("can be encoded")
}

/// Sends that large message, and small ones with each heartbeat, until both have arrived. What else arrives is ignored.
async fn among_small_ones(from: &Net, to: &str, large: &Message, events: &mut Receiver<NetEvent>) {
    let bytes = encoded(large);
    assert!(bytes.len() > DATAGRAM_BYTES_MAX, "{} bytes are no large message", bytes.len());
    let small = format!("small {}", large.sequence).into_bytes();
    let mut missing: BTreeSet<Vec<u8>> = [bytes.clone(), small.clone()].into();
    let mut beat = interval(HEARTBEAT);
    let flow = async {
        while !missing.is_empty() {
            tokio::select! {
                _ = beat.tick() => {
                    from.send(to, small.clone());
                    from.send(to, bytes.clone());
                    from.send(to, small.clone());
                }
                event = events.recv() => {
                    let Some(NetEvent::Datagram { bytes, .. }) = event else { panic!("{event:?}") };
                    missing.remove(&bytes);
                }
            }
        }
    };
    timeout(PATIENCE, flow).await.expect("both arrive");
    assert_eq!(decode_message(&cluster(), &bytes).expect("can be read"), *large);
}

/// Bounds the wait for counters, which follow the event.
async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(HEARTBEAT / 10).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("counted in time");
}

#[tokio::test]
async fn heartbeats_with_many_datastores_or_halted_vms_arrive_in_both_directions() {
    let ((first, mut to_first), (second, mut to_second)) = pair().await;
    let messages = [heartbeat(1, 3, HALTED_MAX), heartbeat(2, 40, 0), heartbeat(3, 100, HALTED_MAX)];
    for large in &messages {
        among_small_ones(&first, "host-2", large, &mut to_second).await;
        among_small_ones(&second, "host-1", large, &mut to_first).await;
    }
    for net in [&first, &second] {
        until(|| net.counters().large_sent >= 3).await;
        let seen = net.counters();
        assert!(seen.large_received >= 3, "{seen:?}");
        assert_eq!((seen.messages_oversize, seen.large_incomplete), (0, 0));
    }
}

#[tokio::test]
async fn a_large_message_is_the_first_that_is_said_and_waits_for_the_dial() {
    let ((first, _keep), (_second, mut to_second)) = pair().await;
    let large = encoded(&heartbeat(1, 40, HALTED_MAX));
    first.send("host-2", large.clone());
    assert_eq!(next_datagram(&mut to_second).await, ("host-1".to_owned(), large));
    until(|| first.counters().large_sent == 1).await;
    assert_eq!(first.counters().datagrams_sent, 0);
}

#[tokio::test]
async fn the_largest_message_passes_and_one_above_the_limit_is_counted_and_harmless() {
    let ((first, _keep), (second, mut to_second)) = pair().await;
    first.send("host-2", vec![1; MESSAGE_BYTES_MAX + 1]);
    first.send("host-2", vec![2; MESSAGE_BYTES_MAX]);
    assert_eq!(next_datagram(&mut to_second).await.1, vec![2; MESSAGE_BYTES_MAX]);
    first.send("host-2", vec![3; MESSAGE_BYTES_MAX + 1]);
    first.send("host-2", b"small".to_vec());
    assert_eq!(next_datagram(&mut to_second).await.1, b"small");
    until(|| first.counters().large_sent == 1).await;
    let seen = first.counters();
    assert_eq!((seen.messages_oversize, seen.large_dropped, seen.datagrams_sent), (2, 0, 1));
    assert_eq!((seen.bytes_sent, seen.connections_lost), (MESSAGE_BYTES_MAX as u64 + 5, 0));
    assert_eq!(second.counters().bytes_received, seen.bytes_sent);
}

#[tokio::test]
async fn many_large_messages_at_once_do_not_stop_small_ones() {
    let ((first, _keep), (second, mut to_second)) = pair().await;
    first.send("host-2", b"hello".to_vec());
    assert_eq!(next_datagram(&mut to_second).await.1, b"hello");

    let count = 200_u64;
    for _ in 0..count {
        first.send("host-2", vec![1; MESSAGE_BYTES_MAX]);
    }
    for number in 0..10_u8 {
        first.send("host-2", vec![number]);
    }
    let mut small = Vec::new();
    while small.len() < 10 {
        let (_, bytes) = next_datagram(&mut to_second).await;
        small.extend(<[u8; 1]>::try_from(bytes).map(|[number]| number));
    }
    assert_eq!(small, (0..10).collect::<Vec<u8>>(), "none is lost");
    until(|| {
        let seen = first.counters();
        seen.large_sent + seen.large_dropped == count
    })
    .await;
    let seen = first.counters();
    assert!(seen.large_dropped >= count / 2, "only a few are under way at once: {seen:?}");
    assert_eq!((seen.connections_opened, seen.connections_lost, seen.messages_dropped), (1, 0, 0));

    // The streams are free again.
    let large = heartbeat(1, 40, HALTED_MAX);
    among_small_ones(&first, "host-2", &large, &mut to_second).await;
    assert_eq!(second.counters().large_incomplete, 0);
}
