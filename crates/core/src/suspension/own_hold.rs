//! R72, R73: this host's own hold on a datastore. Until it ends, this host's guard freezes nothing there.
//!
//! Three sources decide, each in a method of its own:
//! - [`OwnHold::by_own_list`]: this host owns the datastore, and its own list on disk counts;
//! - [`OwnHold::by_answer`]: an owner has answered a heartbeat of this host;
//! - [`OwnHold::by_disk`]: no owner is heard, and the list that this host reads counts.
//!
//! Invariant: a hold begins only where the list on disk says that the suspension stands. It may end early at any time:
//! that is always safe, since leases then count again.
//!
//! It does not: read the disk, or know who the owner is.

use crate::effect::Effect;
use crate::guard::GuardOrder;
use crate::ids::DatastoreName;
use crate::out::Out;
use crate::register::{ListStamp, ProtectedList, Suspension};
use crate::time::{Span, Time};
use serde::{Deserialize, Serialize};

/// The guard is told of a hold anew when its end has moved by more than this.
const HOLD_STEP: Span = Span::from_secs(1);

/// The hold of which this host told its guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Told {
    until: Time,
    /// When the guard was told.
    at: Time,
}

/// A suspension as it was read on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct OnDisk {
    /// The version of the list that says so.
    stamp: ListStamp,
    /// Counted from the start of the first look that found this version.
    until: Time,
}

/// An owner's answer to a heartbeat of this host, as far as it is about holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    /// When this host sent the heartbeat. What the owner grants counts from here.
    pub(crate) echo: Time,
    /// For how long this host is to hold; `None`: not at all.
    pub(crate) hold: Option<Span>,
    /// The owner has written its list. Before that, it does not know whether protection is suspended.
    pub(crate) written: bool,
}

/// This host's hold on one datastore.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct OwnHold {
    datastore: DatastoreName,
    /// Since when a guard is connected, while one is.
    guard_since: Option<Time>,
    told: Option<Told>,
    /// That guard was told to end any hold that it still had from before it connected.
    old_one_ended: bool,
    /// The hold that counts, as the guard reports it.
    in_force: Option<Time>,
    on_disk: Option<OnDisk>,
    /// When an owner that has written its list last answered a heartbeat.
    answered: Time,
}

impl OwnHold {
    pub(crate) fn new(datastore: DatastoreName) -> OwnHold {
        OwnHold {
            datastore,
            guard_since: None,
            told: None,
            old_one_ended: false,
            in_force: None,
            on_disk: None,
            answered: Time(0),
        }
    }

    /// A guard has connected. It may be another run of it, which knows nothing of what the last one was told.
    pub(crate) fn on_guard_found(&mut self, now: Time) {
        (self.guard_since, self.told, self.old_one_ended, self.in_force) = (Some(now), None, false, None);
    }

    /// The guard is gone.
    pub(crate) fn on_guard_lost(&mut self) {
        (self.guard_since, self.in_force) = (None, None);
    }

    /// The guard reports until when it holds.
    pub(crate) fn on_report(&mut self, until: Time) {
        self.in_force = Some(until);
    }

    /// This host has read the protected list, by a look that began at `started`.
    pub(crate) fn on_look(&mut self, list: &ProtectedList, started: Time) {
        let stamp = list.stamp();
        self.on_disk = match (list.suspension.filter(|suspension| suspension.stands), self.on_disk) {
            (Some(_), Some(known)) if known.stamp == stamp => Some(known),
            (Some(suspension), _) => Some(OnDisk { stamp, until: started + suspension.left }),
            (None, _) => None,
        };
    }

    /// This host owns the datastore. `left` is what its own list on disk says; `written`: it has written one.
    pub(crate) fn by_own_list(&mut self, left: Option<Span>, written: bool, out: &mut Out<'_>) {
        match left {
            Some(left) => self.hold(out.now + left, out),
            None if written => self.end(out),
            None => {}
        }
    }

    /// An owner has answered. `read` is the list as this host last read it.
    ///
    /// A hold is taken from an answer only if the list on disk confirms it, and only while the answer is younger than a
    /// lease: a delayed answer says nothing about now.
    pub(crate) fn by_answer(
        &mut self,
        answer: Answer,
        read: Option<&ProtectedList>,
        lease: Span,
        out: &mut Out<'_>,
    ) {
        if answer.written {
            self.answered = out.now;
        }
        match answer.hold {
            Some(left) if read.is_some_and(suspends) && out.now.since(answer.echo) < lease => {
                self.hold(answer.echo + left, out);
            }
            Some(_) => {}
            None if answer.written => self.end(out),
            None => {}
        }
    }

    /// This host does not own the datastore. What counts is the list `read` by a look that began at `started`.
    ///
    /// The list begins or prolongs a hold only if no owner was heard for a lease: what an owner says is newer. A look that
    /// began after the hold and shows no suspension ends the hold (R73).
    pub(crate) fn by_disk(&mut self, read: &ProtectedList, started: Time, lease: Span, out: &mut Out<'_>) {
        if !suspends(read) && self.since().is_some_and(|since| started > since) {
            self.end(out);
        }
        let told = self.told.map(|told| told.until).filter(|until| *until > out.now);
        let unheard = out.now.since(self.answered) >= lease;
        if let Some(on_disk) = self.on_disk.filter(|on_disk| on_disk.until > out.now)
            && unheard
            && told.is_none_or(|told| on_disk.until > told)
        {
            self.hold(on_disk.until, out);
        }
    }

    /// The suspension that `list` shows, with what is left of it by now: the list may have been out of reach since.
    pub(crate) fn suspension_read(&self, list: &ProtectedList, now: Time) -> Option<Suspension> {
        let read = list.suspension?;
        if !read.stands {
            return Some(read);
        }
        let on_disk = self.on_disk.filter(|on_disk| on_disk.until > now)?;
        Some(Suspension { left: on_disk.until.since(now), ..read })
    }

    /// How much of the hold in force is left, as the guard reports it.
    pub(crate) fn left(&self, now: Time) -> Option<Span> {
        self.in_force.filter(|until| *until > now).map(|until| until.since(now))
    }

    /// Since when the guard may have been holding.
    fn since(&self) -> Option<Time> {
        let old = self.guard_since.filter(|_| !self.old_one_ended);
        self.told.map(|told| told.at).or(old)
    }

    fn hold(&mut self, until: Time, out: &mut Out<'_>) {
        let known = self.told.map_or(Time(0), |told| told.until);
        // Each heartbeat works out the same hold anew, and the results differ a little.
        if self.guard_since.is_some() && (until > known + HOLD_STEP || until + HOLD_STEP < known) {
            self.told = Some(Told { until, at: out.now });
            let datastore = self.datastore.clone();
            out.effects.push(Effect::Guard(GuardOrder::Hold { datastore, until }));
        }
    }

    /// Leases count again. A guard that has just connected is told as well: it may hold since before.
    fn end(&mut self, out: &mut Out<'_>) {
        if self.guard_since.is_none() {
            return;
        }
        let first = !core::mem::replace(&mut self.old_one_ended, true);
        if self.told.take().is_some() || first {
            let datastore = self.datastore.clone();
            out.effects.push(Effect::Guard(GuardOrder::EndHold { datastore }));
        }
    }
}

/// The list says that protection is suspended now.
fn suspends(list: &ProtectedList) -> bool {
    list.suspension.is_some_and(|suspension| suspension.stands)
}
