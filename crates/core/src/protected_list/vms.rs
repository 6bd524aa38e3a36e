//! All VMs of a list, and when the next of them is due.
//!
//! Why the answer is remembered: it is asked for twice in every step, and needs a look at each VM.
//!
//! Invariant: it is what a look at each VM would find. So it is no state: it is not compared, hashed or written, and whoever may
//! change a VM makes it forgotten.
//!
//! It does not know what a VM is due for.

use super::vm::ListedVm;
use crate::ids::VmId;
use crate::time::Time;
use crate::timing::Timing;
use alloc::collections::BTreeMap;
use core::hash::{Hash, Hasher};
use core::ops::{Deref, DerefMut};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Vms {
    all: BTreeMap<VmId, ListedVm>,
    #[serde(skip)]
    due: Due,
}

/// When the next VM is due that was not due yet at the time of the question.
#[derive(Clone, Copy, Debug)]
struct Answer {
    asked: Time,
    due: Option<Time>,
}

#[derive(Clone, Debug, Default)]
struct Due(Option<Answer>);

impl PartialEq for Due {
    fn eq(&self, _: &Due) -> bool {
        true
    }
}

impl Eq for Due {}

impl Hash for Due {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl Vms {
    pub(super) fn new(all: BTreeMap<VmId, ListedVm>) -> Vms {
        Vms { all, due: Due::default() }
    }

    /// Remembers the answer for questions from then on.
    pub(super) fn remember_deadline(&mut self, timing: &Timing, now: Time) {
        if self.remembered(now).is_none() {
            let due = self.find_deadline(timing, now);
            self.due = Due(Some(Answer { asked: now, due }));
        }
    }

    /// When the next VM is to be reviewed although nothing happened.
    pub(super) fn deadline(&self, timing: &Timing, now: Time) -> Option<Time> {
        let Some(answer) = self.remembered(now) else { return self.find_deadline(timing, now) };
        debug_assert_eq!(answer.due, self.find_deadline(timing, now), "a VM's deadline changed by itself");
        answer.due
    }

    /// The answer stands until the time that it names.
    fn remembered(&self, now: Time) -> Option<Answer> {
        self.due.0.filter(|answer| answer.asked <= now && answer.due.is_none_or(|at| at > now))
    }

    fn find_deadline(&self, timing: &Timing, now: Time) -> Option<Time> {
        self.all.values().filter_map(|vm| vm.deadline(timing, now)).min()
    }
}

impl Deref for Vms {
    type Target = BTreeMap<VmId, ListedVm>;

    fn deref(&self) -> &BTreeMap<VmId, ListedVm> {
        &self.all
    }
}

impl DerefMut for Vms {
    fn deref_mut(&mut self) -> &mut BTreeMap<VmId, ListedVm> {
        self.due = Due::default();
        &mut self.all
    }
}
