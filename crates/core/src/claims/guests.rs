//! Asking guests whether they are up (R76): their agent, and the command that is set for them as a ready condition.

use super::*;
use crate::settings::ReadyWhen;

/// How often a guest is asked while it may be booting.
const ASK_EVERY: Span = Span::from_secs(5);
/// For so long.
const BOOTS_FOR: Span = Span::from_secs(600);
/// How often afterwards: it may have no agent at all.
const ASK_SELDOM: Span = Span::from_secs(600);

/// What is being asked of a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Asking {
    op: Option<OpId>,
    /// With its command.
    command: bool,
    due: Option<Time>,
    since: Time,
}

impl Slot {
    /// When its guest is to be asked.
    pub(super) fn ask_at(&self) -> Option<Time> {
        self.guest.due.filter(|_| self.guest.op.is_none() && self.asks())
    }

    /// A guest that is to be asked at all.
    fn asks(&self) -> bool {
        let channel = self.claim.spec.as_ref().is_some_and(|spec| spec.guest_agent);
        channel && self.stage == Stage::Settled && self.claim.state == ClaimState::Running && !self.frozen
    }
}

impl Claims {
    pub(super) fn ask_guests(&mut self, look: Option<&Look>, out: &mut Out<'_>) {
        for (vm, slot) in &mut self.slots {
            if !slot.asks() {
                slot.guest.due = None;
                continue;
            }
            let readiness = look.map(|look| look.list.settings.readiness(*vm)).unwrap_or_default();
            let commanded = readiness.when == ReadyWhen::CommandSucceeds;
            let wanted = if commanded { Guest::CommandSucceeded } else { Guest::Answers };
            if slot.claim.guest >= wanted {
                slot.guest.due = None;
                continue;
            }
            if slot.guest.op.is_some() {
                continue;
            }
            let due = *slot.guest.due.get_or_insert_with(|| {
                slot.guest.since = out.now;
                out.now
            });
            if out.now < due {
                continue;
            }
            let command = readiness.command.filter(|_| commanded && slot.claim.guest == Guest::Answers);
            slot.guest.command = command.is_some();
            slot.guest.op = Some(out.vm(VmAction::AskGuest { vm: *vm, command }));
        }
    }

    /// The answer of a guest. False: that operation was none of these.
    pub(super) fn on_guest_answer(&mut self, op: OpId, outcome: &VmOutcome, now: Time) -> bool {
        let Some(slot) = self.slots.values_mut().find(|slot| slot.guest.op == Some(op)) else { return false };
        slot.guest.op = None;
        let seldom = now.since(slot.guest.since) >= BOOTS_FOR;
        slot.guest.due = Some(now + if seldom { ASK_SELDOM } else { ASK_EVERY });
        if *outcome == VmOutcome::Done {
            let shown = if slot.guest.command { Guest::CommandSucceeded } else { Guest::Answers };
            if slot.claim.state == ClaimState::Running && slot.claim.guest < shown {
                slot.claim.guest = shown;
                slot.guest.due = Some(now);
                self.dirty = true;
            }
        }
        true
    }
}
