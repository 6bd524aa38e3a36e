//! What a datastore shows of holds: which guards may let VMs run on although their leases are over (R72, R73).

use super::*;
use crate::register::Suspension;

impl Datastore {
    /// R72: the protected list, as it was last looked at, says that protection is suspended.
    pub(crate) fn shows_suspension(&self) -> bool {
        let suspension = self.look.as_ref().and_then(|look| look.list.suspension);
        suspension.is_some_and(|suspension| suspension.stands)
    }

    /// The suspension as it was read, with what is left of it by now: the list may be out of reach since.
    pub(crate) fn suspension_read(&self, now: Time) -> Option<Suspension> {
        let read = self.look.as_ref()?.list.suspension?;
        if !read.stands {
            return Some(read);
        }
        let (_, until) = self.look_hold.filter(|(_, until)| *until > now)?;
        Some(Suspension { left: until.since(now), ..read })
    }

    /// R72: until when that host's guard may not freeze VMs of this datastore.
    pub(crate) fn held_until(&self, host: &HostId) -> Option<Time> {
        let known = self.holds.get(host).copied();
        // Of a host whose heartbeat was never read whole nobody knows whether it holds: as long as any hold may last.
        let seen = self.heartbeats.get(host).and_then(Option::as_ref);
        let unread = seen.is_some_and(|seen| seen.value.is_none()) && self.marks.contains_key(host);
        let bound = self.list.as_ref().and_then(OwnerList::holds_end).filter(|_| unread && known.is_none());
        known.or(bound).filter(|_| !self.presumed_down.contains(host))
    }

    /// A person has seen to it that the host is down (R73).
    pub(crate) fn forget_hold(&mut self, host: &HostId) {
        self.presumed_down.insert(host.clone());
    }
}
