//! The cluster as placement sees it: a picture made of heartbeats, power-on lists, protected lists and settings. And what
//! comes of it: a place for each VM that wants one, in the order of priorities and groups (R77).
//!
//! It does not decide *that* a VM is restarted: that is `failover`'s.

mod rehearsed;
mod rehearsing;
mod relevant;
mod rounds;
mod scene;
mod standing;

use crate::Refusal;
use crate::ids::{HostId, VmId};
use crate::register::Guest;
use crate::time::Time;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;
use mainstay_placement as placement;
use placement::{How, Placement, Plan, Purpose, StartPlan};
pub use rehearsed::{HostPlan, LeftOutVm, PlacedVm, RehearsalScene, Rehearsed};
pub(crate) use rehearsing::Rehearsing;
use relevant::Relevant;
pub(crate) use relevant::{Look as RelevantLook, Taker};
use rounds::Rounds;
pub(crate) use scene::{HostScene, Scene, VmScene, admission_control, make_scene, priority, started};
use serde::{Deserialize, Serialize};
use standing::PlansAtHand;
pub(crate) use standing::shortened;

/// How the rule is called that keeps a VM away from hosts that it was tried on in this round.
const TRIED: &str = "could not be started: ";

/// Why a VM does not get a host, host by host.
pub type Refusals = Vec<Refusal>;

/// A VM, and the host where it runs or is to run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct VmPlace {
    pub(crate) vm: VmId,
    pub(crate) host: HostId,
}

/// What a VM wants a host for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum WantKind {
    /// To be started there.
    Restart,
    /// To be started there when its isolated holder has released it.
    Responsibility,
    /// To be live-migrated there.
    Move,
}

/// A VM that wants a host in this review.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Want {
    pub(crate) vm: VmId,
    pub(crate) kind: WantKind,
    /// The host to try first.
    pub(crate) first_try: Option<HostId>,
    /// It was left out before: it goes first among its equals.
    pub(crate) passed_over: bool,
    /// Hosts that failed to start it in this round: it gets none of these before the next one.
    pub(crate) tried: BTreeSet<HostId>,
    /// Since when it has wanted a host.
    pub(crate) since: Time,
    /// Its host has failed: its plan may be at hand.
    pub(crate) lost_on: Option<HostId>,
}

/// What a VM gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// This host, now.
    Go(HostId),
    /// This host, when others are ready.
    Later(HostId, Arc<str>),
    /// No host can take it now.
    Nowhere {
        /// Why, host by host.
        refusals: Refusals,
        /// The hosts that rules and devices leave to it are down: it can only wait for them.
        orphaned: bool,
    },
}

/// What the VMs that want a host get.
pub(crate) type Places = BTreeMap<VmId, Place>;

/// How far a restart has come, for those that wait for the VM.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// When it was granted first.
    pub(crate) first_start: Time,
    /// Its ready condition is met since then.
    pub(crate) ready_since: Option<Time>,
    /// It was told that others no longer wait.
    pub(crate) given_up: bool,
}

impl Progress {
    pub(crate) fn new(now: Time) -> Progress {
        Progress { first_start: now, ready_since: None, given_up: false }
    }
}

/// A restart that others may wait for.
#[derive(Clone, Debug)]
pub(crate) struct UnderWay {
    /// `None`: nothing has come of it yet.
    pub(crate) progress: Option<Progress>,
    /// The host that it was granted to.
    pub(crate) host: HostId,
    /// That host is starting it.
    pub(crate) starting: bool,
    /// No host is at it: it waits until one can be.
    pub(crate) waits: bool,
    /// It has wanted a host since then.
    pub(crate) since: Option<Time>,
}

/// What comes of a round of placing.
#[derive(Debug, Default)]
pub(crate) struct Placed {
    pub(crate) places: Places,
    /// VMs for which others no longer wait.
    pub(crate) given_up: Vec<VmId>,
    /// When the order may let somebody go although nothing happens.
    pub(crate) look_again: Option<Time>,
}

/// What a primary keeps about placing from one review to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Placing {
    rounds: Rounds,
    relevant: Relevant,
    rehearsing: Rehearsing,
}

impl Placing {
    /// Gives each want a place, in the present round.
    pub(crate) fn place(
        &mut self,
        scene: &Scene,
        wants: &[Want],
        under_way: &BTreeMap<VmId, UnderWay>,
        now: Time,
    ) -> Placed {
        let began = self.rounds.begin(now);
        place(&Round { scene, wants, under_way, began, now }, self.rehearsing.at_hand())
    }

    /// `at`: when the order of starts may let somebody go. Room that was left may do so too.
    pub(crate) fn look_again(&mut self, at: Option<Time>, now: Time) {
        self.rounds.look_again(at.into_iter().chain(self.relevant.due()), now);
    }

    /// Whether places are to be given again although nothing has happened. Says so once.
    pub(crate) fn take_due(&mut self, now: Time) -> bool {
        self.rounds.take_due(now)
    }

    /// Nobody waits for a host, or for anybody.
    pub(crate) fn end_round(&mut self) {
        self.rounds.end();
    }

    /// Whether something has come that may help those that wait for their time.
    pub(crate) fn note_relevant(&mut self, look: RelevantLook, now: Time) -> bool {
        self.relevant.note(look, now)
    }

    pub(crate) fn rehearsing(&self) -> &Rehearsing {
        &self.rehearsing
    }

    pub(crate) fn rehearsing_mut(&mut self) -> &mut Rehearsing {
        &mut self.rehearsing
    }

    /// When places are to be given again although nothing has happened.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.rounds.deadline()
    }
}

const fn milliseconds(time: Time) -> u64 {
    time.0 / 1_000
}

/// What a round of placing goes by.
#[derive(Clone, Copy)]
struct Round<'a> {
    scene: &'a Scene,
    wants: &'a [Want],
    under_way: &'a BTreeMap<VmId, UnderWay>,
    /// When this round of restarts began.
    began: Time,
    now: Time,
}

/// Gives each want a place.
fn place(round: &Round<'_>, standing: &PlansAtHand) -> Placed {
    let Round { scene, wants, .. } = *round;
    let mut placed = Placed::default();
    let (moves, restarts): (Vec<Want>, Vec<Want>) =
        wants.iter().cloned().partition(|want| want.kind == WantKind::Move);
    if !restarts.is_empty() {
        let picture = scene.with_wants(restarts.iter());
        let plan = standing
            .follow(scene, &picture, &restarts)
            .unwrap_or_else(|| placement::plan(&picture, &[], Purpose::Failover));
        order(&Round { wants: &restarts, ..*round }, &picture, &plan, &mut placed);
    }
    // Nothing is moved at leisure while something is to be restarted that can be.
    let busy = restarts.iter().any(|want| match placed.places.get(&want.vm) {
        Some(Place::Go(_) | Place::Later(..)) => true,
        Some(Place::Nowhere { .. }) | None => false,
    });
    if !busy && !moves.is_empty() {
        let plan = placement::plan(&scene.with_wants(moves.iter()), &[], Purpose::Planned);
        for Placement { vm, host } in &plan.placed {
            if let Some(vm) = scene.vm(vm) {
                placed.places.insert(vm, Place::Go(host.clone().into()));
            }
        }
        note_left_out(scene, &plan, &mut placed);
    }
    placed
}

fn note_left_out(scene: &Scene, plan: &Plan, placed: &mut Placed) {
    for left in &plan.left_out {
        let Some(vm) = scene.vm(&left.vm) else { continue };
        let why = left.why.iter().map(|(host, why)| refusal(host, why));
        let place = Place::Nowhere { refusals: why.collect(), orphaned: is_orphaned(&left.why) };
        placed.places.insert(vm, place);
    }
}

fn refusal(host: &placement::Name, why: &placement::Refusal) -> Refusal {
    Refusal { host: host.clone().into(), reason: why.to_string().into() }
}

/// Whether it is tied to some hosts, and all of them are down.
fn is_orphaned(why: &[(placement::Name, placement::Refusal)]) -> bool {
    use placement::Refusal;
    let tied = |why: &Refusal| match why {
        Refusal::HostRule(rule) => !rule.starts_with(TRIED),
        why => matches!(why, Refusal::Device(_)),
    };
    let down = |why: &Refusal| matches!(why, Refusal::Unusable(_) | Refusal::Maintenance | Refusal::Failed);
    why.iter().any(|(_, why)| tied(why)) && why.iter().all(|(_, why)| tied(why) || down(why))
}

/// The plan as the order is to see it: with restarts under way, which hold up others too, and without those that no host is at:
/// they hold up their groups, as if they were left out, and nobody else.
fn to_be_ordered(scene: &Scene, plan: &Plan, wants: &[Want], under_way: &BTreeMap<VmId, UnderWay>) -> Plan {
    let wanted: BTreeSet<VmId> = wants.iter().map(|want| want.vm).collect();
    let mut placed = plan.placed.clone();
    let mut left_out = plan.left_out.clone();
    for (vm, one) in under_way.iter().filter(|(vm, _)| !wanted.contains(vm)) {
        let Some(name) = scene.name(*vm).cloned() else { continue };
        if one.waits {
            left_out.push(placement::LeftOut { vm: name, why: Vec::new() });
        } else {
            placed.push(Placement { vm: name, host: one.host.text() });
        }
    }
    Plan { failed: Vec::new(), placed, left_out, not_restarted: Vec::new(), how: How::Spread }
}

/// What has become of them; of those that were left out, since when they have been waited for.
fn known(
    scene: &Scene,
    all: &Plan,
    wants: &[Want],
    under_way: &BTreeMap<VmId, UnderWay>,
) -> BTreeMap<placement::Name, placement::Progress> {
    let mut known = BTreeMap::new();
    for (vm, one) in under_way {
        if let (Some(name), Some(progress)) = (scene.name(*vm), &one.progress) {
            let progress = placement::Progress {
                first_start: Some(milliseconds(progress.first_start)),
                starting: one.starting,
                ready_since: progress.ready_since.map(milliseconds),
            };
            known.insert(name.clone(), progress);
        }
    }
    let since: BTreeMap<VmId, Time> = wants.iter().map(|want| (want.vm, want.since)).collect();
    for left in &all.left_out {
        let Some(vm) = scene.vm(&left.vm) else { continue };
        let waits = since.get(&vm).copied().or_else(|| under_way.get(&vm)?.since);
        let progress =
            placement::Progress { first_start: waits.map(milliseconds), ..placement::Progress::default() };
        known.entry(left.vm.clone()).or_insert(progress);
    }
    known
}

/// Puts a plan into order: who goes now, and who waits for whom.
fn order(round: &Round<'_>, picture: &placement::Picture, plan: &Plan, placed: &mut Placed) {
    let Round { scene, wants, under_way, began, now } = *round;
    note_left_out(scene, plan, placed);
    let all = to_be_ordered(scene, plan, wants, under_way);
    let known = known(scene, &all, wants, under_way);
    // Groups that can't be ordered were refused when they were set; what became wrong since holds nobody up.
    let next = StartPlan::new(picture, &all)
        .ok()
        .map(|order| order.next(&known, milliseconds(began), milliseconds(now)));
    let mut held: BTreeMap<VmId, Arc<str>> = BTreeMap::new();
    if let Some(next) = next {
        for waiting in &next.waiting {
            let because: Vec<_> = waiting.because.iter().map(ToString::to_string).collect();
            if let Some(vm) = scene.vm(&waiting.vm) {
                held.insert(vm, because.join(", ").into());
            }
        }
        placed.given_up = next.given_up_on.iter().filter_map(|name| scene.vm(name)).collect();
        placed.look_again = next.look_again.map(|at| Time(at.saturating_add(1).saturating_mul(1_000)));
    }
    let starting: BTreeSet<VmId> =
        wants.iter().filter(|want| want.kind == WantKind::Restart).map(|want| want.vm).collect();
    for Placement { vm, host } in &plan.placed {
        let Some(vm) = scene.vm(vm) else { continue };
        let host = HostId::from(host.clone());
        let place = match held.remove(&vm).filter(|_| starting.contains(&vm)) {
            Some(because) => Place::Later(host, because),
            None => Place::Go(host),
        };
        placed.places.insert(vm, place);
    }
}

/// Whether a guest has shown what that condition asks for.
pub(crate) fn guest_shows(guest: Guest, wanted: crate::settings::ReadyWhen) -> bool {
    use crate::settings::ReadyWhen;
    match wanted {
        ReadyWhen::Started | ReadyWhen::Running => true,
        ReadyWhen::AgentAnswers => guest >= Guest::Answers,
        ReadyWhen::CommandSucceeds => guest == Guest::CommandSucceeded,
    }
}

#[cfg(test)]
mod tests;
