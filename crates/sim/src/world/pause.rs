//! A host that stands still as a whole, kernel, guard and guests alike, and goes on later: a machine that is itself a guest, a
//! firmware that takes its time. Its clock goes on.
//!
//! The assumption about what follows: when it goes on, the guard is scheduled before the guests are (it has real-time priority, and
//! theirs are ordinary threads). A VM whose lease ended meanwhile does not execute any more before it is frozen.

use super::World;
use super::hypervisor::QemuState;
use super::queue::Happening;
use crate::action::Action;

impl World {
    /// Everything on that host stands still.
    pub(super) fn host_pause(&mut self, host: usize) {
        if !self.hosts[host].powered || self.hosts[host].paused {
            return;
        }
        self.record.seen.saw("host paused");
        let running: Vec<_> = self.hosts[host].domains.iter().map(|(vm, qemu)| (*vm, *qemu)).collect();
        for (vm, qemu) in running {
            self.halted(host, vm, qemu);
        }
        self.hosts[host].paused = true;
    }

    /// It goes on.
    pub(super) fn host_resume(&mut self, host: usize) {
        if !std::mem::replace(&mut self.hosts[host].paused, false) {
            return;
        }
        let running: Vec<_> = self.hosts[host].domains.iter().map(|(vm, qemu)| (*vm, *qemu)).collect();
        for (vm, qemu) in running {
            if qemu.frozen {
                continue;
            }
            let executes = qemu.state == QemuState::Running && !qemu.io_error;
            // Those that do not execute yet as well, by a guard that lives: an order to resume one may be under way.
            if self.lease_has_ended(host, vm) && (executes || self.guard_works(host)) {
                if executes {
                    self.record.seen.saw("lease ended while its host was paused");
                }
                if let Some(qemu) = self.hosts[host].domains.get_mut(&vm) {
                    qemu.frozen = true;
                }
            } else if executes {
                self.execute(host, vm);
            }
        }
        for what in std::mem::take(&mut self.hosts[host].deferred) {
            // No more faults in a world that has been healed.
            if !(self.peace.healed && matches!(what, Happening::Act(_))) {
                self.queue.push(self.now, what);
            }
        }
    }

    /// Whether that happens on a host that stands still, and so has to wait. What is done to the host itself does not.
    pub(super) fn defer(&mut self, what: Happening) -> Option<Happening> {
        let host = match &what {
            Happening::Tick { host, .. }
            | Happening::Deliver { host, .. }
            | Happening::Prepare { host, .. }
            | Happening::Domain { host, .. }
            | Happening::DomainNews { host, .. }
            | Happening::DomainLook { host, .. }
            | Happening::LookAfresh { host, .. }
            | Happening::HypervisorNews { host }
            | Happening::Resync { host, .. }
            | Happening::AgentStart { host, .. }
            | Happening::GuardStart { host, .. }
            | Happening::AgentEnds { host, .. }
            | Happening::StrayLook { host, .. }
            | Happening::GuardTick { host, .. }
            | Happening::ToGuard { host, .. }
            | Happening::GuardDeed { host, .. }
            | Happening::IoError { host, .. }
            | Happening::GuestDown { host, .. }
            | Happening::Datagram { to: host, .. } => Some(*host),
            Happening::Disk { key } => self.reader(*key),
            Happening::Act(action) => self.needs_life(action),
            // A kernel that stands still answers no ping, and a write that is on its way may land.
            Happening::Ping { .. } | Happening::LateLanding { .. } | Happening::LockExpires { .. } => None,
            // It has two ends, and looks at both.
            Happening::Migration { .. } => None,
            Happening::Second => None,
        };
        match host {
            Some(host) if self.hosts[host].paused => {
                self.hosts[host].deferred.push(what);
                None
            }
            Some(_) | None => Some(what),
        }
    }

    /// The host on which something has to happen for that action.
    fn needs_life(&self, action: &Action) -> Option<usize> {
        let host = match action {
            Action::AgentKill { host }
            | Action::AgentStart { host, .. }
            | Action::AgentHang { host }
            | Action::AgentResume { host }
            | Action::GuardKill { host }
            | Action::Upgrade { host }
            | Action::GuardHang { host }
            | Action::GuardResume { host }
            | Action::GuardDown { host }
            | Action::GuardUp { host }
            | Action::AgentStop { host }
            | Action::Autostart { host, .. }
            | Action::LibvirtKill { host }
            | Action::LibvirtHang { host }
            | Action::LibvirtUp { host }
            | Action::UserStart { host, .. } => host,
            Action::PowerOff { .. }
            | Action::PowerOn { .. }
            | Action::HostPause { .. }
            | Action::HostResume { .. }
            | Action::NetworkCut { .. }
            | Action::NetworkHeal { .. }
            | Action::NetworkLate { .. }
            | Action::LinkCut { .. }
            | Action::LinkHeal { .. }
            | Action::Loss { .. }
            | Action::Duplicate { .. }
            | Action::DatastoreCut { .. }
            | Action::DatastoreHang { .. }
            | Action::DatastoreSlow { .. }
            | Action::DatastoreReadOnly { .. }
            | Action::DatastoreTorn { .. }
            | Action::RegisterDestroy { .. }
            | Action::RegisterForget { .. }
            | Action::ListDestroy { .. }
            | Action::ListForget { .. }
            | Action::DatastoreSnapshot { .. }
            | Action::DatastoreRestore { .. }
            | Action::DatastoreHeal { .. }
            | Action::DatastoreFull { .. }
            | Action::DatastoreFree { .. }
            | Action::StartFailures { .. }
            | Action::GatewayDown
            | Action::GatewayUp
            | Action::ClockStep { .. }
            | Action::ClockDrift { .. }
            // These look for a VM that executes, or for an agent that answers.
            | Action::Command { .. }
            | Action::GuestAgentRemove { .. }
            | Action::GuestReset { .. }
            | Action::GuestPowerOff { .. }
            | Action::QemuKill { .. }
            | Action::UserShutdown { .. }
            | Action::UserSave { .. }
            | Action::UserDestroy { .. }
            | Action::UserMigrate { .. }
            | Action::UserAbortMigration { .. }
            | Action::Protect { .. }
            | Action::Unprotect { .. } => return None,
        };
        self.setup.host(host)
    }
}
