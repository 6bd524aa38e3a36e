//! The core of a rehearsed host, with what a [`crate::Setup`] has no words for: each host's own memory, how many VMs it starts
//! at once, and what users have asked for for single VMs.
//!
//! It decides nothing: it tells its core the capacity of that host instead of the world's, and gives the owner the operators'
//! commands once, when the VM has become protected.

use crate::node::{Node, real_core};
use mainstay_core::{
    Capacity, Command, Config, Domain, DomainState, Effect, Event, HostId, Input, OpId, Time, View, VmAction,
    VmId, VmOutcome,
};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// The memory of a host.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// All of it.
    pub memory_mib: u64,
    /// What the simulated VMs may take together.
    pub for_vms_mib: u64,
    pub cpus: u32,
    /// Domains that are not simulated.
    pub others: u32,
}

/// Something that was asked for in the real cluster: asked again here, of the owner, when that VM has become protected.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub after: VmId,
    pub command: Command,
}

/// What the nodes of a rehearsal share.
#[derive(Debug)]
pub(super) struct Plan {
    pub rooms: Vec<(HostId, Room)>,
    pub wishes: Vec<Wish>,
    /// What each VM takes.
    pub memory_mib: BTreeMap<VmId, u64>,
    pub concurrent_starts: u32,
    /// VMs whose wishes were passed on.
    pub wished: RefCell<BTreeSet<VmId>>,
}

thread_local! {
    // Why a thread's own: the world makes nodes by a plain function, which can't bring anything along.
    static STAGED: RefCell<Option<Rc<Plan>>> = const { RefCell::new(None) };
}

/// Nodes made on this thread follow that plan until this is dropped.
pub(super) struct Staged(Option<Rc<Plan>>);

impl Drop for Staged {
    fn drop(&mut self) {
        let former = self.0.take();
        STAGED.with(|staged| *staged.borrow_mut() = former);
    }
}

/// Nodes made on this thread follow that plan from now on.
pub(super) fn stage(plan: Rc<Plan>) -> Staged {
    Staged(STAGED.with(|staged| staged.borrow_mut().replace(plan)))
}

/// Makes the node of a rehearsed host.
pub(super) fn rehearsing_node(config: Config, now: Time) -> Result<Box<dyn Node>, String> {
    let Some(plan) = STAGED.with(|staged| staged.borrow().clone()) else {
        return Err(String::from("a node of a rehearsal was made outside of one"));
    };
    let room = plan.rooms.iter().find(|(host, _)| *host == config.me).map(|(_, room)| *room);
    let Some(room) = room else {
        return Err(format!("{} is not a host of this rehearsal", config.me));
    };
    let config = Config { concurrent_starts: plan.concurrent_starts, ..config };
    Ok(Box::new(Rehearsing {
        core: real_core(config, now)?,
        plan,
        room,
        active: BTreeMap::new(),
        starts: BTreeMap::new(),
    }))
}

struct Rehearsing {
    core: Box<dyn Node>,
    plan: Rc<Plan>,
    room: Room,
    /// Domains that have a QEMU here, with their memory.
    active: BTreeMap<VmId, u64>,
    /// Starts under way.
    starts: BTreeMap<OpId, VmId>,
}

impl Rehearsing {
    fn capacity(&self) -> Capacity {
        let used: u64 = self.active.values().sum();
        Capacity {
            memory_mib: self.room.memory_mib,
            memory_free_mib: self.room.for_vms_mib.saturating_sub(used),
            cpus: self.room.cpus,
            domains: self.room.others + self.active.len() as u32,
        }
    }

    fn see(&mut self, domain: &Domain) {
        let memory = domain.spec.as_ref().map_or(0, |spec| spec.memory_mib);
        match domain.state {
            DomainState::Running | DomainState::Prepared | DomainState::Incoming => {
                self.active.insert(domain.vm, memory);
            }
            DomainState::Stopped(_) => {
                self.active.remove(&domain.vm);
            }
        }
    }

    /// Takes in what tells which VMs are here, if that is what it is.
    fn see_all(&mut self, input: &Input) -> bool {
        if let Input::Domains { domains, .. } = input {
            self.active.clear();
            domains.iter().for_each(|domain| self.see(domain));
            return true;
        }
        if let Input::Domain { domain, .. } = input {
            self.see(domain);
            return true;
        }
        if let Input::VmDone { op, outcome } = input
            && let Some(vm) = self.starts.remove(op)
            && *outcome == VmOutcome::Done
        {
            let memory = self.plan.memory_mib.get(&vm).copied().unwrap_or_default();
            self.active.insert(vm, memory);
            return true;
        }
        false
    }

    /// Notes what is being started: its memory is taken as soon as it is there.
    fn note_starts(&mut self, effects: &[Effect]) {
        for effect in effects {
            if let Effect::Vm { op, action: VmAction::Prepare { vm, .. } } = effect {
                self.starts.insert(*op, *vm);
            }
        }
    }

    /// The commands for VMs that have just become protected, once.
    fn commands(&self, effects: &[Effect]) -> Vec<Command> {
        let mut found = Vec::new();
        if self.plan.wishes.is_empty() {
            return found;
        }
        for effect in effects {
            let Effect::Event(Event::VmProtected { vm, .. }) = effect else { continue };
            if self.plan.wished.borrow_mut().insert(vm.id) {
                let due = self.plan.wishes.iter().filter(|wish| wish.after == vm.id);
                found.extend(due.map(|wish| wish.command.clone()));
            }
        }
        found
    }
}

impl Node for Rehearsing {
    fn step(&mut self, now: Time, input: Input, effects: &mut Vec<Effect>) {
        let news = self.see_all(&input);
        if news {
            // Before the news itself: what the owner learns of both is then never the VM without its memory.
            self.core.step(now, Input::Capacity(self.capacity()), effects);
        }
        let of_world = matches!(input, Input::Capacity(_));
        self.core.step(now, if of_world { Input::Capacity(self.capacity()) } else { input }, effects);
        self.note_starts(effects);
        for command in self.commands(effects) {
            // Nobody waits for the answer: the world knows no such request.
            self.core.step(now, Input::Operator { request: u64::MAX, command }, effects);
        }
    }

    fn next_deadline(&self) -> Time {
        self.core.next_deadline()
    }

    fn view(&self, now: Time) -> Option<View> {
        self.core.view(now)
    }
}
