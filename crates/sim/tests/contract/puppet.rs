//! A world whose agents do what a test says.

use mainstay_contracts::vms::Heard;
use mainstay_core::{Config, Effect, HostId, Input, Span, Time, View};
use mainstay_guard_core::{Guard, GuardConfig};
use mainstay_sim::dice::Latency;
use mainstay_sim::setup::{
    BOOT, DISK, DatastoreSetup, HostSetup, Latencies, NETWORK, START_DELAY, Setup, VmSetup,
};
use mainstay_sim::{Action, Node, World};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// How often a puppet looks for orders.
const TICK: u64 = 5_000;

/// What lies on a puppet's desk.
#[derive(Default)]
struct Desk {
    orders: Vec<Effect>,
    heard: Vec<Heard>,
}

thread_local! {
    /// A world makes its nodes by a plain function. A test, its worlds and their puppets live on one thread.
    static DESKS: RefCell<BTreeMap<HostId, Desk>> = const { RefCell::new(BTreeMap::new()) };
}

struct Puppet {
    me: HostId,
    next: Time,
}

impl Node for Puppet {
    fn step(&mut self, now: Time, input: Input, effects: &mut Vec<Effect>) {
        self.next = now + Span(TICK);
        DESKS.with_borrow_mut(|desks| {
            let desk = desks.entry(self.me.clone()).or_default();
            if input != Input::Tick {
                desk.heard.push(Heard { at: now, input });
            }
            effects.append(&mut desk.orders);
        });
    }

    fn next_deadline(&self) -> Time {
        self.next
    }

    fn view(&self, _now: Time) -> Option<View> {
        None
    }
}

fn puppet(config: Config, now: Time) -> Result<Box<dyn Node>, String> {
    Ok(Box::new(Puppet { me: config.me, next: now }))
}

/// One that has no datastore to beat on.
fn idle_guard(mut config: GuardConfig, now: Time) -> Guard {
    config.datastores.clear();
    Guard::new(config, now)
}

fn setup(image_lock: bool) -> Setup {
    let host = |id: &str| HostSetup {
        id: id.into(),
        clock_base: 0,
        drift_ppm: 0,
        agent_starts: 0,
        timing: None,
        newer: false,
        file: Default::default(),
        memory_mib: mainstay_sim::setup::HOST_MEMORY,
    };
    Setup {
        hosts: vec![host("host-1"), host("host-2")],
        datastores: vec![DatastoreSetup { name: "ds1".into(), lock_release: 0 }],
        vms: vec![VmSetup {
            name: "vm1".into(),
            host: 0,
            datastore: 0,
            transient: false,
            priority: mainstay_core::register::Priority::Medium,
            memory_mib: 512,
            shutdown: Some(1_000_000),
            agent_after: None,
        }],
        timing: mainstay_core::Timing::SWIFT,
        latencies: Latencies {
            disk: DISK,
            network: NETWORK,
            start: Latency { tail_permille: 0, ..START_DELAY },
            boot: BOOT,
        },
        loss_permille: 0,
        duplicate_permille: 0,
        start_failure_permille: 0,
        image_lock,
        hook: false,
        io_errors_permille: 0,
        gateway: true,
        isolation_timeout: None,
        isolation_response: Default::default(),
        shutdown_timeout: Span::from_secs(300),
    }
}

pub fn host(number: u32) -> HostId {
    HostId::new(&format!("host-{number}"))
}

/// A world of two hosts, one datastore and one VM.
pub struct Puppets {
    pub world: World,
    /// What host-1 was told, as far as it has been fetched.
    pub heard: Vec<Heard>,
}

impl Puppets {
    pub fn new(seed: u64, image_lock: bool) -> Puppets {
        DESKS.with_borrow_mut(BTreeMap::clear);
        let mut world = World::new(setup(image_lock), seed, puppet, false);
        world.guards_are(idle_guard);
        let mut puppets = Puppets { world, heard: Vec::new() };
        puppets.pass(100_000);
        puppets
    }

    pub fn order(&mut self, host: &HostId, effect: Effect) {
        DESKS.with_borrow_mut(|desks| desks.entry(host.clone()).or_default().orders.push(effect));
    }

    /// So many microseconds pass.
    pub fn pass(&mut self, time: u64) {
        self.world.run_until(self.world.now() + time);
        assert!(self.world.violation().is_none(), "{:?}", self.world.violation());
        DESKS.with_borrow_mut(|desks| {
            if let Some(desk) = desks.get_mut(&host(1)) {
                self.heard.append(&mut desk.heard);
            }
        });
    }

    /// What a host was told since this was asked last. Not for host-1.
    pub fn told(&mut self, host: &HostId) -> Vec<Heard> {
        DESKS.with_borrow_mut(|desks| std::mem::take(&mut desks.entry(host.clone()).or_default().heard))
    }

    pub fn act(&mut self, action: Action) {
        self.world.schedule(self.world.now(), action);
        self.pass(0);
    }
}

/// Whether there was something to try a rule on, which is the same in all worlds; or in which of them it was broken.
pub fn for_each_seed(
    seeds: u64,
    mut try_out: impl FnMut(u64) -> Result<bool, String>,
) -> Result<bool, String> {
    let mut all = None;
    for seed in 0..seeds {
        let tried = try_out(seed).map_err(|error| format!("seed {seed}: {error}"))?;
        assert_eq!(*all.get_or_insert(tried), tried, "tried with seed {seed}");
    }
    Ok(all.unwrap_or(false))
}
