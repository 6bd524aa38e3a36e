//! What the owner asks a holder to do with a running VM (R74): move it off a host in maintenance, or back to it, shut it down,
//! or end it because its guest was not seen to come up.
//!
//! Invariant: a VM has one order at a time; the next one is given when the holder has said what became of it.
//!
//! It does not carry anything out: that is the holder's (`claims`). Nor does it choose a host (`placing`).

use super::restart::Restart;
use super::sight::{Candidate, OwnerSide};
use crate::event::{Event, VmName};
use crate::host_liveness::HostState;
use crate::ids::HostId;
use crate::out::Out;
use crate::placing::{Place, Places, Refusals, Want, WantKind};
use crate::register::{Claim, Entry, FailedOrder, Guest, OrderKind};
use crate::settings::{Evacuation, Settings};
use crate::time::{Span, Time};
use alloc::collections::BTreeSet;
use serde::{Deserialize, Serialize};

/// An order that failed is not given again before so long: another host, or time, may help.
const ORDER_RETRY: Span = Span::from_secs(30);

/// VMs of one host in maintenance that are on their way at a time.
const MOVES_AT_ONCE: usize = 2;

/// What came of the orders for one VM.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Orders {
    /// Hosts to which it could not be migrated.
    refused: BTreeSet<HostId>,
    /// After an order that failed, none is given before then.
    again: Time,
}

/// What is to be ordered next.
pub(super) enum Next {
    Nothing,
    Give {
        what: OrderKind,
        /// It leaves its holder for maintenance.
        evacuates: bool,
    },
    /// It is to leave its holder, and can't.
    Stays(Refusals),
}

impl Orders {
    pub(super) fn new() -> Orders {
        Orders { refused: BTreeSet::new(), again: Time(0) }
    }

    /// Hosts to which it could not be migrated.
    pub(super) fn refused(&self) -> &BTreeSet<HostId> {
        &self.refused
    }

    /// It is somewhere else now, without an order.
    pub(super) fn forget_refusals(&mut self) {
        self.refused.clear();
    }

    /// A VM that runs on its holder, and is to run elsewhere.
    pub(super) fn wants_to_move(
        &self,
        entry: &Entry,
        restart: &mut Restart,
        settings: &Settings,
        side: &OwnerSide<'_>,
        now: Time,
    ) -> Option<Want> {
        let holder = entry.holder.as_ref()?;
        let how = settings.maintenance.get(holder).copied();
        let home = home_of(entry, settings);
        let mute = restart.is_mute(entry, now);
        let reachable = side.state(holder) == Some(HostState::Connected) || holder == side.me;
        if entry.order.is_some() || now < self.again || !reachable {
            return None;
        }
        if mute {
            // Tried last, so that it is chosen only when no other host can take the VM.
            restart.avoid(holder.clone());
        } else if how == Some(Evacuation::Migrate) {
            // The next primary moves what runs here.
            let other = |room: &Candidate| room.unusable.is_none() && room.host != *side.me;
            if holder == side.me && side.candidates.iter().any(other) {
                return None;
            }
        } else if how.is_some() || home.is_none() {
            return None;
        }
        Some(Want {
            vm: entry.vm,
            kind: WantKind::Move,
            first_try: home.filter(|_| how.is_none() && !mute),
            passed_over: false,
            tried: BTreeSet::new(),
            lost_on: None,
            since: now,
        })
    }

    /// What is to be ordered for a VM that runs on its holder and has no order. `enough`: no more VMs may leave the holder now.
    pub(super) fn next(
        &self,
        entry: &Entry,
        settings: &Settings,
        places: &mut Places,
        enough: bool,
        now: Time,
    ) -> Next {
        let Some(holder) = &entry.holder else { return Next::Nothing };
        let how = settings.maintenance.get(holder).copied();
        let home = home_of(entry, settings);
        let what = match (how, places.remove(&entry.vm)) {
            (Some(Evacuation::ShutDown), _) if now >= self.again => OrderKind::ShutDown,
            (_, Some(Place::Go(to))) if enough || to == *holder => return Next::Nothing,
            (Some(Evacuation::Migrate), Some(Place::Go(to))) => OrderKind::Migrate(to),
            (None, Some(Place::Go(to))) if home.as_ref() == Some(&to) => OrderKind::Migrate(to),
            (Some(Evacuation::Migrate), Some(Place::Nowhere { refusals, .. })) => {
                return Next::Stays(refusals);
            }
            (Some(_) | None, _) => return Next::Nothing,
        };
        Next::Give { what, evacuates: how.is_some() }
    }

    /// What has become of the VM's order. Returns whether it is to be taken back, because it failed or is void.
    pub(super) fn follow(
        &mut self,
        entry: &Entry,
        claim: Option<&Claim>,
        settings: &Settings,
        out: &mut Out<'_>,
    ) -> bool {
        let (Some(order), Some(holder)) = (&entry.order, &entry.holder) else { return false };
        let failed = claim.and_then(|claim| claim.order_failed.as_ref());
        let failed = failed.filter(|failed| failed.number == order.number);
        let Some(FailedOrder { reason, .. }) = failed else {
            return is_void(&order.what, settings.maintenance.get(holder).copied(), claim);
        };
        if let OrderKind::Migrate(to) = &order.what {
            self.refused.insert(to.clone());
        }
        self.again = out.now + ORDER_RETRY;
        out.event(Event::VmOrderFailed {
            vm: VmName { id: entry.vm, name: entry.name.clone() },
            host: holder.clone(),
            order: order.what.clone(),
            reason: reason.clone(),
        });
        true
    }
}

/// It is not wanted any more.
fn is_void(order: &OrderKind, how: Option<Evacuation>, claim: Option<&Claim>) -> bool {
    match order {
        // Maintenance is over, or another one, before it was obeyed.
        OrderKind::ShutDown => how != Some(Evacuation::ShutDown),
        OrderKind::StartElsewhere => claim.is_some_and(|claim| claim.guest != Guest::Silent),
        OrderKind::Migrate(_) => false,
    }
}

/// The host to which it is to be brought back after maintenance.
fn home_of(entry: &Entry, settings: &Settings) -> Option<HostId> {
    let home = entry.evacuated_from.as_ref().filter(|home| settings.bring_back.contains(*home))?;
    (entry.holder.as_ref() != Some(home)).then(|| home.clone())
}

/// Whether as many VMs are on their way from that host as may be at a time.
pub(super) fn is_moving_enough<'a>(mut entries: impl Iterator<Item = &'a Entry>, holder: &HostId) -> bool {
    let moving = |entry: &&Entry| {
        let order = entry.order.as_ref().map(|order| &order.what);
        entry.holder.as_ref() == Some(holder) && matches!(order, Some(OrderKind::Migrate(_)))
    };
    entries.by_ref().filter(moving).nth(MOVES_AT_ONCE - 1).is_some()
}
