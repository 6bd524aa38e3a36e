//! What libvirt shows, as the core understands it.

use super::{DYING_INTERVAL, Errand, Known, VmNews, Vms};
use mainstay_core::ids::{DatastoreName, VmId, XmlId};
use mainstay_core::register::{Priority, StopCause, VmSpec};
use mainstay_core::{Domain, DomainState, Input, Time};
use mainstay_hypervisor as hv;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The name of a version of a domain's XML: its checksum and its length.
pub fn xml_id(xml: &str) -> XmlId {
    // Lengths beyond 4 GiB do not occur; only being different counts.
    XmlId(u64::from(crc32c::crc32c(xml.as_bytes())) << 32 | (xml.len() as u64 & 0xffff_ffff))
}

/// All that libvirt told about domains at once.
pub(super) struct Snapshot {
    /// It is so as of then, at least.
    pub(super) as_of: Time,
    pub(super) domains: Vec<hv::Domain>,
    /// QEMU processes of which libvirt knows no active domain.
    pub(super) strays: BTreeSet<VmId>,
    /// Whether this is everything.
    pub(super) complete: bool,
}

impl Vms {
    pub(super) fn on_snapshot(
        &mut self,
        now: Time,
        snapshot: &Snapshot,
        inputs: &mut Vec<Input>,
        errands: &mut Vec<Errand>,
    ) {
        let Snapshot { as_of, domains, strays, complete } = snapshot;
        let (as_of, complete) = (*as_of, *complete);
        let mut seen: BTreeSet<VmId> = BTreeSet::new();
        for domain in domains {
            let vm = self.learn(as_of, domain, strays.contains(&VmId(domain.uuid.0)), errands);
            seen.insert(vm);
            self.ask_if_it_differs(now, vm, domain, errands);
        }
        if complete {
            // A stray is a QEMU that libvirt has forgotten: it may write, so it stays as it was last known.
            let unseen = |vm: &VmId| !seen.contains(vm) && !strays.contains(vm);
            let gone: Vec<VmId> = self.known.keys().copied().filter(unseen).collect();
            for vm in gone {
                if self.known.get(&vm).is_some_and(|known| known.as_of <= as_of) {
                    self.on_removed(as_of, vm, inputs);
                } else {
                    // It came, or was seen, after the list was asked for.
                    self.read(now, vm, None, errands);
                }
            }
            self.complete_once = true;
        } else {
            self.counters.incomplete_snapshots += 1;
        }
        // No answer never means "off": those that did not answer are there, as of the last time that something was known.
        let oldest = self.known.values().map(|known| known.as_of).min().unwrap_or(as_of).min(as_of);
        // As long as not everything has been seen in this run, absence must not be concluded.
        if self.complete_once {
            let domains = self.known.values().map(|known| known.domain.clone()).collect();
            inputs.push(Input::Domains { as_of: if complete { as_of } else { oldest }, domains });
        }
        if !complete {
            let told = self.known.values().map(|known| (known.as_of, known.domain.clone()));
            inputs.extend(told.map(|(as_of, domain)| Input::Domain { as_of, domain }));
        }
    }

    /// A snapshot may be older than what is known and still be right (an event was lost): then libvirt is asked once more.
    fn ask_if_it_differs(&mut self, now: Time, vm: VmId, shown: &hv::Domain, errands: &mut Vec<Errand>) {
        let Some(known) = self.known.get(&vm) else { return };
        let stopped = matches!(known.domain.state, DomainState::Stopped(_));
        let other_xml = known.xml.as_ref().is_none_or(|(id, _)| *id != xml_id(&shown.xml));
        if stopped == shown.state.is_active() || other_xml {
            self.read(now, vm, None, errands);
        }
    }

    /// One domain was shown, by itself.
    pub(super) fn on_shown(
        &mut self,
        as_of: Time,
        domain: &hv::Domain,
        inputs: &mut Vec<Input>,
        errands: &mut Vec<Errand>,
    ) {
        let vm = self.learn(as_of, domain, false, errands);
        if let Some(known) = self.known.get(&vm) {
            inputs.push(Input::Domain { as_of: known.as_of, domain: known.domain.clone() });
        }
    }

    /// libvirt does not know it any more. One that was active has stopped. Gives the domain as it ended.
    pub(super) fn on_removed(&mut self, as_of: Time, vm: VmId, inputs: &mut Vec<Input>) -> Option<Domain> {
        self.prepared.remove(&vm);
        let cause = self.causes.remove(&vm);
        let known = self.known.remove(&vm)?;
        let mut domain = known.domain;
        if !matches!(domain.state, DomainState::Stopped(_)) {
            let cause = self.cause(vm, cause.unwrap_or(hv::StopCause::Unknown));
            domain.state = DomainState::Stopped(cause);
            inputs.push(Input::Domain { as_of: as_of.max(known.as_of), domain: domain.clone() });
        }
        self.destroyed.remove(&vm);
        Some(domain)
    }

    /// Asked about it, libvirt said that it does not know it.
    pub(super) fn on_gone(&mut self, as_of: Time, vm: VmId, was: Option<Domain>, inputs: &mut Vec<Input>) {
        self.on_removed(as_of, vm, inputs);
        // It was told as of an earlier time: now it is known better.
        if let Some(domain) = was {
            inputs.push(Input::Domain { as_of, domain });
        }
    }

    /// Takes note of a domain.
    fn learn(&mut self, as_of: Time, shown: &hv::Domain, stray: bool, errands: &mut Vec<Errand>) -> VmId {
        let vm = VmId(shown.uuid.0);
        // Answers may come in another order than they were asked for: an older one changes nothing.
        if self.known.get(&vm).is_some_and(|known| known.as_of > as_of) {
            return vm;
        }
        let was = self.known.get(&vm).map(|known| known.domain.state);
        let state = self.state(as_of, vm, shown, stray, was);
        if matches!(shown.state, hv::DomainState::ShutOff { .. }) && !matches!(state, DomainState::Stopped(_))
        {
            errands.push(Errand::Later(DYING_INTERVAL, VmNews::ReadAgain(shown.uuid)));
        }
        let former = self.known.remove(&vm).and_then(|known| known.xml);
        let id = xml_id(&shown.xml);
        let xml = former.filter(|(former, _)| *former == id).unwrap_or_else(|| {
            complain(shown);
            (id, Arc::from(shown.xml.as_str()))
        });
        let spec = shown.spec.as_ref().ok();
        let domain = Domain {
            vm,
            name: Arc::from(shown.name.as_str()),
            state,
            home: spec.and_then(|spec| self.home(spec)),
            spec: spec.map(|spec| vm_spec(id, spec)),
            persistent: shown.persistent,
        };
        self.known.insert(vm, Known { domain, as_of, xml: Some(xml) });
        vm
    }

    fn state(
        &mut self,
        as_of: Time,
        vm: VmId,
        shown: &hv::Domain,
        stray: bool,
        was: Option<DomainState>,
    ) -> DomainState {
        match shown.state {
            // A process that is dying may still write.
            hv::DomainState::ShutOff { .. } if shown.pid.is_some() || stray => DomainState::Running,
            hv::DomainState::ShutOff { cause } => {
                let told = self.causes.remove(&vm);
                if let (Some(DomainState::Stopped(cause)), None) = (was, told) {
                    // It was told already, by its event; the state alone says less.
                    return DomainState::Stopped(cause);
                }
                // What was asked before a start was ordered does not end it.
                if self.prepared.get(&vm).is_some_and(|ordered| *ordered < as_of) {
                    self.prepared.remove(&vm);
                }
                let cause = told.unwrap_or(cause);
                let cause = self.cause(vm, cause);
                self.destroyed.remove(&vm);
                DomainState::Stopped(cause)
            }
            hv::DomainState::Paused { .. } if self.prepared.contains_key(&vm) => DomainState::Prepared,
            // Its source looks the same for a moment, but was seen running before.
            hv::DomainState::Paused { reason: hv::PauseReason::Migration }
                if was != Some(DomainState::Running) =>
            {
                DomainState::Incoming
            }
            hv::DomainState::Running
            | hv::DomainState::Paused { .. }
            | hv::DomainState::ShuttingDown
            | hv::DomainState::Crashed
            | hv::DomainState::PmSuspended
            | hv::DomainState::NoState => DomainState::Running,
        }
    }

    fn cause(&self, vm: VmId, cause: hv::StopCause) -> StopCause {
        match cause {
            hv::StopCause::Destroyed if self.destroyed.contains(&vm) => StopCause::Withdrawn,
            hv::StopCause::Destroyed => StopCause::UserDestroyed,
            // Without the event a SIGTERM to QEMU looks the same as a shutdown. A host that goes down sends one, but then
            // its boot id changes and releases its VMs anyway; so this is the user's word (I4).
            hv::StopCause::GuestShutdown | hv::StopCause::Shutdown => StopCause::GuestShutdown,
            // A host that shuts down in order sends this to everything: the VM's user did not want it.
            hv::StopCause::HostSignal => StopCause::HostFailed,
            hv::StopCause::QemuDied | hv::StopCause::GuestPanicked | hv::StopCause::Crashed => {
                StopCause::Crashed
            }
            hv::StopCause::StartFailed => StopCause::Withdrawn,
            hv::StopCause::Migrated => StopCause::Migrated,
            hv::StopCause::Saved => StopCause::Saved,
            hv::StopCause::Snapshot => StopCause::UserShutdown,
            hv::StopCause::Daemon | hv::StopCause::Unknown => StopCause::Unknown,
        }
    }

    /// The datastore on which the first disk lies that the VM writes to.
    fn home(&self, spec: &hv::Spec) -> Option<DatastoreName> {
        let disk =
            spec.disks.iter().find(|disk| !disk.readonly && matches!(&*disk.device, "disk" | "lun"))?;
        let hv::DiskSource::File(path) = &disk.source else { return None };
        let holds = |(root, _): &&(PathBuf, DatastoreName)| Path::new(path).starts_with(root);
        let longest = |(root, _): &&(PathBuf, DatastoreName)| root.components().count();
        self.datastores.iter().filter(holds).max_by_key(longest).map(|(_, name)| name.clone())
    }
}

fn vm_spec(xml: XmlId, spec: &hv::Spec) -> VmSpec {
    let priority = match spec.metadata.priority.unwrap_or_default() {
        hv::Priority::Disabled => Priority::Disabled,
        hv::Priority::Lowest => Priority::Lowest,
        hv::Priority::Low => Priority::Low,
        hv::Priority::Medium => Priority::Medium,
        hv::Priority::High => Priority::High,
        hv::Priority::Highest => Priority::Highest,
    };
    VmSpec {
        xml,
        memory_mib: spec.memory_bytes.div_ceil(1 << 20),
        vcpus: spec.vcpus,
        // protect="no" says that its user does not want it restarted.
        priority: if spec.metadata.protect == Some(false) { Priority::Disabled } else { priority },
    }
}

/// Says once per version of a domain's XML what can't be understood in it. Never the XML itself: it holds secrets.
fn complain(shown: &hv::Domain) {
    match &shown.spec {
        Err(error) => {
            tracing::warn!(vm = shown.name, %error, "this VM can't be protected: correct its definition")
        }
        Ok(spec) if !spec.metadata.not_understood.is_empty() => {
            let what = spec.metadata.not_understood.join(", ");
            tracing::warn!(
                vm = shown.name,
                what,
                "not understood in its metadata, defaults are used: correct it"
            );
        }
        Ok(_) => {}
    }
}

/// What VMs could still take, by the kernel's own estimate: free memory plus what it would give up. procfs never blocks.
pub(super) fn memory_available_mib() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}
