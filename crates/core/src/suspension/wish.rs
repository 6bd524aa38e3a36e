//! R71, R72: what people asked the owner of a protected list for. No restart, no isolation response and no freeze, until
//! somebody resumes protection or the time is over.
//!
//! A suspension is first *asked for*. It *stands* as soon as no restart is in progress any more. It is on disk, so that the
//! next owner knows of it. A list on disk can only say how much time is left, so the owner writes that anew now and then.
//!
//! Invariant: nobody is told to hold before the list that says so is on disk, nor for longer than that list says.
//!
//! It does not: know which VMs there are, or write the list.

use super::hold_end;
use crate::event::Event;
use crate::ids::DatastoreName;
use crate::out::Out;
use crate::register::{ProtectedList, Suspension};
use crate::time::{Span, Time};
use crate::timing::Timing;
use serde::{Deserialize, Serialize};

/// How often the owner writes anew how much time is left. Under the next owner a suspension may last longer by so much.
const REFRESH: Span = Span::from_secs(60);

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Asked {
    until: Time,
    /// It has begun: no restart is in progress any more.
    stands: bool,
    /// People were told that it stands.
    told: bool,
    /// When to write anew how much is left.
    refresh_at: Time,
}

/// A suspension as a list says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Written {
    stands: bool,
    until: Time,
}

/// What people want of a protected list, and what of it is on disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Wish {
    datastore: DatastoreName,
    asked: Option<Asked>,
    on_disk: Option<Written>,
    /// In the list that is being written.
    writing: Option<Written>,
    /// R72: no hold that was granted for any suspension of this list lasts longer.
    holds_end: Option<Time>,
}

impl Wish {
    /// Taken over from the former owner's list. Nobody knows how long ago that was written, so what was left then is left now.
    pub(crate) fn found(
        datastore: DatastoreName,
        former: Option<&ProtectedList>,
        timing: &Timing,
        now: Time,
    ) -> Wish {
        let asked = former.and_then(|list| list.suspension).map(|suspension| Asked {
            until: now + suspension.left,
            stands: suspension.stands,
            told: false,
            refresh_at: now,
        });
        let holds_end = former.and_then(|list| list.holds).map(|left| hold_end(now, left, timing));
        Wish { datastore, asked, on_disk: None, writing: None, holds_end }
    }

    /// A person suspends protection.
    pub(crate) fn suspend(&mut self, length: Span, timing: &Timing, now: Time) {
        // A host that hears no owner counts from when it reads the list, which may have been written this long ago.
        let longest = length + REFRESH + REFRESH;
        self.holds_end = self.holds_end.max(Some(hold_end(now, longest, timing)));
        self.asked = Some(Asked { until: now + length, stands: self.stands(), told: false, refresh_at: now });
    }

    /// A person resumes protection, or the time is over. Returns whether there was anything to end.
    pub(crate) fn resume(&mut self, reason: &str, out: &mut Out<'_>) -> bool {
        let ended = self.asked.take().is_some();
        if ended {
            let datastore = self.datastore.clone();
            out.event(Event::ProtectionResumed { datastore, reason: reason.into() });
        }
        ended
    }

    /// R72: the end of the longest hold that was ever granted for this list.
    pub(crate) fn holds_end(&self) -> Option<Time> {
        self.holds_end
    }

    /// Protection is suspended now: nothing is restarted.
    pub(crate) fn stands(&self) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.stands)
    }

    /// What is asked for, whether or not it stands yet.
    pub(crate) fn left(&self, now: Time) -> Option<Suspension> {
        let asked = self.asked.as_ref()?;
        Some(Suspension { left: asked.until.since(now), stands: asked.stands })
    }

    /// R72: for how long hosts are to hold. Only what is on disk counts, since the next owner knows nothing else.
    pub(crate) fn hold(&self, now: Time) -> Option<Span> {
        let asked = self.asked.as_ref().filter(|asked| asked.stands)?;
        let written = self.on_disk.filter(|written| written.stands)?;
        Some(asked.until.min(written.until).since(now)).filter(|left| *left > Span::ZERO)
    }

    /// What people asked for is on disk.
    pub(crate) fn is_written(&self) -> bool {
        self.wanted() == self.on_disk
    }

    /// What the list on disk should say.
    fn wanted(&self) -> Option<Written> {
        self.asked.as_ref().map(|asked| Written { stands: asked.stands, until: asked.until })
    }

    /// For the list that is about to be written: the suspension, and for how long holds may last from now.
    pub(crate) fn take_write(&mut self, now: Time) -> (Option<Suspension>, Option<Span>) {
        if let Some(asked) = &mut self.asked {
            asked.refresh_at = now + REFRESH;
        }
        self.writing = self.wanted();
        let holds = self.holds_end.map(|end| end.since(now)).filter(|left| *left > Span::ZERO);
        (self.left(now), holds)
    }

    /// That list is on disk.
    pub(crate) fn on_written(&mut self) {
        self.on_disk = self.writing;
    }

    /// A suspension is asked for and has not begun yet.
    pub(crate) fn is_waiting(&self) -> bool {
        self.asked.as_ref().is_some_and(|asked| !asked.stands)
    }

    /// Lets the suspension begin and end. `failing_over`: a restart is in progress, so that it must not begin yet. Returns
    /// whether the list has to be written.
    pub(crate) fn tick(&mut self, failing_over: bool, out: &mut Out<'_>) -> bool {
        // Nobody holds before it is on disk: people are told only then.
        let counts = self.is_written();
        let Some(asked) = &mut self.asked else { return false };
        if out.now >= asked.until {
            return self.resume("its time is over", out);
        }
        let mut news = false;
        if !asked.stands && !failing_over {
            asked.stands = true;
            news = true;
        }
        if asked.stands && counts && !asked.told {
            asked.told = true;
            let (datastore, left) = (self.datastore.clone(), asked.until.since(out.now));
            out.event(Event::ProtectionSuspended { datastore, left });
        }
        if out.now >= asked.refresh_at {
            news = true;
            asked.refresh_at = out.now + REFRESH;
        }
        news
    }

    /// When to tick next.
    pub(crate) fn deadline(&self, now: Time) -> Option<Time> {
        let asked = self.asked.as_ref()?;
        let due = if asked.refresh_at > now { asked.until.min(asked.refresh_at) } else { asked.until };
        Some(due).filter(|at| *at > now)
    }
}
