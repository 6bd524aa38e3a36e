//! What runs well is left alone: the protocol ends, freezes or moves a VM only for a reason that is in the world.
//!
//! A host is *well* when nothing has befallen it for [`WELL_FOR`]: it has power, agent, guard, libvirtd, network and storage (which may
//! be slow, and whose registers may be damaged: neither is a fault of the host). On such a host
//!
//! - no VM is frozen,
//! - no VM that executes is ended, but by an order or an isolation response, or because it is granted to another host,
//! - no VM that executes is granted to another host, but by an order.
//!
//! And an isolation response comes only when its host has had no contact for the isolation time-out, less [`SLACK`].

use super::Violation;
use crate::setup::Setup;
use mainstay_core::register::ProtectedList;

const NAME: &str = "unharmed";

/// So long nothing has happened to a host that is well, in microseconds, beside [`BEATS`] heartbeats.
pub const WELL_FOR: u64 = 3_000_000;
/// See [`WELL_FOR`].
pub const BEATS: u64 = 20;

/// The last contact as a host knows it is a little older than as the world knows it, in microseconds.
pub const SLACK: u64 = 1_000_000;

/// Knows when something last befell each host.
#[derive(Clone, Debug)]
pub struct Unharmed {
    /// By host: when a fault last began or ended.
    befallen: Vec<u64>,
    /// By host: since when it has had no contact with anybody.
    alone_since: Vec<Option<u64>>,
    well_for: u64,
}

impl Unharmed {
    /// Nothing has happened.
    pub fn new(setup: &Setup) -> Unharmed {
        let longest = (0..setup.hosts.len()).map(|host| setup.timing_of(host).failure_timeout.0).max();
        let well_for = WELL_FOR + BEATS * setup.timing.heartbeat.0 + 2 * longest.unwrap_or(0);
        Unharmed {
            befallen: vec![0; setup.hosts.len()],
            alone_since: vec![None; setup.hosts.len()],
            well_for,
        }
    }

    /// Something befalls a host (`None`: all of them).
    pub fn on_fault(&mut self, at: u64, host: Option<usize>) {
        for (index, befallen) in self.befallen.iter_mut().enumerate() {
            if host.is_none_or(|host| host == index) {
                *befallen = at;
            }
        }
    }

    /// A host reaches somebody by network, or nobody any more.
    pub fn on_contact(&mut self, at: u64, host: usize, contact: bool) {
        let since = &mut self.alone_since[host];
        *since = if contact { None } else { since.or(Some(at)) };
    }

    /// Whether nothing has befallen that host for a while.
    pub fn left_in_peace(&self, at: u64, host: usize) -> bool {
        self.is_long(at, self.befallen[host])
    }

    /// Whether that is long ago.
    pub fn is_long(&self, at: u64, since: u64) -> bool {
        at > since + self.well_for
    }

    /// A VM that executes is frozen, and all hosts are well.
    pub fn on_freeze(&self, vm: usize, host: usize, setup: &Setup) -> Violation {
        Violation {
            checker: NAME,
            what: format!(
                "{} is frozen on {}, and every host is well",
                setup.vms[vm].name, setup.hosts[host].id
            ),
        }
    }

    /// A core ends a VM that executes on a host that is well; `list` is what is on disk.
    pub fn on_end(
        &self,
        vm: usize,
        host: usize,
        list: Option<&ProtectedList>,
        setup: &Setup,
    ) -> Option<Violation> {
        let entry = list.and_then(|list| list.entry(setup.vm_id(vm)));
        let reason = entry.is_none_or(|entry| {
            entry.holder.as_ref() != Some(&setup.hosts[host].id) || entry.order.is_some()
        });
        (!reason).then(|| Violation {
            checker: NAME,
            what: format!(
                "{} ends {}, which runs well there and is granted to it",
                setup.hosts[host].id, setup.vms[vm].name
            ),
        })
    }

    /// A protected list lands that takes a VM from the host that executes it and is well.
    pub fn on_grant(&self, vm: usize, from: usize, to: &str, setup: &Setup) -> Violation {
        Violation {
            checker: NAME,
            what: format!(
                "{} is granted to {to}, and runs well on {}",
                setup.vms[vm].name, setup.hosts[from].id
            ),
        }
    }

    /// An isolation response is applied.
    pub fn on_response(&self, at: u64, vm: usize, host: usize, setup: &Setup) -> Option<Violation> {
        let alone = self.alone_since[host].map_or(0, |since| at.saturating_sub(since));
        let timing = setup.hosts[host].timing.unwrap_or(setup.timing);
        let patience = setup.isolation_timeout.unwrap_or_else(|| timing.isolation_timeout());
        (alone + SLACK < patience.0).then(|| Violation {
            checker: NAME,
            what: format!(
                "{} stops {} for isolation, {} ms after its last contact",
                setup.hosts[host].id,
                setup.vms[vm].name,
                alone / 1_000
            ),
        })
    }
}
