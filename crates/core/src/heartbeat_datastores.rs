//! Which datastores carry the heartbeats by which hosts are judged (R13): a few that most hosts share, or the user's choice. The
//! primary chooses; its answers to heartbeats tell.
//!
//! A host beats in full on the chosen ones, wherever it has VMs or decides, and on as many others as it has lost chosen ones.
//! Elsewhere it beats slowly, and its register says so.

use crate::config::HeartbeatChoice;
use crate::datastores::Datastores;
use crate::event::Event;
use crate::guard_side::GuardSide;
use crate::hosts::{Hosts, Peer};
use crate::ids::DatastoreName;
use crate::message::Heartbeat;
use crate::out::Out;
use crate::time::{Span, Time};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// The choice, as this host knows it. Empty until there is one: every datastore carries heartbeats then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct HeartbeatDatastores {
    chosen: Vec<DatastoreName>,
    /// When the primary looks at it again.
    due: Time,
}

impl HeartbeatDatastores {
    pub(crate) fn chosen(&self) -> &[DatastoreName] {
        &self.chosen
    }

    /// The primary's answer names its choice, if it has made one.
    pub(crate) fn on_told(&mut self, chosen: Vec<DatastoreName>) {
        if !chosen.is_empty() {
            self.chosen = chosen;
        }
    }

    /// As primary: chooses anew, once in each interval.
    pub(crate) fn choose(
        &mut self,
        hosts: &Hosts,
        datastores: &Datastores,
        choice: &HeartbeatChoice,
        interval: Span,
        out: &mut Out<'_>,
    ) {
        if out.now < self.due {
            return;
        }
        self.due = out.now + interval;
        let members: Vec<&Heartbeat> = hosts.members().filter_map(Peer::heartbeat).collect();
        let reach = datastores.all().map(|datastore| {
            let name = datastore.name();
            let others = members.iter().filter(|heartbeat| heartbeat.datastores.contains(name)).count();
            (name.clone(), others + usize::from(datastore.is_connected()))
        });
        let chosen = choose(&reach.collect::<Vec<_>>(), &self.chosen, choice);
        if chosen != self.chosen && !chosen.is_empty() {
            self.chosen.clone_from(&chosen);
            out.event(Event::HeartbeatDatastoresChosen { datastores: chosen });
        }
    }

    /// How often this host beats where.
    pub(crate) fn set_paces(
        &self,
        datastores: &mut Datastores,
        guard: &mut GuardSide,
        choice: &HeartbeatChoice,
        out: &mut Out<'_>,
    ) {
        let count = choice.count as usize;
        let few = datastores.count() <= count || self.chosen.is_empty();
        let reached =
            self.chosen.iter().filter(|name| datastores.get(name).is_some_and(|store| store.is_connected()));
        let mut missing = count.saturating_sub(reached.count());
        for datastore in datastores.all_mut() {
            let mut fast = few || self.chosen.contains(datastore.name());
            if !fast && missing > 0 && datastore.is_connected() {
                missing -= 1;
                fast = true;
            }
            let slow = !fast && !datastore.is_used();
            datastore.set_pace(slow, out.now);
            guard.pace(datastore.name(), slow, out);
        }
    }
}

/// The choice: what the user named comes first, then what most hosts reach, then what was chosen before, then by name.
/// `reach`: how many hosts reach each datastore; one that nobody reaches is not chosen.
fn choose(
    reach: &[(DatastoreName, usize)],
    present: &[DatastoreName],
    choice: &HeartbeatChoice,
) -> Vec<DatastoreName> {
    let mut order: Vec<&(DatastoreName, usize)> = reach.iter().filter(|(_, hosts)| *hosts > 0).collect();
    order.sort_by_key(|(name, hosts)| {
        (!choice.wanted.contains(name), usize::MAX - hosts, !present.contains(name), name.clone())
    });
    let mut chosen: Vec<DatastoreName> =
        order.into_iter().take(choice.count as usize).map(|(name, _)| name.clone()).collect();
    chosen.sort();
    chosen
}

#[cfg(test)]
mod tests {
    use super::{DatastoreName, HeartbeatChoice, Vec, choose};

    fn names(names: &[&str]) -> Vec<DatastoreName> {
        names.iter().map(|name| DatastoreName::new(name)).collect()
    }

    fn reach(hosts: &[usize]) -> Vec<(DatastoreName, usize)> {
        let named = |(index, hosts): (usize, &usize)| {
            (DatastoreName::new(&alloc::format!("ds{}", index + 1)), *hosts)
        };
        hosts.iter().enumerate().map(named).collect()
    }

    #[test]
    fn those_that_most_hosts_reach_are_chosen() {
        let choice = HeartbeatChoice::default();
        assert_eq!(choose(&reach(&[2, 4, 3]), &[], &choice), names(&["ds2", "ds3"]));
        assert_eq!(choose(&reach(&[3, 3, 3]), &[], &choice), names(&["ds1", "ds2"]));
    }

    #[test]
    fn a_third_is_picked_when_one_goes_and_kept_when_it_is_back() {
        let choice = HeartbeatChoice::default();
        let before = names(&["ds1", "ds2"]);
        let after = choose(&reach(&[0, 3, 3]), &before, &choice);
        assert_eq!(after, names(&["ds2", "ds3"]));
        assert_eq!(choose(&reach(&[3, 3, 3]), &after, &choice), after);
    }

    #[test]
    fn the_user_s_choice_comes_first_as_long_as_anybody_reaches_it() {
        let choice = HeartbeatChoice { wanted: names(&["ds4"]), ..HeartbeatChoice::default() };
        assert_eq!(choose(&reach(&[3, 3, 3, 1]), &[], &choice), names(&["ds1", "ds4"]));
        assert_eq!(choose(&reach(&[3, 3, 3, 0]), &[], &choice), names(&["ds1", "ds2"]));
    }
}
