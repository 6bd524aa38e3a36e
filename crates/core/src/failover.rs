//! What the owner of a datastore decides about one VM: a pure function of its entry on disk and of what was last read of
//! the holder. The only place where "restart" is decided.
//!
//! Invariant: a VM leaves a holder only when the holder released it on disk, or when the holder is judged failed and its
//! registers were read once more, unchanged, after the intent was on disk (R40, R41). It is granted to nobody while it may run
//! where nobody looks (R45).

use crate::host_liveness::HostState;
use crate::ids::{HostId, Token};
use crate::register::{Claim, ClaimState, Desired, Entry, Priority, StopCause};
use alloc::sync::Arc;

/// What is known of a VM's holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HolderSeen<'a> {
    /// The owner's judgement of it.
    pub state: HostState,
    /// Its claim on the VM, whatever its token.
    pub claim: Option<&'a Claim>,
    /// Its power-on list can't be read now: what was read before may not be its last word.
    pub unreadable: bool,
    /// Whether its power-on list was written after it had seen the present grant.
    pub saw_grant: bool,
    /// Whether its power-on list and heartbeat were read by a read that started after the intent was on disk.
    pub read_after_intent: bool,
    /// Whether the grant has been on disk, unclaimed, for longer than the claim time-out.
    pub overdue: bool,
    /// The VM may be on another host without anybody having seen it run there (R45): it is arriving there, or nobody watched the
    /// holder to its end and there is a host that does not show what runs on it.
    pub may_be_elsewhere: bool,
    /// Its isolation response would stop the VM, and this owner may take responsibility for it now.
    pub may_take_responsibility: bool,
}

impl HolderSeen<'_> {
    /// The holder let go of it, or went down, without anybody having seen the VM end there.
    pub(crate) fn may_have_moved(&self) -> bool {
        use StopCause::{HostFailed, Migrated, Unknown};
        self.claim.is_some_and(|claim| {
            matches!(claim.state, ClaimState::Stopped { cause: HostFailed | Migrated | Unknown })
        })
    }

    /// It has ended there for certain. That libvirt does not answer there hides nothing of it.
    pub(crate) fn has_ended(&self) -> bool {
        self.may_have_moved() && self.claim.is_some_and(|claim| claim.ended)
    }

    /// It has run under the grant that the holder's claim is of.
    pub(crate) fn has_run(&self, token: Token) -> bool {
        let claim = self.claim.filter(|claim| claim.token == Some(token));
        claim.is_some_and(|claim| match claim.state {
            ClaimState::Running | ClaimState::Frozen | ClaimState::Stopping | ClaimState::Migrating => true,
            ClaimState::Stopped { cause } => cause != StopCause::Withdrawn,
            ClaimState::Starting | ClaimState::StartFailed { .. } => false,
        })
    }

    /// The holder has it, but it is frozen or being stopped for isolation.
    pub(crate) fn is_held_back(&self) -> bool {
        self.claim.is_some_and(|claim| matches!(claim.state, ClaimState::Frozen | ClaimState::Stopping))
    }
}

/// What is to be done about a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Leave everything as it is.
    Keep,
    /// It runs as granted.
    Runs,
    /// It is down and stays down.
    SetOff(StopCause),
    /// R44: another host says that it was stopped there on purpose, and that is the last that is known of it: it stays down, and
    /// whoever has a copy of it loses it.
    Heed(StopCause),
    /// Nobody holds it: grant it to whichever host is best.
    Grant {
        /// Prefer the host that just lost it (QEMU crashed).
        same_host: bool,
        /// Why it is to be restarted, in words for people.
        reason: Arc<str>,
    },
    /// The holder let go of it, and it may be running elsewhere, after a live migration as a rule: wait until it shows up, or
    /// until every host that may have it shows that it has not.
    AwaitMigration(StopCause),
    /// The holder failed, but the VM may be running elsewhere: wait for those who do not show what they run.
    AwaitSight,
    /// The holder failed: write the intent to move it.
    Intend,
    /// R43: its user has started it on that host while the holder was still about to: ask the holder to withdraw.
    IntendTo(HostId),
    /// The holder is isolated: take responsibility for the VM, where there is room for it.
    TakeResponsibility,
    /// That is off.
    DropResponsibility(Arc<str>),
    /// The intent stands, the holder was read again and is unchanged: move it.
    Confirm,
    /// The holder showed itself: it keeps the VM.
    Cancel(Arc<str>),
    /// It runs on that host without a grant: give it one.
    Adopt(HostId),
    /// It runs on that host although another holds it.
    Twice(HostId),
}

/// The decision. `adopter`: a host on which the VM runs without a grant.
pub fn decide(entry: &Entry, holder: Option<&HolderSeen<'_>>, adopter: Option<&HostId>) -> Verdict {
    let Some(seen) = holder else {
        return match (adopter, entry.desired) {
            (Some(host), _) => Verdict::Adopt(host.clone()),
            (None, Desired::Off) => Verdict::Keep,
            (None, Desired::On) if entry.unprotected => Verdict::Keep,
            (None, Desired::On) => Verdict::Grant { same_host: false, reason: "no host holds it".into() },
        };
    };
    // R48.
    if seen.unreadable && seen.state != HostState::Failed {
        return Verdict::Keep;
    }
    let claim = seen.claim.filter(|claim| claim.token == Some(entry.token));
    if entry.intent.is_some() {
        return decide_intent(entry, seen, claim, adopter);
    }
    if let Some(claim) = claim {
        return decide_claimed(entry, seen, claim, adopter);
    }
    // The holder runs it under an older grant, or none: it takes up the new one when its libvirt has shown it the VM.
    // So does one on which it is just arriving.
    if seen.claim.is_some_and(|claim| !claim.state.is_released() && claim.token < Some(entry.token)) {
        return if seen.state == HostState::Failed { failed(entry, seen, adopter) } else { Verdict::Keep };
    }
    // No claim is not a release: the holder may claim the grant at any moment. So it is moved by way of an intent (R41 c).
    if let Some(host) = adopter {
        return Verdict::IntendTo(host.clone());
    }
    match seen.state {
        HostState::Failed => failed(entry, seen, None),
        HostState::Connected
        | HostState::Partitioned
        | HostState::AgentUnreachable
        | HostState::Unguarded
            if seen.overdue || seen.saw_grant =>
        {
            intend(entry)
        }
        HostState::Connected
        | HostState::Partitioned
        | HostState::Isolated
        | HostState::AgentUnreachable
        | HostState::Unguarded
        | HostState::Unknown => Verdict::Keep,
    }
}

fn restartable(entry: &Entry) -> bool {
    !entry.unprotected && entry.desired == Desired::On && entry.spec.priority != Priority::Disabled
}

/// The holder is dead. Its word may be older than its end: a host that shows the VM running is believed first.
fn failed(entry: &Entry, seen: &HolderSeen<'_>, adopter: Option<&HostId>) -> Verdict {
    match adopter {
        Some(host) if !entry.unprotected => Verdict::IntendTo(host.clone()),
        None if seen.may_be_elsewhere && restartable(entry) => Verdict::AwaitSight,
        Some(_) | None => intend(entry),
    }
}

fn intend(entry: &Entry) -> Verdict {
    if entry.unprotected || entry.desired == Desired::Off { Verdict::Keep } else { Verdict::Intend }
}

fn decide_intent(
    entry: &Entry,
    seen: &HolderSeen<'_>,
    claim: Option<&Claim>,
    adopter: Option<&HostId>,
) -> Verdict {
    let failed = seen.state == HostState::Failed;
    if entry.unprotected && claim.is_none_or(|claim| !claim.state.is_released()) {
        return Verdict::Cancel("its user took it out of protection".into());
    }
    if let Some(host) = adopter.filter(|host| entry.intent.as_ref() != Some(host)) {
        return Verdict::Cancel(alloc::format!("it runs on {host}").into());
    }
    if let Some(host) = adopter {
        match claim.map(|claim| &claim.state) {
            Some(ClaimState::Starting) if !failed => return Verdict::Keep,
            Some(state) if state.is_released() => return Verdict::Adopt(host.clone()),
            Some(_) | None => {}
        }
    }
    match claim {
        Some(Claim { state: ClaimState::Stopped { cause: StopCause::HostFailed }, .. })
            if seen.may_be_elsewhere =>
        {
            return Verdict::AwaitSight;
        }
        Some(claim) if claim.state.is_released() => return released_under_intent(entry, &claim.state),
        Some(_) if !failed => return Verdict::Cancel("it showed a sign of life".into()),
        // Never claimed: safe to move once it is known that it was not claimed after the intent was on disk either.
        None if !failed && seen.claim.is_some_and(|claim| !claim.state.is_released()) => {
            return Verdict::Cancel("it runs there under an older grant".into());
        }
        Some(_) | None => {}
    }
    match adopter {
        _ if !seen.read_after_intent => Verdict::Keep,
        Some(host) => Verdict::Adopt(host.clone()),
        None if seen.may_be_elsewhere => Verdict::AwaitSight,
        None => Verdict::Confirm,
    }
}

/// The holder has let go while an intent stood: what it wrote last is still its user's word (I4).
fn released_under_intent(entry: &Entry, state: &ClaimState) -> Verdict {
    match state {
        ClaimState::Stopped { cause } if cause.is_intended() => Verdict::SetOff(*cause),
        ClaimState::Stopped { cause: StopCause::Migrated } => Verdict::Cancel("it migrated away".into()),
        ClaimState::Stopped { cause: StopCause::Unknown } if !entry.unprotected => {
            Verdict::Cancel("it vanished from there, and may run elsewhere".into())
        }
        _ if entry.unprotected => Verdict::SetOff(StopCause::Unknown),
        ClaimState::Stopped { .. }
        | ClaimState::StartFailed { .. }
        | ClaimState::Starting
        | ClaimState::Running
        | ClaimState::Frozen
        | ClaimState::Stopping
        | ClaimState::Migrating => Verdict::Confirm,
    }
}

fn decide_claimed(entry: &Entry, seen: &HolderSeen<'_>, claim: &Claim, adopter: Option<&HostId>) -> Verdict {
    match &claim.state {
        // R45: what the host said last, before it went down, may be older than what happened.
        ClaimState::Stopped { cause: StopCause::HostFailed }
            if adopter.is_none() && seen.may_be_elsewhere && restartable(entry) =>
        {
            Verdict::AwaitSight
        }
        ClaimState::Stopped { cause } => released(entry, adopter, *cause),
        ClaimState::StartFailed { reason } => match adopter {
            Some(host) => Verdict::Adopt(host.clone()),
            // One that is being brought back for what Mainstay itself has stopped is tried again.
            None if (entry.unprotected && entry.attempts == 0) || entry.desired == Desired::Off => {
                Verdict::SetOff(StopCause::Unknown)
            }
            None => Verdict::Grant { same_host: false, reason: reason.clone() },
        },
        ClaimState::Starting
        | ClaimState::Running
        | ClaimState::Frozen
        | ClaimState::Stopping
        | ClaimState::Migrating => {
            if seen.state == HostState::Failed {
                return failed(entry, seen, adopter);
            }
            // R61, R62.
            let isolated = seen.state == HostState::Isolated;
            match (&entry.responsible, &claim.state) {
                (Some(_), _) if entry.unprotected => {
                    return Verdict::DropResponsibility("its user took it out of protection".into());
                }
                (Some(_), _) if !isolated => {
                    return Verdict::DropResponsibility("its host is not isolated any more".into());
                }
                (None, ClaimState::Running)
                    if isolated
                        && seen.may_take_responsibility
                        && adopter.is_none()
                        && restartable(entry) =>
                {
                    return Verdict::TakeResponsibility;
                }
                (_, _) => {}
            }
            match (adopter, &claim.state) {
                (Some(host), ClaimState::Running | ClaimState::Frozen) => Verdict::Twice(host.clone()),
                (Some(host), ClaimState::Starting) => Verdict::IntendTo(host.clone()),
                (_, ClaimState::Running) => Verdict::Runs,
                (_, _) => Verdict::Keep,
            }
        }
    }
}

/// R44: the holder has let go of it, for that cause.
fn released(entry: &Entry, adopter: Option<&HostId>, cause: StopCause) -> Verdict {
    if let Some(host) = adopter {
        return Verdict::Adopt(host.clone());
    }
    // A VM that vanished while nobody watched may have migrated like one that is known to have (R45).
    let vanished = cause == StopCause::Unknown && restartable(entry);
    if cause == StopCause::Migrated || vanished {
        return Verdict::AwaitMigration(cause);
    }
    // What Mainstay itself has stopped it brings back, also when its user has taken it out of protection meanwhile (I2).
    let left_alone = entry.unprotected && cause != StopCause::Isolation;
    if cause.is_intended() || left_alone || entry.desired == Desired::Off {
        return Verdict::SetOff(cause);
    }
    let same_host = cause == StopCause::Crashed && entry.attempts == 0;
    Verdict::Grant { same_host, reason: alloc::format!("{cause}").into() }
}

#[cfg(test)]
mod tests;
