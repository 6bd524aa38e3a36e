//! Whether the guard of one other host freezes what runs there, as far as is known (R55). A host that goes silent when it can freeze
//! nothing is not taken for failed.
//!
//! It does not: judge the host.

use super::evidence::DiskEvidence;
use crate::event::Event;
use crate::guard::GuardWord;
use crate::ids::{HostId, Incarnation};
use crate::out::Out;
use crate::time::Time;
use crate::timing::Timing;
use alloc::sync::Arc;
use serde::{Deserialize, Serialize};

/// What a run of an agent has said of its guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Said {
    pub(crate) run: Incarnation,
    pub(crate) word: GuardWord,
}

/// What is known of a host's guard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Guarding {
    /// What was heard last by network.
    heard: Option<Said>,
    /// People know that it does not answer.
    told: bool,
    /// The host has answered a ping after its leases had ended, and shown no other sign of life since.
    outlived: bool,
    /// When storage last took no heartbeats of this host either: until then the other one's guard may have been well, and frozen all.
    unwritable: Option<Time>,
}

impl Guarding {
    /// R55: what the host says of its guard. People are told once.
    pub(crate) fn take_in(&mut self, host: &HostId, said: Said, error: Option<&Arc<str>>, out: &mut Out<'_>) {
        self.heard = Some(said);
        let unguarded = !said.word.is_guarded();
        if core::mem::replace(&mut self.told, unguarded) == unguarded {
            return;
        }
        let host = host.clone();
        out.event(if unguarded {
            Event::HostUnguarded { host, reason: error.cloned() }
        } else {
            Event::HostGuarded { host }
        });
    }

    /// The host was heard: its agent runs, and says itself whether it has a guard.
    pub(crate) fn on_heard(&mut self) {
        self.outlived = false;
    }

    /// Should this host judge again, its people hear of it again.
    pub(crate) fn forget_told(&mut self) {
        self.told = false;
    }

    /// R55: whether the guard freezes what runs there when its leases end. `lists`: what the host's power-on lists say. `former`: runs
    /// of its agent that are over.
    pub(crate) fn can_freeze(
        &self,
        former: &[Incarnation],
        lists: impl Iterator<Item = Said> + Clone,
    ) -> bool {
        // Of two words of one run the larger is the later one.
        let lifted = |no: Said| {
            lists.clone().any(|said| said.run == no.run && said.word > no.word && said.word.is_guarded())
        };
        let heard = self.heard.is_some_and(|said| !said.word.is_guarded() && !lifted(said));
        let is_old = |said: &Said| {
            former.contains(&said.run)
                || self.heard.is_some_and(|heard| heard.run == said.run && said.word <= heard.word)
        };
        let written = lists.clone().any(|said| !said.word.is_guarded() && !is_old(&said));
        !heard && !written
    }

    /// Whether the host's kernel goes on without agent and guard.
    pub(crate) fn has_outlived(&self) -> bool {
        self.outlived
    }

    /// The host answered a ping that was sent a failure time-out after its last sign of life on either path. By then its leases
    /// had ended. Its kernel lives, and nobody there has said so: neither agent nor guard runs, and nothing has frozen anything.
    /// `last`: its last sign of life by network. `answer_sent`: when the last ping was sent that it answered.
    pub(crate) fn note_outlived(
        &mut self,
        disk: &DiskEvidence,
        last: Time,
        answer_sent: Option<Time>,
        timing: &Timing,
        now: Time,
    ) {
        if !disk.writable {
            self.unwritable = Some(now);
        }
        let failure_timeout = timing.failure_timeout.max(disk.failure_timeout);
        let last = last.max(disk.changed.unwrap_or_default()).max(self.unwritable.unwrap_or_default());
        let late = answer_sent.is_some_and(|sent| sent.since(last) >= failure_timeout);
        let stands_still = disk.still.is_some_and(|still| still >= failure_timeout);
        self.outlived |= late && stands_still && !disk.confirmed_down;
    }
}

#[cfg(test)]
mod tests {
    use super::{DiskEvidence, GuardWord, Guarding, Incarnation, Said, Time, Timing};
    use crate::time::Span;

    fn said(run: u64, word: u32) -> Said {
        Said { run: Incarnation(run), word: GuardWord(word) }
    }

    fn can_freeze(heard: Option<Said>, former: &[u64], lists: &[Said]) -> bool {
        let guarding = Guarding { heard, ..Guarding::default() };
        let former: alloc::vec::Vec<Incarnation> = former.iter().copied().map(Incarnation).collect();
        guarding.can_freeze(&former, lists.iter().copied())
    }

    #[test]
    fn the_later_word_on_its_guard_counts() {
        assert!(can_freeze(None, &[], &[]), "an older release says nothing of its guard");
        assert!(can_freeze(None, &[], &[said(1, 2), said(1, 4)]));
        assert!(!can_freeze(None, &[], &[said(1, 2), said(1, 3)]), "one of its lists says no");
        assert!(!can_freeze(Some(said(1, 3)), &[], &[said(1, 2)]), "it said no after it wrote that");
        assert!(can_freeze(Some(said(1, 3)), &[], &[said(1, 4)]), "it wrote that after it said no");
        assert!(can_freeze(Some(said(1, 4)), &[], &[said(1, 3)]), "it said yes after it wrote that");
        assert!(can_freeze(Some(said(2, 2)), &[1], &[said(1, 5)]), "a former run wrote that");
        assert!(!can_freeze(Some(said(2, 2)), &[1], &[said(3, 1)]), "it may be of a later run");
    }

    #[test]
    fn a_kernel_that_answers_after_the_leases_have_ended_has_outlived_agent_and_guard() {
        let seconds = |seconds: u64| Time(seconds * 1_000_000);
        let disk = DiskEvidence {
            still: Some(Span::from_secs(60)),
            changed: Some(seconds(100)),
            can_freeze: true,
            writable: true,
            ..DiskEvidence::default()
        };
        let outlived = |disk: &DiskEvidence, sent: u64| {
            let (mut guarding, sent) = (Guarding::default(), seconds(sent));
            guarding.note_outlived(disk, seconds(90), Some(sent), &Timing::STANDARD, sent);
            guarding.outlived
        };
        assert!(!outlived(&disk, 104), "its lease may not have ended when that ping reached it");
        assert!(outlived(&disk, 105));
        assert!(!outlived(&DiskEvidence { writable: false, ..disk }, 105), "nobody can write");
    }
}
