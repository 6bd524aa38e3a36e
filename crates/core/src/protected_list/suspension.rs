//! Suspended protection (R71 to R73): no restart, no isolation response, no freeze, until it is resumed or its time is over.
//!
//! What is in progress is completed first: until then it is only asked for. It is on disk, so that it survives the owner; what
//! is left of it is written anew now and then.

use super::*;

/// How often what is left is written anew: so much longer may it last under a next owner.
const REFRESH: Span = Span::from_secs(60);

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Suspended {
    until: Time,
    stands: bool,
    told: bool,
    refresh_at: Time,
}

impl Suspended {
    /// As it was found on disk: what was left then is left now, as far as anybody knows.
    pub(super) fn found(suspension: Suspension, now: Time) -> Suspended {
        Suspended { until: now + suspension.left, stands: suspension.stands, told: false, refresh_at: now }
    }

    pub(super) fn write(&mut self, now: Time) -> Suspension {
        self.refresh_at = now + REFRESH;
        Suspension { left: self.until.since(now), stands: self.stands }
    }

    /// What it says, once it is written: whether it stands, and until when.
    pub(super) fn on_disk(&self) -> (bool, Time) {
        (self.stands, self.until)
    }

    pub(super) fn deadline(&self, now: Time) -> Time {
        if self.refresh_at > now { self.until.min(self.refresh_at) } else { self.until }
    }
}

impl OwnerList {
    /// A person's wish.
    pub(crate) fn suspend(&mut self, length: Span, timing: &Timing, now: Time) {
        // A host that goes by what it reads on disk counts from there: what was written up to so long ago.
        let longest = length + REFRESH + REFRESH;
        self.holds_end = self.holds_end.max(Some(hold_end(now, longest, timing)));
        let stands = self.is_suspended();
        self.suspension = Some(Suspended { until: now + length, stands, told: false, refresh_at: now });
        self.dirty = true;
    }

    /// A person's wish, or the end of its time.
    pub(crate) fn resume(&mut self, reason: &str, out: &mut Out<'_>) {
        if self.suspension.take().is_some() {
            self.dirty = true;
            let datastore = self.datastore.clone();
            out.event(Event::ProtectionResumed { datastore, reason: reason.into() });
        }
    }

    /// No hold lasts longer.
    pub(crate) fn holds_end(&self) -> Option<Time> {
        self.holds_end
    }

    /// Nothing is restarted.
    pub(crate) fn is_suspended(&self) -> bool {
        self.suspension.as_ref().is_some_and(|suspended| suspended.stands)
    }

    /// It is asked for, but what is in progress is completed first.
    pub(crate) fn suspension(&self, now: Time) -> Option<Suspension> {
        let suspended = self.suspension.as_ref()?;
        Some(Suspension { left: suspended.until.since(now), stands: suspended.stands })
    }

    /// How long hosts are not to freeze VMs: only when it is on disk, for the next owner to know (R72).
    pub(crate) fn hold(&self, now: Time) -> Option<Span> {
        let suspended = self.suspension.as_ref().filter(|suspended| suspended.stands)?;
        // No longer than the next owner would read: a longer one counts when it is on disk.
        let (_, until) = self.suspension_on_disk.filter(|(stands, _)| *stands)?;
        Some(suspended.until.min(until).since(now)).filter(|left| *left > Span::ZERO)
    }

    /// What is asked of suspension is on disk.
    pub(crate) fn is_suspension_written(&self) -> bool {
        self.suspension.as_ref().map(Suspended::on_disk) == self.suspension_on_disk
    }

    pub(super) fn tick_suspension(&mut self, side: &OwnerSide<'_>, out: &mut Out<'_>) {
        let Some(suspended) = &self.suspension else { return };
        if out.now >= suspended.until {
            return self.resume("its time is over", out);
        }
        let stands = suspended.stands || !self.is_failing_over(side);
        // Before it is on disk nobody goes by it.
        let counts = self.is_suspension_written();
        let Some(suspended) = &mut self.suspension else { return };
        if stands && !suspended.stands {
            suspended.stands = true;
            self.dirty = true;
        }
        if suspended.stands && counts && !suspended.told {
            suspended.told = true;
            let (datastore, left) = (self.datastore.clone(), suspended.until.since(out.now));
            out.event(Event::ProtectionSuspended { datastore, left });
        }
        if out.now >= suspended.refresh_at {
            self.dirty = true;
            suspended.refresh_at = out.now + REFRESH;
        }
    }

    /// A restart has begun and is not done.
    fn is_failing_over(&self, side: &OwnerSide<'_>) -> bool {
        self.slots.values().any(|slot| {
            let entry = &slot.working;
            let under_way = entry.attempts > 0
                && !entry.verified
                && entry.desired == Desired::On
                && entry.holder.as_ref().is_some_and(|holder| {
                    let failed = side.states.get(holder) == Some(&HostState::Failed);
                    let claim =
                        slot.holder_claim(holder, side).filter(|claim| claim.token == Some(entry.token));
                    !failed && claim.is_none_or(|claim| !claim.state.is_released())
                });
            entry.intent.is_some() || entry.responsible.is_some() || under_way
        })
    }
}
