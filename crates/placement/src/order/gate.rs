//! Which VMs may start now, and what each of the others waits for.

use super::{Absent, StartPlan, StartStep};
use crate::picture::{Name, Priority, Readiness};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::fmt;

/// What has become of a VM of the plan. Times are in milliseconds, on any one clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// When it was started first. Later tries don't change this.
    pub first_start: Option<u64>,
    /// A start of it is under way on its host.
    pub starting: bool,
    /// Since when its ready condition is met.
    pub ready_since: Option<u64>,
}

/// What a VM waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Because {
    /// VMs of a higher priority are not ready.
    Priority {
        /// The first of them.
        vm: Name,
        /// The priority of that VM, which is higher than the waiting one's.
        priority: Priority,
        /// Its ready condition.
        readiness: Readiness,
        /// How many more there are.
        others: u32,
    },
    /// A VM in a group that it waits for is not ready.
    Group {
        /// The name of the group that is waited for.
        group: Name,
        /// The first such VM.
        vm: Name,
        /// Its ready condition.
        readiness: Readiness,
        /// How many more there are.
        others: u32,
    },
    /// As many are starting on its host as are allowed.
    Host {
        /// The host on which the waiting VM is to start.
        host: Name,
        /// How many are allowed.
        limit: u32,
    },
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = |f: &mut fmt::Formatter<'_>, others: u32| match others {
            0 => Ok(()),
            _ => write!(f, ", and for {others} more"),
        };
        let after = |f: &mut fmt::Formatter<'_>, readiness: &Readiness| match readiness.delay_ms {
            0 => Ok(()),
            delay => write!(f, " and {} s have passed", delay.div_ceil(1000)),
        };
        match self {
            Self::Priority { vm, priority, readiness, others } => {
                write!(f, "waits for {vm} (priority {priority}) until {}", readiness.when)?;
                after(f, readiness)?;
                more(f, *others)
            }
            Self::Group { group, vm, readiness, others } => {
                write!(f, "waits for {vm} of group `{group}` until {}", readiness.when)?;
                after(f, readiness)?;
                more(f, *others)
            }
            Self::Host { host, limit } => {
                write!(f, "{limit} VMs are starting on {host}, and no more may at once")
            }
        }
    }
}

/// A VM that may not start yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The VM that does not start yet.
    pub vm: Name,
    /// All that it waits for.
    pub because: Vec<Because>,
}

/// What to do now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Next {
    /// These start now.
    pub start: Vec<StartStep>,
    /// These are placed and wait, each with what it waits for.
    pub waiting: Vec<Waiting>,
    /// VMs that others no longer wait for because the time-out is over: to be told, since their order was given up.
    pub given_up_on: Vec<Name>,
    /// When to ask again if nothing is reported before.
    pub look_again: Option<u64>,
}

/// Whether others may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Release {
    Released,
    TimedOut,
    /// At this time at the latest, if it is known.
    Holds(Option<u64>),
}

impl StartPlan {
    /// What may start at `now`, when the plan began at `began` and this has become of its VMs.
    pub fn next(&self, progress: &BTreeMap<Name, Progress>, began: u64, now: u64) -> Next {
        let mut gate =
            Gate { plan: self, progress, began, now, next: Next::default(), starting: BTreeMap::new() };
        for step in &self.steps {
            if gate.of(&step.vm).starting {
                *gate.starting.entry(&step.host).or_default() += 1;
            }
        }
        let higher = gate.higher_priorities();
        for step in &self.steps {
            gate.step(step, &higher);
        }
        let mut next = gate.next;
        next.given_up_on.sort_unstable();
        next.given_up_on.dedup();
        next
    }
}

struct Gate<'a> {
    plan: &'a StartPlan,
    progress: &'a BTreeMap<Name, Progress>,
    began: u64,
    now: u64,
    next: Next,
    starting: BTreeMap<&'a Name, u32>,
}

/// Who holds up those of lower priorities: the first, and how many there are.
type Held<'a> = BTreeMap<Priority, (&'a StartStep, u32)>;

impl<'a> Gate<'a> {
    fn of(&self, vm: &Name) -> Progress {
        self.progress.get(vm).copied().unwrap_or_default()
    }

    fn release(&self, vm: &Name, readiness: &Readiness) -> Release {
        let progress = self.of(vm);
        let ready = progress.ready_since.map(|since| since.saturating_add(readiness.delay_ms));
        if ready.is_some_and(|ready| ready <= self.now) {
            return Release::Released;
        }
        let timeout = progress.first_start.map(|first| first.saturating_add(readiness.timeout_ms));
        match timeout {
            Some(timeout) if timeout <= self.now => Release::TimedOut,
            Some(_) | None => Release::Holds(ready.into_iter().chain(timeout).min()),
        }
    }

    fn release_of_member(&self, vm: &Name) -> Option<(Release, Readiness)> {
        if let Some(step) = self.plan.step_of.get(vm).and_then(|step| self.plan.steps.get(*step)) {
            return Some((self.release(vm, &step.readiness), step.readiness));
        }
        match self.plan.absent.get(vm)? {
            Absent::Runs => None,
            Absent::LeftOut(readiness) => {
                let since = self.of(vm).first_start.unwrap_or(self.began);
                let until = since.saturating_add(readiness.timeout_ms);
                let over = until <= self.now;
                Some((if over { Release::TimedOut } else { Release::Holds(Some(until)) }, *readiness))
            }
        }
    }

    /// Notes what a release means for the next look. True: it holds others up.
    fn holds(&mut self, vm: &Name, release: Release) -> bool {
        match release {
            Release::Released => false,
            Release::TimedOut => {
                self.next.given_up_on.push(vm.clone());
                false
            }
            Release::Holds(until) => {
                self.next.look_again = self.next.look_again.into_iter().chain(until).min();
                true
            }
        }
    }

    /// Starts that wait for a group with a member that was left out, or for one of these.
    fn stuck(&self) -> BTreeSet<&'a Name> {
        let plan = self.plan;
        let mut stuck = BTreeSet::new();
        let missing = |vm: &Name| {
            matches!(plan.absent.get(vm), Some(Absent::LeftOut(_)))
                && matches!(self.release_of_member(vm), Some((Release::Holds(_), _)))
        };
        let mut grows = plan.absent.values().any(|absent| matches!(absent, Absent::LeftOut(_)));
        while grows {
            let known = stuck.len();
            for step in plan.steps.iter().filter(|step| self.of(&step.vm).first_start.is_none()) {
                let mut members = step.waits_for.iter().filter_map(|group| plan.groups.get(group)).flatten();
                if members.any(|vm| stuck.contains(vm) || missing(vm)) {
                    stuck.insert(&step.vm);
                }
            }
            grows = stuck.len() > known;
        }
        stuck
    }

    /// Per priority, what holds up all below it. Not what waits for somebody who was left out: that may take minutes.
    fn higher_priorities(&mut self) -> Held<'a> {
        let mut held = Held::new();
        let stuck = self.stuck();
        let lowest = self.plan.steps.iter().map(|step| step.priority).min();
        let higher = self.plan.steps.iter().filter(|step| Some(step.priority) != lowest);
        for step in higher.filter(|step| !stuck.contains(&step.vm)) {
            let release = self.release(&step.vm, &step.readiness);
            if self.holds(&step.vm, release) {
                held.entry(step.priority).or_insert((step, 0)).1 += 1;
            }
        }
        held
    }

    fn step(&mut self, step: &'a StartStep, higher: &Held<'a>) {
        if self.of(&step.vm).first_start.is_some() {
            return;
        }
        let mut because = Vec::new();
        // The highest that holds; the rest of them only as a number.
        let above = || higher.range((core::ops::Bound::Excluded(step.priority), core::ops::Bound::Unbounded));
        if let Some((priority, (first, _))) = above().next_back() {
            let others = above().map(|(_, (_, count))| count).sum::<u32>() - 1;
            let (vm, readiness) = (first.vm.clone(), first.readiness);
            because.push(Because::Priority { vm, priority: *priority, readiness, others });
        }
        for group in &step.waits_for {
            because.extend(self.group(group));
        }
        let limit = self.plan.limits.get(&step.host).copied().unwrap_or(u32::MAX);
        let starting = self.starting.entry(&step.host).or_default();
        if because.is_empty() && *starting >= limit {
            because.push(Because::Host { host: step.host.clone(), limit });
        }
        if because.is_empty() {
            *starting += 1;
            self.next.start.push(step.clone());
        } else {
            self.next.waiting.push(Waiting { vm: step.vm.clone(), because });
        }
    }

    fn group(&mut self, group: &Name) -> Option<Because> {
        let plan = self.plan;
        let mut first: Option<(&Name, Readiness)> = None;
        let mut count = 0u32;
        for vm in plan.groups.get(group).into_iter().flatten() {
            let Some((release, readiness)) = self.release_of_member(vm) else { continue };
            if self.holds(vm, release) {
                first = first.or(Some((vm, readiness)));
                count += 1;
            }
        }
        let (vm, readiness) = first?;
        Some(Because::Group { group: group.clone(), vm: vm.clone(), readiness, others: count - 1 })
    }
}
