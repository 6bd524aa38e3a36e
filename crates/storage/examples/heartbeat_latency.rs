//! Measures how long a heartbeat write takes on a directory: `cargo run --release --example heartbeat_latency -- PATH`.
//! Makes a cluster folder called `measure-latency` there, which may be removed afterwards.

use mainstay_storage::{Datastore, DatastoreConfig, StorageError};
use mainstay_testkit::made::heartbeat;
use mainstay_words::ids::{DatastoreName, HostId, OpId};
use mainstay_words::register::RegisterId;
use mainstay_words::{DiskAction, RegisterValue};
use std::sync::mpsc::channel;
use std::time::Instant;

const ROUNDS: u64 = 2_000;

fn main() -> Result<(), StorageError> {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("usage: heartbeat_latency PATH");
        return Ok(());
    };
    let me = HostId::new("host-1");
    let config = DatastoreConfig {
        name: DatastoreName::new("measured"),
        path: path.into(),
        cluster_id: "measure".into(),
        cluster_name: "latency".into(),
        me: me.clone(),
        hosts: vec![me.clone()],
        allow_unmounted: true,
    };
    let (sender, answers) = channel();
    let datastore = Datastore::start(config, Box::new(move |done| drop(sender.send(done))))?;
    let mut micros = Vec::new();
    for counter in 0..ROUNDS {
        let start = Instant::now();
        let value = RegisterValue::Heartbeat(heartbeat(counter));
        datastore.submit(OpId(counter), DiskAction::Write(RegisterId::Heartbeat(me.clone()), value));
        if answers.recv().is_ok() {
            micros.push(start.elapsed().as_micros());
        }
    }
    micros.sort_unstable();
    let at = |percent: usize| micros.get(micros.len() * percent / 100).copied().unwrap_or_default();
    println!(
        "{} writes: p50 {} µs, p99 {} µs, max {} µs",
        micros.len(),
        at(50),
        at(99),
        micros.last().copied().unwrap_or_default()
    );
    println!("{:?}", datastore.counters());
    Ok(())
}
