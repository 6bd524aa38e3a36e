//! Why a domain stopped: the user's doing, the guest's, or an accident.
//!
//! This decides whether a VM may be restarted elsewhere (it failed) or must stay down (its user shut it down). libvirt
//! has two sources: lifecycle *events* with details, and the *reason* beside the state "shut off", which can be read at
//! any time but tells less. What both say was established by experiment, with libvirt 9.0 and QEMU 7.2 (the contract
//! tests repeat the rows marked `*`; the rows marked `†` were not tried, they follow libvirt's documentation):
//!
//! | what happened | events (type: detail) | reason of "shut off" | class by events | class by reason alone |
//! | --- | --- | --- | --- | --- |
//! | `virsh shutdown`, guest obeys `*` | shutdown: guest; stopped: shutdown | shutdown | `GuestShutdown` | `Shutdown` |
//! | guest powers itself off `*` | shutdown: guest; stopped: shutdown | shutdown | `GuestShutdown` | `Shutdown` |
//! | `virsh destroy` (also `--graceful`) `*` | shutdown: host; stopped: destroyed | destroyed | `Destroyed` | `Destroyed` |
//! | `kill -TERM` or `-INT` of QEMU `*` | shutdown: host; stopped: shutdown | **shutdown** | `HostSignal` | `Shutdown` |
//! | `kill -KILL` or `-ABRT` of QEMU `*` | stopped: failed | crashed | `QemuDied` | `Crashed` |
//! | guest resets itself | reboot (no lifecycle event) | (running) | none | none |
//! | guest panic, `on_crash=destroy` | crashed: panicked; stopped: crashed | crashed | `GuestPanicked` | `Crashed` |
//! | guest panic, `on_crash=preserve` | crashed: panicked | (state crashed, panicked) | none: QEMU stays | none |
//! | guest panic, `on_crash=restart` | crashed: panicked; resumed | (running, crashed) | none | none |
//! | `virsh suspend` | suspended: paused | (paused, user) | none | none |
//! | started paused `*` | started: booted; suspended: paused | (paused, user) | none | none |
//! | disk error, `error_policy=stop` `†` | suspended: I/O error | (paused, I/O error) | none | none |
//! | `virsh save`, `managedsave` | suspended: paused; stopped: saved | saved | `Saved` | `Saved` |
//! | live migration away `†` | suspended: migrated; stopped: migrated | migrated | `Migrated` | `Migrated` |
//! | start failed before QEMU ran (file missing) | none | failed | none | `StartFailed` |
//! | start failed in QEMU (image locked) `*` | none | failed | none | `StartFailed` |
//! | QEMU killed while libvirtd was down `*` | none | crashed | none | `Crashed` |
//! | guest powered off while libvirtd was down | none: QEMU waits (`-no-shutdown`) for libvirtd, which then ends it | shutdown | none | `Shutdown` |
//! | host was rebooted `†` | none | unknown | none | `Unknown` |
//! | transient domain, any of these | as above, then it is gone | (no such domain) | as above | none |
//!
//! Three traps follow. `virsh shutdown` can't be told from a guest that powers itself off: both are the user's word.
//! The reason "shutdown" does not prove that: it also stands after a SIGTERM to QEMU, which is what a host sends to
//! everything when *it* shuts down. And `destroy` looks the same whoever called it, this crate included: the caller must
//! remember what it ordered. So the observer remembers what the events said, and uses the reason only where it missed them.

use std::collections::BTreeMap;

use crate::domain::DomainUuid;

/// Why a domain stopped. See the module's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopCause {
    /// The guest powered off, by itself or because somebody asked it to (ACPI, agent).
    GuestShutdown,
    /// QEMU obeyed SIGTERM, SIGINT or SIGHUP, which did not come from libvirt: the host is going down, or somebody
    /// killed the process.
    HostSignal,
    /// Either of the two above; libvirt's reason alone doesn't tell, and the events were missed.
    Shutdown,
    /// Somebody (possibly this crate) called destroy.
    Destroyed,
    /// QEMU crashed or was killed.
    QemuDied,
    /// The guest reported a panic, and `on_crash` ended it.
    GuestPanicked,
    /// Either of the two above; the events were missed.
    Crashed,
    /// It never ran: the last start failed.
    StartFailed,
    /// It was migrated to another host and runs there.
    Migrated,
    /// Its state was saved to a file and it was stopped.
    Saved,
    /// A snapshot of a stopped domain was reverted to.
    Snapshot,
    /// libvirt stopped it for a reason of its own (reason "daemon").
    Daemon,
    /// libvirt does not know: not started since the host's boot, or just defined.
    Unknown,
}

/// Whether a stop was wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// The user or the guest wanted it: it stays down.
    Wanted,
    /// Nobody wanted it, such as a crash: the VM is restarted.
    Accident,
    /// It can't be told.
    Unclear,
}

impl StopCause {
    /// Whether somebody wanted this stop. `Destroyed` counts as wanted; the caller knows whether it was its own order.
    pub fn intent(self) -> Intent {
        match self {
            StopCause::GuestShutdown
            | StopCause::Destroyed
            | StopCause::Migrated
            | StopCause::Saved
            | StopCause::Snapshot => Intent::Wanted,
            StopCause::HostSignal
            | StopCause::QemuDied
            | StopCause::GuestPanicked
            | StopCause::Crashed
            | StopCause::StartFailed => Intent::Accident,
            StopCause::Shutdown | StopCause::Daemon | StopCause::Unknown => Intent::Unclear,
        }
    }

    /// By libvirt's reason beside "shut off".
    pub(crate) fn from_reason(reason: i32) -> StopCause {
        match u32::try_from(reason).unwrap_or(0) {
            virt_sys::VIR_DOMAIN_SHUTOFF_SHUTDOWN => StopCause::Shutdown,
            virt_sys::VIR_DOMAIN_SHUTOFF_DESTROYED => StopCause::Destroyed,
            virt_sys::VIR_DOMAIN_SHUTOFF_CRASHED => StopCause::Crashed,
            virt_sys::VIR_DOMAIN_SHUTOFF_MIGRATED => StopCause::Migrated,
            virt_sys::VIR_DOMAIN_SHUTOFF_SAVED => StopCause::Saved,
            virt_sys::VIR_DOMAIN_SHUTOFF_FAILED => StopCause::StartFailed,
            virt_sys::VIR_DOMAIN_SHUTOFF_FROM_SNAPSHOT => StopCause::Snapshot,
            virt_sys::VIR_DOMAIN_SHUTOFF_DAEMON => StopCause::Daemon,
            _ => StopCause::Unknown,
        }
    }

    /// Whether `self`, from events, makes `reason_class`, from the reason, more precise without contradicting it.
    fn refines(self, reason_class: StopCause) -> bool {
        match reason_class {
            StopCause::Shutdown => matches!(self, StopCause::GuestShutdown | StopCause::HostSignal),
            StopCause::Crashed => matches!(self, StopCause::QemuDied | StopCause::GuestPanicked),
            StopCause::GuestShutdown
            | StopCause::HostSignal
            | StopCause::Destroyed
            | StopCause::QemuDied
            | StopCause::GuestPanicked
            | StopCause::StartFailed
            | StopCause::Migrated
            | StopCause::Saved
            | StopCause::Snapshot
            | StopCause::Daemon
            | StopCause::Unknown => false,
        }
    }
}

/// What is remembered of one domain's events.
#[derive(Clone, Copy, Default)]
struct Memory {
    active: bool,
    shutdown_by: Option<u32>,
    stopped: Option<StopCause>,
}

/// Remembers the events that lead up to a stop.
#[derive(Default)]
pub(crate) struct StopTracker {
    domains: BTreeMap<DomainUuid, Memory>,
}

impl StopTracker {
    /// A lifecycle event; gives the cause if it says that the domain stopped.
    pub(crate) fn on_event(&mut self, uuid: DomainUuid, event: i32, detail: i32) -> Option<StopCause> {
        let memory = self.domains.entry(uuid).or_default();
        match u32::try_from(event).ok()? {
            virt_sys::VIR_DOMAIN_EVENT_STARTED => {
                *memory = Memory { active: true, shutdown_by: None, stopped: None };
                None
            }
            virt_sys::VIR_DOMAIN_EVENT_RESUMED => {
                // libvirt 9.0 sends it just before the started event when a domain boots, and after a shutdown that was a reboot.
                memory.active = true;
                memory.shutdown_by = None;
                None
            }
            virt_sys::VIR_DOMAIN_EVENT_SHUTDOWN => {
                memory.shutdown_by = u32::try_from(detail).ok();
                None
            }
            virt_sys::VIR_DOMAIN_EVENT_STOPPED => {
                let cause = classify_stopped(*memory, detail);
                *memory = Memory { active: false, shutdown_by: None, stopped: Some(cause) };
                Some(cause)
            }
            _ => None,
        }
    }

    /// The domain was read and is active.
    pub(crate) fn saw_active(&mut self, uuid: DomainUuid) {
        self.domains.entry(uuid).or_default().active = true;
    }

    /// The cause for a domain that was read as shut off, with what the events said about it if that fits.
    pub(crate) fn refine(&mut self, uuid: DomainUuid, by_reason: StopCause) -> StopCause {
        let Some(memory) = self.domains.get_mut(&uuid) else { return by_reason };
        memory.active = false;
        // Where the reading has overtaken the event of the stop, that of the shutdown, which comes well before, tells who.
        let told = memory.stopped.or_else(|| memory.shutdown_by.map(shut_down_by));
        told.filter(|cause| cause.refines(by_reason)).unwrap_or(by_reason)
    }

    /// The domain is gone.
    pub(crate) fn forget(&mut self, uuid: DomainUuid) {
        self.domains.remove(&uuid);
    }

    /// Events were missed: what was half seen is worth nothing now, and a VM may have run and stopped since.
    pub(crate) fn connection_lost(&mut self) {
        self.domains.clear();
    }
}

/// By the detail of the event that a shutdown has begun.
fn shut_down_by(detail: u32) -> StopCause {
    match detail {
        virt_sys::VIR_DOMAIN_EVENT_SHUTDOWN_GUEST => StopCause::GuestShutdown,
        virt_sys::VIR_DOMAIN_EVENT_SHUTDOWN_HOST => StopCause::HostSignal,
        // "finished": a QEMU older than 2.10, which doesn't tell who.
        _ => StopCause::Shutdown,
    }
}

fn classify_stopped(memory: Memory, detail: i32) -> StopCause {
    match u32::try_from(detail).unwrap_or(u32::MAX) {
        virt_sys::VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN => {
            // None: the event was missed.
            memory.shutdown_by.map_or(StopCause::Shutdown, shut_down_by)
        }
        virt_sys::VIR_DOMAIN_EVENT_STOPPED_DESTROYED => StopCause::Destroyed,
        virt_sys::VIR_DOMAIN_EVENT_STOPPED_CRASHED => StopCause::GuestPanicked,
        virt_sys::VIR_DOMAIN_EVENT_STOPPED_MIGRATED => StopCause::Migrated,
        virt_sys::VIR_DOMAIN_EVENT_STOPPED_SAVED => StopCause::Saved,
        // A start that failed has no event: see the table.
        virt_sys::VIR_DOMAIN_EVENT_STOPPED_FAILED => StopCause::QemuDied,
        virt_sys::VIR_DOMAIN_EVENT_STOPPED_FROM_SNAPSHOT => StopCause::Snapshot,
        _ => StopCause::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use virt_sys as v;

    fn run(events: &[(u32, u32)]) -> Option<StopCause> {
        let mut tracker = StopTracker::default();
        let uuid = DomainUuid([7; 16]);
        let causes: Vec<StopCause> = events
            .iter()
            .filter_map(|(event, detail)| tracker.on_event(uuid, *event as i32, *detail as i32))
            .collect();
        causes.last().copied()
    }

    const STARTED: (u32, u32) = (v::VIR_DOMAIN_EVENT_STARTED, v::VIR_DOMAIN_EVENT_STARTED_BOOTED);

    #[test]
    fn recorded_sequences_are_classed_as_in_the_table() {
        let by_guest = (v::VIR_DOMAIN_EVENT_SHUTDOWN, v::VIR_DOMAIN_EVENT_SHUTDOWN_GUEST);
        let by_host = (v::VIR_DOMAIN_EVENT_SHUTDOWN, v::VIR_DOMAIN_EVENT_SHUTDOWN_HOST);
        let stopped = |detail| (v::VIR_DOMAIN_EVENT_STOPPED, detail);
        let panicked = (v::VIR_DOMAIN_EVENT_CRASHED, v::VIR_DOMAIN_EVENT_CRASHED_PANICKED);
        let cases: [(&[(u32, u32)], StopCause); 8] = [
            (&[STARTED, by_guest, stopped(v::VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN)], StopCause::GuestShutdown),
            (&[STARTED, by_host, stopped(v::VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN)], StopCause::HostSignal),
            (&[STARTED, by_host, stopped(v::VIR_DOMAIN_EVENT_STOPPED_DESTROYED)], StopCause::Destroyed),
            (&[STARTED, stopped(v::VIR_DOMAIN_EVENT_STOPPED_FAILED)], StopCause::QemuDied),
            // Its start may have been seen by a round that had begun before it.
            (&[stopped(v::VIR_DOMAIN_EVENT_STOPPED_FAILED)], StopCause::QemuDied),
            (&[STARTED, panicked, stopped(v::VIR_DOMAIN_EVENT_STOPPED_CRASHED)], StopCause::GuestPanicked),
            (&[STARTED, stopped(v::VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN)], StopCause::Shutdown),
            (&[STARTED, stopped(v::VIR_DOMAIN_EVENT_STOPPED_SAVED)], StopCause::Saved),
        ];
        for (events, cause) in cases {
            assert_eq!(run(events), Some(cause), "{events:?}");
        }
        assert_eq!(run(&[STARTED, by_guest]), None);
    }

    #[test]
    fn events_refine_a_reason_but_never_contradict_it() {
        let mut tracker = StopTracker::default();
        let uuid = DomainUuid([7; 16]);
        tracker.on_event(uuid, STARTED.0 as i32, 0);
        tracker.on_event(
            uuid,
            v::VIR_DOMAIN_EVENT_SHUTDOWN as i32,
            v::VIR_DOMAIN_EVENT_SHUTDOWN_GUEST as i32,
        );
        tracker.on_event(
            uuid,
            v::VIR_DOMAIN_EVENT_STOPPED as i32,
            v::VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN as i32,
        );
        assert_eq!(tracker.refine(uuid, StopCause::Shutdown), StopCause::GuestShutdown);
        assert_eq!(tracker.refine(uuid, StopCause::Crashed), StopCause::Crashed);
        tracker.connection_lost();
        assert_eq!(tracker.refine(uuid, StopCause::Shutdown), StopCause::Shutdown);
    }

    #[test]
    fn a_reading_that_overtakes_the_stop_goes_by_who_began_the_shutdown() {
        let by = |detail: u32, reason| {
            let (mut tracker, uuid) = (StopTracker::default(), DomainUuid([7; 16]));
            tracker.on_event(uuid, STARTED.0 as i32, 0);
            tracker.on_event(uuid, v::VIR_DOMAIN_EVENT_SHUTDOWN as i32, detail as i32);
            let read = tracker.refine(uuid, reason);
            let stopped = v::VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN as i32;
            (read, tracker.on_event(uuid, v::VIR_DOMAIN_EVENT_STOPPED as i32, stopped))
        };
        let (guest, host) = (v::VIR_DOMAIN_EVENT_SHUTDOWN_GUEST, v::VIR_DOMAIN_EVENT_SHUTDOWN_HOST);
        // It was killed by a signal: not its user's word.
        let killed = (StopCause::HostSignal, Some(StopCause::HostSignal));
        assert_eq!(by(host, StopCause::Shutdown), killed);
        assert_eq!(by(guest, StopCause::Shutdown).0, StopCause::GuestShutdown);
        let (mut tracker, uuid) = (StopTracker::default(), DomainUuid([7; 16]));
        tracker.on_event(uuid, v::VIR_DOMAIN_EVENT_SHUTDOWN as i32, guest as i32);
        tracker.on_event(uuid, v::VIR_DOMAIN_EVENT_RESUMED as i32, 0);
        assert_eq!(tracker.refine(uuid, StopCause::Shutdown), StopCause::Shutdown, "that was a reboot");
        // `virsh destroy` shows the same event before it.
        assert_eq!(by(host, StopCause::Destroyed).0, StopCause::Destroyed);
    }
}
