//! Nobody storms: a decision that is taken again and again shows as a flood of list writes before it shows as anything else.

use super::Violation;
use crate::setup::Setup;
use mainstay_core::RegisterId;
use std::collections::BTreeMap;

/// More writes than this of one list within [`WINDOW`] are a storm. Ten VMs that fail over at once take some dozens.
const WRITES_MAX: u64 = 400;
/// In virtual microseconds.
const WINDOW: u64 = 10_000_000;

/// More steps than this of one core within [`WINDOW`], only because it asked to be woken: a deadline lies in the past for good.
const TICKS_MAX: u64 = 4_000;

/// Counts steps and list writes, and finds floods of them.
#[derive(Clone, Debug)]
pub struct Calm {
    counts: Vec<BTreeMap<RegisterId, u64>>,
    window: u64,
    ticks: Vec<u64>,
    tick_window: u64,
}

impl Calm {
    /// Nothing was written.
    pub fn new(setup: &Setup) -> Calm {
        Calm {
            counts: vec![BTreeMap::new(); setup.datastores.len()],
            window: 0,
            ticks: vec![0; setup.hosts.len()],
            tick_window: 0,
        }
    }

    /// A core was woken because it asked for that.
    pub fn on_tick(&mut self, at: u64, host: usize, setup: &Setup) -> Option<Violation> {
        if at / WINDOW != self.tick_window {
            self.tick_window = at / WINDOW;
            self.ticks.iter_mut().for_each(|count| *count = 0);
        }
        self.ticks[host] += 1;
        (self.ticks[host] > TICKS_MAX).then(|| Violation {
            checker: "calm",
            what: format!(
                "{} asked to be woken {} times within {} s",
                setup.hosts[host].id,
                self.ticks[host],
                WINDOW / 1_000_000
            ),
        })
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
