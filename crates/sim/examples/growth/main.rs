//! What an agent's core costs as its cluster grows: `cargo run --release -p mainstay-sim --example growth -- HOSTS`.
//!
//! All hosts of a calm cluster run in one simulated world. Each core is wrapped in a meter, which counts what goes in and out and takes
//! the CPU time of this thread. The simulator's own work is not counted. So the figures say what one host would spend, and hold on a
//! busy machine as well as CPU times can.
//!
//! `docs/internals/growth.md` says what the rows mean and keeps figures.

mod cluster;
mod meter;
mod report;

use mainstay_core::view::Role;
use mainstay_sim::World;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use std::alloc::System;
use std::process::ExitCode;

/// Counts what is allocated: the memory of a core is what a copy of it takes.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Not measured. By then the cluster has a primary, and each guest has answered for the first time.
const WARM_UP_S: u64 = 40;
const SECOND: u64 = 1_000_000;

/// What is measured, and for how long.
#[derive(Clone, Copy)]
pub struct Size {
    /// Hosts of the cluster.
    pub hosts: u64,
    /// VMs on each host.
    pub vms_per_host: u64,
    /// Datastores, each reached by all hosts.
    pub datastores: u64,
    /// Seconds of virtual time that are measured.
    pub seconds: u64,
}

fn main() -> ExitCode {
    let Some(size) = size_from(std::env::args().skip(1)) else {
        eprintln!("usage: growth HOSTS [VMS_PER_HOST [DATASTORES [SECONDS]]]");
        return ExitCode::from(2);
    };
    let mut world = World::new(cluster::calm(size), 1, meter::metered_core, false);
    world.run_until(WARM_UP_S * SECOND);
    meter::measure(meter::Mode::Steps);
    let (total, ()) = meter::cpu_time_of(|| world.run_until((WARM_UP_S + size.seconds) * SECOND));
    meter::measure(meter::Mode::Views);
    let roles: Vec<Option<Role>> =
        (0..size.hosts as usize).map(|host| world.view(host).map(|view| view.role)).collect();
    meter::measure(meter::Mode::Off);
    let primaries: Vec<usize> = (0..roles.len()).filter(|host| roles[*host] == Some(Role::Primary)).collect();
    let [primary] = primaries[..] else {
        eprintln!("the cluster is not calm: {} primaries", primaries.len());
        return ExitCode::FAILURE;
    };
    if let Some(violation) = world.violation() {
        eprintln!("the cluster is not calm: {violation}");
        return ExitCode::FAILURE;
    }
    report::print(size, total, &cluster::host_id(primary as u64));
    println!("\nhash of all that happened: {:016x}", world.trace().hash());
    ExitCode::SUCCESS
}

fn size_from(words: impl Iterator<Item = String>) -> Option<Size> {
    let numbers: Vec<u64> = words.map(|word| word.parse().ok()).collect::<Option<_>>()?;
    let number = |index: usize, otherwise: u64| numbers.get(index).copied().unwrap_or(otherwise);
    let size = Size {
        hosts: *numbers.first()?,
        vms_per_host: number(1, 10),
        datastores: number(2, 4),
        seconds: number(3, 60),
    };
    (numbers.len() <= 4 && !numbers.contains(&0)).then_some(size)
}
