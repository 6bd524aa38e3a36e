//! One VM of the list, in the hands of the owner: its entry, what the owner remembers of it, and what follows from both.
//!
//! A decision is made on the entry as it is on disk, and only while it is settled. So every step of a take-over waits for
//! the one before to be durable.
//!
//! It knows nothing of the other VMs.

mod carry_out;

use super::entry::Record;
use super::orders::Orders;
use super::restart::{Restart, failed_start};
use super::sight::{OwnerSide, claim_in};
use super::waiting::{Wait, Waiting};
use super::writing::Writing;
use crate::event::{Event, VmName};
use crate::failover::{HolderSeen, Verdict, decide};
use crate::host_liveness::HostState;
use crate::ids::{DatastoreName, HostId, Token};
use crate::out::Out;
use crate::placing::{Refusals, UnderWay, VmScene, Want, WantKind, guest_shows};
use crate::register::{Claim, ClaimState, Desired, Entry, ListStamp, OrderKind, Priority, StopCause};
use crate::settings::{ReadyWhen, Settings};
use crate::store::PowerOnSeen;
use crate::time::Time;
use crate::timing::Timing;
use alloc::collections::{BTreeMap, BTreeSet};
pub(super) use carry_out::Desk;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct ListedVm {
    record: Record,
    restart: Restart,
    waiting: Waiting,
    orders: Orders,
    /// It has been seen running as granted since then.
    running_since: Option<Time>,
    /// It was reported as running or protected, under the present grant.
    announced: bool,
    /// It has left its holder, and is expected to show up elsewhere until then.
    expected_until: Option<Time>,
    twice: Option<Twice>,
}

/// It is active on another host too. A live migration is shown on both ends for a moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Twice {
    other: HostId,
    /// When it is reported.
    report_at: Time,
    reported: bool,
}

/// Rules that are broken on purpose.
#[derive(Clone, Copy)]
pub(super) struct Broken {
    /// A holder need not be read again.
    pub(super) unread_is_fine: bool,
    /// No host is heard but the holder.
    pub(super) unheard_is_fine: bool,
}

/// R44: why it was stopped on purpose, by the word of a host that is not its holder, where that is the last that is known of it.
fn said_elsewhere(
    entry: &Entry,
    seen: Option<&HolderSeen<'_>>,
    verdict: &Verdict,
    side: &OwnerSide<'_>,
) -> Option<StopCause> {
    let has_run = seen.is_some_and(|seen| seen.has_run(entry.token));
    let starts = seen.is_none_or(|seen| {
        let claim = seen.claim.filter(|claim| claim.token == Some(entry.token));
        claim.is_some_and(|claim| claim.state == ClaimState::Starting)
    });
    // Its holder has let go of it, or is failed.
    let gone = match verdict {
        Verdict::AwaitMigration(_) | Verdict::AwaitSight | Verdict::Intend | Verdict::Confirm => true,
        Verdict::Grant { .. } => seen.is_some_and(HolderSeen::may_have_moved),
        Verdict::Keep
        | Verdict::Runs
        | Verdict::SetOff(_)
        | Verdict::Heed(_)
        | Verdict::IntendTo(_)
        | Verdict::TakeResponsibility
        | Verdict::DropResponsibility(_)
        | Verdict::Cancel(_)
        | Verdict::Adopt(_)
        | Verdict::Twice(_) => false,
    };
    let brings_back = gone || matches!(verdict, Verdict::Grant { .. });
    let before = || side.stopped_before(entry).or(side.stopped_elsewhere(entry.vm, |came| entry.heeds(came)));
    let unrun = !has_run && (brings_back || (starts && *verdict == Verdict::Keep));
    let since = || side.stopped_elsewhere(entry.vm, |came| came >= entry.token);
    let heard = if unrun { before() } else { None };
    heard.or_else(|| if gone { since() } else { None })
}

/// What is to be done about a VM (`verdict`), and what that was decided by.
pub(super) struct Judged<'a> {
    /// The entry, as it is on disk.
    entry: Entry,
    /// Its holder, if it has one.
    seen: Option<HolderSeen<'a>>,
    verdict: Verdict,
}

impl<'a> Judged<'a> {
    /// The holder's claim, whatever its token.
    fn claim(&self) -> Option<&'a Claim> {
        self.seen.as_ref().and_then(|seen| seen.claim)
    }

    /// The holder's claim under the present grant.
    fn granted_claim(&self) -> Option<&'a Claim> {
        self.claim().filter(|claim| claim.token == Some(self.entry.token))
    }

    /// R44: the grant under which it ran last, when it is granted anew.
    fn ran_under(&self) -> Option<Token> {
        let ran = self.seen.as_ref().is_some_and(|seen| seen.has_run(self.entry.token));
        let before = self.entry.ran_under.filter(|_| !ran);
        Some(before.unwrap_or(self.entry.token))
    }

    fn may_be_elsewhere(&self) -> bool {
        self.seen.as_ref().is_some_and(|seen| seen.may_be_elsewhere)
    }

    /// It may run where nobody looks. Its holder is no such place when it has ended there for certain.
    fn may_be_unseen(&self, dark: &[HostId]) -> bool {
        let ended = self.seen.as_ref().is_some_and(HolderSeen::has_ended);
        let hides = |host: &HostId| !(ended && self.entry.holder.as_ref() == Some(host));
        self.may_be_elsewhere() || dark.iter().any(hides)
    }

    fn name(&self) -> VmName {
        VmName { id: self.entry.vm, name: self.entry.name.clone() }
    }
}

impl ListedVm {
    pub(super) fn new(entry: Entry, stamp: ListStamp, now: Time) -> ListedVm {
        ListedVm {
            restart: Restart::new(&entry, now),
            record: Record::new(entry, stamp, now),
            waiting: Waiting::default(),
            orders: Orders::new(),
            running_since: None,
            announced: false,
            expected_until: None,
            twice: None,
        }
    }

    /// As it is on disk.
    pub(super) fn durable(&self) -> Option<&Entry> {
        self.record.durable()
    }

    /// What is on disk is what is to be there.
    pub(super) fn is_settled(&self, writing: &Writing) -> bool {
        self.record.settled(writing).is_some()
    }

    /// As it is to be.
    pub(super) fn working(&self) -> &Entry {
        self.record.working()
    }

    /// To change it for a reason other than a decision about the VM: a person's wish, say.
    pub(super) fn edit(&mut self, writing: &mut Writing) -> &mut Entry {
        self.record.edit(writing)
    }

    /// Why it waits, if it does.
    pub(super) fn waits_for(&self) -> Option<(&Refusals, Wait)> {
        self.waiting.shown()
    }

    /// It is to be reported anew when it is seen running.
    pub(super) fn announce_again(&mut self) {
        self.announced = false;
    }

    /// It runs as granted.
    pub(super) fn is_running(&self) -> bool {
        self.running_since.is_some()
    }

    /// It waits for a host.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.is_waiting()
    }

    /// It has been tried in vain and is being tried on another host.
    pub(super) fn is_tried_again(&self) -> bool {
        !self.restart.tried().is_empty()
    }

    /// Something relevant changed: what waits for its time is tried at once.
    pub(super) fn hurry(&mut self, now: Time) {
        self.restart.hurry(now);
    }

    /// Nobody waits for anybody.
    pub(super) fn end_round(&mut self) {
        self.restart.end_round();
    }

    /// Others no longer wait for it.
    pub(super) fn give_up(&mut self, out: &mut Out<'_>) {
        if self.restart.give_up() {
            let (id, name) = (self.working().vm, self.working().name.clone());
            out.event(Event::OrderGivenUp { vm: VmName { id, name } });
        }
    }

    /// What is to be done about it. `None`: its entry is not settled.
    pub(super) fn judge<'a>(
        &self,
        writing: &Writing,
        side: &OwnerSide<'a>,
        broken: Broken,
        now: Time,
    ) -> Option<Judged<'a>> {
        let Broken { unread_is_fine, unheard_is_fine } = broken;
        let entry = self.record.settled(writing)?;
        let holder = entry.holder.as_ref();
        let mut seen = holder.map(|holder| side.holder_seen(&self.record, holder, now));
        if let Some(seen) = &mut seen {
            seen.read_after_intent |= unread_is_fine;
        }
        let verdict = decide(entry, seen.as_ref(), side.adopter(entry));
        let said = if unheard_is_fine { None } else { said_elsewhere(entry, seen.as_ref(), &verdict, side) };
        let verdict = said.map_or(verdict, Verdict::Heed);
        // What a silent host ran may run on; nobody sees it run.
        let held = holder.is_some_and(|holder| side.held.contains(holder));
        let verdict = if held && verdict == Verdict::Runs { Verdict::Keep } else { verdict };
        Some(Judged { entry: entry.clone(), seen, verdict })
    }

    /// Takes note of how far its restart has come, and of a start that has failed.
    pub(super) fn note(
        &mut self,
        judged: &Judged<'_>,
        settings: &Settings,
        writing: &mut Writing,
        now: Time,
    ) {
        if judged.entry.unprotected && judged.verdict == Verdict::Keep && self.waiting.is_waiting() {
            // R80: nobody brings it back any more, so that it waits for nothing, and nobody waits for it.
            self.waiting.end();
            self.restart.set_off();
        }
        let claim = judged.granted_claim();
        if self.record.working().intent.is_none() {
            let readiness = settings.readiness(judged.entry.vm);
            let met = claim.is_some_and(|claim| match readiness.when {
                ReadyWhen::Started => !claim.state.is_released(),
                when => claim.state == ClaimState::Running && guest_shows(claim.guest, when),
            });
            if met {
                self.restart.note_ready(now);
            }
        }
        if judged.entry.holder.is_some()
            && let Some(why) = failed_start(&judged.entry, claim, &judged.verdict)
        {
            self.restart.note_failure(&mut self.record, why, writing, now);
        }
    }

    /// What it wants a host for, if it does.
    pub(super) fn want(
        &mut self,
        judged: &Judged<'_>,
        settings: &Settings,
        side: &OwnerSide<'_>,
        out: &mut Out<'_>,
    ) -> Option<Want> {
        let entry = &judged.entry;
        let mut want = Want {
            vm: entry.vm,
            kind: WantKind::Restart,
            first_try: None,
            passed_over: self.waiting.is_reported(),
            tried: BTreeSet::new(),
            lost_on: None,
            since: out.now,
        };
        let disabled = entry.spec.priority == Priority::Disabled;
        match &judged.verdict {
            Verdict::Grant { same_host, .. } if !disabled => {
                // There was room for it there when this owner took responsibility.
                let first = self.first_try(entry, *same_host);
                want.first_try = first.or(entry.responsible.clone());
            }
            Verdict::AwaitMigration(cause) if !disabled && !entry.unprotected => {
                let over = self.expected_until.is_some_and(|until| out.now >= until);
                if !over || judged.may_be_unseen(side.dark) {
                    return None;
                }
                let same_host = *cause == StopCause::Unknown && entry.attempts == 0;
                want.first_try = self.first_try(entry, same_host);
            }
            Verdict::Intend if !disabled => want.lost_on = self.lost_on(judged, out.now)?,
            Verdict::TakeResponsibility => {
                want.kind = WantKind::Responsibility;
                return Some(want);
            }
            Verdict::Runs => {
                return self.orders.wants_to_move(entry, &mut self.restart, settings, side, out.now);
            }
            Verdict::Grant { .. }
            | Verdict::AwaitMigration(_)
            | Verdict::Intend
            | Verdict::Keep
            | Verdict::SetOff(_)
            | Verdict::Heed(_)
            | Verdict::AwaitSight
            | Verdict::IntendTo(_)
            | Verdict::DropResponsibility(_)
            | Verdict::Confirm
            | Verdict::Cancel(_)
            | Verdict::Adopt(_)
            | Verdict::Twice(_) => return None,
        }
        if entry.attempts == 0 && entry.intent.is_none() {
            self.restart.forget_progress();
        }
        if !self.restart.is_due(side.candidates, out.now) {
            let failures = self.restart.failures(out.now);
            self.waiting.wait(failures, Wait::ForHost, judged.name(), side.timing, out);
            return None;
        }
        want.since = self.restart.want(out.now);
        want.tried = self.restart.tried().clone();
        Some(want)
    }

    /// The host that it is to leave, if that has failed. `None` in the first place: nothing shows that it is to leave it.
    fn lost_on(&mut self, judged: &Judged<'_>, now: Time) -> Option<Option<HostId>> {
        let failed = judged.seen.as_ref().is_some_and(|seen| seen.state == HostState::Failed);
        if !failed && !self.restart.was_declined(now) {
            return None;
        }
        let holder = judged.entry.holder.clone();
        if let Some(host) = holder.clone() {
            self.restart.avoid(host);
        }
        Some(holder.filter(|_| failed))
    }

    /// The host that just lost it is tried first, or last.
    fn first_try(&mut self, entry: &Entry, same_host: bool) -> Option<HostId> {
        let former = entry.holder.clone()?;
        if same_host {
            return Some(former);
        }
        self.restart.avoid(former);
        None
    }

    /// When to review it again although nothing happened: retries, time-outs of grants.
    pub(super) fn deadline(&self, timing: &Timing, now: Time) -> Option<Time> {
        let entry = self.record.durable()?;
        if entry.desired == Desired::Off && entry.holder.is_none() {
            return None;
        }
        let claim = self.record.since() + timing.claim_timeout();
        let claim = (self.running_since.is_none() && claim > now).then_some(claim);
        let well = self.running_since.filter(|_| entry.attempts > 0).map(Restart::well_at);
        let twice = self.twice.as_ref().filter(|twice| !twice.reported).map(|twice| twice.report_at);
        let due =
            [self.restart.deadline(now), twice, claim, well, self.expected_until, self.waiting.deadline()];
        due.into_iter().flatten().filter(|at| *at > now).min()
    }

    /// A restart has begun and is not done.
    pub(super) fn is_failing_over(&self, side: &OwnerSide<'_>) -> bool {
        let entry = self.working();
        let restarts = entry.attempts > 0 && !entry.verified && entry.desired == Desired::On;
        let under_way = restarts
            && entry.holder.as_ref().is_some_and(|holder| {
                let failed = side.state(holder) == Some(HostState::Failed);
                let claim = side.claim(holder, entry.vm);
                let claim = claim.filter(|claim| claim.token == Some(entry.token));
                !failed && claim.is_none_or(|claim| !claim.state.is_released())
            });
        entry.intent.is_some() || entry.responsible.is_some() || under_way
    }
}

/// The VM, as the picture of the cluster has it when places are given.
impl ListedVm {
    /// As a part of the cluster's picture.
    pub(super) fn scene<'a>(
        &'a self,
        datastore: &'a DatastoreName,
        power_on: &BTreeMap<HostId, PowerOnSeen>,
    ) -> VmScene<'a> {
        let entry = self.working();
        let going = entry.intent.as_ref().or(entry.responsible.as_ref());
        let moving = entry.order.as_ref().and_then(|order| match &order.what {
            OrderKind::Migrate(to) => Some(to),
            OrderKind::ShutDown | OrderKind::StartElsewhere => None,
        });
        let claim = entry.holder.as_ref().and_then(|holder| {
            claim_in(&power_on.get(holder)?.list, entry.vm).filter(|claim| claim.token == Some(entry.token))
        });
        let released = claim.is_some_and(|claim| claim.state.is_released());
        let host = going.or(moving).or(entry.holder.as_ref().filter(|_| !released));
        VmScene {
            vm: entry.vm,
            name: &entry.name,
            spec: &entry.spec,
            datastore,
            host,
            running: self.is_running() && going.is_none() && moving.is_none(),
            starting: claim.is_some_and(|claim| claim.state == ClaimState::Starting),
            wanted: host.is_some() && !entry.unprotected && entry.desired == Desired::On,
            failed_on: self.restart.behind(self.orders.refused()),
            on: entry.desired == Desired::On,
        }
    }

    /// As a restart that others may wait for, if it is one.
    pub(super) fn under_way(&self, power_on: &BTreeMap<HostId, PowerOnSeen>) -> Option<UnderWay> {
        let progress = self.restart.progress().cloned();
        let waits = self.waiting.is_stuck();
        if progress.is_none() && !waits {
            return None;
        }
        let host = self.working().holder.clone()?;
        let claim = power_on.get(&host).and_then(|seen| claim_in(&seen.list, self.working().vm));
        let starting = claim.is_some_and(|claim| claim.state == ClaimState::Starting);
        Some(UnderWay { progress, host, starting, waits, since: self.restart.wanted_since() })
    }
}
