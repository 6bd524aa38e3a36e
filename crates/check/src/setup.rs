//! What is explored: the hosts, their times, which faults may befall them, and for how long a run goes on.

use mainstay_core::register::{Priority, VmSpec};
use mainstay_core::{BootId, Core, DatastoreName, HostId, Span, Timing, VmId, XmlId};
use mainstay_guard_core::Guard;

/// One second in microseconds, the unit of a world's clock.
pub const SECOND: u64 = 1_000_000;

/// The ids of hosts. The larger, the better it ranks.
const IDS: [&str; 4] = ["h1", "h2", "h3", "h4"];

/// A fault, or a deed of a user, that may come over the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The host's management network is cut, both ways.
    NetworkCut(usize),
    /// The host's register operations neither land nor are answered.
    StorageHang(usize),
    /// Both at once: a switch that carries both.
    Outage(usize),
    /// The host loses power; its repair is a boot.
    PowerLoss(usize),
    /// The host's agent dies (guard and VM go on); its repair is a new one.
    AgentKill(usize),
    /// The host's agent is asked to stop: it hands over. Its repair is a new one.
    AgentStop(usize),
    /// The VM's user shuts it down.
    UserShutdown,
}

/// A fault on the menu: it may happen once, at an instant of the grid within these bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Menu {
    /// What goes wrong.
    pub fault: Fault,
    /// No later than this after the start.
    pub until: u64,
    /// Whether it may be repaired, at any later instant of the grid.
    pub repaired: bool,
}

/// How much may go otherwise than by default in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bounds {
    /// Operations that are held back.
    pub delays: u8,
    /// Faults of the menu that may come in one run.
    pub faults: u8,
}

/// Which operations may be held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Holds {
    /// Register writes: late, or landed and not answered.
    pub writes: bool,
    /// Register reads: answered late.
    pub reads: bool,
    /// Heartbeats, their answers, and hints of a new list: late, overtaken or lost.
    pub messages: bool,
    /// What libvirt is asked to do.
    pub libvirt: bool,
}

impl Holds {
    /// All of them.
    pub const ALL: Holds = Holds { writes: true, reads: true, messages: true, libvirt: true };
}

/// Everything about a world that does not change.
#[derive(Clone, Debug)]
pub struct Setup {
    /// How many hosts.
    pub hosts: usize,
    /// The host on which the VM runs at first. The host with the largest number is primary and owner.
    pub vm_on: usize,
    /// The protocol's times.
    pub timing: Timing,
    /// What may go wrong.
    pub menu: Vec<Menu>,
    /// How much of it in one run.
    pub bounds: Bounds,
    /// Which operations may be held back.
    pub holds: Holds,
    /// Faults and repairs come, and what is held is let go, at the first instant in each such span (what is held also at the
    /// end of the instant in which it was held).
    pub grid: u64,
    /// Where a run ends, in microseconds after its start.
    pub horizon: u64,
    /// Whether the file that a run of a host's agent finds (the first is 1) has that other host.
    pub knows: fn(host: usize, run: u64, other: usize) -> bool,
    /// Applied to every core: tests break rules with it.
    pub alter_core: fn(Core) -> Core,
    /// Applied to every guard.
    pub alter_guard: fn(Guard) -> Guard,
}

/// Times that keep runs short: everything is a multiple of 250 ms, and F is just above L and the freeze bound.
pub const TIMING: Timing = Timing {
    heartbeat: Span::from_millis(1_000),
    lease: Span::from_millis(3_000),
    failure_timeout: Span::from_millis(3_500),
};

impl Setup {
    /// Two hosts, one datastore, one VM: on the owner (1), or on the other host (0).
    pub fn two_hosts(vm_on: usize) -> Setup {
        let until = |until, fault| Menu { fault, until, repaired: true };
        let menu = vec![
            until(SECOND, Fault::Outage(vm_on)),
            until(6 * SECOND, Fault::NetworkCut(0)),
            until(6 * SECOND, Fault::StorageHang(0)),
            until(6 * SECOND, Fault::StorageHang(1)),
            until(6 * SECOND, Fault::PowerLoss(0)),
            until(6 * SECOND, Fault::PowerLoss(1)),
            until(6 * SECOND, Fault::AgentKill(0)),
            until(6 * SECOND, Fault::AgentKill(1)),
            Menu { fault: Fault::UserShutdown, until: 6 * SECOND, repaired: false },
            until(6 * SECOND, Fault::AgentStop(1)),
        ];
        Setup {
            hosts: 2,
            vm_on,
            timing: TIMING,
            menu,
            bounds: Bounds { delays: 0, faults: 1 },
            holds: Holds::ALL,
            grid: SECOND / 2,
            horizon: 12 * SECOND,
            knows: |_, _, _| true,
            alter_core: |core| core,
            alter_guard: |guard| guard,
        }
    }

    /// Three hosts: the ownership changes hands while a third host lives on leases by network.
    pub fn three_hosts() -> Setup {
        let until = |until, fault| Menu { fault, until, repaired: true };
        let menu = vec![
            until(SECOND, Fault::StorageHang(2)),
            until(SECOND, Fault::StorageHang(0)),
            until(SECOND, Fault::NetworkCut(1)),
            until(SECOND, Fault::NetworkCut(2)),
            until(SECOND, Fault::PowerLoss(2)),
            until(SECOND, Fault::AgentKill(2)),
            until(SECOND, Fault::AgentStop(2)),
            until(2 * SECOND, Fault::Outage(0)),
        ];
        Setup { hosts: 3, menu, bounds: Bounds { delays: 0, faults: 2 }, ..Setup::two_hosts(0) }
    }

    pub(crate) fn id(&self, host: usize) -> HostId {
        HostId::from(IDS[host])
    }

    pub(crate) fn index(&self, id: &HostId) -> Option<usize> {
        IDS[..self.hosts].iter().position(|known| *known == id.as_str())
    }
}

/// The one datastore of every world.
pub(crate) fn store() -> DatastoreName {
    DatastoreName::from("ds")
}

/// The one VM of every world.
pub(crate) const VM: VmId = VmId([0xaa; 16]);

/// A host's boot.
pub(crate) fn boot_id(host: usize, boot: u64) -> BootId {
    let mut bytes = [0; 16];
    bytes[0] = host as u8 + 1;
    bytes[15] = boot as u8;
    BootId(bytes)
}

/// What the VM needs.
pub(crate) fn spec() -> VmSpec {
    VmSpec { xml: XmlId(1), memory_mib: 1_024, vcpus: 1, priority: Priority::Medium, ..VmSpec::default() }
}
