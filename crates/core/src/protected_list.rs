//! The protected list of a datastore, in the hands of its owner: what is on disk, what is to be written, and the decisions
//! in between.
//!
//! Invariant: decisions about a VM are made on its entry *as it is on disk*; while a change of it is being written, nothing
//! further is decided about it. So every step of a take-over waits for the one before to be durable.

mod entry;
mod numbers;
mod orders;
mod restart;
mod sight;
mod vm;
mod vms;
mod waiting;
mod wishes;
mod writing;

use crate::ids::{DatastoreName, Epoch, HostId, VmId};
use crate::out::Out;
use crate::placing::{Place, Places, Refusals, UnderWay, VmPlace, VmScene, Want};
use crate::register::{Claim, Desired, Entry, ListStamp, Priority, ProtectedList};
use crate::settings::Settings;
use crate::store::PowerOnSeen;
use crate::suspension::Wish;
use crate::time::{Span, Time};
use crate::timing::Timing;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use numbers::Numbers;
use orders::is_moving_enough;
use serde::{Deserialize, Serialize};
pub(crate) use sight::{Candidate, Claimants, OwnerSide};
use vm::{Broken, Desk, ListedVm};
use vms::Vms;
pub(crate) use waiting::Wait;
use writing::Writing;

/// From so many entries on, VMs that are off and that no host has are forgotten. The register holds that many (see `formats`' layout).
const ENTRIES_KEPT: usize = 2_000;

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct OwnerList {
    datastore: DatastoreName,
    numbers: Numbers,
    vms: Vms,
    writing: Writing,
    /// The newest settings that this owner knows, to be in every list.
    settings: Arc<Settings>,
    suspension: Wish,
    #[cfg(feature = "broken-rules")]
    pub(crate) broken: Option<crate::BrokenRule>,
}

impl OwnerList {
    /// The list of a new epoch, from the last list and all power-on lists, both read after the epoch was raised (R23).
    ///
    /// A claim with a later grant than the entry's shows a grant that the former owner confirmed and this list missed: it
    /// stands. An intent without such a claim is void.
    pub(crate) fn take_over(
        datastore: DatastoreName,
        epoch: Epoch,
        former: Option<ProtectedList>,
        power_on: &BTreeMap<HostId, PowerOnSeen>,
        timing: &Timing,
        now: Time,
    ) -> OwnerList {
        let mut entries: BTreeMap<VmId, Entry> = BTreeMap::new();
        let settings = former.as_ref().map(|list| list.settings.clone()).unwrap_or_default();
        let suspension = Wish::found(datastore.clone(), former.as_ref(), timing, now);
        for entry in former.into_iter().flat_map(|list| list.entries) {
            entries.insert(entry.vm, Entry { intent: None, ..entry });
        }
        for (host, seen) in power_on {
            for claim in &seen.list.claims {
                adopt_claim(&mut entries, host, claim);
            }
        }
        let writing = Writing::new();
        let stamp = writing.stamp(epoch);
        let vms = entries.into_iter().map(|(vm, entry)| (vm, ListedVm::new(entry, stamp, now))).collect();
        OwnerList {
            datastore,
            numbers: Numbers::new(epoch),
            vms: Vms::new(vms),
            writing,
            settings,
            suspension,
            #[cfg(feature = "broken-rules")]
            broken: None,
        }
    }

    /// The version on disk; `None` until the first write of this epoch is done: until then the owner decides nothing.
    pub(crate) fn on_disk(&self) -> Option<ListStamp> {
        self.writing.on_disk()
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.numbers.epoch()
    }

    /// Before a review: takes note of new VMs, failed starts and progress, and says which VMs want a host. R40: only the owner
    /// calls this, within its ownership.
    pub(crate) fn prepare(&mut self, side: &OwnerSide<'_>, out: &mut Out<'_>) -> Vec<Want> {
        if self.writing.on_disk().is_none() {
            return Vec::new();
        }
        self.prune(side);
        self.admit_new(side, out);
        let failing_over = self.suspension.is_waiting() && self.is_failing_over(side);
        if self.suspension.tick(failing_over, out) {
            self.writing.want();
        }
        let (suspended, broken) = (self.suspension.stands(), self.broken());
        let mut wants = Vec::new();
        for vm in self.vms.values_mut() {
            let Some(judged) = vm.judge(&self.writing, side, broken, out.now) else { continue };
            vm.note(&judged, &self.settings, &mut self.writing, out.now);
            if !suspended && let Some(want) = vm.want(&judged, &self.settings, side, out) {
                wants.push(want);
            }
        }
        wants
    }

    /// Decides about every VM whose entry is settled on disk. R40: only the owner calls this, within its ownership.
    /// `places` has a place for each VM that [`OwnerList::prepare`] has just said wants one.
    pub(crate) fn review(&mut self, side: &OwnerSide<'_>, places: &mut Places, out: &mut Out<'_>) {
        if self.writing.on_disk().is_none() {
            return;
        }
        let mut order: Vec<(Priority, VmId)> =
            self.vms.iter().map(|(id, vm)| (vm.working().spec.priority, *id)).collect();
        order.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        let (suspended, broken) = (self.suspension.stands(), self.broken());
        for (_, id) in order {
            let moving_enough = self.is_moving_enough(id, places);
            let Some(vm) = self.vms.get_mut(&id) else { continue };
            let Some(judged) = vm.judge(&self.writing, side, broken, out.now) else { continue };
            vm.carry_out(
                &judged,
                &mut Desk {
                    datastore: &self.datastore,
                    side,
                    settings: &self.settings,
                    suspended,
                    moving_enough,
                    numbers: &mut self.numbers,
                    writing: &mut self.writing,
                    places,
                    out,
                },
            );
        }
    }

    /// A restart has begun and is not done.
    fn is_failing_over(&self, side: &OwnerSide<'_>) -> bool {
        self.vms.values().any(|vm| vm.is_failing_over(side))
    }

    /// Whether a VM that could leave its holder has to wait until others have left it.
    fn is_moving_enough(&self, id: VmId, places: &Places) -> bool {
        let holder = self.vms.get(&id).and_then(|vm| vm.working().holder.as_ref());
        let goes = matches!(places.get(&id), Some(Place::Go(_)));
        holder.filter(|_| goes).is_some_and(|holder| is_moving_enough(self.working(), holder))
    }

    /// Rules that are broken on purpose.
    fn broken(&self) -> Broken {
        #[cfg(feature = "broken-rules")]
        let broken = Broken {
            unread_is_fine: self.broken == Some(crate::BrokenRule::NoReadBeforeConfirm),
            unheard_is_fine: self.broken == Some(crate::BrokenRule::OnlyHolderHeard),
        };
        #[cfg(not(feature = "broken-rules"))]
        let broken = Broken { unread_is_fine: false, unheard_is_fine: false };
        broken
    }

    /// Forgets VMs that are off and that nobody has, when there are very many: the register has room for some thousands.
    fn prune(&mut self, side: &OwnerSide<'_>) {
        if self.vms.len() <= ENTRIES_KEPT {
            return;
        }
        let claimed: BTreeSet<VmId> =
            side.power_on.values().flat_map(|seen| seen.list.claims.iter().map(|claim| claim.vm)).collect();
        let before = self.vms.len();
        self.vms.retain(|id, vm| {
            let entry = vm.working();
            claimed.contains(id)
                || entry.unprotected
                || entry.holder.is_some()
                || entry.desired == Desired::On
        });
        if self.vms.len() != before {
            self.writing.want();
        }
    }

    /// VMs that run somewhere without an entry get one (R34, R42).
    fn admit_new(&mut self, side: &OwnerSide<'_>, out: &mut Out<'_>) {
        for (host, seen) in side.power_on.iter().filter(|(host, _)| side.current.contains(*host)) {
            for claim in &seen.list.claims {
                let Some(spec) = &claim.spec else { continue };
                if !claim.state.is_running_or_frozen() || self.vms.contains_key(&claim.vm) {
                    continue;
                }
                let token = self.numbers.next_grant();
                let entry = Entry::running_on(host, claim, spec, token);
                let stamp = self.writing.stamp(self.numbers.epoch());
                self.vms.insert(claim.vm, ListedVm::new(entry, stamp, out.now));
                self.writing.want();
            }
        }
    }

    /// The next answers of [`OwnerList::deadline`] are to be quick, for times from then on.
    pub(crate) fn remember_deadline(&mut self, timing: &Timing, now: Time) {
        self.vms.remember_deadline(timing, now);
    }

    /// When to review again although nothing happened.
    pub(crate) fn deadline(&self, timing: &Timing, now: Time) -> Option<Time> {
        self.vms.deadline(timing, now).into_iter().chain(self.suspension.deadline(now)).min()
    }
}

/// Suspension of protection.
impl OwnerList {
    /// What people asked for about suspension.
    pub(crate) fn suspension(&self) -> &Wish {
        &self.suspension
    }

    /// A person suspends protection.
    pub(crate) fn suspend(&mut self, length: Span, timing: &Timing, now: Time) {
        self.suspension.suspend(length, timing, now);
        self.writing.want();
    }

    /// A person resumes protection.
    pub(crate) fn resume(&mut self, reason: &str, out: &mut Out<'_>) {
        if self.suspension.resume(reason, out) {
            self.writing.want();
        }
    }
}

/// The list on disk.
impl OwnerList {
    /// The list to be written next, if one is due and none is under way.
    pub(crate) fn take_write(&mut self, me: &HostId, now: Time) -> Option<ProtectedList> {
        let version = self.writing.next_version()?;
        let (suspension, holds) = self.suspension.take_write(now);
        let list = ProtectedList {
            epoch: self.numbers.epoch(),
            version,
            owner: me.clone(),
            entries: self.working().cloned().collect(),
            settings: self.settings.clone(),
            suspension,
            holds,
        };
        self.writing.begin(list.clone());
        Some(list)
    }

    /// The write failed: what is on disk is not known; the same contents go out again under a new version.
    pub(crate) fn on_write_failed(&mut self) {
        self.writing.on_failed();
    }

    /// The write is on disk. Returns the hosts that should look at it.
    pub(crate) fn on_written(&mut self, out: &mut Out<'_>) -> BTreeSet<HostId> {
        let mut concerned = BTreeSet::new();
        let Some(list) = self.writing.on_written() else { return concerned };
        self.suspension.on_written();
        let stamp = list.stamp();
        for entry in &list.entries {
            if let Some(vm) = self.vms.get_mut(&entry.vm) {
                concerned.extend(vm.on_written(entry, stamp, out));
            }
        }
        concerned
    }

    /// Whether the entry is on disk as it is meant to be, and no write under way says anything else about it.
    pub(crate) fn is_settled(&self, vm: VmId) -> bool {
        self.vms.get(&vm).is_none_or(|vm| vm.is_settled(&self.writing))
    }

    /// Whether that revision of the settings, or a later one, is on disk.
    pub(crate) fn has_written(&self, revision: u64) -> bool {
        self.writing.has_settings(revision)
    }
}

/// What others ask about the list.
impl OwnerList {
    /// The entries, as they are to be.
    fn working(&self) -> impl Iterator<Item = &Entry> {
        self.vms.values().map(ListedVm::working)
    }

    /// Entries on disk with why they wait.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&Entry, Option<(&Refusals, Wait)>)> {
        self.vms.values().filter_map(|vm| Some((vm.durable()?, vm.waits_for())))
    }

    /// Whether this owner is responsible for a VM of an isolated host.
    pub(crate) fn is_responsible(&self) -> bool {
        self.working().any(|entry| entry.responsible.is_some())
    }

    /// Whether some VM waits for a host, or has been tried in vain and is being tried on another.
    pub(crate) fn is_in_need(&self) -> bool {
        self.vms.values().any(|vm| vm.is_waiting() || vm.is_tried_again())
    }

    /// Whether some VM waits for a host.
    pub(crate) fn is_waiting(&self) -> bool {
        self.vms.values().any(ListedVm::is_waiting)
    }

    /// Where the VMs of this list run; and those that are to run and don't.
    pub(crate) fn where_they_run(&self, settled: &mut BTreeSet<VmPlace>, missing: &mut BTreeSet<VmId>) {
        for vm in self.vms.values().filter(|vm| vm.working().desired == Desired::On) {
            let entry = vm.working();
            match &entry.holder {
                Some(host) if vm.is_running() => {
                    settled.insert(VmPlace { vm: entry.vm, host: host.clone() });
                }
                Some(_) | None => {
                    missing.insert(entry.vm);
                }
            }
        }
    }

    /// The VMs of this list, for placement's picture.
    pub(crate) fn scenes<'a>(&'a self, power_on: &BTreeMap<HostId, PowerOnSeen>) -> Vec<VmScene<'a>> {
        self.vms.values().map(|vm| vm.scene(&self.datastore, power_on)).collect()
    }

    /// Restarts that others may wait for.
    pub(crate) fn under_way(&self, power_on: &BTreeMap<HostId, PowerOnSeen>) -> Vec<(VmId, UnderWay)> {
        self.vms.iter().filter_map(|(id, vm)| Some((*id, vm.under_way(power_on)?))).collect()
    }

    /// Others no longer wait for these.
    pub(crate) fn give_up_on(&mut self, vms: &[VmId], out: &mut Out<'_>) {
        for id in vms {
            if let Some(vm) = self.vms.get_mut(id) {
                vm.give_up(out);
            }
        }
    }

    /// Nobody waits for anybody: what has come far enough is forgotten.
    pub(crate) fn end_round(&mut self) {
        self.vms.values_mut().for_each(ListedVm::end_round);
    }

    /// Something relevant changed: what waits for its time is tried at once.
    pub(crate) fn hurry(&mut self, now: Time) {
        self.vms.values_mut().for_each(|vm| vm.hurry(now));
    }
}

/// Brings an entry in line with a claim that was found on disk when an epoch began.
fn adopt_claim(entries: &mut BTreeMap<VmId, Entry>, host: &HostId, claim: &Claim) {
    let Some(token) = claim.token else { return };
    match entries.get_mut(&claim.vm) {
        Some(entry) => {
            // A later grant than the entry's: the former owner gave it, and this list did not see it.
            if token > entry.token {
                entry.ran_under.get_or_insert(entry.token);
                entry.token = token;
                entry.holder = Some(host.clone());
                entry.desired = Desired::On;
            }
        }
        None => {
            // The list was lost: the power-on lists are the truth about who runs what.
            let Some(spec) = claim.spec.clone().filter(|_| !claim.state.is_released()) else { return };
            let entry = Entry::running_on(host, claim, &spec, token);
            entries.insert(claim.vm, entry);
        }
    }
}
