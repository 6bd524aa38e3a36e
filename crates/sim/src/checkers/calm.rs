//! Nobody storms: a decision that is taken again and again shows as a flood of list writes before it shows as anything else.

use super::Violation;
use crate::setup::Setup;
use mainstay_core::RegisterId;
use std::collections::BTreeMap;

/// More writes than this of one list within [`WINDOW`] are a storm. Ten VMs that fail over at once take some dozens.
const WRITES_MAX: u64 = 400;
/// In virtual microseconds.
const WINDOW: u64 = 10_000_000;

/// The checker.
#[derive(Clone, Debug)]
pub struct Calm {
    counts: Vec<BTreeMap<RegisterId, u64>>,
    window: u64,
}

impl Calm {
    /// Nothing was written.
    pub fn new(setup: &Setup) -> Calm {
        Calm { counts: vec![BTreeMap::new(); setup.datastores.len()], window: 0 }
    }

    /// A register write landed.
    pub fn on_land(
        &mut self,
        at: u64,
        store: usize,
        register: &RegisterId,
        setup: &Setup,
    ) -> Option<Violation> {
        match register {
            RegisterId::Heartbeat(_) | RegisterId::Ownership(_) => return None,
            RegisterId::PowerOn(_) | RegisterId::ProtectedList(_) => {}
        }
        if at / WINDOW != self.window {
            self.window = at / WINDOW;
            self.counts.iter_mut().for_each(BTreeMap::clear);
        }
        let count = self.counts[store].entry(register.clone()).or_default();
        *count += 1;
        (*count > WRITES_MAX).then(|| Violation {
            checker: "calm",
            what: format!(
                "{register:?} of {} was written {count} times within {} s",
                setup.datastores[store].name,
                WINDOW / 1_000_000
            ),
        })
    }
}
