//! Which alarms a step may raise, and which it must.

use mainstay_words::Event;
use mainstay_words::HostState;
use mainstay_words::ids::HostId;

use crate::support::id;

/// An alarm, as a step names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alarm {
    Failed(usize),
    AgentUnreachable(usize),
    /// Any host is failed or its agent unreachable, as seen by that one, which neither network nor storage reaches: so it says after
    /// three failure time-outs.
    SeenBy(usize),
    DatastoreLost(&'static str),
    /// Of that file.
    RegisterUnreadable(&'static str),
    NotProtectable(&'static str),
    /// By that host's own view, or another's.
    Isolated(usize),
    Frozen(&'static str),
    /// On that host.
    GuardLost(usize),
    Storm,
    /// Of any VM: no host can take it.
    WaitsForHost,
    /// Of any datastore.
    Suspended,
    /// Not all VMs would come back after another failure.
    Admission,
}

impl Alarm {
    pub fn is(&self, by: &HostId, event: &Event) -> bool {
        match (self, event) {
            (Alarm::Isolated(h), Event::HostIsolated)
            | (Alarm::GuardLost(h), Event::GuardLost | Event::GuardSilent | Event::GuardFailed { .. }) => {
                *by == id(*h)
            }
            (Alarm::GuardLost(h), Event::HostUnguarded { host, .. }) => *host == id(*h),
            (Alarm::Frozen(name), Event::VmFrozen { vm }) => *vm.name == **name,
            (Alarm::Storm, Event::StormSuspected { .. })
            | (Alarm::WaitsForHost, Event::VmWaitsForHost { .. })
            | (Alarm::Suspended, Event::ProtectionSuspended { .. })
            | (Alarm::Admission, Event::AdmissionNotMet { .. }) => true,
            (Alarm::Failed(h), Event::HostStateChanged { host, to: HostState::Failed, .. })
            | (Alarm::Isolated(h), Event::HostStateChanged { host, to: HostState::Isolated, .. })
            | (
                Alarm::AgentUnreachable(h),
                Event::HostStateChanged { host, to: HostState::AgentUnreachable, .. },
            ) => *host == id(*h),
            (
                Alarm::SeenBy(h),
                Event::HostStateChanged { to: HostState::Failed | HostState::AgentUnreachable, .. },
            ) => *by == id(*h),
            (Alarm::DatastoreLost(name), Event::DatastoreLost { datastore, .. }) => {
                datastore.as_str() == *name
            }
            (Alarm::RegisterUnreadable(file), Event::RegisterUnreadable { register, .. }) => {
                **register == **file
            }
            (Alarm::NotProtectable(name), Event::VmNotProtectable { vm, .. }) => *vm.name == **name,
            (
                Alarm::Failed(_)
                | Alarm::AgentUnreachable(_)
                | Alarm::SeenBy(_)
                | Alarm::DatastoreLost(_)
                | Alarm::RegisterUnreadable(_)
                | Alarm::NotProtectable(_)
                | Alarm::Isolated(_)
                | Alarm::Frozen(_)
                | Alarm::GuardLost(_)
                | Alarm::Storm
                | Alarm::WaitsForHost
                | Alarm::Suspended
                | Alarm::Admission,
                _,
            ) => false,
        }
    }
}

impl Alarm {
    /// While it stands, fewer hosts are there than usual.
    pub fn takes_a_host_away(&self) -> bool {
        match self {
            Alarm::Failed(_)
            | Alarm::AgentUnreachable(_)
            | Alarm::SeenBy(_)
            | Alarm::Isolated(_)
            | Alarm::DatastoreLost(_) => true,
            Alarm::RegisterUnreadable(_)
            | Alarm::NotProtectable(_)
            | Alarm::Frozen(_)
            | Alarm::GuardLost(_)
            | Alarm::Storm
            | Alarm::WaitsForHost
            | Alarm::Suspended
            | Alarm::Admission => false,
        }
    }
}

/// Which alarms a step may raise. Any other one is a failure.
#[derive(Default)]
pub struct Expect {
    /// They must come.
    pub must: Vec<Alarm>,
    /// They may come: whether they do is a matter of moments.
    pub may: Vec<Alarm>,
}

/// No alarm at all.
pub fn calm() -> Expect {
    Expect::default()
}

/// These, and no others.
pub fn alarms(must: &[Alarm]) -> Expect {
    Expect { must: must.to_vec(), may: Vec::new() }
}

/// Hosts boot: their kernels answer pings before their agents do, which may be seen or not.
pub fn returning(hosts: &[usize]) -> Expect {
    Expect { must: Vec::new(), may: hosts.iter().copied().map(Alarm::AgentUnreachable).collect() }
}

impl Expect {
    pub fn perhaps(mut self, may: &[Alarm]) -> Expect {
        self.may.extend_from_slice(may);
        self
    }
}
