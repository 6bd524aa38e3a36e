//! The core of a rehearsed host, with what a [`crate::Setup`] has no words for: what of the host is not the simulated VMs', and how
//! many VMs it starts at once.
//!
//! It decides nothing: it only adds to what the world tells its core about the host.

use crate::node::{Node, real_core};
use mainstay_core::{Capacity, Config, Effect, HostId, Input, Time, View};
use std::cell::RefCell;
use std::rc::Rc;

/// What of a host's capacity the world does not know: it knows the memory that simulated VMs may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// All of its memory.
    pub memory_mib: u64,
    pub cpus: u32,
    /// Domains that are not simulated.
    pub others: u32,
}

/// What the nodes of a rehearsal share.
#[derive(Debug)]
pub(super) struct Plan {
    pub rooms: Vec<(HostId, Room)>,
    pub concurrent_starts: u32,
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
    Ok(Box::new(Rehearsing { core: real_core(config, now)?, room }))
}

struct Rehearsing {
    core: Box<dyn Node>,
    room: Room,
}

impl Node for Rehearsing {
    fn step(&mut self, now: Time, input: Input, effects: &mut Vec<Effect>) {
        let input = if let Input::Capacity(of_world) = input {
            Input::Capacity(Capacity {
                memory_mib: self.room.memory_mib,
                memory_free_mib: of_world.memory_free_mib,
                cpus: self.room.cpus,
                domains: of_world.domains.saturating_add(self.room.others),
            })
        } else {
            input
        };
        self.core.step(now, input, effects);
    }

    fn next_deadline(&self) -> Time {
        self.core.next_deadline()
    }

    fn view(&self, now: Time) -> Option<View> {
        self.core.view(now)
    }
}
