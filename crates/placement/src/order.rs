//! In which order the VMs of a plan start.
//!
//! A VM starts when all of a higher priority in the same plan, and all in the groups that its own groups wait for, are *released*:
//! ready, and the delay after that is over; or so long after their first start that the time-out is over. Higher ones that were left out
//! hold nobody up. A VM of a group that was left out holds up those that wait for the group, until the time-out is over; these hold up
//! nobody of a lower priority.
//! On each host no more start at once than it allows.
//!
//! What this does not do: it has no clock and starts nothing. The caller says what has become of each VM and what time it is.

mod gate;
mod groups;

pub use gate::{Because, Next, Progress, Waiting};
pub use groups::{OrderError, check_groups};

use crate::picture::{Name, Picture, Priority, Readiness};
use crate::plan::Plan;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// One start of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartStep {
    /// The VM to be started.
    pub vm: Name,
    /// Where it starts.
    pub host: Name,
    /// The VM's priority: those of a higher one start first.
    pub priority: Priority,
    /// What others wait for.
    pub readiness: Readiness,
    /// 1 starts at once, 2 waits for some of 1, and so on.
    pub wave: u32,
    /// The groups that it waits for.
    pub waits_for: Vec<Name>,
}

/// A VM that a group has and that this plan does not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Absent {
    /// It runs, so nobody waits for its start.
    Runs,
    /// It does not come back.
    LeftOut(Readiness),
}

/// The order of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartPlan {
    steps: Vec<StartStep>,
    /// For each VM its step.
    step_of: BTreeMap<Name, usize>,
    /// The VMs of each group that is waited for.
    groups: BTreeMap<Name, Vec<Name>>,
    absent: BTreeMap<Name, Absent>,
    /// How many may start at once on each host, less those that start there anyway; one at least, so that the plan goes on.
    limits: BTreeMap<Name, u32>,
}

impl StartPlan {
    /// Puts the placements of a plan into order. Groups that can't be ordered are refused, with the circle named.
    pub fn new(picture: &Picture, plan: &Plan) -> Result<Self, OrderError> {
        check_groups(picture)?;
        let mut groups_of: BTreeMap<&Name, Vec<&Name>> = BTreeMap::new();
        for group in picture.groups.values() {
            for vm in &group.vms {
                groups_of.entry(vm).or_default().extend(&group.waits_for);
            }
        }
        let waits_for = |vm: &Name| {
            let mut names: Vec<Name> =
                groups_of.get(vm).into_iter().flatten().map(|name| (*name).clone()).collect();
            names.retain(|name| picture.groups.contains_key(name));
            names.sort_unstable();
            names.dedup();
            names
        };
        let step = |vm: &Name, host: &Name| {
            let slot = picture.vms.get(vm)?;
            Some(StartStep {
                vm: vm.clone(),
                host: host.clone(),
                priority: slot.priority,
                readiness: slot.readiness,
                wave: 1,
                waits_for: waits_for(vm),
            })
        };
        let mut steps: Vec<StartStep> =
            plan.placed.iter().filter_map(|one| step(&one.vm, &one.host)).collect();
        steps.sort_by_key(|step| core::cmp::Reverse(step.priority));
        let step_of = steps.iter().enumerate().map(|(index, step)| (step.vm.clone(), index)).collect();
        let waited_for = steps.iter().flat_map(|step| &step.waits_for);
        let members = |name: &Name| Some((name.clone(), picture.groups.get(name)?.vms.clone()));
        let groups: BTreeMap<Name, Vec<Name>> = waited_for.filter_map(members).collect();
        let limit = |step: &StartStep| {
            let host = picture.hosts.get(&step.host)?;
            Some((step.host.clone(), host.start_limit().saturating_sub(host.starting).max(1)))
        };
        let limits = steps.iter().filter_map(limit).collect();
        let mut order = Self { steps, step_of, groups, absent: BTreeMap::new(), limits };
        order.note_absent(picture, plan);
        order.count_waves();
        Ok(order)
    }

    fn note_absent(&mut self, picture: &Picture, plan: &Plan) {
        let left_out: alloc::collections::BTreeSet<&Name> = plan.left_out.iter().map(|one| &one.vm).collect();
        for vm in self.groups.values().flatten().filter(|vm| !self.step_of.contains_key(*vm)) {
            let Some(slot) = picture.vms.get(vm) else { continue };
            let runs = slot.host.as_ref().is_some_and(|host| plan.failed.binary_search(host).is_err());
            if left_out.contains(vm) {
                self.absent.insert(vm.clone(), Absent::LeftOut(slot.readiness));
            } else if runs {
                self.absent.insert(vm.clone(), Absent::Runs);
            }
        }
    }

    /// One wave after the last that it waits for. Steps are by priority, so that what a step waits for has the same priority or one
    /// that was counted before; within a priority, rounds until nothing moves, and no more rounds than steps.
    fn count_waves(&mut self) {
        let mut done = 0;
        let mut floor = 0;
        while done < self.steps.len() {
            let priority = self.steps[done].priority;
            let end = done + self.steps[done..].iter().take_while(|step| step.priority == priority).count();
            for step in &mut self.steps[done..end] {
                step.wave = floor + 1;
            }
            for _ in done..end {
                let mut moved = false;
                for index in done..end {
                    let waits = self.steps[index].waits_for.iter().filter_map(|group| self.groups.get(group));
                    let before = waits.flatten().filter_map(|vm| self.step_of.get(vm));
                    let wave = before.map(|step| self.steps[*step].wave + 1).max().unwrap_or(1);
                    if wave > self.steps[index].wave {
                        self.steps[index].wave = wave;
                        moved = true;
                    }
                }
                if !moved {
                    break;
                }
            }
            floor = self.steps[done..end].iter().map(|step| step.wave).max().unwrap_or(floor);
            done = end;
        }
    }

    /// All starts, higher priorities first.
    pub fn steps(&self) -> &[StartStep] {
        &self.steps
    }

    /// The VMs that start in each wave, the first wave first.
    pub fn waves(&self) -> Vec<Vec<Name>> {
        let mut waves: BTreeMap<u32, Vec<Name>> = BTreeMap::new();
        for step in &self.steps {
            waves.entry(step.wave).or_default().push(step.vm.clone());
        }
        waves.into_values().collect()
    }
}
