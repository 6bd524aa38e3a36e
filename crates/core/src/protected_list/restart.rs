//! What the owner remembers of the restarts of one VM: which hosts were tried (R75), whether its guest came up (R76), and
//! how far the restart has come for those that wait for it (R77).
//!
//! Why: how often a VM was granted stands in its entry and survives the owner. What is here is lost with the owner, and a
//! next owner may try a host once more, or wait once more from the beginning. Both are safe.
//!
//! Invariant: one grant counts as one failure at most.
//!
//! It does not decide that a VM is restarted (`failover`), nor where (`placing`).

use super::entry::Record;
use super::sight::Candidate;
use super::waiting::TRIED_AGAIN;
use super::writing::Writing;
use crate::Refusal;
use crate::failover::Verdict;
use crate::ids::{HostId, Token};
use crate::placing::{Progress, Refusals};
use crate::register::{Claim, ClaimState, Entry, StopCause};
use crate::settings::in_words;
use crate::time::{Span, Time};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// R75: how long a VM waits that no host could start, after each round; after the last the same again and again. vSphere's
/// times: 2, 6, 14 and 30 minutes after the first round; each wait begins when the round before has failed.
const RETRY_DELAYS: [Span; 5] = [
    Span::from_secs(120),
    Span::from_secs(240),
    Span::from_secs(480),
    Span::from_secs(960),
    Span::from_secs(1_800),
];

/// Waits until a host that is alive and has not taken up a grant gets another one, or another host gets it.
const DECLINED_DELAYS: [Span; 5] =
    [Span::ZERO, Span::from_secs(2), Span::from_secs(6), Span::from_secs(14), Span::from_secs(30)];

/// So many grants in a row that ended with the failure of the host: after that it waits like after failed starts. A guest that
/// brings down its hosts must not go through all of them.
const HOSTS_LOST: u32 = 3;

/// A VM that ran for this long after a restart is well again: its attempts are forgotten.
const RAN_WELL: Span = Span::from_secs(60);

/// A round of tries: each host that could take the VM is tried once, then the VM waits (R75).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Round {
    /// Hosts that failed to start it in this round.
    tried: BTreeSet<HostId>,
    /// Why it could not be started, host by host. Also of rounds before this one.
    failures: BTreeMap<HostId, Arc<str>>,
    /// The grant whose failure was counted last.
    failed_token: Option<Token>,
    /// When the next round begins.
    next: Time,
}

/// The wait for the answer of its guest agent (R76).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct GuestWait {
    until: Option<Time>,
    /// The silence was reported, by this owner.
    reported: bool,
}

/// Why not an `Option` that is `None` when no restart is under way: hosts to avoid, the reason of the last grant and a reported
/// silence outlive the restart. They are forgotten one by one: when the VM is seen to run as it should, or its guest answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Restart {
    /// Why it was granted anew.
    reason: Arc<str>,
    /// It has wanted a host since then.
    wanted_since: Option<Time>,
    round: Round,
    /// Hosts that lost it lately: tried last, with those that failed to start it.
    avoid: BTreeSet<HostId>,
    /// A host that is alive and has not taken up the grant is passed over after this time.
    ask_again: Time,
    /// How far it has come, while others may wait for it.
    progress: Option<Progress>,
    guest: GuestWait,
}

impl Restart {
    /// Of an entry that is new to this owner.
    pub(super) fn new(entry: &Entry, now: Time) -> Restart {
        // The former owner's restarts that are under way: from now on, as far as anybody knows.
        let progress = (entry.attempts > 0 && !entry.verified).then(|| Progress::new(now));
        Restart {
            reason: "".into(),
            wanted_since: None,
            round: Round::default(),
            avoid: BTreeSet::new(),
            ask_again: Time(0),
            progress,
            guest: GuestWait::default(),
        }
    }

    /// It has been granted anew, for that reason.
    pub(super) fn grant(&mut self, entry: &mut Entry, reason: Arc<str>, now: Time) {
        let asked = (entry.attempts as usize).min(DECLINED_DELAYS.len() - 1);
        self.ask_again = now + DECLINED_DELAYS[asked];
        entry.attempts = entry.attempts.saturating_add(1);
        self.begin_progress(now);
        entry.verified = false;
        entry.asked_to_stop = false;
        entry.order = None;
        entry.mute = false;
        self.guest = GuestWait::default();
        self.reason = reason;
    }

    pub(super) fn reason(&self) -> &Arc<str> {
        &self.reason
    }

    /// Whether a host that is alive has had the time to take up its grant.
    pub(super) fn was_declined(&self, now: Time) -> bool {
        now >= self.ask_again
    }

    /// It wants a host. Returns since when.
    pub(super) fn want(&mut self, now: Time) -> Time {
        *self.wanted_since.get_or_insert(now)
    }

    pub(super) fn wanted_since(&self) -> Option<Time> {
        self.wanted_since
    }

    /// It runs: it wants no host any more.
    pub(super) fn runs(&mut self) {
        self.wanted_since = None;
    }

    /// It is down and stays down.
    pub(super) fn set_off(&mut self) {
        self.progress = None;
        self.wanted_since = None;
        self.guest = GuestWait::default();
        self.forget_round();
    }

    fn forget_round(&mut self) {
        self.round.tried.clear();
        self.round.failures.clear();
    }

    /// Whether it runs well that has run since then.
    pub(super) fn ran_well(since: Time, now: Time) -> bool {
        now.since(since) >= RAN_WELL
    }

    /// When that will be.
    pub(super) fn well_at(since: Time) -> Time {
        since + RAN_WELL
    }

    /// It runs well again.
    pub(super) fn forget_attempts(&mut self, entry: &mut Entry) {
        entry.attempts = 0;
        entry.failed_on.clear();
        self.forget_round();
    }

    /// When something of this is due.
    pub(super) fn deadline(&self, now: Time) -> Option<Time> {
        let retry = (!self.round.tried.is_empty()).then_some(self.round.next);
        let guest = self.guest.until.into_iter().chain([self.ask_again]).find(|at| *at > now);
        [retry, guest].into_iter().flatten().filter(|at| *at > now).min()
    }
}

/// R75: one host after the other, then a wait.
impl Restart {
    /// Takes note of a start that has failed at the holder. When each host that could take the VM has been tried, it waits, longer
    /// each time.
    pub(super) fn note_failure(
        &mut self,
        record: &mut Record,
        why: Arc<str>,
        writing: &mut Writing,
        now: Time,
    ) {
        let token = record.working().token;
        let Some(host) = record.working().holder.clone() else { return };
        if self.round.failed_token.replace(token) == Some(token) {
            return;
        }
        self.round.failures.insert(host.clone(), why);
        self.round.tried.insert(host.clone());
        if !record.working().failed_on.contains(&host) {
            record.edit(writing).failed_on.push(host);
        }
        let entry = record.working();
        let round = entry.attempts as usize / entry.failed_on.len();
        self.round.next = now + RETRY_DELAYS[round.saturating_sub(1).min(RETRY_DELAYS.len() - 1)];
    }

    /// A host is left that has not been tried in this round. Placement may still say that it can't take the VM.
    fn is_untried(&self, candidates: &[Candidate]) -> bool {
        candidates.iter().any(|room| room.unusable.is_none() && !self.round.tried.contains(&room.host))
    }

    /// Whether it is to be tried now: a host is left that has not been tried, or the time for the next round has come.
    pub(super) fn is_due(&mut self, candidates: &[Candidate], now: Time) -> bool {
        if now >= self.round.next {
            self.round.tried.clear();
        }
        self.round.tried.is_empty() || self.is_untried(candidates)
    }

    /// Something relevant changed: what waits for its time is tried at once.
    pub(super) fn hurry(&mut self, now: Time) {
        self.round.next = self.round.next.min(now);
    }

    /// Hosts that failed to start it in this round.
    pub(super) fn tried(&self) -> &BTreeSet<HostId> {
        &self.round.tried
    }

    /// That host lost it: the others are tried before it.
    pub(super) fn avoid(&mut self, host: HostId) {
        self.avoid.insert(host);
    }

    /// It runs as it is to: no host is avoided any more.
    pub(super) fn avoid_none(&mut self) {
        self.avoid.clear();
    }

    /// Hosts that are behind the others. `refused`: those to which it could not be migrated.
    pub(super) fn behind(&self, refused: &BTreeSet<HostId>) -> Vec<HostId> {
        if self.round.tried.is_empty() {
            self.avoid.union(refused).cloned().collect()
        } else {
            // In a round of tries only those of this round are behind the others.
            self.round.tried.iter().cloned().collect()
        }
    }

    /// What is on show while it waits for its time.
    pub(super) fn failures(&self, now: Time) -> Refusals {
        let left = self.round.next.since(now);
        let told = |host: &HostId| {
            let why = self.round.failures.get(host).map_or("it could not be started there", |why| why);
            let text = alloc::format!("{why}{TRIED_AGAIN}{} at the latest", in_words(left));
            Refusal { host: host.clone(), reason: text.into() }
        };
        self.round.tried.iter().map(told).collect()
    }
}

/// R75: why a grant counts as a failed start, if it does. `claim`: the holder's, under that grant.
pub(super) fn failed_start(entry: &Entry, claim: Option<&Claim>, verdict: &Verdict) -> Option<Arc<str>> {
    match (verdict, claim.map(|claim| &claim.state)) {
        (Verdict::Grant { .. }, Some(ClaimState::StartFailed { reason })) => Some(reason.clone()),
        // Not the first time, or on purpose: it does not keep running there.
        (Verdict::Grant { .. }, Some(ClaimState::Stopped { cause })) => {
            let counts = match cause {
                StopCause::Crashed => entry.attempts > 0,
                StopCause::NotVerified => true,
                StopCause::GuestShutdown
                | StopCause::UserShutdown
                | StopCause::UserDestroyed
                | StopCause::Saved
                | StopCause::Migrated
                | StopCause::MovedAway
                | StopCause::HostFailed
                | StopCause::Isolation
                | StopCause::Withdrawn
                | StopCause::Unknown
                | StopCause::Maintenance => false,
            };
            counts.then(|| alloc::format!("{cause}").into())
        }
        (Verdict::Intend, _) if entry.attempts >= HOSTS_LOST => {
            Some("its host went down soon after it was started there".into())
        }
        (_, _) => None,
    }
}

/// R76: the guest agent's answer.
impl Restart {
    /// Until when its guest agent is waited for; the wait begins now if it has not begun.
    pub(super) fn wait_for_guest(&mut self, timeout: Span, now: Time) -> Time {
        *self.guest.until.get_or_insert(now + timeout)
    }

    /// Its guest agent should have answered by now, and this is its first try.
    pub(super) fn is_mute(&self, entry: &Entry, now: Time) -> bool {
        let due = self.guest.until.is_some_and(|by| now >= by);
        due && !entry.verified && entry.failed_on.is_empty()
    }

    /// The silence of a VM that is left running like that is to be reported by this owner. Says so once.
    pub(super) fn report_mute(&mut self) -> bool {
        !core::mem::replace(&mut self.guest.reported, true)
    }

    /// What was reported of its silence is over.
    pub(super) fn forget_mute(&mut self) {
        self.guest.reported = false;
    }
}

/// R77: who waits for it.
impl Restart {
    /// It has been granted, or is about to be: whoever waits for it waits from now on.
    pub(super) fn begin_progress(&mut self, now: Time) {
        self.progress.get_or_insert_with(|| Progress::new(now)).ready_since = None;
    }

    pub(super) fn progress(&self) -> Option<&Progress> {
        self.progress.as_ref()
    }

    /// Its ready condition is met.
    pub(super) fn note_ready(&mut self, now: Time) {
        if let Some(progress) = &mut self.progress {
            progress.ready_since.get_or_insert(now);
        }
    }

    /// Others no longer wait for it. Returns whether they did.
    pub(super) fn give_up(&mut self) -> bool {
        self.progress.as_mut().is_some_and(|progress| !core::mem::replace(&mut progress.given_up, true))
    }

    /// What is known of an earlier restart says nothing of this one.
    pub(super) fn forget_progress(&mut self) {
        self.progress = None;
    }

    /// Nobody waits for anybody: what has come far enough is forgotten.
    pub(super) fn end_round(&mut self) {
        if self.progress.as_ref().is_some_and(|progress| progress.ready_since.is_some()) {
            self.progress = None;
        }
    }
}
