//! A claim follows what libvirt shows: the VM runs, arrives, or has stopped (R33, R34, R36, R47).
//!
//! Invariant: a claim in a running state is given up only when the VM is known not to run here.

use super::{ClaimedVm, Stage};
use crate::claims::desk::Desk;
use crate::claims::starts::Start;
use crate::event::{Event, VmName};
use crate::guard::ProcessState;
use crate::ids::Token;
use crate::input::Domain;
use crate::register::{Claim, ClaimState, Entry, Guest, StopCause};
use crate::time::{Span, Time};
use crate::timing::LIBVIRT_PATIENCE;

/// R34: how long the stop of a VM that ran without a grant is remembered: a grant may be on its way.
const UNGRANTED_STOP_KEPT: Span = Span::from_secs(10);

/// The same, where it was on purpose and no later run of the VM is known: its recorded host may yet be found failed.
const UNHEARD_STOP_KEPT: Span = Span::from_secs(60);

/// What becomes of a claim whose VM is off.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::claims) enum Stopped {
    /// It stays: the owner has yet to read it.
    Stays,
    /// The owner has drawn its conclusion.
    Done,
}

/// The state of a VM that is there.
fn running_or(frozen: bool) -> ClaimState {
    if frozen { ClaimState::Frozen } else { ClaimState::Running }
}

impl ClaimedVm {
    /// A claim of a VM that is new here.
    fn first(domain: &Domain, state: ClaimState) -> Claim {
        Claim {
            vm: domain.vm,
            name: domain.name.clone(),
            token: None,
            state,
            spec: None,
            asked_to_stop: false,
            powering_off: false,
            guest: Guest::Silent,
            order_failed: None,
            ended: false,
            under: Token::default(),
        }
    }

    /// A VM that this host knows nothing of runs here.
    pub(in crate::claims) fn appeared(domain: &Domain, desk: &mut Desk<'_, '_>) -> Option<ClaimedVm> {
        let elsewhere = domain.home.as_ref().is_some_and(|home| home != desk.datastore);
        if elsewhere || !desk.leased {
            return None;
        }
        // One that a run of the agent before this one has left frozen: it must not pass for one that runs.
        let frozen = desk.host.processes.get(&domain.vm) == Some(&ProcessState::Frozen);
        let mut vm = ClaimedVm::new(ClaimedVm::first(domain, running_or(frozen)), Stage::Settled);
        vm.set_frozen(frozen);
        vm.began = desk.out.now;
        vm.claim.token = vm.grant_since(vm.began, desk);
        vm.find_asked(vm.claim.token, desk);
        vm.claim.spec = desk.host.stored.get(&domain.vm).cloned();
        vm.note_grant(desk);
        vm.tell_new(desk);
        Some(vm)
    }

    /// R45: the target of a live migration is claimed before it can run, so that whoever loses sight of the source waits for it.
    pub(in crate::claims) fn arriving(domain: &Domain, desk: &mut Desk<'_, '_>) -> ClaimedVm {
        let mut vm = ClaimedVm::new(ClaimedVm::first(domain, ClaimState::Migrating), Stage::Settled);
        vm.began = desk.out.now;
        vm.tell_new(desk);
        vm
    }

    /// A VM that is granted to this host and is off: its start begins with the claim.
    pub(in crate::claims) fn granted(entry: &Entry) -> ClaimedVm {
        let claim = Claim {
            vm: entry.vm,
            name: entry.name.clone(),
            token: Some(entry.token),
            state: ClaimState::Starting,
            spec: Some(entry.spec.clone()),
            asked_to_stop: false,
            powering_off: false,
            guest: Guest::Silent,
            order_failed: None,
            ended: false,
            under: Token::default(),
        };
        ClaimedVm::new(claim, Stage::Starting(Start::announce()))
    }

    /// A claim of QEMU that is left behind, if nothing is known of its VM.
    pub(in crate::claims) fn left_behind(domain: &Domain) -> Claim {
        ClaimedVm::first(domain, ClaimState::Stopped { cause: StopCause::Withdrawn })
    }

    /// A new claim: it is to be written, and one without a grant is a request for one (R34).
    fn tell_new(&self, desk: &mut Desk<'_, '_>) {
        desk.wanted.want_write();
        if self.claim.token.is_none() {
            desk.wanted.want_look();
        }
    }

    /// The grant of this VM to this host, by a look that was started since then. A look from before the VM was here says nothing
    /// about this run of it: it may have left and come back.
    fn grant_since(&self, began: Time, desk: &Desk<'_, '_>) -> Option<Token> {
        let entry = desk.entry(self.id()).filter(|_| desk.look.is_some_and(|look| look.started >= began));
        entry.filter(|entry| desk.is_mine(entry)).map(|entry| entry.token)
    }

    /// A VM whose grant this run of the agent did not find on its own list: that was lost. Its guest may have been asked to
    /// shut down.
    fn find_asked(&mut self, granted: Option<Token>, desk: &Desk<'_, '_>) {
        let entry = desk.entry(self.id()).filter(|_| granted.is_some());
        if entry.is_some_and(|entry| entry.asked_to_stop || entry.responsible.is_some()) {
            self.own_doing.find_asked(desk.out.now);
        }
    }

    /// Libvirt was asked since this host's own last operation on the VM was done (R32).
    pub(in crate::claims) fn is_shown(&self, as_of: Time) -> bool {
        as_of >= self.acted
    }

    /// The VM runs.
    pub(in crate::claims) fn follow_running(&mut self, domain: &Domain, desk: &mut Desk<'_, '_>) {
        let held = !self.is_released();
        if domain.home.as_ref().is_some_and(|home| home != desk.datastore) {
            // Its disk was moved: from now on it is the other datastore's matter, and must not come back from here.
            if held {
                self.release(ClaimState::Stopped { cause: StopCause::MovedAway }, desk.wanted);
            }
            return;
        }
        if !held && !desk.leased {
            // A claim says that the VM is bound to a lease: there has to be one first, or the guard would freeze it.
            return;
        }
        if held && let Some(entry) = self.taken_by(desk) {
            // Somebody was told to run it after this host: the later grant counts, this copy goes; also when the VM has been
            // stopped there since.
            let holder = entry.holder.clone();
            self.withdraw(desk.out);
            let vm = VmName { id: domain.vm, name: domain.name.clone() };
            desk.out.event(Event::VmCopyRemoved { vm, holder });
            return;
        }
        let arrived = held && self.claim.state != ClaimState::Migrating;
        let began = if arrived { self.began } else { desk.out.now };
        let granted = self.grant_since(began, desk);
        if self.claim.token.is_none() {
            self.find_asked(granted, desk);
        }
        let stored = desk.host.stored.get(&domain.vm).cloned();
        let first = ClaimedVm::first(domain, running_or(self.is_frozen()));
        let claim = if held {
            Claim {
                token: granted.or(self.claim.token),
                spec: stored.or_else(|| self.claim.spec.clone()),
                asked_to_stop: self.own_doing.has_asked(desk.out.now),
                powering_off: self.own_doing.has_powered_off(desk.out.now),
                guest: self.claim.guest,
                order_failed: self.claim.order_failed.clone(),
                under: if arrived { self.claim.under } else { first.under },
                ..first
            }
        } else {
            Claim { token: granted, spec: stored, ..first }
        };
        self.put(claim, began, desk);
        self.note_grant(desk);
    }

    /// R36: the entry that grants it to somebody else, later than to this host; or to this host, to start it anew.
    fn taken_by<'a>(&self, desk: &Desk<'a, '_>) -> Option<&'a Entry> {
        let entry = desk.entry(self.id())?;
        let conclusive =
            desk.look.zip(desk.host.lease).is_some_and(|(look, lease)| look.is_conclusive(lease));
        // A frozen copy without a grant: since it came here somebody was granted the VM anew, who runs it or has passed it on.
        let earlier = match self.claim.token {
            Some(token) => token < entry.token,
            None => self.is_frozen() && conclusive && !self.is_newest(entry, desk),
        };
        let leaves = entry.holder.as_ref() != Some(desk.me) || entry.attempts > 0;
        (leaves && earlier).then_some(entry)
    }

    /// R36: whether nobody was granted the VM anew since this copy, which has no grant, came here.
    pub(super) fn is_newest(&self, entry: &Entry, desk: &Desk<'_, '_>) -> bool {
        desk.keeps_old_copies || self.claim.under >= entry.token
    }

    /// The claim as libvirt shows the VM now.
    fn put(&mut self, claim: Claim, began: Time, desk: &mut Desk<'_, '_>) {
        if self.claim == claim {
            return;
        }
        let vm = VmName { id: claim.vm, name: claim.name.clone() };
        match (&self.claim.state, &claim.state) {
            (ClaimState::Running, ClaimState::Frozen) => desk.out.event(Event::VmFrozen { vm }),
            (ClaimState::Frozen, ClaimState::Running) => desk.out.event(Event::VmThawed { vm }),
            (_, _) => {}
        }
        self.claim = claim;
        self.began = began;
        self.tell_new(desk);
    }

    /// Notes under which grant a VM arrived that has none here. A look from before, or one in the term of the lease in which it
    /// came: after that term it may have been granted anew. It is part of the claim: the next run of the agent has to know.
    fn note_grant(&mut self, desk: &mut Desk<'_, '_>) {
        if self.claim.token.is_some() {
            self.claim.under = Token::default();
            return;
        }
        let Some(look) = desk.look else { return };
        // When a frozen copy came nobody knows but a former run of the agent.
        if self.is_frozen() {
            return;
        }
        let same_term = desk.host.lease.is_some_and(|lease| self.began >= lease.since);
        let shown = look.list.entry(self.id()).map(|entry| entry.token).unwrap_or_default();
        if shown > self.claim.under && (same_term || look.started <= self.began) {
            self.claim.under = shown;
            desk.wanted.want_write();
        }
    }

    /// R32: libvirt has not answered for long, and the guard has seen the VM's process end since then. It stopped; why is not known.
    pub(in crate::claims) fn follow_end(&mut self, desk: &mut Desk<'_, '_>) {
        let (Some(silent), Some(ended)) = (desk.host.silent, desk.host.ended.get(&self.id())) else { return };
        let held = matches!(self.claim.state, ClaimState::Running | ClaimState::Frozen);
        let now = desk.out.now;
        if !held || !self.is_settled() || now.since(silent.max(*ended)) < LIBVIRT_PATIENCE {
            return;
        }
        let cause = self.own_doing.cause(StopCause::Unknown, now);
        self.release(ClaimState::Stopped { cause }, desk.wanted);
        self.claim.ended = true;
        self.stop_written = None;
    }

    /// The VM is off. `granted`: the entry that grants it to this host, and wants it to run.
    pub(in crate::claims) fn follow_stopped(
        &mut self,
        cause: StopCause,
        granted: Option<&Entry>,
        desk: &mut Desk<'_, '_>,
    ) -> Stopped {
        let now = desk.out.now;
        if self.claim.ended && cause != StopCause::Unknown {
            // Libvirt answers again, and knows why.
            self.claim.ended = false;
            self.claim.state = ClaimState::Stopped { cause: self.own_doing.cause(cause, now) };
            self.stop_written = None;
            desk.wanted.want_write();
            return Stopped::Stays;
        }
        if !self.is_released() {
            let cause = match self.own_doing.cause(cause, now) {
                // Libvirt ends a target whose source has gone: nobody's will.
                StopCause::UserDestroyed if self.claim.state == ClaimState::Migrating => StopCause::Withdrawn,
                cause => cause,
            };
            self.claim.state = ClaimState::Stopped { cause };
            self.stop_written = None;
            desk.wanted.want_write();
            return Stopped::Stays;
        }
        // A grant that the owner gave while the VM was still running here: this stop is the answer to it, not a start.
        if let (None, Some(entry)) = (self.claim.token, granted.filter(|entry| entry.attempts == 0)) {
            self.claim.token = Some(entry.token);
            desk.wanted.want_write();
            return Stopped::Stays;
        }
        // The owner may not have granted it yet, but must learn why it stopped (I4).
        let heeded = |entry: &Entry| {
            self.claim.intended_stop().is_some() && entry.heeds(self.claim.token.unwrap_or(self.claim.under))
        };
        let heeded = desk.entry(self.id()).is_some_and(heeded);
        let kept = if heeded { UNHEARD_STOP_KEPT } else { UNGRANTED_STOP_KEPT };
        let told = self.stop_written.is_some_and(|at| now.since(at) >= kept);
        if self.claim.token.is_none() && !told {
            return Stopped::Stays;
        }
        let other =
            |entry: &Entry| entry.holder.as_ref() != Some(desk.me) || Some(entry.token) != self.claim.token;
        // Under an earlier grant, and nobody has run the VM since: the owner has yet to heed it.
        let waits = heeded && self.claim.token.is_some();
        let processed = desk.look.is_some() && !waits && desk.entry(self.id()).is_none_or(other);
        if processed { Stopped::Done } else { Stopped::Stays }
    }
}
