//! What a rehearsal shows: the timeline, what became of each VM, and what each host was judged.

use super::cluster::Cluster;
use super::follow::{Course, Followed};
use super::{RehearsedFault, timeline};
use crate::world::{Told, World};
use mainstay_core::host_liveness::HostState;
use mainstay_core::register::Priority;
use mainstay_core::view::VmView;
use mainstay_core::{DatastoreName, Event, HostId, Refusal, Severity, Span, VmId};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The result of a rehearsal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rehearsed {
    /// What happens, in its order. The faults come first, at zero.
    pub timeline: Vec<Moment>,
    /// What becomes of each VM that takes part, by name.
    pub vms: Vec<VmOutcome>,
    /// What becomes of each host, by id.
    pub hosts: Vec<HostOutcome>,
    /// VMs that take no part, since the cluster does not run and protect them now.
    pub left_out: Vec<LeftOut>,
    /// What was assumed because the view does not say it, for people.
    pub assumptions: Vec<String>,
    /// How long after the faults the last thing happened.
    pub ended: Span,
    /// `false`: things were still happening at [`super::BOUND`], and the outcome is what was then.
    pub complete: bool,
}

/// Something that happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Moment {
    /// How long after the faults.
    pub after: Span,
    /// The host that tells it, or that a fault strikes.
    pub host: Option<HostId>,
    /// How much it matters.
    pub severity: Severity,
    /// What, in words.
    pub what: String,
}

/// What becomes of a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VmOutcome {
    /// The VM's name, as libvirt has it.
    pub vm: Arc<str>,
    /// Where it ran.
    pub from: Option<HostId>,
    /// Where it executes in the end.
    pub to: Option<HostId>,
    /// What became of it.
    pub outcome: Outcome,
    /// How long it did not execute. `None`: it always did, or it does not in the end.
    pub down_for: Option<Span>,
}

/// What becomes of a VM, in one word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Outcome {
    /// Nothing happened to it: it ran all the time.
    StayedUp,
    /// It goes on where it was, but its host has lost its datastore: its guest waits for its disk, or sees errors.
    WithoutStorage {
        /// The datastore that its host has lost.
        datastore: DatastoreName,
    },
    /// It stopped, and executes again.
    Restarted {
        /// How long after the faults.
        after: Span,
    },
    /// It was frozen and goes on where it was, without having been restarted.
    FrozenOnly,
    /// It is frozen where it was, until contact returns.
    StillFrozen,
    /// It waits: no host can take it.
    Waits {
        /// Why not, host by host.
        reasons: Vec<Refusal>,
    },
    /// It is down, and nobody tries to change that.
    StaysDown {
        /// Why it is down, in words for people.
        why: String,
        /// As its user wishes.
        wished: bool,
    },
}

/// What becomes of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostOutcome {
    /// The host, by its id.
    pub host: HostId,
    /// A fault strikes it.
    pub struck: bool,
    /// What others judged it to be, in their order. Those who are cut off themselves are not asked.
    pub judged: Vec<Judgement>,
    /// VMs that executed there before.
    pub vms_before: u32,
    /// VMs that execute there in the end.
    pub vms_after: u32,
}

/// What one host took another for, from some moment on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Judgement {
    /// How long after the faults.
    pub after: Span,
    /// The host whose view it is.
    pub by: HostId,
    /// What the host is in that view.
    pub state: HostState,
}

/// A VM that takes no part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// The VM's name, as libvirt has it.
    pub vm: Arc<str>,
    /// Why it takes no part, in words for people.
    pub why: String,
}

impl Rehearsed {
    /// VMs that do not run in the end, or run without their storage.
    pub fn not_well(&self) -> impl Iterator<Item = &VmOutcome> {
        self.vms.iter().filter(|vm| match &vm.outcome {
            Outcome::StayedUp | Outcome::Restarted { .. } | Outcome::FrozenOnly => false,
            Outcome::WithoutStorage { .. } | Outcome::StillFrozen | Outcome::Waits { .. } => true,
            Outcome::StaysDown { wished, .. } => !wished,
        })
    }
}

/// What is told of VMs after the faults, as far as their outcomes depend on it.
#[derive(Default)]
struct Heard<'a> {
    /// Started anew on some host.
    started: BTreeSet<VmId>,
    waits: BTreeMap<VmId, &'a [Refusal]>,
    /// Its owner has it stay down.
    off: BTreeMap<VmId, String>,
    /// By whom it was frozen.
    frozen: BTreeMap<VmId, usize>,
}

impl<'a> Heard<'a> {
    fn new(told: &'a [Told]) -> Heard<'a> {
        let mut heard = Heard::default();
        for told in told {
            if let Event::VmStarted { vm, .. } = &told.event {
                heard.started.insert(vm.id);
                heard.waits.remove(&vm.id);
            } else if let Event::VmWaitsForHost { vm, reasons } = &told.event {
                heard.waits.insert(vm.id, reasons);
            } else if let Event::VmStopped { vm, restart: false, cause, .. } = &told.event {
                heard.off.insert(vm.id, cause.to_string());
            } else if let Event::VmFrozen { vm } = &told.event {
                heard.frozen.insert(vm.id, told.host);
            } else if let Event::VmThawed { vm } | Event::VmCopyRemoved { vm, .. } = &told.event
                && heard.frozen.get(&vm.id) == Some(&told.host)
            {
                heard.frozen.remove(&vm.id);
            }
        }
        heard
    }
}

/// Everything that the result is made of.
struct Scene<'a> {
    world: &'a World,
    cluster: &'a Cluster,
    faults: &'a [RehearsedFault],
    fault_at: u64,
    heard: Heard<'a>,
    /// What an owner believes of VMs in the end: notes for what has no other words.
    beliefs: BTreeMap<VmId, VmView>,
}

/// Puts the result together. `times`: of the faults, and of the last thing that happened; and whether that was the last.
pub(super) fn result(
    world: &World,
    cluster: Cluster,
    faults: &[RehearsedFault],
    followed: &Followed,
    (fault_at, last, complete): (u64, u64, bool),
) -> Rehearsed {
    let first = world.told().partition_point(|told| told.at < fault_at);
    let told = &world.told()[first..];
    let scene = Scene {
        world,
        cluster: &cluster,
        faults,
        fault_at,
        heard: Heard::new(told),
        beliefs: beliefs(world),
    };
    let mut vms: Vec<VmOutcome> =
        (0..cluster.setup.vms.len()).map(|vm| scene.vm(vm, followed.of(vm))).collect();
    vms.sort_by(|a, b| a.vm.cmp(&b.vm));
    let hosts = (0..cluster.setup.hosts.len()).map(|host| scene.host(host, told, followed)).collect();
    Rehearsed {
        timeline: timeline::timeline(&cluster.setup, faults, told, fault_at),
        vms,
        hosts,
        ended: Span(last - fault_at),
        complete,
        left_out: cluster.left_out,
        assumptions: cluster.assumptions,
    }
}

/// What owners believe of the VMs whose datastores they own.
fn beliefs(world: &World) -> BTreeMap<VmId, VmView> {
    let views = (0..world.setup().hosts.len()).filter_map(|host| world.view(host));
    let mut found = BTreeMap::new();
    for view in views {
        let owned = view.datastores.iter().filter(|store| store.ownership_left.is_some());
        let owned: BTreeSet<_> = owned.map(|store| &store.datastore).collect();
        let vms = view.vms.iter().filter(|vm| owned.contains(&vm.datastore));
        found.extend(vms.map(|vm| (vm.vm, vm.clone())));
    }
    found
}

impl Scene<'_> {
    fn id(&self, host: usize) -> HostId {
        self.cluster.setup.hosts[host].id.clone()
    }

    fn vm(&self, vm: usize, course: Course) -> VmOutcome {
        let setup = &self.cluster.setup.vms[vm];
        let outcome = match course.on {
            Some(host) => self.of_running(vm, host, course),
            None => self.of_down(vm),
        };
        VmOutcome {
            vm: setup.name.clone(),
            from: Some(self.id(setup.host)),
            to: course.on.map(|host| self.id(host)),
            outcome,
            down_for: (course.on.is_some() && course.down > Span::ZERO).then_some(course.down),
        }
    }

    fn of_running(&self, vm: usize, host: usize, course: Course) -> Outcome {
        let setup = &self.cluster.setup.vms[vm];
        let datastore = &self.cluster.setup.datastores[setup.datastore].name;
        let moved = host != setup.host || self.heard.started.contains(&self.cluster.setup.vm_id(vm));
        match course.back {
            Some(back) if moved => Outcome::Restarted { after: Span(back - self.fault_at) },
            Some(_) | None if self.is_cut(host, datastore) => {
                Outcome::WithoutStorage { datastore: datastore.clone() }
            }
            Some(_) => Outcome::FrozenOnly,
            None => Outcome::StayedUp,
        }
    }

    fn of_down(&self, vm: usize) -> Outcome {
        let id = self.cluster.setup.vm_id(vm);
        let setup = &self.cluster.setup.vms[vm];
        let frozen = self.heard.frozen.get(&id);
        if let Some(reasons) = self.heard.waits.get(&id) {
            return Outcome::Waits { reasons: reasons.to_vec() };
        }
        if frozen.is_some_and(|host| self.world.powered(*host)) {
            return Outcome::StillFrozen;
        }
        if let Some(why) = self.heard.off.get(&id) {
            return Outcome::StaysDown { why: why.clone(), wished: true };
        }
        let mut wished = true;
        let why = if setup.priority == Priority::Disabled {
            String::from("its restart priority is disabled")
        } else if !self.cluster.expected[vm].protected {
            String::from("its user took it out of protection")
        } else {
            wished = false;
            let belief = self.beliefs.get(&id).and_then(|belief| belief.note.clone());
            let belief = belief.unwrap_or_else(|| String::from("no host owns its datastore"));
            format!("it was not restarted: {belief}")
        };
        Outcome::StaysDown { why, wished }
    }

    /// A fault has cut that host off from that datastore.
    fn is_cut(&self, host: usize, datastore: &DatastoreName) -> bool {
        let id = &self.cluster.setup.hosts[host].id;
        self.faults.iter().any(|fault| match fault {
            RehearsedFault::CutStorage(struck, which) => {
                struck == id && which.as_ref().is_none_or(|which| which == datastore)
            }
            RehearsedFault::Fail(_) | RehearsedFault::Isolate(_) => false,
        })
    }

    fn host(&self, host: usize, told: &[Told], followed: &Followed) -> HostOutcome {
        let id = self.id(host);
        let judged = told.iter().filter(|told| !timeline::is_cut_off(self.faults, &self.id(told.host)));
        let judged = judged.filter_map(|told| {
            let Event::HostStateChanged { host, to, .. } = &told.event else { return None };
            let after = Span(told.at - self.fault_at);
            (*host == id).then(|| Judgement { after, by: self.id(told.host), state: *to })
        });
        let vms = 0..self.cluster.setup.vms.len();
        let here = |vm: &usize| self.cluster.setup.vms[*vm].host == host;
        HostOutcome {
            judged: judged.collect(),
            struck: self.faults.iter().any(|fault| *fault.host() == id),
            vms_before: vms.clone().filter(here).count() as u32,
            vms_after: vms.filter(|vm| followed.of(*vm).on == Some(host)).count() as u32,
            host: id,
        }
    }
}
