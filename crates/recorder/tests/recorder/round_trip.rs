//! What real cores went through in simulated clusters with faults comes out of the recording as it went in, and leads to the
//! same cores again.

use crate::common::{Replayed, Wish, record_with, recorded_core, replay};
use mainstay_sim::{Options, run_seed};

fn record_seed(seed: u64, queue_max: usize) -> (tempfile::TempDir, Vec<Replayed>) {
    let dir = tempfile::tempdir().expect("a folder");
    record_with(Wish {
        dir: dir.path().to_path_buf(),
        bytes_max: 1 << 30,
        segment_bytes_max: 64 << 10,
        queue_max,
    });
    let outcome = run_seed(seed, &Options { node: recorded_core, ..Options::default() });
    assert!(outcome.verdict.is_ok(), "{:?}", outcome.verdict);
    let unrecorded = run_seed(seed, &Options::default());
    assert_eq!(outcome.hash, unrecorded.hash, "recording changes nothing");
    let hosts = std::fs::read_dir(dir.path()).expect("a folder for each host");
    let replayed = hosts.map(|host| replay(&host.expect("an entry").path())).collect();
    (dir, replayed)
}

#[test]
fn clusters_with_faults_replay_to_each_checkpoint() {
    let mut agreed = 0;
    for seed in 0..4 {
        let (_dir, hosts) = record_seed(seed, 1 << 20);
        assert!(hosts.len() > 1, "seed {seed}");
        for host in hosts {
            assert!(host.steps > 300 && host.lost == 0, "seed {seed}: {host:?}");
            agreed += host.agreed;
        }
    }
    assert!(agreed > 20, "{agreed}");
}

#[test]
fn a_queue_that_overflows_costs_steps_and_nothing_else() {
    let (mut lost, mut steps) = (0, 0);
    for (seed, queue_max) in [(1, 2), (2, 8), (3, 64), (4, 256), (5, 512)] {
        let (_dir, hosts) = record_seed(seed, queue_max);
        lost += hosts.iter().map(|host| host.lost).sum::<u64>();
        steps += hosts.iter().map(|host| host.steps).sum::<usize>();
    }
    // Virtual time is far faster than this disk.
    assert!(lost > 0 && steps > 0, "{lost} lost, {steps} kept");
}
