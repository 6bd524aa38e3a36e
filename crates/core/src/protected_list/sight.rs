//! What an owner sees when it decides about a VM: the judgements and power-on lists of hosts, and what follows from them for one
//! entry (R42, R45).
//!
//! Invariant: pure functions of what was read. Nothing here remembers or changes anything.

use super::entry::Record;
use crate::Refusal;
use crate::failover::HolderSeen;
use crate::host_liveness::HostState;
use crate::ids::{HostId, Token, VmId};
use crate::placing::{Refusals, VmPlace};
use crate::register::{Claim, Entry, IsolationResponse, PowerOnList, StopCause};
use crate::store::PowerOnSeen;
use crate::time::Time;
use crate::timing::Timing;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// A host that could take VMs, as the owner sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Candidate {
    pub(crate) host: HostId,
    /// Why it can take no VM at all now; `None` if placement may consider it.
    pub(crate) unusable: Option<&'static str>,
}

/// For each VM the hosts that claim it, in their order: an index of the power-on lists, made once for a review.
pub(crate) struct Claimants<'a> {
    by_vm: Vec<Claimed<'a>>,
}

/// A host's claim.
struct Claimed<'a> {
    host: &'a HostId,
    claim: &'a Claim,
}

impl<'a> Claimants<'a> {
    pub(crate) fn of(power_on: &'a BTreeMap<HostId, PowerOnSeen>) -> Claimants<'a> {
        let claims = power_on
            .iter()
            .flat_map(|(host, seen)| seen.list.claims.iter().map(move |claim| Claimed { host, claim }));
        let mut by_vm: Vec<Claimed<'_>> = claims.collect();
        // Stable: the order of the hosts stays.
        by_vm.sort_by_key(|one| one.claim.vm);
        Claimants { by_vm }
    }

    fn on(&self, vm: VmId) -> impl Iterator<Item = (&'a HostId, &'a Claim)> {
        let first = self.by_vm.partition_point(|one| one.claim.vm < vm);
        self.by_vm[first..].iter().take_while(move |one| one.claim.vm == vm).map(|one| (one.host, one.claim))
    }
}

/// What the owner sees when it decides.
pub(crate) struct OwnerSide<'a> {
    pub(crate) me: &'a HostId,
    pub(crate) timing: &'a Timing,
    /// All power-on lists, as they were last read; this host's own as it is on disk.
    pub(crate) power_on: &'a BTreeMap<HostId, PowerOnSeen>,
    /// The index of these lists.
    pub(crate) claimants: &'a Claimants<'a>,
    /// The judgements as they count here: a failed host that may still have a lease, or holds, is unknown.
    pub(crate) states: &'a BTreeMap<HostId, HostState>,
    /// For each host: when the last read of its heartbeat register started.
    pub(crate) heartbeat_read: &'a BTreeMap<HostId, Time>,
    pub(crate) candidates: &'a [Candidate],
    /// Hosts that are alive and whose power-on list was written by the run of their agent that is alive: only these show
    /// what runs there *now*. What a dead host left behind shows what ran there once (R42).
    pub(crate) current: &'a BTreeSet<HostId>,
    /// Hosts that are not known to be dead and do not show what runs on them (R45).
    pub(crate) dark: &'a [HostId],
    /// Hosts whose agent was well when they were last seen, and had itself written their power-on list. Such a list was kept up
    /// to date to the end (R45).
    pub(crate) watched: &'a BTreeSet<HostId>,
    /// Failed hosts whose guard may still hold: their VMs may run on.
    pub(crate) held: &'a BTreeSet<HostId>,
    /// VMs that are there, or arriving, by the word of hosts that have yet to write it (R45).
    pub(crate) arriving: &'a BTreeSet<VmPlace>,
    /// This host is sure that it is not isolated itself.
    pub(crate) anchored: bool,
    /// The cluster's default isolation response.
    pub(crate) isolation_response: IsolationResponse,
}

/// A host's claim on a VM.
pub(super) fn claim_in(list: &PowerOnList, vm: VmId) -> Option<&Claim> {
    list.claims.binary_search_by_key(&vm, |claim| claim.vm).ok().map(|index| &list.claims[index])
}

impl<'a> OwnerSide<'a> {
    /// The claim of that host on the VM.
    pub(super) fn claim(&self, host: &HostId, vm: VmId) -> Option<&'a Claim> {
        self.claimants.on(vm).find(|(other, _)| *other == host).map(|(_, claim)| claim)
    }

    pub(super) fn state(&self, host: &HostId) -> Option<HostState> {
        self.states.get(host).copied()
    }

    /// What is known of the VM's holder.
    pub(super) fn holder_seen(&self, record: &Record, holder: &HostId, now: Time) -> HolderSeen<'a> {
        let entry = record.working();
        let seen = self.power_on.get(holder);
        let after = |at: Option<Time>| at.is_some_and(|at| at >= record.since());
        let claim = self.claim(holder, entry.vm);
        let overdue = now.since(record.since()) >= self.timing.claim_timeout()
            && claim.is_none_or(|claim| claim.token != Some(entry.token));
        HolderSeen {
            state: self.state(holder).unwrap_or_default(),
            claim,
            unreadable: seen.is_some_and(|seen| seen.damaged),
            saw_grant: seen.and_then(|seen| seen.list.list_seen).is_some_and(|list| list >= record.stamp()),
            read_after_intent: after(seen.map(|seen| seen.started))
                && (holder == self.me || after(self.heartbeat_read.get(holder).copied())),
            overdue,
            may_be_elsewhere: self.may_be_elsewhere(entry, holder, claim),
            may_take_responsibility: self.anchored
                && entry.isolation_response.unwrap_or(self.isolation_response)
                    != IsolationResponse::LeavePoweredOn,
        }
    }

    /// R45: whether the VM may be on a host other than its holder although none is known to run it.
    fn may_be_elsewhere(&self, entry: &Entry, holder: &HostId, claim: Option<&Claim>) -> bool {
        // What it never claimed never ran there.
        let had = claim.is_some() || self.power_on.get(holder).is_none_or(|seen| seen.damaged);
        let dark = self.dark.iter().any(|host| host != holder);
        let unwatched = had && dark && !self.watched.contains(holder);
        unwatched || self.arriving(entry, holder).next().is_some()
    }

    /// Hosts other than the holder, and not dead, where the VM is arriving or has arrived.
    fn arriving(&self, entry: &Entry, holder: &HostId) -> impl Iterator<Item = &'a HostId> {
        let alive = move |host: &HostId| host != holder && self.state(host) != Some(HostState::Failed);
        let vm = entry.vm;
        let shown = self.claimants.on(vm).filter(|(_, claim)| claim.may_be_there(entry.token));
        let said = self.arriving.iter().filter(move |said| said.vm == vm).map(|said| &said.host);
        shown.map(|(host, _)| host).chain(said).filter(move |host| alive(host))
    }

    /// Why nobody gets a VM that may run where nobody looks, or is arriving somewhere.
    pub(super) fn unseen(&self, entry: &Entry) -> Refusals {
        let refusal = |host: &HostId, reason: &str| Refusal { host: host.clone(), reason: reason.into() };
        let dark = |host| refusal(host, "the VM may run there, and it does not show what runs there");
        let arriving = |host| refusal(host, "the VM is arriving there by live migration");
        let holder = entry.holder.as_ref();
        let there = holder.into_iter().flat_map(|holder| self.arriving(entry, holder)).map(arriving);
        self.dark.iter().map(dark).chain(there).collect()
    }

    /// A host on which the VM runs without a grant.
    pub(super) fn adopter(&self, entry: &Entry) -> Option<&'a HostId> {
        let adopts = |(host, claim): &(&HostId, &Claim)| {
            claim.is_new_since(entry.token)
                && entry.holder.as_ref() != Some(*host)
                && self.current.contains(*host)
        };
        self.claimants.on(entry.vm).find(adopts).map(|(host, _)| host)
    }

    /// It had come to another host and was stopped there on purpose before its owner knew that it ran there.
    /// `came`: whether it came there under a grant that counts.
    pub(super) fn stopped_elsewhere(&self, vm: VmId, came: impl Fn(Token) -> bool) -> Option<StopCause> {
        let shown = |host: &HostId| self.current.contains(host) && !self.dark.contains(host);
        let current = self.claimants.on(vm).filter(|(host, _)| shown(host)).map(|(_, claim)| claim);
        let ungranted = current.filter(|claim| claim.token.is_none() && came(claim.under));
        ungranted.filter_map(Claim::intended_stop).next()
    }

    /// A former holder, dead or alive, says that it was stopped there on purpose; and it is not known to have run since.
    pub(super) fn stopped_before(&self, entry: &Entry) -> Option<StopCause> {
        let heeded = |claim: &&Claim| claim.token.is_some_and(|held| held < entry.token && entry.heeds(held));
        let former = self.claimants.on(entry.vm).map(|(_, claim)| claim).filter(heeded);
        former.filter_map(Claim::intended_stop).next()
    }
}
