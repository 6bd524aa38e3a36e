//! A hypervisor in memory, for the agent's tests: the same operations, events and guarantees as [`crate::Hypervisor`].
//!
//! It passes the same contract tests. Beyond them it can be told what users, guests and faults do. News are delivered by a
//! thread of its own, in order, as by the real one.
//!
//! It does not simulate time: every operation is done, and told, at once.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::clock;
use crate::domain::{Domain, DomainState, DomainUuid, PauseReason};
use crate::error::{Error, OpError};
use crate::event::{Event, HostInfo, Op, OpOutput, Unanswered};
use crate::lane::Lane;
use crate::offers::HostOffers;
use crate::spec::{DiskSource, Spec};
use crate::stop_cause::StopCause;
use crate::{Handle, News, Sink};

mod guest;
mod migration;
mod storage;

use guest::Guest;
pub use storage::FakeStorage;

/// What libvirtd does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Daemon {
    Answers,
    Gone,
    Hangs,
}

struct FakeDomain {
    xml: String,
    spec: Spec,
    state: DomainState,
    persistent: bool,
    autostart: bool,
    pid: Option<u32>,
    deaf: bool,
    stuck: bool,
    guest: Guest,
}

impl FakeDomain {
    /// The images that QEMU would lock for writing.
    fn images(&self) -> Vec<String> {
        self.spec
            .disks
            .iter()
            .filter(|disk| !disk.readonly && !disk.shareable)
            .filter_map(|disk| match &disk.source {
                DiskSource::File(path) | DiskSource::Block(path) => Some(path.clone()),
                DiskSource::Network { .. }
                | DiskSource::Volume { .. }
                | DiskSource::Empty
                | DiskSource::Other(_) => None,
            })
            .collect()
    }
}

struct State {
    host: HostInfo,
    offers: HostOffers,
    destinations: BTreeMap<String, Arc<Mutex<State>>>,
    storage: FakeStorage,
    daemon: Daemon,
    domains: BTreeMap<DomainUuid, FakeDomain>,
    refusals: BTreeMap<DomainUuid, OpError>,
    next_pid: u32,
    news: Sender<Event>,
}

/// The fake. Clones are the same hypervisor, so that a test can keep one and give one away.
#[derive(Clone)]
pub struct FakeHypervisor {
    state: Arc<Mutex<State>>,
}

impl FakeHypervisor {
    /// A host that answers at once: `Connected`, `HostInfo` and an empty, complete `Snapshot` are told.
    pub fn start(host: HostInfo, storage: FakeStorage, sink: Sink) -> Result<FakeHypervisor, Error> {
        let (news, inbox) = mpsc::channel();
        let sink = News::new(sink);
        let deliver = move || inbox.iter().for_each(|event| sink.tell(event));
        thread::Builder::new()
            .name("hv-fake".into())
            .spawn(deliver)
            .map_err(|source| Error::Thread { name: "hv-fake", source })?;
        let state = State {
            host,
            offers: HostOffers::default(),
            destinations: BTreeMap::new(),
            storage,
            daemon: Daemon::Gone,
            domains: BTreeMap::new(),
            refusals: BTreeMap::new(),
            next_pid: 1000,
            news,
        };
        let fake = FakeHypervisor { state: Arc::new(Mutex::new(state)) };
        fake.daemon_returns();
        Ok(fake)
    }

    /// libvirtd ends. VMs run on.
    pub fn daemon_dies(&self) {
        self.state().lose(Daemon::Gone, "libvirtd closed the connection (it ended or was restarted)");
    }

    /// libvirtd hangs: operations time out with an unknown outcome, and are not carried out.
    pub fn daemon_hangs(&self) {
        self.state().lose(Daemon::Hangs, "libvirtd does not answer keepalives (it hangs)");
    }

    /// libvirtd answers again.
    pub fn daemon_returns(&self) {
        let mut state = self.state();
        if state.daemon != Daemon::Answers {
            state.daemon = Daemon::Answers;
            state.tell(Event::Connected);
            state.snapshot();
        }
    }

    /// The host loses power: all its VMs end without an event, transient ones vanish, libvirtd is gone. The storage keeps
    /// its locks until [`FakeStorage::release`]. Boot it with [`FakeHypervisor::daemon_returns`].
    pub fn power_is_lost(&self) {
        let mut state = self.state();
        state.lose(Daemon::Gone, "libvirtd closed the connection (it ended or was restarted)");
        state.domains.retain(|_, domain| domain.persistent);
        for domain in state.domains.values_mut() {
            domain.state = DomainState::ShutOff { cause: StopCause::Unknown };
            domain.pid = None;
        }
    }

    /// What the host gives to VMs, from now on. Nothing at first.
    pub fn host_offers(&self, offers: HostOffers) {
        self.state().offers = offers;
    }

    /// Tells a fresh snapshot, as at every interval.
    pub fn resync(&self) {
        self.state().snapshot();
    }

    /// Somebody defines a domain.
    pub fn user_defines(&self, xml: &str) -> Result<DomainUuid, OpError> {
        let mut state = self.state();
        let uuid = state.define(xml)?.0;
        state.changed(uuid);
        Ok(uuid)
    }

    /// Somebody starts a defined domain.
    pub fn user_starts(&self, uuid: DomainUuid) -> Result<(), OpError> {
        let mut state = self.state();
        state.power_on(uuid, DomainState::Running)?;
        state.changed(uuid);
        Ok(())
    }

    /// Somebody switches autostart on or off.
    pub fn user_sets_autostart(&self, uuid: DomainUuid, autostart: bool) {
        self.alter(uuid, |domain| domain.autostart = autostart);
    }

    /// Somebody ends a VM at once (`virsh destroy`).
    pub fn user_destroys(&self, uuid: DomainUuid) {
        self.state().stop(uuid, StopCause::Destroyed);
    }

    /// The guest powers off, by itself or asked by a user.
    pub fn guest_powers_off(&self, uuid: DomainUuid) {
        self.state().stop(uuid, StopCause::GuestShutdown);
    }

    /// The guest ignores shutdown requests from now on, or obeys again.
    pub fn guest_is_deaf(&self, uuid: DomainUuid, deaf: bool) {
        if let Some(domain) = self.state().domains.get_mut(&uuid) {
            domain.deaf = deaf;
        }
    }

    /// QEMU is killed.
    pub fn qemu_dies(&self, uuid: DomainUuid) {
        self.state().stop(uuid, StopCause::QemuDied);
    }

    /// QEMU obeys a SIGTERM that does not come from libvirt.
    pub fn qemu_is_terminated(&self, uuid: DomainUuid) {
        self.state().stop(uuid, StopCause::HostSignal);
    }

    /// QEMU hangs on its storage: libvirt answers no question about it, operations on it time out.
    pub fn qemu_is_stuck(&self, uuid: DomainUuid, stuck: bool) {
        if let Some(domain) = self.state().domains.get_mut(&uuid) {
            domain.stuck = stuck;
        }
    }

    /// A disk gives an error, the VM pauses.
    pub fn disk_fails(&self, uuid: DomainUuid) {
        self.alter(uuid, |domain| {
            if domain.state.is_active() {
                domain.state = DomainState::Paused { reason: PauseReason::IoError };
            }
        });
    }

    /// The next operation on this domain fails with `error`, without effect.
    pub fn refuse_next(&self, uuid: DomainUuid, error: OpError) {
        self.state().refusals.insert(uuid, error);
    }

    /// The present truth, beyond what libvirtd tells.
    pub fn state_of(&self, uuid: DomainUuid) -> Option<DomainState> {
        self.state().domains.get(&uuid).map(|domain| domain.state)
    }

    fn alter(&self, uuid: DomainUuid, change: impl FnOnce(&mut FakeDomain)) {
        let mut state = self.state();
        if let Some(domain) = state.domains.get_mut(&uuid) {
            change(domain);
            state.changed(uuid);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }
}

impl Handle for FakeHypervisor {
    fn submit(&self, id: u64, op: Op) {
        let result = match &op {
            Op::Migrate { uuid, destination_uri, .. } => self.migrate(&op, *uuid, destination_uri),
            Op::StartPaused { .. }
            | Op::Resume { .. }
            | Op::Suspend { .. }
            | Op::Shutdown { .. }
            | Op::Destroy { .. }
            | Op::Undefine { .. }
            | Op::SetAutostart { .. }
            | Op::Read { .. }
            | Op::HostOffers
            | Op::GuestPing { .. }
            | Op::GuestCommand { .. } => self.state().perform(&op),
        };
        self.state().tell(Event::Done { id, result });
    }
}

impl State {
    fn tell(&self, event: Event) {
        // A failed send means that the delivering thread has ended with the test.
        let _ = self.news.send(event);
    }

    fn lose(&mut self, daemon: Daemon, why: &str) {
        if self.daemon == Daemon::Answers {
            self.tell(Event::Lost { why: why.to_owned() });
        }
        self.daemon = daemon;
        for domain in self.domains.values_mut() {
            domain.state = without_events(domain.state);
        }
    }

    fn answers_about(&self, uuid: DomainUuid) -> bool {
        self.daemon == Daemon::Answers && !self.domains.get(&uuid).is_some_and(|domain| domain.stuck)
    }

    fn snapshot(&self) {
        if self.daemon != Daemon::Answers {
            return;
        }
        let as_of = clock::now();
        let (answered, stuck): (Vec<_>, Vec<_>) =
            self.domains.keys().copied().partition(|uuid| self.answers_about(*uuid));
        let why = "libvirtd did not answer in time about it".to_owned();
        let unanswered: Vec<Unanswered> = stuck
            .into_iter()
            .filter_map(|uuid| {
                self.domains.get(&uuid).map(|domain| Unanswered {
                    uuid,
                    name: domain.spec.name.clone(),
                    why: why.clone(),
                })
            })
            .collect();
        self.tell(Event::HostInfo(self.host.clone()));
        let complete = unanswered.is_empty();
        let domains = answered.into_iter().filter_map(|uuid| self.read(uuid)).collect();
        self.tell(Event::Snapshot { as_of, domains, unanswered, strays: Vec::new(), complete });
    }

    fn read(&self, uuid: DomainUuid) -> Option<Domain> {
        self.domains.get(&uuid).map(|domain| Domain {
            as_of: clock::now(),
            uuid,
            name: domain.spec.name.clone(),
            state: domain.state,
            persistent: domain.persistent,
            autostart: domain.autostart,
            pid: domain.pid,
            xml: domain.xml.clone(),
            spec: Ok(domain.spec.clone()),
        })
    }

    fn changed(&self, uuid: DomainUuid) {
        if self.answers_about(uuid)
            && let Some(domain) = self.read(uuid)
        {
            self.tell(Event::Changed(Box::new(domain)));
        }
    }

    fn define(&mut self, xml: &str) -> Result<(DomainUuid, Option<String>), OpError> {
        let spec: Spec = xml.parse()?;
        let uuid = spec.uuid;
        if let Some(other) =
            self.domains.iter().find(|(other, domain)| **other != uuid && domain.spec.name == spec.name)
        {
            return Err(OpError::Conflict {
                message: format!("domain '{}' already exists with uuid {}", spec.name, other.0),
            });
        }
        let replaced =
            self.domains.get_mut(&uuid).map(|domain| std::mem::replace(&mut domain.xml, xml.to_owned()));
        let fresh = || FakeDomain {
            xml: xml.to_owned(),
            spec: spec.clone(),
            state: DomainState::ShutOff { cause: StopCause::Unknown },
            persistent: true,
            autostart: false,
            pid: None,
            deaf: false,
            stuck: false,
            guest: Guest::of(&spec),
        };
        self.domains.entry(uuid).or_insert_with(fresh).spec = spec.clone();
        Ok((uuid, replaced))
    }

    fn images(&self, uuid: DomainUuid) -> Vec<String> {
        self.domains.get(&uuid).map(FakeDomain::images).unwrap_or_default()
    }

    fn power_on(&mut self, uuid: DomainUuid, wanted: DomainState) -> Result<u32, OpError> {
        self.storage.take(&self.images(uuid), &self.host.hostname)?;
        let domain = self.domains.get_mut(&uuid).ok_or(OpError::NoSuchDomain { uuid })?;
        self.next_pid += 1;
        domain.state = wanted;
        domain.pid = Some(self.next_pid);
        Ok(self.next_pid)
    }

    fn stop(&mut self, uuid: DomainUuid, cause: StopCause) {
        let images = self.images(uuid);
        let Some(domain) = self.domains.get_mut(&uuid).filter(|domain| domain.state.is_active()) else {
            return;
        };
        let name = domain.spec.name.clone();
        domain.pid = None;
        domain.state = DomainState::ShutOff { cause };
        images.iter().for_each(|path| self.storage.unlock(path));
        if self.answers_about(uuid) {
            self.tell(Event::Stopped { uuid, name, cause });
            self.changed(uuid);
        } else if let Some(domain) = self.domains.get_mut(&uuid) {
            domain.state = without_events(domain.state);
        }
    }

    /// What hinders every operation.
    fn admit(&mut self, op: &Op) -> Result<DomainUuid, OpError> {
        let uuid = Lane::of(op)?.uuid();
        match self.daemon {
            Daemon::Answers => {}
            Daemon::Gone => {
                return Err(OpError::NotAttempted { why: "cannot connect to the fake libvirtd".into() });
            }
            Daemon::Hangs => return Err(OpError::TimedOut { seconds: 0 }),
        }
        if !self.answers_about(uuid) {
            return Err(OpError::TimedOut { seconds: 0 });
        }
        self.refusals.remove(&uuid).map_or(Ok(uuid), Err)
    }

    fn perform(&mut self, op: &Op) -> Result<OpOutput, OpError> {
        let uuid = self.admit(op)?;
        if let Op::HostOffers = op {
            return Ok(OpOutput::HostOffers(Box::new(self.offers.clone())));
        }
        if let Op::StartPaused { xml } = op {
            return self.start_paused(uuid, xml);
        }
        let Some(domain) = self.domains.get_mut(&uuid) else { return Err(OpError::NoSuchDomain { uuid }) };
        if let Op::SetAutostart { on, .. } = op {
            // As libvirt, which tells no event of it.
            domain.autostart = *on;
            return Ok(OpOutput::Done);
        }
        let (active, deaf, name) = (domain.state.is_active(), domain.deaf, domain.spec.name.clone());
        let wrong_state = || {
            Err(OpError::WrongState {
                message: format!("domain {name} is {}", if active { "active" } else { "not running" }),
            })
        };
        match op {
            Op::Resume { .. } | Op::Suspend { .. } if !active => return wrong_state(),
            Op::Undefine { .. } if active => return wrong_state(),
            Op::Resume { .. } => self.set_state(uuid, DomainState::Running),
            Op::Suspend { .. } => self.set_state(uuid, DomainState::Paused { reason: PauseReason::User }),
            Op::Shutdown { .. } if deaf => {}
            Op::Shutdown { .. } => self.stop(uuid, StopCause::GuestShutdown),
            Op::Destroy { .. } => self.stop(uuid, StopCause::Destroyed),
            Op::Undefine { .. } => {
                self.domains.remove(&uuid);
                self.tell(Event::Removed { as_of: clock::now(), uuid, name });
            }
            Op::Read { .. } => {
                return self
                    .read(uuid)
                    .map(|domain| OpOutput::Domain(Box::new(domain)))
                    .ok_or(OpError::NoSuchDomain { uuid });
            }
            Op::GuestPing { .. } => return self.guest_ping(uuid),
            Op::GuestCommand { .. } => return self.guest_command(uuid),
            Op::StartPaused { .. } | Op::HostOffers | Op::SetAutostart { .. } | Op::Migrate { .. } => {}
        }
        Ok(OpOutput::Done)
    }

    fn set_state(&mut self, uuid: DomainUuid, wanted: DomainState) {
        if let Some(domain) = self.domains.get_mut(&uuid)
            && domain.state != wanted
        {
            domain.state = wanted;
            self.changed(uuid);
        }
    }

    fn start_paused(&mut self, uuid: DomainUuid, xml: &str) -> Result<OpOutput, OpError> {
        if let Some(domain) = self.domains.get(&uuid).filter(|domain| domain.state.is_active()) {
            return Ok(OpOutput::AlreadyActive { uuid, pid: domain.pid });
        }
        let existed = self.domains.contains_key(&uuid);
        let (_, replaced) = self.define(xml)?;
        let started = self.power_on(uuid, DomainState::Paused { reason: PauseReason::User });
        if started.is_err() {
            match replaced {
                Some(before) if existed => drop(self.define(&before)?),
                Some(_) | None => drop(self.domains.remove(&uuid)),
            }
        } else {
            self.changed(uuid);
        }
        started.map(|pid| OpOutput::Started { uuid, pid: Some(pid) })
    }
}

/// What can still be told of a state when the events were missed.
fn without_events(state: DomainState) -> DomainState {
    match state {
        DomainState::ShutOff { cause: StopCause::GuestShutdown | StopCause::HostSignal } => {
            DomainState::ShutOff { cause: StopCause::Shutdown }
        }
        DomainState::ShutOff { cause: StopCause::QemuDied | StopCause::GuestPanicked } => {
            DomainState::ShutOff { cause: StopCause::Crashed }
        }
        DomainState::ShutOff { .. }
        | DomainState::Running
        | DomainState::Paused { .. }
        | DomainState::ShuttingDown
        | DomainState::Crashed
        | DomainState::PmSuspended
        | DomainState::NoState => state,
    }
}

/// A panic elsewhere is that test's failure already.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
