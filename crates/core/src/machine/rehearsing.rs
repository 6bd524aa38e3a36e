//! The standing rehearsal and admission control (R78), on the primary; and hosts in maintenance that have become empty.

use super::*;
use crate::placing::{REHEARSAL_PAUSE, RehearsalScene};
use crate::time::Span;

/// Admission control has to object for so long before people are told: hosts come and go while a cluster starts.
const OBJECTS_FOR: Span = Span::from_secs(30);

/// So many VMs lengthen the pause between rehearsals by a second.
const VMS_A_SECOND: u64 = 5_000;

impl Core {
    /// Whether this host decides for the cluster, or a part of it.
    fn decides(&self, now: Time) -> bool {
        let owns =
            |datastore: &Datastore| datastore.ownership().epoch(now).is_some() && datastore.list().is_some();
        self.election.is_primary() && !self.stopping && self.datastores.values().any(owns)
    }

    pub(super) fn rehearse(&mut self, out: &mut Out<'_>) {
        if !self.decides(out.now) {
            self.standing = PlansAtHand::default();
            self.objecting = None;
            return;
        }
        if self.config.rehearse && self.rehearsal_stale && self.rehearsal_due() <= out.now {
            self.rehearsal_stale = false;
            let scene = self.scene(out.now);
            let settings = self.settings.clone();
            let failing = self.hosts.in_state(|state| state == HostState::Failed).into_iter().collect();
            self.standing.rehearse(&scene, &settings, &failing, out.now);
        }
        self.tell_of_admission(out);
        self.tell_of_maintenance(out);
    }

    fn rehearsal_due(&self) -> Time {
        let vms: usize = self.standing.plans.values().map(Vec::len).sum();
        let longer = Span::from_secs(vms as u64 / VMS_A_SECOND);
        self.standing.made.map_or(Time(0), |made| made + REHEARSAL_PAUSE + longer)
    }

    pub(super) fn rehearsal_deadline(&self) -> Option<Time> {
        if !self.config.rehearse || !self.decides(self.now) {
            return None;
        }
        let rehearsal = self.rehearsal_stale.then(|| self.rehearsal_due());
        let told = self.objecting.filter(|(_, told)| !told).map(|(since, _)| since + OBJECTS_FOR);
        rehearsal.into_iter().chain(told).min()
    }

    fn tell_of_admission(&mut self, out: &mut Out<'_>) {
        match (&self.standing.objection, self.objecting) {
            (None, Some((_, told))) => {
                self.objecting = None;
                if told {
                    out.event(Event::AdmissionMet);
                }
            }
            (Some(_), None) => self.objecting = Some((out.now, false)),
            (Some(objection), Some((since, false))) if out.now.since(since) >= OBJECTS_FOR => {
                self.objecting = Some((since, true));
                out.event(Event::AdmissionNotMet { objection: objection.clone() });
            }
            (_, _) => {}
        }
    }

    /// How many VMs a host in maintenance has yet, with those that nobody protects.
    pub(crate) fn left_on(&self, host: &HostId) -> u32 {
        let held = self.lists().map(|list| list.held_by(host)).sum::<u32>();
        let capacity = if *host == self.config.me {
            Some(self.vms.capacity)
        } else {
            self.hosts.member_heartbeat(host).map(|heartbeat| heartbeat.capacity)
        };
        held.max(capacity.map_or(0, |capacity| capacity.domains))
    }

    fn tell_of_maintenance(&mut self, out: &mut Out<'_>) {
        let hosts: Vec<HostId> = self.settings.maintenance.keys().cloned().collect();
        self.emptied.retain(|host| hosts.contains(host));
        for host in hosts {
            if self.left_on(&host) == 0 && self.emptied.insert(host.clone()) {
                out.event(Event::MaintenanceReached { host });
            }
        }
    }

    /// All that a rehearsal in full needs: it may take a while, and is made elsewhere.
    pub fn rehearsal_scene(&self, now: Time) -> RehearsalScene {
        let at_hand = self.standing.under(&self.settings);
        RehearsalScene { scene: self.scene(now), settings: self.settings.clone(), at_hand }
    }
}
