//! One VM of the list: its entry on disk, the entry as it is to be, and what the owner remembers of it.

use super::*;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Slot {
    /// On disk.
    pub(super) durable: Option<Entry>,
    /// To be written, or the same.
    pub(super) working: Entry,
    /// When the present durable entry reached the disk, and in which version.
    pub(super) durable_since: Time,
    pub(super) stamp: ListStamp,
    pub(super) announced: bool,
    pub(super) running_since: Option<Time>,
    pub(super) next_try: Time,
    /// It is waited for since then, until then.
    pub(super) migrating_since: Option<(Time, Time)>,
    pub(super) waits: Option<Waits>,
    pub(super) twice: Option<HostId>,
    pub(super) avoid: BTreeSet<HostId>,
    pub(super) reason: Arc<str>,
}

/// Why a VM waits for a host. People are told when it has lasted: at the start of a whole cluster everybody waits a moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Waits {
    pub(super) reasons: Refusals,
    pub(super) tell_at: Time,
    pub(super) told: bool,
}

impl Candidate {
    pub(super) fn take(&mut self, memory_mib: u64) {
        self.memory_free_mib = self.memory_free_mib.saturating_sub(memory_mib);
        self.domains = self.domains.saturating_add(1);
    }
}

impl Slot {
    pub(super) fn new(entry: Entry, stamp: ListStamp, now: Time) -> Slot {
        Slot {
            durable: None,
            working: entry,
            durable_since: now,
            stamp,
            announced: false,
            running_since: None,
            next_try: Time(0),
            migrating_since: None,
            waits: None,
            twice: None,
            avoid: BTreeSet::new(),
            reason: "".into(),
        }
    }

    pub(super) fn holder_claim<'a>(&self, holder: &HostId, side: &OwnerSide<'a>) -> Option<&'a Claim> {
        let seen = side.power_on.get(holder)?;
        let claims = &seen.list.claims;
        claims.binary_search_by_key(&self.working.vm, |claim| claim.vm).ok().map(|index| &claims[index])
    }

    pub(super) fn holder_seen<'a>(
        &self,
        entry: &Entry,
        holder: &HostId,
        side: &OwnerSide<'a>,
        now: Time,
    ) -> HolderSeen<'a> {
        let seen = side.power_on.get(holder);
        let state = side.states.get(holder).copied().unwrap_or_default();
        let after = |at: Option<Time>| at.is_some_and(|at| at >= self.durable_since);
        let claim = self.holder_claim(holder, side);
        let overdue = now.since(self.durable_since) >= side.timing.claim_timeout()
            && claim.is_none_or(|claim| claim.token != Some(entry.token));
        HolderSeen {
            state,
            claim,
            unreadable: seen.is_some_and(|seen| seen.damaged),
            saw_grant: seen.and_then(|seen| seen.list.list_seen).is_some_and(|list| list >= self.stamp),
            read_after_intent: after(seen.map(|seen| seen.started))
                && (holder == side.me || after(side.heartbeat_read.get(holder).copied())),
            overdue,
            may_be_elsewhere: self.may_be_elsewhere(holder, claim, side),
            may_take_responsibility: side.anchored
                && entry.isolation_response.unwrap_or(side.isolation_response)
                    != IsolationResponse::LeavePoweredOn,
        }
    }

    /// R45: whether the VM may be on a host other than its holder although none is known to run it.
    fn may_be_elsewhere(&self, holder: &HostId, claim: Option<&Claim>, side: &OwnerSide<'_>) -> bool {
        // What it never claimed never ran there.
        let had = claim.is_some() || side.power_on.get(holder).is_none_or(|seen| seen.damaged);
        let dark = side.dark.iter().any(|host| host != holder);
        let unwatched = had && dark && !side.watched.contains(holder);
        unwatched || self.arriving(holder, side).next().is_some()
    }

    /// Hosts other than the holder, and not dead, where the VM is arriving or has arrived.
    fn arriving<'a>(
        &'a self,
        holder: &'a HostId,
        side: &'a OwnerSide<'_>,
    ) -> impl Iterator<Item = &'a HostId> + 'a {
        let alive = move |host: &HostId| {
            host != holder && side.states.get(host).is_none_or(|state| *state != HostState::Failed)
        };
        let shows = |claim: &Claim| claim.vm == self.working.vm && claim.may_be_there(self.working.token);
        let others = side.power_on.iter().filter(move |(host, _)| alive(host));
        others.filter(move |(_, seen)| seen.list.claims.iter().any(shows)).map(|(host, _)| host)
    }

    /// Why nobody gets a VM that may run where nobody looks, or is arriving somewhere.
    pub(super) fn unseen(&self, side: &OwnerSide<'_>) -> Refusals {
        let dark = |host: &HostId| {
            (host.clone(), "the VM may run there, and it does not show what runs there".into())
        };
        let arriving = |host: &HostId| (host.clone(), "the VM is arriving there by live migration".into());
        let holder = self.working.holder.as_ref();
        let there = holder.into_iter().flat_map(|holder| self.arriving(holder, side)).map(arriving);
        side.dark.iter().map(dark).chain(there).collect()
    }

    /// R45: it arrived on another host and was stopped there on purpose before anybody saw it run: that is its user's word.
    pub(super) fn stopped_elsewhere(&self, side: &OwnerSide<'_>) -> Option<StopCause> {
        let shown = |host: &HostId| side.current.contains(host) && !side.dark.contains(host);
        let current = side.power_on.iter().filter(|(host, _)| shown(host));
        let claims = current.flat_map(|(_, seen)| &seen.list.claims);
        claims.filter(|claim| claim.vm == self.working.vm && claim.token.is_none()).find_map(|claim| {
            let ClaimState::Stopped { cause } = claim.state else { return None };
            cause.is_intended().then_some(cause)
        })
    }

    /// The VM waits, for these reasons.
    pub(super) fn wait(&mut self, reasons: Refusals, vm: VmName, timing: &Timing, out: &mut Out<'_>) {
        let tell_at = out.now + timing.network_timeout();
        let waits = self.waits.get_or_insert(Waits { reasons: Vec::new(), tell_at, told: false });
        waits.reasons = reasons;
        if !waits.told && out.now >= waits.tell_at {
            waits.told = true;
            out.event(Event::VmWaitsForHost { vm, reasons: waits.reasons.clone() });
        }
    }

    /// The VM's XML, memory or priority changed while it runs: the entry follows.
    pub(super) fn refresh_spec(&mut self, seen: Option<&HolderSeen<'_>>, dirty: &mut bool) {
        let Some(claim) = seen.and_then(|seen| seen.claim) else { return };
        if claim.token != Some(self.working.token) || claim.state != ClaimState::Running {
            return;
        }
        if let Some(spec) = &claim.spec
            && *spec != self.working.spec
        {
            self.working.spec = spec.clone();
            *dirty = true;
        }
        if claim.name != self.working.name {
            self.working.name = claim.name.clone();
            *dirty = true;
        }
    }

    pub(super) fn choose(
        &mut self,
        rooms: &mut [Candidate],
        preferred: Option<&HostId>,
        name: VmName,
        timing: &Timing,
        out: &mut Out<'_>,
    ) -> Option<HostId> {
        let picture: Vec<HostRoom> = rooms
            .iter()
            .map(|room| HostRoom {
                unusable: room.unusable,
                memory_free_mib: room.memory_free_mib,
                domains: room.domains,
                failed_recently: self.avoid.contains(&room.host),
                preferred: preferred == Some(&room.host),
            })
            .collect();
        let need = self.working.spec.memory_mib;
        match choose_spread(&picture, need) {
            Ok(index) => {
                rooms[index].take(need);
                self.waits = None;
                Some(rooms[index].host.clone())
            }
            Err(reasons) => {
                let hosts = rooms.iter().map(|room| room.host.clone());
                let refusals: Refusals = hosts.zip(reasons.into_iter().map(Arc::from)).collect();
                self.wait(refusals, name, timing, out);
                None
            }
        }
    }

    pub(super) fn count_attempt(&mut self, now: Time) {
        self.working.attempts = self.working.attempts.saturating_add(1);
        self.working.verified = false;
        let index = (self.working.attempts as usize).min(RETRY_DELAYS.len() - 1);
        self.next_try = now + RETRY_DELAYS[index];
    }
}
