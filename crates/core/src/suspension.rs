//! R71 to R73: suspended protection.
//!
//! While protection of a datastore is suspended, its owner restarts nothing, and guards *hold*: they freeze no VM at the
//! end of a lease. Three parts keep what is known about it. None of them knows of the others:
//!
//! | part | kept by | what it knows |
//! | --- | --- | --- |
//! | [`Wish`] | the owner | what people asked for, and how much of that is on disk |
//! | [`OwnHold`] | each host | until when its own guard was told to hold |
//! | [`OtherHolds`] | the owner | until when other hosts may be holding, although they are silent |
//!
//! Invariant: nobody holds longer than a suspension on disk lasts. Otherwise the next owner, which relies on the disk, would
//! restart VMs that still run (I1).
//!
//! It does not: freeze or restart anything. The guard and the protected list do.

mod other_holds;
mod own_hold;
mod wish;

use other_holds::OtherHolds;
pub(crate) use own_hold::{Answer, OwnHold};
pub(crate) use wish::Wish;

use crate::ids::{DatastoreName, HostId};
use crate::time::{Span, Time};
use crate::timing::{DRIFT_PPM, FREEZE_BOUND, Timing};
use serde::{Deserialize, Serialize};

/// R72: until when a guard may hold, counted on this host's clock. It had `left` when it wrote that, and it did so before `now`.
/// The clocks of two hosts drift apart, and freezing takes time.
fn hold_end(now: Time, left: Span, timing: &Timing) -> Time {
    let drift = Span((left.0 / 1_000_000).saturating_add(1).saturating_mul(2 * DRIFT_PPM));
    now + left + drift + timing.lease + FREEZE_BOUND
}

/// What this host knows about holds on one datastore: its own guard's, and those of other hosts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Holds {
    own: OwnHold,
    others: OtherHolds,
}

impl Holds {
    pub(crate) fn new(datastore: DatastoreName) -> Holds {
        Holds { own: OwnHold::new(datastore), others: OtherHolds::default() }
    }

    /// Until when this host's guard was told to hold.
    pub(crate) fn own(&self) -> &OwnHold {
        &self.own
    }

    /// The same, to be told what the guard, the owner and the disk say.
    pub(crate) fn own_mut(&mut self) -> &mut OwnHold {
        &mut self.own
    }

    /// The host has written something new that can't be read: it is not down, whatever a person said.
    pub(crate) fn on_sign_of_life(&mut self, host: &HostId) {
        self.others.on_sign_of_life(host);
    }

    /// A new heartbeat of that host. `left`: how much of its hold was left when it wrote that.
    pub(crate) fn on_heartbeat(&mut self, host: &HostId, left: Option<Span>, timing: &Timing, now: Time) {
        self.others.on_sign_of_life(host);
        self.others.on_heartbeat(host, left, timing, now);
    }

    /// A person has made sure that the host is down, and nothing has come from it since.
    pub(crate) fn is_presumed_down(&self, host: &HostId) -> bool {
        self.others.is_presumed_down(host)
    }

    /// A person has made sure that the host is down.
    pub(crate) fn confirm_down(&mut self, host: &HostId) {
        self.others.confirm_down(host);
    }

    /// R72: whether that host's guard may be holding: its VMs may run on, however silent it is. `illegible`: no heartbeat of it
    /// was ever legible. Then nobody knows whether it holds; it may, as long as any hold of the owner's `wish` lasts.
    pub(crate) fn may_hold(&self, host: &HostId, illegible: bool, wish: Option<&Wish>, now: Time) -> bool {
        let bound = wish.and_then(Wish::holds_end).filter(|_| illegible);
        self.others.until(host, bound).is_some_and(|until| now < until)
    }
}
