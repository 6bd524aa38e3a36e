//! What becomes of each VM, by the world's own knowledge of who executes: no core's opinion.

use crate::world::World;
use mainstay_core::Span;

/// The course of all VMs since the faults.
pub(super) struct Followed {
    vms: Vec<Course>,
}

/// The course of a VM.
#[derive(Clone, Copy, Debug)]
pub(super) struct Course {
    /// Where it executes now.
    pub on: Option<usize>,
    /// When it last began or ceased to execute, in virtual microseconds.
    pub since: u64,
    /// How long it has not executed, as far as that is over.
    pub down: Span,
    /// When it first executed again after it had not.
    pub back: Option<u64>,
}

impl Followed {
    /// All VMs as they are at the instant of the faults.
    pub fn new(world: &World, fault_at: u64) -> Followed {
        let course = |vm| {
            let on = world.executing(vm).next();
            Course { on, since: fault_at, down: Span::ZERO, back: None }
        };
        Followed { vms: (0..world.setup().vms.len()).map(course).collect() }
    }

    /// Looks at the world; says whether any VM began or ceased to execute since the last look.
    pub fn look(&mut self, world: &World) -> bool {
        let mut moved = false;
        for (vm, course) in self.vms.iter_mut().enumerate() {
            let on = world.executing(vm).next();
            if on == course.on {
                continue;
            }
            moved = true;
            let at = world.last_change(vm);
            if course.on.is_none() {
                course.down = course.down + Span(at.saturating_sub(course.since));
            }
            if on.is_some() {
                course.back.get_or_insert(at);
            }
            course.on = on;
            course.since = at;
        }
        moved
    }

    /// Whether every VM executes somewhere.
    pub fn all_execute(&self) -> bool {
        self.vms.iter().all(|course| course.on.is_some())
    }

    /// The course of that VM.
    pub fn of(&self, vm: usize) -> Course {
        self.vms[vm]
    }
}
