//! A host's own word about the VMs homed on one datastore: its power-on list.
//!
//! Starting a VM (R30 to R33): the claim is written; when it is on disk, ownership blocks and protected list are read *again*;
//! same epoch, same grant: QEMU is created paused; the same check again; then it is resumed. Whoever takes the VM away
//! writes first and reads after, as this host does: at least one of the two sees the other.
//!
//! It does not: decide where a VM runs. Grants are the owner's.

mod following;
mod frozen;
mod guests;
mod isolated;
mod orders;
mod starts;

use crate::effect::{Effect, VmAction};
use crate::event::{Event, VmName};
use crate::guard::{GuardOrder, ProcessState};
use crate::guard_side::Lease;
use crate::ids::{DatastoreName, HostId, OpId, Token, VmId};
use crate::input::{Domain, DomainState, VmOutcome};
use crate::local_vms::Domains;
use crate::message::Halt;
use crate::out::Out;
use crate::register::{
    Claim, ClaimState, Desired, Entry, Guest, IsolationResponse, OrderKind, Priority, ProtectedList,
    StopCause, VmSpec,
};
use crate::time::{Span, Time};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use guests::Asking;
pub(crate) use isolated::IsolationNow;
use orders::Obeyed;
use serde::{Deserialize, Serialize};

/// How long to wait before a removal that failed is tried again.
const REMOVAL_RETRY: Span = Span::from_secs(1);

/// R34: how long the stop of a VM that ran without a grant is remembered: a grant may be on its way.
const UNGRANTED_STOP_KEPT: Span = Span::from_secs(10);

/// How long after a start of the agent a guest may still go down because the run before had asked it to.
const ASKED_BEFORE: Span = Span::from_secs(300);

/// How long after a start of the agent a VM may still be destroyed because the run before had ordered it.
const POWERED_OFF_BEFORE: Span = Span::from_secs(30);

/// What this host is doing about a VM beyond what its claim says.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum Stage {
    /// Nothing: the claim follows the domain.
    Settled,
    /// The claim `Starting` has to reach the disk.
    Announcing,
    /// On disk since then: a look at the protected list that starts later decides.
    Checking { since: Time },
    /// QEMU is being created, paused.
    Preparing {
        op: OpId,
        /// It waits for the storage: others may start meanwhile.
        waits: bool,
    },
    /// QEMU is there, paused: the guard has to find its process, so that it is frozen like any other when the lease ends.
    Guarding { since: Time, ask_at: Time },
    /// QEMU is there, paused and guarded: one more look decides.
    Prepared { since: Time },
    /// It is being resumed.
    Resuming { op: OpId },
    /// It may not run here: it is being removed; then the claim says so.
    Removing { op: OpId, then: ClaimState },
    /// Removing it failed; it is tried again at that time. The claim stands until somebody has seen it gone.
    RemovalDue { at: Time, then: ClaimState },
    /// Its isolation response is being applied.
    Stopping(Stopping),
    /// Nobody knows whether the start happened: the next full picture of the domains tells.
    Doubtful { since: Time },
}

/// An isolation response under way (R62).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Stopping {
    /// Since when the claim that says so is on disk: a look that starts later decides whether it happens.
    durable: Option<Time>,
    /// Such a look has shown that the owner is still responsible: the order is given.
    ordered: bool,
    /// The guest was asked to shut down.
    asked: bool,
    /// The order that is being carried out.
    op: Option<OpId>,
    retry_at: Time,
    /// It is shutting down until then; `None`: it is being powered off.
    power_off_at: Option<Time>,
    timeout: Span,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Slot {
    claim: Claim,
    stage: Stage,
    /// This host's last own operation on the VM was done then: what libvirt said before says nothing about it.
    acted: Time,
    /// When it was on disk that its VM has stopped.
    stop_told: Option<Time>,
    /// When its VM was first seen running here.
    began: Time,
    /// Without a grant: the newest grant of the VM that may be older than its arrival here.
    under: Option<Token>,
    /// The claim has been on disk in a running state: from then on the VM is bound to the lease.
    durable: bool,
    /// The guard has frozen it.
    frozen: bool,
    /// It was to be thawed in that term of the lease, at that time.
    thawing: Option<(u64, Time)>,
    /// QEMU had paused it for an I/O error and was told to go on then.
    continued: Option<Time>,
    /// This host asked the guest to shut down: until then its going down is not its user's word.
    asked_to_stop: Option<Time>,
    /// This host powered it off: until then its being destroyed is not its user's word either.
    powered_off: Option<Time>,
    /// The owner's last order, and what came of it (R74).
    order: Option<Obeyed>,
    guest: Asking,
}

impl Slot {
    /// Why the VM stopped, when libvirt gives that cause: what this host has asked for is not its user's word (R62).
    fn cause(&self, cause: StopCause, now: Time) -> StopCause {
        let ours = |until: Option<Time>| until.is_some_and(|until| now < until);
        match cause {
            StopCause::GuestShutdown | StopCause::UserShutdown if ours(self.asked_to_stop) => {
                StopCause::Isolation
            }
            StopCause::UserDestroyed if ours(self.powered_off) => StopCause::Isolation,
            _ => cause,
        }
    }

    fn new(claim: Claim, stage: Stage) -> Slot {
        Slot {
            claim,
            stage,
            acted: Time(0),
            stop_told: None,
            began: Time(0),
            under: None,
            durable: false,
            frozen: false,
            thawing: None,
            continued: None,
            asked_to_stop: None,
            powered_off: None,
            order: None,
            guest: Asking::default(),
        }
    }
}

/// The protected list as a host last saw it, and since when it may be relied on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Look {
    /// When the read was started.
    pub(crate) started: Time,
    /// The list of the highest epoch.
    pub(crate) list: ProtectedList,
    /// Somebody is about to own a later epoch: grants of this list can't be relied on now.
    pub(crate) changing: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Claims {
    datastore: DatastoreName,
    me: HostId,
    slots: BTreeMap<VmId, Slot>,
    undefining: BTreeSet<VmId>,
    /// VMs homed here that have a QEMU on this host, claimed or not yet: the target of a live migration too.
    present: BTreeSet<VmId>,
    /// When to order once more that frozen targets of live migrations end.
    arrivals_due: Time,
    /// What is present and frozen, since when this host knows.
    frozen_arrivals: BTreeMap<VmId, Time>,
    /// There was a lease in this run: from then on all that is present is bound to it.
    leased: bool,
    #[cfg(feature = "broken-rules")]
    pub(crate) blind: bool,
    /// Set when the power-on list has to be written.
    pub(crate) dirty: bool,
    /// A look at the protected list is wanted, started no sooner than this.
    pub(crate) look_wanted: bool,
}

/// What the claims need to see of the host.
pub(crate) struct HostSide<'a> {
    /// All domains; `None` while libvirt does not answer.
    pub(crate) domains: Option<&'a Domains>,
    pub(crate) concurrent_starts: u32,
    /// Versions of XML that are on the datastore.
    pub(crate) stored: &'a BTreeMap<VmId, VmSpec>,
    /// What the host can give to VMs.
    pub(crate) offers: Option<&'a Arc<crate::settings::HostOffers>>,
    /// The run lease on this datastore, while there is one.
    pub(crate) lease: Option<Lease>,
    /// When the last heartbeat was begun that arrived on this datastore.
    pub(crate) beaten: Option<Time>,
    /// A guard is connected.
    pub(crate) guarded: bool,
    /// What the processes of watched VMs do.
    pub(crate) processes: &'a BTreeMap<VmId, ProcessState>,
    /// Whether this host is isolated.
    pub(crate) isolation: IsolationNow,
}

impl Claims {
    /// Takes over what an earlier run left on disk. R35: claims of an earlier boot are dropped: those VMs are gone.
    pub(crate) fn new(
        datastore: DatastoreName,
        me: HostId,
        found: Vec<Claim>,
        rebooted: bool,
        now: Time,
    ) -> Claims {
        let mut slots = BTreeMap::new();
        for mut claim in found {
            let mut stage = Stage::Settled;
            let (mut asked_to_stop, mut powered_off) = (None, None);
            if !claim.state.is_released() {
                if rebooted {
                    if claim.token.is_none() {
                        continue;
                    }
                    claim.state = ClaimState::Stopped { cause: StopCause::HostFailed };
                } else if claim.state == ClaimState::Starting {
                    stage = Stage::Doubtful { since: now };
                } else if claim.state == ClaimState::Stopping {
                    // The run before this was about to stop it, and did not: whether it is to be stopped is seen anew.
                    claim.state = ClaimState::Running;
                }
                asked_to_stop = claim.asked_to_stop.then_some(now + ASKED_BEFORE);
                powered_off = claim.powering_off.then_some(now + POWERED_OFF_BEFORE);
            }
            let durable = !claim.state.is_released();
            let stop_told = (!durable).then_some(Time(0));
            let read = Slot { durable, stop_told, asked_to_stop, powered_off, ..Slot::new(claim, stage) };
            slots.insert(read.claim.vm, read);
        }
        Claims {
            datastore,
            me,
            slots,
            undefining: BTreeSet::new(),
            present: BTreeSet::new(),
            leased: false,
            arrivals_due: Time(0),
            frozen_arrivals: BTreeMap::new(),
            #[cfg(feature = "broken-rules")]
            blind: false,
            dirty: true,
            look_wanted: true,
        }
    }

    /// The claims, for the power-on list.
    pub(crate) fn snapshot(&self) -> Vec<Claim> {
        self.slots.values().map(|slot| slot.claim.clone()).collect()
    }

    /// Whether anything of this datastore runs or is claimed here.
    pub(crate) fn concern(&self, domains: &Domains) -> bool {
        let homed = |domain: &Domain| domain.home.as_ref() == Some(&self.datastore);
        let there = |domain: &Domain| !matches!(domain.state, DomainState::Stopped(_));
        !self.slots.is_empty() || domains.iter().any(|domain| homed(domain) && there(domain))
    }

    /// Whether whatever these domains show running, or arriving, of this datastore is claimed. (What was created paused is claimed,
    /// or nobody will resume it.)
    pub(crate) fn show_all(&self, domains: &Domains) -> bool {
        let matters = |domain: &&Domain| {
            domain.home.as_ref() == Some(&self.datastore)
                && matches!(domain.state, DomainState::Running | DomainState::Incoming)
        };
        let claimed = |vm: VmId| self.slots.get(&vm).is_some_and(|slot| !slot.claim.state.is_released());
        domains.iter().filter(matters).all(|domain| claimed(domain.vm))
    }

    /// Brings claims in line with the domains and the protected list.
    pub(crate) fn reconcile(&mut self, look: Option<&Look>, host: &HostSide<'_>, out: &mut Out<'_>) {
        let mut vms: BTreeSet<VmId> = self.slots.keys().copied().collect();
        if let Some(look) = look {
            let mine = look.list.entries.iter().filter(|entry| entry.holder.as_ref() == Some(&self.me));
            vms.extend(mine.map(|entry| entry.vm));
        }
        if let Some(domains) = host.domains {
            let homed = |domain: &&Domain| domain.home.as_ref() == Some(&self.datastore);
            vms.extend(domains.iter().filter(homed).map(|domain| domain.vm));
            let has_qemu = |domain: &&Domain| !matches!(domain.state, DomainState::Stopped(_));
            self.present = domains.iter().filter(homed).filter(has_qemu).map(|domain| domain.vm).collect();
        }
        self.leased |= host.lease.is_some();
        if host.guarded {
            self.take_processes(host.processes);
        }
        for vm in vms {
            self.reconcile_vm(vm, look, host, out);
        }
        self.end_frozen_arrivals(host, out);
        self.advance_starts(look, host, out);
        self.respond_to_isolation(look, host, out);
        self.obey(look, host, out);
        self.ask_guests(look, out);
        self.thaw(look, host, out);
        self.continue_after_io_errors(look, host, out);
    }

    fn reconcile_vm(&mut self, vm: VmId, look: Option<&Look>, host: &HostSide<'_>, out: &mut Out<'_>) {
        self.retry_removal(vm, out);
        let Some(domains) = host.domains else { return };
        let (domain, as_of) = domains.get(vm);
        let slot = self.slots.get(&vm);
        let state = domain.map_or(DomainState::Stopped(StopCause::Unknown), |domain| domain.state);
        if let Some(slot) = slot
            && slot.stage != Stage::Settled
        {
            let called_off = look.is_some_and(|look| !self.is_granted(look, vm));
            match &slot.stage {
                Stage::Preparing { .. } if called_off && look.is_some_and(|look| !look.changing) => {
                    // It may wait for the storage for ever, and somebody else is to have the VM.
                    let op = self.destroy(vm, out);
                    let then = ClaimState::Stopped { cause: StopCause::Withdrawn };
                    self.set_stage(vm, Stage::Removing { op, then });
                }
                Stage::Doubtful { since } if as_of >= *since => self.settle_doubt(vm, state, out.now),
                Stage::Guarding { since, .. }
                    if as_of >= *since && matches!(state, DomainState::Stopped(_)) =>
                {
                    self.settle_doubt(vm, state, out.now);
                }
                Stage::Guarding { ask_at, .. } if out.now >= *ask_at => self.ask_guard(vm, out),
                Stage::Stopping(_) => self.follow_stopping(vm, (state, as_of), look, host, out),
                Stage::Doubtful { .. }
                | Stage::RemovalDue { .. }
                | Stage::Settled
                | Stage::Announcing
                | Stage::Checking { .. }
                | Stage::Preparing { .. }
                | Stage::Guarding { .. }
                | Stage::Prepared { .. }
                | Stage::Resuming { .. }
                | Stage::Removing { .. } => {}
            }
            return;
        }
        if slot.is_some_and(|slot| as_of < slot.acted) {
            // R32: from before this host's own last operation on the VM.
            return;
        }
        match state {
            DomainState::Running => {
                if let Some(domain) = domain {
                    self.follow_running(domain, look, host, out);
                }
            }
            // Left behind by a start that was called off, or by a former run of the agent: nobody will resume it.
            DomainState::Prepared if slot.is_none_or(|slot| slot.claim.state.is_released()) => {
                self.remove_orphan(vm, domain, out);
            }
            DomainState::Prepared => {}
            DomainState::Incoming => self.follow_incoming(domain, out),
            DomainState::Stopped(cause) => self.follow_stopped(vm, domain, cause, look, out),
        }
    }

    /// The VM of an operation under way here.
    pub(crate) fn vm_of(&self, wanted: OpId) -> Option<VmName> {
        let matches = |stage: &Stage| match stage {
            Stage::Preparing { op, .. } | Stage::Resuming { op } | Stage::Removing { op, .. } => {
                *op == wanted
            }
            Stage::Settled
            | Stage::Announcing
            | Stage::Checking { .. }
            | Stage::Guarding { .. }
            | Stage::Prepared { .. }
            | Stage::RemovalDue { .. }
            | Stage::Doubtful { .. } => false,
            Stage::Stopping(Stopping { op, .. }) => *op == Some(wanted),
        };
        let slot = self.slots.values().find(|slot| matches(&slot.stage))?;
        Some(VmName { id: slot.claim.vm, name: slot.claim.name.clone() })
    }

    /// R46: that start waits for the storage.
    pub(crate) fn on_waits(&mut self, wanted: OpId) -> Option<VmName> {
        let name = self.vm_of(wanted)?;
        if let Some(Slot { stage: Stage::Preparing { waits, .. }, .. }) = self.slots.get_mut(&name.id) {
            *waits = true;
        }
        Some(name)
    }

    /// When something is to be tried again: a removal, an order to the guard. `blind`: it is not known what runs here, and most is
    /// taken up again only when it is.
    pub(crate) fn deadline(&self, blind: bool) -> Option<Time> {
        let due = |slot: &Slot| match slot.stage {
            Stage::RemovalDue { at, .. } => Some(at),
            Stage::Guarding { .. } | Stage::Stopping(_) if blind => None,
            Stage::Guarding { ask_at, .. } => Some(ask_at),
            Stage::Stopping(Stopping { op, retry_at, power_off_at, ordered: true, .. }) => {
                let retry = op.is_none().then_some(retry_at);
                retry.into_iter().chain(power_off_at).min()
            }
            Stage::Stopping(_)
            | Stage::Settled
            | Stage::Announcing
            | Stage::Checking { .. }
            | Stage::Preparing { .. }
            | Stage::Prepared { .. }
            | Stage::Resuming { .. }
            | Stage::Removing { .. }
            | Stage::Doubtful { .. } => None,
        };
        let asks = self.slots.values().filter_map(Slot::ask_at);
        let orders = self.slots.values().filter_map(Slot::order_at);
        self.slots.values().filter_map(due).chain(asks).chain(orders).min()
    }
}
