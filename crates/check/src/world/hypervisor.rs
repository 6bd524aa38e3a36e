//! Libvirt, QEMU and the VM's process. No image lock: only the protocol stands between the VM and its second copy.

use super::{Deed, Item, World};
use crate::fingerprint::clock_base;
use crate::setup::{VM, spec, store};
use mainstay_core::register::StopCause;
use mainstay_core::timing::FREEZE_BOUND;
use mainstay_core::{Domain, DomainState, Input, OpId, ProcessState, Token, VmAction, VmOutcome};
use mainstay_guard_core::GuardInput;

/// The VM's QEMU on a host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Qemu {
    /// Not paused any more.
    pub(crate) running: bool,
    /// None of its threads executes.
    pub(crate) frozen: bool,
    /// The grant under which a core created it; `None`: its user has.
    pub(crate) token: Option<Token>,
}

impl World {
    /// The VM's user starts it.
    pub(super) fn user_start(&mut self, host: usize) {
        let state = self.host_mut(host);
        state.qemu = Some(Qemu { running: true, frozen: false, token: None });
        state.defined = Some(StopCause::Unknown);
        self.domains_changed(host);
    }

    /// The VM's user shuts it down, where it executes.
    pub(super) fn user_shutdown(&mut self) {
        let at = self.executing().next();
        if let Some(host) = at {
            self.checks.on_user_shutdown(host);
            // Libvirt does not tell a guest that was asked from one that powers itself off.
            self.end(host, StopCause::GuestShutdown);
        }
    }

    fn domains_changed(&mut self, host: usize) {
        let run = self.hosts[host].run;
        self.ready.push_back(Item::Domains { host, run });
    }

    pub(super) fn end(&mut self, host: usize, cause: StopCause) {
        let state = self.host_mut(host);
        if state.qemu.take().is_some() {
            state.defined = state.defined.map(|_| cause);
            state.destroyed_by = None;
            self.tell(host, || format!("* QEMU of the VM ended: {cause}"));
            self.domains_changed(host);
        }
    }

    /// All domains of the host, as they are now.
    pub(super) fn show_domains(&mut self, host: usize, run: u64) {
        let state = &self.hosts[host];
        let shown = match (&state.qemu, state.defined) {
            (Some(qemu), _) if qemu.running => Some(DomainState::Running),
            (Some(_), _) => Some(DomainState::Prepared),
            // An agent's own destroy is not the user's word, as long as that agent runs.
            (None, Some(StopCause::UserDestroyed)) if state.destroyed_by == Some(run) => {
                Some(DomainState::Stopped(StopCause::Withdrawn))
            }
            (None, Some(cause)) => Some(DomainState::Stopped(cause)),
            (None, None) => None,
        };
        let domain = |state_of| Domain {
            vm: VM,
            name: "vm".into(),
            state: state_of,
            home: Some(store()),
            spec: Some(spec()),
            persistent: state.defined.is_some(),
            io_error: false,
        };
        let domains = shown.map(domain).into_iter().collect();
        // The answer is never older than the question.
        let as_of = self.clock(host);
        self.feed_run(host, run, Input::Domains { as_of, domains });
    }

    /// Libvirt does what it was asked to.
    pub(super) fn obey(&mut self, host: usize, boot: u64, run: u64, op: OpId, action: &VmAction) {
        if !self.hosts[host].powered || self.hosts[host].boot != boot {
            return;
        }
        let outcome = match action {
            VmAction::Prepare { token, .. } => self.prepare(host, *token),
            VmAction::Resume { .. } => self.resume(host),
            VmAction::Shutdown { .. } if self.hosts[host].is_empty() => {
                VmOutcome::Failed("there is no such domain".into())
            }
            VmAction::Shutdown { .. } => {
                self.end(host, StopCause::GuestShutdown);
                VmOutcome::Done
            }
            VmAction::Destroy { .. } => {
                let there = self.hosts[host].qemu.is_some();
                self.end(host, StopCause::UserDestroyed);
                if there {
                    self.host_mut(host).destroyed_by = Some(run);
                }
                VmOutcome::Done
            }
            // Nobody enters maintenance here, and no guest has an agent.
            VmAction::Migrate { .. } | VmAction::AskGuest { .. } => VmOutcome::Failed("not modelled".into()),
            VmAction::Undefine { .. } => {
                let state = self.host_mut(host);
                if state.qemu.is_none() {
                    state.defined = None;
                    VmOutcome::Done
                } else {
                    VmOutcome::Failed("the domain is active".into())
                }
            }
        };
        self.feed_run(host, run, Input::VmDone { op, outcome });
        self.domains_changed(host);
    }

    fn prepare(&mut self, host: usize, token: Token) -> VmOutcome {
        let state = self.host_mut(host);
        if state.qemu.is_some() {
            // It is active: nothing is left to do.
            return VmOutcome::Done;
        }
        state.qemu = Some(Qemu { running: false, frozen: false, token: Some(token) });
        state.defined.get_or_insert(StopCause::Unknown);
        self.tell(host, || format!("* QEMU of the VM is there, paused, under grant {token}"));
        VmOutcome::Done
    }

    fn resume(&mut self, host: usize) -> VmOutcome {
        let Some(qemu) = &mut self.host_mut(host).qemu else {
            return VmOutcome::Failed("there is no such domain".into());
        };
        if qemu.frozen {
            qemu.running = true;
            // Its monitor does not answer; the command waits there until somebody thaws it.
            return VmOutcome::Unknown("QEMU does not answer".into());
        }
        if !std::mem::replace(&mut qemu.running, true) {
            self.executes(host);
        }
        VmOutcome::Done
    }

    /// The VM begins to execute on a host.
    fn executes(&mut self, host: usize) {
        self.tell(host, || "* the VM EXECUTES".into());
        let token = self.hosts[host].qemu.as_ref().and_then(|qemu| qemu.token);
        let entry = self.disk.list().and_then(|list| list.entry(VM)).cloned();
        let who = self.setup.id(host);
        self.checks.on_execute(&who, token, entry.as_ref());
    }

    /// A guard does something to the VM's process. A freeze takes as long as it may; what is asked for after it waits for it.
    pub(super) fn start_deed(&mut self, host: usize, deed: Deed) {
        let boot = self.hosts[host].boot;
        let item = Item::Deed { host, boot, deed };
        let busy = self.timed.iter().filter(
            |(_, item)| matches!(item, Item::Deed { host: other, boot: of, .. } if (*other, *of) == (host, boot)),
        );
        let busy = busy.map(|(at, _)| *at).max();
        match (deed, busy) {
            (Deed::Freeze, _) => {
                let at = (self.now + FREEZE_BOUND.0).max(busy.unwrap_or(0));
                self.timed.push((at, item));
            }
            (Deed::Inspect | Deed::Thaw | Deed::Kill, Some(at)) => self.timed.push((at, item)),
            (Deed::Inspect | Deed::Thaw | Deed::Kill, None) => self.ready.push_back(item),
        }
    }

    pub(super) fn do_deed(&mut self, host: usize, boot: u64, deed: Deed) {
        if !self.hosts[host].powered || self.hosts[host].boot != boot {
            return;
        }
        match deed {
            Deed::Inspect => {}
            Deed::Freeze => self.set_frozen(host, true),
            Deed::Thaw => {
                // An order that is overtaken by the end of the lease is not carried out any more.
                let until = self.hosts[host].guard.as_ref().and_then(|guard| guard.lease(&store()));
                if until.is_some_and(|until| until.0 > clock_base(host) + self.now) {
                    self.set_frozen(host, false);
                }
            }
            Deed::Kill => self.end(host, StopCause::Crashed),
        }
        let state = match &self.hosts[host].qemu {
            None => ProcessState::Absent,
            Some(qemu) if qemu.frozen => ProcessState::Frozen,
            Some(_) => ProcessState::Runs,
        };
        self.feed_guard(host, GuardInput::Process { vm: VM, state });
    }

    pub(super) fn set_frozen(&mut self, host: usize, frozen: bool) {
        let Some(qemu) = &mut self.host_mut(host).qemu else { return };
        if std::mem::replace(&mut qemu.frozen, frozen) == frozen {
            return;
        }
        let running = qemu.running;
        let word = if frozen { "frozen" } else { "thawed" };
        self.tell(host, || format!("* the VM's process is {word}"));
        if running && !frozen {
            self.executes(host);
        }
    }
}
