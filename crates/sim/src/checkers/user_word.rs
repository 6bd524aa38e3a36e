//! I4: a VM that its user or guest shut down stays down until a user starts it.
//!
//! Its host must have had the chance to say so: either the stop is on disk (in the host's power-on list, or as desired off in
//! the protected list), or the host was left in peace for [`PEACE`] heartbeats after it.

use super::{Landing, Violation};
use crate::setup::Setup;
use mainstay_core::RegisterValue;
use mainstay_core::register::{ClaimState, Desired, ProtectedList};

/// How many heartbeats a host that is well may take to write down that a VM was stopped.
pub const PEACE: u64 = 12;

/// Whether a VM is to run, as the world knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It ran, and nobody stopped it on purpose.
    On,
    /// Its user stopped it, and that is known or has to be.
    Off,
    /// Nobody could have known (its host died with the news, or it was never protected): either is right.
    Either,
}

/// Whether an operator left it protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// It is to be protected.
    Yes,
    /// An operator took it out.
    No,
    /// An operator asked for a change and has no answer.
    Unanswered,
}

/// What the world knows of a VM.
#[derive(Clone, Debug)]
pub struct Truth {
    /// Whether it is to run.
    pub wanted: Wanted,
    /// Whether it is to be protected.
    pub protection: Protection,
    stop: Option<Stop>,
}

#[derive(Clone, Debug)]
struct Stop {
    at: u64,
    host: usize,
    /// The host was well and has been left in peace since.
    peace: bool,
    /// It is on disk.
    noted: bool,
}

/// Knows what users have stopped, and finds restarts against their word.
#[derive(Clone, Debug)]
pub struct UserWord {
    vms: Vec<Truth>,
    peace: u64,
}

impl UserWord {
    /// All VMs are to run.
    pub fn new(setup: &Setup) -> UserWord {
        let truth = Truth { wanted: Wanted::On, protection: Protection::Yes, stop: None };
        UserWord { vms: vec![truth; setup.vms.len()], peace: PEACE * setup.timing.heartbeat.0 }
    }

    /// What is known of a VM.
    pub fn truth(&self, vm: usize) -> &Truth {
        &self.vms[vm]
    }

    /// An operator asked for something, or was answered.
    /// One that is down meanwhile (`runs` is false) need not come back.
    pub fn set_protection(&mut self, vm: usize, protection: Protection, runs: bool) {
        let truth = &mut self.vms[vm];
        truth.protection = protection;
        if !runs && protection != Protection::Yes && truth.wanted == Wanted::On {
            truth.wanted = Wanted::Either;
        }
    }

    /// A user or guest stopped it. `known`: libvirt saw how. `well`: nothing was wrong with the host.
    pub fn on_intended_stop(&mut self, at: u64, vm: usize, host: usize, known: bool, well: bool) {
        let truth = &mut self.vms[vm];
        if known {
            truth.wanted = if well { Wanted::Off } else { Wanted::Either };
            truth.stop = Some(Stop { at, host, peace: well, noted: false });
        } else {
            truth.wanted = Wanted::Either;
            truth.stop = None;
        }
    }

    /// It stopped against everybody's will. `protected`: the list on disk said then that it is to run.
    pub fn on_unwanted_stop(&mut self, vm: usize, protected: bool) {
        let truth = &mut self.vms[vm];
        if !protected || truth.protection != Protection::Yes {
            truth.wanted = Wanted::Either;
        }
    }

    /// A user started it, or it runs on after a migration.
    pub fn on_user_start(&mut self, vm: usize) {
        self.vms[vm].wanted = Wanted::On;
        self.vms[vm].stop = None;
    }

    /// Something is wrong with a host from now on (`None`: with all).
    pub fn on_disturbance(&mut self, at: u64, host: Option<usize>) {
        for truth in &mut self.vms {
            if let Some(stop) = &mut truth.stop
                && host.is_none_or(|host| host == stop.host)
                && at < stop.at + self.peace
            {
                stop.peace = false;
                if !stop.noted {
                    truth.wanted = Wanted::Either;
                }
            }
        }
    }

    /// A register write landed; `list` is the protected list of the highest epoch.
    pub fn on_land(&mut self, landing: &Landing<'_>, list: Option<&ProtectedList>, setup: &Setup) {
        let Landing { started, store, host, value, .. } = *landing;
        for (vm, truth) in self.vms.iter_mut().enumerate() {
            let Some(stop) = &mut truth.stop else { continue };
            if setup.vms[vm].datastore != store || started < stop.at {
                continue;
            }
            let id = setup.vm_id(vm);
            let noted = match value {
                RegisterValue::Heartbeat(_) | RegisterValue::Ownership(_) => false,
                RegisterValue::PowerOn(power_on) => {
                    host == stop.host
                        && power_on.claims.iter().any(|claim| {
                            claim.vm == id
                                && matches!(claim.state, ClaimState::Stopped { cause } if cause.is_intended())
                        })
                }
                RegisterValue::ProtectedList(landed) => {
                    list.is_some_and(|list| list.epoch == landed.epoch)
                        && landed.entries.iter().any(|entry| entry.vm == id && entry.desired == Desired::Off)
                }
            };
            if noted {
                stop.noted = true;
                truth.wanted = Wanted::Off;
            }
        }
    }

    /// A core lets a VM execute.
    pub fn on_core_start(&mut self, at: u64, vm: usize, host: usize, setup: &Setup) -> Option<Violation> {
        let truth = &mut self.vms[vm];
        let stop = truth.stop.take();
        truth.wanted = Wanted::On;
        let stop = stop?;
        let why = if stop.noted {
            "and that is on disk"
        } else if stop.peace && at > stop.at + self.peace {
            "and its host had the time to say so"
        } else {
            return None;
        };
        Some(Violation {
            checker: "user_word",
            what: format!(
                "{} is started on {}, but was stopped on purpose on {} at {} us, {why}",
                setup.vms[vm].name, setup.hosts[host].id, setup.hosts[stop.host].id, stop.at
            ),
        })
    }
}
