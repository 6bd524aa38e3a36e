//! Why a VM does not run yet, as it is shown and reported.
//!
//! Why the delay: at the start of a whole cluster everybody waits a moment. People are told when a wait has lasted.
//!
//! It does not decide that a VM waits.

use crate::Refusal;
use crate::event::{Event, VmName};
use crate::ids::HostId;
use crate::out::Out;
use crate::placing::Refusals;
use crate::time::Time;
use crate::timing::Timing;
use alloc::sync::Arc;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

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

/// A wait that is on show.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Shown {
    reasons: Refusals,
    /// When it is reported.
    report_at: Time,
    reported: bool,
    kind: Wait,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Waiting {
    shown: Option<Shown>,
    /// The others that it waits for, as was last reported.
    others_reported: Option<Arc<str>>,
}

impl Waiting {
    /// It waits, for these reasons.
    pub(super) fn wait(
        &mut self,
        reasons: Refusals,
        kind: Wait,
        vm: VmName,
        timing: &Timing,
        out: &mut Out<'_>,
    ) {
        let report_at = out.now + timing.network_timeout();
        let new = Shown { reasons: Vec::new(), report_at, reported: false, kind };
        let shown = self.shown.get_or_insert(new);
        shown.reasons = reasons;
        shown.kind = kind;
        self.others_reported = None;
        if !shown.reported && out.now >= shown.report_at {
            shown.reported = true;
            out.event(Event::VmWaitsForHost { vm, reasons: shown.reasons.clone() });
        }
    }

    /// It waits for others, that start before it.
    pub(super) fn wait_for_others(&mut self, host: HostId, because: Arc<str>, vm: VmName, out: &mut Out<'_>) {
        if self.others_reported.as_ref() != Some(&because) {
            out.event(Event::VmWaitsForOthers { vm, reason: because.clone() });
            self.others_reported = Some(because.clone());
        }
        let reasons = alloc::vec![Refusal { host, reason: because }];
        self.shown =
            Some(Shown { reasons, report_at: Time(u64::MAX), reported: false, kind: Wait::ForOthers });
    }

    /// It runs and can't be moved away: that is on show, and no alarm.
    pub(super) fn wait_to_move(&mut self, reasons: Refusals) {
        self.shown = Some(Shown { reasons, report_at: Time(u64::MAX), reported: true, kind: Wait::ToMove });
    }

    /// It has got a host.
    pub(super) fn placed(&mut self) {
        self.shown = None;
        self.others_reported = None;
    }

    /// It waits no longer. If it waits for the same others again, that is not reported again.
    pub(super) fn end(&mut self) {
        self.shown = None;
    }

    /// What is on show.
    pub(super) fn shown(&self) -> Option<(&Refusals, Wait)> {
        self.shown.as_ref().map(|shown| (&shown.reasons, shown.kind))
    }

    /// It has been reported, or need not be.
    pub(super) fn is_reported(&self) -> bool {
        self.shown.as_ref().is_some_and(|shown| shown.reported)
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

    /// When it is to be reported.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.shown.as_ref().filter(|shown| !shown.reported).map(|shown| shown.report_at)
    }
}
