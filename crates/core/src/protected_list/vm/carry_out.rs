//! Carrying out what was decided about a VM: changes of its entry, which count when they are on disk.

use super::{Judged, ListedVm, Twice};
use crate::Refusal;
use crate::event::{Event, VmName};
use crate::failover::{HolderSeen, Verdict};
use crate::ids::{DatastoreName, HostId};
use crate::out::Out;
use crate::placing::{Place, Places};
use crate::protected_list::numbers::Numbers;
use crate::protected_list::orders::Next;
use crate::protected_list::restart::Restart;
use crate::protected_list::sight::OwnerSide;
use crate::protected_list::waiting::Wait;
use crate::protected_list::writing::Writing;
use crate::register::{ClaimState, Desired, Entry, Guest, ListStamp, Order, OrderKind, Priority, StopCause};
use crate::settings::{READY_TIMEOUT, Settings};
use crate::time::Span;
use crate::timing::Timing;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;

/// What a decision about one VM may use, and change, besides the VM.
pub(in crate::protected_list) struct Desk<'a, 'o> {
    pub(in crate::protected_list) datastore: &'a DatastoreName,
    pub(in crate::protected_list) side: &'a OwnerSide<'a>,
    pub(in crate::protected_list) settings: &'a Settings,
    /// Nothing is restarted, ended or moved.
    pub(in crate::protected_list) suspended: bool,
    /// As many VMs are on their way from its holder as may be at a time.
    pub(in crate::protected_list) moving_enough: bool,
    pub(in crate::protected_list) numbers: &'a mut Numbers,
    pub(in crate::protected_list) writing: &'a mut Writing,
    pub(in crate::protected_list) places: &'a mut Places,
    pub(in crate::protected_list) out: &'a mut Out<'o>,
}

/// How long a VM that migrated away, or vanished, may take to show up elsewhere before it is restarted.
fn grace(cause: StopCause, timing: &Timing) -> Span {
    if cause == StopCause::Migrated { Span::from_secs(10) } else { timing.failure_timeout }
}

/// Whether it brings a VM back, or prepares for it.
fn restarts(verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Grant { .. }
        | Verdict::AwaitMigration(_)
        | Verdict::AwaitSight
        | Verdict::Intend
        | Verdict::TakeResponsibility
        | Verdict::Confirm => true,
        Verdict::Keep
        | Verdict::Runs
        | Verdict::SetOff(_)
        | Verdict::Heed(_)
        | Verdict::IntendTo(_)
        | Verdict::DropResponsibility(_)
        | Verdict::Cancel(_)
        | Verdict::Adopt(_)
        | Verdict::Twice(_) => false,
    }
}

impl ListedVm {
    /// Only the owner calls this, within its ownership.
    pub(in crate::protected_list) fn carry_out(&mut self, judged: &Judged<'_>, desk: &mut Desk<'_, '_>) {
        if let Some(claim) = judged.claim() {
            self.record.follow(claim, desk.settings, desk.writing);
        }
        let (entry, verdict) = (&judged.entry, &judged.verdict);
        if !matches!(verdict, Verdict::Twice(_)) {
            self.end_twice(judged, desk);
        }
        if !matches!(verdict, Verdict::AwaitMigration(_)) {
            self.expected_until = None;
        }
        if desk.suspended && restarts(verdict) {
            // Nothing is restarted during a suspension.
            let reasons =
                alloc::vec![Refusal { host: desk.side.me.clone(), reason: "protection is suspended".into() }];
            return self.waiting.wait(reasons, Wait::Suspended, judged.name(), desk.side.timing, desk.out);
        }
        match verdict {
            Verdict::Keep => self.keep(judged, desk),
            Verdict::Runs => self.on_runs(judged, desk),
            Verdict::SetOff(cause) => self.set_off(*cause, judged.name(), desk),
            Verdict::Heed(cause) => self.heed(*cause, judged, desk),
            Verdict::Grant { same_host: _, reason } => self.grant_anew(reason.clone(), judged, desk),
            Verdict::AwaitMigration(cause) => self.await_migration(*cause, judged, desk),
            Verdict::AwaitSight => self.await_sight(judged, desk),
            Verdict::Intend => self.intend(judged, desk),
            Verdict::IntendTo(host) => self.record.edit(desk.writing).intent = Some(host.clone()),
            Verdict::TakeResponsibility => self.take_responsibility(judged, desk),
            Verdict::DropResponsibility(reason) => self.drop_responsibility(reason.clone(), judged, desk),
            Verdict::Confirm => self.confirm(judged, desk),
            Verdict::Cancel(reason) => {
                self.record.edit(desk.writing).intent = None;
                let host = entry.holder.clone().unwrap_or_else(|| desk.side.me.clone());
                desk.out.event(Event::TakeoverCancelled { vm: judged.name(), host, reason: reason.clone() });
            }
            Verdict::Adopt(host) => self.adopt(host.clone(), desk),
            Verdict::Twice(other) => self.on_twice(other, judged, desk),
        }
    }

    fn keep(&mut self, judged: &Judged<'_>, desk: &mut Desk<'_, '_>) {
        if judged.seen.as_ref().is_some_and(HolderSeen::is_held_back) {
            // Frozen, or being stopped for isolation: it is there all the same.
            return;
        }
        self.running_since = None;
        let Some(holder) = judged.entry.holder.clone() else { return };
        if desk.side.held.contains(&holder) {
            // What its guard was told outlasts what people see of the host.
            let why = alloc::format!(
                "protection was suspended and it was told not to freeze its VMs, so that they may run on; it can't be \
                 asked: when you have seen to it that it is down, say so (mainstay host confirm-down {holder})"
            );
            let reasons = alloc::vec![Refusal { host: holder, reason: why.into() }];
            self.waiting.wait(reasons, Wait::ForSight, judged.name(), desk.side.timing, desk.out);
        }
    }

    fn on_runs(&mut self, judged: &Judged<'_>, desk: &mut Desk<'_, '_>) {
        let entry = &judged.entry;
        let Some(host) = entry.holder.clone() else { return };
        let now = desk.out.now;
        let since = *self.running_since.get_or_insert(now);
        self.waiting.end();
        self.restart.runs();
        if guest_answers(judged) && !entry.has_agent {
            self.record.edit(desk.writing).has_agent = true;
        }
        if entry.mute {
            self.tell_of_mute(&host, judged, desk);
        }
        if desk.suspended {
            // Nothing is ended or moved.
            return;
        }
        if entry.attempts > 0 && !entry.verified && !self.verify(judged, desk) {
            return self.order(judged, desk);
        }
        self.restart.avoid_none();
        if !self.announced {
            self.announced = true;
            self.announce(host, judged, desk);
        }
        if entry.attempts > 0 && Restart::ran_well(since, now) {
            self.restart.forget_attempts(self.record.edit(desk.writing));
        }
        self.order(judged, desk);
    }

    /// It runs under its grant, and that is reported: once.
    fn announce(&mut self, host: HostId, judged: &Judged<'_>, desk: &mut Desk<'_, '_>) {
        let entry = &judged.entry;
        if entry.attempts > 0 && !entry.verified {
            desk.out.event(Event::VmRestarted {
                vm: judged.name(),
                from: entry.failed_over_from.clone(),
                to: host.clone(),
                attempts: entry.attempts,
            });
            // On disk, so that a next owner does not report it again.
            let working = self.record.edit(desk.writing);
            working.verified = true;
            working.failed_over_from = None;
            working.ran_under = None;
        }
        if !entry.unprotected {
            let datastore = desk.datastore.clone();
            desk.out.event(Event::VmProtected { vm: judged.name(), host, datastore });
        }
    }

    /// R76: it was left running although its guest agent did not answer: each owner says so once, and says when it answers.
    fn tell_of_mute(&mut self, host: &HostId, judged: &Judged<'_>, desk: &mut Desk<'_, '_>) {
        let (vm, host) = (judged.name(), host.clone());
        if guest_answers(judged) {
            self.restart.forget_mute();
            self.record.edit(desk.writing).mute = false;
            desk.out.event(Event::VmVerified { vm, host });
        } else if judged.entry.unprotected {
            self.restart.forget_mute();
        } else if self.restart.report_mute() {
            desk.out.event(Event::VmNotVerified { vm, host, again: false });
        }
    }

    /// R76: whether a restart is a success: where a guest agent has answered before, it has to answer again. When it does not in
    /// time, one more host is tried, if one can take the VM; otherwise the VM is left running, and people are told.
    fn verify(&mut self, judged: &Judged<'_>, desk: &mut Desk<'_, '_>) -> bool {
        let entry = &judged.entry;
        if !entry.has_agent || guest_answers(judged) {
            return true;
        }
        // A short time-out for those that wait for it says nothing about how long a guest may boot.
        let timeout = desk.settings.readiness(entry.vm).timeout.max(READY_TIMEOUT);
        let until = self.restart.wait_for_guest(timeout, desk.out.now);
        if desk.out.now < until || entry.order.is_some() {
            return false;
        }
        let Some(host) = entry.holder.clone() else { return false };
        let again = match desk.places.remove(&entry.vm) {
            Some(Place::Go(to)) => to != host,
            Some(Place::Nowhere { .. }) => false,
            Some(Place::Later(..)) => return false,
            // It is not asked for a second time.
            None if self.restart.is_mute(self.record.working(), desk.out.now) => return false,
            None => false,
        };
        if again {
            desk.out.event(Event::VmNotVerified { vm: judged.name(), host, again });
            self.give(OrderKind::StartElsewhere, desk);
        } else {
            // People are told when it is on disk: then the next owner tells them too.
            self.record.edit(desk.writing).mute = true;
        }
        !again
    }

    /// What is to be ordered, and what has become of the last order.
    fn order(&mut self, judged: &Judged<'_>, desk: &mut Desk<'_, '_>) {
        let entry = &judged.entry;
        if entry.order.is_some() {
            if self.orders.follow(entry, judged.claim(), desk.settings, desk.out) {
                self.record.edit(desk.writing).order = None;
            }
            return;
        }
        match self.orders.next(entry, desk.settings, desk.places, desk.moving_enough, desk.out.now) {
            Next::Nothing => {}
            Next::Stays(reasons) => self.waiting.wait_to_move(reasons),
            Next::Give { what, evacuates } => {
                if evacuates {
                    self.record.edit(desk.writing).evacuated_from.clone_from(&entry.holder);
                }
                self.give(what, desk);
            }
        }
    }

    fn give(&mut self, what: OrderKind, desk: &mut Desk<'_, '_>) {
        let number = desk.numbers.next_order();
        self.waiting.end();
        self.record.edit(desk.writing).order = Some(Order { number, what });
    }

    fn set_off(&mut self, cause: StopCause, name: VmName, desk: &mut Desk<'_, '_>) {
        let order = self.record.durable().and_then(|entry| entry.order.as_ref());
        let ordered = order.is_some_and(|order| order.what == OrderKind::ShutDown);
        // Libvirt can't tell one from the other.
        let obeyed = ordered && matches!(cause, StopCause::GuestShutdown | StopCause::UserShutdown);
        let cause = if obeyed { StopCause::Maintenance } else { cause };
        let entry = self.record.edit(desk.writing);
        if let Some(host) = entry.holder.take() {
            desk.out.event(Event::VmStopped { vm: name, host, cause, restart: false });
        }
        entry.desired = Desired::Off;
        entry.intent = None;
        entry.responsible = None;
        entry.attempts = 0;
        entry.failed_on.clear();
        entry.order = None;
        entry.evacuated_from = None;
        entry.failed_over_from = None;
        entry.mute = false;
        entry.ran_under = None;
        entry.asked_to_stop = false;
        self.running_since = None;
        self.waiting.end();
        self.restart.set_off();
    }

    /// Another host than the holder says that it was stopped on purpose. A grant to nobody: what the holder has, or starts,
    /// is under an earlier one, and goes.
    fn heed(&mut self, cause: StopCause, judged: &Judged<'_>, desk: &mut Desk<'_, '_>) {
        self.set_off(cause, judged.name(), desk);
        self.record.edit(desk.writing).token = desk.numbers.next_grant();
    }

    /// The VM is held by nobody (any more): give it to the best host.
    fn grant_anew(&mut self, reason: Arc<str>, judged: &Judged<'_>, desk: &mut Desk<'_, '_>) {
        if let Some(host) = self.record.working().holder.clone() {
            let claim = desk.side.claim(&host, judged.entry.vm);
            if let Some(ClaimState::Stopped { cause }) = claim.map(|claim| &claim.state)
                && self.running_since.take().is_some()
            {
                let cause = *cause;
                desk.out.event(Event::VmStopped { vm: judged.name(), host, cause, restart: true });
            }
        }
        if self.record.working().spec.priority == Priority::Disabled {
            return self.set_off(StopCause::Unknown, judged.name(), desk);
        }
        let Some(host) = self.place(judged, desk) else { return };
        let token = desk.numbers.next_grant();
        let entry = self.record.edit(desk.writing);
        entry.ran_under = judged.ran_under();
        entry.token = token;
        if entry.failed_over_from.is_none() && entry.holder.as_ref() != Some(&host) {
            entry.failed_over_from.clone_from(&entry.holder);
        }
        entry.holder = Some(host);
        entry.responsible = None;
        self.restart.grant(entry, reason, desk.out.now);
    }

    /// The holder let go of the VM, which may run elsewhere. Waits until it shows up, or until nobody can have it.
    fn await_migration(&mut self, cause: StopCause, judged: &Judged<'_>, desk: &mut Desk<'_, '_>) {
        let now = desk.out.now;
        let until = *self.expected_until.get_or_insert(now + grace(cause, desk.side.timing));
        if now < until {
            return;
        }
        if judged.entry.unprotected {
            // Its user may have moved it out of the cluster.
            self.set_off(cause, judged.name(), desk);
        } else if !judged.may_be_unseen(desk.side.dark) {
            let reason = alloc::format!("{cause}, and was not seen anywhere").into();
            self.grant_anew(reason, judged, desk);
        } else {
            // Where nobody can look, it may well run: QEMU's lock must not be what finds out.
            self.await_sight(judged, desk);
        }
    }

    /// The holder has failed, and a host that does not show what runs there may have the VM. Waits for such hosts.
    fn await_sight(&mut self, judged: &Judged<'_>, desk: &mut Desk<'_, '_>) {
        let unseen = desk.side.unseen(self.record.working());
        self.waiting.wait(unseen, Wait::ForSight, judged.name(), desk.side.timing, desk.out);
    }

    fn intend(&mut self, judged: &Judged<'_>, desk: &mut Desk<'_, '_>) {
        self.running_since = None;
        let Some(host) = self.place(judged, desk) else { return };
        self.restart.begin_progress(desk.out.now);
        self.record.edit(desk.writing).intent = Some(host);
    }

    fn confirm(&mut self, judged: &Judged<'_>, desk: &mut Desk<'_, '_>) {
        let before = &judged.entry;
        let Some(to) = before.intent.clone() else { return };
        let token = desk.numbers.next_grant();
        let entry = self.record.edit(desk.writing);
        entry.ran_under = judged.ran_under();
        entry.token = token;
        entry.intent = None;
        entry.responsible = None;
        if entry.failed_over_from.is_none() {
            entry.failed_over_from.clone_from(&before.holder);
        }
        entry.holder = Some(to);
        let reason = match &before.holder {
            Some(host) => alloc::format!("{host} failed").into(),
            None => "its host failed".into(),
        };
        self.restart.grant(entry, reason, desk.out.now);
    }

    /// It runs on that host without a grant: it gets one.
    fn adopt(&mut self, host: HostId, desk: &mut Desk<'_, '_>) {
        let token = desk.numbers.next_grant();
        let entry = self.record.edit(desk.writing);
        entry.token = token;
        if entry.evacuated_from.as_ref() == Some(&host) {
            entry.evacuated_from = None;
        }
        entry.holder = Some(host);
        entry.desired = Desired::On;
        entry.order = None;
        entry.failed_on.clear();
        entry.attempts = 0;
        entry.failed_over_from = None;
        entry.ran_under = None;
        entry.asked_to_stop = false;
        entry.intent = None;
        entry.responsible = None;
        self.orders.forget_refusals();
        self.restart.forget_progress();
    }

    /// R61: the holder is isolated and would stop the VM: this owner will restart it. Without room nothing is stopped (I2).
    fn take_responsibility(&mut self, judged: &Judged<'_>, desk: &mut Desk<'_, '_>) {
        let Some(from) = judged.entry.holder.clone() else { return };
        let Some(to) = self.place(judged, desk) else { return };
        desk.out.event(Event::ResponsibilityTaken { vm: judged.name(), from, to: to.clone() });
        self.record.edit(desk.writing).responsible = Some(to);
    }

    fn drop_responsibility(&mut self, reason: Arc<str>, judged: &Judged<'_>, desk: &mut Desk<'_, '_>) {
        let Some(host) = judged.entry.holder.clone() else { return };
        desk.out.event(Event::ResponsibilityDropped { vm: judged.name(), host, reason });
        self.record.edit(desk.writing).responsible = None;
    }

    fn on_twice(&mut self, other: &HostId, judged: &Judged<'_>, desk: &mut Desk<'_, '_>) {
        let report_at = desk.out.now + desk.side.timing.network_timeout();
        let new = Twice { other: other.clone(), report_at, reported: false };
        let twice = self.twice.get_or_insert_with(|| new.clone());
        if twice.other != *other {
            *twice = new;
        }
        if !twice.reported && desk.out.now >= twice.report_at {
            twice.reported = true;
            let holder = judged.entry.holder.clone().unwrap_or_else(|| desk.side.me.clone());
            desk.out.event(Event::VmActiveTwice { vm: judged.name(), holder, other: other.clone() });
        }
    }

    fn end_twice(&mut self, judged: &Judged<'_>, desk: &mut Desk<'_, '_>) {
        let reported = self.twice.take().is_some_and(|twice| twice.reported);
        if let Some(host) = judged.entry.holder.clone().filter(|_| reported) {
            desk.out.event(Event::VmActiveOnce { vm: judged.name(), host });
        }
    }

    /// The host that this round of placing has for it; otherwise it waits, and says for what.
    fn place(&mut self, judged: &Judged<'_>, desk: &mut Desk<'_, '_>) -> Option<HostId> {
        match desk.places.remove(&judged.entry.vm)? {
            Place::Go(host) => {
                self.waiting.placed();
                Some(host)
            }
            Place::Later(host, because) => {
                self.waiting.wait_for_others(host, because, judged.name(), desk.out);
                None
            }
            Place::Nowhere { refusals, orphaned } => {
                let kind = if orphaned { Wait::Orphaned } else { Wait::ForHost };
                // What a host has said counts, not that it is left out of this round.
                let said = self.restart.failures(desk.out.now);
                let all = refusals.into_iter().chain(said).map(|one| (one.host, one.reason));
                let by_host: BTreeMap<HostId, Arc<str>> = all.collect();
                let why = by_host.into_iter().map(|(host, reason)| Refusal { host, reason }).collect();
                self.waiting.wait(why, kind, judged.name(), desk.side.timing, desk.out);
                None
            }
        }
    }

    /// A write is on disk that has its entry like this. Returns the hosts that should look at it.
    pub(in crate::protected_list) fn on_written(
        &mut self,
        entry: &Entry,
        stamp: ListStamp,
        out: &mut Out<'_>,
    ) -> BTreeSet<HostId> {
        let mut concerned = BTreeSet::new();
        let Some(rewritten) = self.record.on_written(entry.clone(), stamp, out.now) else { return concerned };
        let before = rewritten.before.as_ref();
        concerned.extend(before.and_then(|entry| entry.holder.clone()));
        concerned.extend(entry.holder.clone());
        let vm = VmName { id: entry.vm, name: entry.name.clone() };
        let granted_anew = before.is_none_or(|before| before.token != entry.token);
        let told = before.is_none() && self.restart.reason().is_empty();
        if let (Some(host), true, true) = (&entry.holder, granted_anew && !told, entry.attempts > 0) {
            out.event(Event::VmGranted {
                vm: vm.clone(),
                host: host.clone(),
                token: entry.token,
                attempt: entry.attempts,
                reason: self.restart.reason().clone(),
            });
        }
        if let (Some(from), Some(to)) = (&entry.holder, &entry.intent) {
            let (vm, from, to) = (vm.clone(), from.clone(), to.clone());
            out.event(Event::TakeoverIntended { vm, from, to });
        }
        if granted_anew {
            self.announced = false;
            if entry.attempts > 0 {
                self.restart.begin_progress(out.now);
            }
        }
        if let (Some(order), Some(host)) = (&entry.order, &entry.holder)
            && before.and_then(|before| before.order.as_ref()) != Some(order)
        {
            out.event(Event::VmOrdered { vm, host: host.clone(), order: order.what.clone() });
        }
        concerned
    }
}

fn guest_answers(judged: &Judged<'_>) -> bool {
    judged.claim().is_some_and(|claim| claim.guest != Guest::Silent)
}
