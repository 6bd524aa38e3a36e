//! What libvirt shows, as the core understands it.

use super::{DYING_INTERVAL, Ended, Errand, Known, VmNews, Vms};
use mainstay_core::ids::{VmId, XmlId};
use mainstay_core::register::StopCause;
use mainstay_core::{Domain, DomainState, Input, Time};
use mainstay_hypervisor as hv;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The name of a version of a domain's XML: its checksum and its length.
pub fn xml_id(xml: &str) -> XmlId {
    // Lengths beyond 4 GiB do not occur; only being different counts.
    XmlId(u64::from(crc32c::crc32c(xml.as_bytes())) << 32 | (xml.len() as u64 & 0xffff_ffff))
}

impl Vms {
    /// libvirt told of every domain there is.
    pub(super) fn on_complete_snapshot(
        &mut self,
        as_of: Time,
        domains: &[hv::Domain],
        strays: &BTreeSet<VmId>,
        inputs: &mut Vec<Input>,
        errands: &mut Vec<Errand>,
    ) {
        let listed: BTreeSet<VmId> =
            domains.iter().map(|domain| self.learn(domain, strays, errands)).collect();
        // A stray is a QEMU that libvirt has forgotten: it may write, so it stays as it was last known.
        let missing = |vm: &VmId| !listed.contains(vm) && !strays.contains(vm);
        let missing: Vec<VmId> = self.known.keys().copied().filter(missing).collect();
        for vm in missing {
            self.on_gone(as_of, vm, inputs);
        }
        self.known.retain(|_, known| !known.gone || known.as_of > as_of);
        self.complete = self.complete.max(Some(as_of));
        inputs.push(Input::Domains { as_of, domains: self.present() });
    }

    /// libvirt did not tell about some. No answer never means "off": they are there as they were last known.
    pub(super) fn on_partial_snapshot(
        &mut self,
        domains: &[hv::Domain],
        strays: &BTreeSet<VmId>,
        inputs: &mut Vec<Input>,
        errands: &mut Vec<Errand>,
    ) {
        for domain in domains {
            self.learn(domain, strays, errands);
        }
        self.counters.incomplete_snapshots += 1;
        // As long as not everything has been seen in this run, absence must not be concluded; later, as of then only.
        if let Some(as_of) = self.complete {
            inputs.push(Input::Domains { as_of, domains: self.present() });
        }
        let each = self.known.values().map(|known| (known.as_of, known.domain.clone()));
        inputs.extend(each.map(|(as_of, domain)| Input::Domain { as_of, domain }));
    }

    fn present(&self) -> Vec<Domain> {
        self.known.values().filter(|known| !known.gone).map(|known| known.domain.clone()).collect()
    }

    /// One domain was shown, by itself.
    pub(super) fn on_shown(
        &mut self,
        domain: &hv::Domain,
        inputs: &mut Vec<Input>,
        errands: &mut Vec<Errand>,
    ) {
        let vm = self.learn(domain, &BTreeSet::new(), errands);
        if let Some(known) = self.known.get(&vm) {
            inputs.push(Input::Domain { as_of: known.as_of, domain: known.domain.clone() });
        }
    }

    /// libvirt does not know it. One that was active has stopped.
    pub(super) fn on_gone(&mut self, as_of: Time, vm: VmId, inputs: &mut Vec<Input>) {
        let Some(mut known) = self.known.remove(&vm) else {
            self.operations_are_over(as_of, vm);
            return;
        };
        if known.as_of <= as_of {
            known.as_of = as_of;
            known.gone = true;
            known.xml = None;
            if !matches!(known.domain.state, DomainState::Stopped(_)) {
                let cause = self.causes.remove(&vm).map_or(hv::StopCause::Unknown, |(cause, _)| cause);
                known.domain.state = DomainState::Stopped(self.cause(vm, cause));
            }
            self.operations_are_over(as_of, vm);
            inputs.push(Input::Domain { as_of, domain: known.domain.clone() });
        }
        self.known.insert(vm, known);
    }

    /// It does not run, as of then: what this agent did to it before has had its effect.
    fn operations_are_over(&mut self, as_of: Time, vm: VmId) {
        let is_over = |ended: &Ended| ended.is_some_and(|ended| ended < as_of);
        if self.prepared.get(&vm).is_some_and(is_over) {
            self.prepared.remove(&vm);
        }
        if self.destroyed.get(&vm).is_some_and(is_over) {
            self.destroyed.remove(&vm);
        }
    }

    /// Takes note of a domain.
    fn learn(&mut self, shown: &hv::Domain, strays: &BTreeSet<VmId>, errands: &mut Vec<Errand>) -> VmId {
        let (vm, as_of) = (VmId(shown.uuid.0), shown.as_of);
        // Answers may come in another order than they were asked for: an older one changes nothing.
        let newest = self.known.get(&vm).map(|known| known.as_of).or(self.complete);
        if newest.is_some_and(|newest| newest > as_of) {
            return vm;
        }
        // A cause that was told before it was seen active belongs to an earlier run.
        if shown.state.is_active() && self.causes.get(&vm).is_some_and(|(_, told)| *told < as_of) {
            self.causes.remove(&vm);
        }
        let former = self.known.remove(&vm);
        let state = self.state(vm, shown, strays, former.as_ref().map(|known| known.domain.state));
        if matches!(shown.state, hv::DomainState::ShutOff { .. }) && !matches!(state, DomainState::Stopped(_))
        {
            errands.push(Errand::Later(DYING_INTERVAL, VmNews::ReadAgain(shown.uuid)));
        }
        let id = xml_id(&shown.xml);
        let same = former.and_then(|known| known.xml).filter(|(former, _)| *former == id);
        let xml = same.unwrap_or_else(|| {
            complain(shown);
            (id, Arc::from(shown.xml.as_str()))
        });
        let spec = shown.spec.as_ref().ok();
        let domain = Domain {
            vm,
            name: Arc::from(shown.name.as_str()),
            state,
            home: spec.and_then(|spec| self.mounts.home(spec)),
            spec: spec.map(|spec| self.mounts.vm_spec(id, spec)),
            persistent: shown.persistent,
            io_error: matches!(shown.state, hv::DomainState::Paused { reason: hv::PauseReason::IoError }),
        };
        let autostart = shown.autostart;
        self.known.insert(vm, Known { domain, as_of, gone: false, autostart, xml: Some(xml) });
        vm
    }

    fn state(
        &mut self,
        vm: VmId,
        shown: &hv::Domain,
        strays: &BTreeSet<VmId>,
        was: Option<DomainState>,
    ) -> DomainState {
        match shown.state {
            // A process that is dying may still write.
            hv::DomainState::ShutOff { .. } if shown.pid.is_some() || strays.contains(&vm) => {
                DomainState::Running
            }
            hv::DomainState::ShutOff { cause } => {
                let told = self.causes.remove(&vm).map(|(cause, _)| cause);
                let state = match (was, told) {
                    // It was told already, by its event; the state alone says less.
                    (Some(DomainState::Stopped(cause)), None) => cause,
                    // The event of what was withdrawn came later than the look at it.
                    (Some(DomainState::Stopped(StopCause::Withdrawn)), Some(hv::StopCause::Destroyed)) => {
                        StopCause::Withdrawn
                    }
                    (_, told) => self.cause(vm, told.unwrap_or(cause)),
                };
                self.operations_are_over(shown.as_of, vm);
                DomainState::Stopped(state)
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
            hv::StopCause::Destroyed if self.destroyed.contains_key(&vm) => StopCause::Withdrawn,
            hv::StopCause::Destroyed => StopCause::UserDestroyed,
            // libvirt-guests, which shuts down everything before its host ends: the VM's user did not want it.
            hv::StopCause::GuestShutdown | hv::StopCause::Shutdown if self.going_down.has_begun() => {
                StopCause::HostFailed
            }
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
