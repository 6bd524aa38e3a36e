//! A world without cores: what cores would order comes from a test, and what they would be told is kept for it. So that the
//! registers and the libvirt of this world can be held against the contracts of the real ones.
//!
//! What it does not do: choose. Everything happens by default, in the order in which it was asked for, unless it is held.

use super::{Item, World};
use crate::setup::{Setup, VM, store};
use mainstay_core::register::StopCause;
use mainstay_core::{DatastoreName, Effect, HostId, Input, Time, VmId};

/// Something that the core of a host would have been told.
#[derive(Clone, Debug)]
pub struct Told {
    /// Which host.
    pub host: usize,
    /// When, by its clock.
    pub at: Time,
    /// What.
    pub input: Input,
}

/// The world of a test: two hosts with power, without cores and guards.
#[derive(Clone, Debug)]
pub struct Bench(World);

impl Default for Bench {
    fn default() -> Bench {
        let mut world = World::dark(Setup::two_hosts(0));
        world.kept.told = Some(Vec::new());
        for host in 0..world.hosts.len() {
            let state = world.host_mut(host);
            state.powered = true;
            state.boot = 1;
        }
        let mut bench = Bench(world);
        bench.restart(0);
        bench.restart(1);
        bench
    }
}

impl Bench {
    /// The only VM.
    pub fn vm(&self) -> VmId {
        VM
    }

    /// The only datastore.
    pub fn datastore(&self) -> DatastoreName {
        store()
    }

    /// That host's id.
    pub fn id(&self, host: usize) -> HostId {
        self.0.setup.id(host)
    }

    /// What that host's clock shows.
    pub fn clock(&self, host: usize) -> Time {
        self.0.clock(host)
    }

    /// The core of that host asks for something.
    pub fn ask(&mut self, host: usize, effect: Effect) {
        self.0.carry_out(host, effect);
    }

    /// The next thing happens; `false` when there is none.
    pub fn go_on(&mut self) -> bool {
        self.0.steps = 0;
        let next = self.0.ready.pop_front();
        let some = next.is_some();
        next.into_iter().for_each(|item| self.0.happen(item));
        some
    }

    /// What was asked for last is held.
    pub fn hold(&mut self) {
        if let Some(item) = self.0.ready.pop_back() {
            self.0.hold(item, false);
        }
    }

    /// Each write that is held lands.
    pub fn land(&mut self) {
        for held in std::mem::take(&mut self.0.held) {
            if let Item::Write(write) = &held.item {
                self.0.land(write);
            }
        }
    }

    /// Everything that cores were told so far.
    pub fn told(&self) -> &[Told] {
        self.0.kept.told.as_deref().unwrap_or_default()
    }

    /// That host's agent ends and starts anew.
    pub fn restart(&mut self, host: usize) {
        self.0.kill_agent(host);
        let state = self.0.host_mut(host);
        state.run += 1;
        let run = state.run;
        self.0.ready.push_back(Item::Domains { host, run });
    }

    /// The VM's user shuts it down, where it executes.
    pub fn user_shuts_down(&mut self) {
        self.0.user_shutdown();
    }

    /// The VM's QEMU is killed.
    pub fn qemu_dies(&mut self, host: usize) {
        self.0.end(host, StopCause::Crashed);
    }

    /// The VM's process stands still, or goes on.
    pub fn set_frozen(&mut self, host: usize, frozen: bool) {
        self.0.set_frozen(host, frozen);
    }
}

impl World {
    /// On a bench: keeps what a core would have been told.
    pub(super) fn take_down(&mut self, host: usize, input: Input) {
        if self.kept.told.is_some() {
            self.now += 1;
            let at = self.clock(host);
            self.kept.told.iter_mut().for_each(|told| told.push(Told { host, at, input: input.clone() }));
        }
    }
}
