//! One host writes, another reads at the same time: every read is whole, and none goes backwards.

use crate::harness::{Client, as_seen_by_others, beat, config, directory, host};
use mainstay_testkit::made;
use mainstay_words::ids::*;
use mainstay_words::register::*;
use mainstay_words::{ReadRegister, RegisterValue};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

const ROUNDS: u64 = 2_000;

/// About 60 KiB, so that a read and a write take many blocks each, and its length differs from round to round.
fn power_on(version: u64) -> RegisterValue {
    let claim = |index: u64| Claim {
        vm: VmId(u128::from(index).to_be_bytes()),
        name: format!("vm{version}").as_str().into(),
        token: Some(Token { epoch: Epoch(version), number: index }),
        spec: None,
        ..made::claim(1, ClaimState::Running)
    };
    RegisterValue::PowerOn(made::power_on_list(version, (0..version % 400).map(claim).collect()))
}

fn number(value: &RegisterValue) -> u64 {
    match value {
        RegisterValue::Heartbeat(beat) => beat.counter,
        RegisterValue::PowerOn(list) => list.version,
        RegisterValue::Ownership(_) | RegisterValue::ProtectedList(_) => panic!("not written here"),
    }
}

/// Writes `ROUNDS` values, restarting the writer now and then; returns how many reads were made.
fn race(id: &RegisterId, value: fn(u64) -> RegisterValue) -> u64 {
    let directory = directory();
    let written = AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = Client::start(config(directory.path(), "lab", &host(1)));
            for round in 1..=ROUNDS {
                if round % 250 == 0 {
                    writer = Client::start(config(directory.path(), "lab", &host(1)));
                }
                writer.write(id.clone(), value(round)).expect("written");
                written.store(round, Ordering::SeqCst);
            }
        });
        let reader = Client::start(config(&as_seen_by_others(directory.path()), "lab", &host(2)));
        let mut reads = 0;
        let mut seen = 0;
        while seen < ROUNDS {
            let before = written.load(Ordering::SeqCst);
            match reader.read(id).expect("a read") {
                ReadRegister::Value(found) => {
                    let number = number(&found);
                    assert_eq!(found, value(number), "whole");
                    assert!(number >= before, "{number} was read after {before} was on disk");
                    assert!(number >= seen, "{number} was read after {seen}");
                    seen = number;
                }
                ReadRegister::Missing => assert_eq!(before, 0, "missing after {before} was on disk"),
                ReadRegister::Unreadable(why, _) => panic!("unreadable: {why}"),
            }
            reads += 1;
        }
        reads
    })
}

#[test]
fn a_heartbeat_never_goes_backwards() {
    let reads = race(&RegisterId::Heartbeat(host(1)), beat);
    assert!(reads > 100, "{reads} reads are no race");
}

#[test]
fn a_power_on_list_of_many_blocks_is_always_whole() {
    let reads = race(&RegisterId::PowerOn(host(1)), power_on);
    assert!(reads > 100, "{reads} reads are no race");
}
