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
    /// It is waited for since then, until then.
    pub(super) migrating_since: Option<(Time, Time)>,
    pub(super) waits: Option<Waits>,
    /// It is active on another host too: there, told when that has lasted until then, and whether it was.
    pub(super) twice: Option<(HostId, Time, bool)>,
    pub(super) restart: Restart,
    /// Hosts to which it could not be migrated.
    pub(super) refused: BTreeSet<HostId>,
    /// What it waits for besides a host, as it was told.
    pub(super) others_told: Option<Arc<str>>,
    /// The last order that failed: not given again before then.
    pub(super) order_again: Time,
}

/// Why a VM waits for a host. People are told when it has lasted: at the start of a whole cluster everybody waits a moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Waits {
    pub(super) reasons: Refusals,
    pub(super) tell_at: Time,
    pub(super) told: bool,
    /// For what.
    pub(super) kind: Wait,
}

impl Slot {
    pub(super) fn new(entry: Entry, stamp: ListStamp, now: Time) -> Slot {
        Slot {
            durable: None,
            restart: Restart::new(&entry, now),
            working: entry,
            durable_since: now,
            stamp,
            announced: false,
            running_since: None,
            migrating_since: None,
            waits: None,
            twice: None,
            refused: BTreeSet::new(),
            others_told: None,
            order_again: Time(0),
        }
    }

    pub(super) fn holder_claim<'a>(&self, holder: &HostId, side: &OwnerSide<'a>) -> Option<&'a Claim> {
        claim_in(&side.power_on.get(holder)?.list, self.working.vm)
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
        let shows = |list: &PowerOnList| {
            claim_in(list, self.working.vm).is_some_and(|claim| claim.may_be_there(self.working.token))
        };
        let others = side.power_on.iter().filter(move |(host, _)| alive(host));
        others.filter(move |(_, seen)| shows(&seen.list)).map(|(host, _)| host)
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
        let claims = current.filter_map(|(_, seen)| claim_in(&seen.list, self.working.vm));
        claims.filter(|claim| claim.token.is_none()).find_map(|claim| {
            let ClaimState::Stopped { cause } = claim.state else { return None };
            cause.is_intended().then_some(cause)
        })
    }

    /// The VM waits, for these reasons.
    pub(super) fn wait(
        &mut self,
        reasons: Refusals,
        kind: Wait,
        vm: VmName,
        timing: &Timing,
        out: &mut Out<'_>,
    ) {
        let tell_at = out.now + timing.network_timeout();
        let waits = self.waits.get_or_insert(Waits { reasons: Vec::new(), tell_at, told: false, kind });
        waits.reasons = reasons;
        waits.kind = kind;
        self.others_told = None;
        if !waits.told && out.now >= waits.tell_at {
            waits.told = true;
            out.event(Event::VmWaitsForHost { vm, reasons: waits.reasons.clone() });
        }
    }

    /// The VM's XML, memory or priority changed while it runs: the entry follows.
    pub(super) fn refresh_spec(
        &mut self,
        seen: Option<&HolderSeen<'_>>,
        settings: &Settings,
        writing: &mut Writing,
    ) {
        let Some(claim) = seen.and_then(|seen| seen.claim) else { return };
        if claim.token != Some(self.working.token) || claim.state != ClaimState::Running {
            return;
        }
        if let Some(spec) = &claim.spec {
            let mut spec = spec.clone();
            spec.priority = settings.priority(self.working.vm, spec.priority);
            if spec != self.working.spec {
                self.working.spec = spec;
                writing.want();
            }
        }
        if claim.name != self.working.name {
            self.working.name = claim.name.clone();
            writing.want();
        }
    }

    /// The host that this round of placing has for it; otherwise it waits, and says for what.
    pub(super) fn place(
        &mut self,
        places: &mut Places,
        name: VmName,
        timing: &Timing,
        out: &mut Out<'_>,
    ) -> Option<HostId> {
        match places.remove(&name.id)? {
            Place::Go(host) => {
                self.waits = None;
                self.others_told = None;
                Some(host)
            }
            Place::Later(host, because) => {
                if self.others_told.as_ref() != Some(&because) {
                    out.event(Event::VmWaitsForOthers { vm: name, reason: because.clone() });
                    self.others_told = Some(because.clone());
                }
                let tell_at = Time(u64::MAX);
                self.waits = Some(Waits {
                    reasons: alloc::vec![(host, because)],
                    tell_at,
                    told: false,
                    kind: Wait::ForOthers,
                });
                None
            }
            Place::Nowhere { refusals, orphaned } => {
                let kind = if orphaned { Wait::Orphaned } else { Wait::ForHost };
                let mut why: BTreeMap<HostId, Arc<str>> = refusals.into_iter().collect();
                // What a host has said counts, not that it is left out of this round.
                why.extend(self.restart.failures(out.now));
                self.wait(why.into_iter().collect(), kind, name, timing, out);
                None
            }
        }
    }
}
