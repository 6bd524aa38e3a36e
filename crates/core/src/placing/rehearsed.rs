//! The rehearsal in full, with reasons and order, for people. It may take a while in a large cluster: the driver takes the
//! scene, and somebody else has the time.

pub use mainstay_words::rehearsal::{HostPlan, LeftOutVm, PlacedVm, Rehearsed, UnwantedVm};

use super::{Scene, VmPlace, admission_control, refusal, standing::shortened};
use crate::ids::{HostId, VmId};
use crate::settings::Settings;
use alloc::collections::BTreeMap;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;
use mainstay_placement as placement;
use placement::{NotRestarted, PROOF_WORK, Placement, Plan, Rehearsal, StartPlan};

/// All that a rehearsal needs, at one instant.
#[derive(Clone, Debug)]
pub struct RehearsalScene {
    pub(crate) scene: Scene,
    pub(crate) settings: Arc<Settings>,
    /// The plans at hand: what would be followed if the host failed now.
    pub(crate) at_hand: BTreeMap<HostId, Vec<VmPlace>>,
}

impl RehearsalScene {
    /// The cluster as placement sees it, at the time of the request.
    pub fn picture(&self) -> &placement::Picture {
        &self.scene.picture
    }

    /// The settings that count for this rehearsal.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Makes the plan for each host's failure. The plan at hand is shown where it still holds.
    pub fn rehearse(&self) -> Rehearsed {
        let mut rehearsal = Rehearsal::new(self.scene.picture.clone());
        let hosts = self.scene.picture.hosts.keys();
        let hosts = hosts.filter_map(|host| {
            let mut plan = rehearsal.plan_for(host)?;
            if let Some(placed) = self.placed_at_hand(host, &plan) {
                plan.placed = placed;
            }
            Some(describe(&self.scene, host, &plan))
        });
        let hosts = hosts.collect();
        let verdict = rehearsal.admit(&admission_control(&self.settings, PROOF_WORK));
        let objection = (!verdict.is_admitted()).then(|| shortened(&verdict.objections, verdict.more));
        Rehearsed { hosts, policy: self.settings.admission.to_string(), objection }
    }

    /// Who goes where by the plan at hand, where it still holds for all who would come back: hosts that are as good as each other
    /// change places with every MiB, and what is shown is to be what is followed.
    fn placed_at_hand(&self, host: &placement::Name, plan: &Plan) -> Option<Vec<Placement>> {
        let at_hand: BTreeMap<VmId, &HostId> = self
            .at_hand
            .get(&HostId::from(host.clone()))?
            .iter()
            .map(|place| (place.vm, &place.host))
            .collect();
        let placed: Option<Vec<Placement>> = plan
            .placed
            .iter()
            .map(|one| {
                let to = at_hand.get(&self.scene.vm(&one.vm)?)?;
                Some(Placement { vm: one.vm.clone(), host: to.text() })
            })
            .collect();
        let other = Plan { placed: placed.filter(|placed| *placed != plan.placed)?, ..plan.clone() };
        placement::breaches(&self.scene.picture, &other).is_empty().then_some(other.placed)
    }
}

fn describe(scene: &Scene, host: &placement::Name, plan: &Plan) -> HostPlan {
    let order = StartPlan::new(&scene.picture, plan).ok();
    let mut wave: BTreeMap<&str, u32> = BTreeMap::new();
    for step in order.iter().flat_map(|order| order.steps()) {
        wave.insert(&step.vm, step.wave);
    }
    let placed = plan.placed.iter().filter_map(|one| {
        Some(PlacedVm {
            vm: scene.vm(&one.vm)?,
            name: one.vm.clone(),
            to: one.host.clone().into(),
            wave: wave.get(&*one.vm).copied().unwrap_or(1),
        })
    });
    let left_out = plan.left_out.iter().filter_map(|one| {
        let why = one.why.iter().map(|(host, why)| refusal(host, why));
        Some(LeftOutVm { vm: scene.vm(&one.vm)?, name: one.vm.clone(), why: why.collect() })
    });
    let not_restarted = plan.not_restarted.iter().map(|(vm, why)| {
        let why = match why {
            NotRestarted::Disabled => "its restart priority is disabled",
            NotRestarted::WantedOff => "it is not protected, or was stopped on purpose",
        };
        UnwantedVm { name: vm.clone(), reason: why.into() }
    });
    HostPlan {
        host: host.clone().into(),
        placed: placed.collect(),
        left_out: left_out.collect(),
        not_restarted: not_restarted.collect(),
    }
}
