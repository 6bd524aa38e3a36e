//! The short run of the fuzz target `guard_link`, what the guard kept, and what many small frames cost.

mod guard_link;
#[path = "../../../../fuzz/short_run.rs"]
mod short_run;

use mainstay_guard::kept::{KEPT_FILE, Kept};
use mainstay_guard::link::{Frames, frame};
use mainstay_guard::{DatastoreSettings, FromGuard, LogSettings, Settings, ToGuard};
use mainstay_words::ids::{BootId, DatastoreName, HostId, Incarnation, VmId};
use mainstay_words::{GuardOrder, GuardReport, ProcessState, Time, Timing};
use std::time::{Duration, Instant};

#[test]
fn frames_between_agent_and_guard() {
    short_run::run("guard_link", &[], 30_000, guard_link::check);
}

/// Damage to what the guard kept means that nothing was kept, whichever bit it is.
#[test]
fn each_flipped_bit_and_each_cut_of_what_was_kept_is_noticed() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join(KEPT_FILE);
    let boot = BootId([1; 16]);
    let body =
        format!(r#"{{"boot":"{boot}","leases":{{"ds1":123456}},"watched":{{"ds1":["{}"]}}}}"#, VmId([3; 16]));
    let good = format!("{:08x}\n{body}", crc32c::crc32c(body.as_bytes())).into_bytes();
    std::fs::write(&file, &good).expect("written");
    let kept = Kept::load(directory.path(), boot);
    assert_eq!(kept.leases.get(&DatastoreName::new("ds1")), Some(&Time(123_456)));
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&file, &bytes).expect("written");
        let read = Kept::load(directory.path(), boot);
        // A digit of the checksum in capitals is the same digit.
        let same_digit = bytes[bit / 8].eq_ignore_ascii_case(&good[bit / 8]) && bit / 8 < 8;
        assert!(same_digit || read == Kept::nothing(boot), "bit {bit}");
    }
    for length in 0..good.len() {
        std::fs::write(&file, &good[..length]).expect("written");
        assert_eq!(Kept::load(directory.path(), boot), Kept::nothing(boot), "{length} bytes");
    }
}

#[test]
fn deep_frames_and_many_small_ones_are_read_with_a_small_stack_and_soon() {
    let begun = Instant::now();
    let read = || {
        for opener in
            [&b"\x81"[..], b"\xa1\x61a", b"\x9f", b"\xc1", b"\xa1\x65Order\xa1\x65Watch\xa1\x62zz\x81"]
        {
            let body = opener.repeat((1 << 20) / opener.len());
            let mut frames = Frames::default();
            frames.push(&(body.len() as u32).to_le_bytes());
            frames.push(&body);
            assert!(matches!(frames.take::<ToGuard>(), Some(Err(_))));
            assert!(frames.take::<ToGuard>().is_none());
        }
        // As the socket does it: a piece is taken apart before the next is read.
        let small = [1, 0, 0, 0, 0].repeat(800);
        let mut frames = Frames::default();
        for _ in 0..100 {
            frames.push(&small);
            while frames.take::<ToGuard>().is_some() {}
        }
    };
    let thread = std::thread::Builder::new().stack_size(256 * 1024).spawn(read).expect("a thread");
    thread.join().expect("it does not panic");
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

/// For words that have changed on purpose: `cargo test -p mainstay-guard --test fuzz -- --ignored`.
#[test]
#[ignore = "writes fuzz/corpus; run it when the words have changed on purpose"]
fn write_the_corpus() {
    let store = |name: &str, bytes: Vec<u8>| {
        let folder = short_run::corpus_of("guard_link");
        std::fs::create_dir_all(&folder).expect("made");
        std::fs::write(folder.join(name), bytes).expect("written");
    };
    let (datastore, vm) = (DatastoreName::new("ds1"), VmId([7; 16]));
    let orders = [
        GuardOrder::Alive { incarnation: Incarnation(u64::MAX), files: None },
        GuardOrder::Lease { datastore: datastore.clone(), until: Time(86_400_000_000) },
        GuardOrder::Watch { datastore: datastore.clone(), vms: vec![vm, VmId([8; 16])] },
        GuardOrder::Adopt { vm },
        GuardOrder::Thaw { vm, term: 4 },
        GuardOrder::Kill { vm },
    ];
    let hello = frame(&ToGuard::Hello { version: "0.1.0".into() }).expect("short");
    let orders = orders.into_iter().map(|order| frame(&ToGuard::Order(order)).expect("short"));
    let end = frame(&ToGuard::End { reason: "another".into() }).expect("short");
    let to_guard: Vec<u8> = [hello].into_iter().chain(orders).chain([end]).flatten().collect();
    let settings = Settings {
        host: HostId::new("host-1"),
        cluster_id: "1ab0001a".into(),
        cluster_name: "lab".into(),
        datastores: vec![DatastoreSettings {
            name: datastore.clone(),
            path: "/srv/ds1".into(),
            allow_unmounted: true,
        }],
        timing: Timing::SWIFT,
        runtime_dir: "/run/mainstay".into(),
        watchdog: Some("/dev/watchdog".into()),
        log: LogSettings::default(),
    };
    let reports = [
        GuardReport::Hello { incarnation: Incarnation(1) },
        GuardReport::Beat { datastore: datastore.clone(), started: Time(5), error: Some("full".into()) },
        GuardReport::Lease { datastore: datastore.clone(), term: 1, until: Time(9) },
        GuardReport::Hold { datastore, until: Time(11) },
        GuardReport::Vm { vm, state: ProcessState::Frozen },
    ];
    let hello = FromGuard::Hello { version: "0.1.0".into(), pid: 4711, settings };
    let reports = reports.into_iter().map(FromGuard::Report);
    let from_guard: Vec<u8> =
        [hello].into_iter().chain(reports).flat_map(|message| frame(&message).expect("short")).collect();
    store("damaged-cut", to_guard[..to_guard.len() - 3].to_vec());
    store("damaged-another-protocol", b"GET / HTTP/1.1\r\n\r\n".to_vec());
    store("damaged-unknown-word", [&[7, 0, 0, 0][..], b"\xa1\x64Sing\x80"].concat());
    store("valid-to-guard", to_guard);
    store("valid-from-guard", from_guard);
}
