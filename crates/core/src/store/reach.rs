//! R13, R16: whether this host reaches a datastore.
//!
//! The guard beats there and says whether that lands. The datastore counts as reached while the last heartbeat that landed is
//! young enough. Where this host beats now and then only (R13), it may be older.
//!
//! Invariant: people are told once that the datastore is out of reach, and once that it is back.
//!
//! It does not: beat, or choose where this host beats slowly.

use crate::event::Event;
use crate::ids::DatastoreName;
use crate::out::Out;
use crate::time::{Span, Time};
use crate::timing::Timing;
use alloc::string::ToString;
use alloc::sync::Arc;
use serde::{Deserialize, Serialize};

/// So long an agent that has just started waits for the first sign of a datastore before people hear of it: on a busy host its files
/// are opened late.
const PATIENCE: Span = Span::from_secs(5);

/// How well this host reaches one datastore.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Reach {
    datastore: DatastoreName,
    /// When this run of the agent began.
    begun: Time,
    connected: bool,
    error: Option<Arc<str>>,
    /// The start of the guard's last heartbeat write that landed.
    beaten: Option<Time>,
    /// R13: this host beats here now and then only.
    slow: bool,
    /// It beat here now and then before, and in full since then.
    fast_since: Option<Time>,
    /// R16: when this core last went on after standing still.
    awake_since: Option<Time>,
    /// People know that the datastore is out of reach.
    lost_told: bool,
}

impl Reach {
    pub(crate) fn new(datastore: DatastoreName, now: Time) -> Reach {
        Reach {
            datastore,
            begun: now,
            connected: false,
            error: None,
            beaten: None,
            slow: false,
            fast_since: None,
            awake_since: None,
            lost_told: false,
        }
    }

    /// This host's heartbeats arrive.
    pub(crate) fn is_connected(&self) -> bool {
        self.connected
    }

    /// What is wrong with the datastore, if anything is.
    pub(crate) fn problem(&self) -> Option<Arc<str>> {
        if self.connected {
            None
        } else {
            self.error.clone().or_else(|| Some("not reached yet".to_string().into()))
        }
    }

    /// The start of the last heartbeat write that landed.
    pub(crate) fn beaten(&self) -> Option<Time> {
        self.beaten
    }

    /// R13: this host beats here now and then only.
    pub(crate) fn is_slow(&self) -> bool {
        self.slow
    }

    /// R13: how often this host beats here.
    pub(crate) fn set_pace(&mut self, slow: bool, now: Time) {
        if core::mem::replace(&mut self.slow, slow) && !slow {
            self.fast_since = Some(now);
        }
    }

    /// The last heartbeat here may be one of those that come now and then.
    pub(crate) fn was_slow(&self, timing: &Timing, now: Time) -> bool {
        self.slow || self.fast_since.is_some_and(|since| now < since + timing.lease)
    }

    /// People know that it is out of reach.
    pub(crate) fn is_told_lost(&self) -> bool {
        self.lost_told
    }

    /// R16: this core goes on after standing still.
    pub(crate) fn on_awake(&mut self, now: Time) {
        self.awake_since = Some(now);
    }

    /// A read has failed. What a heartbeat write failed of says more.
    pub(crate) fn on_read_failed(&mut self, reason: Arc<str>) {
        self.error.get_or_insert(reason);
    }

    /// The guard has written a heartbeat here, or could not. `open`: this host has read its own registers.
    pub(crate) fn on_beat(
        &mut self,
        started: Time,
        failure: Option<Arc<str>>,
        open: bool,
        timing: &Timing,
        out: &mut Out<'_>,
    ) {
        match failure {
            None => {
                self.beaten = self.beaten.max(Some(started));
                if open && out.now.since(started) < timing.lease {
                    self.set_connected(true, None, out);
                }
            }
            Some(reason) => {
                self.error = Some(reason.clone());
                if !self.is_fresh(timing, out.now) {
                    self.set_connected(false, Some(reason), out);
                }
            }
        }
    }

    /// Time has passed.
    pub(crate) fn on_tick(&mut self, timing: &Timing, out: &mut Out<'_>) {
        if !self.connected && out.now.since(self.begun) >= PATIENCE.max(timing.lease) {
            let reason = self
                .error
                .clone()
                .unwrap_or_else(|| "nothing has come back from it since the agent started".into());
            self.tell_lost(reason, out);
        }
        if self.connected && !self.is_fresh(timing, out.now) {
            self.set_connected(false, Some("its heartbeat writes do not come back".into()), out);
        }
    }

    /// When to tick next.
    pub(crate) fn deadline(&self, timing: &Timing, now: Time) -> Option<Time> {
        let unreached = (!self.connected && !self.lost_told).then(|| self.begun + PATIENCE.max(timing.lease));
        let late = self
            .beaten
            .filter(|_| self.connected)
            .map(|beaten| self.seen_at(beaten) + self.limit(timing, now));
        unreached.into_iter().chain(late).min()
    }

    /// The last heartbeat is young enough for the datastore to count as reached.
    fn is_fresh(&self, timing: &Timing, now: Time) -> bool {
        let limit = self.limit(timing, now);
        self.beaten.is_some_and(|at| now.since(self.seen_at(at)) < limit)
    }

    /// How old the last heartbeat may be.
    fn limit(&self, timing: &Timing, now: Time) -> Span {
        if self.was_slow(timing, now) { timing.lease + timing.resync() } else { timing.lease }
    }

    /// R16: when a heartbeat counts from. If this core stood still, word of later ones may still be on its way to it.
    fn seen_at(&self, beaten: Time) -> Time {
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
            out.event(Event::DatastoreBack { datastore: self.datastore.clone() });
        } else {
            self.tell_lost(error.unwrap_or_else(|| "unknown".into()), out);
        }
    }

    fn tell_lost(&mut self, reason: Arc<str>, out: &mut Out<'_>) {
        if !core::mem::replace(&mut self.lost_told, true) {
            out.event(Event::DatastoreLost { datastore: self.datastore.clone(), reason });
        }
    }
}
