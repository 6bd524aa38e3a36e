//! A host's own word about the VMs homed on one datastore: its power-on list.
//!
//! A room for each part of it: starts, following what libvirt shows, removing, isolation responses, freezing, the owner's orders,
//! asking guests. `vm` puts them together for one VM. Here is the order of the calls, and what concerns all VMs of the datastore.
//!
//! It does not decide where a VM runs. Grants are the owner's.

mod desk;
mod frozen;
mod guests;
mod isolated;
mod orders;
mod removing;
mod starts;
mod vm;

use crate::effect::VmAction;
use crate::event::{Event, VmName};
use crate::guard::ProcessState;
use crate::ids::{DatastoreName, HostId, OpId, VmId};
use crate::input::{Domain, DomainState, VmOutcome};
use crate::local_vms::Domains;
use crate::message::HaltedVm;
use crate::out::Out;
use crate::register::{Claim, ClaimState, Desired, Entry, PowerOnList, Priority, StopCause};
use crate::time::Time;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use desk::{Desk, Wanted};
pub(crate) use desk::{HostSide, Look};
use frozen::Present;
pub(crate) use isolated::IsolationNow;
use serde::{Deserialize, Serialize};
use starts::Turn;
use vm::{ClaimedVm, Stopped};

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Claims {
    datastore: DatastoreName,
    me: HostId,
    vms: BTreeMap<VmId, ClaimedVm>,
    /// Definitions that were ordered to be dropped.
    undefining: BTreeSet<VmId>,
    present: Present,
    /// There was a lease in this run: from then on all that is present is bound to it.
    leased: bool,
    wanted: Wanted,
    #[cfg(feature = "broken-rules")]
    blind: bool,
    #[cfg(feature = "broken-rules")]
    keeps_old_copies: bool,
}

impl Claims {
    /// Takes over what an earlier run left on disk.
    pub(crate) fn new(
        datastore: DatastoreName,
        me: HostId,
        found: Vec<Claim>,
        rebooted: bool,
        now: Time,
    ) -> Claims {
        let found = found.into_iter().filter_map(|claim| ClaimedVm::found(claim, rebooted, now));
        Claims {
            datastore,
            me,
            vms: found.map(|vm| (vm.id(), vm)).collect(),
            undefining: BTreeSet::new(),
            present: Present::default(),
            leased: false,
            wanted: Wanted::both(),
            #[cfg(feature = "broken-rules")]
            blind: false,
            #[cfg(feature = "broken-rules")]
            keeps_old_copies: false,
        }
    }

    /// A rule is broken on purpose.
    #[cfg(feature = "broken-rules")]
    pub(crate) fn set_blind(&mut self) {
        self.blind = true;
    }

    /// A rule is broken on purpose.
    #[cfg(feature = "broken-rules")]
    pub(crate) fn keep_old_copies(&mut self) {
        self.keeps_old_copies = true;
    }

    /// The claims, for the power-on list.
    pub(crate) fn snapshot(&self) -> Vec<Claim> {
        self.vms.values().map(|vm| vm.claim().clone()).collect()
    }

    /// Whether anything of this datastore runs or is claimed here.
    pub(crate) fn concern(&self, domains: &Domains) -> bool {
        !self.vms.is_empty() || domains.homed_on(&self.datastore).any(has_qemu)
    }

    /// Whether whatever these domains show running, or arriving, of this datastore is claimed. (What was created paused is claimed,
    /// or nobody will resume it.)
    pub(crate) fn show_all(&self, domains: &Domains) -> bool {
        let matters = |domain: &&Domain| matches!(domain.state, DomainState::Running | DomainState::Incoming);
        let claimed = |vm: VmId| self.vms.get(&vm).is_some_and(|vm| !vm.is_released());
        domains.homed_on(&self.datastore).filter(matters).all(|domain| claimed(domain.vm))
    }

    /// The VMs that these domains show running, or arriving, and that the list on disk does not claim.
    pub(crate) fn arriving<'a>(
        &'a self,
        domains: &'a Domains,
        on_disk: Option<&'a PowerOnList>,
    ) -> impl Iterator<Item = VmId> + 'a {
        let matters = |domain: &&Domain| matches!(domain.state, DomainState::Running | DomainState::Incoming);
        let claims = move |vm: VmId| {
            let mut claims = on_disk.into_iter().flat_map(|list| &list.claims);
            claims.any(|claim| claim.vm == vm && !claim.state.is_released())
        };
        let there = domains.homed_on(&self.datastore).filter(matters).map(|domain| domain.vm);
        there.filter(move |vm| !claims(*vm))
    }

    /// Brings claims in line with the domains and the protected list.
    pub(crate) fn reconcile(&mut self, look: Option<&Look>, host: &HostSide<'_>, out: &mut Out<'_>) {
        let mut ids: BTreeSet<VmId> = self.vms.keys().copied().collect();
        if let Some(look) = look {
            ids.extend(look.mine().map(|entry| entry.vm));
        }
        if let Some(domains) = host.domains {
            let homed = || domains.homed_on(&self.datastore);
            ids.extend(homed().map(|domain| domain.vm));
            self.present.set(homed().filter(|domain| has_qemu(domain)).map(|domain| domain.vm).collect());
        }
        self.leased |= host.lease.is_some();
        if host.guarded {
            for (id, vm) in &mut self.vms {
                vm.set_frozen(host.processes.get(id) == Some(&ProcessState::Frozen));
            }
        }
        for id in ids {
            self.reconcile_vm(id, look, host, out);
        }
        // What is claimed as running here is no target: a live migration that leaves looks the same to a new run of the agent.
        let here = |vm: &ClaimedVm| !vm.is_released() && vm.claim().state != ClaimState::Migrating;
        let vms = &self.vms;
        let is_target = |vm: VmId| !vms.get(&vm).is_some_and(here);
        self.present.end_frozen_arrivals(is_target, host.processes, host.domains, out);
        self.advance_starts(look, host, out);
        self.respond_to_isolation(look, host, out);
        self.obey(look, host, out);
        for (id, vm) in &mut self.vms {
            let readiness = || look.map(|look| look.list.settings.readiness(*id)).unwrap_or_default();
            vm.ask_guest(readiness, out);
        }
        self.for_each(look, host, out, ClaimedVm::follow_end);
        self.for_each(look, host, out, ClaimedVm::thaw);
        self.for_each(look, host, out, ClaimedVm::continue_after_io_error);
    }

    /// What is here, and what a decision about one VM may use besides it.
    fn parts<'a, 'o>(
        &'a mut self,
        look: Option<&'a Look>,
        host: &'a HostSide<'a>,
        out: &'a mut Out<'o>,
    ) -> Parts<'a, 'o> {
        #[cfg(feature = "broken-rules")]
        let blind = self.blind;
        #[cfg(not(feature = "broken-rules"))]
        let blind = false;
        #[cfg(feature = "broken-rules")]
        let keeps_old_copies = self.keeps_old_copies;
        #[cfg(not(feature = "broken-rules"))]
        let keeps_old_copies = false;
        let desk = Desk {
            me: &self.me,
            datastore: &self.datastore,
            look,
            host,
            leased: self.leased,
            blind,
            keeps_old_copies,
            wanted: &mut self.wanted,
            out,
        };
        Parts { vms: &mut self.vms, undefining: &mut self.undefining, desk }
    }

    fn for_each(
        &mut self,
        look: Option<&Look>,
        host: &HostSide<'_>,
        out: &mut Out<'_>,
        act: fn(&mut ClaimedVm, &mut Desk<'_, '_>),
    ) {
        let Parts { vms, mut desk, .. } = self.parts(look, host, out);
        vms.values_mut().for_each(|vm| act(vm, &mut desk));
    }

    fn reconcile_vm(&mut self, id: VmId, look: Option<&Look>, host: &HostSide<'_>, out: &mut Out<'_>) {
        let mut parts = self.parts(look, host, out);
        if let Some(vm) = parts.vms.get_mut(&id) {
            vm.retry_removal(parts.desk.out);
            vm.give_time_to_stop(&parts.desk);
        }
        let Some(domains) = host.domains else { return };
        let (domain, as_of) = domains.get(id);
        let state = domain.map_or(DomainState::Stopped(StopCause::Unknown), |domain| domain.state);
        if let Some(vm) = parts.vms.get_mut(&id)
            && (vm.go_on(state, as_of, &mut parts.desk) || !vm.is_shown(as_of))
        {
            return;
        }
        match (state, domain) {
            (DomainState::Running, Some(domain)) => parts.follow_running(domain),
            (DomainState::Prepared, Some(domain)) => parts.remove_orphan(domain),
            (DomainState::Incoming, Some(domain)) => parts.follow_incoming(domain),
            (DomainState::Stopped(cause), domain) => parts.follow_stopped(id, domain, cause),
            (DomainState::Running | DomainState::Prepared | DomainState::Incoming, None) => {}
        }
    }

    /// R30: takes starts that wait for a look one step further, higher priorities first. A look counts if it started after the
    /// step that waits for it; it has to show the grant unchanged.
    fn advance_starts(&mut self, look: Option<&Look>, host: &HostSide<'_>, out: &mut Out<'_>) {
        let Some(look) = look else { return };
        let mut room = host.concurrent_starts.saturating_sub(self.starting());
        let Parts { vms, mut desk, .. } = self.parts(Some(look), host, out);
        let mut waiting: Vec<(Turn, Priority, VmId)> = Vec::new();
        for (id, vm) in vms.iter() {
            waiting.extend(vm.turn().map(|(turn, priority)| (turn, priority, *id)));
        }
        waiting.sort_by(|a, b| b.0.prepared.cmp(&a.0.prepared).then(b.1.cmp(&a.1)).then(a.2.cmp(&b.2)));
        for (turn, _, id) in waiting {
            let Some(vm) = vms.get_mut(&id) else { continue };
            if !turn.is_decided_by(look.started) || look.changing {
                desk.wanted.want_look();
                continue;
            }
            if !turn.prepared && room == 0 {
                continue;
            }
            if turn.is_stale(look.started, desk.out.now) {
                vm.check_again(desk.out.now);
                desk.wanted.want_look();
                continue;
            }
            match (desk.is_granted(look, vm.claim()), turn.prepared) {
                (true, false) => {
                    room -= 1;
                    vm.prepare(&mut desk);
                }
                (true, true) => vm.resume(&mut desk),
                (false, prepared) => vm.call_start_off(prepared, &mut desk),
            }
        }
    }

    fn respond_to_isolation(&mut self, look: Option<&Look>, host: &HostSide<'_>, out: &mut Out<'_>) {
        let (Some(look), Some(flagged)) = (look, host.isolation.flagged) else { return };
        if look.started < flagged {
            return self.wanted.want_look();
        }
        self.for_each(Some(look), host, out, ClaimedVm::respond_to_isolation);
    }

    /// Does what the owner asks for, and gives up what it no longer asks for.
    fn obey(&mut self, look: Option<&Look>, host: &HostSide<'_>, out: &mut Out<'_>) {
        if let Some(look) = look.filter(|look| !look.changing) {
            let Parts { vms, mut desk, .. } = self.parts(Some(look), host, out);
            for (id, vm) in vms.iter_mut() {
                vm.forget_order_unless(|| look.list.entry(*id).and_then(|entry| entry.order.as_ref()));
            }
            let mut end: Vec<VmId> = Vec::new();
            for entry in look.mine() {
                if let (Some(order), Some(vm)) = (&entry.order, vms.get_mut(&entry.vm))
                    && vm.obey(entry, order, &mut desk)
                {
                    end.push(entry.vm);
                }
            }
            for id in end {
                if let Some(vm) = vms.get_mut(&id) {
                    vm.end_for_order(desk.out);
                }
            }
        }
        self.vms.values_mut().for_each(|vm| vm.put_off_order(out.now));
    }
}

fn has_qemu(domain: &Domain) -> bool {
    !matches!(domain.state, DomainState::Stopped(_))
}

/// The claims, the definitions that are being dropped, and what a decision about one VM may use besides it.
struct Parts<'a, 'o> {
    vms: &'a mut BTreeMap<VmId, ClaimedVm>,
    undefining: &'a mut BTreeSet<VmId>,
    desk: Desk<'a, 'o>,
}

/// Claims come and go with what libvirt shows.
impl Parts<'_, '_> {
    fn is_homed(&self, domain: &Domain) -> bool {
        domain.home.as_ref() == Some(self.desk.datastore)
    }

    fn follow_running(&mut self, domain: &Domain) {
        match self.vms.get_mut(&domain.vm) {
            Some(vm) => vm.follow_running(domain, &mut self.desk),
            None => {
                if let Some(vm) = ClaimedVm::appeared(domain, &mut self.desk) {
                    self.vms.insert(domain.vm, vm);
                }
            }
        }
    }

    /// Left behind by a start that was called off, or by a former run of the agent: nobody will resume it.
    fn remove_orphan(&mut self, domain: &Domain) {
        let vm = self.vms.get(&domain.vm);
        if vm.is_some_and(|vm| !vm.is_released()) || !self.is_homed(domain) {
            return;
        }
        let claim = vm.map_or_else(|| ClaimedVm::left_behind(domain), |vm| vm.claim().clone());
        let op = self.desk.out.vm(VmAction::Destroy { vm: domain.vm });
        self.vms.insert(domain.vm, ClaimedVm::orphan(claim, op));
    }

    fn follow_incoming(&mut self, domain: &Domain) {
        // What an earlier stay here left behind is for the owner to read first.
        if self.is_homed(domain) && self.desk.leased && !self.vms.contains_key(&domain.vm) {
            self.vms.insert(domain.vm, ClaimedVm::arriving(domain, &mut self.desk));
        }
    }

    fn follow_stopped(&mut self, id: VmId, domain: Option<&Domain>, cause: StopCause) {
        let entry = self.desk.entry(id);
        let granted = entry.filter(|entry| self.desk.is_mine(entry) && entry.desired == Desired::On);
        if let Some(vm) = self.vms.get_mut(&id) {
            match vm.follow_stopped(cause, granted, &mut self.desk) {
                Stopped::Stays => return,
                Stopped::Done => {
                    self.vms.remove(&id);
                    self.desk.wanted.want_write();
                }
            }
        }
        if let Some(entry) = granted.filter(|_| self.desk.look.is_some_and(|look| !look.changing)) {
            self.vms.insert(id, ClaimedVm::granted(entry));
            self.undefining.remove(&id);
            self.desk.wanted.want_write();
            return;
        }
        self.drop_definition(id, domain, entry);
    }

    /// A definition that is left here of a VM that another host has.
    fn drop_definition(&mut self, id: VmId, domain: Option<&Domain>, entry: Option<&Entry>) {
        let (Some(domain), Some(entry)) = (domain, entry) else {
            self.undefining.remove(&id);
            return;
        };
        let Some(holder) = entry.holder.as_ref().filter(|holder| *holder != self.desk.me) else { return };
        if domain.persistent && entry.desired == Desired::On && self.undefining.insert(id) {
            self.desk.out.vm(VmAction::Undefine { vm: id });
            let vm = VmName { id, name: domain.name.clone() };
            self.desk.out.event(Event::DefinitionDropped { vm, holder: holder.clone() });
        }
    }
}

/// What is wanted of the datastore.
impl Claims {
    /// The power-on list has to be written.
    pub(crate) fn want_write(&mut self) {
        self.wanted.want_write();
    }

    pub(crate) fn is_write_wanted(&self) -> bool {
        self.wanted.is_write_wanted()
    }

    /// The claims as they are now are being written.
    pub(crate) fn write_begins(&mut self) {
        self.wanted.write_begins();
    }

    /// A look at the protected list is wanted, started no sooner than now.
    pub(crate) fn want_look(&mut self) {
        self.wanted.want_look();
    }

    pub(crate) fn is_look_wanted(&self) -> bool {
        self.wanted.is_look_wanted()
    }

    pub(crate) fn look_begins(&mut self) {
        self.wanted.look_begins(false);
    }

    /// A look could not be made: another one is wanted if any claim waits for it.
    pub(crate) fn look_failed(&mut self) {
        let again = self.waits_for_look();
        self.wanted.look_begins(again);
    }

    /// Whether a look is waited for.
    pub(crate) fn waits_for_look(&self) -> bool {
        self.vms.values().any(ClaimedVm::waits_for_look)
    }

    /// A power-on list with these claims is on disk.
    pub(crate) fn on_durable(&mut self, claims: &[Claim], now: Time) {
        for claim in claims {
            if let Some(vm) = self.vms.get_mut(&claim.vm)
                && vm.on_durable(claim, now)
            {
                self.wanted.want_look();
            }
        }
    }

    /// When something is to be tried again. `blind`: it is not known what runs here, and most is taken up again only when it is.
    pub(crate) fn deadline(&self, blind: bool) -> Option<Time> {
        self.vms.values().filter_map(|vm| vm.deadline(blind)).min()
    }
}

/// Operations on VMs.
impl Claims {
    /// How many starts are under way.
    pub(crate) fn starting(&self) -> u32 {
        self.vms.values().filter(|vm| vm.is_starting()).count() as u32
    }

    /// An operation of ours on a VM is done. Returns whether it was one of these claims'.
    pub(crate) fn on_vm_done(&mut self, op: OpId, outcome: &VmOutcome, out: &mut Out<'_>) -> bool {
        let news = if let Some(vm) = self.vms.values_mut().find(|vm| vm.has_order(op)) {
            vm.on_order_done(outcome, out.now)
        } else if let Some(vm) = self.vms.values_mut().find(|vm| vm.asks_guest(op)) {
            vm.on_guest_answer(outcome, out.now)
        } else if let Some(vm) = self.vms.values_mut().find(|vm| vm.op() == Some(op)) {
            vm.on_done(outcome, &mut self.wanted, out);
            false
        } else {
            return false;
        };
        if news {
            self.wanted.want_write();
        }
        true
    }

    /// R46: that start waits for the storage.
    pub(crate) fn on_waits(&mut self, op: OpId) -> Option<VmName> {
        let vm = self.vms.values_mut().find(|vm| vm.op() == Some(op))?;
        vm.on_waits();
        Some(vm.name())
    }

    /// The guard has looked for a VM's process.
    pub(crate) fn on_process(&mut self, vm: VmId, state: ProcessState, now: Time) {
        if self.vms.get_mut(&vm).is_some_and(|vm| vm.on_process(state, now)) {
            self.wanted.want_look();
        }
    }
}

/// What is bound to the lease, and what does not execute.
impl Claims {
    /// The VMs that are bound to the lease. These are all that this host has claimed on disk and has not let go, and
    /// whatever else has a QEMU here (it is about to be claimed).
    pub(crate) fn watched(&self, present_too: bool) -> Vec<VmId> {
        let claimed = self.vms.values().filter(|vm| vm.is_bound()).map(ClaimedVm::id);
        // Where there never was a lease nobody was told that these VMs are held by one: they are left alone.
        let present = self.present.iter().filter(|_| self.leased && present_too);
        claimed.chain(present).collect::<BTreeSet<VmId>>().into_iter().collect()
    }

    /// VMs that are claimed as running here and do not execute.
    pub(crate) fn halted<'a>(&'a self, domains: Option<&'a Domains>) -> impl Iterator<Item = HaltedVm> + 'a {
        self.vms.values().filter_map(move |vm| {
            let domain = || domains.and_then(|domains| domains.get(vm.id()).0);
            Some(HaltedVm { vm: vm.id(), why: vm.halt(domain)? })
        })
    }

    /// Whether there is nothing of this datastore's on this host.
    pub(crate) fn is_empty(&self) -> bool {
        self.vms.is_empty() && self.present.is_empty()
    }

    /// Whether any VM is frozen.
    pub(crate) fn has_frozen(&self) -> bool {
        self.vms.values().any(ClaimedVm::is_frozen)
    }
}
