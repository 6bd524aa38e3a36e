//! The standing rehearsal (R78): for each single host the plan that would be followed if it failed now. It is made when the
//! picture has changed and there is time; when a host does fail, its plan is checked against the picture of that moment, and
//! followed if it still holds.

use super::{Scene, VmPlace, Want, admission_control};
use crate::ids::{HostId, VmId};
use crate::settings::Settings;
use crate::time::Time;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::hash::{Hash, Hasher};
use mainstay_placement as placement;
use placement::{Change, How, Picture, Placement, Plan, Rehearsal};
use serde::{Deserialize, Serialize};

/// An objection is told in so many bytes at most.
const OBJECTION_BYTES: usize = 600;

/// A placement of the PROOF for more than one failure costs about half a microsecond: what the driver can wait for.
const PROOF_WORK: u64 = 50_000;

/// The plans at hand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct PlansAtHand {
    /// For each host, who would go where.
    plans: BTreeMap<HostId, Vec<VmPlace>>,
    /// What admission control has against the cluster as it is; `None`: nothing.
    objection: Option<Arc<str>>,
    /// When they were made.
    made: Option<Time>,
    /// Under which settings.
    revision: u64,
    /// Hosts that had failed then.
    failing: BTreeSet<HostId>,
    #[serde(skip)]
    kept: Kept,
}

/// The rehearsal that the plans come from: with it the next ones cost little. No state: the same plans come of a picture
/// without it.
#[derive(Default)]
struct Kept(Option<Rehearsal>);

impl Clone for Kept {
    fn clone(&self) -> Kept {
        Kept(None)
    }
}

impl PartialEq for Kept {
    fn eq(&self, _: &Kept) -> bool {
        true
    }
}

impl Eq for Kept {}

impl Hash for Kept {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kept")
    }
}

/// So many changes are made one by one. With 1,000 hosts and 50,000 VMs one costs 2 to 60 ms, and everything anew 100 to 180 ms
/// (`docs/placement.md`).
const ONE_BY_ONE: usize = 16;

/// What is different in the second picture; `None`: so much that it is better begun anew.
fn differences(before: &Picture, after: &Picture) -> Option<Vec<Change>> {
    if before.rules != after.rules {
        return None;
    }
    let hosts = different(&before.hosts, &after.hosts).map(|(name, host)| Change::Host(name, host));
    let vms = different(&before.vms, &after.vms).map(|(name, vm)| Change::Vm(name, vm));
    let groups = different(&before.groups, &after.groups).map(|(name, group)| Change::Group(name, group));
    let changes: Vec<Change> = hosts.chain(vms).chain(groups).take(ONE_BY_ONE + 1).collect();
    (changes.len() <= ONE_BY_ONE).then_some(changes)
}

/// What is new or other in the second map, and, as `None`, what is gone from it.
fn different<'a, V: Clone + PartialEq>(
    before: &'a BTreeMap<placement::Name, V>,
    after: &'a BTreeMap<placement::Name, V>,
) -> impl Iterator<Item = (placement::Name, Option<V>)> + 'a {
    let other = after.iter().filter(|(name, value)| before.get(*name) != Some(value));
    let gone = before.keys().filter(|name| !after.contains_key(*name));
    let other = other.map(|(name, value)| (name.clone(), Some(value.clone())));
    other.chain(gone.map(|name| (name.clone(), None)))
}

impl PlansAtHand {
    /// Rehearses on this picture. `failing`: hosts that have failed. As long as their plans name all that is yet to come back
    /// from them they stay as they are, so that a failover that takes its time ends as it began.
    pub(crate) fn rehearse(
        &mut self,
        scene: &Scene,
        settings: &Settings,
        failing: &BTreeSet<HostId>,
        now: Time,
    ) {
        let picture = &scene.picture;
        let changes = self.kept.0.as_ref().and_then(|kept| differences(kept.picture(), picture));
        self.made = Some(now);
        let same = self.revision == settings.revision && self.failing == *failing;
        if same && changes.as_ref().is_some_and(Vec::is_empty) {
            return;
        }
        self.revision = settings.revision;
        self.failing.clone_from(failing);
        let mut rehearsal = match (self.kept.0.take(), changes) {
            (Some(mut kept), Some(changes)) => {
                for change in changes {
                    kept.update(change);
                }
                kept
            }
            (Some(_) | None, _) => Rehearsal::new(picture.clone()),
        };
        let plan = |host: &placement::Name| {
            let placed = rehearsal.placed_for(host)?;
            let named = placed
                .into_iter()
                .filter_map(|one| Some(VmPlace { vm: scene.vm(&one.vm)?, host: one.host.into() }));
            Some((HostId::from(host.clone()), named.collect()))
        };
        let mut plans: BTreeMap<HostId, Vec<VmPlace>> = picture.hosts.keys().filter_map(plan).collect();
        for host in failing {
            let (Some(new), Some(old)) = (plans.get_mut(host), self.plans.remove(host)) else { continue };
            let named: BTreeSet<VmId> = old.iter().map(|place| place.vm).collect();
            if new.iter().all(|place| named.contains(&place.vm)) {
                *new = old;
            }
        }
        self.plans = plans;
        let verdict = rehearsal.admit(&admission_control(settings, PROOF_WORK));
        self.objection = (!verdict.is_admitted()).then(|| shortened(&verdict.objections, verdict.more));
        self.kept = Kept(Some(rehearsal));
    }

    /// What admission control has against the cluster as it was then.
    pub(crate) fn objection(&self) -> Option<&Arc<str>> {
        self.objection.as_ref()
    }

    /// When they were made.
    pub(super) fn made(&self) -> Option<Time> {
        self.made
    }

    /// How many VMs have a place in some plan.
    pub(super) fn places(&self) -> usize {
        self.plans.values().map(Vec::len).sum()
    }

    #[cfg(test)]
    pub(super) fn plans(&self) -> &BTreeMap<HostId, Vec<VmPlace>> {
        &self.plans
    }

    /// The plans at hand, unless they were made under other settings.
    pub(crate) fn under(&self, settings: &Settings) -> BTreeMap<HostId, Vec<VmPlace>> {
        if self.revision == settings.revision { self.plans.clone() } else { BTreeMap::new() }
    }

    /// The plan at hand for the host that these VMs were lost on, if it names them all and still holds in this picture.
    pub(super) fn follow(&self, scene: &Scene, picture: &Picture, wants: &[Want]) -> Option<Plan> {
        let mut lost = wants.iter().map(|want| want.lost_on.as_ref());
        let host = lost.next()??;
        if !lost.all(|other| other == Some(host)) {
            return None;
        }
        let plan = self.plans.get(host)?;
        let wanted: BTreeSet<VmId> = wants.iter().map(|want| want.vm).collect();
        let named = |vm: &VmId| Some(scene.name(*vm)?.clone());
        let placed: Option<Vec<Placement>> = plan
            .iter()
            .filter(|place| wanted.contains(&place.vm))
            .map(|place| Some(Placement { vm: named(&place.vm)?, host: place.host.text() }))
            .collect();
        let followed = Plan {
            failed: Vec::new(),
            placed: placed?,
            left_out: Vec::new(),
            not_restarted: Vec::new(),
            how: How::Spread,
        };
        let complete = followed.placed.len() == wants.len();
        (complete && placement::breaches(picture, &followed).is_empty()).then_some(followed)
    }
}

/// The objections in words, within bounds: as many whole ones as there is room for, and how many more there are.
pub(crate) fn shortened(objections: &[placement::Objection], more: u64) -> Arc<str> {
    let mut text = String::new();
    let mut shown = 0;
    for objection in objections {
        let words = objection.to_string();
        if shown == 0 {
            text = cut(words);
        } else if text.len() + words.len() <= OBJECTION_BYTES {
            text.push_str("; ");
            text.push_str(&words);
        } else {
            break;
        }
        shown += 1;
    }
    let more = more + (objections.len() - shown) as u64;
    if more > 0 {
        text.push_str(&alloc::format!("; and {more} more like these"));
    }
    text.into()
}

/// One that is too long by itself ends with a whole word.
fn cut(mut text: String) -> String {
    if text.len() > OBJECTION_BYTES {
        let end = (0..=OBJECTION_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let end = text[..end].rfind(' ').unwrap_or(end);
        text.truncate(end);
        text.push_str(" …");
    }
    text
}
