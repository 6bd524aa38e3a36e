//! Depth and size: whatever comes is read with a small stack, and in a time that grows with its length and not faster.

use crate::{message, register};
use mainstay_formats::wire::{decode_message, encode_message};
use mainstay_formats::{ClusterId, Slot, decode_slot, encode_slot};
use std::time::{Duration, Instant};

/// What is quadratic in a mebibyte takes hours; what is linear takes milliseconds, and far below this on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A thread of the guard has no more.
const STACK: usize = 256 * 1024;

const LENGTH: usize = 1 << 20;

fn on_a_small_stack(act: impl FnOnce() + Send + 'static) {
    let begun = Instant::now();
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(act).expect("a thread");
    thread.join().expect("it does not panic");
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
}

#[test]
fn deep_and_long_bodies_of_registers() {
    let host_and_list = crate::corpus::registers();
    for (id, value) in host_and_list {
        let cluster = ClusterId::parse(register::CLUSTER).expect("good");
        let slot = encode_slot(&cluster, &id, 1, &value).expect("it fits");
        let room = mainstay_formats::layout::slot_size(&id) - 600;
        let openers: [&[u8]; 4] = [b"[", b"{\"a\":", b"{\"zz\":[", b"{\"claims\":["];
        let flat: [&[u8]; 2] = [b"{\"a\":1,", b"{\"entries\":[{},"];
        let bodies: Vec<Vec<u8>> = openers
            .iter()
            .map(|opener| opener.repeat(room / opener.len()))
            .chain(flat.iter().map(|start| [*start, &b"\"a\":1,".repeat(room / 6 - 4)].concat()))
            .collect();
        on_a_small_stack(move || {
            for body in bodies {
                let sealed = register::seal(&slot, Some(&body)).expect("it has a header");
                assert!(matches!(decode_slot(&cluster, &id, &sealed), Slot::Unreadable { .. }));
            }
        });
    }
}

#[test]
fn deep_and_long_messages() {
    let cluster = ClusterId::parse(message::CLUSTER).expect("good");
    let good = encode_message(&cluster, &crate::corpus::messages()[0]).expect("encodes");
    // Lists in lists, maps in maps, lists without an announced end, tags, the same inside an unknown field, a list that says that it
    // has 2^40 elements, and a text that says so.
    let openers: [&[u8]; 5] = [b"\x81", b"\xa1\x61a", b"\x9f", b"\xc1", b"\xa2\x62zz\x81"];
    let announced: [&[u8]; 2] = [b"\x9b\0\0\x01\0\0\0\0\0", b"\x7b\0\0\x01\0\0\0\0\0"];
    on_a_small_stack(move || {
        for opener in openers {
            let nest = opener.repeat(LENGTH / opener.len());
            for start in [&b""[..], b"\xa4\x62zz", b"\xa3\x64body", b"\xa3\x64body\xa1\x69Heartbeat"] {
                let bytes = [&good[..9], start, &nest].concat();
                assert!(decode_message(&cluster, &bytes).is_err());
            }
        }
        for announcement in announced {
            let starts: [&[u8]; 2] = [b"\xa4\x62zz", b"\xa3\x64body\xa1\x6cHeartbeatAck\xa1\x65owned"];
            for start in starts {
                let bytes = [&good[..9], start, announcement, &[0x01; 4096]].concat();
                assert!(decode_message(&cluster, &bytes).is_err());
            }
        }
    });
}
