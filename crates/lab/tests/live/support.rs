//! A cluster under test: bringing it up, asking it, and doing things to it, step by step.

mod after_each_step;
mod settling;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

pub use crate::alarm::{Alarm, Expect, alarms, calm, returning};
use crate::disk_watch::DiskWatch;
use mainstay_api::{EventRecord, Local, Status};
use mainstay_client::{Client, ClientError};
use mainstay_lab::{DatastoreConfig, Host, Lab, LabConfig, Output, PowerOn, VmOptions};
use mainstay_words::Event;
use mainstay_words::HostState;
use mainstay_words::ids::HostId;
use mainstay_words::timing::Timing;
use mainstay_words::view::{HostView, VmView};

/// Patience with a busy machine. Nothing is expected to take as long.
pub const LONG: Duration = Duration::from_secs(90);

/// No test takes half as long. One that hangs is ended then, with the whole program.
const TEST_MAX: Duration = Duration::from_secs(600);

/// Tests of this program take turns here, and not at the lab's own lock, where waiting has an end.
static TURN: Mutex<()> = Mutex::new(());

/// What a test's cluster consists of.
pub struct Setup {
    pub hosts: usize,
    /// The host of `vm1`, of `vm2` and so on.
    pub vms: &'static [usize],
    pub timing: &'static str,
    pub datastores: Vec<DatastoreConfig>,
    /// How long a host waits for its storage before requests fail.
    pub storage_patience: Duration,
}

impl Default for Setup {
    fn default() -> Self {
        let datastores = vec![DatastoreConfig::gluster("ds1")];
        Setup {
            hosts: 3,
            vms: &[1, 1, 2, 2, 3, 3],
            timing: "standard",
            datastores,
            storage_patience: Duration::from_secs(5),
        }
    }
}

/// A VM as it runs: where, as which process, after how many boots. Equal means untouched.
pub type Running = BTreeMap<String, (Vec<(usize, i32)>, u32)>;

/// How often each guest has booted.
pub type Boots = BTreeMap<String, u32>;

pub fn id(host: usize) -> HostId {
    HostId::new(&format!("host-{host}"))
}

/// A lab with agents.
pub struct Cluster {
    /// Before the lab, since it is dropped first.
    disk: DiskWatch,
    pub lab: Lab,
    started: Instant,
    step_began: Instant,
    last_primary: AtomicUsize,
    step_began_unix_us: u64,
    /// How much of each log earlier steps have answered for.
    read: BTreeMap<PathBuf, usize>,
    /// The last event of each host that they have answered for. Not its time: a test sets a host's clock.
    answered: BTreeMap<usize, u64>,
    /// After the lab: it is gone when the next test's turn comes.
    _turn: MutexGuard<'static, ()>,
}

fn unix_us() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock after 1970");
    u64::try_from(since.as_micros()).expect("a clock before the year 500000")
}

impl Cluster {
    /// Brings it up and waits until everything is protected; `None` where live tests can't run.
    pub fn up(setup: Setup) -> Option<Cluster> {
        if !Lab::ready_for_live_tests() {
            return None;
        }
        // A test that failed leaves nothing behind that would matter to others.
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let config = LabConfig {
            time_limit: Some(TEST_MAX),
            hosts: setup.hosts,
            datastores: setup.datastores,
            timing: setup.timing.into(),
            ping_timeout: setup.storage_patience,
            ..LabConfig::default()
        };
        let lab = Lab::new(config).unwrap_or_else(|e| panic!("{e}"));
        let timing = Timing::preset(setup.timing).expect("a preset");
        let mut cluster = Cluster {
            disk: DiskWatch::start(&lab.dir().join("store"), Duration::from_millis(timing.lease.as_millis())),
            lab,
            step_began: Instant::now(),
            started: Instant::now(),
            last_primary: AtomicUsize::new(0),
            step_began_unix_us: unix_us(),
            read: BTreeMap::new(),
            answered: BTreeMap::new(),
            _turn: turn,
        };
        let vms = setup.vms;
        cluster.step("all comes up", calm(), |c| {
            // Hosts take seconds to boot, one much longer than another on a busy machine: an agent that waits for the others'
            // longer than for a heartbeat finds them silent. And the first one that stands is not to have the smallest id.
            for host in c.lab.hosts().iter().rev() {
                host.start_agent().unwrap_or_else(|e| panic!("{e}"));
            }
            // Until then there is no lease under which a VM could run.
            let beats = |l: Local| l.view.guard && l.view.datastores.iter().all(|d| d.connected);
            c.wait("heartbeats to arrive", || (1..=setup.hosts).all(|h| c.local(h).is_some_and(beats)));
            // Each host's one after the other: libvirt does it so anyway.
            std::thread::scope(|scope| {
                for host in 1..=setup.hosts {
                    scope.spawn(move || {
                        for (index, _) in vms.iter().enumerate().filter(|(_, on)| **on == host) {
                            let name = format!("vm{}", index + 1);
                            c.lab.define_vm(host, &name, &VmOptions::default()).expect("a VM");
                        }
                    });
                }
            });
            c.settle(&[]);
        });
        Some(cluster)
    }

    /// One fault with all that follows, and then what must always hold.
    pub fn step(&mut self, name: &str, expect: Expect, act: impl FnOnce(&Cluster)) {
        self.step_began = Instant::now();
        self.step_began_unix_us = unix_us();
        eprintln!("  step: {name}");
        act(self);
        self.check(name, &expect);
        eprintln!("  step: {name}: {:.1} s", self.step_began.elapsed().as_secs_f64());
    }

    /// Takes it down.
    pub fn down(self) {
        drop(self.disk);
        self.lab.down().expect("the lab goes");
        eprintln!("  {:.1} s in all, after the lab stood", self.started.elapsed().as_secs_f64());
    }

    // ------------------------------------------------------------------------------------------- what is so

    pub fn host(&self, number: usize) -> Host<'_> {
        self.lab.host(number).expect("a host of this lab")
    }

    /// Waits for a condition; what happened in this step is in the panic's message.
    pub fn wait(&self, what: &str, mut condition: impl FnMut() -> bool) {
        self.wait_for(what, || condition().then_some(()));
    }

    pub fn wait_for<T>(&self, what: &str, attempt: impl FnMut() -> Option<T>) -> T {
        self.lab.wait_for(what, LONG, attempt).unwrap_or_else(|e| panic!("{e}\n{}", self.story()))
    }

    /// Asks the agent of that host.
    pub fn client(&self, host: usize) -> Client {
        Client::new(self.host(host).agent_socket())
    }

    pub fn local(&self, host: usize) -> Option<Local> {
        self.client(host).get("/v1/local").ok()
    }

    /// A counter of that host's agent, 0 as long as it does not answer.
    pub fn counter(&self, host: usize, name: &str) -> u64 {
        self.local(host).and_then(|l| l.counters.get(name).copied()).unwrap_or(0)
    }

    /// What that host's agent says about the cluster.
    pub fn status_by(&self, host: usize) -> Result<Status, ClientError> {
        self.client(host).get("/v1/status")
    }

    /// The view of a primary.
    pub fn status(&self) -> Option<Status> {
        // The primary of last time first: a hung agent that is asked keeps us waiting.
        let last = self.last_primary.load(Ordering::Relaxed);
        let mut hosts = self.lab.hosts();
        hosts.retain(|h| h.agent_pid().is_ok_and(|p| p.is_some()));
        hosts.sort_by_key(|h| h.number() != last);
        let status = hosts.iter().filter_map(|h| self.status_by(h.number()).ok()).find(|s| s.complete)?;
        self.last_primary.store((1..).find(|h| id(*h) == status.view.host)?, Ordering::Relaxed);
        Some(status)
    }

    /// The primary's number.
    pub fn primary(&self) -> Option<usize> {
        let status = self.status()?;
        (1..=self.lab.config().hosts).find(|h| id(*h) == status.view.host)
    }

    /// The primary's view of a host.
    pub fn host_view(&self, host: usize) -> Option<HostView> {
        self.status()?.view.hosts.into_iter().find(|h| h.host == id(host))
    }

    pub fn host_state(&self, host: usize) -> Option<HostState> {
        self.host_view(host).map(|h| h.state)
    }

    /// The primary's view of a VM.
    pub fn vm_view(&self, vm: &str) -> Option<VmView> {
        self.status()?.view.vms.into_iter().find(|v| &*v.name == vm)
    }

    /// The events of all hosts in this step, also of hosts that are off, oldest first.
    pub fn events(&self) -> Vec<EventRecord> {
        let mut events: Vec<EventRecord> =
            self.lab.hosts().iter().flat_map(|host| self.new_events_of(host.number())).collect();
        events.sort_by_key(|e| e.at_unix_us);
        events
    }

    /// Those of a host for which no earlier step has answered.
    fn new_events_of(&self, host: usize) -> Vec<EventRecord> {
        let answered = self.answered.get(&host).copied().unwrap_or(0);
        let mut events = self.events_of(host);
        events.retain(|e| e.sequence > answered);
        events
    }

    /// Waits until all that agents know to have happened is in their files: a thread of its own writes it there, which a busy
    /// disk holds up. An agent that does not answer writes nothing either.
    pub fn wait_for_journals(&self) {
        for host in self.lab.hosts() {
            if !host.agent_pid().is_ok_and(|pid| pid.is_some()) {
                continue;
            }
            let newest = self.client(host.number()).get::<(u64, Vec<EventRecord>)>("/peer/tail?limit=0");
            let Ok((newest, _)) = newest else { continue };
            self.wait(&format!("event {newest} of {} to be in its file", host.name()), || {
                self.events_of(host.number()).last().map_or(0, |e| e.sequence) >= newest
            });
        }
    }

    /// All events of a host since the lab was made, in the order in which they came.
    pub fn events_of(&self, host: usize) -> Vec<EventRecord> {
        let path = self.host(host).dir().join("lib-mainstay/events.jsonl");
        let text = fs::read_to_string(path).unwrap_or_default();
        // The last line may be half written.
        text.lines().filter_map(|line| serde_json::from_str::<EventRecord>(line).ok()).collect()
    }

    /// Whether an event of this step fits.
    pub fn seen(&self, fits: impl Fn(&Event) -> bool) -> bool {
        self.events().iter().filter_map(|e| e.event.as_ref()).any(fits)
    }

    /// When, in this step, an event first came, in seconds since it began, and who told it.
    pub fn when(&self, fits: impl Fn(&Event) -> bool) -> Option<(f64, HostId)> {
        let first = self.events().into_iter().find(|e| e.event.as_ref().is_some_and(&fits))?;
        Some((first.at_unix_us.saturating_sub(self.step_began_unix_us) as f64 / 1e6, first.host))
    }

    /// The step's events as text.
    pub fn story(&self) -> String {
        let began = self.step_began_unix_us;
        let line = |e: &EventRecord| {
            let since = (e.at_unix_us.saturating_sub(began)) as f64 / 1e6;
            format!("{since:8.3} {:<7} {:?}: {}\n", e.host.as_str(), e.severity, e.text)
        };
        self.events().iter().map(line).collect()
    }

    /// How often each guest has booted, read from its disk.
    pub fn boots(&self) -> Boots {
        let vms = self.lab.vms().expect("the lab's VMs");
        let boots = |vm: &str| self.lab.guest_record(vm).map_or(0, |r| r.boots);
        vms.into_iter().map(|vm| (vm.clone(), boots(&vm))).collect()
    }

    /// All VMs as they run.
    pub fn running(&self) -> Running {
        let processes = |vm: &str| -> Vec<(usize, i32)> {
            self.lab.runners(vm).expect("the runners").iter().map(|r| (r.host, r.pid)).collect()
        };
        self.boots().into_iter().map(|(vm, boots)| (vm.clone(), (processes(&vm), boots))).collect()
    }

    /// The VMs that run on a host.
    pub fn vms_on(&self, host: usize) -> BTreeSet<String> {
        let on = |vm: &String| self.lab.hosts_running(vm).expect("the runners").contains(&host);
        self.lab.vms().expect("the lab's VMs").into_iter().filter(on).collect()
    }

    /// Asserts that the guests of exactly these VMs booted exactly once more.
    pub fn assert_restarted_once(&self, before: &Boots, vms: &BTreeSet<String>) {
        let mut expected = before.clone();
        for vm in vms {
            *expected.entry(vm.clone()).or_default() += 1;
        }
        assert_eq!(expected, self.boots(), "boots of each guest\n{}", self.story());
    }

    /// Asserts that no VM was stopped, started, moved or meant to be.
    pub fn assert_untouched(&self, before: &Running) {
        assert_eq!(*before, self.running(), "VMs were touched\n{}", self.story());
        assert!(!self.seen(touches_a_vm), "somebody meant to touch a VM\n{}", self.story());
    }

    // -------------------------------------------------------------------------------------- what is done to it

    /// The host loses its power, with all that runs on it.
    pub fn power_off(&self, host: usize) {
        self.host(host).power_off().unwrap_or_else(|e| panic!("{e}"));
    }

    /// The host comes back with its agent.
    pub fn power_on(&self, host: usize) {
        let how = PowerOn { agent: true, ..PowerOn::default() };
        self.host(host).power_on_with(&how).unwrap_or_else(|e| panic!("{e}"));
    }

    /// Orders something of the primary through any agent, as `mainstay vm protect` does.
    pub fn order(&self, host: usize, vm: &str, what: &str) {
        let done = self.client(host).post::<mainstay_api::Done>(&format!("/v1/vms/{vm}/{what}"));
        done.unwrap_or_else(|e| panic!("{what} {vm}: {e}\n{}", self.story()));
    }

    /// The command line, on that host, as an administrator types it.
    pub fn mainstay(&self, host: usize, args: &[&str]) -> Output {
        let binary = self.lab.agent_binary().expect("the program").display().to_string();
        let argv: Vec<&str> = [binary.as_str()].into_iter().chain(args.iter().copied()).collect();
        self.host(host).output(&argv, LONG).unwrap_or_else(|e| panic!("{e}\n{}", self.story()))
    }

    /// The same, of a command that must succeed: what it printed.
    pub fn done(&self, host: usize, args: &[&str]) -> String {
        let output = self.mainstay(host, args);
        assert!(output.success, "{args:?}: {} {}\n{}", output.status, output.stderr, self.story());
        output.stdout
    }

    /// The same, of a command that must be refused: why.
    pub fn refused(&self, host: usize, args: &[&str]) -> String {
        let output = self.mainstay(host, args);
        assert!(!output.success, "{args:?} was not refused: {}\n{}", output.stdout, self.story());
        output.stderr
    }

    /// `mainstay vm set`, on a host that is there.
    pub fn set(&self, vm: &str, options: &[&str]) {
        let args: Vec<&str> = ["vm", "set", vm].into_iter().chain(options.iter().copied()).collect();
        self.done(3, &args);
    }
}

/// Whether somebody has stopped, frozen, started or moved a VM, or means to.
pub fn touches_a_vm(event: &Event) -> bool {
    matches!(
        event,
        Event::VmStopped { .. }
            | Event::TakeoverIntended { .. }
            | Event::VmGranted { .. }
            | Event::VmClaimed { .. }
            | Event::VmStarted { .. }
            | Event::VmStartFailed { .. }
            | Event::VmRestarted { .. }
            | Event::VmFrozen { .. }
            | Event::IsolationResponseApplied { .. }
    )
}
