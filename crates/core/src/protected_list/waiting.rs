//! Why a VM does not run yet, as it is shown and reported.
//!
//! Why the delay: at the start of a whole cluster everybody waits a moment. People are told when a wait has lasted, and told
//! again when its reasons have become others.
//!
//! It does not decide that a VM waits.

use crate::Refusal;
use crate::event::{Event, VmName};
use crate::ids::HostId;
use crate::out::Out;
use crate::placing::Refusals;
use crate::time::{Span, Time};
use crate::timing::Timing;
use alloc::sync::Arc;
use serde::{Deserialize, Serialize};

/// What the reason of a failed start ends with: when it is tried again. That alone is nothing new to people.
pub(super) const TRIED_AGAIN: &str = "; tried again in ";

/// Reasons that have changed are reported at most this often: a VM may wait for days, while hosts come and go.
const REFRESH: Span = Span::from_secs(60);

/// What a VM waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Wait {
    /// A host that can take it.
    ForHost,
    /// One of the hosts that alone may run it, and that are down.
    Orphaned,
    /// Others, that start before it.
    ForOthers,
    /// It runs, and can't be moved away.
    ToMove,
    /// Until it is known that it runs nowhere.
    ForSight,
    /// The end of a suspension.
    Suspended,
}

impl Wait {
    /// It is down, and nobody can say for how long: people have to know.
    fn is_alarm(self) -> bool {
        match self {
            Wait::ForHost | Wait::Orphaned | Wait::ForSight | Wait::Suspended => true,
            Wait::ForOthers | Wait::ToMove => false,
        }
    }
}

/// A wait that is on show.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Shown {
    reasons: Refusals,
    kind: Wait,
}

/// What people are told, and when.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Report {
    /// They are told then, if it still waits.
    due: Time,
    /// The reasons that they were told.
    told: Option<Refusals>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Waiting {
    shown: Option<Shown>,
    /// About the wait without a host. It outlives a wait for others in between, so that going to and fro hides nothing.
    report: Option<Report>,
    /// The others that it waits for, as was last reported.
    others_reported: Option<Arc<str>>,
}

impl Waiting {
    /// It is down and waits, for these reasons. A wait of another kind before it, which was no alarm, has told nobody of this.
    pub(super) fn wait(
        &mut self,
        reasons: Refusals,
        kind: Wait,
        vm: VmName,
        timing: &Timing,
        out: &mut Out<'_>,
    ) {
        let due = out.now + timing.network_timeout();
        let report = self.report.get_or_insert(Report { due, told: None });
        self.others_reported = None;
        let is_news = report.told.as_ref().is_none_or(|told| !say_the_same(told, &reasons));
        if is_news && out.now >= report.due {
            *report = Report { due: out.now + REFRESH, told: Some(reasons.clone()) };
            out.event(Event::VmWaitsForHost { vm, reasons: reasons.clone() });
        }
        self.shown = Some(Shown { reasons, kind });
    }

    /// It waits for others, that start before it: a host could take it, so that an alarm that none can is over.
    pub(super) fn wait_for_others(&mut self, host: HostId, because: Arc<str>, vm: VmName, out: &mut Out<'_>) {
        if self.others_reported.as_ref() != Some(&because) {
            out.event(Event::VmWaitsForOthers { vm, reason: because.clone() });
            self.others_reported = Some(because.clone());
        }
        if let Some(report) = &mut self.report {
            report.told = None;
        }
        let reasons = alloc::vec![Refusal { host, reason: because }];
        self.shown = Some(Shown { reasons, kind: Wait::ForOthers });
    }

    /// It runs and can't be moved away: that is on show, and no alarm.
    pub(super) fn wait_to_move(&mut self, reasons: Refusals) {
        self.report = None;
        self.shown = Some(Shown { reasons, kind: Wait::ToMove });
    }

    /// It has got a host.
    pub(super) fn placed(&mut self) {
        self.end();
        self.others_reported = None;
    }

    /// It waits no longer. If it waits for the same others again, that is not reported again.
    pub(super) fn end(&mut self) {
        (self.shown, self.report) = (None, None);
    }

    /// What is on show.
    pub(super) fn shown(&self) -> Option<(&Refusals, Wait)> {
        self.shown.as_ref().map(|shown| (&shown.reasons, shown.kind))
    }

    /// People were told that no host can take it.
    pub(super) fn is_reported(&self) -> bool {
        self.report.as_ref().is_some_and(|report| report.told.is_some())
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.shown.is_some()
    }

    /// Nothing can be done for it now.
    pub(super) fn is_stuck(&self) -> bool {
        self.shown.as_ref().is_some_and(|shown| match shown.kind {
            Wait::ForHost | Wait::Orphaned | Wait::ForSight => true,
            Wait::ForOthers | Wait::ToMove | Wait::Suspended => false,
        })
    }

    /// When it is to be reported, for the first time or because the reasons are others.
    pub(super) fn deadline(&self) -> Option<Time> {
        let shown = self.shown.as_ref().filter(|shown| shown.kind.is_alarm())?;
        let report = self.report.as_ref()?;
        let is_news = report.told.as_ref().is_none_or(|told| !say_the_same(told, &shown.reasons));
        is_news.then_some(report.due)
    }
}

/// Whether these reasons say the same but for figures, which change all the time: free memory, times.
fn say_the_same(told: &Refusals, now: &Refusals) -> bool {
    fn words(reason: &str) -> impl Iterator<Item = char> {
        let lasting = reason.split(TRIED_AGAIN).next().unwrap_or_default();
        lasting.chars().filter(|letter| !letter.is_ascii_digit() && *letter != ',' && *letter != '.')
    }
    let alike = |a: &Refusal, b: &Refusal| a.host == b.host && words(&a.reason).eq(words(&b.reason));
    told.len() == now.len() && told.iter().zip(now).all(|(a, b)| alike(a, b))
}

#[cfg(test)]
mod tests {
    use super::{HostId, Refusal, Refusals, say_the_same};

    fn reasons(all: &[(&str, &str)]) -> Refusals {
        let one =
            |(host, reason): &(&str, &str)| Refusal { host: HostId::new(host), reason: (*reason).into() };
        all.iter().map(one).collect()
    }

    #[test]
    fn figures_are_no_news_and_words_and_hosts_are() {
        let told = reasons(&[
            ("h1", "12,272 MiB free"),
            ("h2", "no such machine; tried again in 119 s at the latest"),
        ]);
        let figures =
            reasons(&[("h1", "800 MiB free"), ("h2", "no such machine; tried again in 2 min at the latest")]);
        assert!(say_the_same(&told, &figures));
        assert!(!say_the_same(&told, &told[..1].to_vec()));
        assert!(!say_the_same(&told, &reasons(&[("h1", "12,272 MiB free"), ("h2", "out of reach")])));
        assert!(!say_the_same(&told, &reasons(&[("h1", "12,272 MiB free"), ("h3", "no such machine")])));
    }
}
