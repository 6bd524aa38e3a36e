//! What must hold, in files of their own. They look at the world (who executes, what landed on disk) and never at what a core
//! believes; they share no code with the core.
//!
//! Always: [`single_runner`] (I1), [`orphan_stop`] (I2), [`single_owner`] (I3), [`user_word`] (I4), [`calm`]. In the end, in a healed world: [`liveness`] (I5).
//! Where they are asked for ([`Extra`]): [`time_travel`], [`never_silent`] (I8), [`unharmed`].

pub mod calm;
pub mod liveness;
pub mod never_silent;
pub mod orphan_stop;
pub mod single_owner;
pub mod single_runner;
pub mod time_travel;
pub mod unharmed;
pub mod user_word;

use crate::setup::Setup;
use calm::Calm;
use mainstay_core::{RegisterId, RegisterValue, Token};
use never_silent::NeverSilent;
use orphan_stop::OrphanStop;
use single_owner::SingleOwner;
use single_runner::SingleRunner;
use std::fmt;
use time_travel::TimeTravel;
use unharmed::Unharmed;
use user_word::UserWord;

/// A checker that not every run asks for. The generator's stories do, each for what it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Extra {
    /// See [`time_travel`].
    TimeTravel,
    /// See [`never_silent`].
    NeverSilent,
    /// See [`unharmed`], but for isolation responses.
    Unharmed,
    /// See [`unharmed`]: isolation responses after a blip.
    Blips,
}

/// Those that every run asks for. The others find what is known and not mended yet; a line here for each that finds nothing any more.
pub const ALWAYS: [Extra; 1] = [Extra::TimeTravel];

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The checker that found it.
    pub checker: &'static str,
    /// What is wrong, with names.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.checker, self.what)
    }
}

/// A register write that landed.
#[derive(Clone, Copy, Debug)]
pub struct Landing<'a> {
    /// When it landed, in microseconds.
    pub at: u64,
    /// When it began, in microseconds.
    pub started: u64,
    /// The datastore, by its place in the set-up.
    pub store: usize,
    /// The host that wrote, by its place in the set-up.
    pub host: usize,
    /// The register.
    pub register: &'a RegisterId,
    /// What is in it now.
    pub value: &'a RegisterValue,
}

/// A core has a VM prepared or resumed.
#[derive(Clone, Copy, Debug)]
pub struct CoreStart {
    /// The VM, by its place in the set-up.
    pub vm: usize,
    /// The host, by its place in the set-up.
    pub host: usize,
    /// The grant.
    pub token: Token,
    /// It is resumed: before, it was only prepared.
    pub resumed: bool,
}

/// The checkers that run all the time.
#[derive(Clone, Debug)]
pub struct Checkers {
    /// Nobody spins: no floods of writes, no deadlines in the past.
    pub calm: Calm,
    /// I1: at most one host lets a VM execute.
    pub single_runner: SingleRunner,
    /// I3: each epoch of a datastore has at most one owner that acts.
    pub single_owner: SingleOwner,
    /// I2: no isolation response without an owner that is responsible.
    pub orphan_stop: OrphanStop,
    /// I4: what its user has shut down stays down.
    pub user_word: UserWord,
    /// Memory is never older than the disk.
    pub time_travel: TimeTravel,
    /// I8: what is down is named by an alarm.
    pub never_silent: NeverSilent,
    /// What runs well is left alone.
    pub unharmed: Unharmed,
}

impl Checkers {
    /// Checkers of an empty world.
    pub fn new(setup: &Setup) -> Checkers {
        Checkers {
            calm: Calm::new(setup),
            single_runner: SingleRunner::new(setup.vms.len()),
            single_owner: SingleOwner::new(setup.datastores.len()),
            orphan_stop: OrphanStop::default(),
            user_word: UserWord::new(setup),
            time_travel: TimeTravel::new(setup.vms.len()),
            never_silent: NeverSilent::new(setup.vms.len()),
            unharmed: Unharmed::new(setup),
        }
    }

    /// A register write landed.
    pub fn on_land(&mut self, landing: &Landing<'_>, setup: &Setup) -> Option<Violation> {
        let Landing { at, store, register, value, .. } = *landing;
        let found = self.single_owner.on_land(landing, setup);
        self.user_word.on_land(landing, self.single_owner.list(store), setup);
        self.orphan_stop.on_land(at, store, value, setup);
        found.or_else(|| self.calm.on_land(at, store, register, setup))
    }

    /// A core has a VM prepared or resumed under that grant.
    pub fn on_core_start(&mut self, at: u64, start: CoreStart, setup: &Setup) -> Option<Violation> {
        let CoreStart { vm, host, token, resumed } = start;
        let stale = self.single_owner.on_start(vm, host, token, setup);
        let unwanted = if resumed { self.user_word.on_core_start(at, vm, host, setup) } else { None };
        stale.or(unwanted)
    }
}
