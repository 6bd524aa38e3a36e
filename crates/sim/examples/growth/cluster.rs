//! A cluster in which nothing happens: no faults, no lost messages, no slow disks.

use crate::Size;
use mainstay_core::register::{IsolationResponse, Priority};
use mainstay_core::{DatastoreName, HostId, Span, Timing};
use mainstay_sim::Setup;
use mainstay_sim::dice::Latency;
use mainstay_sim::setup::{
    BOOT, DISK, DatastoreSetup, HOST_MEMORY, HostSetup, Latencies, NETWORK, START_DELAY, VmSetup,
};
use std::sync::Arc;

/// All agents start within this time, in microseconds.
const STARTS_WITHIN: u64 = 1_000_000;
/// The clocks of any two hosts differ by a multiple of this.
const CLOCK_STEP: u64 = 1_000_003;

/// The id of a host.
pub fn host_id(host: u64) -> HostId {
    HostId::new(&format!("host-{:04}", host + 1))
}

/// A calm cluster of this size, its VMs spread evenly over hosts and datastores.
pub fn calm(size: Size) -> Setup {
    Setup {
        hosts: (0..size.hosts).map(|host| host_of(host, size.hosts)).collect(),
        datastores: (0..size.datastores).map(datastore).collect(),
        vms: (0..size.hosts * size.vms_per_host).map(|vm| vm_of(vm, size)).collect(),
        timing: Timing::STANDARD,
        latencies: Latencies {
            disk: without_tail(DISK),
            network: without_tail(NETWORK),
            start: without_tail(START_DELAY),
            boot: BOOT,
        },
        loss_permille: 0,
        duplicate_permille: 0,
        start_failure_permille: 0,
        image_lock: true,
        hook: true,
        io_errors_permille: 0,
        gateway: true,
        isolation_response: IsolationResponse::LeavePoweredOn,
        shutdown_timeout: Span::from_secs(300),
        isolation_timeout: None,
    }
}

fn without_tail(latency: Latency) -> Latency {
    Latency { tail_permille: 0, tail: 0, ..latency }
}

fn host_of(host: u64, hosts: u64) -> HostSetup {
    HostSetup {
        id: host_id(host),
        clock_base: host * CLOCK_STEP,
        drift_ppm: 0,
        agent_starts: host * STARTS_WITHIN / hosts,
        timing: None,
        newer: false,
        file: Default::default(),
        memory_mib: HOST_MEMORY,
    }
}

fn datastore(store: u64) -> DatastoreSetup {
    DatastoreSetup { name: DatastoreName::new(&format!("datastore-{:02}", store + 1)), lock_release: 0 }
}

fn vm_of(vm: u64, size: Size) -> VmSetup {
    VmSetup {
        name: Arc::from(format!("vm-{vm:05}")),
        host: (vm % size.hosts) as usize,
        datastore: (vm / size.hosts % size.datastores) as usize,
        transient: false,
        priority: Priority::Medium,
        memory_mib: 4_096,
        agent_after: Some(30_000_000),
        shutdown: Some(10_000_000),
    }
}
