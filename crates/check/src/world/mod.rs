//! A small cluster around real cores and guards: what can happen in it, and in which order it happens by default.
//!
//! By default nothing takes time: a write lands and is answered, a message arrives, libvirt obeys, all at once and in the order
//! in which they were asked for; when nothing is left to do, time goes on to the next deadline of a core or guard. What
//! may happen otherwise is a [`Choice`]. Freezing always takes as long as it is allowed to.
//!
//! Each step of a core or guard is one microsecond later than the one before, so that no two things are at the same
//! time by their clocks: *started after* means what it says.

mod bench;
mod choices;
mod disk;
mod hosts;
mod hypervisor;
mod network;
mod text;

pub use bench::{Bench, Told};
pub use choices::{Choice, Hold};

use crate::checks::Checks;
use crate::fingerprint::{Fingerprint, clock_base};
use crate::setup::{Fault, SECOND, Setup};
use disk::{Read, Registers, Write};
use hosts::Host;
use mainstay_core::{GuardOrder, GuardReport, HostId, Input, Message, OpId, Time, VmAction};
use mainstay_guard_core::GuardInput;
use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Deadlines within this span are one instant.
const INSTANT: u64 = 10_000;

/// More steps than this without time going on: the cluster spins.
const STEPS_MAX: u32 = 3_000;

/// How long a world is left alone before its runs begin.
const WARM_UP: u64 = 15 * SECOND;

/// Something that is about to happen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Item {
    Tick { host: usize },
    GuardTick { host: usize },
    Write(Write),
    Read(Read),
    Message { from: usize, to: usize, message: Message },
    Ping { from: usize, run: u64, to: usize },
    PingDone { host: usize, run: u64, of: HostId, answered: bool },
    Order { host: usize, run: u64, order: GuardOrder },
    Report { host: usize, report: GuardReport },
    Deed { host: usize, boot: u64, deed: Deed },
    Libvirt { host: usize, boot: u64, run: u64, op: OpId, action: VmAction },
    Domains { host: usize, run: u64 },
    Xml { host: usize, run: u64, input: Input },
}

/// What a guard does to the VM's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Deed {
    Inspect,
    Freeze,
    Thaw,
    Kill,
}

/// An operation that takes longer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Held {
    item: Item,
    /// The storage hangs: it goes on when that is repaired.
    hung: bool,
    /// A write: it is on disk, only the answer is missing.
    landed: bool,
    /// A write whose writer is no more: it may still land.
    orphan: bool,
    /// It was held in the present instant.
    fresh: bool,
}

impl Held {
    /// Whether only the answer is missing.
    fn is_done(&self) -> bool {
        self.landed || matches!(&self.item, Item::Read(read) if read.wanted.is_empty())
    }
}

/// What is wrong now, and what may yet go wrong.
#[derive(Clone, Debug, Hash)]
struct Faults {
    /// By host: it is cut off from the network.
    cut: Vec<bool>,
    /// By host: its storage hangs.
    hung: Vec<bool>,
    delays_left: u8,
    /// So many faults of the menu may still happen.
    left: u8,
    /// By entry of the menu: it has happened, it has been repaired.
    happened: Vec<(bool, bool)>,
}

impl Faults {
    fn none(hosts: usize, menu: usize) -> Faults {
        Faults {
            cut: vec![false; hosts],
            hung: vec![false; hosts],
            delays_left: 0,
            left: 0,
            happened: vec![(false, false); menu],
        }
    }
}

/// A cluster.
#[derive(Clone, Debug)]
pub struct World {
    pub(crate) setup: Arc<Setup>,
    /// Microseconds since the world began.
    now: u64,
    /// When its runs began.
    start: u64,
    hosts: Vec<Arc<Host>>,
    disk: Arc<Registers>,
    /// Counts writes.
    orders: u64,
    ready: VecDeque<Item>,
    held: Vec<Held>,
    timed: Vec<(u64, Item)>,
    faults: Faults,
    /// This is the first instant in its cell of the grid.
    on_grid: bool,
    steps: u32,
    /// What is checked.
    pub checks: Checks,
    fingerprint: u64,
    kept: Kept,
}

/// What is kept for who looks on.
#[derive(Clone, Debug, Default)]
struct Kept {
    /// The story, line by line, where somebody wants it.
    log: Option<Vec<String>>,
    /// On a bench: what hosts without a core were told.
    told: Option<Vec<Told>>,
}

impl World {
    /// A cluster in a steady state: one primary, which owns the datastore, and the VM protected. Fails when that is not reached.
    pub fn steady(setup: Setup) -> Result<World, String> {
        let bounds = setup.bounds;
        let mut world = World::dark(setup);
        world.begin()?;
        world.run_until(WARM_UP);
        world.is_steady()?;
        world.start = WARM_UP;
        world.faults.delays_left = bounds.delays;
        world.faults.left = bounds.faults;
        world.checks.happened = Default::default();
        world.settle();
        Ok(world)
    }

    /// Hosts without power, and an empty datastore.
    fn dark(setup: Setup) -> World {
        let count = setup.hosts;
        World {
            now: 0,
            start: u64::MAX,
            hosts: (0..count).map(|_| Arc::new(Host::off())).collect(),
            disk: Arc::new(Registers::default()),
            orders: 0,
            ready: VecDeque::new(),
            held: Vec::new(),
            timed: Vec::new(),
            faults: Faults::none(count, setup.menu.len()),
            on_grid: false,
            steps: 0,
            checks: Checks::default(),
            fingerprint: 0,
            kept: Kept::default(),
            setup: Arc::new(setup),
        }
    }

    fn begin(&mut self) -> Result<(), String> {
        // Hosts are out of step, as they come.
        for host in 0..self.hosts.len() {
            self.run_until((host as u64 + 1) * SECOND / 4);
            self.boot(host)?;
            if host == self.setup.vm_on {
                self.user_start(host);
            }
        }
        Ok(())
    }

    /// Without choices.
    fn run_until(&mut self, until: u64) {
        while self.checks.violation.is_none() {
            while let Some(item) = self.ready.pop_front() {
                self.happen(item);
            }
            if self.next_instant() > until {
                self.now = self.now.max(until);
                return;
            }
            self.advance();
        }
    }

    /// Goes on by default to where something else could happen.
    fn settle(&mut self) {
        while self.checks.violation.is_none() && !self.is_over() {
            if let Some(head) = self.ready.front() {
                if self.may_go_otherwise(head) {
                    break;
                }
                if let Some(item) = self.ready.pop_front() {
                    self.happen(item);
                }
            } else if self.may_intervene() {
                break;
            } else {
                self.advance();
            }
        }
        self.fingerprint = self.normal_form();
    }

    /// Whether the run has reached its horizon.
    pub fn is_over(&self) -> bool {
        self.start != u64::MAX && self.now >= self.start + self.setup.horizon
    }

    /// When something is due next.
    fn next_instant(&self) -> u64 {
        let of = |(index, host): (usize, &Arc<Host>)| {
            let local = [
                host.core.as_ref().map(mainstay_core::Core::next_deadline),
                host.guard.as_ref().map(mainstay_guard_core::Guard::next_deadline),
            ];
            let at = local.into_iter().flatten().min()?;
            Some(at.0.saturating_sub(clock_base(index)))
        };
        let hosts = self.hosts.iter().enumerate().filter_map(of);
        let timed = self.timed.iter().map(|(at, _)| *at);
        // The grid is for those who intervene.
        let grid = (self.cell(self.now) + 1) * self.setup.grid;
        hosts.chain(timed).chain([grid]).min().unwrap_or(grid).max(self.now + 1_000)
    }

    /// Time goes on to the next instant: the last of the deadlines that lie close together.
    fn advance(&mut self) {
        let before = self.now;
        let first = self.next_instant();
        let mut at = first;
        let mut due = Vec::new();
        for (index, host) in self.hosts.iter().enumerate() {
            let local = |time: Time| time.0.saturating_sub(clock_base(index));
            if let Some(deadline) = host.guard.as_ref().map(|guard| local(guard.next_deadline()))
                && deadline < first + INSTANT
            {
                due.push(Item::GuardTick { host: index });
                at = at.max(deadline);
            }
            if let Some(deadline) = host.core.as_ref().map(|core| local(core.next_deadline()))
                && deadline < first + INSTANT
            {
                due.push(Item::Tick { host: index });
                at = at.max(deadline);
            }
        }
        let (now_due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.timed).into_iter().partition(|(time, _)| *time < first + INSTANT);
        self.timed = later;
        for (time, item) in now_due {
            at = at.max(time);
            self.ready.push_back(item);
        }
        self.ready.extend(due);
        self.now = at;
        self.steps = 0;
        self.on_grid = self.cell(at) != self.cell(before);
        self.held.iter_mut().for_each(|held| held.fresh = false);
    }

    /// Which cell of the grid an instant is in. One that misses a cell by microseconds is in it.
    fn cell(&self, at: u64) -> u64 {
        (at + INSTANT) / self.setup.grid
    }

    /// What a host's clock shows.
    fn clock(&self, host: usize) -> Time {
        Time(clock_base(host) + self.now)
    }

    fn happen(&mut self, item: Item) {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            self.checks.fail("the cluster spins: time does not go on".into());
            return;
        }
        match item {
            Item::Tick { host } => self.feed(host, Input::Tick),
            Item::GuardTick { host } => self.feed_guard(host, GuardInput::Tick),
            Item::Write(_) | Item::Read(_) | Item::Xml { .. } if self.hangs(&item) => {
                self.hold(item, true);
            }
            Item::Write(write) => self.write(&write),
            Item::Read(read) => self.read(read),
            Item::Message { from, to, message } => self.arrive(from, to, message),
            Item::Ping { from, run, to } => self.ping(from, run, to),
            Item::PingDone { host, run, of, answered } => {
                self.feed_run(host, run, Input::PingDone { host: of, answered });
            }
            Item::Order { host, run, order } => self.order(host, run, order),
            Item::Report { host, report } => self.feed(host, Input::Guard(report)),
            Item::Deed { host, boot, deed } => self.do_deed(host, boot, deed),
            Item::Libvirt { .. } if self.hangs(&item) => self.hold(item, true),
            Item::Libvirt { host, boot, run, op, action } => self.obey(host, boot, run, op, &action),
            Item::Domains { host, run } => self.show_domains(host, run),
            Item::Xml { host, run, input } => self.feed_run(host, run, input),
        }
        let executing = self.executing().count();
        self.checks.on_instant(executing);
    }

    fn hold(&mut self, item: Item, hung: bool) {
        self.held.push(Held { item, hung, landed: false, orphan: false, fresh: true });
    }

    /// Whether the storage of the host that asks for it hangs.
    fn hangs(&self, item: &Item) -> bool {
        match item {
            Item::Write(write) => self.faults.hung[write.host],
            Item::Read(read) => self.faults.hung[read.host],
            Item::Xml { host, .. } => self.faults.hung[*host],
            // A start reads the domain XML.
            Item::Libvirt { host, action: VmAction::Prepare { .. }, .. } => self.faults.hung[*host],
            Item::Libvirt { .. }
            | Item::Tick { .. }
            | Item::GuardTick { .. }
            | Item::Message { .. }
            | Item::Ping { .. }
            | Item::PingDone { .. }
            | Item::Order { .. }
            | Item::Report { .. }
            | Item::Deed { .. }
            | Item::Domains { .. } => false,
        }
    }

    /// The hosts that let the VM execute now.
    pub fn executing(&self) -> impl Iterator<Item = usize> + '_ {
        self.hosts.iter().enumerate().filter(|(_, host)| host.executes()).map(|(index, _)| index)
    }

    /// Whether that fault of the menu holds now.
    fn is_active(&self, wanted: Fault) -> bool {
        let faults = self.setup.menu.iter().zip(&self.faults.happened);
        faults.into_iter().any(|(menu, (happened, repaired))| menu.fault == wanted && *happened && !repaired)
    }

    fn normal_form(&self) -> u64 {
        let mut hasher = Fingerprint::new(self.now, self.hosts.len());
        (clock_base(0) + self.now).hash(&mut hasher);
        for host in &self.hosts {
            host.hash(&mut hasher);
        }
        self.disk.hash(&mut hasher);
        self.ready.hash(&mut hasher);
        self.held.hash(&mut hasher);
        for (at, item) in &self.timed {
            (clock_base(0) + at).hash(&mut hasher);
            item.hash(&mut hasher);
        }
        self.faults.hash(&mut hasher);
        self.on_grid.hash(&mut hasher);
        self.checks.hash(&mut hasher);
        hasher.finish()
    }

    /// Whether the VM runs where it was started, under a grant on disk.
    fn is_steady(&self) -> Result<(), String> {
        if let Some(violation) = &self.checks.violation {
            return Err(format!("the default schedule already violates a promise: {violation}"));
        }
        let here = self.setup.id(self.setup.vm_on);
        let list = self.disk.list().ok_or("nobody has written a protected list")?;
        let entry = list.entries.first().ok_or("the VM is not in the protected list")?;
        if entry.holder != Some(here) || self.executing().collect::<Vec<_>>() != [self.setup.vm_on] {
            return Err(format!("the VM does not run where it was started: {entry:?}"));
        }
        if !self.held.is_empty() || !self.ready.is_empty() {
            return Err("the cluster has not come to rest".into());
        }
        Ok(())
    }

    /// The state's normal form.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// From now on writes down what happens.
    #[must_use]
    pub fn with_log(mut self) -> World {
        self.kept.log = Some(Vec::new());
        self
    }

    /// Microseconds since the runs began.
    pub fn elapsed(&self) -> u64 {
        self.now.saturating_sub(self.start)
    }

    /// What happened, in words.
    pub fn log(&self) -> &[String] {
        self.kept.log.as_deref().unwrap_or_default()
    }

    fn say(&mut self, who: &str, line: impl FnOnce() -> String) {
        let since = self.now.saturating_sub(if self.start == u64::MAX { 0 } else { self.start });
        if let Some(log) = &mut self.kept.log {
            log.push(format!("{:>10.6} {who:>3}  {}", since as f64 / 1e6, line()));
        }
    }
}

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.fingerprint);
    }
}

impl PartialEq for World {
    fn eq(&self, other: &World) -> bool {
        self.fingerprint == other.fingerprint
    }
}
