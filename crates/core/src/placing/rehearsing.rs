//! R78: when the standing rehearsal is made, and what people are told of it. And that a host in maintenance is empty.
//!
//! It does not: rehearse; that is [`PlansAtHand`]'s. It knows when, and what has been told.

use super::scene::Scene;
use super::standing::PlansAtHand;
use crate::event::Event;
use crate::ids::HostId;
use crate::out::Out;
use crate::settings::Settings;
use crate::time::{Span, Time};
use alloc::collections::BTreeSet;
use serde::{Deserialize, Serialize};

/// How long a rehearsal is good for before it is made again although something small changed.
const PAUSE: Span = Span::from_secs(2);

/// So many VMs lengthen that pause by a second.
const VMS_A_SECOND: u64 = 5_000;

/// Admission control has to object for so long before people are told: hosts come and go while a cluster starts.
const OBJECTS_FOR: Span = Span::from_secs(30);

/// The standing rehearsal of a primary.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Rehearsing {
    at_hand: PlansAtHand,
    /// Something has changed since the plans were made.
    stale: bool,
    objecting: Option<Objecting>,
    /// Hosts in maintenance of which people know that they are empty.
    emptied: BTreeSet<HostId>,
}

/// Admission control objects to the cluster as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Objecting {
    since: Time,
    told: bool,
}

impl Rehearsing {
    /// The plans at hand, and what admission control has against the cluster.
    pub(crate) fn at_hand(&self) -> &PlansAtHand {
        &self.at_hand
    }

    /// Something has changed that plans depend on.
    pub(crate) fn mark_stale(&mut self) {
        self.stale = true;
    }

    /// This host decides for nobody any more.
    pub(crate) fn stop(&mut self) {
        self.at_hand = PlansAtHand::default();
        self.objecting = None;
    }

    /// Makes the plans anew when they are stale and there is time. `failing`: hosts that have failed.
    pub(crate) fn rehearse(
        &mut self,
        scene: impl FnOnce() -> Scene,
        settings: &Settings,
        failing: impl FnOnce() -> BTreeSet<HostId>,
        now: Time,
    ) {
        if self.stale && self.due() <= now {
            self.stale = false;
            self.at_hand.rehearse(&scene(), settings, &failing(), now);
        }
    }

    fn due(&self) -> Time {
        let longer = Span::from_secs(self.at_hand.places() as u64 / VMS_A_SECOND);
        self.at_hand.made().map_or(Time(0), |made| made + PAUSE + longer)
    }

    /// When to rehearse, or to tell of an objection. Only while this host decides.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let rehearsal = self.stale.then(|| self.due());
        let told = self.objecting.filter(|objecting| !objecting.told);
        rehearsal.into_iter().chain(told.map(|objecting| objecting.since + OBJECTS_FOR)).min()
    }

    /// Says when admission control has objected for a while, and when it does so no more.
    pub(crate) fn tell_of_admission(&mut self, out: &mut Out<'_>) {
        match (self.at_hand.objection(), self.objecting) {
            (None, Some(Objecting { told, .. })) => {
                self.objecting = None;
                if told {
                    out.event(Event::AdmissionMet);
                }
            }
            (Some(_), None) => self.objecting = Some(Objecting { since: out.now, told: false }),
            (Some(objection), Some(Objecting { since, told: false }))
                if out.now.since(since) >= OBJECTS_FOR =>
            {
                self.objecting = Some(Objecting { since, told: true });
                out.event(Event::AdmissionNotMet { objection: objection.clone() });
            }
            (None, None) | (Some(_), Some(_)) => {}
        }
    }

    /// Says once of a host in maintenance that it is empty. `left_on`: how many VMs a host has yet.
    pub(crate) fn tell_of_maintenance(
        &mut self,
        settings: &Settings,
        left_on: impl Fn(&HostId) -> u32,
        out: &mut Out<'_>,
    ) {
        self.emptied.retain(|host| settings.maintenance.contains_key(host));
        for host in settings.maintenance.keys() {
            if left_on(host) == 0 && self.emptied.insert(host.clone()) {
                out.event(Event::MaintenanceReached { host: host.clone() });
            }
        }
    }

    /// That host enters maintenance anew.
    pub(crate) fn on_maintenance(&mut self, host: &HostId) {
        self.emptied.remove(host);
    }
}
