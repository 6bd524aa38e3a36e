//! A snapshot in the making: the list, then one read per domain, then a look for strays.
//!
//! Invariant: all that is in it was asked for after the list was. What was asked for earlier is left out and asked again.

use std::collections::{BTreeMap, BTreeSet};

use mainstay_words::Time;

use crate::domain::{Domain, DomainUuid};
use crate::event::{Event, Stray, Unanswered};

/// See the module.
#[derive(Default)]
pub(super) struct Round {
    /// When the list was asked for, and whether it was answered. `None`: not known yet.
    list: Option<(Time, bool)>,
    expected: BTreeSet<DomainUuid>,
    domains: BTreeMap<DomainUuid, Domain>,
    unanswered: BTreeMap<DomainUuid, String>,
    strays: Option<Vec<Stray>>,
}

impl Round {
    /// These are to be read: all that there are when libvirt has `answered` a list, else all that are known.
    pub(super) fn expect(&mut self, as_of: Time, answered: bool, domains: impl Iterator<Item = DomainUuid>) {
        self.list = Some((as_of, answered));
        self.expected.extend(domains);
    }

    /// Whether this was asked for after the list.
    fn counts(&self, as_of: Time) -> bool {
        self.list.is_some_and(|(asked, _)| asked <= as_of)
    }

    pub(super) fn on_domain(&mut self, domain: Domain) {
        if self.counts(domain.as_of) {
            self.expected.remove(&domain.uuid);
            self.unanswered.remove(&domain.uuid);
            self.domains.insert(domain.uuid, domain);
        }
    }

    pub(super) fn on_no_domain(&mut self, as_of: Time, uuid: DomainUuid) {
        if self.counts(as_of) {
            self.expected.remove(&uuid);
            self.unanswered.remove(&uuid);
            self.domains.remove(&uuid);
        }
    }

    pub(super) fn on_no_answer(&mut self, uuid: DomainUuid, why: &str) {
        self.expected.remove(&uuid);
        self.unanswered.insert(uuid, why.to_owned());
    }

    pub(super) fn on_strays(&mut self, strays: Vec<Stray>) {
        self.strays = Some(strays);
    }

    /// Each domain was read, or will not be.
    pub(super) fn has_all_domains(&self) -> bool {
        self.list.is_some() && self.expected.is_empty()
    }

    pub(super) fn has_strays(&self) -> bool {
        self.strays.is_some()
    }

    pub(super) fn active(&self) -> impl Iterator<Item = DomainUuid> + '_ {
        self.domains.values().filter(|domain| domain.state.is_active()).map(|domain| domain.uuid)
    }

    /// The snapshot. Where it is complete, `names` becomes what is in it.
    pub(super) fn finish(self, names: &mut BTreeMap<DomainUuid, String>) -> Option<Event> {
        let (as_of, listed) = self.list?;
        // A stray that became an active domain since is none.
        let active: BTreeSet<DomainUuid> = self.active().collect();
        let unanswered: Vec<Unanswered> = self
            .unanswered
            .into_iter()
            .map(|(uuid, why)| Unanswered { uuid, name: names.get(&uuid).cloned().unwrap_or_default(), why })
            .collect();
        let complete = listed && unanswered.is_empty();
        let domains: Vec<Domain> = self.domains.into_values().collect();
        if complete {
            *names = domains.iter().map(|domain| (domain.uuid, domain.name.clone())).collect();
        }
        let strays = self
            .strays
            .unwrap_or_default()
            .into_iter()
            .filter(|stray| !active.contains(&stray.uuid))
            .collect();
        Some(Event::Snapshot { as_of, domains, unanswered, strays, complete })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::DomainState;
    use crate::error::XmlError;

    fn domain(as_of: u64, uuid: DomainUuid) -> Domain {
        Domain {
            as_of: Time(as_of),
            uuid,
            name: "web".into(),
            state: DomainState::Running,
            persistent: true,
            autostart: false,
            pid: None,
            xml: String::new(),
            spec: Err(XmlError::Malformed { message: "empty".into() }),
        }
    }

    #[test]
    fn what_was_asked_before_the_list_is_asked_again() {
        let (one, two) = (DomainUuid([1; 16]), DomainUuid([2; 16]));
        let mut round = Round::default();
        round.on_domain(domain(4, one));
        round.expect(Time(5), true, [one].into_iter());
        round.on_domain(domain(4, one));
        round.on_no_domain(Time(4), one);
        assert!(!round.has_all_domains());
        round.on_domain(domain(6, one));
        // It came after the list.
        round.on_domain(domain(7, two));
        assert!(round.has_all_domains());
        round.on_strays(vec![Stray { uuid: two, pid: 1 }]);
        let mut names = BTreeMap::new();
        let Some(Event::Snapshot { as_of, domains, unanswered, strays, complete: true }) =
            round.finish(&mut names)
        else {
            panic!("complete")
        };
        let told: Vec<_> = domains.iter().map(|domain| (domain.uuid, domain.as_of.0)).collect();
        assert_eq!((as_of, told), (Time(5), vec![(one, 6), (two, 7)]));
        assert!(unanswered.is_empty() && strays.is_empty() && names.len() == 2);
    }
}
