//! Carries out what cores ask for.

use super::World;
use super::queue::{DomainOp, DomainOpKind, Happening, Start};
use crate::checkers::Extra;
use mainstay_core::host_liveness::HostState;
use mainstay_core::view::Role;
use mainstay_core::{DiskOutcome, Effect, Event, Input, RegisterValue, VmAction};
use std::sync::Arc;

impl World {
    /// Carries out one effect of the core in that run of the agent.
    pub(super) fn carry_out(&mut self, host: usize, process: u64, effect: Effect) {
        self.record.trace.facts(&[self.now, 8, host as u64, fact_of_effect(&effect)]);
        self.record.trace.line(self.now, self.setup.hosts[host].id.as_str(), || format!("-> {effect:?}"));
        match effect {
            Effect::Send { to, message } => {
                if let Some(to) = self.setup.host(&to) {
                    self.send(host, to, message);
                }
            }
            Effect::Disk { op, datastore, action } => {
                if let Some(store) = self.setup.datastore(&datastore) {
                    self.start_disk(host, process, op, store, action);
                }
            }
            Effect::Ping { host: to } => {
                if let Some(to) = self.setup.host(&to) {
                    self.ping(host, process, to);
                }
            }
            Effect::PingIsolation { index } => self.ping_gateway(host, process, index),
            Effect::Guard(order) => self.guard_order(host, process, order),
            Effect::ReplaceGuard => self.guard_replace(host, process),
            Effect::Vm { op, action } => self.vm_action(host, process, op, action),
            Effect::StoreXml { datastore, vm, xml } => {
                let Some(store) = self.setup.datastore(&datastore) else { return };
                let wait = self.dice.latency(self.setup.latencies.disk) * 3;
                let error = self.store_xml(host, store, vm, xml);
                let input = Input::XmlStored { datastore, vm, xml, error };
                self.queue.push(self.now + wait, Happening::Deliver { host, process, input });
            }
            Effect::Event(event) => self.on_event(host, event),
            Effect::Reply { request, command, result } => self.on_reply(request, command, result),
        }
    }

    fn store_xml(
        &mut self,
        host: usize,
        store: usize,
        vm: mainstay_core::VmId,
        xml: mainstay_core::XmlId,
    ) -> Option<Arc<str>> {
        if self.stores[store].full {
            return Some(Arc::from("No space left on device"));
        }
        if self.stores[store].is_read_only(host) {
            return Some(Arc::from("Read-only file system"));
        }
        match self.stores[store].paths[host] {
            super::disk::Path::Well | super::disk::Path::Slow(_) => {
                self.stores[store].xml.insert((vm, xml));
                None
            }
            super::disk::Path::Cut | super::disk::Path::Hung => Some(Arc::from("Input/output error")),
        }
    }

    fn vm_action(&mut self, host: usize, process: u64, op: mainstay_core::OpId, action: VmAction) {
        let boot = self.hosts[host].boot;
        let (vm, kind) = match action {
            VmAction::Prepare { vm, name: _, datastore, xml, token } => {
                if let (Some(vm), Some(store)) = (self.vm_index(vm), self.setup.datastore(&datastore)) {
                    let start =
                        Start { process, boot, op, vm, store, xml, token, creating: false, said: false };
                    self.start_prepare(host, start);
                }
                return;
            }
            VmAction::Resume { vm } => (vm, DomainOpKind::Resume),
            VmAction::Shutdown { vm } => (vm, DomainOpKind::Shutdown),
            VmAction::Destroy { vm } => {
                self.is_destroyed(host, process, vm);
                (vm, DomainOpKind::Destroy)
            }
            VmAction::Undefine { vm } => (vm, DomainOpKind::Undefine),
            VmAction::Migrate { vm, to } => match self.setup.host(&to) {
                Some(to) => (vm, DomainOpKind::Migrate(to)),
                None => return,
            },
            VmAction::AskGuest { vm, command: _ } => (vm, DomainOpKind::AskGuest),
        };
        if let Some(vm) = self.vm_index(vm) {
            self.start_domain_op(host, DomainOp { process, boot, op, vm, kind });
        }
    }

    fn on_event(&mut self, host: usize, event: Event) {
        self.record.trace.word(&format!("{event:?}"));
        self.count(host, &event);
        self.record.told.push(super::Told { at: self.now, host, event });
    }

    fn count(&mut self, host: usize, event: &Event) {
        self.record.checks.never_silent.on_event(host, event);
        match event {
            Event::AgentStarted { rebooted: true } => self.record.seen.saw("rebooted host noticed it"),
            Event::BecamePrimary { .. } => {
                let primaries = (0..self.hosts.len())
                    .filter(|other| *other != host)
                    .filter(|other| self.view(*other).is_some_and(|view| view.role == Role::Primary))
                    .count();
                if primaries > 0 {
                    self.record.seen.saw("two primaries at once");
                }
            }
            Event::HostStateChanged { to, .. } => match to {
                HostState::AgentUnreachable => self.record.seen.saw("agent unreachable seen"),
                HostState::Partitioned => self.record.seen.saw("partition seen"),
                HostState::Failed => self.record.seen.saw("failed seen"),
                HostState::Unguarded => self.record.seen.saw("unguarded seen"),
                HostState::Unknown | HostState::Connected | HostState::Isolated => {}
            },
            Event::DatastoreLost { .. } => self.record.seen.saw("datastore lost"),
            Event::OwnershipAcquired { former: Some(former), .. } => {
                if *former != self.setup.hosts[host].id {
                    self.record.seen.saw("ownership changed hands");
                }
            }
            Event::VmProtected { vm, host: at, .. } => {
                let at = self.setup.host(at);
                if let Some(vm) = self.vm_index(vm.id)
                    && self.vms[vm].migrated_to.is_some()
                    && self.vms[vm].migrated_to == at
                {
                    self.vms[vm].migrated_to = None;
                    self.record.seen.saw("migration adopted");
                }
            }
            Event::VmNotProtectable { .. } => self.record.seen.saw("not protectable"),
            Event::VmStopped { restart: false, .. } => self.record.seen.saw("intended stop honoured"),
            Event::TakeoverIntended { .. } => self.record.seen.saw("takeover intended"),
            Event::TakeoverCancelled { .. } => self.record.seen.saw("takeover cancelled"),
            Event::VmWaitsForHost { .. } => self.record.seen.saw("waited for a host"),
            Event::VmStartFailed { .. } => self.record.seen.saw("start failed"),
            Event::VmRestarted { from, attempts, .. } => {
                match from.as_ref().and_then(|from| self.setup.host(from)) {
                    Some(from) if self.hosts[from].was_primary => {
                        self.record.seen.saw("failover of a primary")
                    }
                    Some(_) => self.record.seen.saw("failover of a secondary"),
                    None => self.record.seen.saw("restart after a crash of QEMU"),
                }
                if *attempts > 1 {
                    self.record.seen.saw("restart took several attempts");
                }
            }
            Event::HypervisorLost => self.record.seen.saw("hypervisor lost"),
            Event::HypervisorSilent { .. } => self.record.seen.saw("hypervisor silent for long"),
            Event::VmActiveTwice { .. } => self.record.seen.saw("active twice reported"),
            Event::DefinitionDropped { .. } => self.record.seen.saw("definition dropped"),
            Event::AgentStarted { rebooted: false }
            | Event::ElectionStarted { .. }
            | Event::FollowsPrimary { .. }
            | Event::SteppedDown { .. }
            | Event::DatastoreBack { .. }
            | Event::OwnershipAcquired { former: None, .. }
            | Event::OwnershipLost { .. }
            | Event::RegisterUnreadable { .. }
            | Event::VmActiveOnce { .. }
            | Event::VmCopyRemoved { .. }
            | Event::VmAutostart { .. }
            | Event::RegisterUnwritable { .. }
            | Event::RegisterReadable { .. }
            | Event::VmUnprotected { .. }
            | Event::VmStopped { restart: true, .. }
            | Event::VmGranted { .. }
            | Event::VmClaimed { .. }
            | Event::VmWaitsForStorage { .. }
            | Event::VmStarted { .. }
            | Event::GuardFound { .. }
            | Event::GuardFailed { .. }
            | Event::HostUnguarded { .. }
            | Event::HostGuarded { .. }
            | Event::HostConfirmedDown { .. }
            | Event::HostNotIsolated
            | Event::ResponsibilityDropped { .. }
            | Event::MessageUnreadable { .. }
            | Event::StormOver
            | Event::TimingAgrees { .. }
            | Event::FilesDiffer { .. }
            | Event::FilesAgree { .. }
            | Event::OwnedTwice { .. }
            | Event::HypervisorBack => {}
            Event::SettingsChanged { .. }
            | Event::MaintenanceLeft { .. }
            | Event::AdmissionMet
            | Event::VmOrderFailed { .. } => {}
            Event::VmWaitsForOthers { .. } => self.record.seen.saw("waited for others"),
            Event::OrderGivenUp { .. } => self.record.seen.saw("order given up"),
            Event::VmVerified { .. } => {}
            Event::VmNotVerified { .. } => self.record.seen.saw("not verified"),
            Event::MaintenanceBegun { .. } => self.record.seen.saw("maintenance begun"),
            Event::MaintenanceReached { .. } => self.record.seen.saw("maintenance reached"),
            Event::VmOrdered { .. } => self.record.seen.saw("order given"),
            Event::ProtectionSuspended { .. } => self.record.seen.saw("protection suspended"),
            Event::ProtectionResumed { .. } => self.record.seen.saw("protection resumed"),
            Event::AdmissionNotMet { .. } => self.record.seen.saw("admission not met"),
            Event::GuardLost => self.record.seen.saw("guard lost"),
            Event::GuardSilent => self.record.seen.saw("guard replaced"),
            Event::HeartbeatDatastoresChosen { .. } => self.record.seen.saw("heartbeat datastores chosen"),
            Event::TimingDiffers { .. } => self.record.seen.saw("differing times told"),
            Event::VmContinued { .. } => self.record.seen.saw("went on after an I/O error"),
            Event::VmFrozen { .. } => self.record.seen.saw("frozen"),
            Event::VmThawed { .. } => self.record.seen.saw("thawed"),
            Event::HostIsolated => self.record.seen.saw("isolation seen"),
            Event::ResponsibilityTaken { .. } => self.record.seen.saw("responsibility taken"),
            Event::IsolationResponseApplied { vm, .. } => {
                self.record.seen.saw("isolation response applied");
                if let Some(vm) = self.vm_index(vm.id) {
                    let found = self.record.checks.orphan_stop.on_response(self.now, vm, host, &self.setup);
                    self.report(found);
                    let found = self.record.checks.unharmed.on_response(self.now, vm, host, &self.setup);
                    self.report_extra(Extra::Blips, found);
                    let protected = self.is_protected(vm, host);
                    self.record.checks.user_word.on_unwanted_stop(vm, protected);
                }
            }
            Event::ShutdownTimedOut { .. } => self.record.seen.saw("shutdown timed out"),
            Event::IsolationResponseStopped { .. } => self.record.seen.saw("isolation response stopped"),
            Event::StormSuspected { .. } => self.record.seen.saw("storm suspected"),
        }
    }
}

/// A number that tells inputs apart well enough for the hash.
pub(super) fn fact_of_input(input: &Input) -> u64 {
    match input {
        Input::Tick => 1,
        Input::Message { message, .. } => 2 + (message.sequence << 8) + (message.incarnation.0 << 32),
        Input::DiskDone { op, outcome } => {
            let how = match outcome {
                DiskOutcome::Read(registers) => 3 + registers.len() as u64,
                DiskOutcome::Written => 1,
                DiskOutcome::Failed(_) => 2,
            };
            3 + (op.0 << 16) + (how << 8)
        }
        Input::PingDone { answered, .. } => 4 + (u64::from(*answered) << 8),
        Input::Domains { domains, .. } => 5 + ((domains.len() as u64) << 8),
        Input::Domain { domain, .. } => 6 + (u64::from(domain.vm.0[15]) << 8),
        Input::HypervisorLost => 7,
        Input::Capacity(capacity) => 8 + (capacity.memory_free_mib << 8),
        Input::VmDone { op, .. } => 9 + (op.0 << 8),
        Input::VmWaits { op, .. } => 10 + (op.0 << 8),
        Input::XmlStored { error, .. } => 11 + (u64::from(error.is_some()) << 8),
        Input::Operator { request, .. } => 12 + (request << 8),
        Input::Stop => 13,
        Input::IsolationPingDone { index, answered } => {
            14 + (u64::from(*index) << 8) + (u64::from(*answered) << 16)
        }
        Input::Guard(_) => 15,
        Input::GuardLost => 16,
        Input::GuardFailed { .. } => 18,
        Input::Offers(offers) => 17 + (offers.machines.len() as u64) * 256,
    }
}

/// The same for effects.
fn fact_of_effect(effect: &Effect) -> u64 {
    match effect {
        Effect::Send { message, .. } => 1 + (message.sequence << 8),
        Effect::Disk { op, action, .. } => {
            let what = match action {
                mainstay_core::DiskAction::Read(registers) => registers.len() as u64,
                mainstay_core::DiskAction::Write(_, value) => match value {
                    RegisterValue::Heartbeat(beat) => beat.counter << 3,
                    RegisterValue::PowerOn(list) => (list.version << 3) + 1,
                    RegisterValue::Ownership(block) => (block.instance.0 << 3) + 2,
                    RegisterValue::ProtectedList(list) => (list.version << 3) + 3,
                },
            };
            2 + (op.0 << 24) + (what << 8)
        }
        Effect::Ping { .. } => 3,
        Effect::Vm { op, .. } => 4 + (op.0 << 8),
        Effect::StoreXml { xml, .. } => 5 + (xml.0 << 8),
        Effect::Event(_) => 6,
        Effect::Reply { request, .. } => 7 + (request << 8),
        Effect::PingIsolation { index } => 8 + (u64::from(*index) << 8),
        Effect::Guard(_) => 9,
        Effect::ReplaceGuard => 10,
    }
}
