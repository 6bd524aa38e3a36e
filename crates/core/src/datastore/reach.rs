//! Whether this host reaches a datastore: its guard beats there, and says whether that lands.

use super::*;

impl Datastore {
    /// The guard writes the heartbeats; whether they arrive tells whether the datastore is reached.
    pub(super) fn look_at_own_beat(&mut self, out: &mut Out<'_>) {
        let limit = self.reach_limit(out.now);
        let fresh = self.beaten.is_some_and(|at| out.now.since(self.seen_at(at)) < limit);
        if self.connected && !fresh {
            self.set_connected(false, Some("its heartbeat writes do not come back".into()), out);
        }
    }

    /// R16: when the last beat counts from; what the guard says of later ones may still be on its way to one that stood still.
    pub(super) fn seen_at(&self, beaten: Time) -> Time {
        self.awake_since.map_or(beaten, |awake| awake.max(beaten))
    }

    fn set_connected(&mut self, connected: bool, error: Option<Arc<str>>, out: &mut Out<'_>) {
        if connected {
            self.error = None;
        } else if error.is_some() {
            self.error = error.clone();
        }
        if self.connected == connected {
            return;
        }
        self.connected = connected;
        if connected {
            self.lost_told = false;
            out.event(Event::DatastoreBack { datastore: self.name.clone() });
        } else {
            self.tell_lost(error.unwrap_or_else(|| "unknown".into()), out);
        }
    }

    pub(super) fn tell_lost(&mut self, reason: Arc<str>, out: &mut Out<'_>) {
        if !core::mem::replace(&mut self.lost_told, true) {
            out.event(Event::DatastoreLost { datastore: self.name.clone(), reason });
        }
    }

    /// R13: how often this host beats here.
    pub(crate) fn set_pace(&mut self, slow: bool, now: Time) {
        if core::mem::replace(&mut self.slow, slow) && !slow {
            self.fast_since = Some(now);
        }
    }

    /// Its last heartbeat here may be one of those that come now and then.
    pub(super) fn is_slow(&self, now: Time) -> bool {
        self.slow || self.fast_since.is_some_and(|since| now < since + self.config.timing.lease)
    }

    /// How old this host's last heartbeat here may be while the datastore counts as reached.
    pub(super) fn reach_limit(&self, now: Time) -> Span {
        let timing = &self.config.timing;
        if self.is_slow(now) { timing.lease + timing.resync() } else { timing.lease }
    }

    /// Age of this host's own last heartbeat here.
    pub(crate) fn heartbeat_age(&self, now: Time) -> Option<Span> {
        self.beaten.map(|at| now.since(at))
    }

    /// The guard has written a heartbeat here, or could not.
    pub(crate) fn on_beat(&mut self, started: Time, failure: Option<Arc<str>>, out: &mut Out<'_>) {
        match failure {
            None => {
                self.beaten = self.beaten.max(Some(started));
                if self.open && out.now.since(started) < self.config.timing.lease {
                    self.set_connected(true, None, out);
                }
            }
            Some(reason) => {
                self.error = Some(reason.clone());
                let limit = self.reach_limit(out.now);
                let fresh = self.beaten.is_some_and(|at| out.now.since(self.seen_at(at)) < limit);
                if !fresh {
                    self.set_connected(false, Some(reason), out);
                }
            }
        }
    }
}
