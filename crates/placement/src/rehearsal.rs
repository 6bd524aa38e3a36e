//! The standing rehearsal: for each single host the plan that would be followed if it failed now.
//!
//! After a change of one VM or of one host's state, a plan is made again only if the change can have altered it:
//!
//! - the plan of a host that the VM was on or is on now;
//! - the plan of a host with a VM that a rule ties to the VM that changed;
//! - any plan that puts something on a host that changed;
//! - a plan that spread its VMs, if for one of them a changed host is now better than the one that it went to;
//! - a plan that packed, if a changed host could take one of its VMs, before or after the change;
//! - all plans, if the VM waits for a host, since waiting VMs are in every plan.
//!
//! Invariant: the plans are the same as those of a rehearsal that is made anew from the same picture.

use crate::index::{Index, Touched};
use crate::picture::{Change, Name, Picture};
use crate::place::{Outcome, decide, decide_for};
use crate::plan::{Failing, How, Placement, Plan, describe};
use crate::room::{Purpose, Room};
use crate::unit::{Unit, unit_of_one};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

/// What the failure of one host would come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The host that fails.
    pub host: Name,
    /// How many VMs come back.
    pub placed: u32,
    /// Those that don't, in the order in which they would have been served.
    pub left_out: Vec<Name>,
    /// How the plan was found.
    pub how: How,
}

/// The plan for each single-host failure, on one picture.
pub struct Rehearsal {
    picture: Picture,
    index: Index,
    room: Room,
    /// One for each host, by name.
    outcomes: Vec<Outcome>,
    remade: usize,
}

impl Rehearsal {
    /// Rehearses the failure of each host of the picture.
    pub fn new(picture: Picture) -> Self {
        let index = Index::new(&picture);
        let room = Room::new(&index);
        let mut rehearsal = Self { picture, index, room, outcomes: Vec::new(), remade: 0 };
        rehearsal.make_all();
        rehearsal
    }

    /// The picture that the plans are for.
    pub fn picture(&self) -> &Picture {
        &self.picture
    }

    /// How many plans the last change made necessary.
    pub fn remade(&self) -> usize {
        self.remade
    }

    /// Makes a change and whatever plans it alters. Gives the change that takes it back.
    pub fn update(&mut self, change: Change) -> Change {
        match change {
            Change::Vm(name, vm) => {
                let hosts = self.hosts_of(&name, vm.as_ref().and_then(|vm| vm.host.as_ref()));
                let relevant = self.packed_that_could_use(&hosts);
                let former = self.picture.apply(Change::Vm(name.clone(), vm));
                let touched = self.index.update_vm(&self.picture, &name);
                self.follow(touched, relevant);
                former
            }
            Change::Host(name, host) => {
                let hosts: Vec<u32> = self.index.host_position(&name).into_iter().collect();
                let relevant = self.packed_that_could_use(&hosts);
                let former = self.picture.apply(Change::Host(name.clone(), host));
                let before = match &former {
                    Change::Host(_, before) => before.as_ref(),
                    Change::Vm(..) | Change::Rule(..) | Change::Group(..) => None,
                };
                let touched = self.index.update_host(&self.picture, &name, before);
                self.follow(touched, relevant);
                former
            }
            Change::Rule(name, rule) => {
                let former = self.picture.apply(Change::Rule(name, rule));
                self.index = Index::new(&self.picture);
                self.follow(Touched::All, BTreeSet::new());
                former
            }
            // Groups say when VMs start, not where.
            Change::Group(name, group) => {
                self.remade = 0;
                self.picture.apply(Change::Group(name, group))
            }
        }
    }

    /// The plan for the failure of this host; `None` if the picture has no such host.
    pub fn plan_for(&self, host: &str) -> Option<Plan> {
        let position = self.index.host_position(host)?;
        let outcome = self.outcomes.get(position as usize)?;
        let failing = self.failing(&[position]);
        let mut room = Room::new(&self.index);
        Some(describe(&self.picture, &self.index, &mut room, &failing, outcome))
    }

    /// Who goes where when this host fails: the plan without its reasons, which cost more than it.
    pub fn placed_for(&self, host: &str) -> Option<Vec<Placement>> {
        let position = self.index.host_position(host)?;
        let outcome = self.outcomes.get(position as usize)?;
        let mut placed = Vec::new();
        for (unit, host) in outcome.placed() {
            let Some(host) = self.index.host(host) else { continue };
            for vm in &unit.vms {
                let vm = self.index.vms[*vm as usize].name.clone();
                placed.push(Placement { vm, host: host.name.clone() });
            }
        }
        Some(placed)
    }

    /// A plan for the failure of several hosts at once, made now.
    pub fn plan_for_all(&mut self, hosts: &[Name]) -> Plan {
        let failing = Failing::new(&self.picture, &self.index, Purpose::Failover, hosts.iter());
        let (index, room) = (&self.index, &mut self.room);
        let outcome = decide(index, room, Purpose::Failover, &failing.hosts, &failing.outside);
        describe(&self.picture, index, room, &failing, &outcome)
    }

    /// What each host's failure would come to.
    pub fn summaries(&self) -> impl Iterator<Item = Summary> + '_ {
        self.index.hosts.iter().zip(&self.outcomes).map(|(host, outcome)| {
            let left_out = outcome.left_out().flat_map(|unit| &unit.vms);
            Summary {
                host: host.name.clone(),
                placed: outcome.placed().map(|(unit, _)| unit.vms.len() as u32).sum(),
                left_out: left_out.map(|vm| self.index.vms[*vm as usize].name.clone()).collect(),
                how: outcome.how,
            }
        })
    }

    pub(crate) fn parts(&mut self) -> (&Picture, &Index, &mut Room, &[Outcome]) {
        (&self.picture, &self.index, &mut self.room, &self.outcomes)
    }

    fn failing(&self, hosts: &[u32]) -> Failing {
        let names = hosts.iter().filter_map(|host| self.index.host(*host)).map(|host| &host.name);
        Failing::new(&self.picture, &self.index, Purpose::Failover, names)
    }

    fn make(&mut self, host: u32) -> Outcome {
        decide(&self.index, &mut self.room, Purpose::Failover, &[host], &[])
    }

    fn make_for(&mut self, host: u32, units: Vec<Unit>) -> Outcome {
        decide_for(&self.index, &mut self.room, Purpose::Failover, &[host], &[], units)
    }

    fn make_all(&mut self) {
        let hosts = 0..self.index.hosts.len() as u32;
        self.remade = hosts.len();
        self.outcomes = hosts.map(|host| self.make(host)).collect();
    }

    /// Makes all plans again after a VM began to wait, or ceased to. But on the hosts that were touched, the others who come back are
    /// the same as before.
    fn make_all_with(&mut self, vm: Option<u32>, touched: &[u32]) {
        let alone = |vm: &u32| self.index.vms[*vm as usize].extra.as_ref().is_none_or(|e| e.pack.is_none());
        let Some(vm) = vm.filter(alone) else { return self.make_all() };
        let waits = self.index.waiting.contains(&vm).then(|| unit_of_one(&self.index, vm));
        self.remade = self.outcomes.len();
        for plan in 0..self.outcomes.len() as u32 {
            self.outcomes[plan as usize] = if touched.contains(&plan) {
                self.make(plan)
            } else {
                let mut units = core::mem::take(&mut self.outcomes[plan as usize].units);
                units.retain(|unit| *unit.vms != [vm]);
                if let Some(unit) = &waits {
                    let before = |other: &Unit| other.served_before(unit, &self.index).is_lt();
                    units.insert(units.partition_point(before), unit.clone());
                }
                self.make_for(plan, units)
            };
        }
    }

    /// The hosts that a VM is on before and after a change.
    fn hosts_of(&self, vm: &Name, after: Option<&Name>) -> Vec<u32> {
        let before = self.picture.vms.get(vm).and_then(|vm| vm.host.as_ref());
        before.into_iter().chain(after).filter_map(|host| self.index.host_position(host)).collect()
    }

    /// Plans that packed and for which one of these hosts matters as it is now.
    fn packed_that_could_use(&self, hosts: &[u32]) -> BTreeSet<u32> {
        let matters = |outcome: &Outcome| {
            let fits = |unit| hosts.iter().any(|host| self.room.could_fit(&self.index, unit, *host));
            outcome.how != How::Spread && outcome.units.iter().any(fits)
        };
        let plans = self.outcomes.iter().zip(0u32..);
        plans.filter(|(outcome, _)| matters(outcome)).map(|(_, host)| host).collect()
    }

    fn follow(&mut self, touched: Touched, relevant: BTreeSet<u32>) {
        let (hosts, vm, mates) = match touched {
            Touched::All => {
                self.room = Room::new(&self.index);
                return self.make_all();
            }
            Touched::Some { hosts, waiting: true, vm, mates: _ } => {
                self.refresh(&hosts, vm);
                return self.make_all_with(vm, &hosts);
            }
            Touched::Some { hosts, vm, waiting: false, mates } => (hosts, vm, mates),
        };
        self.refresh(&hosts, vm);
        let at = |mate: &u32| self.index.vms[*mate as usize].host;
        if mates.iter().any(|mate| self.index.waiting.contains(mate)) {
            return self.make_all();
        }
        // Elsewhere those who come back are the same as before.
        let others_come_back: BTreeSet<u32> = hosts.iter().copied().chain(mates.iter().map(at)).collect();
        let mut again = relevant;
        again.extend(&others_come_back);
        again.extend(self.packed_that_could_use(&hosts));
        for (outcome, plan) in self.outcomes.iter().zip(0u32..) {
            if !again.contains(&plan) && hosts.iter().any(|host| self.alters(outcome, *host)) {
                again.insert(plan);
            }
        }
        again.retain(|plan| (*plan as usize) < self.outcomes.len());
        self.remade = again.len();
        for plan in again {
            self.outcomes[plan as usize] = if others_come_back.contains(&plan) {
                self.make(plan)
            } else {
                let units = core::mem::take(&mut self.outcomes[plan as usize].units);
                self.make_for(plan, units)
            };
        }
    }

    fn refresh(&mut self, hosts: &[u32], vm: Option<u32>) {
        for host in hosts {
            self.room.reset_host(&self.index, *host);
        }
        if let Some(vm) = vm {
            self.room.reset_vm(&self.index, vm);
        }
    }

    /// The host, as it is now, would have been chosen for one of the units, or it was.
    fn alters(&self, outcome: &Outcome, host: u32) -> bool {
        let better = |position: usize| {
            let unit = &outcome.units[position];
            let chosen = outcome.keys.get(position).copied().flatten();
            let better =
                || chosen.is_none_or(|chosen| self.room.key_at_best(&self.index, unit, host) < chosen);
            let fits = || self.room.could_fit(&self.index, unit, host);
            // First what costs less to find out, and is mostly false.
            (!unit.easy || better()) && fits() && (unit.easy || better())
        };
        outcome.uses(host) || outcome.how == How::Spread && (0..outcome.units.len()).any(better)
    }
}

impl core::fmt::Debug for Rehearsal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (hosts, vms) = (self.picture.hosts.len(), self.picture.vms.len());
        f.debug_struct("Rehearsal").field("hosts", &hosts).field("vms", &vms).finish_non_exhaustive()
    }
}

/// The same picture and the same plans.
impl PartialEq for Rehearsal {
    fn eq(&self, other: &Self) -> bool {
        let plans = |rehearsal: &Self| {
            let hosts = rehearsal.picture.hosts.keys();
            hosts.map(|host| rehearsal.plan_for(host)).collect::<Vec<_>>()
        };
        self.picture == other.picture && plans(self) == plans(other)
    }
}
